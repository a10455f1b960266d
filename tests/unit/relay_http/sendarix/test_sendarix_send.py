"""POST /v1/messages: every field of the document, what is refused, and where that is said to be."""

import contextlib
from base64 import b64encode
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.queue.gate import Turned
from mta.spool.interface import Full, Throttled, Toll, Unavailable
from mta.spool.records import MessageClass
from relay_http.problem import Refusal
from relay_http.sendarix.request import KNOWN, Send, read_send
from tests.unit.relay_http.hostile import values, written

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
PATH = "/v1/messages"
Json = dict[str, Any]


@pytest.fixture
def example() -> Json:
    """The document's own with a text in place of the template, and with from, which it says is needed."""
    return {
        "recipient": "user@example.com",
        "subject": "Your verification code",
        "headers": {"X-Idempotency-Key": "uuid-v4-here"},
        "from": "login@shop.test",
        "text": "847291",
    }


@pytest.fixture
def mail() -> Json:
    return {"recipient": "a@example.test", "subject": "Hello", "text": "Hi", "from": "login@shop.test"}


async def post(api: Any, mail: object, headers: dict[str, str] | None = None) -> Any:
    return await api.post(msgspec.json.encode(mail), headers, PATH)


def read(mail: object) -> Send:
    return read_send(mail, NOW)


def problems(mail: object, status: int = 422) -> dict[str, str]:
    with pytest.raises(Refusal) as refused:
        read(mail)
    assert refused.value.status == status
    return {each.field or "": each.message for each in refused.value.problems}


