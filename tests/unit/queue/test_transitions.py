"""What becomes of an entry, at the edges."""

import msgspec
import pytest

from mta.config import Retry
from mta.mail.dsn import DsnKind
from mta.mail.envelope import Notify, Recipient
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Scope, Verdict
from mta.queue import transitions
from mta.queue.job import Job
from mta.queue.transitions import Transition
from mta.spool.records import Entry, Hold, MessageClass, RecipientState, State, Wish
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
        ("N", OK, Notify.FAILURE, True),
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


def broken_off(**known: str) -> Entry:
    accepted = a_message()
    entry = msgspec.structs.replace(accepted.entries[0], **known)
    ours = Result(Verdict.DEFERRED, Reply(451, "4.4.7", "broken off"), Scope.US, remote=False)
    outcome = Outcome(
        results=(ours,), started_at=NOW, ended_at=NOW, site="mx", relay="b[2]:25", counted=False, broken_off=True
    )
    return transitions.attempted(Job(entry, accepted.message, CLAIM), outcome, NOW, Retry(), lambda: 0.5).after


def test_what_is_broken_off_leaves_what_was_heard_before() -> None:
    known = {"last_reply": "451 4.7.1 later", "last_relay": "a[1]:25", "again_at": "a[1]:25", "again_from": "one"}
    after = broken_off(**known)
    assert {name: getattr(after, name) for name in known} == known
    assert (after.attempts, after.last_attempt_at) == (1, NOW)
    first = broken_off()
    assert (first.last_reply, first.last_relay) == ("451 4.4.7 broken off", "b[2]:25")


@pytest.mark.parametrize(
    ("notify", "expired", "delayed"),
    [
        (Notify.UNSET, True, True),
        (Notify.NEVER, False, False),
        (Notify.SUCCESS, False, False),
        (Notify.FAILURE, True, False),  # BY with N asks for what NOTIFY leaves (RFC 2852 4.1.4, RFC 3461 4.1)
        (Notify.DELAY, False, True),
    ],
)
@pytest.mark.parametrize("by_mode", ["", "R", "N", "NT"])
def test_whom_notify_lets_hear_of_a_deadline(by_mode: str, notify: Notify, expired: bool, delayed: bool) -> None:
    made = a_message()
    message = msgspec.structs.replace(made.message, deliver_by=NOW, by_mode=by_mode)
    waiting = (RecipientState(Recipient("a@x.test", notify=int(notify))),)
    entry = msgspec.structs.replace(made.entries[0], recipients=waiting)
    assert (DsnKind.EXPIRED in transitions.expired(message, entry, NOW).reports) is expired
    assert (DsnKind.DELAYED in transitions.delay_noticed(entry).reports) is delayed


@pytest.mark.parametrize(("by_mode", "status"), [("R", "5.4.7"), ("", "5.4.7"), ("N", "4.4.7")])
def test_expired_by_a_deadline_or_by_age(by_mode: str, status: str) -> None:
    made = a_message()
    message = msgspec.structs.replace(made.message, deliver_by=made.message.expires_at, by_mode=by_mode)
    transition = transitions.expired(message, made.entries[0], NOW)
    assert {each.status for each in transition.events} == {status}
    (reported, *_) = transition.reports[DsnKind.EXPIRED]
    assert reported.reply.enhanced == status


OPERATORS, TENANTS = Wish(held=True, reason="by the operator"), Wish(held=True, reason="by key x", by_tenant=True)
RELEASE, TENANTS_RELEASE = Wish(held=False, reason="by the operator"), Wish(held=False, by_tenant=True)


def after(*wishes: Wish) -> Entry:
    accepted = a_message()
    entry = accepted.entries[0]
    for number, wish in enumerate(wishes):
        entry = transitions.wished(accepted.message, entry, wish, NOW + number).after
    return entry


def test_an_entry_says_who_holds_it() -> None:
    assert after(OPERATORS).hold == Hold(NOW, "by the operator", by_tenant=False)
    assert after(TENANTS).hold == Hold(NOW, "by key x", by_tenant=True)
    for released in (after(OPERATORS, RELEASE), after(TENANTS, RELEASE), after(TENANTS, TENANTS_RELEASE)):
        assert (released.held, released.hold) == (False, None)
    assert after(OPERATORS, Wish(message_class=MessageClass.BULK)).hold == Hold(NOW, "by the operator")
    assert after(TENANTS, TENANTS).hold == after(TENANTS).hold  # held since the first


def test_a_tenant_does_not_undo_what_an_operator_holds() -> None:
    assert after(OPERATORS, TENANTS_RELEASE).hold == Hold(NOW, "by the operator")
    assert after(OPERATORS, TENANTS, TENANTS_RELEASE).held
    assert after(TENANTS, OPERATORS, TENANTS_RELEASE).hold == Hold(NOW + 1, "by the operator")  # who takes it over
    accepted = a_message()
    before = msgspec.structs.replace(accepted.entries[0], held=True)  # by an earlier version
    assert transitions.wished(accepted.message, before, TENANTS_RELEASE, NOW).after == before
    assert not transitions.wished(accepted.message, before, RELEASE, NOW).after.held


@pytest.mark.parametrize(
    ("earlier", "later", "held", "by_tenant"),
    [
        (OPERATORS, TENANTS_RELEASE, True, False),
        (RELEASE, TENANTS, False, False),
        (TENANTS, TENANTS_RELEASE, False, True),
        (TENANTS, OPERATORS, True, False),
        (OPERATORS, Wish(message_class=MessageClass.BULK, by_tenant=True), True, False),
        (Wish(relay="x:25"), TENANTS, True, True),
    ],
)
def test_nor_in_flight(earlier: Wish, later: Wish, held: bool, by_tenant: bool) -> None:
    both = transitions.wish_after(earlier, later)
    assert (both.held, both.by_tenant) == (held, by_tenant)
    assert both.relay == earlier.relay
