"""What a backlog costs: one installation that has it and one that is empty, measured by turns on this machine."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from mta.config import HostPort
from mta.spool.lmdb.environment import Environment
from tests.interop.relay import ROLES
from tests.scale.arrivals import Arrivals
from tests.scale.backlog import Shape, backlog, domain
from tests.scale.installation import Installation, Load

_SESSIONS = 20
_OCTETS = 2000  # of a body
_WARM_UP = 300  # messages
_LOOKS = 5  # at one entry
_ARRIVAL = 60.0  # seconds
_UNDER_WAY = 1.0  # seconds until a relay with a backlog has all its connections open
_WITHOUT_DELIVERY = tuple(each for each in ROLES if each != "delivery")


class Figure(NamedTuple):
    """One measurement. `limit` is the most it may be, or the least; None where it only explains another.

    `exact` tells that it does not depend on who else uses the machine.
    """

    what: str
    value: float
    unit: str
    limit: float | None = None
    least: bool = False
    exact: bool = False
    note: str = ""

    @property
    def over(self) -> bool:
        """Whether it is beyond its limit."""
        return self.limit is not None and (self.value < self.limit if self.least else self.value > self.limit)

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" ({'at least' if self.least else 'at most'} {self.limit:g} {self.unit})"
        note = f" {self.note}" if self.note else ""
        return f"{self.what}: {self.value:.3g} {self.unit}{limit}{note}{' OVER' if self.over else ''}"


class Size(NamedTuple):
    """How much is measured. A rate is the median of `rounds` runs of `messages` each.

    `thorough`: also with delivery stopped, also after a stop, and all of it once more when the spool was drained and
    filled again.
    """

    entries: int
    rounds: int
    messages: int
    thorough: bool


class Flat:
    """The two installations. The full one gets a backlog in one shape, is drained, and gets it once more."""

    def __init__(self, directory: Path, shape: Shape, size: Size, seed: int) -> None:
        self._shape = shape
        self._size = size
        self._rng = random.Random(seed)
        self._full = Installation(directory / "full")
        self._empty = Installation(directory / "empty")

    async def run(self, say: Callable[[Figure], None]) -> None:
        """Measure everything; `say` hears each figure as it is found."""
        try:
            some = await self._fill()
            first = self._octets()
            await self._measure("filled", some, say)
            async with backlog(self._full.state_dir, self._rng) as spool:
                await spool.drain()
            some = await self._fill()
            say(Figure("filled again, file", self._octets() / first, "x", 1.3))
            if self._size.thorough:
                await self._measure("filled again", some, say)
        finally:
            self._full.close()
            self._empty.close()

    async def _fill(self) -> str:
        async with backlog(self._full.state_dir, self._rng) as spool:
            return await spool.fill(self._size.entries, self._shape)

    def _octets(self) -> int:
        """Tell how much of the file is in use or has been, whatever zeros follow."""
        environment = Environment(self._full.state_dir / "spool", map_size=0, reserve=0)
        try:
            return environment.end
        finally:
            environment.close()

    async def _measure(self, when: str, some: str, say: Callable[[Figure], None]) -> None:
        def tell(figure: Figure) -> None:
            say(figure._replace(what=f"{when}, {figure.what}"))

        both = (self._full, self._empty)
        modes = {"while receivers are silent": ROLES}
        if self._size.thorough:
            modes["with delivery stopped"] = _WITHOUT_DELIVERY
        async with _receivers() as (silent, sink):
            for each in both:
                each.send_to(silent)
            for name, roles in modes.items():
                for each in both:
                    await each.start(roles)
                await self._rates(name, tell)
                if roles == ROLES:
                    self._memory(tell)
                    await self._shown(some, tell)
                for each in both:
                    await each.kill()
            await self._starts(silent, sink, tell)

    async def _rates(self, name: str, tell: Callable[[Figure], None]) -> None:
        """Load both by turns."""
        loads: dict[Installation, list[Load]] = {self._full: [], self._empty: []}
        for each in loads:
            await each.load(self._domains(), _WARM_UP, _OCTETS)
        for number in range(self._size.rounds):
            # whoever goes first finds the machine in another state than who comes after
            for each in (self._full, self._empty) if number % 2 else (self._empty, self._full):
                loads[each].append(await each.load(self._domains(), self._size.messages, _OCTETS))
        full, empty = ([load.rate for load in found] for found in loads.values())
        # neighbours come and go: of two runs, one after the other, both have much the same ones
        ratio = median(100 * one / other for one, other in zip(full, empty, strict=True))
        note = f"{median(full):,.0f} and {median(empty):,.0f}/s"
        tell(Figure(f"accepted {name}", ratio, "%", 90, least=True, note=note))
        full_cpu, empty_cpu = (_cpu(found) for found in loads.values())
        note = ", ".join(f"{title} {full_cpu[title]:.3f} {empty_cpu.get(title, 0):.3f}" for title in sorted(full_cpu))
        ratio = 100 * sum(full_cpu.values()) / sum(empty_cpu.values())
        tell(Figure(f"CPU a message {name}", ratio, "%", note=f"ms, and empty: {note}"))

    def _domains(self) -> list[str]:
        """Choose where mail goes, as the backlog does: one domain for each session."""
        return [domain(self._shape, self._rng.randrange(self._size.entries), self._rng) for _ in range(_SESSIONS)]

    def _memory(self, tell: Callable[[Figure], None]) -> None:
        for title, octets in sorted(self._full.memory().items()):
            tell(Figure(f"memory of {title}", octets / 1e6, "MB", 200, exact=True))

    async def _shown(self, some: str, tell: Callable[[Figure], None]) -> None:
        """Look one message up over HTTP, and have it explained."""
        for name, path in (("queue show", some), ("explain", f"{some}/explain")):
            took = [await asyncio.to_thread(self._full.looked_up, path) for _ in range(_LOOKS)]
            tell(Figure(f"{name} over HTTP", 1000 * median(took), "ms", 50, note=f"{1000 * max(took):.0f} at most"))

    async def _starts(self, silent: HostPort, sink: Arrivals, tell: Callable[[Figure], None]) -> None:
        self._empty.send_to(silent)
        empty = await self._empty.start()
        await self._empty.kill()
        for name, end in (("kill -9", self._full.kill), ("a stop", self._full.stop))[: 1 + self._size.thorough]:
            self._full.send_to(silent)
            await self._full.start()
            await asyncio.sleep(_UNDER_WAY)
            await end()
            self._full.send_to(sink.address)
            sink.forget()
            began = time.monotonic()
            starting = asyncio.create_task(self._full.start())
            arrived_at = await sink.first(_ARRIVAL)
            start = await starting
            await self._full.kill()
            tell(Figure(f"220 after {name}", start.greeting, "s", 2, note=f"empty {empty.greeting:.2f} s"))
            tell(Figure(f"/readyz after {name}", start.ready, "s", 2, note=f"empty {empty.ready:.2f} s"))
            tell(Figure(f"first delivery after {name}", arrived_at - began, "s", 3))


def _cpu(loads: list[Load]) -> dict[str, float]:
    return {title: median(load.spent.get(title, 0) for load in loads) for title in loads[0].spent}


@asynccontextmanager
async def _receivers() -> AsyncIterator[tuple[HostPort, Arrivals]]:
    """Run next hops: one that takes connections and says nothing, one that takes all mail."""
    sink = Arrivals()
    await sink.start()
    silent = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=1024)
    try:
        yield HostPort(host="127.0.0.1", port=silent.sockets[0].getsockname()[1]), sink
    finally:
        silent.close()
        await sink.close()
