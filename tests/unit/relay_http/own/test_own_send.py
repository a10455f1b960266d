"""POST /v1/mail and /v1/mail/batch: everything that can be said, and all that is wrong at once."""

import time
from base64 import b64encode
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import msgspec
import pytest

from mta.spool.interface import Full, Throttled, Toll
from mta.spool.records import MessageClass

NOW = 1_800_000_000.0
PNG = b64encode(b"PNG").decode()
Json = dict[str, Any]


def parsed(content: bytes) -> EmailMessage:
    found = message_from_bytes(content, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


@pytest.fixture
def letter() -> Json:
    return {"from": "Shop <billing@shop.test>", "to": ["ann@example.test"], "subject": "Hi", "text": "Hello"}


async def post(api: Any, body: object, path: str = "/v1/mail", **headers: str) -> Any:
    return await api.post(msgspec.json.encode(body), headers, path)


async def wrong(api: Any, body: object, path: str = "/v1/mail") -> dict[str, str]:
    result = await post(api, body, path)
    assert (result.status_code, result.headers["content-type"]) == (400, "application/problem+json"), result.text
    assert not api.queue.calls
    assert result.json["detail"]
    return {each["field"]: each["detail"] for each in result.json["errors"]}


async def test_a_message_with_a_receipt(api: Any, letter: Json) -> None:
    result = await post(api, letter)
    assert result.status_code == 202
    sent = api.queue.only
    assert result.json == {
        "id": sent.id,
        "message_id": f"<{sent.id}@mail.shop.test>",
        "receipt": {"position": 1, "scope": "fsync", "milliseconds": 0.0},
    }
    assert result.headers["location"] == f"/v1/mail/{sent.id}"
    assert (sent.envelope.sender, [each.address for each in sent.envelope.recipients]) == (
        "billing@shop.test",
        ["ann@example.test"],
    )
    assert sent.summary.dialect == "fairlead"
    message = parsed(sent.content)
    assert (message["From"], message["To"], message["Subject"]) == (
        "Shop <billing@shop.test>",
        "ann@example.test",
        "Hi",
    )
    assert message.get_content() == "Hello\r\n"


async def test_everything_that_can_be_said(api: Any, letter: Json) -> None:
    letter |= {
        "to": ["Änn <ann@example.test>", {"address": "bob@bücher.test", "name": "Bob"}],
        "cc": ["cc@example.test"],
        "bcc": ["hidden@example.test"],
        "reply_to": ["answers@shop.test"],
        "subject": "Grüße",
        "html": "<img src='cid:logo'>",
        "parts": [{"type": "text/calendar; method=REQUEST", "content": "BEGIN:VCALENDAR"}],
        "attachments": [
            {"content": PNG, "filename": "logo.png", "type": "image/png", "content_id": "<logo>", "inline": True},
            {"content": PNG},
        ],
        "headers": {"X-Shop": "yes"},
        "tags": ["order", "größe"],
        "metadata": {"order": "4711"},
        "class": "bulk",
        "send_at": "2027-01-16T08:00:00Z",
        "deliver_by": NOW + 200_000,
        "batch": "b1",
        "retry": {"intervals": [10, 60.5], "lifetime": 3600},
        "tls": "require",
        "return_path": "bounces@shop.test",
    }
    assert (await post(api, letter)).status_code == 202
    sent = api.queue.only
    envelope = sent.envelope
    assert [each.address for each in envelope.recipients] == [
        *("ann@example.test", "bob@xn--bcher-kva.test", "cc@example.test", "hidden@example.test")
    ]
    assert (envelope.sender, envelope.release_at, envelope.deliver_by, envelope.tls_required) == (
        *("bounces@shop.test", 1_800_086_400.0, NOW + 200_000, "yes"),
    )
    assert (sent.categories, sent.custom_args, sent.batch) == (("order", "größe"), {"order": "4711"}, "b1")
    assert sent.message_class is MessageClass.BULK
    assert (sent.retry_intervals, sent.lifetime) == ((10, 60.5), 3600)
    assert b"hidden" not in sent.content
    message = parsed(sent.content)
    assert (message["Cc"], message["Reply-To"], message["X-Shop"]) == ("cc@example.test", "answers@shop.test", "yes")
    assert message["Subject"] == "Grüße"
    kinds = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
    assert kinds == ["text/plain", "text/html", "image/png", "text/calendar", "application/octet-stream"]


async def test_all_that_is_wrong_at_once(api: Any) -> None:
    found = await wrong(
        api,
        {
            "from": "nobody",
            "to": ["ann@example.test", "bad", {"address": "x@y.test", "name": "a\nb"}, {"address": 1}],
            "cc": "ann@example.test",
            "subject": "a\r\nBcc: b@example.test",
            "text": 7,
            "attachments": [{"content": "#"}, {"filename": "x"}, {"content": PNG, "type": "png", "size": 1}],
            "headers": {"Received": "x"},
            "tags": ["", "ok"],
            "metadata": {"order": 4711},
            "class": "urgent",
            "send_at": "tomorrow",
            "deliver_by": True,
            "colour": "red",
            "retry": {"intervals": [60, 1], "lifetime": 1, "attempts": 3},
            "parts": [{"type": "multipart/mixed", "content": ""}],
            "raw": None,
        },
    )
    assert found.keys() == {
        *("from", "to.1", "to.2.name", "to.3", "cc", "subject", "text", "attachments.0.content"),
        *("attachments.1.content", "attachments.2.type", "attachments.2.size", "headers.Received", "tags.0"),
        *("metadata.order", "class", "send_at", "deliver_by", "colour", "parts.0.type", "raw"),
        *("retry.intervals.1", "retry.lifetime", "retry.attempts"),
    }
    assert found["attachments.1.content"] == "It is required."
    assert found["colour"] == "There is no such field."
    assert "$" not in "".join(found.values())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"from": None}, "from"),
        ({"to": None}, "to"),
        ({"to": []}, "to"),
        ({"text": None}, "text"),
        ({"send_at": NOW + 31 * 86_400}, "send_at"),
        ({"deliver_by": NOW}, "deliver_by"),
        ({"send_at": NOW + 60, "deliver_by": NOW + 60}, "deliver_by"),
        ({"raw": b64encode(b"From: a@shop.test\r\n\r\nx").decode()}, "from"),
        ({"to": ["a@example.test"] * 1001}, "to"),
        ({"send_at": 10**400}, "send_at"),
        ({"metadata": {"a": "x" * 10_000}}, "metadata"),
        ({"headers": {f"X-{n}": "" for n in range(101)}}, "headers"),
        ({"headers": {"X": "a\0b"}}, "headers.X"),
        ({"return_path": "x"}, "return_path"),
        ({"batch": ""}, "batch"),
        ({"retry": {"intervals": []}}, "retry.intervals"),
        ({"retry": {"lifetime": 259_201}}, "retry.lifetime"),
        ({"dry_run": "yes"}, "dry_run"),
    ],
)
async def test_what_is_refused(api: Any, letter: Json, change: Json, field: str) -> None:
    given = {name: value for name, value in {**letter, **change}.items() if value is not None}
    assert field in await wrong(api, given)


