"""SPF records: text into terms, and macros into names (RFC 7208 4.6, 7, 12). Pure.

The whole record is read before any of it counts: a mistake in its last term is a mistake of the record.
"""

import ipaddress
import re
from collections.abc import Sequence

import msgspec

_TERMS = 200  # of a record; a TXT record of 64 KiB has room for thousands
_OCTETS = 4096  # of a record; the RFC wants fewer than 450 (3.4)
_NAME_LIMIT = 253  # RFC 7208 7.3

_VERSION = "v=spf1"
_MECHANISMS = frozenset({"all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"})
_TERM = re.compile(r"([+?~-]?)([A-Za-z][A-Za-z0-9_.-]*)(?:([:=/])(.*))?", re.DOTALL)
_MACRO = re.compile(r"%(?:\{([slodiphcrtvSLODIPHCRTV])([0-9]{0,3})(r?)([.\-+,/_=]*)\}|([%_-]))")
_CIDR = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z")
_TOP_LABEL = re.compile(r"[A-Za-z0-9-]*[A-Za-z-][A-Za-z0-9-]*")
_LITERALS = {"%": "%", "_": " ", "-": "%20"}

type_address = ipaddress.IPv4Address | ipaddress.IPv6Address
type_network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SpfError(Exception):
    """The record cannot be used (RFC 7208 2.6.7, permerror). Says what is wrong, in words without the text itself."""


class Mechanism(msgspec.Struct, frozen=True):
    """A mechanism and what it says of who matches: `qualifier` is one of + - ~ ?.

    `spec` is its domain before macros ("" for the domain of the record), `network` that of ip4 and ip6, `prefixes`
    the lengths of IPv4 and IPv6 that a and mx compare.
    """

    qualifier: str
    name: str
    spec: str = ""
    network: type_network | None = None
    prefixes: tuple[int, int] = (32, 128)


class Record(msgspec.Struct, frozen=True):
    """A record's mechanisms in order, and where it sends those whom none matches ("" for nowhere)."""

    mechanisms: tuple[Mechanism, ...]
    redirect: str = ""


class Asked(msgspec.Struct, frozen=True):
    """What macros are made of (RFC 7208 7.2). `validated` is a name of the address, "unknown" without one."""

    address: type_address
    sender: str
    domain: str
    helo: str
    validated: str = "unknown"


def select(texts: Sequence[bytes]) -> bytes | None:
    """Return the one SPF record among the TXT records of a name, None if there is none. SpfError if there are more."""
    found = [each for each in texts if each[:6].lower() == b"v=spf1" and each[6:7] in (b"", b" ")]
    if len(found) > 1:
        raise SpfError(f"{len(found)} records of version 1, where there can be one")  # RFC 7208 4.5
    return found[0] if found else None


def parse(octets: bytes) -> Record:
    """Read a record that `select` returned. SpfError if any of it is wrong."""
    if len(octets) > _OCTETS:
        raise SpfError(f"longer than {_OCTETS} octets")
    if not octets.isascii() or not octets.decode("ascii").isprintable():
        raise SpfError("not printable ASCII")
    terms = [each for each in octets.decode("ascii")[len(_VERSION) :].split(" ") if each]
    if len(terms) > _TERMS:
        raise SpfError(f"more than {_TERMS} terms")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for number, term in enumerate(terms, 1):
        found = _TERM.fullmatch(term)
        if found is None:
            raise SpfError(f"term {number} is malformed")
        qualifier, name, mark, value = found[1], found[2].lower(), found[3] or "", found[4] or ""
        if mark == "=" and not qualifier:
            _modifier(modifiers, name, value)
        elif mark == "=" or name not in _MECHANISMS:
            raise SpfError(f"term {number} is no mechanism that there is")  # RFC 7208 4.6.1
        else:
            mechanisms.append(_mechanism(qualifier or "+", name, mark, value))
    return Record(tuple(mechanisms), modifiers.get("redirect", ""))


def _modifier(modifiers: dict[str, str], name: str, value: str) -> None:
    if name in ("redirect", "exp"):
        if name in modifiers:
            raise SpfError(f"{name} is there twice")  # RFC 7208 6
        modifiers[name] = _domain_spec(name, value)
    else:
        _check_macros(name, value)  # unknown ones are read and ignored


