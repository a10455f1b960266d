"""How sessions with next hops are protected: demands made, what hosts show judged, noted for reports, and remembered.

The thin shell around `policy.py`, which decides. A kept connection was judged when it was made, for all that its site
asks.
"""

import logging
import ssl
from collections import Counter, defaultdict
from pathlib import Path
from typing import Protocol

import msgspec

from mta.accounts.tenants import settings_of
from mta.clock import Clock
from mta.config import Config
from mta.delivery import policy
from mta.delivery.certificates import Roots, by_authority, by_tlsa, chain_of
from mta.delivery.dane import dane_of
from mta.delivery.plans import Plan
from mta.delivery.policy import Dane, Demand, Failure, Flaw, Known, Level, Needs, Refusal, Shown
from mta.delivery.remembered import Memory
from mta.delivery.resolver import Resolver
from mta.delivery.route import Target
from mta.delivery.smtp import Connection, connect
from mta.delivery.source import Leaving
from mta.delivery.sts import matches
from mta.delivery.tls import Hello, TlsContexts
from mta.delivery.tlsrpt import Session
from mta.delivery.trouble import Fault, Stage, Trouble
from mta.spool.interface import Spool
from mta.spool.records import Message

log = logging.getLogger(__name__)

TENANTS_INTERVAL = 10.0  # seconds after which another least level of a tenant is known
ROOTS_INTERVAL = 600.0  # seconds after which other authorities of the system or of a file are known
_TENANTS = 10_000  # whose least level is known at a time
_LEAST = {"encrypted": Level.ENCRYPTED, "verified": Level.VERIFIED}
_NO_DANE = Dane()


class Results(Protocol):
    """Hears how sessions went, for reports; mta.delivery.tlsrpt."""

    def note(self, session: Session) -> None:
        """Count a session. Never raises."""


class Protection:
    """What delivery knows of authorities, of hosts it has met, and of what tenants want."""

    def __init__(self, config: Config, resolver: Resolver, spool: Spool, clock: Clock, results: Results) -> None:
        """OSError if a file of authorities cannot be used."""
        self.settings = config.delivery
        self.resolver = resolver
        self.clock = clock
        self.memory = Memory(spool, clock, config.delivery.tls_memory)
        self.contexts = TlsContexts()
        self._roots: dict[Path | None, Roots] = {  # by the file that a route pins
            None: _roots("delivery.ca_file", config.delivery.ca_file)
        }
        for number, route in enumerate(config.routes):
            if route.ca_file is not None:
                self._roots[route.ca_file] = _roots(f"routes.{number}.ca_file", route.ca_file, only=True)
        self._look_at = clock.monotonic() + ROOTS_INTERVAL
        self._spool = spool
        self._results = results
        self._needs: dict[str, tuple[float, Needs]] = {}  # of tenants: until when (monotonic)
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def needs_of(self, message: Message) -> Needs:
        """Say what a message asks of each session. SpoolError."""
        needs = await self.needs_of_tenant(message.tenant)
        if not message.tls_required:
            return needs
        asked = message.tls_required
        least = max(needs.least, _LEAST.get(asked, Level.CLEAR))
        return msgspec.structs.replace(needs, least=least, required=message.needs_tls, waived=asked == "no")

    async def needs_of_tenant(self, name: str) -> Needs:
        """Say what every message of a tenant asks. SpoolError."""
        now = self.clock.monotonic()
        until, needs = self._needs.get(name, (now, Needs()))
        if now >= until:
            tenant = await settings_of(self._spool, name)
            needs = Needs(least=_LEAST.get(tenant.tls, Level.CLEAR))
            if len(self._needs) >= _TENANTS and name not in self._needs:
                del self._needs[next(iter(self._needs))]
            self._needs[name] = now + TENANTS_INTERVAL, needs
        return needs

    def roots(self, ca_file: Path | None) -> Roots:
        """Return the authorities of a route's file, or those of everybody.

        They are what they are now: a host whose new certificate is of a new authority has not become worse.
        """
        now = self.clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + ROOTS_INTERVAL
            for each in self._roots.values():
                each.look()
        return self._roots[ca_file]

    def counts(self) -> dict[str, dict[str, int]]:
        """Tell how sessions went since the start: by policy, how many were successful or which failure they had."""
        return {policy: dict(counted) for policy, counted in sorted(self._counts.items())}

    def count(self, asked: str, result: str) -> None:
        """Count how a session under a policy went."""
        self._counts[asked][result] += 1

    def note(self, session: Session) -> None:
        """Note a session of a domain for its report."""
        self._results.note(session)


