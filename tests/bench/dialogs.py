"""The engine of the load: many conversations with one server from one thread, on plain sockets and epoll.

A dialog is a generator: it yields what to write and is sent each whole reply. No event loop and no tasks, because
the load must cost a fraction of what it measures.
"""

import itertools
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator

Address = tuple[str, int]
Dialog = Generator[bytes, bytes, None]
Whole = Callable[[bytes], bool]  # tells whether a reply has come to its end

_READ = 64 * 1024  # octets


class Broken(Exception):
    """The server hung up, refused or fell silent, so that there is nothing to measure."""


class _Connection:
    """A socket that is never waited for: what it does not take at once is kept until it does."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)  # in progress; what comes of it is seen when the socket is used
        self.unsent = memoryview(b"")
        self._heard = b""

    def write(self, octets: bytes | memoryview) -> None:
        """Send what can be sent now."""
        try:
            sent = self.socket.send(octets)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Broken(str(error)) from error
        self.unsent = memoryview(octets)[sent:]

    def read(self, whole: Whole) -> bytes | None:
        """Return a reply if it has come to its end."""
        try:
            octets = self.socket.recv(_READ)
        except OSError as error:
            raise Broken(str(error)) from error
        if not octets:
            raise Broken("the server hung up")
        self._heard += octets
        if not whole(self._heard):
            return None
        reply, self._heard = self._heard, b""
        return reply


def hold(address: Address, whole: Whole, dialogs: Iterator[Dialog], at_once: int, limit: float) -> None:
    """Hold dialogs, each over a connection of its own, so many at once; Broken if not done in `limit` seconds.

    A dialog that yields nothing to write waits for the server to speak.
    """
    under_way: dict[int, tuple[_Connection, Dialog]] = {}
    until = time.monotonic() + limit
    with select.epoll() as poll:

        def say(connection: _Connection, octets: bytes | memoryview) -> None:
            waited = bool(connection.unsent)
            connection.write(octets)
            if connection.unsent or waited:
                writable = select.EPOLLOUT if connection.unsent else 0
                poll.modify(connection.socket, select.EPOLLIN | writable)

        def begin(dialog: Dialog) -> None:
            connection = _Connection(address)
            under_way[connection.socket.fileno()] = connection, dialog
            poll.register(connection.socket, select.EPOLLIN)
            if octets := next(dialog):
                say(connection, octets)

        def go_on(number: int) -> None:
            connection, dialog = under_way[number]
            reply = connection.read(whole)
            if reply is None:
                return
            try:
                say(connection, dialog.send(reply))
            except StopIteration:
                del under_way[number]
                connection.socket.close()
                for following in itertools.islice(dialogs, 1):
                    begin(following)

        try:
            for dialog in itertools.islice(dialogs, at_once):
                begin(dialog)
            while under_way:
                ready = poll.poll(until - time.monotonic())
                if not ready:
                    raise Broken(f"not done in {limit:.0f} s")
                for number, event in ready:
                    if event & select.EPOLLOUT:
                        connection = under_way[number][0]
                        say(connection, connection.unsent)
                    if event & ~select.EPOLLOUT:
                        go_on(number)
        finally:
            for connection, _ in under_way.values():
                connection.socket.close()


def ask_at_rate(
    address: Address,
    whole: Whole,
    requests: Iterable[bytes],
    rate: float,
    at_once: int,
    limit: float,
    answered: Callable[[bytes], None],
) -> tuple[list[float], float]:
    """Ask at fixed times, so many a second, whatever becomes of the answers: an open loop.

    Returns for each answer the seconds since its request was *due*, so that a server that stalls pays for every request
    that it kept waiting; and the longest time that this end let a due request lie that had a connection.
    """
    connections = [_Connection(address) for _ in range(at_once)]
    for each in connections:
        select.select([], [each.socket], [], limit)  # until it is connected
    by_socket = {each.socket: each for each in connections}
    idle, asked = deque(connections), dict[socket.socket, float]()
    waiting = deque[tuple[float, bytes]]()
    latencies, late = [], 0.0
    began = time.monotonic()
    coming = ((began + number / rate, request) for number, request in enumerate(requests))
    following = next(coming, None)
    try:
        while following or waiting or asked:
            now = time.monotonic()
            if now - began > limit:
                raise Broken(f"not done in {limit:.0f} s")
            while following and following[0] <= now:
                late = max(late, now - following[0])
                waiting.append(following)
                following = next(coming, None)
            while waiting and idle:
                due, request = waiting.popleft()
                connection = idle.popleft()
                connection.write(request)
                if connection.unsent:
                    raise Broken("the server does not take a request")
                asked[connection.socket] = due
            pause = max(0.0, following[0] - time.monotonic()) if following else 1.0
            # not epoll, which counts in milliseconds
            for ready in select.select(list(asked), [], [], pause)[0]:
                connection = by_socket[ready]
                reply = connection.read(whole)
                if reply is not None:
                    latencies.append(time.monotonic() - asked.pop(ready))
                    answered(reply)
                    idle.append(connection)
    finally:
        for connection in connections:
            connection.socket.close()
    return latencies, late
