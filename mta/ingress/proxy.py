"""The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): who connected to the proxy before us.

It is read from the socket octet by octet exactly, before there is a transport: what follows may be a TLS
handshake, which nobody else may have begun to read.
"""

import asyncio
import socket

from mta.ingress.access import HIDDEN_CLIENT, Client, client_at

_V1_LIMIT = 107  # octets with CRLF
_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_LIMIT = 4096  # octets after the first 16; addresses take 36 of them, the rest is extensions
_FAMILIES = {0x1: (4, socket.AF_INET), 0x2: (16, socket.AF_INET6)}


class ProxyError(ValueError):
    """What came is no PROXY header."""


async def read_proxied(connection: socket.socket, proxy: Client) -> Client:
    """Read the header from a non-blocking socket and return the client it names; ProxyError, OSError.

    That is the proxy itself if it speaks for itself (LOCAL), and a client without an address, which is
    trusted nowhere, if the proxy does not tell.
    """
    start = await _exactly(connection, len(_V2_SIGNATURE))  # version 1 is never shorter
    if start == _V2_SIGNATURE:
        head = await _exactly(connection, 4)
        length = int.from_bytes(head[2:], "big")
        if length > _V2_LIMIT:
            raise ProxyError("header is too long")
        return parse_v2(head, await _exactly(connection, length), proxy)
    while not start.endswith(b"\r\n"):
        if len(start) >= _V1_LIMIT or not start.startswith(b"PROXY "):
            raise ProxyError("no PROXY header")
        start += await _exactly(connection, 1)
    return parse_v1(start)


def parse_v1(line: bytes) -> Client:
    """Read a version 1 header with its CRLF; ProxyError."""
    match line[:-2].split(b" "):
        case [b"PROXY", b"UNKNOWN", *_]:
            return HIDDEN_CLIENT
        case [b"PROXY", b"TCP4" | b"TCP6", source, _, _, _]:
            try:
                return client_at(source.decode("ascii"))
            except ValueError:
                raise ProxyError("bad source address") from None
    raise ProxyError("malformed PROXY header")


def parse_v2(head: bytes, block: bytes, proxy: Client) -> Client:
    """Read a version 2 header from the octets after the signature; ProxyError."""
    command = head[0]
    if command == 0x20:
        return proxy
    if command != 0x21:
        raise ProxyError("unknown version or command")
    known = _FAMILIES.get(head[1] >> 4)
    if known is None:
        return HIDDEN_CLIENT
    length, family = known
    if len(block) < 2 * length + 4:
        raise ProxyError("addresses are cut off")
    return client_at(socket.inet_ntop(family, block[:length]))


async def _exactly(connection: socket.socket, length: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < length:
        more = await loop.sock_recv(connection, length - len(data))
        if not more:
            raise ProxyError("closed within the header")
        data += more
    return data
