"""Stories of protection: policies of receivers, memory, and what the sender is told where they are not met."""

import hashlib
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mta.lab.clock import FakeClock
from tests.scenarios.conftest import Story

MX = "mx1.lab.test"
POLICY = f"version: STSv1\nmode: enforce\nmx: {MX}\nmax_age: 604800\n"


@pytest.fixture
def clock() -> FakeClock:
    """At the time of the laboratory's certificates."""
    return FakeClock(time.time())


@pytest.fixture
async def story(story: Story) -> Story:
    """A relay that dials anew for each message."""
    await story.change("delivery", deliveries_per_connection=1)
    return story


async def test_sts_is_enforced_until_the_certificate_is_the_hosts_again(story: Story) -> None:
    story.lab.publish_policy("strict.test", POLICY)
    await story.send("ok@strict.test")
    delivered = await story.last("delivered")
    assert (delivered.policy, delivered.tls.rpartition(":")[2]) == ("sts enforce", "verified")
    story.show("other.test")
    await story.send("ok@strict.test")
    deferred = await story.last("deferred")
    assert (deferred.policy, deferred.status) == ("sts enforce", "4.7.5")
    assert f"MTA-STS policy of strict.test: certificate of {MX} is for other.test" in deferred.reply
    story.show(MX)
    await story.clock.advance(31)
    assert (await story.last("delivered", 2)).policy == "sts enforce"


async def test_sts_that_is_never_met_is_told_to_the_sender_in_the_same_words(story: Story) -> None:
    story.lab.publish_policy("strict.test", POLICY.replace(MX, "elsewhere.lab.test"))
    await story.send("ok@strict.test")
    deferred = await story.last("deferred")
    assert f"MTA-STS policy of strict.test: {MX} is none of its MX hosts" in deferred.reply
    await story.clock.advance(story.config.retry.delay_notice + 1)
    await story.arrived(1)  # or days pass while that DSN is on its way, and it expires too
    await story.clock.advance(story.config.retry.lifetime - story.config.retry.delay_notice)
    expired = await story.last("expired")
    assert f"{MX} is none of its MX hosts" in expired.reply
    delayed, failed = await story.arrived(2)
    assert (delayed.envelope.sender, failed.envelope.sender) == ("", "")
    assert b"is none of its MX hosts" in failed.content
    assert story.lab.mx.transactions == 2


async def test_a_downgrade_of_a_remembered_host_is_deferred_until_it_is_forgotten(story: Story) -> None:
    await story.send("ok@first.test")
    assert (await story.last("delivered")).tls.endswith(":verified")
    await story.stop()
    context, story.lab.mx.tls_context = story.lab.mx.tls_context, None
    await story.start()
    await story.send("ok@second.test")
    deferred = await story.last("deferred")
    assert (deferred.policy, deferred.status) == ("memory", "4.7.10")
    assert f"TLS as {MX} had it before: {MX} does not offer STARTTLS" in deferred.reply
    assert await story.delivery.tls_sessions() == {
        "memory": {"starttls-not-supported": 1},
        "no-policy-found": {"starttls-not-supported": 1},
    }
    forget = story.delivery.commands()["tls_forget"]
    assert await forget.put(b'{"names": ["%s"]}' % MX.encode()) == [f"{MX}:{story.lab.mx_port}"]
    await story.clock.advance(31)
    assert (await story.last("delivered", 2)).tls == ""
    story.lab.mx.tls_context = context


async def test_dane_takes_the_key_that_is_published_and_no_other(story: Story) -> None:
    key = story.show("whatever.test").public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    tlsa = f"_{story.lab.mx_port}._tcp.{MX}"
    story.lab.zone.set("signed.test", "MX", f"10 {MX}.")
    story.lab.zone.set(tlsa, "TLSA", f"3 1 1 {digest}")
    story.lab.zone.secure("signed.test", MX)
    await story.send("ok@signed.test")
    delivered = await story.last("delivered")
    assert (delivered.policy, delivered.tls.rpartition(":")[2]) == ("dane", "dane")
    story.show(MX)  # which an authority has signed, and that does not help
    await story.send("ok@signed.test")
    deferred = await story.last("deferred")
    assert (deferred.policy, deferred.status) == ("dane", "4.7.5")
    assert f"DANE: certificate of {MX} matches none of its TLSA records" in deferred.reply
