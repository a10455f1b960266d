"""Postfix before us and behind us: what it sends arrives and what we send it takes, byte for byte."""

import smtplib
import time
from pathlib import Path

import pytest

from tests.interop.conftest import PostfixBefore
from tests.interop.installation import DOMAIN, Installation
from tests.interop.letters import NAMES, Letter, added_fields, letter
from tests.interop.peers import Finding, Postfix, opendkim_verify

SIGNED = ["DKIM-Signature", "DKIM-Signature"]


def send(host: str, port: int, sent: Letter, recipient: str) -> None:
    with smtplib.SMTP(host, port, timeout=30) as client:
        client.ehlo("client.test")
        client.sendmail(sent.sender, [recipient], sent.content, sent.options)


def protocol(sent: Letter, *, tls: bool) -> str:
    """What a Received field says of the way a letter came (RFC 3848, RFC 6531 4.3)."""
    return ("UTF8SMTP" if "SMTPUTF8" in sent.options else "ESMTP") + "S" * tls


@pytest.mark.parametrize("name", NAMES)
def test_what_postfix_sends_through_us_arrives_unchanged(
    site: Installation, postfix_before: PostfixBefore, name: str, tmp_path: Path
) -> None:
    sent = letter(name)
    recipient = f"{sent.local_part}@away.test"
    send(*postfix_before.postfix.socket_address, sent, recipient)
    captured = site.lab.holding(sent.token)
    fields = added_fields(captured.content, sent.content)
    assert [name for name, _ in fields] == [*SIGNED, "Received", "Received"]
    assert f" with {protocol(sent, tls=postfix_before.starttls)} " in fields[2][1]
    assert captured.envelope.sender == sent.sender
    assert [each.address for each in captured.envelope.recipients] == [recipient]
    assert [str(each) for each in sorted(site.lab.lab.verify(captured))] == [
        "dkim=pass (ed25519 ed25519-sha256)",
        "dkim=pass (rsa2048 rsa-sha256)",
    ]
    assert Finding("pass", DOMAIN, "rsa-sha256", "rsa2048") in opendkim_verify(captured.content, site.records, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_what_we_send_to_postfix_arrives_unchanged(site: Installation, postfix_behind: Postfix, name: str) -> None:
    sent = letter(name)
    send("127.0.0.1", site.ports.relay, sent, f"{sent.local_part}@postfix.test")
    content = received(postfix_behind.maildir, sent.token)
    fields = added_fields(content, sent.content)
    assert [name for name, _ in fields] == [
        "Return-Path",
        "X-Original-To",
        "Delivered-To",
        "Received",
        *SIGNED,
        "Received",
    ]
    assert f" with {protocol(sent, tls=True)} " in fields[3][1]
    assert fields[0][1] == f" <{sent.sender}>"
    assert fields[2][1] == f" {sent.local_part}@postfix.test"


def received(mailbox: Path, token: str) -> bytes:
    """Wait for a message in a maildir, and give its lines their CRLF back."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for path in mailbox.glob("new/*"):
            content = path.read_bytes()
            if token.encode() in content:
                return content.replace(b"\n", b"\r\n")
        time.sleep(0.05)
    raise AssertionError(f"{token} is not in {mailbox}")
