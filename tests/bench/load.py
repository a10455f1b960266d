"""The process that makes the load: carries out orders from standard input, one at a time, and reports on each.

What it sends is made beforehand, so that it costs little more than its system calls.
"""

import random
import re
import string
import sys
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from tests.bench import dialogs
from tests.bench.orders import Failure, Mail, Order, Posts, Report

DOMAIN = "bench.test"  # of all senders
_VARIETIES = 10  # of bodies and senders
_LINE = 76
_LIMIT = 120.0  # seconds for one order
_DATE = "Thu, 26 Nov 2026 04:00:00 +0000"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Count:
    """How many were accepted, and when the last one was."""

    def __init__(self) -> None:
        self.accepted = 0
        self.ended = 0.0

    def up(self) -> None:
        self.accepted += 1
        self.ended = time.monotonic()


def main() -> None:
    """Work until standard input ends."""
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        try:
            report: Report | Failure = _mail(order) if isinstance(order, Mail) else _posts(order)
        except (dialogs.Broken, TimeoutError) as error:
            report = Failure(f"load on {order.address[0]}:{order.address[1]}: {error}")
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()


def _mail(order: Mail) -> Report:
    count = _Count()
    _bodies(order.octets)
    began, cpu = time.monotonic(), time.process_time()
    numbers = _numbers(order.messages, began + order.seconds)
    if order.kept:
        sessions = (_session(order, numbers, count) for _ in range(order.sessions))
    else:
        sessions = (_session(order, (number,), count) for number in numbers)
    dialogs.hold(order.address, _smtp_reply_is_whole, sessions, order.sessions, _LIMIT)
    return Report(accepted=count.accepted, began=began, ended=count.ended, cpu=time.process_time() - cpu)


def _numbers(messages: int, until: float) -> Iterator[int]:
    for number in range(messages):
        if time.monotonic() > until:
            return
        yield number


def _session(order: Mail, numbers: Iterable[int], count: _Count) -> dialogs.Dialog:
    """Talk as most clients do: no pipelining, QUIT at the end."""
    bodies = _bodies(order.octets)
    _expect(b"2", (yield b""))
    _expect(b"2", (yield b"EHLO load.test\r\n"))
    for number in numbers:
        kind = number % _VARIETIES
        sender, recipient = f"app{kind}@{DOMAIN}", f"to@{destination(number, order.destinations)}"
        _expect(b"2", (yield f"MAIL FROM:<{sender}>\r\n".encode()))
        _expect(b"2", (yield f"RCPT TO:<{recipient}>\r\n".encode()))
        _expect(b"3", (yield b"DATA\r\n"))
        subject = f"bench.{order.run}.{number}"
        header = (
            f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nDate: {_DATE}\r\n"
            f"Message-ID: <{subject}@load.test>\r\n\r\n"
        )
        _expect(b"2", (yield header.encode() + bodies[kind] + b".\r\n"))
        count.up()
    yield b"QUIT\r\n"


def destination(number: int, destinations: int) -> str:
    """Name the recipient domain of message `number`."""
    return f"d{number % destinations}.away.test"


def _expect(first: bytes, reply: bytes) -> None:
    if not reply.startswith(first):
        raise dialogs.Broken(reply.decode(errors="replace").strip())


def _smtp_reply_is_whole(heard: bytes) -> bool:
    last = heard.rfind(b"\n", 0, -1) + 1
    return heard.endswith(b"\n") and heard[last + 3 : last + 4] == b" "


@lru_cache(maxsize=4)
def _bodies(octets: int) -> list[bytes]:
    """Make distinct bodies of lines of text, the same in every run."""
    letters = string.ascii_letters + string.digits + " "
    source = random.Random(octets)
    bodies = []
    for _ in range(_VARIETIES):
        text = "".join(source.choices(letters, k=octets))
        lines = [text[start : start + _LINE] for start in range(0, octets, _LINE + 2)]
        bodies.append(("\r\n".join(lines)[: octets - 2] + "\r\n").encode())
    return bodies


def _posts(order: Posts) -> Report:
    requests = list(_requests(order))
    count = _Count()
    began, cpu = time.monotonic(), time.process_time()

    def accepted(reply: bytes) -> None:
        if not reply.startswith(b"HTTP/1.1 202"):
            raise dialogs.Broken(reply[:300].decode(errors="replace"))
        count.up()

    def client(posts: Iterator[bytes]) -> dialogs.Dialog:
        for post in posts:
            accepted((yield post))

    latencies, late = list[float](), 0.0
    if order.rate:
        latencies, late = dialogs.ask_at_rate(
            order.address, _http_reply_is_whole, requests, order.rate, order.sessions, _LIMIT, accepted
        )
    else:
        posts = iter(requests)
        clients = (client(posts) for _ in range(order.sessions))
        dialogs.hold(order.address, _http_reply_is_whole, clients, order.sessions, _LIMIT)
    cpu = time.process_time() - cpu
    return Report(accepted=count.accepted, began=began, ended=count.ended, cpu=cpu, latencies=latencies, late=late)


def _requests(order: Posts) -> Iterator[bytes]:
    host, port = order.address
    for number in range(order.messages):
        kind = number % _VARIETIES
        text = _bodies(order.octets)[kind].decode()
        html = [{"type": "text/html", "value": f"<p>{text}</p>"}] if order.html else []
        subject = f"bench.{order.run}.{number}"
        domain = destination(number, 1)
        many = range(order.personalizations)
        body = {
            "personalizations": [{"to": [{"email": f"to{each or ''}@{domain}"}]} for each in many],
            "from": {"email": f"app{kind}@{DOMAIN}"},
            "subject": subject,
            "content": [{"type": "text/plain", "value": text}, *html],
        }
        octets = msgspec.json.encode(body)
        key = f"Idempotency-Key: {subject}\r\n" if order.idempotent else ""
        head = (
            f"POST /v3/mail/send HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {order.key}\r\n{key}"
            f"Content-Type: application/json\r\nContent-Length: {len(octets)}\r\n\r\n"
        )
        yield head.encode() + octets


def _http_reply_is_whole(heard: bytes) -> bool:
    end = heard.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _LENGTH.search(heard, 0, end + 2)
    return length is not None and len(heard) >= end + 4 + int(length[1])


if __name__ == "__main__":
    main()
