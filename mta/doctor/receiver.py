"""Where mail for a domain goes: route or MX, hosts and addresses, and whether reports are asked for.

RFC 5321 5.1, RFC 7505, RFC 8460 3. Whom a delivery finds there is for mta.doctor.hosts.
"""

import asyncio
import ipaddress

import msgspec

from mta.config import Config
from mta.delivery.mx import ADDRESSES_LIMIT, HOSTS_LIMIT, is_public, site_of
from mta.delivery.resolver import NoAnswer, Resolver
from mta.delivery.route import NextHop, Routes, Site
from mta.delivery.trouble import NoWay
from mta.doctor.findings import Finding, listed, ok, problem, shown, warning

_NO_WAY = {
    NoWay.NULL_MX: ("takes no mail (null MX): what is sent to it fails at once", "nothing is wrong here"),
    NoWay.NO_DOMAIN: ("there is no such domain: what is sent to it fails at once", "look at how it is spelled"),
    NoWay.NO_HOST: ("has neither MX nor address: what is sent to it fails at once", "look at how it is spelled"),
    NoWay.LOOP: ("its best MX is this relay: what is sent to it fails at once", "name its next hop in a route"),
    NoWay.DNS: ("no answer from the DNS: what is sent to it waits", "look at the resolvers in the configuration (dns)"),
}


class Host(msgspec.Struct, frozen=True):
    """A next hop with the addresses that may be dialled."""

    hop: NextHop
    addresses: tuple[str, ...] = ()


class Way(msgspec.Struct, frozen=True):
    """Where mail goes. `secure`: the MX records were validated (RFC 7672 2.2.1). No `hosts`: nowhere."""

    findings: tuple[Finding, ...]
    hosts: tuple[Host, ...] = ()
    secure: bool = False
    site: Site | None = None


async def way_of(domain: str, resolver: Resolver, config: Config) -> Way:
    """Find where mail of a domain goes, and judge each host. Never raises."""
    routed = Routes(config.routes).site(domain)
    site = routed or await site_of(domain, resolver, config.hostname, config.delivery.port)
    if isinstance(site, NoWay):
        said, advice = _NO_WAY[site]
        return Way((problem("mx", said, advice),))
    first, secure = (ok("route", f"the configuration names its next hop: {hosts_of(site)}"), False)
    if routed is None:
        first, secure = await _records(domain, site, resolver)
    private = config.delivery.allow_private_targets or site.routed
    looked_up = [_host(hop, resolver, private=private) for hop in site.hops[:HOSTS_LIMIT]]
    found = await asyncio.gather(*looked_up)
    hosts = tuple(host for host, _ in found if host.addresses)
    findings = [first, *(finding for _, finding in found)]
    if len(site.hops) > HOSTS_LIMIT:
        findings.append(warning("mx", f"{len(site.hops)} hosts: no more than {HOSTS_LIMIT} are tried", _TELL))
    return Way(tuple(findings), hosts, secure, site)


async def _records(domain: str, site: Site, resolver: Resolver) -> tuple[Finding, bool]:
    try:
        found = await resolver.exchangers(domain)
    except NoAnswer:  # it had answered a moment before
        return ok("mx", hosts_of(site)), False
    validated = "validated (DNSSEC)" if found.secure else "not validated by DNSSEC"
    if not found.exchangers:
        return ok("mx", f"none: its own address has its mail, {validated}"), found.secure
    return ok("mx", f"{hosts_of(site)}, {validated}"), found.secure


def hosts_of(site: Site) -> str:
    """Name the hosts of a site in the order that they are asked in."""
    return listed(each.host for each in site.hops)


_TELL = "tell whoever runs the domain"


async def _host(hop: NextHop, resolver: Resolver, *, private: bool) -> tuple[Host, Finding]:
    about = shown(hop.host)
    canonical = ""
    try:
        addresses: tuple[str, ...] = (str(ipaddress.ip_address(hop.host)),)
    except ValueError:
        try:
            found = await resolver.addresses(hop.host)
        except NoAnswer as error:
            return Host(hop), warning(about, f"no answer from the DNS ({shown(str(error))})", "try again later")
        addresses, canonical = found.addresses, found.canonical
    safe = tuple(each for each in addresses if private or is_public(ipaddress.ip_address(each)))[:ADDRESSES_LIMIT]
    unsafe = [each for each in addresses if each not in safe]
    host = Host(hop, safe)
    if not addresses:
        return host, problem(about, "has no address: it is passed over", _TELL)
    if not safe:
        said = f"none of its addresses is public ({listed(unsafe)}): it is passed over"
        return host, problem(about, said, f"{_TELL}, or name the host in a route if it is meant to be inside")
    if unsafe and len(addresses) <= ADDRESSES_LIMIT:
        return host, warning(about, f"{listed(safe)}; not public, and never dialled: {listed(unsafe)}", _TELL)
    if canonical:  # RFC 2181 10.3; DANE asks for the name behind it (RFC 7672 2.2.2)
        return host, warning(
            about, f"is an alias of {shown(canonical)}, which an MX must not be: {listed(safe)}", _TELL
        )
    return host, ok(about, listed(safe))
