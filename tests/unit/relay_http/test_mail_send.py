"""POST mail/send: what is accepted, what is handed to the queue, what is answered."""

import asyncio
import gzip
import logging
import zlib
from base64 import b64encode
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import msgspec
import pytest

from mta.mail.envelope import Notify
from mta.mail.ids import message_id_bytes
from mta.queue.gate import Turned
from mta.spool.interface import Full, Refused, Unavailable, Uncertain
from mta.spool.records import Origin

Json = dict[str, Any]


def parsed(content: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


async def test_one_message_is_accepted_and_answered_with_its_id(api: Any, mail: Json) -> None:
    result = await api.send(mail)
    assert (result.status_code, result.content) == (202, b"")
    assert result.headers["content-type"] == "text/plain; charset=utf-8"
    sent = api.queue.only
    assert result.headers["x-message-id"] == sent.id == sent.request
    message_id_bytes(sent.id)
    assert (sent.tenant, sent.origin, sent.sign_domain) == ("shop", Origin.HTTP, "shop.test")
    assert sent.client == "192.0.2.7"
    assert sent.header_message_id == f"<{sent.id}@mail.shop.test>"
    envelope = sent.envelope
    assert envelope.sender == "billing@shop.test"
    assert [(each.address, each.notify) for each in envelope.recipients] == [("ann@example.test", Notify.NEVER)]
    assert not envelope.smtputf8
    assert not envelope.eight_bit
    message = parsed(sent.content)
    assert message["From"] == "Shop <billing@shop.test>"
    assert message["To"] == "Ann <ann@example.test>"
    assert message["Subject"] == "Your order"
    assert message["Message-ID"] == sent.header_message_id
    assert message["Date"].datetime.timestamp() == 1_800_000_000
    assert sent.id in message["Received"]
    assert message.get_content() == "Thank you\r\n"


@pytest.mark.parametrize("path", ["/v3/mail/send", "/api/v1/mail/send", "/api/v1/v3/mail/send"])
async def test_every_path_of_the_vendors_clients(api: Any, mail: Json, path: str) -> None:
    assert (await api.post(msgspec.json.encode(mail), path=path)).status_code == 202


async def test_personalizations_are_messages_of_one_request_accepted_in_one_call(api: Any, mail: Json) -> None:
    mail["headers"] = {"X-A": "root", "X-B": "root"}
    mail["custom_args"] = {"a": "root", "b": "root"}
    mail["categories"] = ["orders", "mail"]
    mail["personalizations"] = [
        {"to": [{"email": "one@example.test"}]},
        {
            "to": [{"email": "two@example.test"}],
            "cc": [{"email": "cc@example.test"}],
            "bcc": [{"email": "hidden@example.test"}],
            "from": {"email": "sales@SHOP.test"},
            "subject": "Other",
            "headers": {"x-b": "own"},
            "custom_args": {"b": "own"},
        },
    ]
    result = await api.send(mail)
    ((first, second),) = api.queue.calls
    assert first.request == second.request == first.id == result.headers["x-message-id"]
    assert second.id != first.id
    assert first.categories == second.categories == ("orders", "mail")
    assert (first.custom_args, second.custom_args) == ({"a": "root", "b": "root"}, {"a": "root", "b": "own"})
    assert first.envelope.sender == "billing@shop.test"
    assert second.envelope.sender == "sales@SHOP.test"
    assert [each.address for each in second.envelope.recipients] == [
        *("two@example.test", "cc@example.test", "hidden@example.test")
    ]
    one, two = parsed(first.content), parsed(second.content)
    assert (one["Subject"], two["Subject"]) == ("Your order", "Other")
    assert (one["X-A"], one["X-B"]) == ("root", "root")
    assert (two["X-A"], two.get_all("X-B")) == ("root", ["own"])
    assert (two["From"], two["Cc"]) == ("sales@SHOP.test", "cc@example.test")
    assert b"hidden" not in second.content
    assert two["Bcc"] is None


async def test_text_html_attachments_and_reply_to(api: Any, mail: Json) -> None:
    mail["content"].append({"type": "text/html; charset=iso-8859-1", "value": "<p>Grüße</p><img src='cid:logo'>"})
    mail["reply_to_list"] = [{"email": "a@shop.test"}, {"email": "b@shop.test", "name": "B"}]
    mail["attachments"] = [
        {"content": b64encode(b"PDF").decode(), "filename": "Rechnung für Sie.pdf", "type": "application/pdf"},
        {
            "content": b64encode(b"PNG").decode(),
            "filename": "logo.png",
            "type": 'image/png; name="x"',
            "disposition": "inline",
            "content_id": "<logo>",
        },
        {"content": b64encode(b"?").decode(), "filename": "", "type": ""},
    ]
    assert (await api.send(mail)).status_code == 202
    message = parsed(api.queue.only.content)
    assert message["Reply-To"] == "a@shop.test, B <b@shop.test>"
    html = message.get_body(("html",))
    assert html is not None
    assert html.get_content() == "<p>Grüße</p><img src='cid:logo'>"
    pdf, unnamed = [part for part in message.iter_attachments() if part.get_content_maintype() == "application"]
    assert (pdf.get_filename(), pdf.get_payload(decode=True)) == ("Rechnung für Sie.pdf", b"PDF")
    assert (unnamed.get_filename(), unnamed.get_content_type()) == (None, "application/octet-stream")
    (logo,) = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert (logo["Content-ID"], logo.get_payload(decode=True)) == ("<logo>", b"PNG")


async def test_the_callers_message_id_is_kept(api: Any, mail: Json) -> None:
    mail["headers"] = {"MIME-Version": "1.0", "List-Unsubscribe": "<mailto:u@x.test>"}
    mail["headers"] |= {"Message-ID": "<other@shop.test>", "message-id": "<mine@shop.test>"}
    assert (await api.send(mail)).status_code == 202
    message = parsed(api.queue.only.content)
    assert message.get_all("Message-ID") == ["<mine@shop.test>"]
    assert api.queue.only.header_message_id == "<mine@shop.test>"
    assert message.get_all("MIME-Version") == ["1.0"]
    assert message["List-Unsubscribe"] == "<mailto:u@x.test>"


async def test_addresses_beyond_ascii(api: Any, mail: Json) -> None:
    mail["personalizations"][0]["to"] = [{"email": "ann@bücher.test"}]
    assert (await api.send(mail)).status_code == 202
    assert api.queue.only.envelope.recipients[0].address == "ann@xn--bcher-kva.test"
    assert not api.queue.only.envelope.smtputf8
    assert api.queue.only.content.isascii()
    api.queue.calls.clear()
    mail["reply_to"] = {"email": "зоя@bücher.test"}
    assert (await api.send(mail)).status_code == 202
    assert api.queue.only.envelope.smtputf8
    assert api.queue.only.envelope.eight_bit
    assert "Reply-To: зоя@xn--bcher-kva.test\r\n" in api.queue.only.content.decode()


async def test_the_sandbox_checks_everything_and_stores_nothing(api: Any, mail: Json) -> None:
    mail["mail_settings"] = {"sandbox_mode": {"enable": True}}
    result = await api.send(mail)
    assert (result.status_code, result.content) == (200, b"")
    mail["from"] = {"email": "a@other.test"}
    assert (await api.send(mail)).status_code == 403
    del mail["content"]
    assert (await api.send(mail)).status_code == 400
    assert not api.queue.calls


async def test_a_domain_of_another_tenant_is_refused_and_an_unknown_one_goes_unsigned(api: Any, mail: Json) -> None:
    mail["from"] = {"email": "a@mail.OTHER.test"}
    result = await api.send(mail)
    assert result.status_code == 403
    (error,) = result.json["errors"]
    assert error["field"] == "from"
    assert error["message"].startswith("The from address does not match a verified Sender Identity")
    assert not api.queue.calls
    mail["from"] = {"email": "a@elsewhere.test"}
    assert (await api.send(mail)).status_code == 202
    assert (api.queue.only.sign_domain, api.queue.only.note) == ("", "elsewhere.test is not registered")


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"Authorization": ""}, 401, "Permission denied, wrong credentials"),
        ({"Authorization": "Basic QTpC"}, 401, "Permission denied, wrong credentials"),
        (
            {"Authorization": "Bearer SG.nobody.knows"},
            401,
            "The provided authorization grant is invalid, expired, or revoked",
        ),
        ({"Content-Type": "text/plain"}, 415, "Content-Type should be application/json."),
        ({"Content-Type": ""}, 415, "Content-Type should be application/json."),
        ({"Content-Encoding": "br"}, 415, "Content-Encoding should be gzip or none."),
    ],
)
async def test_refused_by_its_headers(api: Any, mail: Json, headers: dict[str, str], status: int, message: str) -> None:
    result = await api.post(msgspec.json.encode(mail), headers)
    assert result.status_code == status
    assert result.json == {"errors": [{"message": message, "field": None, "help": None}]}
    assert not api.queue.calls