def parsed(content: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


async def test_the_documents_own_example(api: Any, example: Json) -> None:
    result = await post(api, example)
    assert result.status_code == 200, result.text
    sent = api.queue.only
    assert result.json == {
        "message_id": f"msg_{sent.id}",
        "status": "queued",
        "recipient": "user@example.com",
        "created_at": "2027-01-15T08:00:00Z",
    }
    assert (sent.tenant, sent.envelope.sender, sent.summary.dialect) == ("shop", "login@shop.test", "sendarix")
    assert [each.address for each in sent.envelope.recipients] == ["user@example.com"]
    message = parsed(sent.content)
    assert (message["To"], message["Subject"]) == ("user@example.com", "Your verification code")
    assert message.get_content() == "847291\r\n"
    assert b"uuid-v4-here" not in sent.content


async def test_its_template_is_refused(api: Any, example: Json) -> None:
    del example["text"], example["from"]
    example |= {"template": "otp-code", "template_data": {"code": "847291", "expires_in": "5 minutes"}}
    result = await post(api, example)
    said = "Templates are not supported yet: give subject and html or text."
    assert (result.status_code, result.json) == (
        422,
        {
            "error": "validation_failed",
            "message": said,
            "errors": [
                {"field": "template", "message": said},
                {"field": "template_data", "message": said},
                {"field": "from", "message": "This field is required."},
            ],
        },
    )
    assert not api.queue.calls


async def test_all_fields_in_any_characters(api: Any, mail: Json) -> None:
    file = {"filename": "ü.pdf", "content_type": "application/pdf", "content": b64encode(b"PDF").decode()}
    mail |= {
        "from": "Büro <login@shop.test>",
        "recipient": "Jörg <j@bücher.test>",
        "cc": ["Ann <c@example.test>"],
        "bcc": ["hidden@example.test"],
        "reply_to": ["r@shop.test"],
        "subject": "Grüße, 世界",
        "html": "<p>ü世</p>",
        "headers": {"X-Order": "5 ü"},
        "metadata": {"order": "ü5"},
        "attachments": [file],
    }
    result = await post(api, mail)
    assert (result.status_code, result.json["recipient"]) == (200, "j@xn--bcher-kva.test")
    sent = api.queue.only
    assert [each.address for each in sent.envelope.recipients] == [
        *("j@xn--bcher-kva.test", "c@example.test", "hidden@example.test"),
    ]
    assert (sent.custom_args, sent.message_class) == ({"order": "ü5"}, MessageClass.NORMAL)
    message = parsed(sent.content)
    assert (message["From"], message["Cc"], message["Reply-To"]) == (
        *("Büro <login@shop.test>", "Ann <c@example.test>", "r@shop.test"),
    )
    assert (message["Subject"], message["X-Order"]) == ("Grüße, 世界", "5 ü")
    html = message.get_body(("html",))
    assert html is not None
    assert html.get_content() == "<p>ü世</p>"
    (pdf,) = message.iter_attachments()
    assert (pdf.get_filename(), pdf.get_payload(decode=True)) == ("ü.pdf", b"PDF")
    assert b"hidden" not in sent.content


async def test_scheduled(api: Any, mail: Json) -> None:
    result = await post(api, mail | {"scheduled_time": "2027-06-01T15:00:00Z"})
    assert (result.json["status"], result.json["scheduled_time"]) == ("scheduled", "2027-06-01T15:00:00Z")
    assert api.queue.only.envelope.release_at == 1_811_862_000.0


@pytest.mark.parametrize(
    ("priority", "message_class"),
    [
        ("high", MessageClass.HIGH),
        ("normal", MessageClass.NORMAL),
        ("low", MessageClass.BULK),
        ("", MessageClass.NORMAL),
    ],
)
def test_priority_tiers(mail: Json, priority: str, message_class: MessageClass) -> None:
    assert read(mail | {"priority": priority}).outgoing.message_class is message_class


@pytest.mark.parametrize("nothing", [None, False, "", [], {}])
@pytest.mark.parametrize(
    "field",
    [
        *("html", "cc", "bcc", "reply_to", "template", "template_data", "headers", "metadata", "priority"),
        *("scheduled_time", "attachments"),
    ],
)
def test_null_and_empty_mean_absent(mail: Json, field: str, nothing: object) -> None:
    assert read(mail | {field: nothing}) == read(mail)


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"recipient": None}, "recipient", "This field is required."),
        ({"recipient": ["a@example.test"]}, "recipient", "Invalid type. Expected: string, given: array."),
        ({"recipient": "nobody"}, "recipient", "This is not a valid email address."),
        ({"recipient": "a@b.test\r\nBcc: c@d.test"}, "recipient", "This is not a valid email address."),
        ({"recipient": "a@b.test, c@d.test"}, "recipient", "This is not a valid email address."),
        ({"from": ""}, "from", "This field is required."),
        ({"from": "@shop.test"}, "from", "This is not a valid email address."),
        ({"subject": None}, "subject", "This field is required."),
        ({"subject": "a\0b"}, "subject", "It must not contain line breaks or NUL."),
        ({"text": ""}, "html", "Give html, text or both."),
        ({"html": 7}, "html", "Invalid type. Expected: string, given: integer."),
        ({"cc": "c@example.test"}, "cc", "Invalid type. Expected: array, given: string."),
        ({"cc": ["x"]}, "cc.0", "This is not a valid email address."),
        ({"bcc": ["a@b.test"] * 101}, "bcc", "At most 100 bcc are allowed, 101 are given."),
        ({"reply_to": [7]}, "reply_to.0", "Invalid type. Expected: string, given: integer."),
        ({"headers": ["x"]}, "headers", "Invalid type. Expected: object, given: array."),
        ({"headers": {"X-A": 7}}, "headers.X-A", "Invalid type. Expected: string, given: integer."),
        ({"headers": {"X-A": "b\r\nBcc: c@d.test"}}, "headers.X-A", "It must not contain line breaks or NUL."),
        ({"headers": {"Subject": "x"}}, "headers.Subject", "This header is reserved"),
        ({"headers": {"Reply-To": "x@y.test"}}, "headers.Reply-To", "This header is reserved"),
        ({"headers": {"X A": "b"}}, "headers.X A", "A header name is"),
        ({"headers": {f"X-{n}": "" for n in range(101)}}, "headers", "At most 100 headers are allowed, 101 are given."),
        ({"headers": {"X-Idempotency-Key": "x" * 257}}, "headers.X-Idempotency-Key", "An idempotency key is"),
        ({"headers": {"X-Idempotency-Key": "a\nb"}}, "headers.X-Idempotency-Key", "An idempotency key is"),
        (
            {"headers": {"X-Idempotency-Key": "a", "x-idempotency-key": "a"}},
            *("headers.x-idempotency-key", "This header may be given once."),
        ),
        ({"metadata": {"a": 1}}, "metadata.a", "Invalid type. Expected: string, given: integer."),
        ({"metadata": {str(n): "" for n in range(51)}}, "metadata", "At most 50 metadata are allowed, 51 are given."),
        ({"metadata": {"a": "ü" * 5000}}, "metadata", "The metadata of a message have at most 10000 bytes."),
        ({"priority": "urgent"}, "priority", "This is none of high, normal, low."),
        ({"priority": 1}, "priority", "Invalid type. Expected: string, given: integer."),
        ({"scheduled_time": "soon"}, "scheduled_time", "not an ISO 8601"),
        ({"scheduled_time": "2027-01-15T07:59:59Z"}, "scheduled_time", "This is not in the future"),
        ({"attachments": [{}]}, "attachments.0.filename", "This field is required."),
        ({"attachments": [{"content": "?"}]}, "attachments.0.content", "This is not base64."),
        ({"attachments": [{}] * 101}, "attachments", "At most 100 attachments are allowed, 101 are given."),
        ({"track": True}, "track", "This is not a field of the request."),
    ],
)
def test_every_wrong_field_has_its_path(mail: Json, change: Json, field: str, said: str) -> None:
    found = problems(mail | change)
    assert field in found, found
    assert said in found[field]


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert problems({"priority": "x", "scheduled_time": "x", "cc": ["x"]}).keys() == {
        *("recipient", "from", "subject", "html", "priority", "scheduled_time", "cc.0"),
    }