async def test_the_null_reverse_path(api: Any, letter: Json) -> None:
    assert (await post(api, {**letter, "return_path": ""})).status_code == 202
    assert api.queue.only.envelope.sender == ""


async def test_a_body_that_is_no_object(api: Any) -> None:
    for body in ([], 1, "x", None):
        result = await post(api, body)
        assert (result.status_code, "errors" in result.json) == (400, False)


async def test_a_whole_message(api: Any) -> None:
    raw = (
        b"Received: from x\nBcc: hidden@example.test\nFrom: =?utf-8?q?Sh=C3=B6p?= <billing@shop.test>\n"
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nMessage-ID: <mine@shop.test>\n\nHello\n"
    )
    result = await post(api, {"raw": b64encode(raw).decode(), "to": ["ann@example.test"]})
    assert result.status_code == 202
    assert result.json["message_id"] == "<mine@shop.test>"
    sent = api.queue.only
    assert sent.content.endswith(
        b"Received: from x\r\nFrom: =?utf-8?q?Sh=C3=B6p?= <billing@shop.test>\r\n"
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <mine@shop.test>\r\n\r\nHello\r\n"
    )
    assert sent.content.startswith(b"Received: by mail.shop.test (Fairlead) with HTTP id " + sent.id.encode())
    assert (sent.header_message_id, sent.sign_domain) == ("<mine@shop.test>", "shop.test")
    assert (sent.summary.subject, sent.summary.from_) == ("Grüße", "Shöp <billing@shop.test>")
    assert sent.envelope.sender == "billing@shop.test"


async def test_a_whole_message_of_another_tenant(api: Any) -> None:
    raw = b64encode(b"From: a@other.test\r\n\r\nx").decode()
    result = await post(api, {"raw": raw, "to": ["ann@example.test"]})
    assert (result.status_code, result.json["errors"][0]["field"]) == (403, "from")
    assert not api.queue.calls


async def test_a_batch_shares_what_is_common(api: Any) -> None:
    batch = {
        "common": {
            "from": "billing@shop.test",
            "subject": "Hi",
            "html": "<p>Hello</p>",
            "attachments": [{"content": PNG, "filename": "a.png"}],
            "headers": {"X-A": "common", "X-B": "common"},
            "metadata": {"run": "1"},
        },
        "messages": [
            {"to": ["one@example.test"], "metadata": {"n": "1"}},
            {"to": ["two@example.test"], "subject": "Other", "text": "Own", "headers": {"x-b": "own"}},
        ],
    }
    result = await post(api, batch, "/v1/mail/batch")
    assert result.status_code == 202
    first, second = api.queue.accepted
    assert len(api.queue.calls) == 1
    assert result.json == {
        "request": first.id,
        "messages": [{"id": each.id, "message_id": f"<{each.id}@mail.shop.test>"} for each in (first, second)],
        "receipt": {"position": 1, "scope": "fsync", "milliseconds": 0.0},
    }
    assert (first.custom_args, second.custom_args) == ({"run": "1", "n": "1"}, {"run": "1"})
    one, two = parsed(first.content), parsed(second.content)
    assert (one["Subject"], two["Subject"]) == ("Hi", "Other")
    assert (two["X-A"], two.get_all("X-B")) == ("common", ["own"])
    assert [part.get_content_type() for part in two.walk() if not part.is_multipart()] == [
        *("text/plain", "application/octet-stream")
    ]


