"""The process that has the DKIM keys: digests go in, signatures come out, as with an ssh-agent.

The role's side is Signatory, the other `main`. The process that talks with the world never has an open key,
and half a millisecond of RSA holds up neither its loop nor its GIL. Back come signatures, or why there are none,
in the order they were asked for.

PERF: instead of threads in the role, which took the GIL from its loop after each signature, it is a fifth less CPU
for a relayed and signed message, and a fifth more of them (medians of 7 paired runs).
"""

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from mta.accounts import dkim_keys
from mta.accounts.dkim_keys import Algorithm, PrivateKey
from mta.companion import Companion, Household, attending
from mta.spool.sealing import KeyFileError, SealBroken
from mta.supervise import freeze_memory

log = logging.getLogger(__name__)

_KEYS_KEPT = 4096  # open, in the memory of the process
_PATIENCE = 60.0  # seconds for an answer; a signature takes half a millisecond


class SigningError(Exception):
    """There are keys, and no signatures for some reason: the attempt is deferred (scope us), not sent unsigned."""


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """A signature to be made: with whose sealed key, over which SHA-256 digest."""

    domain: str
    selector: str
    algorithm: str
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
        self._closed = False
        self._gathered: list[tuple[_Request, asyncio.Future[_Answer]]] = []
        self._due = False  # to look whether to hand over, when this turn of the loop is over
        self._asked: deque[asyncio.Future[_Answer]] = deque()  # in the order of the answers to come
        self._silent_since = 0.0  # when the process was heard last, or had nothing to do
        # PERF: one timer for all who wait; one for each was 5 µs a message.
        self._watch: asyncio.TimerHandle | None = None
        self.trouble = ""  # why the process is not there, as far as is known

    async def sign(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """Make the signatures of one message; SigningError if one of them cannot be made."""
        process = self._started()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        if not self._due:
            self._due = True
            loop.call_soon(self._hand_over, loop, process)
        self._gathered.append((wanted, future))
        answer = await future
        if answer.trouble:
            raise SigningError(answer.trouble)
        return answer.signatures

    async def close(self) -> None:
        """End the process; what it was asked for comes to nothing."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        if self._process is not None:
            await self._process.close()
            self._fail("the role is closing")

    def _started(self) -> Companion:
        if self._closed:
            raise SigningError("the role is closing")
        if self._process is None:
            hello = os.fsencode(self._key_file)
            try:
                self._process = Companion(__name__, "signing", self._household, hello, self._heard, self._fail)
            except OSError as error:
                raise SigningError(f"the process that signs cannot be started: {error}") from None
        return self._process

    def _hand_over(self, loop: asyncio.AbstractEventLoop, process: Companion) -> None:
        """Send what has gathered, once it is as much as is under way already.

        PERF: waking the process for each turn of the loop was a sixth of what the loop did for a signed message.
        """
        self._due = False
        if not self._gathered or len(self._asked) > len(self._gathered):  # failed since, or there is enough to do
            return
        gathered, self._gathered = self._gathered, []
        try:
            frame = _encode([request for request, _ in gathered])
        except Exception as error:  # noqa: BLE001 - nobody may wait for ever for what cannot be said
            _fail([future for _, future in gathered], f"{type(error).__name__}: {error}")
            return
        if not self._asked:
            self._silent_since = loop.time()
        self._asked += [future for _, future in gathered]
        process.say(frame)
        if self._watch is None:
            self._watch = loop.call_later(_PATIENCE, self._look, loop, process)

    def _look(self, loop: asyncio.AbstractEventLoop, process: Companion) -> None:
        """End the process if it has not answered for too long; look again while somebody waits for it."""
        self._watch = None
        if not self._asked:
            return
        now = loop.time()
        if now >= self._silent_since + _PATIENCE:
            self._silent_since = now
            process.kill()
            reason = f"no signature in {_PATIENCE:.0f} s"
            _fail(self._asked, reason)  # they stay: it may have said something before it died
            _fail([future for _, future in self._gathered], reason)
            self._gathered = []
        self._watch = loop.call_at(self._silent_since + _PATIENCE, self._look, loop, process)

    def _heard(self, frame: bytes) -> None:
        self.trouble = ""
        loop = asyncio.get_running_loop()
        self._silent_since = loop.time()
        for answer in _decode_answers(frame):
            future = self._asked.popleft()
            if not future.done():
                future.set_result(answer)
        if self._process is not None:
            self._hand_over(loop, self._process)

    def _fail(self, reason: str) -> None:
        self.trouble = reason
        _fail(self._asked, reason)
        self._asked.clear()
        _fail([future for _, future in self._gathered], reason)
        self._gathered = []


def _fail(futures: Iterable["asyncio.Future[_Answer]"], reason: str) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(SigningError(reason))


# The process's own side


class Keys:
    """Opens sealed keys, each once, and signs with them."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self._open = lru_cache(_KEYS_KEPT)(self._opened)

    def sign(self, wanted: Wanted) -> bytes:
        """Make a signature; SigningError if the key cannot be opened, or is for another algorithm."""
        key = self._open(wanted.domain, wanted.selector, wanted.sealed)
        if isinstance(key, str):
            raise SigningError(key)
        if isinstance(key, RSAPrivateKey) is not (wanted.algorithm == Algorithm.RSA2048):
            raise SigningError(f"DKIM key {wanted.selector} of {wanted.domain} is not for {wanted.algorithm}")
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
    except Exception as error:  # whatever is wrong with one message concerns it alone
        log.exception("cannot sign")
        return _Answer([], f"{type(error).__name__}: {error}")


def main(descriptor: int) -> None:
    """Sign for the role at the other end of an inherited socket until it hangs up."""
    with attending(descriptor) as line:
        key_file = line.hear()
        if key_file is None:
            return
        try:
            keys = Keys(dkim_keys.load_private_key(Path(os.fsdecode(key_file))))
        except (KeyFileError, OSError) as error:
            log.critical("cannot sign: %s", error)
            sys.exit(1)
        freeze_memory()
        while (frame := line.hear()) is not None:
            line.say(_encode([_answered(keys, request) for request in _decode_requests(frame)]))
