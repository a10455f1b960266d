"""Request bodies: read whole, bounded in size, inflated, decoded; and the octets a process may hold at once."""

import asyncio
import zlib
from typing import Any, Self, cast

import falcon.asgi
import msgspec

from relay_http.problem import Problem, Refusal, Why, busy

BODY_LIMIT = 30_000_000  # octets: a whole message with its attachments, as sent and inflated
_DISCARD_LIMIT = 2 * BODY_LIMIT
_OBJECT_SIZE = 64  # octets of an empty Python object, and of the reference to it


class Request(falcon.asgi.Request):
    """A request that reads its own body: Falcon's stream hides whether the client hung up before the end.

    PERF: it costs less, too: what has come whole, as most bodies do, waits for nothing.
    """

    def __init__(self, scope: dict[str, Any], receive: Any, first_event: Any = None, options: Any = None) -> None:
        """Take what Falcon gives; `first_event` has the beginning of the body."""
        super().__init__(scope, receive, first_event, options)
        self.peer: str = next(iter(scope.get("client") or ()), "")  # "" on a unix socket
        self.client = self.peer  # or for whom a proxy of ours asks, once that is known
        self.hung_up = False
        self._next = first_event
        self._ended = False

    def put_back(self, octets: bytes) -> None:
        """Have a body that was read whole read once more."""
        self._next = {"type": "http.request", "body": octets}
        self._ended = False

    async def read_on(self) -> bytes:
        """Read the next octets of the body; nothing at its end, or when the client has hung up."""
        while not self._ended:
            event = self._next or await self._receive()
            self._next = None
            self.hung_up = event["type"] == "http.disconnect"
            self._ended = self.hung_up or not event.get("more_body")
            if octets := event.get("body"):
                return cast("bytes", octets)
        return b""


class Held:
    """What one request holds of the process's budget, until the end of its `with`."""

    def __init__(self, budget: "Budget") -> None:
        self._budget = budget
        self.octets = 0

    def add(self, octets: int) -> None:
        """Hold more; Refusal 503 if the process holds too much already, 413 if this request alone would."""
        if self.octets + octets > self._budget.limit:
            raise _too_large()
        if self._budget.held + octets > self._budget.limit:
            raise busy("too many requests are being read; try again", 1)
        self._budget.held += octets
        self.octets += octets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.held -= self.octets


class Budget:
    """How many octets of requests this process may hold in memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def hold(self) -> Held:
        """Hold octets, none yet, until the block ends that this begins."""
        return Held(self)


async def read(req: Request, held: Held, limit: int = BODY_LIMIT) -> bytes:
    """Read the whole body as it was sent; Refusal 413 when it is over the limit."""
    declared = req.content_length
    if declared is not None and declared > limit:
        raise _too_large()
    chunks: list[bytes] = []
    total = 0
    while chunk := await req.read_on():
        total += len(chunk)
        if total > limit:
            raise _too_large()
        held.add(len(chunk))
        chunks.append(chunk)
    if req.hung_up:
        raise Refusal(400, Problem("the body was cut off"))
    return b"".join(chunks)


async def discard(req: Request) -> bool:
    """Read and forget the rest of a refused request's body; False if it goes on for too long.

    A client that sends everything before it listens would else be reset and never hear why.
    """
    left = _DISCARD_LIMIT
    while left > 0:
        chunk = await req.read_on()
        if not chunk:
            return True
        left -= len(chunk)
    return False


async def decompressed(req: Request, data: bytes, held: Held, limit: int) -> bytes:
    """Undo the coding of a body that was read whole, off the event loop; Refusal 400, 413."""
    if encoding_of(req) != "gzip":
        return data
    size = inflated_size(data, limit)
    held.add(size)
    return await asyncio.to_thread(inflate, data, size, limit)


def encoding_of(req: Request) -> str:
    """Return the content coding of the body, "" for none; in any case (RFC 9110 8.4.1)."""
    return (req.get_header("Content-Encoding") or "").strip().lower()


def inflate(data: bytes, held_to: int, limit: int = BODY_LIMIT) -> bytes:
    """Undo gzip (RFC 1952), one member of at most `held_to` octets; Refusal when it is not that."""
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(data, held_to + 1)
    except zlib.error:
        plain = b""
    if len(plain) > limit:
        raise _too_large()
    if not stream.eof or stream.unused_data or len(plain) > held_to:
        raise Refusal(400, Problem("the body is not one whole gzip member"))
    return plain


def inflated_size(data: bytes, limit: int = BODY_LIMIT) -> int:
    """Return the size that a gzip member says it has inflated (RFC 1952 2.3.1 ISIZE), at most the limit."""
    return min(int.from_bytes(data[-4:], "little"), limit)


def decoded_size(data: bytes) -> int:
    """Bound the octets that JSON becomes beside its strings: `[],` over and over would be twenty times itself."""
    return _OBJECT_SIZE * (data.count(b",") + data.count(b"[") + data.count(b"{"))


def decode(data: bytes) -> object:
    """Read JSON into plain objects; Refusal when it is none.

    Nesting is bounded by the decoder, and so are numbers.
    """
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        pass
    try:
        data.decode()
    except UnicodeDecodeError:
        raise Refusal(415, Problem("Invalid UTF8 in request"), why=Why.MEDIA_TYPE) from None
    raise Refusal(400, Problem("Bad Request"))


def _too_large() -> Refusal:
    return Refusal(413, Problem("content too large"), why=Why.TOO_LARGE)