async def test_all_that_is_wrong_with_a_batch(api: Any) -> None:
    batch = {"messages": [{"to": ["a@example.test"], "from": "x"}, {"to": [""], "n": 1}], "common": {"text": 1}}
    assert (await wrong(api, batch, "/v1/mail/batch")).keys() == {
        "messages.0.from",
        "messages.1.to.0",
        "messages.1.n",
        "common.text",
    }
    batch = {"messages": [{"to": ["a@example.test"]}, {"from": "b@shop.test", "text": ""}]}
    assert (await wrong(api, batch, "/v1/mail/batch")).keys() == {"messages.0.from", "messages.0.text", "messages.1.to"}
    assert (await wrong(api, {"messages": []}, "/v1/mail/batch")).keys() == {"messages"}
    assert (await wrong(api, {}, "/v1/mail/batch")).keys() == {"messages"}
    common = {"raw": b64encode(b"From: a@shop.test\r\n\r\n").decode()}
    assert (
        await wrong(api, {"common": common, "messages": [{"to": ["a@example.test"]}]}, "/v1/mail/batch")
    ).keys() == {"common.raw"}


async def test_too_much_in_common_and_of_its_own_together(api: Any) -> None:
    common = {"from": "billing@shop.test", "text": "x", "headers": {f"X-{n}": "a" for n in range(100)}}
    common["metadata"] = {"a": "x" * 6000}
    one = {"to": ["a@example.test"], "headers": {"x-1": "b"}, "metadata": {"a": "x" * 9999}}
    two = {"to": ["a@example.test"], "headers": {"Y": "b"}, "metadata": {"b": "x" * 6000}}
    found = await wrong(api, {"common": common, "messages": [one, two]}, "/v1/mail/batch")
    assert found.keys() == {"messages.1.headers", "messages.1.metadata"}
    result = await post(api, {"common": common, "messages": [one]}, "/v1/mail/batch")
    assert result.status_code == 202
    assert api.queue.only.custom_args == {"a": "x" * 9999}


async def test_a_large_request_that_is_all_wrong_is_not_all_told(api: Any) -> None:
    batch = {"messages": [{"to": ["x"] * 1000}] * 100}
    began = time.process_time()
    assert len(await wrong(api, batch, "/v1/mail/batch")) == 1000
    assert time.process_time() - began < 1


async def test_too_many_recipients_in_all(api: Any) -> None:
    messages = [{"to": ["a@example.test"] * 600} for _ in range(2)]
    body = {"common": {"from": "billing@shop.test", "text": "x"}, "messages": messages}
    result = await post(api, body, "/v1/mail/batch")
    assert (result.status_code, "1200" in result.json["detail"]) == (400, True)


async def test_the_same_again_is_answered_as_before(api: Any, letter: Json) -> None:
    key = {"Idempotency-Key": "k1"}
    first, again = await post(api, letter, **key), await post(api, letter, **key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json == {**first.json, "receipt": {"position": 1, "scope": "fsync"}}
    assert len(api.queue.calls) == 1
    other = await post(api, {**letter, "subject": "Other"}, **key)
    assert (other.status_code, other.json["errors"][0]["field"]) == (409, "Idempotency-Key")
    assert (await post(api, {"messages": [letter]}, "/v1/mail/batch", **key)).status_code == 202


async def test_the_sandbox(api: Any, letter: Json) -> None:
    result = await post(api, {**letter, "sandbox": True})
    assert (result.status_code, result.json["sandbox"], "receipt" in result.json) == (202, True, False)
    batch = await post(api, {"messages": [letter], "sandbox": True}, "/v1/mail/batch")
    assert (batch.status_code, batch.json["sandbox"], "receipt" in batch.json) == (202, True, False)
    assert not api.queue.calls


async def test_who_may_not(api: Any, letter: Json) -> None:
    assert (await post(api, letter, Authorization="")).status_code == 401
    result = await post(api, letter, Authorization=f"Bearer {api.read_key}")
    assert (result.status_code, result.headers["content-type"]) == (403, "application/problem+json")
    result = await post(api, {**letter, "from": "a@other.test"})
    assert (result.status_code, result.json["errors"][0]["field"]) == (403, "from")


async def test_what_cannot_be_taken_now(api: Any, letter: Json) -> None:
    api.queue.error = Full()
    assert (await post(api, letter)).status_code == 507
    api.queue.error = None
    api.rates.found = (Toll("key\0k", 1.0, 1, 1),)
    api.queue.throttled = Throttled(0, 2.5, (NOW,))
    result = await post(api, letter)
    assert (result.status_code, result.headers["retry-after"]) == (429, "3")
    assert not api.queue.calls
