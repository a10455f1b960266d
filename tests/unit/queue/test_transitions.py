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
NEVER = Result(Verdict.FAILED, Reply(550, "5.1.1", "no such user"))


def attempted(recipients: tuple[RecipientState, ...], *results: Result) -> Transition:
    accepted = a_message()
    entry = msgspec.structs.replace(accepted.entries[0], recipients=recipients)
    outcome = Outcome(results=results, started_at=NOW, ended_at=NOW, site="mx")
    return transitions.attempted(Job(entry, accepted.message, CLAIM), outcome, NOW, Retry(), lambda: 0.5)


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
