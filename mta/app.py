"""The composition root: the parts of each role put together, started, drained and stopped.

A role is one process with one event loop; roles share the spool and the doorbell. Tests run several roles
in one loop with a clock of their own. Nothing here decides anything about mail.

PERF: what only HTTP or only delivery needs is imported by their processes alone. Nine processes start at once, and what
they import is nearly all that they do (docs/performance.md, "Starting").
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

import msgspec

from mta.certificate import CertificateError, OwnCertificate
from mta.companion import household
from mta.config import Config, read
from mta.control import Commands, ControlError, Question, ask, socket_path
from mta.events.mover import Mover
from mta.ingress.access import Accounts
from mta.ingress.server import Ingress
from mta.parts import CannotStart, Parts, RoleStatus
from mta.queue.doorbell import DoorbellSocket
from mta.queue.gate import keep_counted
from mta.queue.prospect import Asked, Prospect
from mta.spool.lmdb.environment import Place

if TYPE_CHECKING:
    from mta.doctor.prospect import Foresight
    from mta.events.views.apart import Building

log = logging.getLogger(__name__)

STATUS_TIMEOUT = 1.0  # seconds that /readyz waits for delivery's word


class IngressRole:
    """SMTP in."""

    def __init__(self, parts: Parts) -> None:
        config = parts.config
        self._gate = parts.gate
        access = Accounts(parts.spool, parts.clock)
        self._uses = access.uses
        self._ingress = Ingress(
            config, config.listeners, parts.queue, parts.spool, access, parts.clock, own_certificate(config)
        )

    async def start(self, sockets: Sequence[socket] = ()) -> None:
        """Listen."""
        self._gate.start()
        self._uses.start()
        await self._ingress.start(sockets)

    async def drain(self, seconds: float) -> None:
        """Stop listening; messages under way may finish."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ingress.drain()

    async def close(self) -> None:
        """Drop what is left."""
        await self._ingress.close()
        await self._uses.close()

    def detail(self) -> dict[str, str | int | float]:
        """Say how it goes."""
        return {}

    def commands(self) -> Commands:
        """Whom it refuses."""
        return {"capacity": self._gate.status}