async def test_a_key_without_the_scope_may_not_send(api: Any, mail: Json) -> None:
    result = await api.post(msgspec.json.encode(mail), {"Authorization": f"Bearer {api.read_key}"})
    assert (result.status_code, result.json["errors"][0]["message"]) == (403, "access forbidden")
    assert not api.queue.calls


async def test_other_verbs_and_paths(api: Any) -> None:
    result = await api.request("GET", "/v3/mail/send")
    assert (result.status_code, result.json["errors"][0]["message"]) == (405, "POST method allowed only")
    assert "POST" in result.headers["allow"]
    result = await api.request("POST", "/v3/nothing")
    assert (result.status_code, result.json["errors"][0]["message"]) == (401, "authorization required")
    result = await api.post(b"{}", path="/v3/nothing")
    assert (result.status_code, result.json["errors"][0]["message"]) == (404, "not found")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "Bad Request"),
        (b"{", 400, "Bad Request"),
        (b"to=ann", 400, "Bad Request"),
        (b'{"a": 1e999}', 400, "Bad Request"),
        (b'{"a": "\\ud800"}', 400, "Bad Request"),
        (b"[" * 200_000, 400, "Bad Request"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "Bad Request"),
        (b'{"a": "\xff"}', 415, "Invalid UTF8 in request"),
        (b"\xff\xfe", 415, "Invalid UTF8 in request"),
        (b"x" * 30_000_001, 413, "content too large"),
        (b"[]", 400, "Invalid type. Expected: object, given: array."),
        (b"null", 400, "Invalid type. Expected: object, given: null."),
    ],
    ids=lambda value: repr(value)[:24],
)
async def test_bodies_that_are_no_request(api: Any, body: bytes, status: int, message: str) -> None:
    result = await api.post(body)
    assert result.status_code == status
    assert [(error["message"], error["field"]) for error in result.json["errors"]] == [(message, None)]
    assert not api.queue.calls


