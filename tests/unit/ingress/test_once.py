"""The same message by a login that sends it but once; and rates at the end of data."""

import pytest

from mta.accounts.tolls import Rate
from mta.ingress.access import Identity
from mta.ingress.once import likeness_of
from mta.mail.envelope import Envelope, Notify, Recipient
from mta.spool.interface import Unavailable
from tests.unit.ingress.conftest import NOW
from tests.unit.ingress.test_arrival import BODY, DATED, LINES, PLAIN, send

LOGIN = Identity("alice", "printer", once=60.0)
LARGE = DATED + PLAIN + b"\r\n" + LINES
ENVELOPE = Envelope(sender="a@alice.test", recipients=(Recipient("b@x.test"), Recipient("c@x.test")))


def name(envelope: Envelope = ENVELOPE, login: Identity = LOGIN, content: bytes = DATED) -> str:
    likeness = likeness_of(login, DATED)
    assert likeness is not None
    likeness.add(content)
    return likeness.keep(envelope, "id", NOW).name


@pytest.mark.parametrize("content", [DATED + PLAIN + BODY, LARGE], ids=["small", "large"])
async def test_the_same_is_answered_with_the_first_id_and_not_queued(serve, make_listener, caplog, content: bytes):
    door = await serve(make_listener("submission"))
    door.people.once = 60.0
    first = await send(door, content)
    assert await send(door, content) == first
    assert await send(door, content + b"more\r\n") != first
    assert [first.endswith(each.id.encode() + b"\r\n") for each in door.queue.accepted] == [True, False]
    assert f"message={door.queue.accepted[0].id} taken=before" in caplog.text
    assert [each.aborted for each in door.store.writers] == [False, True, False][: len(door.store.writers)]


async def test_a_login_that_does_not_ask_for_it_and_a_relay_s_client_send_each_time(serve, make_listener):
    door = await serve(make_listener("submission"), make_listener("relay"))
    for number in (0, 0, 1, 1):
        door.people.once = 60.0 * number
        await send(door, DATED + PLAIN + BODY, number=number)
    assert len(door.queue.accepted) == 4
    assert door.queue.kept == {}


@pytest.mark.parametrize(
    "content", [PLAIN + BODY, PLAIN + b"Message-ID: \r\n" + BODY, PLAIN + b"\r\nMessage-ID: <1@x>\r\n"]
)
async def test_without_a_message_id_of_the_client_s_two_are_two(serve, make_listener, content: bytes):
    door = await serve(make_listener("submission"))
    door.people.once = 60.0
    for _ in range(2):
        await send(door, content)
    assert len(door.queue.accepted) == 2


def test_what_makes_a_message_another() -> None:
    other = [
        name(content=DATED + b"\r\n"),
        name(login=Identity("bob", "printer", once=60.0)),
        name(login=Identity("alice", "scanner", once=60.0)),
        name(Envelope(sender="", recipients=ENVELOPE.recipients)),
        name(Envelope(sender="a@alice.test", recipients=ENVELOPE.recipients[:1])),
        name(Envelope(sender="a@alice.test", recipients=(Recipient("b@x.test", Notify.NEVER), ENVELOPE.recipients[1]))),
        name(Envelope(sender="a@alice.test", recipients=ENVELOPE.recipients, envid="x")),
        name(Envelope(sender="a@alice.test", recipients=ENVELOPE.recipients, hold="for;60")),
        name(Envelope(sender="a@alice.test", recipients=ENVELOPE.recipients, tls_required="yes")),
    ]
    assert len({name(), *other}) == 1 + len(other)


def test_the_order_of_recipients_and_what_a_second_later_is_another_time_do_not() -> None:
    turned = ENVELOPE.recipients[::-1]
    held = [
        name(
            Envelope(
                sender="a@alice.test", recipients=recipients, hold="for;60", by_mode="R", release_at=at, deliver_by=at
            )
        )
        for recipients, at in ((ENVELOPE.recipients, NOW), (turned, NOW + 1))
    ]
    assert held[0] == held[1]


def test_it_is_kept_for_as_long_as_the_login_says() -> None:
    likeness = likeness_of(LOGIN, DATED)
    assert likeness is not None
    keep = likeness.keep(ENVELOPE, "the-id", NOW)
    assert (keep.value, keep.until) == (b"the-id", NOW + 60)
    assert keep.name.startswith("alice\0smtp\0printer\0")
    assert likeness_of(None, DATED) is None
    assert likeness_of(Identity("alice", "printer"), DATED) is None


@pytest.mark.parametrize("content", [DATED + PLAIN + BODY, LARGE], ids=["small", "large"])
async def test_a_rate_that_is_taken_up_puts_the_message_off_and_keeps_nothing_of_it(
    serve, make_listener, content: bytes
):
    door = await serve(make_listener("submission"))
    door.people.rates["alice"] = Rate(1, 90)
    door.people.once = 60.0
    first = await send(door, content)
    assert first.startswith(b"250 ")
    assert await send(door, content) == first  # and costs nothing
    assert await send(door, content + b"more\r\n") == (
        b"450 4.7.1 More mail than the rate of this account allows, try again in 90 seconds\r\n"
    )
    assert len(door.queue.accepted) == 1
    assert [each.aborted for each in door.store.writers] == [False, True, True][: len(door.store.writers)]
    door.people.rates.clear()
    assert (await send(door, content + b"more\r\n")).startswith(b"250 ")


@pytest.mark.parametrize("content", [DATED + PLAIN + BODY, LARGE], ids=["small", "large"])
async def test_a_login_that_ends_in_its_session_sends_nothing_more(serve, make_listener, content: bytes):
    door = await serve(make_listener("submission"))
    door.people.ended.add("alice")
    assert await send(door, content) == b"451 4.7.0 This login is not good any more: connect and log in again\r\n"
    assert door.queue.accepted == []
    assert all(each.aborted for each in door.store.writers)


async def test_a_login_that_ends_while_a_large_message_comes(serve, make_listener, monkeypatch):
    door = await serve(make_listener("submission"))
    asked = 0

    async def good(_: Identity) -> bool:
        nonlocal asked
        asked += 1
        return asked == 1

    monkeypatch.setattr(door.people, "good", good)
    assert (await send(door, LARGE)).startswith(b"451 4.7.0 ")
    assert (asked, door.queue.accepted, [each.aborted for each in door.store.writers]) == (2, [], [True])


async def test_rates_that_cannot_be_read_put_the_message_off(serve):
    door = await serve()
    door.people.failure = Unavailable("sick")
    assert (await send(door, PLAIN + BODY)).startswith(b"451 4.3.0 ")
    assert door.queue.accepted == []