class HttpRole:
    """The HTTP API."""

    def __init__(self, parts: Parts) -> None:
        from mta.accounts.uses import Uses  # noqa: PLC0415 - see the module's text
        from mta.events.reader import LogReader  # noqa: PLC0415
        from mta.events.views.reader import SqliteViews  # noqa: PLC0415
        from mta.queue.desk import Desk  # noqa: PLC0415
        from relay_http.app import create_app  # noqa: PLC0415
        from relay_http.rates import AccountRates  # noqa: PLC0415
        from relay_http.server import HttpServer  # noqa: PLC0415

        self._gate = parts.gate
        delivery = socket_path(parts.config.run_dir, "delivery")
        log_reader = LogReader(parts.spool, parts.config.segment_dir, parts.keyring)
        desk = Desk(parts.spool, parts.queue, parts.clock, log_reader, delivery)
        self._uses = Uses(parts.spool, parts.clock)
        events = socket_path(parts.config.run_dir, "events")
        self._views = SqliteViews(parts.config.views_dir, parts.spool, events)
        app = create_app(
            parts.config,
            parts.queue,
            parts.spool,
            parts.clock,
            lambda: ask_status(delivery),
            desk,
            self._views,
            rates=AccountRates(parts.spool, parts.clock),
            uses=self._uses,
        )
        try:
            self._server = HttpServer(parts.config, app)
        except CertificateError as error:
            raise CannotStart(str(error)) from None

    async def start(self, sockets: Sequence[socket] = ()) -> None:
        """Listen."""
        self._gate.start()
        self._uses.start()
        await self._server.start(sockets)

    async def drain(self, seconds: float) -> None:
        """Stop listening; requests under way get their answers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._server.drain()

    async def close(self) -> None:
        """Drop what is left."""
        await self._server.close()
        await self._uses.close()
        await self._views.close()

    def detail(self) -> dict[str, str | int | float]:
        """Say how it goes."""
        return {}

    def commands(self) -> Commands:
        """Whom it refuses."""
        return {"capacity": self._gate.status}


class DeliveryRole:
    """SMTP out: exactly one in an installation, and the only one that can open DKIM keys."""

    def __init__(self, parts: Parts, *, poll: float = 1.0) -> None:
        from mta.accounts.dkim_keys import load_or_create_sealing_key  # noqa: PLC0415 - see the module's text
        from mta.delivery.attempt import Attempter  # noqa: PLC0415
        from mta.delivery.attempt import Signer as Signing  # noqa: PLC0415
        from mta.delivery.dispatcher import Dispatcher  # noqa: PLC0415
        from mta.delivery.knowledge import explaining  # noqa: PLC0415
        from mta.delivery.plans import Plans  # noqa: PLC0415
        from mta.delivery.protection import Protection  # noqa: PLC0415
        from mta.delivery.published import Published  # noqa: PLC0415
        from mta.delivery.remembered import Hosts  # noqa: PLC0415
        from mta.delivery.resolver import Resolver  # noqa: PLC0415
        from mta.delivery.signatory import Signatory  # noqa: PLC0415
        from mta.delivery.signing import Signer  # noqa: PLC0415
        from mta.delivery.sources import Sources  # noqa: PLC0415
        from mta.delivery.sts_policies import StsPolicies  # noqa: PLC0415
        from mta.delivery.tlsrpt import TlsResults  # noqa: PLC0415
        from mta.queue import shaping  # noqa: PLC0415
        from mta.queue.deadlines import Deadlines  # noqa: PLC0415
        from mta.queue.lessons import AboutSite  # noqa: PLC0415
        from mta.queue.limits import Limits  # noqa: PLC0415

        config = parts.config
        self._parts = parts
        public = config.dkim_public_file  # outside keys/, which units do not see
        load_or_create_sealing_key(config.dkim_key_file, public)  # for the signatory, which has it from the file
        self._signatory = Signatory(household(config, "delivery"), config.dkim_key_file)
        self._resolver = Resolver(config.dns, parts.clock)
        self._published = Published(parts.spool, self._resolver, parts.clock)
        own = Signer(parts.spool, self._signatory, parts.clock, self._published)
        signer: Signing = own
        if config.arc.domain is not None:
            from mta.delivery.forwarding import Sealer  # noqa: PLC0415

            signer = Sealer(config.arc, own, self._signatory, self._resolver, parts.clock)
        limits = Limits(shaping.load(config.delivery.shaping or shaping.OURS), config.delivery.connections_per_site)
        self._sources = Sources(config, parts.spool, parts.clock)
        self.tls_results = TlsResults(parts.spool, parts.clock)
        self._policies = StsPolicies(config, self._resolver, parts.spool, parts.clock)
        self._protection = Protection(config, self._resolver, parts.spool, parts.clock, self.tls_results)
        plans = Plans(config, self._resolver, self._policies, parts.clock)
        self._attempts = Attempter(
            config, plans, self._protection, signer, parts.spool, self._sources, parts.clock, limits
        )
        self._sees_by = plans, self._protection, own
        self._foresight: Foresight | None = None
        self._dispatcher = Dispatcher(
            parts.spool,
            parts.queue,
            self._attempts,
            limits,
            config.delivery,
            parts.clock,
            sources=self._sources if config.sources else None,
            poll=poll,
        )
        self._deadlines = Deadlines(parts.spool, parts.queue, self._attempts.break_off, parts.clock, poll=poll)
        self._explain = explaining(self._dispatcher, self._attempts, parts.spool)
        self._forget = Question(AboutSite, lambda asked: self._dispatcher.forget(asked.site))
        self._forget_tls = Question(Hosts, lambda asked: self._forget_levels(asked.names))
        self._bell: DoorbellSocket | None = None
        self._running: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    async def start(self, sockets: Sequence[socket] = ()) -> None:
        """Begin to deliver."""
        del sockets
        await self._sources.start()
        await self._protection.memory.recall()
        self._bell = DoorbellSocket(self._parts.config.doorbell, self._ring)
        counting = keep_counted(self._parts.spool, self._parts.clock, self._stop)
        loops = (
            ("dispatcher", self._dispatcher.run()),
            ("deadlines", self._deadlines.run()),
            ("counting", counting),
            ("sts policies", self._policies.run(self._stop)),
            ("tls results", self.tls_results.run()),
            ("dkim", self._published.run()),
        )
        for name, running in loops:
            task = asyncio.create_task(running, name=name)
            task.add_done_callback(_ended)
            self._running.append(task)

    def _ring(self) -> None:
        self._dispatcher.ring()
        self._deadlines.ring()

    async def drain(self, seconds: float) -> None:
        """Claim no more; attempts that have not sent their final dot by then (or their deadline) are broken off."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dispatcher.stop())
            group.create_task(self._attempts.drain(seconds))
        self._deadlines.stop()
        await self.tls_results.drain()

    async def close(self) -> None:
        """Close connections."""
        self._stop.set()
        for each in self._running:
            each.cancel()
            await asyncio.wait((each,))
        await self._attempts.close()
        await self._protection.memory.close()
        await self._policies.close()
        await self._sources.close()
        await self._published.close()
        await self._resolver.close()
        await self._signatory.close()
        if self._bell is not None:
            self._bell.close()

    def detail(self) -> dict[str, str | int | float]:
        """Say how it goes."""
        return {"in_flight": self._dispatcher.in_flight, "signing": self._signatory.trouble or "ok"}

    def commands(self) -> Commands:
        """What delivery alone can be asked for."""
        return {
            "recall": self.recall,
            "explain": self._explain,
            "plan": Question(Asked, self._foresee),
            "sources": self.sources,
            "parked": self.parked,
            "dkim": self._published.look_again,
            "sites": self._dispatcher.sites,
            "forget": self._forget,
            "tls_counted": self.tls_results.keep,
            "tls_forget": self._forget_tls,
            "tls_sessions": self.tls_sessions,
        }

    async def recall(self) -> int:
        """Break off what somebody has wished otherwise and has not sent its final dot; return how many attempts.

        Whoever leaves a wish asks for it. One that is not heard costs nothing: the wish is kept until the outcome.
        """
        claims = await self._parts.spool.claims()
        unwanted = {due.entry.id for due, claim in claims if claim.wish is not None and claim.wish.stops(due.entry)}
        return self._attempts.recall(unwanted)

    async def tls_sessions(self) -> object:
        """Count how sessions with next hops went."""
        return self._protection.counts()

    async def _foresee(self, asked: Asked) -> Prospect:
        """Say what would become of a message. What it takes is imported when it is asked for first."""
        if self._foresight is None:
            from mta.doctor.prospect import Foresight  # noqa: PLC0415

            self._foresight = Foresight(self._parts.config, self._parts.spool, *self._sees_by)
        return await self._foresight.prospect(asked)

    async def _forget_levels(self, names: tuple[str, ...]) -> list[str]:
        return self._protection.memory.forget(names)

    async def sources(self) -> object:
        """Show all sources."""
        return self._sources.rows()

    async def parked(self) -> None:
        """Hear that somebody has changed where sources are parked, and look whether more may be done."""
        await self._sources.reread()
        self._dispatcher.look_again()


