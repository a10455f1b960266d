"""dkim: keys are replaced, listed with what is to be done, and compared with the DNS."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from mta.accounts import domains, rotation
from mta.clock import SystemClock
from mta.control import Commands, ControlServer, socket_path
from tests.unit.delivery.peers import DnsPeer


@contextmanager
def beside(server: Any) -> Iterator[Any]:
    """Run a server on a loop of its own, in a thread."""
    loop, running, ended = asyncio.new_event_loop(), Event(), asyncio.Event()

    async def serve() -> None:
        async with server:
            running.set()
            await ended.wait()

    thread = Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert running.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


def test_keys_are_replaced_and_the_list_says_what_to_do(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    relay.run("domains", "add", "example.test", "--tenant", "acme")
    for selector, algorithm in (("r1", "rsa2048"), ("e1", "ed25519")):
        relay.run("dkim", "create", "example.test", "--selector", selector, "--algorithm", algorithm)
    first, further = relay.run("dkim", "list", "example.test", "--json").records
    assert (first["state"], first["todo"]) == ("active", "")
    assert (further["state"], further["todo"]) == ("pending", "publish e1._domainkey.example.test")
    name = "e2._domainkey.example.test"

    rotated = relay.run("dkim", "rotate", "example.test")
    assert re.fullmatch(
        r"rsa20\d{6}\._domainkey\.example\.test\. IN TXT \(.*\)\n", rotated.out
    )  # of the one that signs
    assert relay.run("dkim", "rotate", "example.test").out == rotated.out
    wrong = relay.run("dkim", "rotate", "example.test", "--algorithm", "ed25519")
    assert (wrong.code, "no ed25519 key that signs" in wrong.err) == (1, True)

    seen(relay, "r1", "e1")
    listed = relay.run("dkim", "list", "example.test", "--json").records
    assert [each["state"] for each in listed] == ["active", "active", "pending"]
    assert all(each["shown_at"] for each in listed[:2])
    both = relay.run("dkim", "rotate", "example.test", "--selector", "e2")
    assert (both.code, "--algorithm" in both.err) == (2, True)
    made = relay.run("dkim", "rotate", "example.test", "--selector", "e2", "--algorithm", "ed25519", "--json").record
    assert (made["name"], made["type"], "alias" in made) == (name, "TXT", False)

    seen(relay, "e2")
    e2 = relay.run("dkim", "list", "example.test", "--json").records[3]
    assert e2["todo"].startswith("nothing: it signs from 20")
    seen(relay, "e1", "e2", later=rotation.SETTLING)
    _, e1, _, e2 = relay.run("dkim", "list", "example.test", "--json").records
    assert (e1["state"], e2["state"], e2["replaces"]) == ("retired", "active", ["e1"])
    assert e1["todo"].startswith("leave e1._domainkey.example.test in the DNS until 20")

    fresh = rotated.out.partition(".")[0]
    for seconds in (2 * rotation.SETTLING, rotation.SETTLING):  # more than a week ago
        seen(relay, "r1", fresh, later=-rotation.KEPT - seconds)
    lines = relay.run("dkim", "list", "example.test").out.splitlines()
    assert lines[0].split("  ")[-1] == "TO DO"
    assert re.fullmatch(r"r1 +rsa2048 +retired +20\S+ +remove r1\._domainkey\.example\.test from the DNS", lines[1])


def test_a_zone_of_ours_has_the_keys_and_others_point_there(relay: Any) -> None:
    with relay.config_file.open("a") as file:
        file.write("dkim: {delegate: Keys.relay.test}\n")
    relay.run("tenants", "create", "acme")
    relay.run("domains", "add", "example.test", "--tenant", "acme")
    command = ("dkim", "create", "example.test", "--selector", "s1", "--algorithm", "ed25519")
    alias, target = relay.run(*command).out.splitlines()
    assert alias == "s1._domainkey.example.test. IN CNAME s1._domainkey.example.test.keys.relay.test."
    assert target.startswith('s1._domainkey.example.test.keys.relay.test. IN TXT "v=DKIM1; k=ed25519; p=')
    record = relay.run(*command, "--json").record
    assert (record["name"], record["alias"]) == (
        "s1._domainkey.example.test.keys.relay.test",
        "s1._domainkey.example.test",
    )


def test_the_dns_is_compared_with_the_keys(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    relay.run("domains", "add", "example.test", "--tenant", "acme")
    with beside(DnsPeer()) as peer:
        records = peer.records
        with relay.config_file.open("a") as file:
            file.write(f"dns: {{servers: ['{peer.settings.servers[0]}'], timeout: 1}}\n")
        made = [
            relay.run("dkim", "create", "example.test", "--selector", each, "--algorithm", "ed25519", "--json").record
            for each in ("s1", "s2", "s3")
        ]
        records["s1._domainkey.example.test", "TXT"] = [f'"{made[0]["value"]}"']
        records["s2._domainkey.example.test", "CNAME"] = ["s2.keys.test."]
        records["s2.keys.test", "TXT"] = [f'"{made[1]["value"]}"']
        records["s3._domainkey.example.test", "TXT"] = [f'"{made[0]["value"]}"', '"v=spf1 -all"']
        done = relay.run("dkim", "check", "example.test", "--json")
        assert done.code == 1
        assert "1 of the records of example.test cannot be used by verifiers as they are" in done.err
        assert [(each["selector"], each["dns"], each["found_at"]) for each in done.records] == [
            ("s1", "ok", "s1._domainkey.example.test"),
            ("s2", "ok", "s2.keys.test"),
            ("s3", "2 TXT records", "s3._domainkey.example.test"),
        ]
        records["s3._domainkey.example.test", "TXT"] = [f'"{made[2]["value"]}"']
        assert relay.run("dkim", "check", "example.test").code == 0
    silent = relay.run("dkim", "check", "example.test", "--json")
    assert silent.code == 1
    assert all(each["dns"].startswith("no answer: ") for each in silent.records)


def seen(relay: Any, *shown: str, later: float = 0.0) -> None:
    """Have the DNS looked at, which shows these and is silent about the others."""

    async def look(spool: Any) -> None:
        def looked(domain: Any) -> Any:
            found = {each.dns_value: "" for each in domain.selectors if each.name in shown}
            return rotation.looked(domain, found, SystemClock().now() + later)

        await domains.change(spool, "example.test", looked)

    relay.with_spool(look)


def test_delivery_is_told_of_a_key_that_waits(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    relay.run("domains", "add", "example.test", "--tenant", "acme")
    create = ("dkim", "create", "example.test", "--algorithm", "ed25519", "--selector")
    down = relay.run(*create, "s1")
    assert (down.code, down.err) == (0, "")
    told: list[str] = []

    async def hear() -> None:
        told.append("dkim")

    with beside(Answering(relay, {"dkim": hear})):
        assert relay.run(*create, "s2").err == ""
        assert relay.run("dkim", "rotate", "example.test").err == ""
    assert told == ["dkim", "dkim"]
    with beside(Answering(relay, {})):
        older = relay.run("dkim", "rotate", "example.test")
    assert older.code == 0
    assert older.err.endswith(": it looks for the key within the hour\n")


class Answering:
    """A delivery role that answers."""

    def __init__(self, relay: Any, commands: Commands) -> None:
        self._server = ControlServer(socket_path(relay.config.run_dir, "delivery"), commands)

    async def __aenter__(self) -> None:
        await self._server.start()

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()
