"""The checker sees each thing that it is there to see, and nothing where nothing is."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mta.mail.event import EventType
from tests.crash import torn
from tests.crash.checker import Arrival, Remains, judge, judge_arrivals
from tests.crash.ledger import Outcome
from tests.crash.letters import by_http, is_whole, letter, recipients_of, sender_of, tag_of, tags_of
from tests.crash.torn import Keep, Said, Sync, Trace, Write

WAITS = next(f"s{n}" for n in range(100) if len(recipients_of(f"s{n}")) == 2)
ENDED = "h7"
REQUEST = next(tags for n in range(100) if len(tags := tags_of(f"c{n}")) > 1)
OUTCOMES = {
    WAITS: Outcome.ACKED, ENDED: Outcome.ACKED, "s998": Outcome.REFUSED, "s999": Outcome.UNKNOWN,
    **dict.fromkeys(REQUEST, Outcome.OFFERED),
}  # fmt: skip


def as_promised() -> Remains:
    """One acknowledged letter waits, one has been delivered; a request waits of which nobody was told."""
    remains = Remains()
    remains.accepted.update([WAITS, ENDED, *REQUEST])
    for tag in (WAITS, *REQUEST):
        remains.waiting[tag] |= set(recipients_of(tag))
    for each in recipients_of(ENDED):
        remains.ends[each].append(EventType.DELIVERED)
    return remains


def test_what_is_as_promised_is_good() -> None:
    assert not judge(OUTCOMES, as_promised())


def _one_gone(remains: Remains) -> None:
    remains.waiting[WAITS].discard(recipients_of(WAITS)[0])


def _all_gone(remains: Remains) -> None:
    remains.accepted.pop(WAITS)
    remains.waiting.pop(WAITS)


def _ended_twice(remains: Remains) -> None:
    remains.ends[recipients_of(ENDED)[0]].append(EventType.BOUNCED)


def _ended_and_waits(remains: Remains) -> None:
    remains.waiting[ENDED].add(recipients_of(ENDED)[0])


def _accepted_twice(remains: Remains) -> None:
    remains.accepted[WAITS] += 1


def _bounced_untold(remains: Remains) -> None:
    recipient = recipients_of(WAITS)[0]
    remains.waiting[WAITS].discard(recipient)
    remains.ends[recipient].append(EventType.BOUNCED)


def _half_of_an_unknown(remains: Remains) -> None:
    remains.accepted["s999"] += 1


def _half_of_a_request(remains: Remains) -> None:
    remains.accepted.pop(REQUEST[1])
    remains.waiting.pop(REQUEST[1])


def _stranger(remains: Remains) -> None:
    remains.waiting[WAITS].add("nobody-0@d0.test")


def _refused_is_there(remains: Remains) -> None:
    remains.accepted["s998"] += 1
    remains.waiting["s998"] |= set(recipients_of("s998"))


def _never_offered(remains: Remains) -> None:
    remains.accepted["s1000"] += 1
    remains.waiting["s1000"] |= set(recipients_of("s1000"))


@pytest.mark.parametrize(
    ("breaks", "where"),
    [
        (_one_gone, "lost"),
        (_one_gone, "half"),
        (_all_gone, "lost"),
        (_ended_twice, "half"),
        (_ended_and_waits, "half"),
        (_accepted_twice, "half"),
        (_bounced_untold, "half"),
        (_half_of_an_unknown, "half"),
        (_half_of_a_request, "half"),
        (_stranger, "half"),
        (_refused_is_there, "ghosts"),
        (_never_offered, "ghosts"),
    ],
)
def test_what_is_broken_is_seen(breaks: Callable[[Remains], None], where: str) -> None:
    remains = as_promised()
    breaks(remains)
    assert getattr(judge(OUTCOMES, remains), where)


def test_what_still_waits_after_draining_is_seen() -> None:
    assert judge(OUTCOMES, as_promised(), drained=True).half


def arrived(recipient: str, transaction: int, connection: int = 1, *, whole: bool = True) -> Arrival:
    return Arrival(recipient, "", transaction, connection, whole)


def ended_arrivals() -> list[Arrival]:
    return [arrived(each, number) for number, each in enumerate(recipients_of(ENDED))]


def test_arrivals_as_promised_are_good() -> None:
    seen = judge_arrivals(OUTCOMES, as_promised(), ended_arrivals(), {})
    assert not any(seen)


def test_a_repetition_is_excused_for_the_uncertain_transaction_of_a_connection_and_no_other() -> None:
    recipient = recipients_of(ENDED)[0]
    again = [arrived(recipient, 50), *ended_arrivals()]
    assert judge_arrivals(OUTCOMES, as_promised(), again, {}).duplicates
    assert judge_arrivals(OUTCOMES, as_promised(), again, {51: 1}).duplicates
    seen = judge_arrivals(OUTCOMES, as_promised(), again, {50: 1})
    assert (seen.duplicates, seen.excused) == ([], 1)
    thrice = [arrived(recipient, 50), arrived(recipient, 51), *ended_arrivals()]
    assert len(judge_arrivals(OUTCOMES, as_promised(), thrice, {50: 1, 51: 1}).duplicates) == 1


def test_dsns_to_one_sender_are_not_repetitions() -> None:
    dsns = [Arrival(sender_of(ENDED), message, 60, 2, whole=True) for message in ("<a>", "<b>")]
    assert not any(judge_arrivals(OUTCOMES, as_promised(), [*ended_arrivals(), *dsns], {}))
    assert judge_arrivals(OUTCOMES, as_promised(), [*ended_arrivals(), dsns[0], dsns[0]], {}).duplicates


def test_arrivals_that_cannot_be_are_seen() -> None:
    good = ended_arrivals()
    assert judge_arrivals(OUTCOMES, as_promised(), [good[0]._replace(whole=False), *good[1:]], {}).torn
    assert judge_arrivals(OUTCOMES, as_promised(), [*good, arrived(recipients_of("s998")[0], 70)], {}).ghosts
    assert judge_arrivals(OUTCOMES, as_promised(), good[1:], {}).untold, "told, but did not arrive"
    assert judge_arrivals(OUTCOMES, as_promised(), [*good, arrived(recipients_of(WAITS)[0], 70)], {}).untold


@pytest.mark.parametrize("tag", ["s1", "s2", "c3x4", REQUEST[2]])
def test_a_letter_says_whether_it_is_whole(tag: str) -> None:
    content = b"Received: by relay.test\r\n" + letter(tag)
    assert not by_http(tag)
    assert is_whole(content, tag)
    assert not is_whole(content[:-3], tag)
    assert not is_whole(content.replace(b"a", b"b", 1), f"{tag}0")
    assert {tag_of(each) for each in (*recipients_of(tag), sender_of(tag))} == {tag}


def _trace() -> Trace:
    """Two pages and a sync, an acknowledgement, then two pages that nobody waits for; one through O_DSYNC."""
    return Trace(
        writes=[
            Write(0, b"A" * 1024, 0, 1, dsync=False),
            Write(1024, b"B" * 1024, 2, 3, dsync=False),
            Write(0, b"C" * 1024, 10, 11, dsync=False),
            Write(1024, b"D" * 512, 12, 13, dsync=True),
        ],
        syncs=[Sync(4, 5)],
        said=[Said("acked x", 6)],
        lines=20,
    )


def test_crash_states_keep_what_was_synced_and_any_part_of_the_rest() -> None:
    seen: dict[Keep, set[bytes]] = {}
    for state in torn.states(b"", _trace(), 2000, random.Random(1)):
        seen.setdefault(state.keep, set()).add(state.image)
        assert (state.said == ["acked x"]) == (state.at >= 6)
        if state.at >= 5:
            assert state.image[1536:] == b"B" * 512, "synced, and not written again"
        if state.at >= 13:
            assert state.image[1024:1536] == b"D" * 512, "an O_DSYNC write that has returned"
        if state.at < 10 and len(state.image) >= 1024:
            assert set(state.image[:1024]) <= set(b"A\0")
    whole, half = b"C" * 1024 + b"D" * 512 + b"B" * 512, b"C" * 512 + b"A" * 512 + b"D" * 512 + b"B" * 512
    assert whole in seen[Keep.ALL]
    assert half in seen[Keep.SECTORS]
    assert half in seen[Keep.PREFIX]
    assert bytes(1024) + b"B" * 1024 in seen[Keep.SOME], "the later write without the earlier"
    assert b"" in seen[Keep.NOTHING]


def test_a_trace_is_read_with_calls_that_another_thread_interrupts(tmp_path: Path) -> None:
    lines = [
        '7 openat(AT_FDCWD, "\\x2f\\x64", O_RDWR|O_CREAT, 0600) = 5',
        '7 openat(AT_FDCWD, "\\x2f\\x64", O_WRONLY|O_DSYNC|O_CLOEXEC) = 6',
        '7 openat(AT_FDCWD, "\\x2f\\x65", O_RDWR) = 8',
        '9 pwrite64(5, "\\x41\\x42", 2, 4096 <unfinished ...>',
        '7 write(1, "\\x61\\x0a", 2) = 2',
        "9 <... pwrite64 resumed>) = 2",
        "9 lseek(5, 8192, SEEK_SET) = 8192",
        '9 writev(5, [{iov_base="\\x43", iov_len=1}, {iov_base="\\x44", iov_len=1}], 2) = 2',
        "9 fdatasync(5 <unfinished ...>",
        '7 pwrite64(8, "\\x45", 1, 0) = 1',
        "9 <... fdatasync resumed>) = 0",
        '9 pwrite64(6, "\\x46", 1, 0) = 1',
        "9 fdatasync(8) = 0",
        "9 +++ exited with 0 +++",
    ]
    file = tmp_path / "trace"
    file.write_text("\n".join(lines))
    trace = torn.read_trace(file, Path("/d"))
    assert trace.writes == [
        Write(4096, b"AB", 3, 5, dsync=False),
        Write(8192, b"CD", 7, 7, dsync=False),
        Write(0, b"F", 11, 11, dsync=True),
    ]
    assert trace.syncs == [Sync(8, 10)]
    assert trace.said == [Said("a", 4)]
