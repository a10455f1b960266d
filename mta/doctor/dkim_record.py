"""A DKIM key as the DNS has it, against the key that signs here (RFC 6376 3.6.1). Pure.

Keys are compared as octets: no number of a stranger's is ever computed with.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Sequence

from mta.doctor.findings import Finding, ok, problem, warning

_OCTETS = 8192  # of a record: a key of 16,384 bits has room
_TAGS = 50
_BLANK = re.compile(r"[ \t\r\n]+")


def compare(about: str, texts: Sequence[bytes], ours: str, publish: str) -> Finding:
    """Judge the TXT records of a selector by the record that it should have; `publish` is its line for a zone file."""
    keys = [each for each in texts if b"p=" in each]
    if not keys:
        return problem(about, "its key is not published", f"publish {publish}")
    if len(keys) > 1:
        return problem(about, f"{len(keys)} keys at one name, and any of them may be taken", f"publish {publish} alone")
    published, mine = tags(keys[0]), tags(ours.encode("ascii")) or {}
    if published is None:
        return problem(about, "its record cannot be read as a DKIM key", f"publish {publish}")
    if published.get("v", "DKIM1") != "DKIM1":
        return problem(about, "its record is of another version than DKIM1", f"publish {publish}")
    key = _key(published)
    if key == b"":  # RFC 6376 3.6.1: an empty p= is a revocation
        return problem(about, "its key is revoked in the DNS (p= is empty)", f"publish {publish}")
    if published.get("k", "rsa") != mine.get("k", "rsa"):
        return problem(about, "the DNS says another kind of key than the one that signs", f"publish {publish}")
    if key is None or key != _key(mine):
        return problem(about, "the DNS has another key than the one that signs", f"publish {publish}")
    return _restricted(about, published)


def _restricted(about: str, published: dict[str, str]) -> Finding:
    """Judge what a record with the right key says beside it."""
    if "h" in published and "sha256" not in published["h"].split(":"):
        return problem(about, "its record does not allow SHA-256 (h=)", "remove h= from the record")
    if "s" in published and not {"*", "email"} & set(published["s"].split(":")):
        return problem(about, "its record is not for mail (s=)", "remove s= from the record")
    if "y" in published.get("t", "").split(":"):
        return warning(about, "published, in test mode (t=y): receivers may ignore it", "remove t=y from the record")
    return ok(about, "published, and it is the key that signs")


def tags(octets: bytes) -> dict[str, str] | None:
    """Read the tags of a record (RFC 6376 3.2), blanks taken out of their values; None if it is none."""
    if len(octets) > _OCTETS or not octets.isascii():
        return None
    found: dict[str, str] = {}
    items = octets.decode("ascii").split(";")
    if items[-1].strip() == "":
        items.pop()
    for item in items[:_TAGS]:
        name, equals, value = item.partition("=")
        if not equals or name.strip() in found:
            return None
        found[name.strip()] = _BLANK.sub("", value)
    return found if len(items) <= _TAGS else None


def _key(found: dict[str, str]) -> bytes | None:
    try:
        return b64decode(found.get("p", ""), validate=True)
    except (NotBase64, ValueError):
        return None
