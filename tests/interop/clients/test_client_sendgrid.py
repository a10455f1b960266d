"""SendGrid's clients, unmodified: sendgrid, django-sendgrid-v5, django-anymail, @sendgrid/mail, nodemailer-sendgrid."""

import json
import time
import warnings
from base64 import b64encode
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
import sendgrid
from anymail.exceptions import AnymailRequestsAPIError
from anymail.message import attach_inline_image
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from python_http_client.exceptions import BadRequestsError, UnauthorizedError
from sendgrid.helpers.mail import (
    Attachment,
    BatchId,
    Bcc,
    Category,
    Cc,
    ContentId,
    CustomArg,
    Disposition,
    Email,
    FileContent,
    FileName,
    FileType,
    Header,
    Mail,
    Personalization,
    ReplyTo,
    Substitution,
    To,
)

from tests.interop.clients.whole import PNG, SENDER, captured_for, key_of, node, parsed, url
from tests.interop.installation import DOMAIN, Installation

LARGEST_WAIT = 10.0  # seconds


@pytest.fixture(scope="session")
def key(site: Installation) -> str:
    """A key that may do everything."""
    return key_of(site, "manage")


@pytest.fixture
def client(site: Installation, key: str) -> Any:
    return sendgrid.SendGridAPIClient(key, host=url(site))


def texts(message: EmailMessage) -> list[str]:
    found = [message.get_body((kind,)) for kind in ("plain", "html")]
    return [each.get_content().strip() for each in found if each is not None]


def assert_whole(site: Installation, token: str, sent_id: str, *, names: str = "Änne, die Erste") -> EmailMessage:
    """See that a message has arrived with everything that all of these clients can say."""
    captured = captured_for(site, f"to-{token}@away.test")
    assert sorted(each.address for each in captured.envelope.recipients) == [
        f"{name}-{token}@away.test" for name in ("bcc", "cc", "second", "to")
    ]
    message = parsed(captured)
    assert (message["From"], message["Subject"]) == (f"Jürgen Größe <{SENDER}>", f"Grüße ✓ {token}")
    first, second = sorted(message["To"].addresses, key=lambda each: str(each.addr_spec), reverse=True)
    assert (first.addr_spec, first.display_name) == (f"to-{token}@away.test", names)
    assert second.addr_spec == f"second-{token}@away.test"
    assert (message["Cc"], b"bcc-" in captured.content) == (f"cc-{token}@away.test", False)
    assert (message["X-Own"], message["Reply-To"]) == ("Wert ü", f"help@{DOMAIN}")
    plain, html = texts(message)
    assert plain == "text: ü"
    assert html.startswith("<p>html: ü <img src=")
    found = {part.get_filename(): part for part in message.walk() if part.get_filename()}
    assert {name: part.get_payload(decode=True) for name, part in found.items()} == {
        "größe.txt": "größe".encode(),
        "logo.png": PNG,
    }
    content_id = str(found["logo.png"]["Content-ID"])
    assert f"cid:{content_id.strip('<>')}" in html
    assert found["logo.png"].get_content_disposition() == "inline"
    (accepted, *_) = site.relay.ask("events", "--message", sent_id)
    assert sorted(accepted["categories"]) == ["mail", "orders"]
    assert accepted["custom_args"]["order"] == token
    return message


def whole(token: str) -> Mail:
    mail = Mail(
        (SENDER, "Jürgen Größe"),
        [To(f"to-{token}@away.test", "Änne, die Erste"), To(f"second-{token}@away.test")],
        f"Grüße ✓ {token}",
        "text: ü",
        '<p>html: ü <img src="cid:logo"></p>',
    )
    mail.add_cc(Cc(f"cc-{token}@away.test"))
    mail.add_bcc(Bcc(f"bcc-{token}@away.test"))
    mail.reply_to = ReplyTo(f"help@{DOMAIN}")
    mail.add_attachment(
        Attachment(FileContent(b64encode("größe".encode()).decode()), FileName("größe.txt"), FileType("text/plain"))
    )
    inline = (FileName("logo.png"), FileType("image/png"), Disposition("inline"), ContentId("logo"))
    mail.add_attachment(Attachment(FileContent(b64encode(PNG).decode()), *inline))
    mail.add_header(Header("X-Own", "Wert ü"))
    mail.add_category(Category("orders"))
    mail.add_category(Category("mail"))
    mail.add_custom_arg(CustomArg("order", token))
    return mail


def test_the_sendgrid_package(site: Installation, client: Any, token: str) -> None:
    sent = client.send(whole(token))
    assert (sent.status_code, sent.body) == (202, b"")
    assert_whole(site, token, sent.headers["X-Message-Id"])


