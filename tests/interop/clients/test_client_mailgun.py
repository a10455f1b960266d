"""Mailgun's clients, unmodified: the mailgun package, django-anymail, mailgun.js, nodemailer-mailgun-transport."""

import json
import time
from email.message import EmailMessage
from typing import Any

import anymail.backends.mailgun as anymail_mailgun
import pytest
import requests
from anymail.exceptions import AnymailRequestsAPIError
from anymail.message import attach_inline_image
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from mailgun.client import Client

from mta.lab.mailbox import Captured
from tests.interop.clients.whole import SENDER, captured_for, key_of, node, parsed, url
from tests.interop.installation import DOMAIN, Installation

PNG = "\x89PNG".encode()  # as JavaScript makes octets of the text


@pytest.fixture(scope="session")
def key(site: Installation) -> str:
    """A key that may send and read."""
    return key_of(site)


def assert_whole(captured: Captured, token: str, files: dict[str, bytes], inline: str = "logo.png") -> EmailMessage:
    """See that a message has arrived with everything that all of these clients can say."""
    assert sorted(each.address for each in captured.envelope.recipients) == [
        f"{name}-{token}@away.test" for name in ("bcc", "cc", "second", "to")
    ]
    message = parsed(captured)
    assert (message["From"], message["Subject"]) == (f"Jürgen Größe <{SENDER}>", f"Grüße ✓ {token}")
    assert message["To"] == f"Änne <to-{token}@away.test>, second-{token}@away.test"
    assert (message["Cc"], b"bcc-" in captured.content) == (f"cc-{token}@away.test", False)
    assert (message["X-Own"], message["Reply-To"]) == ("Wert ü", f"help@{DOMAIN}")
    assert json.loads(message["X-Mailgun-Variables"]) == {"order": token}
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert (plain.get_content().strip(), "html: ü" in html.get_content()) == ("text: ü", True)
    found = {part.get_filename(): part for part in message.walk() if part.get_filename()}
    assert {name: part.get_payload(decode=True) for name, part in found.items()} == files
    assert (found[inline]["Content-ID"], found[inline].get_content_disposition()) == (f"<{inline}>", "inline")
    return message


def test_the_mailgun_package(site: Installation, key: str, token: str) -> None:
    with Client(auth=("api", key), api_url=url(site)) as client:
        data = {
            "from": f"Jürgen Größe <{SENDER}>",
            "to": [f"Änne <to-{token}@away.test>", f"second-{token}@away.test"],
            "cc": f"cc-{token}@away.test",
            "bcc": f"bcc-{token}@away.test",
            "subject": f"Grüße ✓ {token}",
            "text": "text: ü",
            "html": '<p>html: ü <img src="cid:logo.png"></p>',
            "h:X-Own": "Wert ü",
            "h:Reply-To": f"help@{DOMAIN}",
            "v:order": token,
            "o:tag": ["orders", "mail"],
            "o:testmode": False,
            "o:tracking": False,
        }
        files = [("attachment", ("größe.txt", "größe".encode())), ("inline", ("logo.png", PNG))]
        sent = client.messages.create(data=data, files=files, domain=DOMAIN)
        assert (sent.status_code, sent.json()["message"]) == (200, "Queued. Thank you.")
        captured = captured_for(site, f"to-{token}@away.test")
        message = assert_whole(captured, token, {"größe.txt": "größe".encode(), "logo.png": PNG})
        assert message["Message-ID"] == sent.json()["id"]

        asked = {"message-id": sent.json()["id"][1:-1], "ascending": "yes", "limit": 2}
        events = list(client.events.stream(filters=asked, domain=DOMAIN))
        assert next(each["event"] for each in events) == "accepted"
        assert {each["user-variables"]["order"] for each in events} == {token}
        assert DOMAIN in [each["name"] for each in client.domainlist.get().json()["items"]]

        whole = f"From: {SENDER}\r\nSubject: mime {token}\r\n\r\nbody\r\n".encode()
        to = {"to": f"mime-{token}@away.test"}
        mime = client.mimemessage.create(data=to, files={"message": whole}, domain=DOMAIN)
        assert mime.status_code == 200, mime.text
        assert parsed(captured_for(site, to["to"]))["Subject"] == f"mime {token}"

        later = data | {"to": f"later-{token}@away.test", "o:deliverytime": "Fri, 01 Jan 2100 00:00:00 +0000"}
        assert "7 days" in client.messages.create(data=later, domain=DOMAIN).json()["message"]
        assert client.messages.create(data=data, domain="unknown.test").status_code == 404


def test_a_stored_message_is_read_while_it_waits(site: Installation, key: str, token: str) -> None:
    with Client(auth=("api", key), api_url=url(site)) as client:
        to, tomorrow = f"to-{token}@away.test", str(int(time.time()) + 86_400)
        data = {"from": SENDER, "to": to, "subject": f"ü {token}", "text": "plain ü", "o:deliverytime": tomorrow}
        sent = client.messages.create(data=data, domain=DOMAIN)
        asked = {"message-id": sent.json()["id"], "event": "accepted"}
        (event,) = client.events.get(filters=asked, domain=DOMAIN).json()["items"]
    # the package has no way to a stored message; its users go by the event's address
    stored = requests.get(event["storage"]["url"], auth=("api", key), timeout=30).json()
    assert (stored["subject"], stored["body-plain"].strip(), stored["recipients"]) == (f"ü {token}", "plain ü", to)


