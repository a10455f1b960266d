"""Programs as their users have them, unmodified: swaks, smtplib, the sendgrid package, and cron with sendmail."""

import os
import smtplib
import ssl
import stat
import subprocess
import sys
import uuid
from email.message import EmailMessage
from pathlib import Path

import pytest
import sendgrid
from python_http_client.exceptions import UnauthorizedError
from sendgrid.helpers.mail import Attachment, Mail

from mta.lab.mailbox import Captured
from tests.interop.installation import DOMAIN, Installation
from tests.interop.relay import ROOT

SENDER = f"app@{DOMAIN}"
SIGNED = ["dkim=pass (ed25519 ed25519-sha256)", "dkim=pass (rsa2048 rsa-sha256)"]


@pytest.fixture
def token() -> str:
    """What a message of the test is found by."""
    return uuid.uuid4().hex


def verified(site: Installation, captured: Captured) -> list[str]:
    return sorted(str(each) for each in site.lab.lab.verify(captured))


def swaks(site: Installation, port: int, token: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["swaks", "--server", "127.0.0.1", "--port", str(port), "--timeout", "30", "--ehlo", "client.test"]
    message = ["--from", SENDER, "--to", f"to-{token}@away.test", "--header", f"Subject: {token}"]
    return subprocess.run([*command, *message, *options], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("who", ["API key", "credential"])
@pytest.mark.parametrize("tls", ["STARTTLS", "implicit"])
def test_swaks_submits(site: Installation, token: str, mechanism: str, who: str, tls: str) -> None:
    port, option = (
        (site.ports.submission, "--tls") if tls == "STARTTLS" else (site.ports.submissions, "--tls-on-connect")
    )
    user, password = ("apikey", site.api_key) if who == "API key" else (site.user, site.password)
    auth = ["--auth", mechanism, "--auth-user", user, "--auth-password", password]
    done = swaks(site, port, token, option, *auth)
    assert done.returncode == 0, done.stdout + done.stderr
    captured = site.lab.holding(token)
    assert verified(site, captured) == SIGNED
    assert b" with ESMTPSA " in captured.content


SWAKS_GREETING, SWAKS_AUTH = 21, 28  # exit codes of swaks(1)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_wrong_password_is_refused(site: Installation, token: str, mechanism: str) -> None:
    wrong = site.api_key[:-1] + ("A" if site.api_key[-1] != "A" else "B")
    auth = ["--auth", mechanism, "--auth-user", "apikey", "--auth-password", wrong]
    done = swaks(site, site.ports.submission, token, "--tls", *auth)
    assert done.returncode == SWAKS_AUTH, done.stdout
    assert "535 5.7.8" in done.stdout


def test_no_password_is_asked_for_in_the_clear(site: Installation, token: str) -> None:
    auth = ["--auth", "PLAIN", "--auth-user", "apikey", "--auth-password", site.api_key]
    done = swaks(site, site.ports.submission, token, *auth)
    assert done.returncode == SWAKS_AUTH, done.stdout
    assert site.api_key not in done.stdout


@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_without_authentication_nothing_is_relayed(site: Installation, token: str, listener: str) -> None:
    tls = "--tls" if listener == "submission" else "--tls-on-connect"
    done = swaks(site, getattr(site.ports, listener), token, tls)
    assert done.returncode != 0
    assert "530 5.7.0" in done.stdout


def test_a_client_from_elsewhere_is_no_client_of_a_relay_listener(site: Installation, token: str) -> None:
    done = swaks(site, site.relay_for_others, token)
    assert done.returncode == SWAKS_GREETING, done.stdout
    assert "554 5.7.1" in done.stdout


def test_smtplib_submits(site: Installation, token: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = SENDER, "seen@away.test", "unseen@away.test"
    message["Subject"] = f"Grüße {token}"
    message.set_content("Grüße\n.\n")
    with smtplib.SMTP("127.0.0.1", site.ports.submission, timeout=30) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(site.lab.lab.ca_file)))
        client.login("apikey", site.api_key)
        client.send_message(message)
    captured = site.lab.holding(token)
    assert {each.address for each in captured.envelope.recipients} == {"seen@away.test", "unseen@away.test"}
    assert b"unseen" not in captured.content
    assert verified(site, captured) == SIGNED


def test_the_sendgrid_package_sends(site: Installation, token: str) -> None:
    mail = Mail(SENDER, f"to-{token}@away.test", f"Grüße {token}", "text: ü", "<p>html: ü</p>")
    mail.attachment = Attachment("aGVsbG8=", "hello.txt", "text/plain")
    client = sendgrid.SendGridAPIClient(site.api_key, host=f"http://127.0.0.1:{site.ports.http}")
    response = client.send(mail)
    assert (response.status_code, response.body) == (202, b"")
    captured = site.lab.wait_for(lambda each: each.envelope.recipients[0].address == f"to-{token}@away.test")
    events = site.relay.ask("events", "--message", response.headers["X-Message-Id"])
    assert [each["type"] for each in events][:2] == ["accepted", "delivered"]
    assert b'filename="hello.txt"' in captured.content
    assert verified(site, captured) == SIGNED


def test_the_sendgrid_package_is_told_that_its_key_is_wrong(site: Installation, token: str) -> None:
    client = sendgrid.SendGridAPIClient("SG.wrong", host=f"http://127.0.0.1:{site.ports.http}")
    with pytest.raises(UnauthorizedError):
        client.send(Mail(SENDER, "to@away.test", token, "text"))


def everybody_may_run(path: Path) -> bool:
    """Whether users other than root get at a program."""
    resolved = path.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (resolved, *resolved.parents, *path.absolute().parents))


def cron(site: Installation, message: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Call sendmail as cron does, as somebody who may do nothing else where that is possible."""
    sendmail = ROOT / ".venv/bin/fairlead-sendmail"
    able = os.geteuid() == 0 and everybody_may_run(Path(sys.executable)) and everybody_may_run(sendmail)
    environment = {"PATH": "/usr/bin:/bin", "LOGNAME": "nobody", "FAIRLEAD_CONFIG": str(site.relay.config)}
    return subprocess.run(
        [sendmail, *arguments],
        input=message,
        env=environment,
        cwd="/",
        user="nobody" if able else None,
        capture_output=True,
        timeout=60,
    )


def test_sendmail_takes_what_cron_hands_it(site: Installation, token: str) -> None:
    message = f"From: Cron Daemon <cron@{DOMAIN}>\nTo: ops-{token}@away.test\nSubject: Cron <job>\n\n.\nall done\n"
    done = cron(site, message.encode(), "-t", "-i", "-f", SENDER)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    captured = site.lab.holding(f"ops-{token}")
    assert captured.envelope.sender == SENDER
    assert captured.content.endswith(b"\r\n\r\n.\r\nall done\r\n")
    assert verified(site, captured) == SIGNED
