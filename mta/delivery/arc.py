"""The ARC chain that a message has, and whether it holds (RFC 8617 5.2). Pure; hostile input takes linear time.

Keys are looked up by the caller, who hands over all that `key_names` names. At most 51 signatures are verified, by
keys of at most 4,096 bits, and the body is hashed once.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mta.delivery.canonical import body_hash, relaxed, simple_body_hash
from mta.mail.address import is_domain
from mta.mail.headers import Field, header_length
from mta.mail.key_record import UnusableRecord, key_tags, octets_of, tags_of

INSTANCES = 50  # RFC 8617 4.2.1
RESULTS, SIGNATURE, SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
_LEAST_BITS, _MOST_BITS = 1024, 4096  # RFC 8301 3.2; more would take long to verify
_EXPONENT_LIMIT = 1 << 32
_RESULTS_INSTANCE = re.compile(rb"i[ \t]*=[ \t]*([0-9]{1,2})[ \t]*;")
_NUMBER = re.compile(r"[0-9]{1,12}")
# The beginning of an RSA key (RFC 6376 3.6.1): an RSAPublicKey, or a SubjectPublicKeyInfo with rsaEncryption
_RSA_KEY = re.compile(
    rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)(?:\x02|\x30[\x0b\x0d]\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01)", re.DOTALL
)


class Broken(Exception):
    """The chain does not hold; the message says why."""


class Set(NamedTuple):
    """The three fields that one hop has added, as they came, with their last CRLF."""

    results: bytes
    signature: bytes
    seal: bytes


class Chain(NamedTuple):
    """The sets of a message, first hop first, or why they are no chain; `highest` is the last instance seen.

    `ended`: the last seal says that the chain did not hold there, and nobody adds to it (RFC 8617 5.1).
    """

    sets: tuple[Set, ...] = ()
    highest: int = 0
    broken: str = ""
    ended: bool = False


class _Signature(NamedTuple):
    """A signature field: its tags, the name of its key, the signature, and what it signs of itself."""

    tags: dict[str, str]
    key: str
    value: bytes
    itself: bytes


def chain_of(fields: Sequence[Field]) -> Chain:
    """Collect the sets of a message. Never raises."""
    found: dict[int, dict[bytes, bytes]] = {}
    broken = ""
    for field in fields:
        if field.name not in (RESULTS, SIGNATURE, SEAL):
            continue
        instance = _instance(field)
        if instance is None:
            broken = "a field without an instance from 1 to 50"
        elif field.name in found.setdefault(instance, {}):
            broken = f"instance {instance} is there twice"
        else:
            found[instance][field.name] = field.raw
    highest = max(found, default=0)
    ended = _tag(found.get(highest, {}).get(SEAL, b""), "cv") == "fail"
    if broken or not all(len(found.get(instance, ())) == 3 for instance in range(1, highest + 1)):
        return Chain((), highest, broken or "a set is not complete", ended)
    sets = [found[instance] for instance in range(1, highest + 1)]
    return Chain(tuple([Set(each[RESULTS], each[SIGNATURE], each[SEAL]) for each in sets]), highest, "", ended)


def key_names(chain: Chain) -> set[str]:
    """Name the TXT records of the keys that `verify` needs. Raises Broken."""
    if chain.broken:
        raise Broken(chain.broken)
    signatures = [each.seal for each in chain.sets] + [each.signature for each in chain.sets[-1:]]
    return {_read(each).key for each in signatures}


def verify(
    chain: Chain, fields: Sequence[Field], content: bytes, keys: Mapping[str, Sequence[bytes]], now: float
) -> None:
    """Verify a chain that has sets (RFC 8617 5.2). Raises Broken.

    `fields` are those of `content`, `keys` the TXT records by name.
    """
    if chain.broken:
        raise Broken(chain.broken)
    expires = _read(chain.sets[-1].signature).tags.get("x", "")
    if expires and not (_NUMBER.fullmatch(expires) and int(expires) > now):  # RFC 6376 3.5
        raise Broken("the message signature has expired")
    for instance, each in enumerate(chain.sets, 1):
        tags = _read(each.seal).tags
        if tags.get("cv") != ("none" if instance == 1 else "pass") or "h" in tags:
            raise Broken(f"seal {instance} says what cannot be")
    _verify_message(chain.sets[-1].signature, fields, content, keys)
    for instance, (each, digest) in enumerate(zip(chain.sets, seal_digests(chain.sets), strict=True), 1):
        _verify(_read(each.seal), digest, keys, f"seal {instance}")


def seal_digests(sets: Sequence[Set]) -> Iterator[bytes]:
    """Yield what each seal signs: all sets up to its own, the value of its own b= left out (RFC 8617 5.1.1)."""
    before = hashlib.sha256()
    for each in sets:
        before.update(relaxed(each.results) + b"\r\n" + relaxed(each.signature) + b"\r\n")
        one = before.copy()
        one.update(relaxed(_without_value(each.seal)))
        yield one.digest()
        before.update(relaxed(each.seal) + b"\r\n")


def _verify_message(raw: bytes, fields: Sequence[Field], content: bytes, keys: Mapping[str, Sequence[bytes]]) -> None:
    """Verify a message signature, which is a DKIM signature but for v= and i= (RFC 8617 4.1.2)."""
    signature = _read(raw)
    tags = signature.tags
    header_form, _, body_form = tags.get("c", "simple/simple").partition("/")
    body_form = body_form or "simple"
    if {header_form, body_form} - {"simple", "relaxed"} or "l" in tags:  # RFC 6376 8.2: l= lets anybody add text
        raise Broken("the message signature is of a form that is not accepted")
    names = [each.strip(" \t\r\n").lower().encode("ascii", "replace") for each in tags.get("h", "").split(":")]
    if b"from" not in names or SEAL in names:
        raise Broken("the message signature signs other fields than it should")
    length = header_length(content)
    if sum(len(each.raw) for each in fields) != length:  # lines that are no field: no two readers agree
        raise Broken("the header is malformed")
    start = length + 2  # behind the empty line
    hashed = body_hash(content, start) if body_form == "relaxed" else simple_body_hash(content, start)
    if octets_of(tags.get("bh", "")) != hashed:
        raise Broken("the body was changed")
    unused: dict[bytes, list[bytes]] = {}
    for field in fields:
        unused.setdefault(field.name, []).append(field.raw)
    # RFC 6376 5.4.2: those of one name from the bottom up, and nothing for one that is not there
    signed = [unused[name].pop() for name in names if unused.get(name)]
    if header_form == "relaxed":
        text = b"".join([relaxed(each) + b"\r\n" for each in signed]) + relaxed(signature.itself)
    else:
        text = b"".join(signed) + signature.itself
    _verify(signature, hashlib.sha256(text).digest(), keys, "the message signature")


def _verify(signature: _Signature, digest: bytes, keys: Mapping[str, Sequence[bytes]], what: str) -> None:
    try:
        key = _public_key(keys.get(signature.key, ()))
        key.verify(signature.value, digest, PKCS1v15(), Prehashed(SHA256()))
    except UnusableRecord as reason:
        raise Broken(f"the key of {what}: {reason}") from None
    except InvalidSignature:
        raise Broken(f"{what} does not match") from None


def _public_key(texts: Sequence[bytes]) -> RSAPublicKey:
    tags = key_tags(texts)
    der = octets_of(tags["p"]) or b""
    # before it is read: of a Diffie-Hellman key of 8,192 bits that would be a minute of looking for primes
    if tags["k"] != "rsa" or not _RSA_KEY.match(der):
        raise UnusableRecord("not an RSA key")
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableRecord("malformed key") from None
    if not isinstance(key, RSAPublicKey):
        raise UnusableRecord("not an RSA key")
    if not _LEAST_BITS <= key.key_size <= _MOST_BITS or key.public_numbers().e >= _EXPONENT_LIMIT:
        raise UnusableRecord("key too small or too big")
    return key


def _read(raw: bytes) -> _Signature:
    """Read a signature field; Broken if there is no RSA signature with SHA-256 in it."""
    try:
        tags = tags_of(raw.partition(b":")[2])
    except UnusableRecord as reason:
        raise Broken(f"a signature field is {reason}") from None
    domain, selector, value = tags.get("d", "").lower(), tags.get("s", "").lower(), octets_of(tags.get("b", ""))
    if tags.get("a") != "rsa-sha256" or not value or not is_domain(domain) or not is_domain(selector):
        raise Broken("a signature field lacks what it needs")
    return _Signature(tags, f"{selector}._domainkey.{domain}", value, _without_value(raw))


def _without_value(raw: bytes) -> bytes:
    """Take the value of b= out of a field, and its last line end (RFC 6376 3.7)."""
    name, _, value = raw.removesuffix(b"\r\n").partition(b":")
    parts = value.split(b";")
    for number, part in enumerate(parts):
        tag, _, _ = part.partition(b"=")
        if tag.strip() == b"b":
            parts[number] = tag + b"="
    return name + b":" + b";".join(parts)


def _instance(field: Field) -> int | None:
    if field.name == RESULTS:  # no list of tags, and i= comes first (RFC 8617 4.1.1)
        found = _RESULTS_INSTANCE.match(field.value)
        text = found[1].decode("ascii") if found is not None else ""
    else:
        text = _tag(field.raw, "i")
    return int(text) if _NUMBER.fullmatch(text) is not None and 1 <= int(text) <= INSTANCES else None


def _tag(raw: bytes, name: str) -> str:
    try:
        return tags_of(raw.partition(b":")[2]).get(name, "")
    except UnusableRecord:
        return ""
