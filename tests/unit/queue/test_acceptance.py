"""A submission as records: how recipients become entries, and when their sender hears of a delay."""

from hypothesis import given
from hypothesis import strategies as st

from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.ids import new_message_id
from mta.queue.acceptance import Lifetimes, acceptance
from mta.queue.submission import Submission
from mta.spool.interface import Acceptance
from mta.spool.records import Origin, Timer

LIFETIMES = Lifetimes(expiry=1000.0, delay_notice=100.0)


def accepted(*recipients: Recipient, sender: str = "s@a.test", lifetimes: Lifetimes = LIFETIMES) -> Acceptance:
    envelope = Envelope(sender=sender, recipients=recipients)
    return acceptance(
        Submission(id=new_message_id(), tenant="t", envelope=envelope, origin=Origin.HTTP), 50.0, lifetimes
    )


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200)), min_size=1, max_size=300))
def test_every_recipient_is_in_one_entry_of_its_domain(recipients: list[tuple[int, int]]) -> None:
    given_ = [Recipient(f"u{user}@D{domain}.test") for domain, user in recipients]
    made = accepted(*given_)
    held = [(entry.domain, each.recipient) for entry in made.entries for each in entry.recipients]
    assert sorted(held, key=repr) == sorted(((each.domain, each) for each in given_), key=repr)
    assert [entry.number for entry in made.entries] == list(range(1, made.message.entries + 1))
    assert all(1 <= len(entry.recipients) <= 50 for entry in made.entries)
    (event,) = made.events
    assert event.recipients == tuple(each.address for each in given_)


def timer(made: Acceptance) -> tuple[Timer, float]:
    return made.entries[0].timer, made.entries[0].timer_at


def test_the_first_timer_is_the_delay_notice_only_if_somebody_gets_it() -> None:
    plain = Recipient("a@x.test")
    assert timer(accepted(plain)) == (Timer.DELAY_NOTICE, 150.0)
    assert timer(accepted(plain, sender="")) == (Timer.EXPIRY, 1050.0)
    assert timer(accepted(Recipient("a@x.test", notify=int(Notify.NEVER)))) == (Timer.EXPIRY, 1050.0)
    short = Lifetimes(expiry=100.0, delay_notice=100.0)
    assert timer(accepted(plain, lifetimes=short)) == (Timer.EXPIRY, 150.0)
