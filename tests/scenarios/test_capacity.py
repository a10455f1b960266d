"""Stories of too much mail: a tenant is turned away with the time to come back, its neighbours are not."""

import aiosmtplib
import pytest

from mta.accounts import tenants
from mta.spool.lmdb.care import verify
from tests.scenarios.conftest import Story


async def test_a_tenant_over_its_limit_is_turned_away_until_its_mail_has_gone(story: Story) -> None:
    await story.lab.mx.close()
    for number in range(3):
        await story.send(f"a{number}@rcpt.test")
    await story.count("deferred", 3)
    await tenants.change(story.parts.spool, "lab", most_messages=3)
    await story.clock.advance(12)
    for _ in range(2):
        with pytest.raises(aiosmtplib.SMTPResponseException) as refused:
            await story.send("late@rcpt.test")
        assert refused.value.code == 421
        assert refused.value.message.startswith("4.3.2 As much of your mail is waiting as may wait, try again in ")
    assert (await story.ingress.commands()["capacity"]())["lab"].refused == "limit"  # type: ignore[index]
    await story.lab.mx.start()
    await story.clock.advance(30)
    await story.arrived(3)
    await story.count("delivered", 3)
    await story.clock.advance(2)
    await story.send("late@rcpt.test")
    await story.arrived(4)
    await story.count("delivered", 4)
    found = await story.parts.spool.backlogs()
    assert (found["lab"].messages, found["lab"].untried, found["lab"].tried, found["lab"].left) == (0, 0, 4, 4)
    await story.stop()
    assert verify(story.config.spool_dir, story.parts.keyring).problems == []
