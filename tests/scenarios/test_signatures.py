"""Mail that is signed and sealed: what arrives verifies by the DNS of its moment."""

import asyncio

import dkim
import pytest

from mta.accounts import dkim_keys, domains, rotation
from mta.accounts.dkim_keys import Algorithm, DnsRecord
from mta.config import Arc
from mta.delivery.published import WAITING_INTERVAL
from mta.lab.clock import FakeClock
from tests.scenarios.conftest import REAL_LIMIT, Story

DOMAIN = "origin.test"
AT_ONCE = 10
BODY = b"From: sender@origin.test\r\nSubject: a story\r\n\r\nOnce upon a time.\r\n"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_700_000_000.0)  # dkimpy refuses what was signed in the future


class Rotation:
    """What the domain's owner does, and what the receiver sees."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.seen = 0

    async def key(self, selector: str, *, replaces: bool) -> DnsRecord:
        """Make a key, as the command does."""
        spool, now = self.story.parts.spool, self.story.clock.now()
        public = dkim_keys.load_public_key(self.story.config.dkim_public_file)
        if replaces:
            record = await dkim_keys.rotate(spool, DOMAIN, Algorithm.RSA2048, public, now, selector)
        else:
            record = await dkim_keys.create(spool, DOMAIN, selector, Algorithm.RSA2048, public, now)
        command = self.story.delivery.commands()["dkim"]
        assert callable(command)
        await command()
        return record

    async def mail(self) -> set[str]:
        """Send some mail at the same time, verify what arrives, and name the selectors that it was signed with."""
        await asyncio.gather(*(self.story.send(f"ok{number}@rcpt.test", body=BODY) for number in range(AT_ONCE)))
        self.seen += AT_ONCE
        arrived = (await self.story.arrived(self.seen))[-AT_ONCE:]
        found = [self.story.lab.verify(each) for each in arrived]
        assert all(found), "some mail is not signed"
        assert [str(each) for one in found for each in one if not each.valid] == []
        return {each.selector for one in found for each in one}

    async def until(self, states: dict[str, str]) -> None:
        """Wait, mail coming and going, until the keys are in these states."""
        async with asyncio.timeout(REAL_LIMIT):
            while await self.states() != states:
                await self.story.clock.advance(WAITING_INTERVAL)
                await self.mail()

    async def states(self) -> dict[str, str]:
        found = await domains.find(self.story.parts.spool, DOMAIN)
        assert found is not None
        return {each.name: each.state.value for each in found.selectors}


async def test_a_key_is_replaced_while_mail_flows(story: Story) -> None:
    await domains.add(story.parts.spool, DOMAIN, "lab", story.clock.now())
    rotation_of = Rotation(story)
    old = await rotation_of.key("s1", replaces=False)
    story.lab.zone.set_txt(old.name, old.value)
    assert await rotation_of.mail() == {"s1"}

    new = await rotation_of.key("s2", replaces=True)
    for _ in range(5):
        await story.clock.advance(WAITING_INTERVAL)
        assert await rotation_of.mail() == {"s1"}  # it is not in the DNS yet
    story.lab.zone.set_txt(new.name, new.value)
    await rotation_of.until({"s1": "retired", "s2": "active"})
    await story.clock.advance(1)
    assert await rotation_of.mail() == {"s2"}

    await story.stop()  # what is known outlives a restart
    await story.start()
    assert await rotation_of.mail() == {"s2"}
    story.clock.jump(rotation.KEPT)
    assert await rotation_of.mail() == {"s2"}
    story.lab.zone.set_txt(old.name)
    await rotation_of.until({"s2": "active"})
    assert await rotation_of.mail() == {"s2"}


async def test_mail_passed_on_for_others_is_sealed(story: Story) -> None:
    await story.stop()
    sealing = Arc.model_validate({"domain": DOMAIN, "trusted": ["mx.origin.test"]})
    story.config = story.config.model_copy(update={"arc": sealing})
    await story.start()
    await domains.add(story.parts.spool, DOMAIN, "lab", story.clock.now())
    key = await Rotation(story).key("s1", replaces=False)
    story.lab.zone.set_txt(key.name, key.value)
    results = b"Authentication-Results: mx.origin.test; spf=pass smtp.mailfrom=elsewhere.test\r\n"
    body = b"From: a@elsewhere.test\r\nSubject: a story\r\n\r\nOnce upon a time.\r\n"
    await story.send("ok@rcpt.test", body=results + body)
    await story.send("ok@rcpt.test", body=body)
    await story.arrived(2)
    await story.until(lambda events: sum(each.type == "delivered" for each in events) == 2)
    notes = {each.signed for each in await story.events() if each.type == "delivered"}
    assert notes == {
        "arc:origin.test:s1 i=1 cv=none",
        "no sender domain; not sealed: no authentication results that are trusted",
    }
    (sealed,) = [each.content for each in story.lab.captured if b"ARC-Seal" in each.content]
    # dkimpy wants the one record, and there is no other
    validity, _, reason = dkim.ARC(sealed).verify(dnsfunc=lambda name, timeout=5: key.value.encode())
    assert (validity, reason) == (b"pass", "success")
