"""A signed zone of ours, and Debian's unbound as the resolver that validates it; nothing asks the Internet."""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import dns.dnssec
import dns.dnssectypes
import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from mta.config import HostPort
from tests.interop.processes import free_ports, running, wait_until

_DAY = dt.timedelta(days=1)
_SOA = "@ 1 IN SOA ns hostmaster 1 3600 600 86400 1\n@ 1 IN NS ns\nns 1 IN A 127.0.0.1\n"
_SETTINGS = """\
server:
  interface: {address.host}@{address.port}
  port: {address.port}
  do-ip6: no
  chroot: ""
  username: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  logfile: ""
  module-config: "validator iterator"
  local-zone: "test." nodefault
  do-not-query-localhost: no
  cache-max-ttl: 1
  cache-max-negative-ttl: 1
"""
_ZONE = """\
auth-zone:
  name: "{zone.origin}."
  zonefile: "{file}"
  for-downstream: no
  for-upstream: yes
  fallback-enabled: no
"""


class Zone(NamedTuple):
    """A zone as it is published, in master file form; `anchor` is the DS record that it is trusted by, "" unsigned."""

    origin: str
    text: str
    anchor: str = ""


def plain(origin: str, records: str) -> Zone:
    """Write a zone that nobody signed."""
    return Zone(origin, f"$ORIGIN {origin}.\n{_SOA}{records}")


def signed(origin: str, records: str) -> Zone:
    """Sign a zone with a new key (RFC 4035, ECDSA P-256)."""
    name = dns.name.from_text(origin)
    zone = dns.zone.from_text(f"{_SOA}{records}", origin=name, relativize=False)
    key = ec.generate_private_key(ec.SECP256R1())
    algorithm = dns.dnssectypes.Algorithm.ECDSAP256SHA256
    dnskey = dns.dnssec.make_dnskey(key.public_key(), algorithm, flags=257)
    now = dt.datetime.now(dt.UTC)
    dns.dnssec.sign_zone(zone, keys=[(key, dnskey)], dnskey_ttl=1, inception=now - _DAY, expiration=now + _DAY)
    anchor = dns.dnssec.make_ds(name, dnskey, dns.dnssectypes.DSDigest.SHA256)
    return Zone(origin, zone.to_text(relativize=False), f"{origin}. DS {anchor.to_text()}")


@contextmanager
def unbound(directory: Path, zones: Sequence[Zone], others: HostPort | None = None) -> Iterator[HostPort]:
    """Run unbound: it knows some zones, trusts those that are signed, and asks `others` for the rest of `test.`."""
    address = HostPort(host="127.0.0.1", port=free_ports(1)[0])
    lines = [_SETTINGS.format(address=address, directory=directory)]
    lines += [f'  trust-anchor: "{each.anchor}"\n' for each in zones if each.anchor]
    lines.append("remote-control:\n  control-enable: no\n")
    for each in zones:
        file = directory / f"{each.origin}.zone"
        file.write_text(each.text)
        lines.append(_ZONE.format(zone=each, file=file))
    if others is not None:
        lines.append(f'stub-zone:\n  name: "test."\n  stub-addr: {others.host}@{others.port}\n')
    configuration, log = directory / "unbound.conf", directory / "unbound.log"
    configuration.write_text("".join(lines))
    with running(["unbound", "-d", "-p", "-c", configuration], log) as process:
        wait_until(lambda: _answers(address, zones[0]), process, log)
        yield address


def _answers(address: HostPort, zone: Zone) -> bool:
    query = dns.message.make_query(f"{zone.origin}.", "SOA")
    try:
        answer = dns.query.udp(query, address.host, timeout=1, port=address.port)
    except (dns.exception.DNSException, OSError):
        return False
    return answer.rcode() == dns.rcode.NOERROR
