"""Behaviour by local part."""

import pytest

from mta.lab.behaviour import Behaviour, Judge, Kind, behaviour_of
from mta.lab.commands import Refused


@pytest.mark.parametrize(
    ("address", "behaviour"),
    [
        ("ok@a.test", Behaviour(Kind.OK)),
        ("anna.b@a.test", Behaviour(Kind.OK)),
        ("reject@a.test", Behaviour(Kind.REJECT)),
        ("Reject+42@a.test", Behaviour(Kind.REJECT)),
        ("rejected@a.test", Behaviour(Kind.OK)),
        ("full+x+y@a.test", Behaviour(Kind.FULL)),
        ("tempfail-2@a.test", Behaviour(Kind.TEMPFAIL, 2)),
        ("tempfail-10+tag@a.test", Behaviour(Kind.TEMPFAIL, 10)),
        ("tempfail@a.test", Behaviour(Kind.OK)),
        ("tempfail-x@a.test", Behaviour(Kind.OK)),
        ("tempfail-٣@a.test", Behaviour(Kind.OK)),
        ("greylist@a.test", Behaviour(Kind.GREYLIST)),
        ("slow@a.test", Behaviour(Kind.SLOW)),
        ("drop@a.test", Behaviour(Kind.DROP)),
        ("tarpit@a.test", Behaviour(Kind.TARPIT)),
        ('"reject"@a.test', Behaviour(Kind.OK)),
    ],
)
def test_a_local_part_names_its_behaviour(address: str, behaviour: Behaviour) -> None:
    assert behaviour_of(address) == behaviour


def code(judge: Judge, recipient: str, *, sender: str = "a@b.test", at: float = 0.0) -> str:
    try:
        judge.hear(sender, recipient, at)
    except Refused as refused:
        return str(refused)[:9]
    return "accepted"


def test_tempfail_counts_each_sender_and_recipient_and_begins_anew_after_a_message() -> None:
    judge = Judge(greylist=5)
    two, other = "tempfail-2@a.test", "tempfail-2+b@a.test"
    assert [code(judge, two), code(judge, other), code(judge, two)] == ["451 4.3.0"] * 3
    assert code(judge, two) == "accepted"
    assert code(judge, two) == "accepted"  # until a message is through: the transaction may have failed later
    assert code(judge, two, sender="c@d.test") == "451 4.3.0"
    judge.accepted("a@b.test", two)
    assert [code(judge, two) for _ in range(3)] == ["451 4.3.0", "451 4.3.0", "accepted"]
    assert [code(judge, other) for _ in range(2)] == ["451 4.3.0", "accepted"]


def test_greylisting_wants_a_second_try_after_its_time() -> None:
    judge = Judge(greylist=5)
    tries = [(0.0, "451 4.7.1"), (4.9, "451 4.7.1"), (5.0, "accepted"), (6.0, "accepted")]
    assert [(at, code(judge, "greylist@a.test", at=at)) for at, _ in tries] == tries
    judge.accepted("a@b.test", "greylist@a.test")
    assert code(judge, "greylist@a.test", at=7) == "451 4.7.1"


def test_greylisting_without_a_time_still_wants_a_second_try() -> None:
    judge = Judge(greylist=0)
    assert [code(judge, "greylist@a.test") for _ in range(2)] == ["451 4.7.1", "accepted"]


def test_refusals_for_good_stay() -> None:
    judge = Judge(greylist=5)
    assert [code(judge, "reject+1@a.test") for _ in range(3)] == ["550 5.1.1"] * 3
    assert [code(judge, "full@a.test") for _ in range(3)] == ["552 5.2.2"] * 3


def test_what_is_remembered_is_bounded() -> None:
    judge = Judge(greylist=5)
    assert code(judge, "tempfail-1+first@a.test") == "451 4.3.0"
    for number in range(10_000):
        code(judge, f"tempfail-1+{number}@a.test")
    assert code(judge, "tempfail-1+9999@a.test") == "accepted"
    assert code(judge, "tempfail-1+first@a.test") == "451 4.3.0"
