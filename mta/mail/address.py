"""Mailboxes as SMTP writes them (RFC 5321 4.1.2, RFC 6531 3.3).

An address is kept as the text it came as: the local part belongs to its host (RFC 5321 2.4). Only
`domain_of` gives a normal form, for routing and for ownership.
"""

import ipaddress
import re

import idna

LOCAL_PART_LIMIT = 64  # octets, RFC 5321 4.5.3.1.1
DOMAIN_LIMIT = 253  # octets that a DNS name can have; RFC 5321 4.5.3.1.2 counts 255 with the wire form

_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
_NON_ASCII = r"\u00a0-\u2027\u202a-\ud7ff\ue000-\U0010ffff"  # no controls, no line ends, no halves of characters
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"


def _local_part(extra: str) -> str:
    atom = rf"[{_ATEXT}{extra}]+"
    return rf'(?:{atom}(?:\.{atom})*|"(?:[\x20\x21\x23-\x5b\x5d-\x7e{extra}]|\\[\x20-\x7e])*")'


_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
MAILBOX = rf"({_local_part('')})@({_LABEL}(?:\.{_LABEL})*)"
"""A mailbox in ASCII, as a pattern with its local part and its domain name as groups; the limits are to be checked."""
_MAILBOX = re.compile(MAILBOX)
_LOCAL_PART = re.compile(_local_part(""))
_LOCAL_PART_UTF8 = re.compile(_local_part(_NON_ASCII))


class AddressError(ValueError):
    """The text is not a mailbox; the message says why, in words fit for a reply."""


def parse_mailbox(text: str, *, utf8: bool = False) -> str:
    """Return `text` unchanged if it is a Mailbox of RFC 5321; AddressError if not.

    `utf8` admits the internationalised form of RFC 6531 (a U-label domain must be valid IDNA2008).
    Address literals are mailboxes too: `user@[192.0.2.1]`, `user@[IPv6:2001:db8::1]`.
    """
    fast = _MAILBOX.fullmatch(text)
    if fast is not None:
        local, domain = fast.groups()
    else:
        local, domain = _split(text, utf8=utf8)
    if len(local.encode()) > LOCAL_PART_LIMIT:
        raise AddressError("local part is longer than 64 octets")
    if len(domain) > DOMAIN_LIMIT:
        raise AddressError("domain is longer than 253 octets")
    return text


def _split(text: str, *, utf8: bool) -> tuple[str, str]:
    local, at, domain = text.rpartition("@")
    if not at:
        raise AddressError("address has no @")
    if not (_LOCAL_PART_UTF8 if utf8 else _LOCAL_PART).fullmatch(local):
        raise AddressError("local part is malformed")
    if domain.startswith("["):
        parse_literal(domain)
    elif not domain.isascii():
        if not utf8:
            raise AddressError("domain is not ASCII")
        a_label(domain)
    elif not _DOMAIN.fullmatch(domain):
        raise AddressError("domain is malformed")
    return local, domain


def parse_literal(domain: str) -> str:
    """Return the IP address in an address literal (RFC 5321 4.1.3); AddressError if it holds none."""
    inner = domain[1:-1] if domain.startswith("[") and domain.endswith("]") else ""
    if "%" in inner:  # a zone id, which may be any text for `ipaddress`, says nothing outside its host (RFC 4007 11.2)
        raise AddressError("address literal is malformed")
    try:
        if inner[:5].lower() == "ipv6:":
            return str(ipaddress.IPv6Address(inner[5:]))
        return str(ipaddress.IPv4Address(inner))
    except ValueError:
        raise AddressError("address literal is malformed") from None


def a_label(domain: str) -> str:
    """Write a domain in lower case as A-labels (RFC 5890); AddressError if that cannot be done."""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise AddressError("domain is not a valid internationalised name") from None


def is_domain(text: str) -> bool:
    """Tell whether `text` is a domain name of LDH labels (RFC 5321 4.1.2 Domain)."""
    return len(text) <= DOMAIN_LIMIT and _DOMAIN.fullmatch(text) is not None


def domain_of(address: str) -> str:
    """Return the domain of a parsed mailbox in its normal form, "" for the null path."""
    return a_label(address.rpartition("@")[2])
