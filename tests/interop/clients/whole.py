"""One message with everything that Postmark's and Resend's clients can say, and whether it has arrived so."""

import json
import subprocess
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from anymail.message import attach_inline_image
from django.conf import settings
from django.core.mail import EmailMultiAlternatives

from mta.lab.mailbox import Captured
from tests.interop.installation import DOMAIN, TENANT, Installation

NODE = Path(__file__).parent / "node"
SENDER = f"app@{DOMAIN}"
PNG = b"\x89PNG"
if not settings.configured:
    settings.configure()


def key_of(site: Installation, *more: str) -> str:
    """Make a key that may send and read, and what more there is."""
    scopes = [option for scope in ("send", "read", "content.read", *more) for option in ("--scope", scope)]
    return str(site.relay.tell("keys", "create", "--tenant", TENANT, *scopes)["key"])


def url(site: Installation) -> str:
    """Tell where the relay's HTTP is."""
    return f"http://127.0.0.1:{site.ports.http}"


def captured_for(site: Installation, recipient: str) -> Captured:
    """Wait for the message to somebody, whoever else has it."""
    return site.lab.wait_for(lambda each: recipient in [to.address for to in each.envelope.recipients])


def parsed(captured: Captured) -> EmailMessage:
    """Read what has arrived."""
    message = BytesParser(policy=policy.default).parsebytes(captured.content)
    assert isinstance(message, EmailMessage)
    return message


def arrived(site: Installation, recipient: str) -> tuple[Captured, EmailMessage]:
    """Wait for the message to somebody, and read it."""
    captured = captured_for(site, recipient)
    return captured, parsed(captured)


def assert_whole(site: Installation, token: str) -> None:
    """See that a message has arrived with everything that all of these clients can say."""
    captured, message = arrived(site, f"to-{token}@away.test")
    assert sorted(each.address for each in captured.envelope.recipients) == [
        f"{name}-{token}@away.test" for name in ("bcc", "cc", "second", "to")
    ]
    assert (message["From"], message["Subject"]) == (f"Jürgen Größe <{SENDER}>", f"Grüße ✓ {token}")
    assert [each.addr_spec for each in message["To"].addresses] == [f"{n}-{token}@away.test" for n in ("to", "second")]
    assert message["To"].addresses[0].display_name == "Änne, die Erste"
    assert (message["Cc"], b"bcc-" in captured.content) == (f"cc-{token}@away.test", False)
    assert (message["X-Own"], message["Reply-To"]) == ("Wert ü", f"help@{DOMAIN}")
    texts = [part.get_content().strip() for kind in ("plain", "html") if (part := message.get_body((kind,)))]
    assert texts[0] == "text: ü"
    assert texts[1].startswith("<p>html: ü <img src=")
    found = {part.get_filename(): part for part in message.walk() if part.get_filename()}
    assert {name: part.get_payload(decode=True) for name, part in found.items()} == {
        "größe.txt": "größe".encode(),
        "logo.png": PNG,
    }
    assert f"cid:{str(found['logo.png']['Content-ID']).strip('<>')}" in texts[1]
    assert found["logo.png"].get_content_disposition() == "inline"


def django_mail(token: str, connection: Any) -> Any:
    """Make it as Django's users do."""
    mail = EmailMultiAlternatives(
        subject=f"Grüße ✓ {token}",
        body="text: ü",
        from_email=f"Jürgen Größe <{SENDER}>",
        to=[f'"Änne, die Erste" <to-{token}@away.test>', f"second-{token}@away.test"],
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


def node(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of Node's; it prints JSON."""
    done = subprocess.run(["node", NODE / script, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found
