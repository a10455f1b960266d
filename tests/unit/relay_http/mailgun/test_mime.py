"""POST messages.mime: the message goes out as it came, but for what it lacks and what is asked beside it."""

from email import policy
from email.parser import BytesParser
from typing import Any

import pytest

from tests.unit.relay_http.mailgun.conftest import Client, File

PATH = "/v3/shop.test/messages.mime"
MIME = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <billing@shop.test>\r\nTo: list@example.test\r\nBcc: hidden@example.test\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nbody: \xc3\xbc\r\n"
)


async def send(client: Client, message: str | File, *more: tuple[str, str]) -> Any:
    return await client.send_parts([("to", "ann@example.test"), *more, ("message", message)], PATH)


@pytest.mark.parametrize(
    "message",
    [
        MIME.decode(),
        ("MimeMessage", MIME, "application/octet-stream"),
        ("message", MIME, ""),
        ("message.mime", MIME, "message/rfc822"),
        ("", MIME.replace(b"\r\n", b"\n"), ""),
    ],
)
async def test_in_every_shape_that_clients_send(client: Client, message: str | File) -> None:
    result = await send(client, message, ("to", "Bob <bob@example.test>"), ("o:tag", "t"), ("v:order", "7"))
    assert result.status_code == 200, result.text
    sent = client.queue.only
    assert result.json == {"id": sent.header_message_id, "message": "Queued. Thank you."}
    assert [each.address for each in sent.envelope.recipients] == ["ann@example.test", "bob@example.test"]
    assert (sent.envelope.sender, sent.envelope.eight_bit, sent.sign_domain) == ("billing@shop.test", True, "shop.test")
    assert (sent.categories, sent.custom_args) == (("t",), {"order": "7"})
    assert (sent.summary.subject, sent.summary.from_) == ("Grüße", "Jürgen <billing@shop.test>")
    read = BytesParser(policy=policy.default).parsebytes(sent.content)
    assert (read["To"], read["Bcc"], read["X-Mailgun-Variables"]) == ("list@example.test", None, '{"order":"7"}')
    assert (read["Message-ID"], read["Received"] is not None) == (sent.header_message_id, True)
    assert sent.content.endswith(b"\r\n\r\nbody: \xc3\xbc\r\n")


async def test_a_message_id_of_its_own_is_kept(client: Client) -> None:
    result = await send(client, ("", b"Message-ID: <own@shop.test>\r\nDate: now\r\n" + MIME, ""))
    assert result.json["id"] == client.queue.only.header_message_id == "<own@shop.test>"
    assert [client.queue.only.content.count(name) for name in (b"Message-ID:", b"Date:")] == [1, 1]


async def test_fields_beside_it_stand_in_place_of_its_own(client: Client) -> None:
    more = [("h:X-Own", "new ü"), ("h:Message-Id", "<new@shop.test>"), ("h:Reply-To", "Ä <r@shop.test>, s@shop.test")]
    result = await send(client, ("", b"X-own: old\r\nReply-to: old@shop.test\r\n" + MIME, ""), *more)
    assert result.json["id"] == "<new@shop.test>"
    read = BytesParser(policy=policy.default).parsebytes(client.queue.only.content)
    assert (read.get_all("X-Own"), read.get_all("Reply-To")) == (["new ü"], ["Ä <r@shop.test>, s@shop.test"])
    assert read.get_all("Message-ID") == ["<new@shop.test>"]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "message parameter is missing"),
        ("Subject: x\r\n\r\nno sender", "From"),
        ("From: a@shop.test, b@shop.test\r\n\r\n", "From"),
        ("From: a@shop.test\r\nFrom: b@shop.test\r\n\r\n", "From"),
        ("From: a@shop.test\r\n\r\n\0", "NUL"),
        ("From: a@shop.test\r\n\r\n" + "x" * 999, "998"),
    ],
)
async def test_messages_that_are_refused(client: Client, message: str, said: str) -> None:
    result = await send(client, message)
    assert (result.status_code, said in result.json["message"]) == (400, True), result.text
    assert not client.queue.calls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipient-variables", '{"ann@example.test": {"a": "b"}}'),
        ("template", "t"),
        ("message", "From: x"),
        ("to", "x"),
    ],
)
async def test_what_beside_it_is_refused(client: Client, name: str, value: str) -> None:
    result = await send(client, MIME.decode(), (name, value))
    assert (result.status_code, name in result.json["message"]) == (400, True), result.text


async def test_nobody_to_send_it_to(client: Client) -> None:
    result = await client.send_parts([("message", MIME.decode())], PATH)
    assert (result.status_code, result.json["message"]) == (400, "to parameter is missing")


async def test_a_sender_of_another_tenant(client: Client) -> None:
    result = await send(client, ("", MIME.replace(b"billing@shop.test", b"ceo@other.test"), ""))
    assert result.status_code == 403


async def test_a_message_over_25_megabytes(client: Client) -> None:
    result = await send(client, ("", MIME + b"x\r\n" * (9 << 20), ""))
    assert (result.status_code, result.json["message"]) == (413, "Message is larger than 25 MB")