def _roots(key: str, file: Path | None, *, only: bool = False) -> Roots:
    try:
        return Roots(file, only=only)
    except OSError as error:
        raise OSError(error.errno, f"{key} {error.strerror or error}") from None


class NextHops:
    """The hosts that one message may go to: what each has to show is found out when its turn comes, once."""

    def __init__(self, protection: Protection, plan: Plan, needs: Needs) -> None:
        self.site = plan.site
        self.needs = needs
        self._protection = protection
        self._plan = plan
        self._found: dict[tuple[str, int], _Guard | Refusal] = {}

    async def look_at(self, target: Target) -> "_Guard":
        """Find out what a host has to show; Trouble if it is not to be dialled."""
        hop = target.host, target.port
        found = self._found.get(hop)
        if found is None:
            found = self._found[hop] = await self._look_at(*hop)
        if isinstance(found, Refusal):
            raise Trouble(Stage.CONNECT, found.fault, found.flaw.text)
        return found

    async def dial(self, target: Target, leaving: Leaving) -> Connection:
        """Set up a session that shows what it has to; Trouble, which says what was missing."""
        guard = await self.look_at(target)
        guard.begin()
        try:
            made = await connect(target, self.site, leaving, self._protection.settings, guard)
        except Trouble as trouble:
            if trouble.stage is Stage.TLS:
                guard.failed(trouble, leaving.address, target.address)
                raise guard.explained(trouble, target) from None
            raise
        # what is good enough for this message may not be for the next
        made.single = self.needs.waived or guard.for_domain_alone
        made.level = guard.dependable
        made.judged_at = self._protection.clock.monotonic()
        guard.made(made)
        return made

    def take(self, kept: Connection) -> bool:
        """Tell whether the message may go over a connection that was kept for its site."""
        needs, sts, host = self.needs, self._plan.standing.policy, kept.target.host
        if kept.level < needs.least:
            return False
        if not needs.required:
            return True
        listed = sts is None or matches(sts, host)
        known = Known(host=host, routed=self.site.routed, secure=self.site.secure, sts=sts, listed=listed)
        return kept.level is Level.VERIFIED and kept.offered.requiretls and policy.proven(known)

    def told(self, by: str) -> str:
        """Say in an event who asked for what, where a next hop's policies are `by`."""
        return policy.told(by, self.needs, self._plan.standing.policy)

    def policy_of(self, target: Target) -> str:
        """Say in an event who asked for what of a host that was looked at."""
        found = self._found.get((target.host, target.port))
        return self.told(found.by if isinstance(found, Refusal) else found.demand.by if found is not None else "")

    async def _look_at(self, host: str, port: int) -> "_Guard | Refusal":
        site, sts, protection = self.site, self._plan.standing.policy, self._protection
        known = Known(
            host=host,
            domain=self._plan.domain,
            mode=site.tls,
            routed=site.routed,
            secure=site.secure,
            sts=sts,
            listed=sts is None or matches(sts, host),
            dane=await dane_of(host, port, protection.resolver) if site.secure and not self.needs.waived else _NO_DANE,
            remembered=protection.memory.level(host, port),
        )
        demand = policy.demand_of(known, self.needs)
        if isinstance(demand, Refusal):
            if demand.by:  # otherwise it is what the message wants, which is nothing to report
                _Guard(protection, self._plan, known, Demand(names=(host,)), self.needs).note(demand.flaw)
            return demand
        return _Guard(protection, self._plan, known, demand, self.needs)


