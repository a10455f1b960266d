"""What is known of sites: nothing of those that taught nothing, which are dead and until when, what they said."""

import pytest

from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Scope, Verdict
from mta.queue import sites as module
from mta.queue.sites import Sites
from mta.queue.window import DEAD_FIRST, FIRST, was_reached

REFUSED = Reply(451, "4.4.1", "connection failed")


def outcome(verdict: Verdict, scope: Scope, reply: Reply = REFUSED, relay: str = "mx.test[192.0.2.1]:25") -> Outcome:
    return Outcome(results=(Result(verdict, reply, scope),), started_at=0.0, ended_at=0.0, relay=relay)


TAKEN = outcome(Verdict.DELIVERED, Scope.RECIPIENT, Reply(250, "2.0.0", "taken"))
UNREACHED = outcome(Verdict.DEFERRED, Scope.HOST)


@pytest.mark.parametrize(
    ("what", "reached"),
    [
        (TAKEN, True),
        (outcome(Verdict.FAILED, Scope.RECIPIENT), True),
        (outcome(Verdict.DEFERRED, Scope.MESSAGE), True),
        (UNREACHED, False),
        (outcome(Verdict.DEFERRED, Scope.SITE), False),
        (outcome(Verdict.DEFERRED, Scope.HOST, relay=""), False),
        (outcome(Verdict.DEFERRED, Scope.US), None),  # the mistake is ours
        (outcome(Verdict.FAILED, Scope.RECIPIENT, relay=""), None),  # nobody was asked: no such domain
    ],
)
def test_what_an_attempt_says_of_its_site(what: Outcome, reached: bool | None) -> None:
    assert was_reached(what) is reached


def test_a_dead_site_is_revived_once_and_dies_again_for_longer() -> None:
    sites = Sites[str](20)
    changes = [sites.learn("x", UNREACHED, 100.0) for _ in range(4)]
    assert changes == [-1, -1, -1, -2]
    assert sites.dead_for("x", 110.0) == sites.next_revival(110.0) == DEAD_FIRST - 10
    assert not sites.room("x", 0, 110.0)
    assert sites.revive(110.0) == []
    assert sites.revive(100.0 + DEAD_FIRST) == ["x"]
    assert sites.revive(100.0 + DEAD_FIRST) == []
    assert sites.next_revival(100.0 + DEAD_FIRST) is None
    assert sites.room("x", 0, 100.0 + DEAD_FIRST)
    assert sites.learn("x", UNREACHED, 200.0) == 0
    assert sites.dead_for("x", 200.0) == 2 * DEAD_FIRST
    assert sites.learn("x", TAKEN, 300.0) == 1
    assert sites.dead_for("x", 300.0) == 0


def test_what_says_nothing_of_a_site_leaves_it_unknown() -> None:
    sites = Sites[str](20)
    assert sites.learn("x", outcome(Verdict.DEFERRED, Scope.US), 1.0) == 0
    assert list(sites) == []
    assert sites.room("x", FIRST - 1, 1.0)
    assert not sites.room("x", FIRST, 1.0)


def test_a_site_as_operators_see_it() -> None:
    sites = Sites[str](20)
    sites.learn("x", TAKEN, 10.0)
    row = sites.row("x", at_work=3, lanes=7, now=12.5)
    assert (row.site, row.at_work, row.window, row.lanes, row.dead_for) == ("x", 3, 5, 7, 0.0)
    assert (row.reply, row.silent_for) == ("250 2.0.0 taken", 2.5)


def test_the_sites_that_taught_nothing_for_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    sites = Sites[int](20)
    for site in (1, 2, 3, 1, 4):
        sites.learn(site, TAKEN, 1.0)
    assert list(sites) == [3, 1, 4]
