"""POST /api/v1/emails: every field of the document, what is refused, and where that is said to be."""

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

from mta.mail.ids import message_id_bytes
from mta.queue.gate import Turned
from mta.spool.interface import Full, Throttled, Toll, Unavailable
from relay_http.emails.request import KNOWN, RECIPIENTS_LIMIT, read_email
from relay_http.problem import Refusal
from tests.unit.relay_http.hostile import values, written

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
PATH = "/api/v1/emails"
Json = dict[str, Any]


@pytest.fixture
def example() -> Json:
    """The document's own, its date moved into the future and its placeholder of a domain dropped."""
    return {
        "to": ["user@example.com"],
        "subject": "Your receipt",
        "html": "<p>Thanks for your order.</p>",
        "text": "Thanks for your order.",
        "from_": "billing@shop.test",
        "cc": ["finance@shop.test"],
        "reply_to": ["support@shop.test"],
        "template_id": None,
        "template_vars": {},
        "track_opens": False,
        "track_clicks": False,
        "enable_unsubscribe": False,
        "scheduled_at": "2027-06-01T15:00:00Z",
        "attachments": [
            {
                "filename": "invoice.pdf",
                "content_type": "application/pdf",
                "content_b64": b64encode(b"PDF").decode(),
            }
        ],
    }


@pytest.fixture
def mail() -> Json:
    return {"to": ["a@example.test"], "subject": "Hello", "text": "Hi", "from_": "billing@shop.test"}


async def post(api: Any, mail: object, headers: dict[str, str] | None = None) -> Any:
    return await api.post(msgspec.json.encode(mail), headers, PATH)


async def post_to(api: Any, path: str) -> Any:
    return await api.post(b"", None, PATH + path)


def problems(mail: object) -> dict[str, str]:
    with pytest.raises(Refusal) as refused:
        read_email(mail, NOW)
    assert refused.value.status == 422
    return {each.field or "": each.message for each in refused.value.problems}


