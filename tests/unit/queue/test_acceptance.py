"""A submission as records: how recipients become entries, and when their sender hears of a delay."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.ids import new_message_id
from mta.queue.acceptance import Lifetimes, acceptance
from mta.queue.submission import Submission
from mta.spool.interface import Acceptance
from mta.spool.records import Origin, Timer

LIFETIMES = Lifetimes(expiry=1000.0, delay_notice=100.0)


def accepted(
    *recipients: Recipient, sender: str = "s@a.test", lifetimes: Lifetimes = LIFETIMES, **times: Any
) -> Acceptance:
    envelope = Envelope(sender=sender, recipients=recipients, **times)
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


@pytest.mark.parametrize(
    ("times", "expires_at", "timer_at"),
    [
        ({"deliver_by": 60.0}, 60.0, (Timer.EXPIRY, 60.0)),
        ({"deliver_by": 200.0, "by_mode": "RT"}, 200.0, (Timer.DELAY_NOTICE, 150.0)),
        ({"deliver_by": 5000.0, "by_mode": "R"}, 1050.0, (Timer.DELAY_NOTICE, 150.0)),  # it makes nothing live longer
        ({"deliver_by": 60.0, "by_mode": "N"}, 1050.0, (Timer.DELAY_NOTICE, 60.0)),
        ({"deliver_by": 60.0, "by_mode": "NT"}, 1050.0, (Timer.DELAY_NOTICE, 60.0)),
        ({"deliver_by": 40.0, "by_mode": "N"}, 1050.0, (Timer.DELAY_NOTICE, 150.0)),  # over before it came
        ({"deliver_by": 5000.0, "by_mode": "N"}, 1050.0, (Timer.EXPIRY, 1050.0)),
        ({"release_at": 500.0}, 1500.0, (Timer.DELAY_NOTICE, 600.0)),
        ({"release_at": 500.0, "deliver_by": 510.0}, 510.0, (Timer.EXPIRY, 510.0)),
        ({"release_at": 40.0}, 1050.0, (Timer.DELAY_NOTICE, 150.0)),
    ],
)
def test_a_deadline_and_a_release(times: dict[str, Any], expires_at: float, timer_at: tuple[Timer, float]) -> None:
    made = accepted(Recipient("a@x.test"), **times)
    assert (made.message.expires_at, made.entries[0].expires_at) == (expires_at, expires_at)
    assert timer(made) == timer_at
    release_at = max(50.0, times.get("release_at", 0))
    assert (made.message.release_at, made.entries[0].due_at) == (release_at, release_at)
    (event,) = made.events
    assert event.deliver_by == times.get("deliver_by", 0)
    assert event.release_at == (release_at if release_at > 50 else 0)


@pytest.mark.parametrize("asked", ["yes", "no", ""])
def test_requiretls_is_kept_and_told(asked: str) -> None:
    made = accepted(Recipient("a@x.test"), tls_required=asked)
    assert made.message.tls_required == asked
    assert made.events[0].tls_required == asked
