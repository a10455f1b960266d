"""What becomes of an entry, at the edges."""

import msgspec
import pytest

from mta.config import Retry
from mta.mail.dsn import DsnKind
from mta.mail.envelope import Notify, Recipient
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue import transitions
from mta.queue.job import Job
from mta.queue.transitions import Transition
from mta.spool.records import RecipientState, State
from tests.contract.spool_contract import CLAIM, NOW, a_message

OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later"))
RELAYED = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"), relayed=True)
TIMED = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"), timed=True)
NEVER = Result(Verdict.FAILED, Reply(550, "5.1.1", "no such user"))


def attempted(recipients: tuple[RecipientState, ...], *results: Result, **message: object) -> Transition:
    accepted = a_message()
    entry = msgspec.structs.replace(accepted.entries[0], recipients=recipients)
    outcome = Outcome(results=results, started_at=NOW, ended_at=NOW, site="mx")
    about = msgspec.structs.replace(accepted.message, **message)
    return transitions.attempted(Job(entry, about, CLAIM), outcome, NOW, Retry(), lambda: 0.5)


def states(transition: Transition) -> list[State]:
    return [each.state for each in transition.after.recipients]


def test_each_recipient_has_its_own_result_even_with_one_address() -> None:
    twice = (RecipientState(Recipient("a@x.test")),) * 2
    transition = attempted(twice, OK, NEVER)
    assert states(transition) == [State.DELIVERED, State.BOUNCED]
    assert [str(each.type) for each in transition.events] == ["delivered", "bounced"]


def test_who_has_ended_is_not_told_of_again() -> None:
    ended = RecipientState(Recipient("a@x.test"), State.BOUNCED)
    transition = attempted((ended, RecipientState(Recipient("b@x.test"))), LATER)
    assert states(transition) == [State.BOUNCED, State.QUEUED]
    assert [each.recipient for each in transition.events] == ["b@x.test"]
    assert transition.reports == {}


def test_results_that_are_too_few_change_nothing() -> None:
    with pytest.raises(ValueError, match="shorter"):
        attempted((RecipientState(Recipient("a@x.test")), RecipientState(Recipient("b@x.test"))), OK)


def test_one_report_names_all_that_failed_and_want_it_told() -> None:
    never = Recipient("quiet@x.test", notify=int(Notify.NEVER))
    both = Recipient("a@x.test"), Recipient("b@x.test", notify=int(Notify.FAILURE))
    transition = attempted(tuple(RecipientState(each) for each in (*both, never)), NEVER, NEVER, NEVER)
    assert [each.recipient.recipient for each in transition.reports[DsnKind.FAILED]] == list(both)
    assert transition.after.waiting == ()


@pytest.mark.parametrize(
    ("by_mode", "result", "notify", "told"),
    [
        ("", OK, Notify.UNSET, False),
        ("R", OK, Notify.UNSET, False),
        ("RT", TIMED, Notify.UNSET, True),
        ("RT", TIMED, Notify.FAILURE, True),
        ("RT", TIMED, Notify.NEVER, False),
        ("N", OK, Notify.UNSET, True),
        ("N", OK, Notify.NEVER, False),
        ("N", TIMED, Notify.UNSET, False),
        ("NT", TIMED, Notify.UNSET, True),
        ("", RELAYED, Notify.UNSET, False),
        ("", RELAYED, Notify.SUCCESS, True),
    ],
)
def test_who_hears_that_it_was_relayed(by_mode: str, result: Result, notify: Notify, told: bool) -> None:
    recipients = (RecipientState(Recipient("a@x.test", notify=int(notify))),)
    transition = attempted(recipients, result, deliver_by=NOW + 60, by_mode=by_mode)
    assert (DsnKind.RELAYED in transition.reports) is told


def test_past_its_time_nobody_hears_that_it_was_relayed_without_a_deadline() -> None:
    transition = attempted((RecipientState(Recipient("a@x.test")),), OK, deliver_by=NOW, by_mode="N")
    assert transition.reports == {}


@pytest.mark.parametrize(("by_mode", "status"), [("R", "5.4.7"), ("", "5.4.7"), ("N", "4.4.7")])
def test_expired_by_a_deadline_or_by_age(by_mode: str, status: str) -> None:
    made = a_message()
    message = msgspec.structs.replace(made.message, deliver_by=made.message.expires_at, by_mode=by_mode)
    transition = transitions.expired(message, made.entries[0], NOW)
    assert {each.status for each in transition.events} == {status}
    (reported, *_) = transition.reports[DsnKind.EXPIRED]
    assert reported.reply.enhanced == status