def parsed(content: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


async def test_the_documents_own_example(api: Any, example: Json) -> None:
    result = await post(api, example)
    assert result.status_code == 202, result.text
    sent = api.queue.only
    message_id_bytes(sent.id)
    assert result.json == {
        "id": sent.id,
        "status": "scheduled",
        "created_at": "2027-01-15T08:00:00Z",
        "scheduled_at": "2027-06-01T15:00:00Z",
    }
    assert sent.envelope.release_at == 1_811_862_000.0
    assert [each.address for each in sent.envelope.recipients] == ["user@example.com", "finance@shop.test"]
    assert (sent.tenant, sent.envelope.sender, sent.summary.dialect) == ("shop", "billing@shop.test", "emails")
    message = parsed(sent.content)
    assert (message["From"], message["To"], message["Cc"]) == (
        *("billing@shop.test", "user@example.com", "finance@shop.test"),
    )
    assert (message["Reply-To"], message["Subject"]) == ("support@shop.test", "Your receipt")
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert (text.get_content(), html.get_content()) == ("Thanks for your order.", "<p>Thanks for your order.</p>")
    (pdf,) = message.iter_attachments()
    assert (pdf.get_filename(), pdf.get_content_type(), pdf.get_payload(decode=True)) == (
        *("invoice.pdf", "application/pdf", b"PDF"),
    )


async def test_at_once(api: Any, mail: Json) -> None:
    result = await post(api, mail)
    assert (result.status_code, result.json["status"], result.json["scheduled_at"]) == (202, "queued", None)
    assert api.queue.only.envelope.release_at == 0


async def test_names_and_texts_in_any_characters(api: Any, mail: Json) -> None:
    mail |= {
        "from_": "Büro Müller <billing@shop.test>",
        "to": ["Jörg <j@bücher.test>", '"Doe, Jane" <jane@example.test>'],
        "bcc": ["hidden@example.test"],
        "subject": "Grüße, 世界",
        "html": "<p>ü世</p>",
    }
    assert (await post(api, mail)).status_code == 202
    sent = api.queue.only
    assert [each.address for each in sent.envelope.recipients] == [
        *("j@xn--bcher-kva.test", "jane@example.test", "hidden@example.test"),
    ]
    message = parsed(sent.content)
    assert (message["From"], message["Subject"]) == ("Büro Müller <billing@shop.test>", "Grüße, 世界")
    assert [each.display_name for each in message["To"].addresses] == ["Jörg", "Doe, Jane"]
    assert b"hidden" not in sent.content


@pytest.mark.parametrize("nothing", [None, False, "", [], {}])
@pytest.mark.parametrize(
    "field",
    [
        *("html", "cc", "bcc", "reply_to", "template_id", "template_vars", "domain_id", "track_opens", "track_clicks"),
        *("enable_unsubscribe", "scheduled_at", "attachments"),
    ],
)
def test_false_null_and_empty_mean_absent(mail: Json, field: str, nothing: object) -> None:
    assert read_email(mail | {field: nothing}, NOW) == read_email(mail, NOW)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("template_id", "welcome", "Templates are not supported yet: give subject and html or text."),
        ("template_vars", {"name": "Ann"}, "Templates are not supported yet: give subject and html or text."),
        ("track_opens", True, "Open tracking is not supported yet."),
        ("track_clicks", True, "Click tracking is not supported yet."),
        ("enable_unsubscribe", True, "Unsubscribe links are not supported yet."),
        ("domain_id", "665f", "There is no domain with this id: leave it out, the domain is that of from_."),
    ],
)
async def test_what_is_not_there_yet_is_refused(api: Any, mail: Json, field: str, value: object, said: str) -> None:
    result = await post(api, mail | {field: value})
    assert result.status_code == 422
    assert result.json == {"detail": [{"loc": ["body", field], "msg": said, "type": "value_error"}]}
    assert not api.queue.calls


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"to": None}, "to", "This field is required."),
        ({"to": []}, "to", "This field is required."),
        ({"to": "a@example.test"}, "to", "Invalid type. Expected: array, given: string."),
        ({"to": ["a@example.test", 7]}, "to.1", "Invalid type. Expected: string, given: integer."),
        ({"to": ["nobody"]}, "to.0", "This is not a valid email address."),
        ({"to": ["a@b.test\r\nBcc: c@d.test"]}, "to.0", "This is not a valid email address."),
        ({"cc": [""]}, "cc.0", "This is not a valid email address."),
        ({"bcc": ["a@"]}, "bcc.0", "This is not a valid email address."),
        ({"reply_to": ["@b.test"]}, "reply_to.0", "This is not a valid email address."),
        ({"reply_to": ["a@b.test"] * 101}, "reply_to", "At most 100 reply to are allowed, 101 are given."),
        ({"from_": ""}, "from_", "This field is required."),
        ({"from_": "Evil\u202e <billing@shop.test>"}, "from_", "This is not a valid email address."),
        ({"from_": 7}, "from_", "Invalid type. Expected: string, given: integer."),
        ({"subject": None}, "subject", "This field is required."),
        ({"subject": "a\nb"}, "subject", "It must not contain line breaks or NUL."),
        ({"subject": 0}, "subject", "Invalid type. Expected: string, given: integer."),
        ({"text": ""}, "html", "Give html, text or both."),
        ({"text": ["x"]}, "text", "Invalid type. Expected: string, given: array."),
        ({"track_opens": "yes"}, "track_opens", "Invalid type. Expected: boolean, given: string."),
        ({"scheduled_at": "tomorrow"}, "scheduled_at", "not an ISO 8601"),
        ({"scheduled_at": "2027-06-01"}, "scheduled_at", "not an ISO 8601"),
        ({"scheduled_at": 1_900_000_000}, "scheduled_at", "Invalid type. Expected: string, given: integer."),
        ({"scheduled_at": "9999-12-31T23:59:59-14:00"}, "scheduled_at", "not an ISO 8601"),
        ({"scheduled_at": "2027-01-15T08:00:00Z"}, "scheduled_at", "This is not in the future"),
        ({"scheduled_at": "2027-01-15T09:00:00+02:00"}, "scheduled_at", "This is not in the future"),
        ({"attachments": {"filename": "x"}}, "attachments", "Invalid type. Expected: array, given: object."),
        ({"attachments": ["x"]}, "attachments.0", "Invalid type. Expected: object, given: string."),
        ({"headers": {"X-A": "b"}}, "headers", "This is not a field of the request."),
    ],
)
def test_every_wrong_field_has_its_path(mail: Json, change: Json, field: str, said: str) -> None:
    found = problems(mail | change)
    assert field in found, found
    assert said in found[field]


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert problems({"to": [], "scheduled_at": "x", "track_opens": True}).keys() == {
        *("from_", "to", "subject", "html", "scheduled_at", "track_opens"),
    }


