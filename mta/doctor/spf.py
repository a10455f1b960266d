"""SPF: may this address send for that domain? (RFC 7208 4). Asks the resolver, within the RFC's limits and 20 s.

`exp` is not fetched: nobody here reads explanations. The limits hold over all records that one leads to.
"""

import asyncio
import ipaddress
from enum import StrEnum

import msgspec

from mta.delivery.resolver import Found, NoAnswer, Resolver
from mta.doctor.spf_record import (
    Asked,
    Mechanism,
    SpfError,
    expand,
    needs_validated,
    parse,
    select,
    type_address,
)
from mta.mail.address import DOMAIN_LIMIT

LOOKUPS = 10  # terms that ask the DNS, RFC 7208 4.6.4
_VOID = 2  # of these, that may find nothing
_NAMES = 10  # MX hosts, or names of the address, that one term may lead to
_SECONDS = 20.0  # RFC 7208 4.6.4 wants at least these


class Spf(StrEnum):
    """What comes of a check (RFC 7208 2.6)."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_RESULTS = {"+": Spf.PASS, "-": Spf.FAIL, "~": Spf.SOFTFAIL, "?": Spf.NEUTRAL}


class Checked(msgspec.Struct, frozen=True):
    """The result, why it is one of the errors, and how many of the ten look-ups it took."""

    result: Spf
    why: str = ""
    lookups: int = 0


async def check_host(address: type_address, sender: str, helo: str, resolver: Resolver) -> Checked:
    """Check the domain of `sender` (a mailbox) for an address that says `helo` in EHLO. Never raises."""
    check = _Check(address, sender, helo, resolver)
    domain = sender.rpartition("@")[2].lower()
    try:
        async with asyncio.timeout(_SECONDS):
            result = await check.run(domain)
    except TimeoutError:
        return Checked(Spf.TEMPERROR, f"it takes longer than {_SECONDS:g} s", check.lookups)
    except NoAnswer as error:
        return Checked(Spf.TEMPERROR, f"no answer from the DNS ({error})", check.lookups)
    except SpfError as error:
        return Checked(Spf.PERMERROR, f"{check.where}: {error}", check.lookups)
    return Checked(result, lookups=check.lookups)


class _Check:
    """One evaluation: what it has cost so far, and which record it is in."""

    def __init__(self, address: type_address, sender: str, helo: str, resolver: Resolver) -> None:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        self._address = mapped or address  # RFC 7208 5
        self._sender = sender if sender.rpartition("@")[0] else f"postmaster{sender}"  # RFC 7208 4.3
        self._helo = helo
        self._resolver = resolver
        self._void = 0
        self.lookups = 0
        self.where = ""

    async def run(self, domain: str) -> Spf:
        """Evaluate the record of a domain (RFC 7208 4); the limit of look-ups ends every recursion."""
        if not _askable(domain):
            return Spf.NONE  # RFC 7208 4.3
        self.where = domain
        found = await self._resolver.texts(domain)
        selected = select(found.texts)
        if selected is None:
            return Spf.NONE
        record = parse(selected)
        for mechanism in record.mechanisms:
            if await self._matches(mechanism, domain):
                return _RESULTS[mechanism.qualifier]
            self.where = domain
        if not record.redirect or any(each.name == "all" for each in record.mechanisms):
            return Spf.NEUTRAL  # RFC 7208 4.7
        self._count()
        result = await self.run(await self._name(record.redirect, domain))
        if result is Spf.NONE:
            raise SpfError("redirect leads to no record")  # RFC 7208 6.1
        return result

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        if mechanism.name == "all":
            return True
        if mechanism.network is not None:
            return self._address.version == mechanism.network.version and self._address in mechanism.network
        self._count()
        name = await self._name(mechanism.spec, domain) if mechanism.spec else domain
        if mechanism.name == "include":
            return await self._included(name)
        if mechanism.name == "ptr":
            return any(each == name or each.endswith(f".{name}") for each in await self._names_of_address())
        if not _askable(name):
            self._note_void(Found(exists=False))
            return False
        if mechanism.name == "mx":
            return await self._is_mx(name, mechanism.prefixes)
        found = self._note_void(await self._resolver.addresses(name))
        if mechanism.name == "exists":  # IPv4 alone, whatever the address is (RFC 7208 5.7)
            return any(":" not in each for each in found.addresses)
        return self._among(found.addresses, mechanism.prefixes)

    async def _included(self, name: str) -> bool:
        result = await self.run(name)
        if result is Spf.NONE:
            raise SpfError("include leads to no record")  # RFC 7208 5.2
        return result is Spf.PASS

    async def _is_mx(self, name: str, prefixes: tuple[int, int]) -> bool:
        exchangers = self._note_void(await self._resolver.exchangers(name)).exchangers
        if len(exchangers) > _NAMES:
            raise SpfError(f"mx leads to more than {_NAMES} hosts")  # RFC 7208 4.6.4
        for each in exchangers:
            if each.host and self._among((await self._resolver.addresses(each.host)).addresses, prefixes):
                return True
        return False

    def _among(self, addresses: tuple[str, ...], prefixes: tuple[int, int]) -> bool:
        length = prefixes[0] if self._address.version == 4 else prefixes[1]
        mine = ipaddress.ip_network((self._address, length), strict=False)
        return any(ipaddress.ip_address(each) in mine for each in addresses if (":" in each) is (mine.version == 6))

    async def _names_of_address(self) -> list[str]:
        """Return the validated names of the address (RFC 7208 5.5); trouble with one is as if it were not there."""
        try:
            names = (await self._resolver.pointers(str(self._address))).names[:_NAMES]
        except NoAnswer:
            return []
        validated = []
        for name in names:
            try:
                if str(self._address) in (await self._resolver.addresses(name)).addresses:
                    validated.append(name)
            except NoAnswer:
                continue
        return validated

    async def _name(self, spec: str, domain: str) -> str:
        validated = "unknown"
        if needs_validated(spec):
            names = await self._names_of_address()
            inside = [each for each in names if each == domain or each.endswith(f".{domain}")]
            validated = (inside or names or ["unknown"])[0]  # RFC 7208 7.3
        return expand(spec, Asked(self._address, self._sender, domain, self._helo, validated))

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > LOOKUPS:
            raise SpfError(f"more than {LOOKUPS} look-ups")

    def _note_void(self, found: Found) -> Found:
        if not found.addresses and not found.exchangers:
            self._void += 1
            if self._void > _VOID:
                raise SpfError(f"more than {_VOID} look-ups that find nothing")
        return found


def _askable(name: str) -> bool:
    """Tell whether a name can be asked for: of two labels, which all have their length, and without odd characters."""
    labels = name.removesuffix(".").split(".")
    return (
        name.isascii()
        and name.isprintable()
        and "\\" not in name
        and len(name) <= DOMAIN_LIMIT
        and len(labels) > 1
        and all(0 < len(each) <= 63 for each in labels)
    )
