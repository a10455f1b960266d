"""POST messages: what is accepted, what is handed to the queue, what is answered."""

import gzip
import json
from base64 import b64encode
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from mta.accounts import keys
from mta.spool.interface import Throttled, Toll
from tests.unit.relay_http.mailgun.conftest import Client, basic

NOW = 1_800_000_000.0
Form = dict[str, Any]


def parsed(content: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


async def test_one_message_is_accepted_and_answered_with_its_message_id(client: Client, form: Form) -> None:
    result = await client.send(form)
    sent = client.queue.only
    assert result.status_code == 200
    assert result.json == {"id": sent.header_message_id, "message": "Queued. Thank you."}
    assert sent.header_message_id == f"<{sent.id}@mail.shop.test>"
    assert (sent.tenant, sent.sign_domain, sent.summary.dialect) == ("shop", "shop.test", "mailgun")
    message = parsed(sent.content)
    assert (message["From"], message["To"]) == ("Shop <billing@shop.test>", "Ann <ann@example.test>")
    assert message["Message-ID"] == sent.header_message_id
    assert message.get_content() == "Thank you\r\n"


async def test_everything_in_parts(client: Client) -> None:
    png = b"\x89PNG\r\n\x1a\n--not a boundary"
    result = await client.send_parts(
        [
            ("from", "Jürgen Größe <billing@shop.test>"),
            ("to", "Änne <ann@example.test>"),
            ("to", "bob@example.test,Carl <carl@example.test>"),
            ("cc", "cc@example.test"),
            ("bcc", "hidden@example.test"),
            ("subject", "Grüße ✓"),
            ("text", "text: ü"),
            ("amp-html", "<html ⚡4email>"),
            ("html", '<img src="cid:logo.png">ü'),
            ("h:X-Own", "Wert ü"),
            ("h:reply-to", "Support <help@shop.test>, x@shop.test"),
            ("h:Message-Id", "<own@shop.test>"),
            ("h:Sender", "billing@shop.test"),
            ("v:order", "7"),
            ("v:data", '{"a": 1}'),
            ("o:tag", "orders"),
            ("o:tag", "Mail"),
            ("attachment", ("ü %22q%22.txt", "größe".encode(), 'text/plain; charset="utf-8"')),
            ("attachment", ("report.pdf", b"%PDF", "")),
            ("inline", ("logo.png", png, "")),
        ]
    )
    assert (result.status_code, result.json["id"]) == (200, "<own@shop.test>")
    sent = client.queue.only
    assert [each.address for each in sent.envelope.recipients] == [
        *(f"{name}@example.test" for name in ("ann", "bob", "carl", "cc", "hidden")),
    ]
    assert (sent.categories, sent.custom_args) == (("orders", "Mail"), {"order": "7", "data": '{"a": 1}'})
    message = parsed(sent.content)
    assert message["From"] == "Jürgen Größe <billing@shop.test>"
    assert message["To"] == "Änne <ann@example.test>, bob@example.test, Carl <carl@example.test>"
    assert "hidden" not in sent.content.decode()
    assert (message["Subject"], message["X-Own"]) == ("Grüße ✓", "Wert ü")
    assert message["Reply-To"] == "Support <help@shop.test>, x@shop.test"
    assert message["Sender"] == "billing@shop.test"
    assert json.loads(message["X-Mailgun-Variables"]) == {"order": "7", "data": '{"a": 1}'}
    kinds = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
    texts = ["text/plain", "text/x-amp-html", "text/html"]
    assert kinds == [*texts, "image/png", "text/plain", "application/pdf"]
    files = {part.get_filename(): part for part in message.walk() if part.get_filename()}
    assert files['ü "q".txt'].get_content() == "größe"
    assert files["logo.png"].get_content() == png
    assert files["logo.png"]["Content-ID"] == "<logo.png>"
    assert files["report.pdf"].get_content() == b"%PDF"


async def test_duplicates_count_once(client: Client, form: Form) -> None:
    form["to"] = ["ann@example.test", "Ann <ANN@example.test>", "bob@example.test"]
    await client.send(form)
    assert parsed(client.queue.only.content)["To"] == "ann@example.test, bob@example.test"


async def test_gzip(client: Client, form: Form) -> None:
    body = gzip.compress(urlencode(form).encode())
    kind = "application/x-www-form-urlencoded"
    result = await client.post("/v3/shop.test/messages", body, kind, Content_Encoding="gzip")
    assert result.status_code == 200


async def test_a_name_below_the_tenants_domain_is_the_tenants(client: Client, form: Form) -> None:
    body, kind = urlencode(form).encode(), "application/x-www-form-urlencoded"
    assert (await client.post("/v3/mg.shop.test/messages", body, kind)).status_code == 200


async def test_times_and_tls(client: Client, form: Form) -> None:
    form |= {"o:deliverytime": "Fri, 15 Jan 2027 10:00:00 +0100", "o:deliver-within": "1h30m", "o:require-tls": "True"}
    assert (await client.send(form)).status_code == 200
    envelope = client.queue.only.envelope
    assert (envelope.release_at, envelope.deliver_by) == (1_800_003_600, 1_800_003_600 + 5400)
    assert envelope.tls_required == "verified"


@pytest.mark.parametrize(
    ("require", "skip", "asked"),
    [("yes", "no", "verified"), ("true", "TRUE", "encrypted"), ("no", "yes", "no"), ("", "", "")],
)
async def test_what_is_asked_of_tls(client: Client, form: Form, require: str, skip: str, asked: str) -> None:
    form |= {"o:require-tls": require, "o:skip-verification": skip}
    await client.send(form)
    assert client.queue.only.envelope.tls_required == asked


async def test_a_time_that_has_passed_and_a_deadline_from_now_on(client: Client, form: Form) -> None:
    form |= {"o:deliverytime": "1799999999", "o:deliver-within": "5m"}
    await client.send(form)
    envelope = client.queue.only.envelope
    assert (envelope.release_at, envelope.deliver_by) == (1_799_999_999, NOW + 300)


async def test_disabled_and_harmless_options_are_accepted(client: Client, form: Form) -> None:
    form |= {
        **dict.fromkeys(("o:tracking", "o:tracking-clicks", "o:tracking-opens"), "no"),
        "o:tracking-pixel-location-top": "False",
        "o:dkim": "yes",
        "o:campaign": "x",
        "o:sending-ip": "192.0.2.1",
        "o:sending-ip-pool": "pool",
        "o:secondary-dkim": "d/s",
        "template": "",
        "t:variables": "",
        "unknown": "x",
        "o:unknown": "x",
    }
    assert (await client.send(form)).status_code == 200


async def test_options_as_header_fields(client: Client, form: Form) -> None:
    form |= {
        "h:X-Mailgun-Tag": "a",
        "h:X-Mailgun-Drop-Message": "no",
        "h:X-Mailgun-Require-TLS": "yes",
        "h:X-Mailgun-Variables": '{"n": 1}',
    }
    await client.send(form)
    sent = client.queue.only
    assert (sent.categories, sent.custom_args, sent.envelope.tls_required) == (("a",), {"n": "1"}, "verified")
    assert b"X-Mailgun-Tag" not in sent.content


@pytest.mark.parametrize("hidden", ["all", "X-Mailgun-Sid, x-mailgun-variables"])
async def test_variables_are_kept_out_of_the_header(client: Client, form: Form, hidden: str) -> None:
    await client.send(form | {"v:order": "7", "o:suppress-headers": hidden})
    assert client.queue.only.custom_args == {"order": "7"}
    assert b"X-Mailgun" not in client.queue.only.content


async def test_test_mode_answers_the_same_and_stores_nothing(client: Client, form: Form) -> None:
    result = await client.send(form | {"o:testmode": "yes"})
    assert (result.status_code, result.json["message"]) == (200, "Queued. Thank you.")
    assert not client.queue.calls
    assert result.json["id"].startswith("<")


async def test_a_batch_is_a_message_for_each_with_placeholders_filled(client: Client) -> None:
    variables = {
        "ANN@example.test": {"first": "Ann", "v:id": 1, "h:X-Own": "for Ann", "h:Reply-To": "a@shop.test"},
        "bob@exämple.test": {"first": "Bob ü", "v:id": None, "h:X-Own": "", "h:Reply-To": "b@shop.test"},
        "nobody": {"first": "x"},
    }
    result = await client.send_parts(
        [
            ("from", "billing@shop.test"),
            ("to", "Ann <ann@example.test>"),
            ("to", "bob@exämple.test"),
            ("bcc", "archive@shop.test"),
            ("subject", "For %recipient.first%"),
            ("text", "Hello %recipient.first%, %recipient_email%"),
            ("html", "<p>same for all</p>"),
            ("h:X-Own", "%recipient.h:X-Own%"),
            ("h:Reply-To", "%recipient.h:Reply-To%"),
            ("v:id", "%recipient.v:id%"),
            ("recipient-variables", json.dumps(variables)),
            ("attachment", ("a.txt", b"hello", "text/plain")),
        ]
    )
    assert result.status_code == 200, result.text
    ((ann, bob),) = client.queue.calls
    assert result.json["id"] == ann.header_message_id == bob.header_message_id == f"<{ann.id}@mail.shop.test>"
    assert ann.request == bob.request == ann.id != bob.id
    for_ann, for_bob = parsed(ann.content), parsed(bob.content)
    assert [each.address for each in bob.envelope.recipients] == ["bob@xn--exmple-cua.test", "archive@shop.test"]
    assert (for_ann["To"], for_bob["To"]) == ("Ann <ann@example.test>", "bob@xn--exmple-cua.test")
    assert (for_ann["Subject"], for_bob["Subject"]) == ("For Ann", "For Bob ü")
    assert for_ann["Message-ID"] == for_bob["Message-ID"] == result.json["id"]
    assert (for_ann["X-Own"], for_bob["X-Own"]) == ("for Ann", None)
    assert (for_ann["Reply-To"], for_bob["Reply-To"]) == ("a@shop.test", "b@shop.test")
    assert (ann.custom_args, bob.custom_args) == ({"id": "1"}, {"id": ""})
    assert json.loads(for_ann["X-Mailgun-Variables"]) == {"id": "1"}
    assert for_ann.get_body(("plain",)).get_content() == "Hello Ann, ann@example.test"
    assert for_bob.get_body(("plain",)).get_content() == "Hello Bob ü, bob@xn--exmple-cua.test"


async def test_empty_recipient_variables_make_a_batch(client: Client, form: Form) -> None:
    form |= {"to": ["ann@example.test", "bob@example.test"], "recipient-variables": "{}"}
    await client.send(form)
    ((ann, bob),) = client.queue.calls
    assert [parsed(each.content)["To"] for each in (ann, bob)] == ["ann@example.test", "bob@example.test"]


async def test_a_message_id_of_the_callers_own_stands_in_all_of_a_batch(client: Client, form: Form) -> None:
    form |= {"to": ["a@example.test", "b@example.test"], "recipient-variables": "{}", "h:message-id": "<own@shop.test>"}
    assert (await client.send(form)).json["id"] == "<own@shop.test>"
    ((one, two),) = client.queue.calls
    assert [each.content.lower().count(b"message-id: <own@shop.test>") for each in (one, two)] == [1, 1]
    assert [each.content.lower().count(b"message-id:") for each in (one, two)] == [1, 1]


async def test_placeholders_mean_nothing_outside_of_a_batch(client: Client, form: Form) -> None:
    await client.send(form | {"text": "100 %recipient.first%"})
    assert parsed(client.queue.only.content).get_content() == "100 %recipient.first%\r\n"


async def test_a_batch_of_a_thousand_with_attachments_holds_them_once(client: Client) -> None:
    to = [f"n{number}@example.test" for number in range(1000)]
    variables = json.dumps({each: {"n": each} for each in to})
    data = b64encode(b"x" * 30_000)
    fields: list[Any] = [("from", "billing@shop.test"), *[("to", each) for each in to]]
    fields += [("subject", "s"), ("text", "same"), ("v:n", "%recipient.n%"), ("recipient-variables", variables)]
    result = await client.send_parts([*fields, ("attachment", ("a.txt", data, "text/plain"))])
    assert result.status_code == 200
    (sent,) = client.queue.calls
    assert len(sent) == 1000
    assert [sent[7].custom_args, sent[999].custom_args] == [{"n": "n7@example.test"}, {"n": "n999@example.test"}]


async def test_an_idempotency_key_is_good_for_options_that_go_by_the_clock_too(client: Client, form: Form) -> None:
    form["o:deliver-within"] = "1h"
    first = await client.send(form, Idempotency_Key="k")
    again = await client.send_parts([(name, value) for name, value in form.items()], Idempotency_Key="k")
    assert (again.status_code, again.json) == (200, first.json)
    assert again.headers["idempotent-replayed"] == "true"
    assert len(client.queue.calls) == 1
    other = await client.send(form | {"text": "other"}, Idempotency_Key="k")
    assert (other.status_code, list(other.json)) == (409, ["message"])


async def test_a_batch_with_an_idempotency_key_is_sent_once(client: Client, form: Form) -> None:
    form |= {"to": ["a@example.test", "b@example.test"], "recipient-variables": "{}"}
    first = await client.send(form, Idempotency_Key="k")
    assert (await client.send(form, Idempotency_Key="k")).json == first.json
    assert len(client.queue.calls) == 1


async def test_a_rate_is_refused_with_the_time_in_the_text(client: Client, form: Form) -> None:
    client.api.rates.found = (Toll("key\0x", 1.0, 1, 1),)
    client.queue.throttled = Throttled(0, 41.2, (NOW,))
    result = await client.send(form)
    assert (result.status_code, result.headers["retry-after"]) == (429, "42")
    assert "42 seconds" in result.json["message"]


async def test_a_sandbox_key_sends_nothing(client: Client, form: Form) -> None:
    key, text = await keys.create(client.spool, "shop", ["send"], NOW)
    stored = msgspec.msgpack.encode(msgspec.structs.replace(key, sandbox=True))
    client.spool.records[keys.KIND, key.id] = stored
    client.api.key = text
    assert (await client.send(form)).status_code == 200
    assert not client.queue.calls


async def test_any_user_name_will_do(client: Client, form: Form) -> None:
    body = urlencode(form).encode()
    headers = basic(client.api.key, "key") | {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await client.api.request("POST", "/v3/shop.test/messages", body, headers)).status_code == 200