def test_the_sendgrid_package_substitutes(site: Installation, client: Any, token: str) -> None:
    mail = Mail(SENDER, subject=f"For -name- {token}", plain_text_content="Hello -name-", is_multiple=True)
    for name in ("Ann", "Bob ü"):
        personalization = Personalization()
        personalization.add_to(Email(f"{name[:3].lower()}-{token}@away.test"))
        personalization.add_substitution(Substitution("-name-", name))
        mail.add_personalization(personalization)
    assert client.send(mail).status_code == 202
    for name in ("Ann", "Bob ü"):
        message = parsed(captured_for(site, f"{name[:3].lower()}-{token}@away.test"))
        assert message["Subject"] == f"For {name} {token}"
        assert message.get_content().strip() == f"Hello {name}"


def test_the_sendgrid_package_reads_what_became_of_it(client: Any, token: str) -> None:
    sent = client.send(Mail(SENDER, f"to-{token}@away.test", f"Grüße {token}", "text"))
    query, rows, until = f'to_email="to-{token}@away.test"', [], time.monotonic() + LARGEST_WAIT
    while not rows or rows[0]["status"] == "processed":
        assert time.monotonic() < until, rows
        rows = json.loads(client.client.messages.get(query_params={"query": query, "limit": 10}).body)["messages"]
    (row,) = rows
    assert (row["status"], row["subject"]) == ("delivered", f"Grüße {token}")
    assert row["msg_id"].partition(".")[0] == sent.headers["X-Message-Id"]
    detail = json.loads(client.client.messages._(row["msg_id"]).get().body)
    assert [each["event_name"] for each in detail["events"]] == ["processed", "delivered"]


def test_the_sendgrid_package_pauses_a_batch(site: Installation, client: Any, token: str) -> None:
    api = client.client
    batch = json.loads(api.mail.batch.post().body)["batch_id"]
    assert json.loads(api.mail.batch._(batch).get().body) == {"batch_id": batch}
    assert api.user.scheduled_sends.post(request_body={"batch_id": batch, "status": "pause"}).status_code == 201
    mail = Mail(SENDER, f"to-{token}@away.test", token, "text")
    mail.batch_id = BatchId(batch)
    sent = client.send(mail)
    assert json.loads(api.user.scheduled_sends._(batch).get().body) == [{"batch_id": batch, "status": "pause"}]
    until = time.monotonic() + LARGEST_WAIT
    while "changed" not in (told := [each["type"] for each in events_of(site, sent)]):
        assert time.monotonic() < until, told
    assert "delivered" not in told
    assert api.user.scheduled_sends._(batch).delete().status_code == 204
    captured_for(site, f"to-{token}@away.test")


def events_of(site: Installation, sent: Any) -> list[dict[str, Any]]:
    return site.relay.ask("events", "--message", sent.headers["X-Message-Id"])


def test_the_sendgrid_package_makes_a_key_and_uses_it(site: Installation, client: Any) -> None:
    made = json.loads(client.client.api_keys.post(request_body={"name": "mine", "scopes": ["mail.send"]}).body)
    other = sendgrid.SendGridAPIClient(made["api_key"], host=url(site))
    assert "mail.send" in json.loads(other.client.scopes.get().body)["scopes"]
    named = client.client.api_keys._(made["api_key_id"])
    assert json.loads(named.patch(request_body={"name": "yours"}).body)["name"] == "yours"
    assert named.delete().status_code == 204
    with pytest.raises(UnauthorizedError) as refused:
        other.client.scopes.get()
    assert "authorization grant is invalid" in refused.value.to_dict["errors"][0]["message"]


def test_the_sendgrid_package_is_told_what_is_wrong(client: Any, token: str) -> None:
    with pytest.raises(BadRequestsError) as refused:
        client.send(Mail(SENDER, "to@away..test", token, "text"))
    (error,) = refused.value.to_dict["errors"]
    assert (error["field"], error["help"]) == ("personalizations.0.to.0.email", None)
    assert error["message"] == "Does not contain a valid address."


@pytest.fixture(scope="session", autouse=True)
def django() -> None:
    """Have Django's settings once for all clients that need them: tracking is off until there is some."""
    if not settings.configured:
        settings.configure()
    settings.SENDGRID_TRACK_EMAIL_OPENS = False
    settings.SENDGRID_TRACK_CLICKS_HTML = settings.SENDGRID_TRACK_CLICKS_PLAIN = False


