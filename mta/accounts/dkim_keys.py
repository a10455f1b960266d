"""DKIM keys: made by anybody who may manage a domain, opened by the delivery role alone.

A private key is sealed the moment it is made, to the public half of a key pair whose private half only
delivery can read: ephemeral X25519, HKDF-SHA256, AES-256-GCM, all bound to the domain and the selector, so
that a sealed key cannot be moved to another name. RFC 6376 (RSA), RFC 8463 (Ed25519).
"""

import asyncio
import datetime as dt
import logging
import os
from base64 import b64encode
from collections.abc import Callable
from enum import StrEnum
from itertools import count
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_pem_public_key,
)

from mta.accounts import domains, rotation
from mta.accounts.domains import Domain, Selector, State
from mta.accounts.tenants import AccountError
from mta.mail.address import DOMAIN_LIMIT, is_domain
from mta.spool.interface import Spool
from mta.spool.sealing import KeyFileError, SealBroken, read_secret

log = logging.getLogger(__name__)

PrivateKey = RSAPrivateKey | Ed25519PrivateKey
_VERSION = b"\x01"
_PUBLIC_BYTES = 32
_NONCE = bytes(12)  # each sealing derives a key of its own, which seals nothing else


class Algorithm(StrEnum):
    """The kinds of key, as the command line names them."""

    RSA2048 = "rsa2048"
    ED25519 = "ed25519"


_SHORT = {Algorithm.RSA2048: "rsa", Algorithm.ED25519: "ed"}
_WATCHED = "dkim_watched"  # records without content, by domain


class DnsRecord(msgspec.Struct, frozen=True):
    """What has to be published; `alias`, if any, is the name that has to be a CNAME of `name`."""

    name: str
    type: str
    value: str
    alias: str = ""


async def create(
    spool: Spool, domain: str, selector: str, algorithm: Algorithm, public: X25519PublicKey, now: float
) -> DnsRecord:
    """Make a key for a registered domain and return its DNS record.

    A domain's first key signs at once, a further one when the DNS shows it. A selector that exists stays as it is and
    its record is returned. AccountError if the domain is not registered or the selector cannot be a DNS name.
    """
    existing = await require(spool, domain)
    selector = _selector_name(selector, existing.name)
    made = _named(existing, selector) or await _new_key(existing.name, selector, algorithm, public, now)

    def with_key(domain: Domain) -> Domain:
        if _named(domain, selector) is not None:
            return domain
        first = not any(each.state is State.ACTIVE for each in domain.selectors)
        key = msgspec.structs.replace(made, state=State.ACTIVE if first else State.PENDING)
        return msgspec.structs.replace(domain, selectors=(*domain.selectors, key))

    changed = await _change(spool, existing.name, with_key)
    return dns_record(changed.name, _named(changed, selector) or made)


async def rotate(
    spool: Spool, domain: str, algorithm: Algorithm, public: X25519PublicKey, now: float, selector: str = ""
) -> DnsRecord:
    """Make a key that is to replace those of its algorithm that sign, and return its DNS record.

    It signs, and they retire, when the DNS shows it. A rotation that has not come so far is not begun again: its record
    is returned. Without `selector` it goes by the day; one that can be had again is that of a key that `is_free`.
    AccountError if the domain is not registered, no key of the algorithm signs, or the selector cannot be had.
    """
    existing = await require(spool, domain)
    name = existing.name
    wanted = _selector_name(selector, name) if selector else ""
    made = await _new_key(name, wanted or _name_of_the_day(existing, algorithm, now), algorithm, public, now)

    def with_key(domain: Domain) -> Domain:
        if _under_way(domain, algorithm) is not None:
            return domain
        former = tuple([each.name for each in _active(domain, algorithm)])
        if not former:
            raise AccountError(f"{name} has no {algorithm} key that signs: create one")
        known = _named(domain, made.name)
        if known is not None and not is_free(known, now):
            raise AccountError(f"{name} has a key {known.name}, which is {known.state}")
        others = [
            msgspec.structs.replace(each, replaces=tuple([old for old in each.replaces if old != made.name]))
            for each in domain.selectors
            if each is not known
        ]
        key = msgspec.structs.replace(made, state=State.PENDING, replaces=former)
        return msgspec.structs.replace(domain, selectors=(*others, key))

    key = _under_way(await _change(spool, name, with_key), algorithm) or made
    if wanted and key.name != wanted:
        raise AccountError(f"{name} is changing to {key.name} already")
    return dns_record(name, key)