def test_recipients_are_bounded_together(mail: Json) -> None:
    many = [f"a{n}@example.test" for n in range(RECIPIENTS_LIMIT // 2)]
    assert len(read_email(mail | {"to": many, "bcc": many}, NOW).to) == len(many)
    assert problems(mail | {"to": many, "cc": ["one@example.test"], "bcc": many}) == {
        "to": "At most 1000 recipients are allowed, 1001 are given."
    }


FILE = {"filename": "a.txt", "content_type": "text/plain", "content_b64": "aGk="}


class TestAttachments:
    @pytest.mark.parametrize("field", FILE)
    def test_each_field_is_needed(self, mail: Json, field: str) -> None:
        file = {name: value for name, value in FILE.items() if name != field}
        assert problems(mail | {"attachments": [file]}) == {f"attachments.0.{field}": "This field is required."}
        assert problems(mail | {"attachments": [FILE, {**file, field: ""}]}) == {
            f"attachments.1.{field}": "This field is required."
        }

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("content_b64", "aGk", "This is not base64."),
            ("content_b64", "aGk=\naGk=", "This is not base64."),
            ("content_type", "text", "The type must be a media type such as text/html."),
            ("content_type", "text/plain\r\nX: y", "The type must be a media type such as text/html."),
            ("filename", "a\r\nb", "It must not contain line breaks or NUL."),
            ("filename", 7, "Invalid type. Expected: string, given: integer."),
        ],
    )
    def test_what_is_wrong_with_one(self, mail: Json, field: str, value: object, said: str) -> None:
        assert problems(mail | {"attachments": [{**FILE, field: value}]})[f"attachments.0.{field}"] == said

    def test_five_at_most(self, mail: Json) -> None:
        assert len(read_email(mail | {"attachments": [FILE] * 5}, NOW).attachments) == 5
        assert problems(mail | {"attachments": [FILE] * 6}) == {
            "attachments": "At most 5 attachments are allowed, 6 are given."
        }

    def test_five_mebibytes_at_most_together(self, mail: Json) -> None:
        half = {**FILE, "content_b64": b64encode(bytes(5 << 19)).decode()}
        assert len(read_email(mail | {"attachments": [half, half]}, NOW).attachments) == 2
        assert problems(mail | {"attachments": [half, half, {**FILE, "content_b64": "YQ=="}]}) == {
            "attachments": "Attachments have at most 5242880 bytes together, decoded."
        }


