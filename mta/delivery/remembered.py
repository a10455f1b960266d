"""The best level of TLS that was seen of each host, for as long as `delivery.tls_memory`.

Whoever strips STARTTLS or puts another certificate in place of a host's own is found out by it, where the host was met
before and no policy asks for anything. It is kept in the spool, written when a level rises or a record has become old,
beside the attempts: what is lost with the process is learned again.
"""

import asyncio
import logging
import re
from collections import OrderedDict

import msgspec

from mta.clock import Clock
from mta.delivery.policy import Level
from mta.spool.interface import Spool, SpoolError
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

KIND = "tls level"
HOSTS = 50_000  # remembered; beyond it those met longest ago are forgotten
_RENEWED = 1 / 30  # of the lifetime, after which it is written down that a host was met again
_encode = msgspec.msgpack.Encoder().encode


class Remembered(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The best level that was seen of a host, and when (absolute seconds). New fields go to the end."""

    version: int = 1
    host: str
    port: int
    level: Level
    seen_at: float

    @property
    def name(self) -> str:
        """What it is stored as."""
        return f"{self.host}:{self.port}"


class Hosts(msgspec.Struct, frozen=True):
    """Hosts that delivery is asked about, each a name or `host:port`."""

    names: tuple[str, ...]


_decode = msgspec.msgpack.Decoder(Remembered).decode
_IN_SITE = re.compile(r"(?:^|(?<=, )|(?<= > ))\S+:[0-9]{1,5}(?=,? |$)")


class Memory:
    """What delivery remembers of hosts; with a `lifetime` of 0 seconds nothing."""

    def __init__(self, spool: Spool, clock: Clock, lifetime: float) -> None:
        self._spool = spool
        self._clock = clock
        self._lifetime = lifetime
        self._known: OrderedDict[str, Remembered] = OrderedDict()  # by name, those met longest ago first
        self._unwritten: dict[str, Remembered | None] = {}  # by name; None: to be removed
        self._writing: asyncio.Task[None] | None = None

    async def recall(self) -> None:
        """Begin with what is stored; what is over is removed."""
        oldest = self._clock.now() - self._lifetime
        for each in await stored(self._spool):
            if each.seen_at > oldest and self._lifetime:
                self._known[each.name] = each
            else:
                self._write(each.name, None)

    def level(self, host: str, port: int) -> Level:
        """Return the best level that was seen of a host; CLEAR if none is remembered."""
        found = self._known.get(f"{host}:{port}")
        if found is None or found.seen_at + self._lifetime <= self._clock.now():
            return Level.CLEAR
        return found.level

    def saw(self, host: str, port: int, level: Level) -> None:
        """Learn what a host has just shown; less than is remembered changes nothing."""
        if level is Level.CLEAR or not self._lifetime or level < self.level(host, port):
            return
        met = Remembered(host=host, port=port, level=level, seen_at=self._clock.now())
        before = self._known.get(met.name)
        if before is not None and before.level is level and met.seen_at < before.seen_at + _RENEWED * self._lifetime:
            return
        self._known[met.name] = met
        self._known.move_to_end(met.name)
        self._write(met.name, met)
        if len(self._known) > HOSTS:
            name, _ = self._known.popitem(last=False)
            self._write(name, None)

    def forget(self, names: tuple[str, ...]) -> list[str]:
        """Forget hosts, each a name or `host:port`; return which of those that were remembered."""
        found = [name for name, each in self._known.items() if name in names or each.host in names]
        for name in found:
            del self._known[name]
            self._write(name, None)
        return found

    async def close(self) -> None:
        """Write down what is not yet."""
        while self._writing is not None:
            await asyncio.wait((self._writing,))

    def _write(self, name: str, remembered: Remembered | None) -> None:
        self._unwritten[name] = remembered
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="tls memory")

    async def _write_all(self) -> None:
        try:
            while self._unwritten:
                name, remembered = self._unwritten.popitem()
                if remembered is None:
                    await self._spool.delete_record(KIND, name)
                else:
                    await self._spool.put_record(KIND, name, _encode(remembered), replace=True)
        except SpoolError as error:  # it is remembered until this process ends, and learned again then
            log.error("tls=remembered written=no hosts=%d error=%s", len(self._unwritten) + 1, error)
            self._unwritten.clear()
        finally:
            self._writing = None


def hosts_in(site: str) -> list[str]:
    """Name the hosts in a site's name, as they are remembered; none if it is no such name."""
    found: list[str] = _IN_SITE.findall(site)
    return found


async def stored(spool: Spool) -> list[Remembered]:
    """Return what is stored, those met longest ago first; what cannot be read is left out."""
    try:
        records = await spool.list_records(KIND)
    except SealBroken as error:
        log.error("tls=remembered read=no error=%s", error)
        return []
    found: list[Remembered] = []
    for name, value in records:
        try:
            found.append(_decode(value))
        except msgspec.MsgspecError as error:
            log.error("tls=remembered name=%r read=no error=%s", name, error)
    return sorted(found, key=lambda each: each.seen_at)


async def forget(spool: Spool, names: tuple[str, ...]) -> list[str]:
    """Remove what is stored of hosts, while no process is that knows it; return of which there was something."""
    found = [each.name for each in await stored(spool) if each.name in names or each.host in names]
    for name in found:
        await spool.delete_record(KIND, name)
    return found
