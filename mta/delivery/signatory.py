"""The process that has the DKIM keys: digests go in, signatures come out, as with an ssh-agent.

The role's side is Signatory, the other `main`. The process that talks with the world never has an open key,
and half a millisecond of RSA holds up neither its loop nor its GIL. Back come signatures, or why there are none,
in the order they were asked for.

PERF: with threads in the role instead, which took the GIL from its loop after each signature, a relayed and
signed message cost 1.61 ms of CPU instead of 1.41, and 16 % fewer were relayed (medians of 7 paired runs).
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from mta.accounts import dkim_keys
from mta.accounts.dkim_keys import PrivateKey
from mta.companion import Companion, Household, attending
from mta.spool.sealing import KeyFileError, SealBroken
from mta.supervise import freeze_memory

log = logging.getLogger(__name__)

_KEYS_KEPT = 8192


class SigningError(Exception):
    """There are keys that cannot be read or opened: the attempt is deferred (scope us), not sent unsigned."""


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """A signature to be made: with whose sealed key, over which SHA-256 digest."""

    domain: str
    selector: str
    sealed: bytes
    digest: bytes


_Request = Sequence[Wanted]  # of one message


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """The signatures of one message, or why there are none."""

    signatures: list[bytes]
    trouble: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode_requests = msgspec.msgpack.Decoder(list[list[Wanted]]).decode
_decode_answers = msgspec.msgpack.Decoder(list[_Answer]).decode


class Signatory:
    """The role's side, on the loop that it is used on. The process is started for the first signature."""

    def __init__(self, household: Household, key_file: Path) -> None:
        """`key_file` has the key that opens DKIM keys (mta.accounts.dkim_keys)."""
        self._household = household
        self._key_file = key_file
        self._process: Companion | None = None
        self._gathered: list[_Request] = []
        self._asked: deque[asyncio.Future[_Answer]] = deque()

    async def sign(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """Make the signatures of one message; SigningError if one of them cannot be made."""
        process = self._started()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        if not self._gathered:
            loop.call_soon(self._hand_over, process)
        self._gathered.append(wanted)
        self._asked.append(future)
        answer = await future
        if answer.trouble:
            raise SigningError(answer.trouble)
        return answer.signatures

    async def close(self) -> None:
        """End the process; what it was asked for comes to nothing."""
        if self._process is not None:
            await self._process.close()
            self._fail("the role is closing")

    def _started(self) -> Companion:
        if self._process is None:
            hello = str(self._key_file).encode()
            try:
                self._process = Companion(__name__, "signing", self._household, hello, self._heard, self._fail)
            except OSError as error:
                raise SigningError(f"the process that signs cannot be started: {error}") from None
        if not self._process.there:
            raise SigningError("the process that signs has ended and is started again")
        return self._process

    def _hand_over(self, process: Companion) -> None:
        gathered, self._gathered = self._gathered, []
        process.say(_encode(gathered))

    def _heard(self, frame: bytes) -> None:
        for answer in _decode_answers(frame):
            future = self._asked.popleft()
            if not future.done():
                future.set_result(answer)

    def _fail(self, reason: str) -> None:
        asked, self._asked = self._asked, deque()
        self._gathered = []
        for future in asked:
            if not future.done():
                future.set_exception(SigningError(reason))


# The process's own side


class Keys:
    """Opens sealed keys, each once, and signs with them."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self._open = lru_cache(_KEYS_KEPT)(self._opened)

    def sign(self, wanted: Wanted) -> bytes:
        """Make a signature; SigningError if the key cannot be opened."""
        key = self._open(wanted.domain, wanted.selector, wanted.sealed)
        if isinstance(key, str):
            raise SigningError(key)
        if isinstance(key, RSAPrivateKey):
            return key.sign(wanted.digest, PKCS1v15(), Prehashed(SHA256()))
        return key.sign(wanted.digest)  # RFC 8463 3: the digest, as if it were the message

    def _opened(self, domain: str, selector: str, sealed: bytes) -> PrivateKey | str:
        try:
            return dkim_keys.unseal(sealed, self._private, domain, selector)
        except SealBroken as error:
            log.error("domain=%s cannot sign: %s", domain, error)
            return str(error)


def _answered(keys: Keys, request: _Request) -> _Answer:
    try:
        return _Answer([keys.sign(each) for each in request])
    except SigningError as error:
        return _Answer([], str(error))


def main(descriptor: int) -> None:
    """Sign for the role at the other end of an inherited socket until it hangs up."""
    with attending(descriptor) as line:
        key_file = line.hear()
        if key_file is None:
            return
        try:
            keys = Keys(dkim_keys.load_private_key(Path(key_file.decode())))
        except (KeyFileError, OSError) as error:
            log.critical("cannot sign: %s", error)
            sys.exit(1)
        freeze_memory()
        while (frame := line.hear()) is not None:
            line.say(_encode([_answered(keys, request) for request in _decode_requests(frame)]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