async def test_many_members_are_no_trouble(api: Any, mail: Json) -> None:
    mail |= {f"unknown{number}": number for number in range(100_000)}
    assert (await api.send(mail)).status_code == 202


async def test_gzip(api: Any, mail: Json) -> None:
    body = gzip.compress(msgspec.json.encode(mail))
    for coding in ("gzip", "GZIP"):
        assert (await api.post(body, {"Content-Encoding": coding})).status_code == 202
    assert len(api.queue.calls) == 2


def bomb(size: int, claimed: int) -> bytes:
    """A gzip member of `size` spaces that says it has `claimed` octets."""
    stream = zlib.compressobj(wbits=31)
    return (stream.compress(b" " * size) + stream.flush())[:-4] + claimed.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not gzip at all", 400),
        (gzip.compress(b'{"from": 1}')[:-9], 400),
        (gzip.compress(b"{}") + b"more", 400),
        (gzip.compress(b"{}") + gzip.compress(b"{}"), 400),
        (bomb(31_000_000, 31_000_000), 413),
        (bomb(31_000_000, 100), 400),
        (bomb(100, 20_000_000), 400),
    ],
)
async def test_gzip_that_is_none_or_too_much(api: Any, body: bytes, status: int) -> None:
    result = await api.post(body, {"Content-Encoding": "gzip"})
    assert result.status_code == status
    assert result.json["errors"]
    assert not api.queue.calls


