"""What an attempt says of a site, and what a pace remembers over a restart."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
from mta.queue.learned import Learned
from mta.queue.pace import REMEMBERED, Pace, met, says_too_much
from mta.queue.shaping import Provider
from mta.queue.window import DEAD_FIRST, FIRST, Met

TAKEN = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "taken"))
LOST = Result(Verdict.DEFERRED, Reply(451, "4.4.2", "connection lost"), Scope.HOST, remote=False)


def said(code: int, enhanced: str = "", scope: Scope = Scope.HOST, verdict: Verdict = Verdict.DEFERRED) -> Result:
    return Result(verdict, Reply(code, enhanced, "words"), scope)


def outcome(*results: Result, reach: Reach, closed_after: int = 0) -> Outcome:
    return Outcome(results=results, started_at=0.0, ended_at=0.0, site="mx", reach=reach, closed_after=closed_after)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (outcome(TAKEN, reach=Reach.TRANSACTION), Met.REACHED),
        (outcome(said(550, "5.1.1", Scope.RECIPIENT, Verdict.FAILED), reach=Reach.TRANSACTION), Met.REACHED),
        # once MAIL was accepted nothing is a failure of the host: 421 to RCPT or after the dot, content lost
        (outcome(said(421, "4.3.2"), reach=Reach.TRANSACTION), Met.REACHED),
        (outcome(LOST, reach=Reach.TRANSACTION), Met.REACHED),
        (outcome(TAKEN, LOST, reach=Reach.TRANSACTION), Met.REACHED),
        # in a session, what the site says shows that it works, and silence that it does not
        (outcome(said(421, "4.7.0"), reach=Reach.SESSION), Met.REACHED),
        (outcome(said(550, "5.7.1", Scope.MESSAGE, Verdict.FAILED), reach=Reach.SESSION), Met.REACHED),
        (outcome(LOST, reach=Reach.SESSION), Met.FAILED),
        # our own verdict on what is offered
        (
            outcome(msgspec.structs.replace(LOST, scope=Scope.MESSAGE), reach=Reach.SESSION),
            Met.REACHED,
        ),
        (outcome(said(421), reach=Reach.HOST), Met.TURNED_AWAY),
        (outcome(said(450), reach=Reach.HOST), Met.TURNED_AWAY),
        (outcome(said(554), reach=Reach.HOST), Met.FAILED),
        (outcome(LOST, reach=Reach.HOST), Met.FAILED),
        (outcome(LOST, reach=Reach.NOBODY), Met.NOTHING),
        (outcome(msgspec.structs.replace(LOST, scope=Scope.US), reach=Reach.SESSION), Met.NOTHING),
    ],
)
def test_what_an_attempt_says_of_its_site(what: Outcome, says: Met) -> None:
    assert met(what) is says


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (said(421), True),
        (said(451, "4.7.28"), True),
        (said(450, "4.3.2"), True),
        (said(451, "4.4.5", Scope.RECIPIENT), True),
        (said(451, "4.7.1", Scope.RECIPIENT), False),
        (said(550, "5.7.28", verdict=Verdict.FAILED), False),
        (msgspec.structs.replace(said(421), remote=False), False),  # our own words
        (TAKEN, False),
    ],
)
def test_too_much_is_what_the_site_itself_says(result: Result, says: bool) -> None:
    assert says_too_much(outcome(result, reach=Reach.TRANSACTION)) is says


def attempt(pace: Pace, now: float, what: Outcome | None) -> bool:
    return pace.ended(pace.started(now, dials=True), what, now)


def test_a_refusal_of_a_connection_beside_others_is_a_matter_of_numbers_alone_it_is_one_of_the_rate() -> None:
    pace, refused = Pace(20), outcome(said(421), reach=Reach.HOST)
    others = [pace.started(0.0, dials=True) for _ in range(3)]
    assert attempt(pace, 0.0, refused)
    assert (pace.window.size, pace.rate.rate) == (3, float("inf"))
    for each in others:
        pace.ended(each, outcome(TAKEN, reach=Reach.TRANSACTION), 1.0)
    attempt(pace, 2.0, refused)
    assert pace.rate.rate < 1


def test_a_rule_can_say_that_it_was_not_too_much_or_that_it_was() -> None:
    pace = Pace(20)
    pace.ended(pace.started(0.0, dials=True), outcome(said(421), reach=Reach.SESSION), 0.0, too_much=False)
    assert pace.rate.rate == float("inf")
    pace.ended(pace.started(0.0, dials=True), outcome(said(451), reach=Reach.SESSION), 0.0, too_much=True)
    assert pace.rate.rate < 1


def test_a_site_that_ends_connections_after_a_number_of_deliveries_is_not_slowed_for_it() -> None:
    pace = Pace(20)
    for _ in range(3):
        attempt(pace, 0.0, outcome(TAKEN, reach=Reach.TRANSACTION, closed_after=20))
    assert (pace.deliveries, pace.rate.rate) == (20, float("inf"))


def test_messages_refused_for_their_own_sake_were_taken_up() -> None:
    pace, unknown = Pace(20), outcome(said(550, "5.1.1", Scope.RECIPIENT, Verdict.FAILED), reach=Reach.TRANSACTION)
    for second in range(60):
        attempt(pace, float(second), unknown)
    attempt(pace, 60.0, outcome(said(421), reach=Reach.SESSION))
    assert pace.rate.rate == pytest.approx(0.92, rel=0.05)


def test_where_the_rate_is_limited_a_kept_connection_ended_early_is_a_refusal() -> None:
    pace = Pace(20)
    attempt(pace, 0.0, outcome(said(421), reach=Reach.SESSION))
    attempt(pace, 100.0, outcome(TAKEN, reach=Reach.TRANSACTION))
    before = pace.rate.rate
    attempt(pace, 200.0, outcome(TAKEN, reach=Reach.TRANSACTION, closed_after=7))
    assert pace.rate.rate < before


def test_what_the_provider_allows_is_kept_to_for_messages_and_for_new_connections() -> None:
    pace = Pace(20)
    provider = Provider.model_validate(
        {"name": "x", "mx": ["x.test"], "connections": 2, "messages": "60/1m", "new_connections": "6/1m"}
    )
    pace.run_by(provider, 20)
    pace.started(0.0, dials=True)
    assert pace.when(0.0, dials=False) == 1.0
    assert pace.when(0.0, dials=True) == 10.0
    pace.started(10.0, dials=False)
    assert pace.when(30.0, dials=False) == float("inf")  # two are at work


def test_only_what_is_at_rest_may_be_forgotten() -> None:
    pace = Pace(20)
    assert pace.at_rest(0.0)
    begun = pace.started(0.0, dials=True)
    assert not pace.at_rest(0.0)
    pace.ended(begun, None, 0.0)
    assert pace.at_rest(0.0)
    for _ in range(FIRST):
        attempt(pace, 1.0, outcome(LOST, reach=Reach.HOST))
    assert pace.window.size == 0
    assert not pace.at_rest(1.0 + DEAD_FIRST - 0.1)
    assert pace.at_rest(1.0 + DEAD_FIRST)


def hangs_up(dialled: int) -> Outcome:
    return msgspec.structs.replace(outcome(TAKEN, reach=Reach.TRANSACTION), dialled=dialled)


def test_new_connections_are_held_to_where_the_peer_hangs_up_after_each_message() -> None:
    """Red when an attempt that was to use a connection again is believed to have: 360 in the first minute."""
    pace = Pace(20)
    pace.run_by(Provider.model_validate({"name": "x", "mx": ["x.test"], "new_connections": "6/1m"}), 20)
    now, dialled, first = 0.0, 0, True
    while now <= 600.0:
        pace.ended(pace.started(now, dials=first), hangs_up(1), now + 0.1)
        dialled, first = dialled + 1, False
        now = max(now + 0.1, pace.when(now + 0.1, dials=False))
    assert dialled <= 62
    for _ in range(100):  # it hangs up no more
        now = max(now, pace.when(now, dials=False))
        pace.ended(pace.started(now, dials=False), hangs_up(0), now)
    assert pace.when(now, dials=False) == now
    assert pace.when(now + 10, dials=True) == now + 10  # nothing was charged for these
    for dials in (True, False, True):  # whoever dials three hosts is charged for three
        pace.ended(pace.started(now + 10, dials=dials), hangs_up(3), now + 10)
    assert pace.when(now + 20, dials=True) == now + 10 + 8 * 10 + 10


def learned_pace() -> Pace:
    pace = Pace(20)
    begun = [pace.started(0.0, dials=True) for _ in range(3)]
    pace.ended(begun[2], outcome(said(421), reach=Reach.HOST), 0.0)
    for each in begun[:2]:
        pace.ended(each, outcome(TAKEN, reach=Reach.TRANSACTION), 0.0)
    attempt(pace, 0.0, outcome(said(421), reach=Reach.SESSION))
    return pace


def test_what_was_learned_is_there_again_and_is_not_believed_for_ever() -> None:
    pace = learned_pace()
    record = pace.learned("192.0.2.1", "site", now=100.0, wall=1e9)
    assert record is not None
    assert record.learned_at == 1e9 - 100
    record = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Learned)
    again = Pace(20)
    again.recall(record, 3600.0, now=5.0)
    assert again.rate.rate == pace.rate.rate
    assert (again.window.size, again.window.ceiling) == (2, 3)
    forgotten = Pace(20)
    forgotten.recall(record, REMEMBERED + 1, now=5.0)
    assert (forgotten.rate.rate, forgotten.window.size) == (float("inf"), FIRST)


def test_nothing_learned_is_no_record() -> None:
    assert Pace(20).learned("s", "x", 0.0, 1e9) is None


HUGE = {"ceiling": 1.0, "factor": 0.5, "scale": 1.0, "climbed": 1e300, "learned_at": 0.0, "connections": 1}


@example(HUGE)
@given(
    st.fixed_dictionaries(
        {
            "ceiling": st.none() | st.floats(),
            "factor": st.floats(),
            "scale": st.floats(),
            "climbed": st.floats(),
            "learned_at": st.floats(),
            "connections": st.integers(-2, 10**6),
            "connections_refused": st.none() | st.integers(-2, 10**6),
            "connections_refused_for": st.floats(),
            "deliveries": st.integers(-2, 100),
        }
    )
)
def test_a_record_that_was_edited_is_refused_or_can_be_used(fields: dict[str, float]) -> None:
    try:
        record = Learned(source="s", site="x", **fields)
    except ValueError:
        return
    pace = Pace(20)
    pace.recall(record, 60.0, 0.0)
    assert pace.rate.rate > 0
    assert pace.when(0.0, dials=True) == 0.0
    assert attempt(pace, 0.0, outcome(said(421), reach=Reach.SESSION))
    assert pace.when(0.0, dials=True) <= 700.0