class EventsRole:
    """Follows the log: moves it into segment files, and has views built of it. Sends reports, if they were asked for.

    Where a whole relay shares one loop there are no views: they need a process of their own.
    """

    def __init__(self, parts: Parts) -> None:
        self._mover = Mover(parts.spool, parts.config.segment_dir, parts.keyring, parts.clock)
        self._reporting = None
        if parts.config.tlsrpt.contact:
            from mta.reporting import Reporting  # noqa: PLC0415 - see the module's text

            self._reporting = Reporting(parts.config, parts.spool, parts.queue, parts.clock)
        self._views = _views(parts) if parts.role else None
        self._stop = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []

    async def start(self, sockets: Sequence[socket] = ()) -> None:
        """Begin to move, to build views, and to report."""
        del sockets
        for name, loop in (("mover", self._mover), ("views", self._views), ("reports", self._reporting)):
            if loop is not None:
                task = asyncio.create_task(loop.run(self._stop), name=name)
                task.add_done_callback(_ended)
                self._running.append(task)

    async def drain(self, seconds: float) -> None:
        """Stop after the batch under way."""
        self._stop.set()
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def close(self) -> None:
        """Stop at once; what was not moved stays in the spool."""
        for each in self._running:
            each.cancel()
            await asyncio.wait((each,))
        if self._reporting is not None:
            await self._reporting.close()
        if self._views is not None:
            await self._views.close()

    def detail(self) -> dict[str, str | int | float]:
        """Say how it goes."""
        status = self._mover.status()
        detail: dict[str, str | int | float] = {"moved": status.seq, "trouble": status.trouble}
        return detail if self._views is None else detail | self._views.detail()

    def commands(self) -> Commands:
        """What the views can be asked for."""
        return {} if self._views is None else self._views.commands()


def _views(parts: Parts) -> "Building":
    from mta.events.views.apart import Building, Places  # noqa: PLC0415 - see the module's text

    config = parts.config
    places = Places(
        spool=Place(str(config.spool_dir), config.spool.map_size, config.spool.reserve),
        keys=parts.keyring.keys(),
        segments=str(config.segment_dir),
        views=str(config.views_dir),
    )
    return Building(household(config, "events"), places, parts.clock)


ROLES: dict[str, type[IngressRole] | type[HttpRole] | type[DeliveryRole] | type[EventsRole]] = {
    "ingress": IngressRole,
    "http": HttpRole,
    "delivery": DeliveryRole,
    "events": EventsRole,
}


def besides(role: str, config: Config, known: str = "") -> str:
    """Read what a role reads besides the configuration; ConfigError if it is not `known` and cannot be used."""
    if role != "delivery":
        return ""
    from mta.queue import shaping  # noqa: PLC0415 - see the module's text

    path = config.delivery.shaping or shaping.OURS
    text = read(path)
    if known and text != known:
        shaping.parse(text, str(path))
    return text


def own_certificate(config: Config) -> OwnCertificate:
    """Read our certificate; CannotStart when it cannot be used."""
    try:
        return OwnCertificate(config.tls, config.listeners)
    except CertificateError as error:
        raise CannotStart(str(error)) from None


async def ask_status(path: Path) -> msgspec.Struct:
    """Ask a role how it goes; a role that does not answer is down, which is an answer too."""
    try:
        found = await ask(path, "status", STATUS_TIMEOUT)
        return msgspec.convert(found, RoleStatus)
    except (ControlError, msgspec.ValidationError):
        return RoleStatus(role=path.stem, state="down", spool="")


def _ended(task: asyncio.Task[None]) -> None:
    """A role's loop that ends by a defect takes the process with it, as SIGTERM would: the parent starts it anew."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("task=%s died", task.get_name(), exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)
