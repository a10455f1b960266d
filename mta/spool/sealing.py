"""Sealing at rest: AES-256-GCM under keys derived from the spool key, one for each purpose and day.

The key file holds one key a line (base64 of 32 octets); the first seals, all open. A sealed record is
version, key mark, day, nonce, ciphertext and tag; its associated data binds it to its place, so that
records cannot be swapped. Nonces are random: 2^32 records a purpose and day is far beyond one machine.
Content is sealed under a random key of its own, which lives in the message's sealed record: dropping
the record shreds the content. There the page number is the nonce.
"""

import hashlib
import os
import stat
import threading
from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mta.spool.disk import sync_to_disk
from mta.spool.interface import SpoolError

KEY_BYTES = 32
TAG_BYTES = 16
_VERSION = b"\x01"
_MARK_BYTES = 4
_NONCE_BYTES = 12
_HEADER_BYTES = len(_VERSION) + _MARK_BYTES + 2 + _NONCE_BYTES
SEAL_OVERHEAD = _HEADER_BYTES + TAG_BYTES
_DAY = 86_400
_POOL_OCTETS = 4096


class SealBroken(SpoolError):
    """Sealed data was changed, moved, or sealed under a key that is not in the key file."""


class KeyFileError(Exception):
    """The key file cannot be used; the message says which and why."""


class Keyring:
    """The spool's keys. Derives, caches and applies a subkey for each purpose and day."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {hashlib.sha256(key).digest()[:_MARK_BYTES]: key for key in keys}
        self._sealing_mark = next(iter(self._keys))
        self._cipher = lru_cache(maxsize=512)(self._derive)
        self._sealing = lru_cache(maxsize=64)(self._seals_with)

    def keys(self) -> list[bytes]:
        """Give the keys themselves, the sealing one first, for another process of ours."""
        return list(self._keys.values())

    def seal(self, purpose: str, at: float, plain: bytes, aad: bytes) -> bytes:
        """Seal `plain` for its place `aad` under the subkey of the purpose and the day of `at`."""
        day = (int(at) // _DAY) & 0xFFFF
        cipher, head = self._sealing(purpose, day)
        nonce = _random(_NONCE_BYTES)
        return b"".join((head, nonce, cipher.encrypt(nonce, plain, aad)))

    def open(self, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """Open what `seal` made; SealBroken otherwise."""
        if len(sealed) < SEAL_OVERHEAD or sealed[:1] != _VERSION:
            raise SealBroken(f"{purpose}: not a sealed record")
        mark = bytes(sealed[1:5])
        if mark not in self._keys:
            raise SealBroken(f"{purpose}: sealed under a key that is not in the key file")
        cipher = self._cipher(mark, purpose, int.from_bytes(sealed[5:7], "big"))
        try:
            return cipher.decrypt(sealed[7:_HEADER_BYTES], sealed[_HEADER_BYTES:], aad)
        except InvalidTag:
            raise SealBroken(f"{purpose}: the record was changed or moved") from None

    def seals(self, sealed: bytes) -> bool:
        """Tell whether `sealed` was made under the key that seals now."""
        return sealed[1:5] == self._sealing_mark

    def _seals_with(self, purpose: str, day: int) -> tuple[AESGCM, bytes]:
        """Return the cipher that seals, and what stands before the nonce."""
        mark = self._sealing_mark
        return self._cipher(mark, purpose, day), _VERSION + mark + day.to_bytes(2, "big")

    def _derive(self, mark: bytes, purpose: str, day: int) -> AESGCM:
        info = b"fairlead\x00" + purpose.encode() + b"\x00" + day.to_bytes(2, "big")
        return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._keys[mark]))


class _Pool(threading.local):
    """Random octets fetched ahead, for each thread its own: no two ever take the same.

    PERF: os.urandom gives the GIL away each time, three times a message (cProfile: 17 µs).
    """

    def __init__(self) -> None:
        self.octets = b""
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.octets):
            self.octets, self.at = os.urandom(_POOL_OCTETS), 0
        taken = self.octets[self.at : self.at + count]
        self.at += count
        return taken

    def forget(self) -> None:
        """After a fork, so that the child does not repeat its parent."""
        self.octets = b""


_pool = _Pool()
_random = _pool.take
os.register_at_fork(after_in_child=_pool.forget)


def new_content_key() -> bytes:
    """Make the key of one stretch of content."""
    return _random(KEY_BYTES)


def seal_page(cipher: AESGCM, number: int, plain: bytes, content_id: bytes) -> bytes:
    """Seal page `number` of content; the key seals nothing else, so the number can be the nonce."""
    return cipher.encrypt(number.to_bytes(_NONCE_BYTES, "big"), plain, content_id)


def open_page(cipher: AESGCM, number: int, sealed: bytes, content_id: bytes) -> bytes:
    """Open what `seal_page` made; SealBroken otherwise."""
    try:
        return cipher.decrypt(number.to_bytes(_NONCE_BYTES, "big"), sealed, content_id)
    except InvalidTag:
        raise SealBroken("content: a page was changed or moved") from None


def read_secret(path: Path) -> bytes:
    """Read a file with a key in it; KeyFileError when others can read or change it, OSError when we cannot."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        # an administrator's or systemd's file may let us read by its group (credentials are root's, 0440)
        refused = stat.S_IRWXG | stat.S_IRWXO if status.st_uid == os.geteuid() else stat.S_IWGRP | stat.S_IRWXO
        if status.st_mode & refused:
            raise KeyFileError(f"{path}: others can read it: chmod 600")
        return file.read()


def load_keyring(path: Path) -> Keyring:
    """Read a key file; KeyFileError when it is missing, unreadable by us, readable by others, or not keys."""
    try:
        lines = read_secret(path).decode("ascii").split()
        keys = [b64decode(line, validate=True) for line in lines]
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise KeyFileError(f"{path}: not base64 keys") from None
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise KeyFileError(f"{path}: each line must be the base64 of {KEY_BYTES} octets")
    return Keyring(keys)


def load_or_create_keyring(path: Path) -> Keyring:
    """Read the key file, making one first (mode 0600, on disk before it is used) if there is none."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, b64encode(os.urandom(KEY_BYTES)) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(staged, path)  # unlike rename, keeps the key that another process made just before
        except FileExistsError:
            pass
        finally:
            staged.unlink()
        sync_to_disk(path.parent)
    return load_keyring(path)
