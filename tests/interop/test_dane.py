"""DANE between real peers: unbound validates a zone of ours, Postfix has the certificate that the zone speaks of."""

import hashlib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiosmtplib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mta.clock import SystemClock
from mta.config import Dns, HostPort
from mta.delivery.certificates import by_tlsa, chain_of
from mta.delivery.dane import dane_of
from mta.delivery.policy import Dane, DaneState, Failure, Flaw
from mta.delivery.resolver import Found, Resolver
from mta.lab.ca import Authority, PrivateCa, ServerCertificate
from tests.interop.dnssec import plain, signed, unbound
from tests.interop.peers import disk_directory, receiving_postfix
from tests.interop.processes import free_ports
from tests.interop.relay import Relay
from tests.interop.sender import Sender

MX_ADDRESS = "127.0.0.4"
NAMES = ("mx.signed.test", "ta.signed.test")  # one host: known by its key, and by its authority

_SIGNED = f"""\
@ 1 IN MX 10 mx
by-ta 1 IN MX 10 ta
by-bogus 1 IN MX 10 bogus
mx 1 IN A {{mx}}
ta 1 IN A {{mx}}
bogus 1 IN A {{mx}}
none 1 IN A {{mx}}
alias 1 IN CNAME mx
out 1 IN CNAME mx.plain.test.
in 1 IN CNAME mx.plain.test.
_{{port}}._tcp.mx 1 IN TLSA {{by_key}}
_{{port}}._tcp.in 1 IN TLSA {{by_key}}
_{{port}}._tcp.ta 1 IN TLSA {{by_authority}}
_{{port}}._tcp.bogus 1 IN TLSA 3 1 1 {"ab" * 32}
"""
_PLAIN = """\
@ 1 IN MX 10 mx
mx 1 IN A {mx}
_{port}._tcp.mx 1 IN TLSA {by_key}
"""


class Receiver(NamedTuple):
    """A Postfix as the MX of `signed.test`, whose key may change, and unbound, who knows its TLSA records."""

    mx: HostPort
    dns: HostPort
    authority: Authority
    first: ServerCertificate


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """The zones and unbound; Postfix is started with one key or another (`serving`)."""
    with disk_directory("dane") as directory:
        authority = PrivateCa(directory / "ca").intermediate("intermediate")
        first = authority.issue(*NAMES)
        first = ServerCertificate(*(each.rename(each.with_stem("first")) for each in first))
        mx = HostPort(host=MX_ADDRESS, port=free_ports(1, MX_ADDRESS)[0])
        by_key = f"3 1 1 {hashlib.sha256(public_key(first)).hexdigest()}"
        by_authority = f"2 0 2 {hashlib.sha512(authority.certificate.public_bytes(Encoding.DER)).hexdigest()}"
        values = {"mx": MX_ADDRESS, "port": mx.port, "by_key": by_key, "by_authority": by_authority}
        zone = signed("signed.test", _SIGNED.format(**values))
        # somebody who has not the zone's key puts in a record of his own
        assert zone.text.count("ab" * 32) == 1
        zone = zone._replace(text=zone.text.replace("ab" * 32, "cd" * 32))
        unsigned = plain("plain.test", _PLAIN.format(**values))
        with unbound(directory, [zone, unsigned]) as resolver:
            yield Receiver(mx, resolver, authority, first)


@pytest.fixture(scope="module")
def relay(receiver: Receiver) -> Iterator[Sender]:
    """A relay that asks unbound, and believes it as it is on loopback."""
    with disk_directory("dane-relay") as directory:
        port, http = free_ports(2)
        listener = {"address": f"127.0.0.1:{port}", "kind": "relay", "networks": ["127.0.0.0/8"], "tenant": "acme"}
        settings = {
            "hostname": "relay.test",
            "state_dir": str(directory / "state"),
            "listeners": [listener | {"tls": "none"}],
            "http": {"address": f"127.0.0.1:{http}"},
            "dns": {"servers": [str(receiver.dns)]},
            "retry": {"intervals": [1], "lifetime": 600, "delay_notice": 300},
            "delivery": {"port": receiver.mx.port, "allow_private_targets": True},
            "spool": {"reserve": "16MiB"},
        }
        running = Relay(directory, settings)
        running.tell("tenants", "create", "acme")
        with running.serving():
            yield Sender(running, port)


