"""The load's engine against a server that stalls, splits its replies, hangs up."""

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat

import pytest

from tests.bench.dialogs import Address, Broken, Dialog, ask_at_rate, hold

LIMIT = 10.0


class Handler(socketserver.StreamRequestHandler):
    """Echoes lines; `hang-up` ends the connection, `big` a line of a megabyte, `stall` stops all for 0.3 seconds."""

    def handle(self) -> None:
        for line in self.rfile:
            if line == b"hang-up\n":
                return
            with self.server.turn:  # type: ignore[attr-defined]
                if line == b"stall\n":
                    time.sleep(0.3)
            self.wfile.write(line[:3])
            self.wfile.flush()
            self.wfile.write(line[3:])


@contextmanager
def echo() -> Iterator[Address]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.turn = threading.Lock()  # type: ignore[attr-defined]
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield "127.0.0.1", server.server_address[1]
        server.shutdown()
        thread.join()


def whole(heard: bytes) -> bool:
    return heard.endswith(b"\n")


def test_dialogs_are_held_so_many_at_once_and_hear_whole_replies() -> None:
    heard: list[bytes] = []
    under_way = [0, 0]  # now, at most

    def dialog(number: int) -> Dialog:
        under_way[0] += 1
        under_way[1] = max(under_way)
        for words in (b"first %d\n" % number, b"x" * 1_000_000 + b"\n"):
            heard.append((yield words))
        under_way[0] -= 1

    with echo() as address:
        hold(address, whole, map(dialog, range(7)), 3, LIMIT)
    assert under_way == [0, 3]
    assert sorted(heard)[:7] == [b"first %d\n" % number for number in range(7)]
    assert {len(each) for each in sorted(heard)[7:]} == {1_000_001}


def test_a_server_that_hangs_up_or_falls_silent_breaks_it_off() -> None:
    def dialog(words: bytes) -> Dialog:
        yield words

    with echo() as address:
        with pytest.raises(Broken, match="hung up"):
            hold(address, whole, iter([dialog(b"hang-up\n")]), 1, LIMIT)
        with pytest.raises(Broken, match="not done"):
            hold(address, whole, iter([dialog(b"no line")]), 1, 0.1)
        with pytest.raises(Broken, match="not done"):
            ask_at_rate(address, whole, [b"no line"], 100, 1, 0.1, lambda _: None)


def test_whoever_is_kept_waiting_by_a_stall_is_counted_from_when_he_was_due() -> None:
    replies: list[bytes] = []
    with echo() as address:
        latencies, _ = ask_at_rate(
            address, whole, [b"stall\n", *repeat(b"next\n", 19)], 100, 2, LIMIT, replies.append
        )  # fmt: skip
    assert len(replies) == len(latencies) == 20
    # twenty requests, one each 10 ms, over two connections: those behind the stall waited too
    assert sum(each > 0.05 for each in latencies) >= 15
    assert max(latencies) > 0.25
