"""What many messages to one domain cost its DNS and its policy host: one question each, until the answer is old."""

import time

import aiosmtplib
import pytest

from mta.config import HostPort
from mta.lab.clock import FakeClock
from mta.lab.policy_host import Hosting
from tests.scenarios.conftest import HOUR, Story

DOMAIN, MX = "many.test", "mx1.lab.test"
MESSAGES = 500
PRIORITIES = (4, 0, -4)
BODY = b"Subject: one of many\r\n\r\nx\r\n"
POLICY = f"version: STSv1\nmode: enforce\nmx: {MX}\nmax_age: 604800\n"
SLOWNESS = 300.0  # seconds that a slow policy host takes
TTL = HOUR


@pytest.fixture
def clock() -> FakeClock:
    """At the time of the laboratory's certificates."""
    return FakeClock(time.time())


def asked(story: Story) -> dict[str, int]:
    zone = story.lab.zone
    return {
        "MX": zone.asked(DOMAIN, "MX"),
        "address": zone.asked(MX, "A"),
        "record": zone.asked(f"_mta-sts.{DOMAIN}", "TXT"),
        "host": zone.asked(f"mta-sts.{DOMAIN}", "A"),
        "policy": story.lab.policy_host.requests[DOMAIN],
    }


async def send_many(story: Story) -> None:
    listener = story.config.listeners[0].address
    assert isinstance(listener, HostPort)
    async with aiosmtplib.SMTP(hostname=listener.host, port=listener.port, start_tls=False) as client:
        for number in range(MESSAGES):
            priority = f"MT-PRIORITY={PRIORITIES[number % len(PRIORITIES)]}"  # each class has a lane of its own
            await client.sendmail("sender@origin.test", [f"ok+{number}@{DOMAIN}"], BODY, mail_options=[priority])


async def test_sts_is_looked_up_once_for_all_who_wait(story: Story) -> None:
    lab, zone = story.lab, story.lab.zone
    lab.publish_policy(DOMAIN, POLICY, hosting=Hosting.SLOW)
    zone.set(DOMAIN, "MX", f"10 {MX}.", ttl=int(TTL))
    for name, address in ((MX, lab.mx.address.host), (f"mta-sts.{DOMAIN}", lab.policy_host.address.host)):
        zone.set(name, "A", address, ttl=int(TTL))
    zone.set(f"_mta-sts.{DOMAIN}", "TXT", '"v=STSv1; id=1;"', ttl=int(TTL))
    await send_many(story)
    assert lab.total == 0  # nobody has the policy yet
    once = dict.fromkeys(asked(story), 1)
    assert asked(story) == once | {"address": 0}
    lab.policy_host.put(DOMAIN, POLICY)
    await story.clock.advance(SLOWNESS)
    await story.arrived(MESSAGES)
    await story.count("delivered", MESSAGES)
    assert {each.policy for each in await story.events() if each.type == "delivered"} == {"sts enforce"}
    assert asked(story) == once
    # an hour later the DNS is asked again; the policy's id has not changed, and a connection is left
    await story.clock.advance(TTL)
    await story.send(f"ok@{DOMAIN}")
    await story.count("delivered", MESSAGES + 1)
    assert asked(story) == once | {"MX": 2, "record": 2}
