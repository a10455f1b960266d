"""Postmark's clients, unmodified: postmarker, django-anymail, postmark of Node."""

import time
from base64 import b64encode
from typing import Any

import anymail.backends.postmark as anymail_postmark
import pytest
from anymail.exceptions import AnymailRecipientsRefused, AnymailRequestsAPIError
from postmarker.core import PostmarkClient
from postmarker.exceptions import ClientError

from tests.interop.clients.whole import PNG, SENDER, arrived, assert_whole, django_mail, key_of, node, url
from tests.interop.installation import DOMAIN, Installation

LARGEST_WAIT = 10.0  # seconds


@pytest.fixture(scope="session")
def key(site: Installation) -> str:
    return key_of(site)


@pytest.fixture
def client(site: Installation, key: str) -> Any:
    return PostmarkClient(server_token=key, root_api_url=url(site))


def test_postmarker(site: Installation, client: Any, token: str) -> None:
    sent = client.emails.send(
        From=f"Jürgen Größe <{SENDER}>",
        To=[f'"Änne, die Erste" <to-{token}@away.test>', f"second-{token}@away.test"],
        Cc=f"cc-{token}@away.test",
        Bcc=f"bcc-{token}@away.test",
        ReplyTo=f"help@{DOMAIN}",
        Subject=f"Grüße ✓ {token}",
        TextBody="text: ü",
        HtmlBody='<p>html: ü <img src="cid:logo"></p>',
        Headers={"X-Own": "Wert ü"},
        Tag=token,
        Metadata={"order": token},
        Attachments=[
            ("größe.txt", b64encode("größe".encode()).decode(), "text/plain"),
            ("logo.png", b64encode(PNG).decode(), "image/png", "cid:logo"),
        ],
    )
    assert (sent["ErrorCode"], sent["Message"]) == (0, "OK")
    assert_whole(site, token)
    until, shown = time.monotonic() + LARGEST_WAIT, client.messages.outbound.get(sent["MessageID"])
    while shown.Status != "Sent":
        assert time.monotonic() < until, shown
        shown = client.messages.outbound.get(sent["MessageID"])
    assert (shown.Subject, shown.Metadata) == (f"Grüße ✓ {token}", {"order": token})
    assert {each["Type"] for each in shown.MessageEvents} == {"Delivered"}
    (listed,) = client.messages.outbound.all(tag=token, recipient=f"to-{token}@away.test")
    assert listed.MessageID == sent["MessageID"]


def test_postmarker_sends_a_batch(site: Installation, client: Any, token: str) -> None:
    mail = {"From": SENDER, "Subject": token, "TextBody": "text"}
    sent = client.emails.send_batch(
        {**mail, "To": f"ann-{token}@away.test"}, {**mail, "To": "x"}, {**mail, "To": f"bob-{token}@away.test"}
    )
    assert [each["ErrorCode"] for each in sent] == [0, 300, 0]
    for name in ("ann", "bob"):
        _, message = arrived(site, f"{name}-{token}@away.test")
        assert message["To"] == f"{name}-{token}@away.test"


def test_postmarker_is_told_what_is_wrong(site: Installation, client: Any) -> None:
    with pytest.raises(ClientError, match="Invalid 'To' address: 'x'") as refused:
        client.emails.send(From=SENDER, To="x", TextBody="text")
    assert refused.value.error_code == 300
    with pytest.raises(ClientError, match="Templates are not supported yet"):
        client.emails.send_with_template(TemplateId=1, TemplateModel={}, From=SENDER, To="a@away.test")
    tester = PostmarkClient(server_token="POSTMARK_API_TEST", root_api_url=url(site))
    assert tester.emails.send(From=SENDER, To="a@away.test", TextBody="text")["ErrorCode"] == 0


def anymail(site: Installation, key: str) -> Any:
    return anymail_postmark.EmailBackend(server_token=key, api_url=url(site))


def test_anymail(site: Installation, key: str, token: str) -> None:
    mail = django_mail(token, anymail(site, key))
    mail.tags, mail.metadata, mail.track_opens, mail.track_clicks = ["orders"], {"order": 2}, False, False
    assert mail.send() == 1
    assert {each.status for each in mail.anymail_status.recipients.values()} == {"sent"}
    assert len(mail.anymail_status.recipients) == 4
    assert_whole(site, token)


def test_anymail_sends_a_batch(site: Installation, key: str, token: str) -> None:
    mail = django_mail(token, anymail(site, key))
    mail.cc, mail.bcc, mail.merge_data = [], [], {}
    mail.merge_metadata = {f"to-{token}@away.test": {"order": 1}}
    mail.send()
    assert {each.status for each in mail.anymail_status.recipients.values()} == {"sent"}
    captured, message = arrived(site, f"second-{token}@away.test")
    assert ([each.address for each in captured.envelope.recipients], message["Cc"]) == ([message["To"]], None)


def test_anymail_is_told_what_is_wrong(site: Installation, key: str, token: str) -> None:
    mail = django_mail(token, anymail(site, key))
    mail.from_email = f"{'x' * 65}@{DOMAIN}"
    with pytest.raises(AnymailRequestsAPIError, match="Invalid 'From' address"):
        mail.send()
    mail = django_mail(token, anymail(site, key))
    mail.to, mail.cc, mail.bcc = [wrong := f"{'x' * 65}@away.test"], [], []
    with pytest.raises(AnymailRecipientsRefused):
        mail.send()
    assert mail.anymail_status.recipients[wrong].status == "invalid"
    mail = django_mail(token, anymail(site, "wrong"))
    with pytest.raises(AnymailRequestsAPIError, match=r"valid.*token"):
        mail.send()


def test_postmark_of_node(site: Installation, key: str, token: str) -> None:
    said = node("postmark.cjs", f"127.0.0.1:{site.ports.http}", key, DOMAIN, token)
    assert said["sent"]["ErrorCode"] == 0
    assert_whole(site, token)
    assert said["batch"] == [0, 300]
    assert said["listed"] == [said["sent"]["MessageID"]]
    assert said["details"] == [said["sent"]["MessageID"], {"order": token}, f"Grüße ✓ {token}"]
    assert said["refused"] == ["InvalidEmailRequestError", 300, 422, "Invalid 'To' address: 'x'."]
    assert said["wrong"] == ["InvalidAPIKeyError", 10, 401]