class _Guard:
    """What one next hop is held against, and what came of it."""

    def __init__(self, protection: Protection, plan: Plan, known: Known, demand: Demand, needs: Needs) -> None:
        self.demand = demand
        self._protection = protection
        self._plan = plan
        self._known = known
        self._needs = needs
        self.begin()

    def begin(self) -> None:
        """Forget the session before: each address of a host has its own."""
        self.for_domain_alone = False  # by what its certificate is for, other domains may not use a session
        self._flaw: Flaw | None = None
        self._stumbled: Flaw | None = None
        self.dependable = Level.CLEAR  # which messages that ask for a level may count on
        self._level = self._memorable = Level.CLEAR
        self._old = False

    def context(self, hello: Hello) -> ssl.SSLContext:
        """Return the context for a handshake."""
        self._old = hello is Hello.OLD
        return self._protection.contexts.context(hello)

    def admit(self, session: ssl.SSLObject | None) -> Level:
        """Judge a session before anything is said over it; Trouble if it does not meet the demand."""
        shown = self._shown(session) if session is not None else Shown()
        self._level = policy.level_of(self.demand, shown)
        self.dependable = policy.dependable(self.demand, shown)
        self._memorable = policy.memorable(self.demand, shown, pinned=self._plan.site.ca_file is not None)
        refusal = policy.judge(self.demand, shown)
        if refusal is not None:
            self._flaw = refusal.flaw
            raise Trouble(Stage.TLS, refusal.fault, refusal.flaw.text)
        self._flaw = self._remark(shown)
        return self._level

    def _remark(self, shown: Shown) -> Flaw | None:
        """Say what is to be told of a session that will do: that the policy cannot be had, or what is wrong with it."""
        standing, asked = self._plan.standing, self._asked()
        if asked in ("waived", "route"):
            return None
        if asked == "no-policy-found" and standing.failure is not None:
            return Flaw(standing.failure, standing.text)
        flaw = policy.rehearse(self._known, self.demand, shown)
        if flaw is not None and flaw.failure is Failure.STARTTLS_NOT_SUPPORTED and self._stumbled is not None:
            return self._stumbled  # it was offered
        return flaw

    def stumbled(self, trouble: Trouble) -> None:
        """Remember why there is no better session."""
        self._stumbled = _flaw_of(trouble)

    def made(self, connection: Connection) -> None:
        """Learn from a session that was set up."""
        target = connection.target
        self.note(self._flaw, connection.source, target.address)
        self._protection.memory.saw(target.host, target.port, self._memorable)

    def failed(self, trouble: Trouble, source: str, address: str) -> None:
        """Learn from a session that came to nothing because of TLS."""
        flaw = self._flaw or _flaw_of(trouble)
        remembered = self._known.remembered
        if self._level < remembered and not self._needs.waived:
            self._protection.count("memory", str(flaw.failure))
            words = remembered.name.lower(), self._level.name.lower()
            log.warning("host=%s address=%s tls=fell from=%s to=%s", self._known.host, address, *words)
        if self.demand.own:
            self._protection.count("message", str(flaw.failure))
        else:
            self.note(flaw, source, address)

    def explained(self, trouble: Trouble, target: Target) -> Trouble:
        """Say with a handshake that failed who wanted it."""
        if trouble.fault not in (None, Fault.TLS) or not self.demand.words:
            return trouble
        text = trouble.text or f"{target}: {trouble.reply}"
        text = f"{text}; TLS is asked for by: {self.demand.words}"
        return Trouble(Stage.TLS, Fault.NEEDS_LEVEL if self.demand.own else trouble.fault or Fault.UNENCRYPTED, text)

    def note(self, flaw: Flaw | None, source: str = "", address: str = "") -> None:
        """Count a session, and note it for the report of its domain unless policies were not asked."""
        failure = flaw.failure if flaw is not None else None
        self._protection.count(self._asked(), str(failure or "successful"))
        if self._plan.site.routed or self._needs.waived:
            return
        self._protection.note(
            Session(
                at=self._protection.clock.now(),
                domain=self._plan.domain,
                sts=self._plan.standing.policy,
                dane=self._known.dane.records or None,
                host=self._known.host,
                source=source,
                address=address,
                failure=failure,
                text=flaw.text if flaw is not None else "",
            )
        )

    def _asked(self) -> str:
        """Name the policy that a session is counted under (RFC 8460 4.4), or whose else it is."""
        if self._plan.site.routed:
            return "route"
        if self._needs.waived:
            return "waived"
        if self._known.dane.state is not policy.DaneState.NONE:
            return "tlsa"
        return "sts" if self._plan.standing.policy is not None else "no-policy-found"

    def _shown(self, session: ssl.SSLObject) -> Shown:
        chain, now = chain_of(session), self._protection.clock.now()
        version = session.version() or ""
        if self.demand.tlsa:
            names, domain = self.demand.names, self._plan.domain
            flaw = by_tlsa(chain, self.demand.tlsa, names, now)
            hosts = tuple([each for each in names if each != domain or each == self._known.host])
            self.for_domain_alone = flaw is None and by_tlsa(chain, self.demand.tlsa, hosts, now) is not None
            return Shown(version=version, by_tlsa=flaw)
        roots = self._protection.roots(self._plan.site.ca_file)
        flaw = by_authority(chain, self._known.host, roots, now)
        return Shown(version=version, old=self._old, by_authority=flaw)


def _flaw_of(trouble: Trouble) -> Flaw:
    """Name what came of STARTTLS, where that came to no session (RFC 8460 4.3)."""
    refused = trouble.reply is not None
    failure = Failure.STARTTLS_NOT_SUPPORTED if refused else Failure.VALIDATION_FAILURE
    return Flaw(failure, trouble.text or str(trouble.reply))
