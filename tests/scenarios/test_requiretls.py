"""Stories of REQUIRETLS and of `TLS-Required: No` (RFC 8689), from the client to the receiver."""

import ssl
import time

import aiosmtplib
import pytest

from mta.config import HostPort
from mta.lab.clock import FakeClock
from mta.lab.commands import Extension
from mta.lab.mx import MxSettings
from tests.scenarios.conftest import REAL_LIMIT, Story

BODY = b"Subject: a story\r\n\r\nOnce upon a time.\r\n"
PLAIN_MX = "plain.lab.test"  # which does TLS, and no REQUIRETLS


@pytest.fixture
def clock() -> FakeClock:
    """At the time of the laboratory's certificates."""
    return FakeClock(time.time())


@pytest.fixture
async def story(story: Story) -> Story:
    """A relay whose clients can say STARTTLS, and receivers with enforced policies."""
    relay, *others = story.config.listeners
    offering = (relay.model_copy(update={"tls": "starttls"}), *others)
    await story.stop()
    story.config = story.config.model_copy(update={"listeners": offering})
    await story.start()
    lab = story.lab
    address = HostPort(host="127.0.0.2", port=lab.mx_port)
    extensions = frozenset(Extension) - {Extension.REQUIRETLS}
    await lab.start_mx(MxSettings(address=address, hostname=PLAIN_MX, extensions=extensions))
    lab.zone.set("plain.test", "MX", f"10 {PLAIN_MX}.")
    for domain, host in (("strict.test", "mx1.lab.test"), ("plain.test", PLAIN_MX), ("broken.test", "gone.lab.test")):
        lab.publish_policy(domain, f"version: STSv1\nmode: enforce\nmx: {host}\nmax_age: 604800\n")
    return story


async def send(story: Story, recipient: str) -> None:
    """Send a message with REQUIRETLS over TLS to the relay listener."""
    listener = story.config.listeners[0].address
    assert isinstance(listener, HostPort)
    trusting = ssl.create_default_context(cafile=story.lab.ca_file)
    client = aiosmtplib.SMTP(
        hostname=listener.host, port=listener.port, start_tls=True, tls_context=trusting, timeout=REAL_LIMIT
    )
    async with client:
        await client.ehlo()
        assert client.supports_extension("requiretls")
        await client.sendmail("sender@origin.test", [recipient], BODY, mail_options=["REQUIRETLS"])


async def test_requiretls_is_asked_of_the_next_hop_too(story: Story) -> None:
    await send(story, "ok@strict.test")
    (captured,) = await story.arrived(1)
    assert captured.envelope.tls_required == "yes"
    accepted, delivered = await story.told("accepted", "delivered ok@strict.test")
    assert accepted.tls_required == "yes"
    assert (delivered.policy, delivered.tls.rpartition(":")[2]) == ("sts enforce, requiretls", "verified")


async def test_requiretls_returns_what_no_next_hop_takes_with_it(story: Story) -> None:
    await send(story, "ok@plain.test")
    (dsn,) = await story.arrived(1)
    events = await story.told(
        "accepted", "bounced ok@plain.test", "dsn_sent ok@plain.test", "accepted", "delivered sender@origin.test"
    )
    (bounced,) = [each for each in events if each.type == "bounced"]
    assert (bounced.status, bounced.policy) == ("5.7.30", "sts enforce, requiretls")
    assert PLAIN_MX in bounced.relay
    # RFC 8689 5: the report has it too, where that can be had, and nothing of the body
    assert [each.address for each in dsn.envelope.recipients] == ["sender@origin.test"]
    assert dsn.envelope.tls_required == "yes"
    assert b"Status: 5.7.30" in dsn.content
    assert b"Once upon a time" not in dsn.content


async def test_requiretls_is_not_offered_in_the_clear(story: Story) -> None:
    with pytest.raises(aiosmtplib.SMTPResponseException) as refused:
        await story.send("ok@strict.test", mail_options=["REQUIRETLS"])
    assert refused.value.code == 555
    assert await story.waiting() == 0


async def test_requiretls_set_aside_by_the_sender_passes_a_policy_that_nobody_meets(story: Story) -> None:
    await story.send("ok@broken.test", body=BODY)
    deferred = await story.last("deferred")
    assert "MTA-STS policy of broken.test: mx1.lab.test is none of its MX hosts" in deferred.reply
    await story.send("ok+waived@broken.test", body=b"TLS-Required: No\r\n" + BODY)
    (captured,) = await story.arrived(1)
    assert captured.envelope.recipients[0].address == "ok+waived@broken.test"
    delivered = await story.last("delivered")
    assert (delivered.recipient, delivered.policy) == ("ok+waived@broken.test", "")