def _mechanism(qualifier: str, name: str, mark: str, value: str) -> Mechanism:
    if name == "all":
        if mark:
            raise SpfError("all has no value")
        return Mechanism(qualifier, name)
    if name in ("ip4", "ip6"):
        return Mechanism(qualifier, name, network=_network(name, mark, value))
    if name in ("include", "exists"):
        if mark != ":":
            raise SpfError(f"{name} needs a domain")
        return Mechanism(qualifier, name, _domain_spec(name, value))
    if name == "ptr":
        if mark == "/":
            raise SpfError("ptr has no prefix length")
        return Mechanism(qualifier, name, _domain_spec(name, value) if mark else "")
    return _with_prefixes(qualifier, name, mark, value)


def _with_prefixes(qualifier: str, name: str, mark: str, value: str) -> Mechanism:
    """Read `a` and `mx`: a domain, prefix lengths, or both (RFC 7208 5.3, 5.4)."""
    whole = mark + value if mark == "/" else value
    cidr = _CIDR.search(whole)
    assert cidr is not None  # it matches at the end at least
    spec = whole[: cidr.start()]
    if mark == ":":
        _domain_spec(name, spec)
    elif spec:
        raise SpfError(f"{name} has a malformed prefix length")
    four, six = int(cidr[1] or 32), int(cidr[2] or 128)
    if four > 32 or six > 128:
        raise SpfError(f"{name} has a prefix length that is too long")
    return Mechanism(qualifier, name, spec, prefixes=(four, six))


def _network(name: str, mark: str, value: str) -> type_network:
    address, slash, length = value.partition("/")
    if mark != ":" or (slash and not re.fullmatch("0|[1-9][0-9]{0,2}", length)) or "%" in address:
        raise SpfError(f"{name} needs an address or a network")
    try:
        if name == "ip4":
            return ipaddress.IPv4Network(value, strict=False)
        return ipaddress.IPv6Network(value, strict=False)
    except ValueError:
        raise SpfError(f"{name} needs an address or a network of its family") from None


def _domain_spec(name: str, value: str) -> str:
    """Check a domain-spec (RFC 7208 7.1): macros, and at the end a top label or a macro."""
    _check_macros(name, value)
    if value.endswith("}"):
        return value
    labels = value.removesuffix(".").rpartition(".")
    top = labels[2]
    if not labels[1] or not _TOP_LABEL.fullmatch(top) or top.startswith("-") or top.endswith("-"):
        raise SpfError(f"{name} needs a domain name")
    return value


def _check_macros(name: str, value: str) -> None:
    rest = _MACRO.sub("", value)
    if "%" in rest:
        raise SpfError(f"{name} has a malformed macro")
    for found in _MACRO.finditer(value):
        if found[2] and not int(found[2]):
            raise SpfError(f"{name} has a macro that keeps no part")
        if (found[1] or "").lower() in ("c", "r", "t"):
            raise SpfError(f"{name} has a macro that is for explanations alone")  # RFC 7208 7.2


def needs_validated(spec: str) -> bool:
    """Tell whether a domain-spec wants a validated name of the address (`p`), which costs look-ups."""
    return any((found[1] or "").lower() == "p" for found in _MACRO.finditer(spec))


def expand(spec: str, asked: Asked) -> str:
    """Write the name that a domain-spec means: at most 253 characters, cut at the left (RFC 7208 7.3)."""
    name = _MACRO.sub(lambda found: _expanded(found, asked), spec).removesuffix(".").lower()
    if len(name) > _NAME_LIMIT:
        return name[-_NAME_LIMIT - 1 :].partition(".")[2]
    return name


def _expanded(found: re.Match[str], asked: Asked) -> str:
    if found[5]:
        return _LITERALS[found[5]]
    text = _letter(found[1].lower(), asked)
    parts = re.split(f"[{re.escape(found[4] or '.')}]", text)
    if found[3]:
        parts.reverse()
    if found[2]:
        parts = parts[-int(found[2]) :]
    joined = ".".join(parts)
    return "".join(map(_url_escaped, joined)) if found[1].isupper() else joined


def _letter(letter: str, asked: Asked) -> str:
    local, _, domain = asked.sender.rpartition("@")
    values = {"s": asked.sender, "l": local, "o": domain, "d": asked.domain, "h": asked.helo, "p": asked.validated}
    if letter == "v":
        return "in-addr" if asked.address.version == 4 else "ip6"
    if letter == "i":
        if asked.address.version == 4:
            return str(asked.address)
        return ".".join(asked.address.exploded.replace(":", ""))
    return values[letter]


def _url_escaped(char: str) -> str:
    """Keep what RFC 3986 calls unreserved."""
    if char.isascii() and (char.isalnum() or char in "-._~"):
        return char
    return "".join(f"%{octet:02X}" for octet in char.encode())
