"""DMARC: the record of a domain, and whether what is authenticated stands for the From domain (RFC 7489). Pure.

Alignment is decided by organizational domains, which the public suffix list tells apart (RFC 7489 3.2).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import msgspec
from publicsuffixlist import PublicSuffixList

_OCTETS = 4096  # of a record
_TAGS = 50
_VERSION = b"v=DMARC1"

Mode = Literal["relaxed", "strict"]
_POLICIES = ("none", "quarantine", "reject")


class DmarcError(Exception):
    """The record cannot be used. Says what is wrong, in words without the text itself."""


class Dmarc(msgspec.Struct, frozen=True):
    """What a record asks for (RFC 7489 6.3). `subdomains` is the policy of what is below, `rua` where reports go."""

    policy: str
    subdomains: str
    dkim: Mode
    spf: Mode
    percent: int
    rua: str


def select(texts: Sequence[bytes]) -> bytes | None:
    """Return the one DMARC record of a name, None if there is none. DmarcError if there are more (RFC 7489 6.6.3)."""
    found = [each for each in texts if each.startswith(_VERSION) and each[8:].lstrip(b" \t")[:1] in (b"", b";")]
    if len(found) > 1:
        raise DmarcError(f"{len(found)} records, where there can be one")
    return found[0] if found else None


def parse(octets: bytes) -> Dmarc:
    """Read a record that `select` returned. DmarcError if receivers would ignore it."""
    if len(octets) > _OCTETS or not octets.isascii():
        raise DmarcError(f"not ASCII of at most {_OCTETS} octets")
    tags = _tags(octets.decode("ascii"))
    policy = tags.get("p", "").lower()
    if policy not in _POLICIES:
        raise DmarcError("p is not one of none, quarantine and reject")
    subdomains = tags.get("sp", policy).lower()
    if subdomains not in _POLICIES:
        raise DmarcError("sp is not one of none, quarantine and reject")
    percent = tags.get("pct", "100")
    if not percent.isdigit() or len(percent) > 3 or int(percent) > 100:
        raise DmarcError("pct is not a number from 0 to 100")
    return Dmarc(policy, subdomains, _mode(tags, "adkim"), _mode(tags, "aspf"), int(percent), tags.get("rua", ""))


def _tags(text: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for item in [each.strip() for each in text.split(";")[: _TAGS + 1]]:
        name, equals, value = item.partition("=")
        if item and not equals:
            raise DmarcError("a tag has no value")
        if item:
            tags.setdefault(name.strip().lower(), value.strip())
    if len(tags) > _TAGS:
        raise DmarcError(f"more than {_TAGS} tags")
    return tags


def _mode(tags: dict[str, str], name: str) -> Mode:
    value = tags.get(name, "r").lower()
    if value not in ("r", "s"):
        raise DmarcError(f"{name} is not r or s")
    return "strict" if value == "s" else "relaxed"


def aligned(authenticated: str, author: str, mode: Mode) -> bool:
    """Tell whether an authenticated domain stands for the From domain (RFC 7489 3.1); both in normal form."""
    if mode == "strict":
        return authenticated == author
    return organizational(authenticated) == organizational(author)


def organizational(domain: str) -> str:
    """Return the organizational domain of a domain in normal form: itself where it is a public suffix."""
    return _suffixes().privatesuffix(domain) or domain


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