@contextmanager
def serving(receiver: Receiver, certificate: ServerCertificate) -> Iterator[Path]:
    """Run its Postfix with a key; gives the maildir."""
    with receiving_postfix(receiver.mx, NAMES[0], certificate) as running:
        yield running.maildir


def public_key(files: ServerCertificate) -> bytes:
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


async def look_up(receiver: Receiver, *hosts: str) -> list[Dane]:
    resolver = Resolver(Dns(servers=(receiver.dns,)), SystemClock())
    try:
        return [await dane_of(each, receiver.mx.port, resolver) for each in hosts]
    finally:
        await resolver.close()


async def shown(receiver: Receiver) -> tuple[bytes, ...]:
    """Say STARTTLS to Postfix, verify nothing, and return what it showed."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = receiver.mx.host, receiver.mx.port
    async with aiosmtplib.SMTP(hostname=host, port=port, timeout=30, start_tls=True, tls_context=context) as client:
        assert client.transport is not None
        return chain_of(client.transport.get_extra_info("ssl_object"))


async def judged(receiver: Receiver) -> list[Flaw | None]:
    """What is wrong with the host under each of its names."""
    chain = await shown(receiver)
    found = await look_up(receiver, *NAMES)
    assert [each.state for each in found] == [DaneState.USABLE] * 2
    return [by_tlsa(chain, each.records, [each.base], time.time()) for each in found]


async def test_dane_matches_what_postfix_shows_until_its_key_changes(receiver: Receiver) -> None:
    with serving(receiver, receiver.first):
        assert await judged(receiver) == [None, None]
    # the new key is in nobody's zone, the authority has not changed
    with serving(receiver, receiver.authority.issue(*NAMES)):
        by_key, by_authority = await judged(receiver)
    assert by_key == Flaw(Failure.VALIDATION_FAILURE, "certificate of mx.signed.test matches none of its TLSA records")
    assert by_authority is None
    with serving(receiver, receiver.authority.issue("other.test")):
        by_key, by_authority = await judged(receiver)
    assert by_key is not None
    assert by_authority == Flaw(Failure.CERTIFICATE_HOST_MISMATCH, "certificate of ta.signed.test is for other.test")


async def test_dane_of_bogus_records_is_not_none(receiver: Receiver) -> None:
    found, without, absent = await look_up(receiver, "bogus.signed.test", "none.signed.test", "nowhere.signed.test")
    assert (found.state, found.records) == (DaneState.FAILED, ())
    assert without.state is absent.state is DaneState.NONE


async def test_that_there_is_no_dane_is_proved_too(receiver: Receiver) -> None:
    resolver = Resolver(Dns(servers=(receiver.dns,)), SystemClock())
    assert await resolver.tlsa(f"_{receiver.mx.port}._tcp.none.signed.test") == Found(exists=False, secure=True)
    assert (await resolver.exchangers("signed.test")).secure
    await resolver.close()


async def test_dane_is_only_where_addresses_are_signed(receiver: Receiver) -> None:
    insecure, out, alias, signed_alias = await look_up(
        receiver, "mx.plain.test", "out.signed.test", "alias.signed.test", "in.signed.test"
    )
    assert insecure.state is out.state is DaneState.NONE
    assert (alias.state, alias.base) == (DaneState.USABLE, "mx.signed.test")
    assert (signed_alias.state, signed_alias.base) == (DaneState.USABLE, "in.signed.test")


def test_dane_mail_is_delivered_until_the_key_changes_and_once_it_is_back(receiver: Receiver, relay: Sender) -> None:
    with serving(receiver, receiver.first):
        for domain in ("signed.test", "by-ta.signed.test"):
            delivered = relay.heard(relay.send(domain), "delivered")
            assert (delivered["policy"], delivered["tls"].rpartition(":")[2]) == ("dane", "dane")
        delivered = relay.heard(relay.send("plain.test"), "delivered")
        assert "policy" not in delivered
        assert delivered["tls"].endswith(":unverified")
        refused = relay.heard(relay.send("by-bogus.signed.test"), "deferred")
        assert "the TLSA records of bogus.signed.test cannot be had" in refused["reply"]
    with serving(receiver, receiver.authority.issue(*NAMES)):
        waiting = relay.send("signed.test")
        refused = relay.heard(waiting, "deferred")
        assert "certificate of mx.signed.test matches none of its TLSA records" in refused["reply"]
        relay.heard(relay.send("by-ta.signed.test"), "delivered")
    with serving(receiver, receiver.first):
        relay.heard(waiting, "delivered")
