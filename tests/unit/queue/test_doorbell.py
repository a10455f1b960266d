"""The doorbell over a real socket."""

import asyncio
from pathlib import Path

from mta.queue.doorbell import Doorbell, DoorbellSocket


async def test_rings_of_one_turn_are_one_and_arrive(tmp_path: Path) -> None:
    heard = asyncio.Queue[None]()
    listening = DoorbellSocket(tmp_path / "bell", lambda: heard.put_nowait(None))
    bell = Doorbell(tmp_path / "bell")
    for _ in range(5):
        bell.ring()
    await asyncio.wait_for(heard.get(), 5)
    assert heard.empty()
    bell.ring()
    await asyncio.wait_for(heard.get(), 5)
    bell.close()
    listening.close()
    assert not (tmp_path / "bell").exists()


async def test_a_ring_that_nobody_hears_is_lost_without_a_word(tmp_path: Path) -> None:
    bell = Doorbell(tmp_path / "none" / "bell")
    bell.ring()
    await asyncio.sleep(0)
    bell.close()


async def test_the_socket_of_a_predecessor_and_a_long_path_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "bell"
    heard = asyncio.Event()
    DoorbellSocket(path, lambda: None)._socket.detach()  # as kill -9 leaves it
    listening, bell = DoorbellSocket(path, heard.set), Doorbell(path)
    bell.ring()
    await asyncio.wait_for(heard.wait(), 5)
    bell.close()
    listening.close()
