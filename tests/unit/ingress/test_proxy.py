"""PROXY headers, versions 1 and 2: who is meant, what is no header, and that not an octet too many is read."""

import asyncio
import socket

import pytest

from mta.ingress.access import HIDDEN_CLIENT, Client, client_at
from mta.ingress.proxy import ProxyError, read_proxied

PROXY = client_at("127.0.0.1")
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([192, 0, 2, 7, 127, 0, 0, 1]) + b"\x30\x39\x00\x19"
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + b"\x30\x39\x00\x19"


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(block).to_bytes(2, "big") + block


async def read(data: bytes) -> tuple[Client, bytes]:
    """What the header says, and what is left behind it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(5):
            client = await read_proxied(ours, PROXY)
            return client, await asyncio.get_running_loop().sock_recv(ours, 1000)


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 25\r\n", client_at("192.0.2.7")),
        (b"PROXY TCP6 2001:db8::7 ::1 12345 25\r\n", client_at("2001:db8::7")),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 12345 25\r\n", client_at("192.0.2.7")),
        (b"PROXY UNKNOWN\r\n", HIDDEN_CLIENT),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", HIDDEN_CLIENT),
        (v2(0x21, 0x11, V4), client_at("192.0.2.7")),
        (v2(0x21, 0x11, V4 + b"\x04\x00\x01x"), client_at("192.0.2.7")),
        (v2(0x21, 0x21, V6), client_at("2001:db8::7")),
        (v2(0x21, 0x31, b"\0" * 216), HIDDEN_CLIENT),
        (v2(0x21, 0x00, b""), HIDDEN_CLIENT),
        (v2(0x20, 0x00, b""), PROXY),
    ],
)
async def test_the_client_is_who_the_proxy_says(header: bytes, client: Client):
    for behind in (b"\x16\x03\x01", b"EHLO x\r\n"):
        assert await read(header + behind) == (client, behind)


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO client.test\r\nQUIT\r\n",
        b"",
        b"PROXY TCP4 192",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 12345\r\n",
        b"PROXY TCP4 mail.test 127.0.0.1 12345 25\r\n",
        b"PROXY TCP4 192.0.2.7  127.0.0.1 12345 25\r\n",
        b"PROXY UDP4 192.0.2.7 127.0.0.1 12345 25\r\n",
        b"PROXY " + b"x" * 200 + b"\r\n",
        b"PROXY \xff\xff\xff\xff \r\n",
        v2(0x22, 0x11, V4),
        v2(0x11, 0x11, V4),
        v2(0x21, 0x11, V4[:-1]),
        v2(0x21, 0x21, V4),
        v2(0x21, 0x11, b"x" * 5000),
        SIGNATURE + b"\x21",
    ],
)
async def test_what_is_no_header_is_refused(header: bytes):
    with pytest.raises(ProxyError):
        await read(header)
