"""Where pages begin: a place between two numbers, written so that nobody has to understand it.

Going to older ones, a page has what is numbered below `place`, going to newer ones the rest. So the same cursor leads
both ways, and what is added meanwhile moves nothing.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

from mta.queue.views import WrongCursor

_CHECK = 4  # octets
_LAST = (1 << 63) - 1


def cursor_at(kind: str, place: int) -> str:
    """Write a cursor of `kind`, what the list is of."""
    number = place.to_bytes(8, "big")
    return urlsafe_b64encode(number + _check(kind, number)).decode("ascii")


def place_of(kind: str, cursor: str) -> int:
    """Read a cursor; WrongCursor if it is none of this kind."""
    try:
        octets = urlsafe_b64decode(cursor)
    except ValueError:
        octets = b""
    number, check = octets[:8], octets[8:]
    place = int.from_bytes(number, "big")
    # The check finds mistakes, and anybody can make one: SQLite's integers end before ours.
    if len(number) != 8 or check != _check(kind, number) or cursor_at(kind, place) != cursor or place > _LAST:
        raise WrongCursor("no page was given out with this cursor")
    return place


def _check(kind: str, number: bytes) -> bytes:
    return blake2b(number, key=kind.encode(), digest_size=_CHECK).digest()
