"""Who asks again with an idempotency key: the same answer, whatever the time is by then, and nothing sent twice."""

import asyncio
from typing import Any

import msgspec
import pytest

from mta.lab.clock import FakeClock
from relay_http.iso import write_time
from tests.unit.relay_http.following import Relay

NOW = FakeClock().now()
KEY = {"Idempotency-Key": "once"}
EMAIL = {"from_": "a@shop.test", "to": ["b@example.test"], "subject": "Hello", "text": "Hi"}
SEND = {"from": "a@shop.test", "recipient": "b@example.test", "subject": "Hello", "text": "Hi"}
MAIL = {"from": "a@shop.test", "to": ["b@example.test"], "subject": "Hello", "text": "Hi"}
TIMED = [
    ("/api/v1/emails", {**EMAIL, "scheduled_at": write_time(NOW + 60)}, "text"),
    ("/v1/messages", {**SEND, "scheduled_time": write_time(NOW + 60)}, "text"),
    ("/emails", {**MAIL, "scheduled_at": write_time(NOW + 60)}, "text"),
    ("/v1/mail", {**MAIL, "deliver_by": NOW + 60}, "text"),
    ("/v1/mail/batch", {"messages": [{**MAIL, "deliver_by": NOW + 60}]}, "sandbox"),
]


async def accepted(relay: Relay) -> int:
    return sum([event.type == "accepted" for _, event in await relay.spool.events_after(0, 100)])


@pytest.mark.parametrize(("path", "asked", "other"), TIMED)
async def test_times_that_are_over_meanwhile(relay: Relay, path: str, asked: dict[str, Any], other: str) -> None:
    first = await relay.ask("POST", path, asked, headers=KEY)
    assert first.status_code in (200, 202), first.text
    await relay.wait(120)
    again = await relay.ask("POST", path, asked, headers=KEY)
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (first.status_code, "true"), again.text
    changed = await relay.ask("POST", path, {**asked, other: "x" if other == "text" else True}, headers=KEY)
    assert changed.status_code == 409
    for headers in ({}, {"Idempotency-Key": "another"}):  # who asks first comes too late
        late = await relay.ask("POST", path, asked, headers=headers)
        assert late.status_code in (400, 422), late.text
    dry = await relay.ask("POST", "/v1/mail", {**MAIL, "deliver_by": NOW + 60, "dry_run": True})
    assert dry.status_code == 400
    assert await accepted(relay) == 1


@pytest.mark.tampers
@pytest.mark.parametrize("headers", [{}, KEY])
@pytest.mark.parametrize("text", ["Hi", "Hi " * 200_000], ids=["small", "large"])
async def test_a_cancelled_request_does_not_cancel_its_commit(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], text: str
) -> None:
    begun = asyncio.Event()
    for name in ("accept", "accept_on"):
        commit = getattr(relay.spool, name)

        async def noted(*asked: Any, commit: Any = commit) -> Any:
            asyncio.get_running_loop().call_soon(begun.set)
            return await commit(*asked)

        monkeypatch.setattr(relay.spool, name, noted)
    request = asyncio.create_task(relay.ask("POST", "/v1/mail", {**MAIL, "text": text}, headers=headers))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    async with asyncio.timeout(5):
        while not await accepted(relay):
            await asyncio.sleep(0.01)
    ((_, event),) = await relay.spool.events_after(0, 100)
    assert text[:9].encode() in await relay.content(event.message)


async def test_members_in_another_order(relay: Relay) -> None:
    names = ["X-A", "X-B", "X-C"]
    for order in (names, names[::-1]):
        body = msgspec.json.encode({**MAIL, "headers": dict.fromkeys(order, "x")})
        result = await relay.ask("POST", "/v1/mail", body, headers=KEY)
        assert result.status_code == 202, result.text
    assert await accepted(relay) == 1


async def test_the_longest_answer_is_kept(relay: Relay) -> None:
    """A thousand messages with Message-IDs of their own, as long as they may be, and escaped in JSON."""
    quotes = '"' * 242
    named = [f"<{number:04}{quotes}@a.test>" for number in range(1000)]
    messages = [{"to": ["b@example.test"], "headers": {"Message-ID": each}} for each in named]
    batch = {"messages": messages, "common": {name: MAIL[name] for name in ("from", "subject", "text")}}
    first = await relay.ask("POST", "/v1/mail/batch", batch, headers=KEY)
    assert first.status_code == 202, first.text
    again = await relay.ask("POST", "/v1/mail/batch", batch, headers=KEY)
    assert (again.headers["idempotent-replayed"], again.json["messages"]) == ("true", first.json["messages"])


async def test_an_answer_that_is_too_long_to_be_kept_is_refused_before_anything_is_stored(relay: Relay) -> None:
    to = ",".join([f"{'a' * 60}@{'b' * 60}.{number}.test" for number in range(50)])
    batch = [{"From": "a@shop.test", "To": to, "Subject": "Hello", "TextBody": "Hi"}] * 200
    headers = {**KEY, "X-Postmark-Server-Token": relay.keys["shop"]}
    result = await relay.ask("POST", "/email/batch", batch, headers=headers)
    assert result.status_code == 413, result.text
    assert await accepted(relay) == 0


async def test_the_time_of_a_batch_that_is_over_meanwhile(relay: Relay) -> None:
    batch = [{**MAIL, "scheduled_at": write_time(NOW + 60)}]
    first = await relay.ask("POST", "/emails/batch", batch, headers=KEY)
    assert first.status_code == 200, first.text
    await relay.wait(120)
    again = await relay.ask("POST", "/emails/batch", batch, headers=KEY)
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (200, "true"), again.text
    assert (await relay.ask("POST", "/emails/batch", batch)).status_code == 422
    assert await accepted(relay) == 1