class TestIdempotency:
    async def test_by_the_header_in_the_body(self, api: Any, example: Json) -> None:
        first, again = await post(api, example), await post(api, example)
        assert (again.status_code, again.json) == (200, first.json)
        assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
        assert len(api.queue.calls) == 1

    async def test_by_the_header_of_the_request(self, api: Any, mail: Json) -> None:
        headers = {"Idempotency-Key": "once"}
        first, again = await post(api, mail, headers), await post(api, mail, headers)
        assert (again.json, len(api.queue.calls)) == (first.json, 1)

    async def test_one_key_whichever_header_it_comes_in(self, api: Any, example: Json) -> None:
        first = await post(api, example, {"Idempotency-Key": "uuid-v4-here"})
        assert (await post(api, example)).json == first.json
        other = await post(api, example, {"Idempotency-Key": "another"})
        assert (other.status_code, other.json["errors"]) == (
            422,
            [
                {
                    "field": "headers.X-Idempotency-Key",
                    "message": "This is not the key of the header Idempotency-Key.",
                }
            ],
        )
        assert len(api.queue.calls) == 1

    async def test_another_request_with_the_same_key(self, api: Any, example: Json) -> None:
        await post(api, example)
        result = await post(api, example | {"text": "other"})
        assert (result.status_code, result.json["error"]) == (409, "idempotency_key_reused")


