"""`queue top`: what the delivery role says, for people and for programs."""

import asyncio
from collections.abc import Sequence
from typing import Any

from mta.control import ControlServer, socket_path
from mta.queue.site_row import SiteRow

BUSY = SiteRow(site="mx.test:25", in_flight=3, connections=5, lanes=7, rate=0.25, reply="250 2.0.0 ok\x1b[2J")
DEAD = SiteRow(site="gone.test:25", in_flight=0, connections=0, lanes=1, dead_for=29.6)
PROBED = SiteRow(site="gone.test:25", in_flight=1, connections=0, lanes=1, oldest=75.4, probing=True)
TENANT = SiteRow(site="mx.test:25", in_flight=0, connections=5, lanes=1, tenants_paused=("acme", "other"))
PAUSED = SiteRow(site="full.test:25", in_flight=0, connections=2, lanes=1, paused_for=61.0, paused_because="421 x")


async def top(relay: Any, rows: Sequence[SiteRow], *arguments: str) -> Any:
    async def sites() -> Sequence[SiteRow]:
        return rows

    control = ControlServer(socket_path(relay.config.run_dir, "delivery"), {"sites": sites})
    await control.start()
    try:
        return await asyncio.to_thread(relay.run, "queue", "top", *arguments)
    finally:
        await control.close()


async def test_sites_are_shown_with_what_holds_them(relay: Any) -> None:
    done = await top(relay, [BUSY, DEAD, PAUSED])
    assert done.code == 0
    assert done.out.isascii()
    assert "\x1b" not in done.out
    title, *lines = [line.split() for line in done.out.splitlines()]
    assert title[:4] == ["SITE", "IN", "FLIGHT", "OF"]
    assert lines[0][:7] == ["mx.test:25", "3", "5", "7", "0", "s", "15.0"]
    assert "dead, probed in 30 s" in done.out
    assert "paused for 61 s" in done.out
    done = await top(relay, [PROBED, TENANT])
    assert "dead, being probed" in done.out
    assert "paused: acme, other" in done.out
    assert " 75 s " in done.out


async def test_programs_get_all_of_it(relay: Any) -> None:
    done = await top(relay, [BUSY, DEAD, PAUSED], "--json", "--limit", "2")
    assert [each["site"] for each in done.records] == ["mx.test:25", "gone.test:25"]
    assert (done.records[0]["rate"], done.records[1]["dead_for"]) == (0.25, 29.6)


async def test_nothing_to_show_and_nobody_to_ask(relay: Any) -> None:
    assert (await top(relay, [])).err == "nothing is due, and nothing was learned yet\n"
    done = await asyncio.to_thread(relay.run, "queue", "top")
    assert (done.code, done.out) == (1, "")
    assert "delivery is not running" in done.err
