"""A DKIM key as it is published: what a TXT record says, compared with the one that was made (RFC 6376 3.6.1).

A stranger's record is read in time linear in its length, and nothing is calculated with the key in it: ours is in it
octet for octet, or it is another one.
"""

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Sequence

RECORD_LIMIT = 8192  # octets; an RSA key of 4,096 bits takes 800
_BLANKS = re.compile(r"[ \t\r\n]+")  # RFC 6376 2.8: folding white space
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class MalformedRecord(Exception):
    """A record is no list of tags; the message says why."""


def tags_of(record: bytes) -> dict[str, str]:
    """Read a list of tags (RFC 6376 3.2), their values without blanks around them. Raises MalformedRecord."""
    if len(record) > RECORD_LIMIT:
        raise MalformedRecord(f"more than {RECORD_LIMIT} octets")
    found: dict[str, str] = {}
    for each in record.decode("ascii", "replace").strip(" \t\r\n").removesuffix(";").split(";"):
        name, equals, value = each.partition("=")
        name = name.strip(" \t\r\n")
        if not equals or _NAME.fullmatch(name) is None:
            raise MalformedRecord("not a list of tags")
        if name in found:
            raise MalformedRecord(f"{name}= is there twice")
        found[name] = value.strip(" \t\r\n")
    return found


def differs(texts: Sequence[bytes], made: str) -> str:
    """Say why verifiers cannot use what is published (TXT records, each joined) as the one `made`; "" if they can.

    The words are our own, never the record's.
    """
    if len(texts) != 1:  # RFC 6376 3.6.2.2: with several, verifiers do as they like
        return f"{len(texts)} TXT records" if texts else "no TXT record"
    try:
        tags = tags_of(texts[0])
    except MalformedRecord as reason:
        return f"malformed: {reason}"
    wanted = tags_of(made.encode("ascii"))
    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and next(iter(tags)) != "v"):
        return "not of version DKIM1"
    if "p" not in tags:
        return "malformed: no p="
    if not tags["p"]:  # RFC 6376 3.6.1
        return "revoked (p= is empty)"
    if tags.get("k", "rsa") != wanted["k"]:
        return f"k= is not {wanted['k']}"
    if _octets(tags["p"]) != _octets(wanted["p"]):
        return "another key (p=)"
    if "sha256" not in _parts(tags.get("h", "sha256")):
        return "h= does not allow sha256"
    if not {"*", "email"} & _parts(tags.get("s", "*")):
        return "s= does not allow email"
    return ""


def _parts(value: str) -> set[str]:
    return {each.strip(" \t\r\n") for each in value.split(":")}


def _octets(encoded: str) -> bytes | None:
    try:
        return b64decode(_BLANKS.sub("", encoded), validate=True)
    except (Error, ValueError):
        return None
