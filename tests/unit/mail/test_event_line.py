"""The outcome's log line: Postfix's keys, and nothing from outside that could forge a key or a line."""

import ast
import shlex

from hypothesis import given
from hypothesis import strategies as st

from mta.mail.event import Event, EventType
from mta.mail.event_line import outcome_line, quoted


def event(**fields: object) -> Event:
    return Event(id="m.1.2", at=1_800_000_000.0, tenant="acme", message="m", **fields)  # type: ignore[arg-type]


def test_delivered() -> None:
    line = outcome_line(
        event(
            type=EventType.DELIVERED,
            recipient="bob@example.test",
            relay="mx1.example.test[192.0.2.1]:25",
            tls="TLSv1.3",
            delay=1.23456,
            status="2.0.0",
            reply="250 2.0.0 Ok: queued as 4F2",
        )
    )
    assert line == (
        "message=m to=bob@example.test relay=mx1.example.test[192.0.2.1]:25 tls=TLSv1.3 delay=1.23 "
        'status=delivered dsn=2.0.0 reply="250 2.0.0 Ok: queued as 4F2"'
    )


def test_the_source_is_named_where_there_are_any() -> None:
    line = outcome_line(event(type=EventType.DELIVERED, recipient="bob@example.test", relay="r", source_name="a"))
    assert line.startswith("message=m to=bob@example.test relay=r source=a tls=- ")


def test_what_does_not_apply_is_a_dash_and_a_reason_stands_for_a_reply() -> None:
    line = outcome_line(event(type=EventType.DROPPED, recipient="bob@example.test", reason="by hand"))
    assert line == 'message=m to=bob@example.test relay=- tls=- delay=0.00 status=dropped dsn=- reply="by hand"'


def test_a_reply_cannot_forge() -> None:
    line = outcome_line(
        event(
            type=EventType.BOUNCED,
            recipient='"a b"@example.test',
            reply='550 no"\r\nmessage=x status=delivered\x1b[2J\u202e\ud800',
        )
    )
    assert "\n" not in line
    assert line.isprintable()
    assert len(shlex.split(line)) == 8
    line.encode()


@given(st.text(st.characters(exclude_categories=())))
def test_quoting_can_be_read_back(value: str) -> None:
    shown = quoted(value)
    assert shown.isprintable()
    if shown.startswith('"'):
        assert ast.literal_eval(shown) == value
    else:
        assert shown == value
        assert not set(shown) & set(' ="\\')
        assert shown != "-"
