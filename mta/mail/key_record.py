"""A DKIM key as it is published: what a TXT record says, compared with the one that was made (RFC 6376 3.6.1).

A stranger's record is read in time linear in its length, and nothing is calculated with the key in it: ours is in it
octet for octet, or it is another one.
"""

import re
from base64 import b64decode
from collections.abc import Sequence

RECORD_LIMIT = 8192  # octets; an RSA key of 4,096 bits takes 800
_BLANKS = re.compile(r"[ \t\r\n]+")  # RFC 6376 2.8: folding white space
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class UnusableRecord(Exception):
    """A record is no list of tags, or no key that verifiers can use; the message says why, in words of our own."""


def tags_of(record: bytes) -> dict[str, str]:
    """Read a list of tags (RFC 6376 3.2), their values without blanks around them. Raises UnusableRecord."""
    if len(record) > RECORD_LIMIT:
        raise UnusableRecord(f"malformed: more than {RECORD_LIMIT} octets")
    found: dict[str, str] = {}
    for each in record.decode("ascii", "replace").strip(" \t\r\n").removesuffix(";").split(";"):
        name, equals, value = each.partition("=")
        name = name.strip(" \t\r\n")
        if not equals or _NAME.fullmatch(name) is None:
            raise UnusableRecord("malformed: not a list of tags")
        if name in found:
            raise UnusableRecord(f"malformed: {name[:16]}= is there twice")
        found[name] = value.strip(" \t\r\n")
    return found


def key_tags(texts: Sequence[bytes]) -> dict[str, str]:
    """Read a key for mail and SHA-256 from TXT records, each joined; k= and p= are there. Raises UnusableRecord."""
    if len(texts) != 1:  # RFC 6376 3.6.2.2: with several, verifiers do as they like
        raise UnusableRecord(f"{len(texts)} TXT records" if texts else "no TXT record")
    tags = tags_of(texts[0])
    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and next(iter(tags)) != "v"):
        raise UnusableRecord("not of version DKIM1")
    if "p" not in tags:
        raise UnusableRecord("malformed: no p=")
    if not tags["p"]:  # RFC 6376 3.6.1
        raise UnusableRecord("revoked (p= is empty)")
    if "sha256" not in _parts(tags.get("h", "sha256")):
        raise UnusableRecord("h= does not allow sha256")
    if not {"*", "email"} & _parts(tags.get("s", "*")):
        raise UnusableRecord("s= does not allow email")
    return {"k": "rsa"} | tags


def differs(texts: Sequence[bytes], made: str) -> str:
    """Say why verifiers cannot use what is published (TXT records, each joined) as the one `made`; "" if they can."""
    try:
        tags = key_tags(texts)
    except UnusableRecord as reason:
        return str(reason)
    wanted = tags_of(made.encode("ascii"))
    if tags["k"] != wanted["k"]:
        return f"k= is not {wanted['k']}"
    if octets_of(tags["p"]) != octets_of(wanted["p"]):
        return "another key (p=)"
    return ""


def octets_of(encoded: str) -> bytes | None:
    """Read what is written in base64, with blanks anywhere (RFC 6376 3.2); None if it is not."""
    try:
        return b64decode(_BLANKS.sub("", encoded), validate=True)
    except ValueError:
        return None


def _parts(value: str) -> set[str]:
    return {each.strip(" \t\r\n") for each in value.split(":")}