async def test_large_content_is_stored_before_it_is_accepted(api: Any, mail: Json) -> None:
    data = bytes(range(256)) * 20_000
    mail["attachments"] = [{"content": b64encode(data).decode(), "filename": "large.bin"}]
    assert (await api.send(mail)).status_code == 202
    assert api.queue.only.content == b""
    (segment,) = api.queue.only.stored
    stored = api.spool.contents[segment.content]
    assert segment.size == len(stored)
    (file,) = parsed(stored).iter_attachments()
    assert file.get_payload(decode=True) == data


async def test_what_messages_have_in_common_is_stored_once(api: Any, mail: Json) -> None:
    data = bytes(range(256)) * 20_000
    mail["attachments"] = [{"content": b64encode(data).decode(), "filename": "large.bin"}]
    mail["content"][0]["value"] = "Hello -name-"
    names = ("Ann", "Bob")
    mail["personalizations"] = [
        {"to": [{"email": f"{name}@example.test"}], "substitutions": {"-name-": name}} for name in names
    ]
    assert (await api.send(mail)).status_code == 202
    ((first, second),) = api.queue.calls
    assert first.shared == second.shared
    assert len(api.spool.contents) == 1
    for each, name in zip((first, second), names, strict=True):
        assert len(each.content) < 2000
        (segment,) = each.shared
        message = parsed(each.content + api.spool.contents[segment.content])
        text = message.get_body(("plain",))
        assert text is not None
        assert text.get_content() == f"Hello {name}"
        (file,) = message.iter_attachments()
        assert file.get_payload(decode=True) == data


async def test_many_small_messages_are_stored_before_when_they_are_much_together(api: Any, mail: Json) -> None:
    mail["content"][0]["value"] = "-n-" + "x" * 200_000
    mail["personalizations"] = [
        {"to": [{"email": f"u{number}@example.test"}], "substitutions": {"-n-": str(number)}} for number in range(60)
    ]
    assert (await api.send(mail)).status_code == 202
    (accepted,) = api.queue.calls
    assert len(accepted) == 60
    inline = [each for each in accepted if each.content]
    assert 0 < len(inline) < 60
    assert sum(len(each.content) for each in inline) <= 8 << 20
    assert all(bool(each.content) != bool(each.stored) for each in accepted)


