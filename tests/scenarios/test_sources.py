"""Stories of sources: who leaves from where, over real connections from 127.0.0.2 and its neighbours."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from mta import config as configuration
from mta.accounts import tenants
from mta.config import HostPort
from mta.delivery import source_records
from mta.delivery.source_records import Parked
from mta.lab.mx import MxSettings
from tests.scenarios.conftest import HOUR, Story

A = "{name: a, address: 127.0.0.2, hostname: a.relay.test}"
B = "{name: b, address: 127.0.0.3, hostname: b.relay.test}"
SIX = '{name: six, address: "::1", hostname: six.relay.test}'
NEW = "{name: new, address: 127.0.0.4, hostname: new.relay.test, warm_up: {started_on: 2027-01-15, plan: [50, 100]}}"
NOT_OURS = "{name: x, address: 192.0.2.9}"


async def set_up(story: Story, *sources: str, pools: str = "{}") -> None:
    """Have the relay started anew with these sources."""
    text = f"{{sources: [{', '.join(sources)}], pools: {pools}}}"
    given = configuration.parse(text, "sources")
    await story.stop()
    story.config = story.config.model_copy(update={"sources": given.sources, "pools": given.pools})
    await story.start()


def leaving(story: Story) -> Counter[tuple[str, str]]:
    """Count what arrived by address and name of the client."""
    return Counter((each.peer.rpartition(":")[0].strip("[]"), each.ehlo) for each in story.lab.captured)


async def test_two_sources_share_by_weight_each_with_its_name(story: Story) -> None:
    await set_up(story, A, B, pools="{default: {a: 3, b: 1}}")
    for sent in range(4, 41, 4):  # as many at once as one has room for
        await asyncio.gather(*[story.send(f"ok@rcpt{n % 7}.test") for n in range(4)])
        await story.arrived(sent)
        await story.count("delivered", sent)
    assert leaving(story) == {("127.0.0.2", "a.relay.test"): 30, ("127.0.0.3", "b.relay.test"): 10}
    await story.count("delivered", 40)
    delivered = [each for each in await story.events() if each.type == "delivered"]
    assert Counter((each.source, each.source_name) for each in delivered) == {
        ("127.0.0.2", "a"): 30,
        ("127.0.0.3", "b"): 10,
    }
    assert story.lab.mx.connections < 40  # kept for the next message from the same source


async def test_a_tenant_leaves_from_its_own_pool(story: Story) -> None:
    await set_up(story, A, B, pools="{default: {a: 1}, own: {b: 1}}")
    await tenants.change(story.parts.spool, "lab", pool="own")
    await asyncio.gather(*[story.send("ok@rcpt.test") for _ in range(5)])
    await story.arrived(5)
    assert leaving(story) == {("127.0.0.3", "b.relay.test"): 5}
    await tenants.change(story.parts.spool, "lab", pool="default")
    await story.clock.advance(10)
    await story.send("ok@rcpt.test")
    await story.arrived(6)
    assert leaving(story)["127.0.0.2", "a.relay.test"] == 1


async def test_who_waits_for_its_pool_goes_when_there_is_room_in_it(story: Story) -> None:
    """Without a poll. Red when nobody is told that an attempt from the pool has ended."""
    delivery = story.config.delivery.model_copy(update={"connections_per_site": 1})
    story.config = story.config.model_copy(update={"delivery": delivery})
    await set_up(story, A, B, pools="{default: {a: 1}, own: {b: 1}}")
    await asyncio.gather(*[story.send(f"ok@rcpt{number}.test") for number in range(12)])
    await story.arrived(12)
    assert leaving(story) == {("127.0.0.2", "a.relay.test"): 12}


async def test_a_host_with_ipv6_alone_is_reached_from_the_source_that_has_it(story: Story) -> None:
    await set_up(story, A, SIX, pools="{default: {a: 9, six: 1}}")
    await story.lab.start_mx(MxSettings(address=HostPort(host="::1", port=story.lab.mx_port), hostname="six.lab.test"))
    story.lab.zone.set("six.test", "MX", "10 six.lab.test.")
    await asyncio.gather(*[story.send("ok@six.test") for _ in range(10)])
    await story.arrived(10)
    assert leaving(story) == {("::1", "six.relay.test"): 10}


async def test_a_host_that_no_source_can_reach_keeps_its_mail_waiting(story: Story) -> None:
    await set_up(story, A, B)
    story.lab.zone.set("six.test", "MX", "10 six.lab.test.")
    story.lab.zone.set("six.lab.test", "AAAA", "::1")
    await story.send("ok@six.test")
    _, deferred = await story.told("accepted", "deferred ok@six.test")
    assert deferred.reply == "451 4.3.2 no source: a: cannot reach it, b: cannot reach it"
    assert (deferred.reason, deferred.retry_at) == ("us", story.clock.now() + 30)


async def test_what_a_new_source_may_not_take_goes_to_a_warm_one(story: Story) -> None:
    await set_up(story, A, NEW, pools="{default: {a: 1, new: 1000}}")
    recipients = [f"user{n}" for n in range(10)]
    for _ in range(4):
        await story.send(*[f"{each}@rcpt.test" for each in recipients])
    await story.arrived(4)
    await story.count("delivered", 40)
    (counted,) = await source_records.counts(story.parts.spool)
    delivered = [each.source_name for each in await story.events() if each.type == "delivered"]
    assert sum(counted.recipients.values()) >= delivered.count("new") >= 30  # on disk, should it be killed now
    await set_up(story, A, NEW, pools="{default: {a: 1, new: 1000}}")
    for _ in range(3):
        await story.send(*[f"{each}@rcpt.test" for each in recipients])
    await story.arrived(7)
    assert leaving(story) == {("127.0.0.4", "new.relay.test"): 5, ("127.0.0.2", "a.relay.test"): 2}


async def test_what_was_not_delivered_does_not_count(story: Story) -> None:
    await set_up(story, NEW)
    await story.send("ok@rcpt.test", "tempfail-9@rcpt.test", "reject@rcpt.test", sender="")
    await story.told("accepted", "delivered ok@rcpt.test", "deferred tempfail-9@rcpt.test", "bounced reject@rcpt.test")
    (row,) = await story.delivery.sources()
    assert row.warm_up is not None
    assert list(row.warm_up.today.values()) == [1]


async def test_what_goes_along_a_route_does_not_count(story: Story) -> None:
    route = configuration.Route(domains=("rcpt.test",), relay=(f"127.0.0.1:{story.lab.mx_port}",))
    story.config = story.config.model_copy(update={"routes": (route,)})
    await set_up(story, NEW)
    for _ in range(3):
        await story.send(*[f"user{n}@rcpt.test" for n in range(30)])
    await story.count("delivered", 90)
    (row,) = await story.delivery.sources()
    assert (leaving(story), row.warm_up.today) == ({("127.0.0.4", "new.relay.test"): 3}, {})


async def test_what_only_a_new_source_may_take_waits_for_the_next_day(story: Story) -> None:
    await set_up(story, NEW)
    for _ in range(2):
        await story.send(*[f"user{n}@rcpt.test" for n in range(30)])
    await story.count("delivered", 30)
    await story.count("deferred", 30)
    deferred = next(each for each in await story.events() if each.type == "deferred")
    assert deferred.reply.startswith("451 4.3.2 no source: new: 30 of today's 50 for ")
    assert deferred.retry_at == story.clock.now() + HOUR
    for hour in range(9, 24):
        await story.clock.advance(HOUR)
        await story.count("deferred", 30 * (hour - 7))
    assert [each.steps async for each, _ in story.parts.spool.walk_entries()] == [0]  # of the retry schedule
    await story.clock.advance(HOUR)
    await story.count("delivered", 60)
    assert await story.waiting() == 0


async def test_an_address_that_is_not_ours_is_named_and_the_others_go_on(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    await set_up(story, NOT_OURS, A, pools="{default: {x: 9, a: 1}}")
    assert "source=x address=192.0.2.9 error='not an address of this machine'" in caplog.text
    await story.clock.advance(61)  # it is tried again
    await asyncio.gather(*[story.send("ok@rcpt.test") for _ in range(10)])
    await story.arrived(10)
    assert leaving(story) == {("127.0.0.2", "a.relay.test"): 10}
    assert caplog.text.count("not an address of this machine") == 2  # once, however many messages


async def test_who_was_greylisted_comes_again_from_the_same_source(story: Story) -> None:
    """Red when the source is the one whose turn it is: that would be the other."""
    await set_up(story, A, B)
    await story.send("greylist@rcpt.test")
    await story.told("accepted", "deferred greylist@rcpt.test")
    await story.clock.advance(300)  # by the shaping rules
    first, second = (await story.told("accepted", "deferred greylist@rcpt.test", "delivered greylist@rcpt.test"))[1:]
    assert first.source_name == second.source_name != ""


async def test_a_rule_parks_the_source_that_a_provider_blocks_for_all_its_sites(story: Story, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "providers: [{name: lab, mx: [lab.test], rules: [{match: temporary failure, action: pause, lasts: 7200}]}]",
        "utf-8",
    )
    delivery = story.config.delivery.model_copy(update={"shaping": rules})
    story.config = story.config.model_copy(update={"delivery": delivery})
    await set_up(story, A, B)
    await story.send("tempfail-1@rcpt.test")
    _, deferred = await story.told("accepted", "deferred tempfail-1@rcpt.test")
    (parked,) = [row for row in await story.delivery.sources() if row.parked]
    assert (parked.source, parked.parked[0].provider) == (deferred.source_name, "lab")
    await set_up(story, A, B)  # a restart keeps it
    for number in range(4):
        await story.send(f"ok@rcpt{number}.test")
    await story.arrived(4)
    left = {source for _, source in leaving(story)}
    assert left == {"b.relay.test" if parked.source == "a" else "a.relay.test"}


async def test_parked_for_one_provider_until_somebody_says_otherwise(story: Story) -> None:
    await set_up(story, A, B)
    await story.send("ok@rcpt.test")
    (first,) = (each for each in await story.until(lambda events: len(events) == 2) if each.type == "delivered")
    provider = f"{first.relay.partition('[')[0]}:{story.lab.mx_port}"
    now = story.clock.now()
    parked = Parked(source="a", provider=provider, ends_at=now + HOUR, reason="550 blocked")
    await source_records.park(story.parts.spool, parked)
    await story.delivery.parked()
    before = leaving(story)["127.0.0.2", "a.relay.test"]
    for _ in range(5):
        await story.send("ok@rcpt.test")
    await story.arrived(6)
    assert leaving(story)["127.0.0.2", "a.relay.test"] == before
    await story.lab.start_mx(
        MxSettings(address=HostPort(host="127.0.0.5", port=story.lab.mx_port), hostname="other.lab.test")
    )
    story.lab.zone.set("other.test", "MX", "10 other.lab.test.")
    for _ in range(2):
        await story.send("ok@other.test")
    await story.arrived(8)
    assert leaving(story)["127.0.0.2", "a.relay.test"] == before + 1
    await source_records.unpark(story.parts.spool, "a", provider)
    await story.delivery.parked()
    for _ in range(2):
        await story.send("ok@rcpt.test")
    await story.arrived(10)
    assert leaving(story)["127.0.0.2", "a.relay.test"] == before + 2
