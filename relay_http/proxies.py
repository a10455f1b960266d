"""Who the client of a request is when proxies stand between: what those say that we trust (RFC 7239, X-Forwarded-For).

A proxy adds at the end of the list whom it has the request from. So the client is the last of the list who is no proxy
of ours; whatever stands before it anybody can have written.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from mta.accounts.networks import network_of, within
from mta.config import UNIX, type_proxy
from relay_http.body import Request

_SCHEMES = ("http", "https")
_HOPS = 32  # that are looked at
_CHARS = 2048  # of these
_PAIR = re.compile(r'\s*([^\s",;=]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",;\\]+))\s*(?:;|$)')
_ELEMENT = re.compile(rf"(?:\s*;)*(?:{_PAIR.pattern}(?:\s*;)*)+")  # between two ; there may be nothing
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


class Proxies:
    """Those that are trusted: networks, and whoever comes by a unix socket if that is said."""

    def __init__(self, trusted: Sequence[type_proxy]) -> None:
        self._networks = tuple([network_of(str(each)) for each in trusted if each != UNIX])
        self._unix = UNIX in trusted
        self._read = lru_cache(maxsize=1024)(self._last_stranger)

    def many(self, peer: str) -> bool:
        """Tell whether a peer may have the connections of many clients: a proxy of ours, or any on this machine."""
        try:
            local = ipaddress.ip_address(peer).is_loopback
        except ValueError:  # a unix socket's
            local = True
        return local or within(peer, self._networks)

    def client(self, req: Request) -> str:
        """Return the address of a request's client, "" if nobody can tell."""
        peer = req.peer
        if not self._trusts(peer):
            return peer
        several, one = req.get_header("X-Forwarded-For"), req.get_header("Forwarded")
        if several is None and one is None:
            return peer  # the proxy itself
        found = set[str]()
        if several is not None:
            found.add(self._read(several[-_CHARS:], False))  # noqa: FBT003 - as a key of the cache
        if one is not None:  # cut anywhere, what is quoted in it could be taken for its end
            found.add(self._read(one, True) if len(one) <= _CHARS else "")  # noqa: FBT003
        # Of two that differ one is the client's own, which its proxy has let through.
        return found.pop() if len(found) == 1 else ""

    def prefix(self, req: Request) -> str:
        """Return the scheme and host that the client asked, as far as a proxy of ours tells (X-Forwarded-Proto)."""
        told = (req.get_header("X-Forwarded-Proto") or "").lower() if self._trusts(req.peer) else ""
        return f"{told if told in _SCHEMES else req.scheme}://{req.netloc}"

    def _trusts(self, peer: str) -> bool:
        return within(peer, self._networks) if peer else self._unix

    def _last_stranger(self, text: str, named: bool) -> str:  # noqa: FBT001 - a part of the key of a cache
        address = ""
        hops = reversed(text.rsplit(",", _HOPS)[-_HOPS:])
        for address in map(_forwarded, _elements(hops)) if named else map(_address, map(str.strip, hops)):
            if not within(address, self._networks):
                break
        return address


def _elements(pieces: Iterator[str]) -> Iterator[str]:
    """Put together what stands between two commas, from the end: a comma in quotes parts nothing."""
    element: list[str] = []
    for piece in pieces:
        element.insert(0, piece)
        if _ELEMENT.fullmatch(text := ",".join(element)):
            yield text
            element.clear()
    if element:
        yield ""


def _forwarded(element: str) -> str:
    found = [quoted or plain for name, quoted, plain in _PAIR.findall(element) if name.lower() == "for"]
    return _address(found[0]) if len(found) == 1 else ""


def _address(text: str) -> str:
    """Return an address without port and brackets; "" for `unknown`, names that hide one, and anything else."""
    found = _WITH_PORT.fullmatch(text)
    bare = (found[1] or found[2]) if found else text
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return "" if ip.scope_id else str(ip.ipv4_mapped or ip)