def django_mail(token: str, connection: Any) -> Any:
    mail = EmailMultiAlternatives(
        subject=f"Grüße ✓ {token}",
        body="text: ü",
        from_email=f"Jürgen Größe <{SENDER}>",
        to=[f"Änne <to-{token}@away.test>", f"second-{token}@away.test"],
        cc=[f"cc-{token}@away.test"],
        bcc=[f"bcc-{token}@away.test"],
        reply_to=[f"help@{DOMAIN}"],
        headers={"X-Own": "Wert ü"},
        connection=connection,
    )
    mail.attach("größe.txt", "größe", "text/plain")
    content_id = attach_inline_image(mail, PNG, filename="logo.png", subtype="png")
    mail.attach_alternative(f'<p>html: ü <img src="cid:{content_id}"></p>', "text/html")
    return mail


def test_django_sendgrid_v5(site: Installation, key: str, token: str) -> None:
    mail = django_mail(token, get_connection("sendgrid_backend.SendgridBackend", api_key=key, host=url(site)))
    mail.categories, mail.custom_args = ["orders", "mail"], {"order": token}
    assert mail.send() == 1
    assert_whole(site, token, mail.extra_headers["message_id"], names="Änne")


@pytest.fixture(params=["/v3", "/api/v1"])
def anymail(site: Installation, key: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not support this vendor any more
        yield get_connection(
            "anymail.backends.sendgrid.EmailBackend",
            api_key=key,
            api_url=f"{url(site)}{request.param}",
            merge_field_format="-{}-",
        )


def test_anymail(site: Installation, anymail: Any, token: str) -> None:
    mail = django_mail(token, anymail)
    mail.tags, mail.metadata = ["orders", "mail"], {"order": token}
    mail.track_clicks = mail.track_opens = False
    assert mail.send() == 1
    assert {each.status for each in mail.anymail_status.recipients.values()} == {"queued"}
    assert_whole(site, token, mail.anymail_status.esp_response.headers["X-Message-Id"], names="Änne")


def test_anymail_merges(site: Installation, anymail: Any, token: str) -> None:
    ann, bob = (f"{name}-{token}@away.test" for name in ("ann", "bob"))
    mail: Any = EmailMultiAlternatives("For -name-", "-note-", SENDER, [ann, bob], connection=anymail)
    mail.merge_data = {ann: {"name": "Ann"}, bob: {"name": "Bob ü", "note": "own"}}
    mail.merge_global_data = {"note": "for all"}
    mail.merge_metadata = {ann: {"order": 1}, bob: {"order": 2}}
    mail.merge_headers = {ann: {"List-Unsubscribe": "<https://away.test/ann>"}, bob: {}}
    mail.send()
    for_ann, for_bob = (parsed(captured_for(site, each)) for each in (ann, bob))
    assert (for_ann["To"], for_ann["Subject"], for_ann.get_content().strip()) == (ann, "For Ann", "for all")
    assert (for_bob["To"], for_bob["Subject"], for_bob.get_content().strip()) == (bob, "For Bob ü", "own")
    assert (for_ann["List-Unsubscribe"], for_bob["List-Unsubscribe"]) == ("<https://away.test/ann>", None)


def test_anymail_is_told_that_its_key_is_wrong(site: Installation) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = get_connection(
            "anymail.backends.sendgrid.EmailBackend", api_key="SG.wrong", api_url=f"{url(site)}/v3"
        )
    mail = EmailMultiAlternatives("s", "b", SENDER, ["to@away.test"], connection=backend)
    with pytest.raises(AnymailRequestsAPIError, match="authorization grant is invalid"):
        mail.send()


@pytest.mark.parametrize("mount", ["", "/api/v1"])
def test_sendgrid_mail_of_node(site: Installation, key: str, token: str, mount: str) -> None:
    said = node("sendgrid_mail.cjs", url(site) + mount, key, DOMAIN, token)
    status, sent_id = said["sent"]
    assert (status, said["several"]) == (202, 202)
    assert_whole(site, token, sent_id)
    for name in ("ann", "bob"):
        message = parsed(captured_for(site, f"{name}-{token}@away.test"))
        assert (message["To"], message["Subject"]) == (f"{name}-{token}@away.test", f"For ü {token}")
    assert said["refused"]["code"] == 400
    assert said["refused"]["errors"][0]["field"] == "personalizations.0.to.0.email"
    assert {"mail.send", "mail.batch.create", "api_keys.read"} <= set(said["scopes"])
    assert (said["paused"], said["freed"]) == ([201, "pause"], 204)


def test_nodemailer(site: Installation, key: str, token: str) -> None:
    status, sent_id = node("nodemailer_sendgrid.cjs", url(site), key, DOMAIN, token)["sent"]
    assert status == 202
    message = assert_whole(site, token, sent_id, names="Änne")
    assert message["Message-ID"].endswith(f"@{DOMAIN}>")  # nodemailer's own
