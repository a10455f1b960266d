"""sources, and tenants' pools: what is shown with delivery down and up, what is parked, what is refused."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mta.control import ControlServer, socket_path
from mta.delivery import source_records
from mta.delivery.source_records import Counted, Parked
from mta.delivery.sources import ParkedRow, SourceRow, WarmUpRow

SOURCES = """
sources:
  - {name: a, address: 127.0.0.2, hostname: a.test}
  - {name: new, address: [127.0.0.3, "::1"], warm_up: {started_on: 2999-01-01}}
pools: {default: {a: 3, new: 1}, gold: {a: 1}}
"""
ROW = SourceRow(
    source="a",
    addresses=("127.0.0.2",),
    hostname="a.test",
    pools={"default": 3},
    warm_up=WarmUpRow(3, 16, 200, {"gmail": 12, "yahoo": 150, "x": 1, "y": 2}),
    parked=(ParkedRow("gmx", 1_800_000_000.0, "554 blocked\x1b[2J"),),
    trouble="",
)


@pytest.fixture
def with_sources(relay: Any) -> Any:
    relay.config_file.write_text(relay.config_file.read_text() + SOURCES)
    return relay


@contextmanager
def delivery(relay: Any, rows: object) -> Iterator[list[str]]:
    """Have a delivery role that answers; yield what it was asked for beside its sources."""
    told: list[str] = []
    ready, end = threading.Event(), threading.Event()

    async def show() -> object:
        return rows

    async def parked() -> None:
        told.append("parked")

    async def serve() -> None:
        server = ControlServer(socket_path(relay.config.run_dir, "delivery"), {"sources": show, "parked": parked})
        await server.start()
        ready.set()
        await asyncio.to_thread(end.wait)
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(5)
    try:
        yield told
    finally:
        end.set()
        thread.join()


def test_with_delivery_down_the_list_is_what_it_has_left(with_sources: Any) -> None:
    parked = Parked(source="a", provider="gmail", ends_at=4e9, reason="blocked")
    with_sources.with_spool(lambda spool: source_records.park(spool, parked))
    with_sources.with_spool(lambda spool: source_records.count(spool, Counted(source="a", day=1, recipients={"x": 1})))
    done = with_sources.run("sources", "list", "--json")
    assert done.err == "delivery is not running: this is what it has left\n"
    a, new = done.records
    assert (a["source"], a["addresses"], a["hostname"], a["pools"]) == (
        "a",
        ["127.0.0.2"],
        "a.test",
        {"default": 3, "gold": 1},
    )
    assert a["parked"] == [{"provider": "gmail", "ends_at": 4e9, "reason": "blocked"}]
    assert (new["hostname"], new["warm_up"]["cap"], new["warm_up"]["today"]) == ("relay.test", 0, {})
    assert re.search(
        r"new +127\.0\.0\.3,::1 +relay\.test +default:1 +begins in \d+ d", with_sources.run("sources", "list").out
    )


def test_with_delivery_up_the_list_is_what_it_says(with_sources: Any) -> None:
    with delivery(with_sources, [ROW]):
        done = with_sources.run("sources", "list")
        shown = with_sources.run("sources", "list", "--json").record
    assert done.err == ""
    assert "day 3/16, 200 each, yahoo 150, gmail 12, y 2" in done.out
    assert "gmx until 2027-01-15T08:00:00Z (554 blocked\\x1b[2J)" in done.out
    assert shown["warm_up"] == {"day": 3, "days": 16, "cap": 200, "today": {"gmail": 12, "yahoo": 150, "x": 1, "y": 2}}


def test_an_answer_that_is_not_understood_is_said(with_sources: Any) -> None:
    with delivery(with_sources, [{"source": 1}]):
        done = with_sources.run("sources", "list")
    assert (done.code, done.out) == (1, "")
    assert "delivery answers what this version does not understand" in done.err


def test_parked_and_unparked_and_delivery_hears_of_it(with_sources: Any) -> None:
    with delivery(with_sources, []) as told:
        done = with_sources.run("sources", "park", "a", "gmail", "--for", "2h", "--json")
        with_sources.run("sources", "park", "a", "gmx", "--reason", "554 blocked")
        assert told == ["parked", "parked"]
    assert (done.record["source"], done.record["provider"], done.record["reason"]) == ("a", "gmail", "by the operator")
    listed = with_sources.run("sources", "list", "--json").records[0]["parked"]
    assert [(each["provider"], each["reason"]) for each in listed] == [
        ("gmail", "by the operator"),
        ("gmx", "554 blocked"),
    ]
    assert listed[1]["ends_at"] - listed[0]["ends_at"] == pytest.approx(22 * 3600, abs=60)
    assert with_sources.run("sources", "unpark", "a", "gmail").out == "source a is used again for gmail\n"
    again = with_sources.run("sources", "unpark", "a", "gmail")
    assert (again.code, again.err) == (1, "fairlead: source a is not parked for gmail\n")
    assert with_sources.run("sources", "unpark", "a", "--json").record == {"source": "a", "unparked": ["gmx"]}
    assert with_sources.run("sources", "unpark", "a").code == 1


def test_it_is_said_that_delivery_did_not_hear_of_it(with_sources: Any) -> None:
    """Red when that is passed over: a role that hangs went on with a source that was told to be parked."""
    for command in ("park", "unpark"):
        done = with_sources.run("sources", command, "a", "gmail")
        assert (done.code, done.err) == (0, "delivery is not running: it will know when it starts\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("park", "q", "gmail"), "there is no source 'q' in the configuration"),
        (("park", "a", "gmail", "--for", "soon"), "must be a time such as 30m, 24h or 7d"),
        (("park", "a"), "Missing argument 'PROVIDER'"),
        (("park", "a", " "), "say for which provider"),
    ],
)
def test_what_cannot_be_parked(with_sources: Any, arguments: tuple[str, ...], why: str) -> None:
    done = with_sources.run("sources", *arguments)
    assert (done.code, done.out) == (2, "")
    assert why in done.err


def test_a_tenant_is_given_a_pool(with_sources: Any) -> None:
    with_sources.run("tenants", "create", "acme", "--pool", "gold")
    with_sources.run("tenants", "create", "other")
    assert [each["pool"] for each in with_sources.run("tenants", "list", "--json").records] == ["gold", "default"]
    done = with_sources.run("tenants", "set", "acme", "--pool", "default", "--weight", "3")
    assert done.out == "tenant acme has pool default and weight 3\n"
    assert with_sources.run("tenants", "set", "other", "--pool", "gold", "--json").record == {
        "tenant": "other",
        "pool": "gold",
    }
    for arguments in (("create", "third", "--pool", "gone"), ("set", "acme", "--pool", "gone")):
        refused = with_sources.run("tenants", *arguments)
        assert (refused.code, refused.err) == (
            2,
            "fairlead: there is no pool 'gone' in the configuration; there are default, gold\n",
        )
    assert with_sources.run("tenants", "set", "acme").code == 2
    assert len(with_sources.run("tenants", "list", "--json").records) == 2


def test_an_address_that_is_not_ours_is_found_by_config_check(relay: Any) -> None:
    relay.config_file.write_text(relay.config_file.read_text() + "sources: [{name: a, address: 192.0.2.9}]\n")
    done = relay.run("config", "check")
    assert (done.code, done.err) == (2, "fairlead: sources.0.address: 192.0.2.9: not an address of this machine\n")
