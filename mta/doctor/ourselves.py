"""What a receiver sees of this machine whoever the mail is of: addresses, their names, EHLO, our certificate.

Names of addresses: RFC 1912 2.1; EHLO: RFC 5321 4.1.4. Many receivers refuse mail from an address without a name that
leads back to it.
"""

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from mta.config import Config, Tls
from mta.delivery.mx import is_public
from mta.delivery.resolver import NoAnswer, Resolver
from mta.doctor.findings import Finding, listed, ok, problem, shown, warning

SOON = 14.0  # days before a certificate's end that are few
_DAY = 86_400.0
_NAMES = 10  # of one address that are followed
# Documentation networks (RFC 5737, RFC 3849): the way to them is the default route. Nothing is sent.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


class Leaving(NamedTuple):
    """An address that mail leaves from, the name said in EHLO there, and the source it is of ("" without sources)."""

    address: str
    hostname: str
    source: str = ""

    @property
    def seen(self) -> bool:
        """Whether receivers can see it: it is a public address."""
        return is_public(ipaddress.ip_address(self.address))


def leavings(config: Config, names: Sequence[str] | None, seen: Sequence[str]) -> list[Leaving]:
    """List where mail leaves from: the sources of these names (None: all), or what the system chooses.

    `seen` are addresses that receivers see instead, where something between translates them (NAT).
    """
    if seen:
        return [Leaving(each, config.hostname) for each in seen]
    if not config.sources:
        return [Leaving(each, config.hostname) for each in _of_the_system()]
    return [
        Leaving(address, each.hostname or config.hostname, each.name)
        for each in config.sources
        for address in each.address
        if names is None or each.name in names
    ]


def _of_the_system() -> list[str]:
    found = []
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((elsewhere, 9))
                found.append(str(sock.getsockname()[0]))
        except OSError:  # no route of this family
            continue
    return found


async def of_address(leaving: Leaving, resolver: Resolver) -> list[Finding]:
    """Check the names of one address, and that the name said in EHLO leads to it."""
    about = f"source {leaving.source} {leaving.address}" if leaving.source else f"source {leaving.address}"
    if not leaving.seen:
        advice = "say which addresses receivers see: --address ADDRESS, for each"
        return [warning(about, "not a public address: receivers see another one, which is not known here", advice)]
    return [await _pointers(about, leaving, resolver), await _hello(about, leaving, resolver)]


async def _pointers(about: str, leaving: Leaving, resolver: Resolver) -> Finding:
    wanted = f"have whoever runs its network publish a PTR record with {leaving.hostname}"
    try:
        names = (await resolver.pointers(leaving.address)).names
    except NoAnswer as error:
        return warning(f"{about} PTR", f"no answer from the DNS ({shown(str(error))})", "try again later")
    if not names:
        return problem(f"{about} PTR", "no name: many receivers refuse its mail", wanted)
    silent = False
    for name in names[:_NAMES]:
        try:
            if leaving.address in (await resolver.addresses(name)).addresses:
                return ok(f"{about} PTR", f"{shown(name)}, which leads back to it")
        except NoAnswer:
            silent = True
    if silent:
        return warning(f"{about} PTR", f"{listed(names)}: no answer whether it leads back", "try again later")
    advice = f"give {shown(names[0])} the address {leaving.address}, or {wanted}"
    return problem(f"{about} PTR", f"{listed(names)}: none leads back to it", advice)


async def _hello(about: str, leaving: Leaving, resolver: Resolver) -> Finding:
    name = leaving.hostname
    try:
        addresses = (await resolver.addresses(name)).addresses
    except NoAnswer as error:
        return warning(f"{about} EHLO", f"{name}: no answer from the DNS ({shown(str(error))})", "try again later")
    if leaving.address in addresses:
        return ok(f"{about} EHLO", f"{name}, which leads to it")
    advice = f"publish an address record of {name} with {leaving.address}, or say another hostname in the configuration"
    if not addresses:
        return problem(f"{about} EHLO", f"{name} has no address", advice)
    return warning(f"{about} EHLO", f"{name} leads to {listed(addresses)} and not to it", advice)


def certificate(tls: Tls, hostname: str, now: float) -> Finding:
    """Judge our own certificate, which clients of the listeners see: readable, in its time, for our name."""
    about = "certificate"
    if tls.certificate is None:
        return ok(about, "none, and no listener that needs one")
    try:
        leaf = _leaf(tls.certificate)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a certificate in PEM"
        return problem(about, f"{tls.certificate}: {reason}", "put the certificate there, with its chain (PEM)")
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    days = (ends.timestamp() - now) / _DAY
    if days <= 0:
        return problem(about, f"expired on {ends:%Y-%m-%d}", "renew it: clients refuse it")
    if begins.timestamp() > now:
        return problem(about, f"not valid before {begins:%Y-%m-%d}", "look at the machine's clock, or wait")
    if days < SOON:
        return warning(about, f"expires on {ends:%Y-%m-%d}, in {days:.0f} days", "renew it: look why nothing has")
    if hostname not in (names := _names(leaf)) and f"*.{hostname.partition('.')[2]}" not in names:
        advice = f"get one for {hostname}, unless clients connect to another name"
        return warning(about, f"not for {hostname} but for {listed(names) or 'no name'}", advice)
    return ok(about, f"for {hostname}, until {ends:%Y-%m-%d}")


def _leaf(path: Path) -> x509.Certificate:
    found = x509.load_pem_x509_certificates(path.read_bytes())
    return found[0]


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [each.lower() for each in names.value.get_values_for_type(x509.DNSName)]