async def require(spool: Spool, domain: str) -> Domain:
    """Return a registered domain; AccountError if it is not registered itself."""
    name = domains.normalise(domain)
    existing = await domains.find(spool, name)
    if existing is None:
        raise AccountError(f"domain {name} is not registered")
    return existing


async def watched(spool: Spool) -> list[str]:
    """Name the domains with keys that wait for the DNS, which delivery looks at though they send nothing."""
    return [name for name, _ in await spool.list_records(_WATCHED)]


async def unwatch(spool: Spool, domain: str) -> None:
    """Leave a domain's keys to its mail from now on, unless one has been made since they were looked at."""
    await spool.delete_record(_WATCHED, domain)
    found = await domains.find(spool, domain)
    if found is not None and rotation.changing(found):  # what its maker has put on record may be what has just gone
        await _watch(spool, domain)


def active_algorithms(domain: Domain) -> list[Algorithm]:
    """List the algorithms of the keys that sign."""
    return [each for each in Algorithm if _active(domain, each)]


def is_free(key: Selector, now: float) -> bool:
    """Tell whether a retired key's record can go from the DNS, so that its name can be another key's."""
    return key.state is State.RETIRED and key.removable_at <= now


def dns_record(domain: str, selector: Selector) -> DnsRecord:
    """Return the TXT record of a selector (RFC 6376 3.6.2.1)."""
    return DnsRecord(name=name_of(domain, selector), type="TXT", value=selector.dns_value)


def name_of(domain: str, selector: Selector) -> str:
    """Return under which name a key is published (RFC 6376 3.6.2.1)."""
    return f"{selector.name}._domainkey.{domain}"


def delegated(record: DnsRecord, zone: str) -> DnsRecord:
    """Put a record into a zone of ours, where the domain's owner points by a CNAME; AccountError if it is too long."""
    target = f"{record.name}.{zone}"
    if len(target) > DOMAIN_LIMIT:
        raise AccountError(f"{target[:64]}... is too long for a name")
    return msgspec.structs.replace(record, name=target, alias=record.name)


async def _change(spool: Spool, name: str, how: Callable[[Domain], Domain]) -> Domain:
    """Change a domain's keys and have delivery look at those that wait for the DNS."""
    changed = await domains.change(spool, name, how)
    if changed is None:
        raise AccountError(f"domain {name} is not registered")
    if rotation.changing(changed):
        # behind the change, or a look at the domain as it was would end the watch; a crash between leaves it to mail
        await _watch(spool, name)
    return changed


async def _watch(spool: Spool, domain: str) -> None:
    await spool.put_record(_WATCHED, domain, b"", replace=True)


def _selector_name(selector: str, domain: str) -> str:
    name = selector.lower()
    if not is_domain(name) or len(f"{name}._domainkey.{domain}") > DOMAIN_LIMIT:
        raise AccountError(f"{selector[:64]!r} cannot be a selector of {domain}")
    return name


def _named(domain: Domain, selector: str) -> Selector | None:
    return next((each for each in domain.selectors if each.name == selector), None)


def _active(domain: Domain, algorithm: Algorithm) -> list[Selector]:
    return [each for each in domain.selectors if each.state is State.ACTIVE and each.algorithm == algorithm]


def _under_way(domain: Domain, algorithm: Algorithm) -> Selector | None:
    """Find the key that is to replace others of its algorithm."""
    pending = [each for each in domain.selectors if each.state is State.PENDING and each.algorithm == algorithm]
    return next((each for each in pending if each.replaces), None)


def _name_of_the_day(domain: Domain, algorithm: Algorithm, now: float) -> str:
    day = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%d")
    name = f"{_SHORT[algorithm]}{day}"
    names = {each.name for each in domain.selectors}
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in names else next(each for each in numbered if each not in names)


async def _new_key(domain: str, selector: str, algorithm: Algorithm, public: X25519PublicKey, now: float) -> Selector:
    # off the event loop, for whoever calls from one: an RSA key takes 50 ms to find
    private, dns_value = await asyncio.to_thread(generate, algorithm)
    return Selector(
        name=selector,
        algorithm=algorithm,
        created_at=now,
        dns_value=dns_value,
        sealed=seal(private, public, domain, selector),
    )


