"""Resend's clients, unmodified: the resend package, django-anymail, resend of Node."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import anymail.backends.resend as anymail_resend
import pytest
import resend
from anymail.exceptions import AnymailRequestsAPIError
from resend.exceptions import ResendError, ValidationError

from tests.interop.clients.whole import PNG, SENDER, arrived, assert_whole, django_mail, key_of, node, url
from tests.interop.installation import DOMAIN, Installation


@pytest.fixture(scope="session")
def key(site: Installation) -> str:
    return key_of(site)


@pytest.fixture
def client(site: Installation, key: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(resend, "api_key", key)
    monkeypatch.setattr(resend, "api_url", url(site))
    return resend


def whole(token: str) -> dict[str, Any]:
    return {
        "from": f"Jürgen Größe <{SENDER}>",
        "to": [f'"Änne, die Erste" <to-{token}@away.test>', f"second-{token}@away.test"],
        "cc": f"cc-{token}@away.test",
        "bcc": [f"bcc-{token}@away.test"],
        "reply_to": f"help@{DOMAIN}",
        "subject": f"Grüße ✓ {token}",
        "text": "text: ü",
        "html": '<p>html: ü <img src="cid:logo"></p>',
        "headers": {"X-Own": "Wert ü"},
        "tags": [{"name": "order", "value": token}],
        "attachments": [
            {"filename": "größe.txt", "content": b64encode("größe".encode()).decode()},
            {"filename": "logo.png", "content": list(PNG), "content_type": "image/png", "content_id": "logo"},
        ],
    }


def test_the_resend_package(site: Installation, client: Any, token: str) -> None:
    options = {"idempotency_key": token}
    sent = client.Emails.send(whole(token), options)
    assert client.Emails.send(whole(token), options)["id"] == sent["id"]
    assert_whole(site, token)
    shown = client.Emails.get(sent["id"])
    assert (shown["id"], shown["subject"]) == (sent["id"], f"Grüße ✓ {token}")
    assert sent["id"] in [each["id"] for each in client.Emails.list({"limit": 100})["data"]]


def test_the_resend_package_schedules(client: Any, token: str) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    mail = whole(token) | {"scheduled_at": tomorrow.isoformat()}
    id_ = client.Emails.send(mail)["id"]
    later = (tomorrow + timedelta(days=1)).isoformat()
    assert client.Emails.update({"id": id_, "scheduled_at": later})["id"] == id_
    assert client.Emails.cancel(id_)["id"] == id_
    assert client.Emails.get(id_)["last_event"] == "canceled"


def test_the_resend_package_sends_a_batch(site: Installation, client: Any, token: str) -> None:
    mails = [
        {"from": SENDER, "to": f"{name}-{token}@away.test", "subject": token, "text": "x"} for name in ("ann", "bob")
    ]
    assert len(client.Batch.send(mails)["data"]) == 2
    for name in ("ann", "bob"):
        assert arrived(site, f"{name}-{token}@away.test")[1]["To"] == f"{name}-{token}@away.test"
    some = client.Batch.send([mails[0], mails[1] | {"to": "x"}], {"batch_validation": "permissive"})
    assert (len(some["data"]), [each["index"] for each in some["errors"]]) == (1, [1])


def test_the_resend_package_is_told_what_is_wrong(client: Any, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="Invalid `to` field"):
        client.Emails.send(whole(token) | {"to": "x"})
    monkeypatch.setattr(resend, "api_key", "re_wrong")
    with pytest.raises(ResendError) as refused:
        client.Emails.send(whole(token))
    assert (refused.value.code, refused.value.error_type) == (403, "invalid_api_key")


def anymail(site: Installation, key: str) -> Any:
    return anymail_resend.EmailBackend(api_key=key, api_url=url(site))


def test_anymail(site: Installation, key: str, token: str) -> None:
    mail = django_mail(token, anymail(site, key))
    mail.tags, mail.metadata = ["orders"], {"order": 2}
    assert mail.send() == 1
    assert {each.status for each in mail.anymail_status.recipients.values()} == {"queued"}
    assert_whole(site, token)
    _, message = arrived(site, f"to-{token}@away.test")
    assert (json.loads(message["X-Tags"]), json.loads(message["X-Metadata"])) == (["orders"], {"order": 2})


def test_anymail_sends_a_batch(site: Installation, key: str, token: str) -> None:
    mail = django_mail(token, anymail(site, key))
    mail.cc, mail.bcc, mail.merge_data = [], [], {}
    mail.send()
    assert len({each.message_id for each in mail.anymail_status.recipients.values()}) == 2
    captured, message = arrived(site, f"second-{token}@away.test")
    assert [each.address for each in captured.envelope.recipients] == [message["To"]]


def test_anymail_is_told_what_is_wrong(site: Installation, token: str) -> None:
    mail = django_mail(token, anymail(site, "re_wrong"))
    with pytest.raises(AnymailRequestsAPIError, match="invalid_api_key"):
        mail.send()


def test_resend_of_node(site: Installation, key: str, token: str) -> None:
    said = node("resend.mjs", url(site), key, DOMAIN, token)
    assert said["again"] == said["sent"]
    assert_whole(site, token)
    assert said["shown"] == [said["sent"], f"Grüße ✓ {token}"]
    assert said["sent"] in said["listed"]
    assert (said["batch"], said["some"]) == (2, [1, [1]])
    assert said["changed"] == [said["scheduled"], said["scheduled"], "canceled"]
    assert said["refused"] == [422, "validation_error"]
    assert said["wrong"] == [403, "invalid_api_key"]