async def test_a_request_does_not_multiply_its_headers_without_end(api: Any, mail: Json) -> None:
    mail["headers"] = {"X-Long": "word " * 200_000 + "."}
    mail["personalizations"] = [{"to": [{"email": f"u{number}@example.test"}]} for number in range(100)]
    assert (await api.send(mail)).status_code == 413
    assert not api.queue.calls


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Full("no room"), 507, None),
        (Unavailable("closed"), 503, "30"),
        (Uncertain("half-way"), 503, "30"),
        (Refused("no"), 500, None),
        (RuntimeError("secret words"), 500, None),
    ],
)
async def test_what_the_queue_does_not_take(
    api: Any, mail: Json, error: Exception, status: int, retry_after: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    api.queue.error = error
    with caplog.at_level(logging.INFO):
        result = await api.send(mail)
    assert result.status_code == status
    assert result.headers.get("retry-after") == retry_after
    assert str(error) not in result.text
    assert result.json["errors"]
    lines = [record for record in caplog.records if record.name.startswith("relay_http")]
    assert len(lines) == 1
    assert bool(lines[0].exc_info) == (status == 500)


async def test_content_that_the_spool_does_not_take_is_given_up(api: Any, mail: Json) -> None:
    api.spool.error = Full("no room")
    mail["content"][0]["value"] = "x" * 300_000
    assert (await api.send(mail)).status_code == 507
    assert api.spool.aborted == 1
    assert not api.queue.calls


async def test_octets_held_are_bounded_and_given_back(make_api: Any, mail: Json) -> None:
    api = await make_api(limits={"buffered": 1 << 20})
    mail["content"][0]["value"] = "x" * 200_000
    body = msgspec.json.encode(mail)
    api.queue.gate.clear()
    requests = [asyncio.create_task(api.post(body)) for _ in range(4)]
    done, waiting = await asyncio.wait(requests, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    api.queue.gate.set()
    statuses = [(await each).status_code for each in requests]
    assert sorted(set(statuses)) == [202, 503]
    refused = [each.result() for each in requests if each.result().status_code == 503]
    assert refused[0].headers["retry-after"] == "1"
    assert (await api.post(body)).status_code == 202
    mail["content"][0]["value"] = "x" * 1_100_000
    assert (await api.send(mail)).status_code == 413
    assert done
    assert waiting


async def test_one_line_is_logged_for_each_request_and_no_secret(
    api: Any, mail: Json, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        accepted = await api.send(mail)
        mail["subject"] = "a\nb"
        await api.send(mail)
        await api.post(b"{}", {"Authorization": "Bearer SG.wrong"})
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("relay_http")]
    assert len(lines) == 3
    assert lines[0].startswith(f"accepted request={accepted.headers['x-message-id']} client=192.0.2.7 tenant=shop key=")
    assert " messages=1 recipients=1 " in lines[0]
    assert lines[1].startswith("refused status=400 client=192.0.2.7 tenant=shop key=")
    assert "field='subject'" in lines[1]
    assert lines[2].startswith("refused status=401 client=192.0.2.7 tenant= key= ")
    secret = api.key.rpartition(".")[2]
    assert not any(secret in line or "SG.wrong" in line or "\n" in line for line in lines)


async def test_many_who_ask_the_same_at_once(api: Any, mail: Json) -> None:
    body, key, queue = msgspec.json.encode(mail), {"Idempotency-Key": "k"}, api.queue
    queue.gate.clear()
    first = asyncio.create_task(api.post(body, key))
    await queue.waiting.wait()
    early = await api.post(body, key)
    assert early.status_code == 409
    assert "still being worked on" in early.text
    queue.gate.set()
    id_ = (await first).headers["x-message-id"]
    queue.gate.clear()
    queue.waiting.clear()
    again = asyncio.create_task(api.post(body, key))
    await queue.waiting.wait()
    others = [await api.post(body, key) for _ in range(2)]
    assert (await api.post(body.replace(b"Your order", b"Other"), key)).status_code == 409
    queue.gate.set()
    for each in (await again, *others):
        assert (each.status_code, each.headers["idempotent-replayed"]) == (202, "true")
        assert each.headers["x-message-id"] == id_
    assert len(queue.calls) == 1


@pytest.mark.parametrize("item", [b"[]", b"{}", b'"":{}'])
async def test_json_that_would_become_many_objects_is_too_large(make_api: Any, item: bytes) -> None:
    api = await make_api(limits={"buffered": 4 << 20})
    opened, closed = (b"{", b"}") if b":" in item else (b"[", b"]")
    body = b'{"x": ' + opened + b",".join([item] * 60_000) + closed + b"}"
    for each, headers in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        assert (await api.post(each, headers)).status_code == 413


async def test_a_tenant_with_too_much_waiting_is_told_when_to_come_back(api: Any, mail: Json, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    api.queue.turned["shop"] = Turned("backlog", 90)
    result = await api.send(mail)
    assert (result.status_code, result.headers["retry-after"]) == (429, "90")
    assert result.json == {
        "errors": [
            {
                "message": "more of your mail is waiting than can be delivered in time, try again in 90 seconds",
                "field": None,
                "help": None,
            }
        ]
    }
    assert not api.queue.calls
    assert not caplog.records  # the gate says once for all of them when it begins and when it ends
    del api.queue.turned["shop"]
    assert (await api.send(mail)).status_code == 202


async def test_requiretls_no_is_said_by_a_header_for_each_personalization(api: Any, mail: Json) -> None:
    mail["headers"] = {"TLS-Required": "No"}
    mail["personalizations"] = [
        {"to": [{"email": "one@example.test"}]},
        {"to": [{"email": "two@example.test"}], "headers": {"tls-required": "Yes"}},
    ]
    assert (await api.send(mail)).status_code == 202
    ((first, second),) = api.queue.calls
    assert [each.envelope.tls_required for each in (first, second)] == ["no", ""]
    assert parsed(first.content)["TLS-Required"] == "No"