def generate(algorithm: Algorithm) -> tuple[bytes, str]:
    """Make a key pair: the private key as PKCS #8 and the value of its DNS record."""
    key: PrivateKey
    if algorithm is Algorithm.RSA2048:
        key = generate_private_key(public_exponent=65537, key_size=2048)
        kind, public = "rsa", key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        key = Ed25519PrivateKey.generate()
        # RFC 8463 4.2: the bare 32 octets, where RSA has a SubjectPublicKeyInfo
        kind, public = "ed25519", key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return private, f"v=DKIM1; k={kind}; p={b64encode(public).decode('ascii')}"


def seal(private: bytes, public: X25519PublicKey, domain: str, selector: str) -> bytes:
    """Seal a private key for its place; whoever has the private half of `public` can open it."""
    ephemeral = X25519PrivateKey.generate()
    mark = ephemeral.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    place = _place(domain, selector)
    cipher = _cipher(ephemeral.exchange(public), mark, public, place)
    return _VERSION + mark + cipher.encrypt(_NONCE, private, place)


def unseal(sealed: bytes, private: X25519PrivateKey, domain: str, selector: str) -> PrivateKey:
    """Open a sealed key; SealBroken if it was changed, moved or sealed to another key."""
    mark, text = sealed[1 : 1 + _PUBLIC_BYTES], sealed[1 + _PUBLIC_BYTES :]
    place = _place(domain, selector)
    try:
        if sealed[:1] != _VERSION:
            raise ValueError("unknown version")
        shared = private.exchange(X25519PublicKey.from_public_bytes(mark))
        plain = _cipher(shared, mark, private.public_key(), place).decrypt(_NONCE, text, place)
        # what we sealed ourselves needs no proof of its primes, which takes 36 ms a key
        key = load_der_private_key(plain, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, InvalidTag):
        raise SealBroken(f"DKIM key {selector} of {domain} cannot be opened with this key file") from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise SealBroken(f"DKIM key {selector} of {domain} is of an unknown kind")
    return key


def _cipher(shared: bytes, mark: bytes, public: X25519PublicKey, place: bytes) -> AESGCM:
    salt = mark + public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"fairlead\0dkim\0" + place).derive(shared))


def _place(domain: str, selector: str) -> bytes:
    return f"{domain}\0{selector}".encode()


def load_or_create_sealing_key(private_path: Path, public_path: Path) -> X25519PrivateKey:
    """Read the key pair that seals DKIM keys, making it first if neither half exists.

    The public half is written (again) from the private one where it is missing or differs. KeyFileError
    when the private half is missing beside a public one (a new pair could not open what is sealed), can
    be read by others, or is no X25519 key.
    """
    try:
        if not private_path.exists():
            if public_path.exists():
                raise KeyFileError(f"{private_path}: missing, but {public_path} is there: restore the private half")
            pem = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(private_path, pem, 0o600, replace=False)
        private = load_private_key(private_path)
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        existing = public_path.read_bytes() if public_path.exists() else None
        if existing != public:
            if existing is not None:
                log.warning("file=%s does not belong to %s: replaced", public_path, private_path)
            _write(public_path, public, 0o644, replace=True)
    except OSError as error:
        raise KeyFileError(f"{error.filename}: {error.strerror}") from None
    return private


def load_public_key(public_path: Path) -> X25519PublicKey:
    """Read the public half, which is all that making keys needs; KeyFileError if it is missing or none."""
    try:
        key = load_pem_public_key(public_path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"{public_path}: {error.strerror}") from None
    except ValueError:
        key = None
    if not isinstance(key, X25519PublicKey):
        raise KeyFileError(f"{public_path}: not an X25519 public key")
    return key


def load_private_key(path: Path) -> X25519PrivateKey:
    """Read the private half; KeyFileError if others can read it or it is no X25519 key, OSError if we cannot."""
    pem = read_secret(path)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        key = None
    if not isinstance(key, X25519PrivateKey):
        raise KeyFileError(f"{path}: not an X25519 private key")
    return key


def _write(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    """Put a file on disk whole or not at all; without `replace` one that another process made stays."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), mode)  # whatever the umask
        os.fsync(file.fileno())
    if replace:
        staged.replace(path)
    else:
        try:
            path.hardlink_to(staged)
        except FileExistsError:
            pass
        finally:
            staged.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