@pytest.fixture
def backend(site: Installation, key: str) -> anymail_mailgun.EmailBackend:
    if not settings.configured:
        settings.configure()
    return anymail_mailgun.EmailBackend(api_key=key, api_url=f"{url(site)}/v3")


def test_anymail(site: Installation, backend: anymail_mailgun.EmailBackend, token: str) -> None:
    mail: Any = EmailMultiAlternatives(
        subject=f"Grüße ✓ {token}",
        body="text: ü",
        from_email=f"Jürgen Größe <{SENDER}>",
        to=[f"Änne <to-{token}@away.test>", f"second-{token}@away.test"],
        cc=[f"cc-{token}@away.test"],
        bcc=[f"bcc-{token}@away.test"],
        reply_to=[f"help@{DOMAIN}"],
        headers={"X-Own": "Wert ü"},
        connection=backend,
    )
    mail.attach_alternative('<p>html: ü <img src="cid:logo.png"></p>', "text/html")
    mail.attach("größe.txt", "größe", "text/plain")
    cid = attach_inline_image(mail, PNG, filename="other.png", subtype="png", domain="logo.png")
    mail.tags, mail.metadata = ["orders"], {"order": token}
    mail.track_clicks = mail.track_opens = False
    assert mail.send() == 1
    assert {each.status for each in mail.anymail_status.recipients.values()} == {"queued"}
    files = {"größe.txt": "größe".encode(), cid: PNG}
    message = assert_whole(captured_for(site, f"to-{token}@away.test"), token, files, inline=cid)
    assert message["Message-ID"] == mail.anymail_status.message_id


def test_anymail_merges(site: Installation, backend: anymail_mailgun.EmailBackend, token: str) -> None:
    ann, bob = (f"{name}-{token}@away.test" for name in ("ann", "bob"))
    mail: Any = EmailMultiAlternatives(
        subject="For %recipient.name%", body="%recipient.note%", from_email=SENDER, to=[ann, bob], connection=backend
    )
    mail.merge_data = {ann: {"name": "Ann"}, bob: {"name": "Bob ü", "note": "own"}}
    mail.merge_global_data = {"note": "for all"}
    mail.merge_metadata = {ann: {"order": 1}, bob: {"order": 2}}
    mail.merge_headers = {ann: {"List-Unsubscribe": "<https://away.test/ann>"}, bob: {}}
    mail.send()
    for_ann, for_bob = (parsed(captured_for(site, each)) for each in (ann, bob))
    assert (for_ann["To"], for_ann["Subject"], for_ann.get_content().strip()) == (ann, "For Ann", "for all")
    assert (for_bob["To"], for_bob["Subject"], for_bob.get_content().strip()) == (bob, "For Bob ü", "own")
    assert [json.loads(each["X-Mailgun-Variables"]) for each in (for_ann, for_bob)] == [{"order": "1"}, {"order": "2"}]
    assert (for_ann["List-Unsubscribe"], for_bob["List-Unsubscribe"]) == ("<https://away.test/ann>", None)
    assert for_ann["Message-ID"] == for_bob["Message-ID"] == mail.anymail_status.message_id


def test_anymail_is_told_of_a_domain_that_is_not_the_tenants(backend: anymail_mailgun.EmailBackend) -> None:
    mail = EmailMultiAlternatives("s", "b", "a@unknown.test", ["to@away.test"], connection=backend)
    with pytest.raises(AnymailRequestsAPIError, match="Unknown sender domain"):
        mail.send()


@pytest.mark.parametrize("how", ["form-data", "native", "fetch"])
def test_mailgun_js(site: Installation, key: str, token: str, how: str) -> None:
    said = node("mailgun.mjs", url(site), key, DOMAIN, token, how)
    assert said["message"] | {"id": ""} == {"id": "", "status": 200, "message": "Queued. Thank you."}
    captured = captured_for(site, f"to-{token}@away.test")
    files = {'größe, "x".txt': "größe".encode(), "logo.png": PNG}
    assert assert_whole(captured, token, files)["Message-ID"] == said["message"]["id"]
    subjects = [parsed(captured_for(site, f"{name}-{token}@away.test"))["Subject"] for name in ("ann", "bob")]
    assert subjects == [f"For Ann {token}", f"For Bob ü {token}"]
    assert {each["status"] for each in said["mime"]} == {200}
    assert (said["wrong"]["status"], said["wrong"]["details"]) == (404, "Domain not found: unknown.test")
    assert ["accepted", f"to-{token}@away.test", token] in said["events"]
    assert "delivered" in [each[0] for each in said["events"]]
    assert DOMAIN in said["domains"]
    assert sorted(said["records"]) == sorted(site.records)


def test_nodemailer(site: Installation, key: str, token: str) -> None:
    said = node("nodemailer_mailgun.cjs", str(site.ports.http), key, DOMAIN, token)
    assert said["message"] == "Queued. Thank you."
    files = {"größe.txt": "größe".encode(), "logo.png": PNG}
    captured = captured_for(site, f"to-{token}@away.test")
    assert assert_whole(captured, token, files)["Message-ID"] == said["messageId"] == said["id"]
