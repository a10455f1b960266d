"""`fairlead tls list`, `forget` and `status`: with delivery or without."""

import asyncio
import time
from typing import Any

import msgspec
import pytest

from mta.cli import tls_memory
from mta.control import ControlServer, Question, socket_path
from mta.delivery.policy import Level
from mta.delivery.remembered import KIND, Hosts, Remembered
from mta.delivery.route import NextHop, site
from mta.delivery.trouble import NoWay
from mta.spool.lmdb.spool import LmdbSpool


async def remember(spool: LmdbSpool) -> None:
    for host, port, level in (("mx1.test", 25, Level.VERIFIED), ("mx2.test", 25, Level.ENCRYPTED)):
        found = Remembered(host=host, port=port, level=level, seen_at=time.time())
        await spool.put_record(KIND, found.name, msgspec.msgpack.encode(found), replace=True)


def test_what_is_remembered_is_listed(relay: Any) -> None:
    assert relay.run("tls", "list").err == "no host is remembered yet\n"
    relay.with_spool(remember)
    records = relay.run("tls", "list", "--json").records
    assert [(each["host"], each["port"], each["level"]) for each in records] == [
        ("mx1.test", 25, "verified"),
        ("mx2.test", 25, "encrypted"),
    ]
    assert records[0]["ends_at"] == records[0]["seen_at"] + 30 * 86400
    assert "verified" in relay.run("tls", "list").out


def test_a_downgrade_is_forgiven_by_the_name_of_a_site(relay: Any) -> None:
    relay.with_spool(remember)
    done = relay.run("tls", "forget", "mx1.test:25, mx3.test:25 sts=0a")
    assert (done.code, done.out) == (0, "mx1.test:25, mx3.test:25 sts=0a: forgotten: mx1.test:25\n")
    assert [each["host"] for each in relay.run("tls", "list", "--json").records] == ["mx2.test"]
    done = relay.run("tls", "forget", "mx1.test:25")
    assert (done.code, done.out) == (1, "mx1.test:25: nothing is remembered\n")
    assert relay.run("tls", "forget", "MX2.test:25").code == 0


@pytest.mark.parametrize(
    ("name", "found", "gone"),
    [
        ("Mx1.test", NoWay.NO_HOST, ["mx1.test:25"]),
        ("rcpt.test", site((NextHop(0, "mx1.test", 25), NextHop(1, "mx2.test", 25))), ["mx1.test:25", "mx2.test:25"]),
        ("absent.test", NoWay.NO_DOMAIN, []),
    ],
)
def test_a_downgrade_is_forgiven_by_the_name_of_a_host_or_a_domain(
    relay: Any, monkeypatch: pytest.MonkeyPatch, name: str, found: Any, gone: list[str]
) -> None:
    async def site_of(domain: str, *_: object) -> Any:
        assert domain == name.lower()
        return found

    monkeypatch.setattr(tls_memory.mx, "site_of", site_of)
    relay.with_spool(remember)
    done = relay.run("tls", "forget", name, "--json")
    assert done.record == {"name": name, "forgotten": gone}
    assert done.code == (0 if gone else 1)


def test_without_delivery_nothing_is_counted(relay: Any) -> None:
    done = relay.run("tls", "status")
    assert (done.code, "delivery is not running" in done.err) == (1, True)


async def test_delivery_forgets_and_counts(relay: Any) -> None:
    asked = []

    async def forget(hosts: Hosts) -> list[str]:
        asked.append(hosts.names)
        return ["mx1.test:25"]

    async def sessions() -> object:
        return {"sts": {"successful": 3, "certificate-expired": 1}}

    commands = {"tls_forget": Question(Hosts, forget), "tls_sessions": sessions}
    control = ControlServer(socket_path(relay.config.run_dir, "delivery"), commands)
    await control.start()
    try:
        done = await asyncio.to_thread(relay.run, "tls", "forget", "mx1.test:25")
        counted = await asyncio.to_thread(relay.run, "tls", "status", "--json")
    finally:
        await control.close()
    assert (done.code, asked) == (0, [("mx1.test:25",)])
    assert counted.records == [
        {"policy": "sts", "result": "certificate-expired", "sessions": 1},
        {"policy": "sts", "result": "successful", "sessions": 3},
    ]