class TestRefusals:
    async def test_no_key_and_no_good_key(self, api: Any) -> None:
        for headers in ({}, {"Authorization": "Bearer sk_live_x"}):
            result = await api.request("POST", PATH, b"{}", headers)
            assert (result.status_code, result.json["error"]) == (401, "unauthorized")
            assert result.headers["www-authenticate"] == "Bearer"

    async def test_scopes(self, api: Any, mail: Json) -> None:
        result = await post(api, mail, {"Authorization": f"Bearer {api.read_key}"})
        assert (result.status_code, result.json["error"]) == (403, "forbidden")

    async def test_a_foreign_sender(self, api: Any, mail: Json) -> None:
        result = await post(api, mail | {"from": "a@other.test"})
        assert (result.status_code, result.json["error"]) == (403, "foreign_sender")
        assert not api.queue.calls

    @pytest.mark.parametrize(
        ("body", "headers", "status", "error"),
        [
            (b"{", {}, 400, "bad_request"),
            (b"[]", {}, 400, "bad_request"),
            (b"{}", {"Content-Type": "text/plain"}, 415, "media_type"),
            (b" " * 50_000_001, {}, 413, "too_large"),
        ],
    )
    async def test_bodies(self, api: Any, body: bytes, headers: dict[str, str], status: int, error: str) -> None:
        result = await api.post(body, headers, PATH)
        assert (result.status_code, result.json["error"]) == (status, error)
        assert ("errors" in result.json) == (status == 400)

    async def test_a_body_that_is_no_object_has_the_field_body(self, api: Any) -> None:
        result = await post(api, [])
        said = "Invalid type. Expected: object, given: array."
        assert result.json == {
            "error": "bad_request",
            "message": said,
            "errors": [{"field": "body", "message": said}],
        }

    async def test_fifty_megabytes_are_taken(self, api: Any, mail: Json) -> None:
        body = msgspec.json.encode(mail).ljust(50_000_000)
        assert (await api.post(body, None, PATH)).status_code == 200

    async def test_other_verbs_and_paths(self, api: Any) -> None:
        headers = {"Authorization": f"Bearer {api.key}"}
        result = await api.request("PUT", PATH, b"", headers)
        assert (result.status_code, result.json) == (
            *(405, {"error": "method_not_allowed", "message": "GET, POST method allowed only"}),
        )
        result = await api.request("GET", f"{PATH}/a/b", b"", headers)
        assert (result.status_code, result.json["error"]) == (404, "not_found")

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (Full("full"), 507, "insufficient_storage"),
            (Unavailable("sick"), 503, "service_unavailable"),
            (RuntimeError("bug"), 500, "internal_error"),
        ],
    )
    async def test_failures(self, api: Any, mail: Json, error: Exception, status: int, code: str) -> None:
        api.queue.error = error
        result = await post(api, mail)
        assert (result.status_code, result.json["error"]) == (status, code)
        assert "bug" not in result.text

    async def test_too_much(self, api: Any, mail: Json) -> None:
        api.queue.turned["shop"] = Turned("backlog", 60)
        result = await post(api, mail)
        assert (result.status_code, result.json["error"], result.headers["retry-after"]) == (429, "rate_limited", "60")
        result = await api.request("DELETE", f"{PATH}/x", b"", {"Authorization": f"Bearer {api.key}"})
        assert result.status_code == 404  # who has too much may cancel some of it

    async def test_rates(self, api: Any, mail: Json) -> None:
        api.rates.found = (Toll("key\0x", 1.0, 10, 1),)
        headers = (await post(api, mail)).headers
        assert [headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == ["10", "9", "1800000001"]
        api.queue.throttled = Throttled(0, 2.5)
        result = await post(api, mail)
        assert (result.status_code, result.json["error"]) == (429, "rate_limited")
        headers = result.headers
        assert [headers[f"x-ratelimit-{name}"] for name in ("remaining", "reset")] == ["0", "1800000003"]
        assert headers["retry-after"] == "3"


@given(st.dictionaries(st.sampled_from([*KNOWN, "x"]), values, max_size=4))
def test_any_json_is_read_or_refused_and_adds_no_field_but_those_asked_for(change: Json) -> None:
    mail = {"recipient": "a@example.test", "subject": "Hello", "text": "Hi", "from": "login@shop.test"}
    with contextlib.suppress(Refusal):
        outgoing = read(mail | change).outgoing
        assert written(outgoing) == {name.lower().encode() for name in outgoing.headers}
