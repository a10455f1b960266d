"""A rate is exact to a hundredth over two processes of HTTP and one of SMTP, and who is told to wait gets in then."""

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mta.accounts.tolls import Rate
from mta.spool.interface import Throttled, Toll
from mta.spool.toll import take
from tests.crash.clients import Address, Answer, HttpClient, SmtpClient
from tests.crash.conftest import Report, size
from tests.crash.ledger import Outcome
from tests.crash.letters import request
from tests.crash.rates import Asked, Seen, seen
from tests.crash.relay import started
from tests.crash.sabotage import Sabotage

RATE = Rate(size("RATE", 3_000), 60)
SECONDS = size("RATE_SECONDS", 5)
_HTTP = 8  # clients
_SMTP = 4
_PATIENCE = 30.0  # seconds for the last answers
_SLOW = Rate(30, 60)  # of which one comes each two seconds

type_send = Callable[[str], Awaitable[Answer]]


class Asking:
    """Clients that offer one letter after the other, and one that was refused again, without a pause."""

    def __init__(self, end: float) -> None:
        self.asked: list[Asked] = []
        self.by_smtp = 0
        self._end = end

    async def ask(self, send: type_send, tags: Iterator[str], *, smtp: bool) -> None:
        """Ask until the end."""
        tag = next(tags)
        while (at := time.monotonic()) < self._end:
            answer = await send(tag)
            assert answer.goes_on, answer
            taken = answer.outcome is Outcome.ACKED
            assert taken or answer.said.startswith(("429 ", "450 4.7.1")), answer
            self.asked.append(Asked(at, time.monotonic(), taken))
            if taken:
                self.by_smtp += smtp
                tag = next(tags)


@pytest.mark.parametrize("sabotage", [Sabotage.NONE, Sabotage.RATE_EACH], ids=["one-rate", "control-a-rate-each"])
async def test_a_rate_is_exact_over_processes_and_protocols(tmp_path: Path, report: Report, sabotage: Sabotage) -> None:
    options = ("--rate", f"{RATE.messages}/{RATE.seconds}")
    async with started(tmp_path, *options, sabotage=sabotage, http=2) as (relay, address):
        found, asking, spread = await _ask(address, relay.clients_of_http)
        remains = await relay.remains()
    taken = sum(each.taken for each in asking.asked)
    report.say(
        taken=found.taken, of=f"{found.least:.0f}..{found.most:.0f}", asked=len(asking.asked),
        by_smtp=asking.by_smtp, idle=f"{found.idle:.2f}",
    )  # fmt: skip
    assert (len(spread), min(spread) > 0) == (2, True)
    assert 0 < asking.by_smtp < taken
    assert found.idle < SECONDS / 10, "hardly anybody asked"
    if sabotage is Sabotage.NONE:
        assert found.exact, found
    else:
        assert found.taken > found.most, "the harness cannot see a rate for each process"
    assert remains.accepted.total() == taken


async def _ask(address: Address, spread: Callable[[], list[int]]) -> tuple[Seen, Asking, list[int]]:
    """Have all clients ask for a time; they have connected before."""
    async with AsyncExitStack() as opened:
        by_http = [await HttpClient.connect(address) for _ in range(_HTTP)]
        by_smtp = [await SmtpClient.log_in(address) for _ in range(_SMTP)]
        for each in (*by_http, *by_smtp):
            opened.callback(each.abort)
        begin = time.monotonic()
        asking = Asking(begin + SECONDS)
        h_tags, s_tags = ((f"{kind}{number}" for number in itertools.count()) for kind in "hs")
        async with asyncio.timeout(SECONDS + _PATIENCE), asyncio.TaskGroup() as group:
            for http in by_http:
                group.create_task(asking.ask(http.send, h_tags, smtp=False))
            for smtp in by_smtp:
                group.create_task(asking.ask(smtp.send, s_tags, smtp=True))
        return seen(asking.asked, RATE, begin, begin + SECONDS), asking, spread()


async def test_who_waits_as_long_as_it_was_told_is_taken(tmp_path: Path, report: Report) -> None:
    options = ("--rate", f"{_SLOW.messages}/{_SLOW.seconds}")
    async with started(tmp_path, *options) as (_, address):
        http, smtp = await HttpClient.connect(address), await SmtpClient.log_in(address)
        assert (await http.post(request("h0"))).status == 202
        refused = await http.post(request("h1"))
        by_http = int(refused.fields["retry-after"])
        await asyncio.sleep(by_http)
        taken = await http.post(request("h1"))
        said = (await smtp.send("s0")).said
        by_smtp = int(re.findall(r"try again in (\d+) seconds", said)[0])
        await asyncio.sleep(by_smtp)
        submitted = await smtp.send("s0")
        http.abort()
        smtp.abort()
    report.say(by_http=by_http, by_smtp=by_smtp)
    assert (refused.status, taken.status) == (429, 202)
    assert submitted.outcome is Outcome.ACKED, submitted
    assert {by_http, by_smtp} <= {1, 2}


def _asked_of(rates: int, every: float) -> list[Asked]:
    """Ask so many rates in turns for a minute."""
    rate, spent, asked = Rate(1200, 60), [None] * rates, list[Asked]()
    for number in range(round(60 / every)):
        at = number * every
        found = take([Toll("", rate.interval, rate.burst, 1)], [spent[number % rates]], at)
        if not isinstance(found, Throttled):
            (spent[number % rates],) = found
        asked.append(Asked(at, at, not isinstance(found, Throttled)))
    return asked


@pytest.mark.parametrize(
    ("asked", "taken", "exact"),
    [
        (_asked_of(1, 0.01), 1211, True),
        (_asked_of(2, 0.01), 2422, False),
        (_asked_of(1, 0.051), 1176, False),
    ],
    ids=["one-rate", "two-rates", "asked-too-seldom"],
)
def test_what_is_counted_of_a_rate(asked: list[Asked], taken: int, exact: bool) -> None:
    found = seen(asked, Rate(1200, 60), 0.0, 60.0)
    assert (found.taken, found.exact, found.idle) == (taken, exact, 0.0)
    assert (found.least, found.most) == (pytest.approx(1188), pytest.approx(1212))


def test_what_nobody_could_ask_for_is_not_owed() -> None:
    asked = [each for each in _asked_of(1, 0.01) if not 20.0 < each.at < 40.0]
    found = seen(asked, Rate(1200, 60), 0.0, 60.0)
    assert (found.idle, found.exact) == (pytest.approx(19.4), True)
    late = [Asked(each.at, each.answered_at + 60.1, each.taken) for each in asked]
    assert seen(asked + late, Rate(1200, 60), 0.0, 60.0) == found
