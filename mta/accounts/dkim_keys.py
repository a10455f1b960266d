"""DKIM keys: made by anybody who may manage a domain, opened by the delivery role alone.

A private key is sealed the moment it is made, to the public half of a key pair whose private half only
delivery can read: ephemeral X25519, HKDF-SHA256, AES-256-GCM, all bound to the domain and the selector, so
that a sealed key cannot be moved to another name. RFC 6376 (RSA), RFC 8463 (Ed25519).

Creating keys for one domain from two processes at the same instant keeps one of them: the domain is one record.
"""

import asyncio
import logging
import os
from base64 import b64encode
from enum import StrEnum
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

from mta.accounts import domains
from mta.accounts.domains import Selector
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


class DnsRecord(msgspec.Struct, frozen=True):
    """What the domain's owner must publish."""

    name: str
    type: str
    value: str


async def create(
    spool: Spool, domain: str, selector: str, algorithm: Algorithm, public: X25519PublicKey, now: float
) -> DnsRecord:
    """Make a key for a registered domain and return its DNS record.

    A selector that exists stays as it is and its record is returned. AccountError if the domain is not
    registered or the selector cannot be a DNS name.
    """
    name, selector = domains.normalise(domain), selector.lower()
    if not is_domain(selector) or len(f"{selector}._domainkey.{name}") > DOMAIN_LIMIT:
        raise AccountError(f"{selector[:64]!r} cannot be a selector of {name}")
    existing = await domains.find(spool, name)
    if existing is None:
        raise AccountError(f"domain {name} is not registered")
    for known in existing.selectors:
        if known.name == selector:
            return dns_record(name, known)
    # off the event loop, for whoever calls from one: an RSA key takes 50 ms to find
    private, dns_value = await asyncio.to_thread(generate, algorithm)
    made = Selector(
        name=selector,
        algorithm=algorithm,
        created_at=now,
        dns_value=dns_value,
        sealed=seal(private, public, name, selector),
    )
    changed = msgspec.structs.replace(existing, selectors=(*existing.selectors, made))
    await spool.put_record(domains.KIND, name, domains.encode(changed), replace=True)
    return dns_record(name, made)


def dns_record(domain: str, selector: Selector) -> DnsRecord:
    """Return the TXT record of a selector (RFC 6376 3.6.2.1)."""
    return DnsRecord(name=f"{selector.name}._domainkey.{domain}", type="TXT", value=selector.dns_value)


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