class TestRefusals:
    async def test_no_key_and_no_good_key(self, api: Any) -> None:
        result = await api.request("POST", PATH, b"{}")
        assert (result.status_code, result.headers["www-authenticate"]) == (401, "Bearer")
        assert result.json == {"detail": "Not authenticated: give an API key as a bearer token."}
        result = await api.request("POST", PATH, b"{}", {"Authorization": "Bearer SG.x.y"})
        assert (result.status_code, result.json["detail"]) == (
            *(401, "This API key is not known, or it has expired or been revoked."),
        )

    async def test_scopes(self, api: Any, mail: Json) -> None:
        result = await post(api, mail, {"Authorization": f"Bearer {api.read_key}"})
        assert (result.status_code, result.json) == (403, {"detail": "the key has not the scope send"})

    async def test_a_foreign_sender(self, api: Any, mail: Json) -> None:
        result = await post(api, mail | {"from_": "a@other.test"})
        assert result.status_code == 403
        assert "belongs to another account" in result.json["detail"]
        assert not api.queue.calls

    @pytest.mark.parametrize(
        ("body", "headers", "status", "detail"),
        [
            (b"{", {}, 400, "Bad Request"),
            (b"{}", {"Content-Type": "text/plain"}, 415, "Content-Type should be application/json."),
            (b"{}", {"Content-Encoding": "br"}, 415, "Content-Encoding should be gzip or none."),
            (b" " * 30_000_001, {}, 413, "content too large"),
        ],
    )
    async def test_bodies(self, api: Any, body: bytes, headers: dict[str, str], status: int, detail: str) -> None:
        result = await api.post(body, headers, PATH)
        assert (result.status_code, result.json) == (status, {"detail": detail})

    async def test_a_body_that_is_no_object(self, api: Any) -> None:
        result = await post(api, [])
        said = "Invalid type. Expected: object, given: array."
        assert (result.status_code, result.json) == (
            *(422, {"detail": [{"loc": ["body"], "msg": said, "type": "value_error"}]}),
        )

    async def test_numbers_in_paths(self, api: Any, mail: Json) -> None:
        result = await post(api, mail | {"to": ["x"]})
        assert result.json["detail"][0]["loc"] == ["body", "to", 0]

    async def test_other_verbs_and_paths(self, api: Any) -> None:
        headers = {"Authorization": f"Bearer {api.key}"}
        result = await api.request("PUT", PATH, b"", headers)
        assert (result.status_code, result.json) == (405, {"detail": "GET, POST method allowed only"})
        result = await api.request("GET", f"{PATH}/a/b/c", b"", headers)
        assert (result.status_code, result.json) == (404, {"detail": "Not found"})

    @pytest.mark.parametrize(("error", "status"), [(Full("full"), 507), (Unavailable("sick"), 503)])
    async def test_a_spool_that_does_not_take_it(self, api: Any, mail: Json, error: Exception, status: int) -> None:
        api.queue.error = error
        result = await post(api, mail)
        assert (result.status_code, result.json.keys()) == (status, {"detail"})

    async def test_too_much(self, api: Any, mail: Json) -> None:
        api.queue.turned["shop"] = Turned("backlog", 60)
        result = await post(api, mail)
        assert (result.status_code, result.headers["retry-after"]) == (429, "60")
        assert (await post_to(api, "/x/cancel")).status_code == 404  # who has too much may cancel some of it
        assert (await post_to(api, "/x/resend")).status_code == 429
        api.queue.turned.clear()
        api.rates.found = (Toll("key\0x", 1.0, 1, 1),)
        api.queue.throttled = Throttled(0, 2.5)
        result = await post(api, mail)
        assert (result.status_code, result.headers["retry-after"]) == (429, "3")


async def test_the_same_again_is_answered_the_same_and_sent_once(api: Any, example: Json) -> None:
    headers = {"Idempotency-Key": "once"}
    first, again = await post(api, example, headers), await post(api, example, headers)
    assert (again.status_code, again.json) == (202, first.json)
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    assert len(api.queue.calls) == 1
    other = await post(api, example | {"subject": "Other"}, headers)
    assert (other.status_code, other.json) == (409, {"detail": "this idempotency key was used for another request"})
    wrong = await post(api, example, {"Idempotency-Key": "x" * 257})
    assert (wrong.status_code, len(api.queue.calls)) == (400, 1)


@given(st.dictionaries(st.sampled_from([*KNOWN, "x"]), values, max_size=4))
def test_any_json_is_read_or_refused_and_adds_no_field(change: Json) -> None:
    mail = {"to": ["a@example.test"], "subject": "Hello", "text": "Hi", "from_": "billing@shop.test"}
    with contextlib.suppress(Refusal):
        assert written(read_email(mail | change, NOW)) == set()
