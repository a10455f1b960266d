"""What may start now: the one place that the dispatcher asks before it starts an attempt. Pure.

How it is used, all with the clock's monotonic seconds as `now`:

- `when(about, now)` tells from when on an attempt may start: `now` itself for at once, a later time to look again
  at, or inf when another attempt to the site has to end first (its `ended` is the time to look again). It changes
  nothing.
- `started(about, now)` must follow in the same turn of the loop, before the claim is awaited.
- `ended(start, outcome, now)` must follow exactly once for each start, with None if the attempt came to nothing by
  our own doing (no claim, cancelled). It returns what the shaping rules say of the message: see `Advice`.

A connection that is dialled costs a token of its own; an attempt over a kept one says `dials=False`, to both. What an
outcome says it dialled is what is charged in the end; and what nobody was asked for costs nothing.

`held_by` names what is in the way where `when` does not say now: a site's limits concern all who go there, others a
tenant or a provider, wherever they go.

What is learned outlives the process: `learned` gives records that a later one passes to `recall`. `rows` shows it,
`forget` resets it. Sites and sources are named by strings that mean the same after a restart. Memory is bounded: when
there is too much, sites that are without any limit are forgotten first, then those that taught nothing for longest,
then those that are dead; never one that has attempts at work.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Verdict
from mta.queue.bucket import Buckets, Limit
from mta.queue.explanation import HeldBy
from mta.queue.learned import Learned, Paused
from mta.queue.pace import REMEMBERED, Pace, in_short
from mta.queue.shaping import Provider, Rule, Shaping, line_of
from mta.queue.site_row import SiteRow
from mta.queue.window import FIRST, Begun

SAID_FOR_ALL = 600.0  # seconds for which one reply may stop all of a site's mail; the message waits as long as it says
_SWEPT_AT = 4096  # paces, pauses and counts, from which on those of no use are looked for
_MOST = 16_384  # paces of sites without attempts at work, and pauses, and counts


class About(NamedTuple):
    """What an attempt is about: from which source, to which site, for which tenant; and the hosts of Aim."""

    source: str
    site: str
    tenant: str
    hosts: tuple[str, ...] = ()


class Aim(NamedTuple):
    """Where a lane's mail goes: its site's name, and the most preferred MX hosts, by which the provider is known."""

    site: str
    hosts: tuple[str, ...] = ()


class Start:
    """An attempt that was started; what it is about may change until it dials (`Limits.goes_elsewhere`)."""

    def __init__(self, about: About, begun: Begun) -> None:
        self.foreseen = about.site
        self.about = about
        self.begun = begun


class Advice(msgspec.Struct, frozen=True):
    """What the rules say of a message after an attempt; nothing, for nearly all.

    `bounced`: who had one of these replies from the site has failed, though it may have been temporary; `hold`: let the
    message wait until it is released. `retry_after`: try it again no sooner, in seconds. `greylisted`: from the same
    source, at the same host and address. `park_for`: the source is not to be used for the site's provider for so many
    seconds. `reasons` has a line for the log for each rule that came into effect.
    """

    bounced: tuple[Reply, ...] = ()
    hold: bool = False
    retry_after: float | None = None
    greylisted: bool = False
    park_for: float = 0.0
    reasons: tuple[str, ...] = ()


class Why(NamedTuple):
    """What keeps an attempt from starting until when (inf: another has to end first), and the reply it is for."""

    gate: HeldBy
    until: float
    reply: str = ""


class _Pause(NamedTuple):
    until: float
    reason: str


NO_ADVICE = Advice()
_NO_PAUSE = _Pause(-math.inf, "")


class _PauseKey(NamedTuple):
    source: str
    site: str
    tenant: str


class Limits:
    """All limits of the delivery role."""

    def __init__(self, shaping: Shaping, connections_per_site: int) -> None:
        """No source has more than `connections_per_site` connections to a site, whatever its provider allows."""
        self._shaping = shaping
        self._connections = connections_per_site
        self._buckets = Buckets(
            [Limit(each.by, msgspec.structs.replace(each.messages, burst=each.burst)) for each in shaping.limits]
        )
        self._paces: dict[tuple[str, str], Pace] = {}
        self._pauses: dict[_PauseKey, _Pause] = {}
        self._matched: dict[tuple[int, _PauseKey], deque[float]] = {}  # when a rule that counts was matched
        rules = [*shaping.rules, *[rule for provider in shaping.providers for rule in provider.rules]]
        self._counted_for = max((rule.within for rule in rules if rule.after > 1), default=0.0)
        self._providers: dict[tuple[str, ...], Provider | None] = {}  # by hosts, as looked up before
        self._sweep_at = _SWEPT_AT

    def when(self, about: About, now: float, *, dials: bool = True, instead_of: Start | None = None) -> float:
        """Return from when on an attempt may start: `now` if at once, inf if another at its site has to end first.

        One that was started already may go there `instead_of` where it was to go.
        """
        found = now
        if self._shaping.limits:
            found, _ = self._buckets.when(self.facts(about), now, self.facts(instead_of.about) if instead_of else {})
        if self._pauses:
            for key in _keys(about):
                found = max(found, self._pauses.get(key, _NO_PAUSE).until)
        if (about.source, about.site) in self._paces:
            found = max(found, self._pace(about).when(now, dials=dials))
        return found

    def why(self, about: About, now: float) -> Why:
        """Tell what keeps an attempt from starting, the longest; TURN if nothing does."""
        at, by = self._buckets.when(self.facts(about), now)
        found = Why(HeldBy.TURN if not by else HeldBy.TENANT_LIMITED if "tenant" in by else HeldBy.RATE, at)
        for key in _keys(about):
            until, reason = self._pauses.get(key, _NO_PAUSE)
            if until > found.until:
                found = Why(HeldBy.TENANT_PAUSED if key.tenant else HeldBy.SITE_PAUSED, until, reason)
        if (about.source, about.site) in self._paces:
            pace = self._pace(about)
            at = pace.when(now, dials=True)
            if at > found.until or pace.window.size == 0:
                found = Why(pace.held_by(now), at, str(pace.reply or ""))
        return found

    def held_by(self, about: About, now: float, *, dials: bool = True) -> tuple[str, ...]:
        """Name the facts that what holds an attempt the longest is by, such as `("tenant", "provider")`."""
        found, by = self._buckets.when(self.facts(about), now)
        for key in _keys(about):
            until = self._pauses.get(key, _NO_PAUSE).until
            if until > found:
                found, by = until, ("tenant", "site") if key.tenant else ("site",)
        if (about.source, about.site) in self._paces and self._pace(about).when(now, dials=dials) > found:
            by = ("source", "site")
        return by

    def started(self, about: About, now: float, *, dials: bool = True) -> Start:
        """Let an attempt start."""
        if len(self._paces) + len(self._pauses) + len(self._matched) >= self._sweep_at:
            self._sweep(now)
        if self._shaping.limits:
            self._buckets.take(self.facts(about), now)
        return Start(about, self._pace(about).started(now, dials=dials))

    def goes_elsewhere(self, start: Start, about: About, now: float) -> None:
        """Have an attempt that was started, and has not dialled, use another source or site than was foreseen."""
        self.ended(start, None, now)
        there = self.started(about, now)
        start.about, start.begun = there.about, there.begun

    def ended(self, start: Start, outcome: Outcome | None, now: float) -> Advice:
        """Learn from an attempt that was started; return what the rules say of its message."""
        about, begun = start.about, start.begun
        pace = self._pace(about)
        if self._shaping.limits and (outcome is None or outcome.reach is Reach.NOBODY):
            self._buckets.give(self.facts(about), now)
        if outcome is None:
            pace.ended(begun, None, now)
            return NO_ADVICE
        replies = _replies(outcome)
        if not replies:
            pace.ended(begun, outcome, now)
            return NO_ADVICE
        matched = self._match(self._provider(about), replies)
        greylisted = next((rule for rule in matched if rule.action == "greylist"), None)
        fired = [greylisted] if greylisted else [rule for rule in matched if self._fires(rule, about, now)]
        slow = next((rule for rule in fired if rule.action == "slow"), None)
        refused = pace.ended(begun, outcome, now, too_much=_too_much(fired), slow=slow)
        if refused and outcome.retry_after is not None:  # the site says when: to everybody, as far as that goes
            lasts = min(outcome.retry_after, SAID_FOR_ALL)
            self._pause(_PauseKey(about.source, about.site, ""), lasts, str(pace.reply), now)
        provider, park_for = self._provider(about), 0.0
        # What a host says that is not the provider's, which may be anybody's, is for its own site alone.
        is_providers = provider is not None and provider.runs(outcome.relay.partition("[")[0])
        for rule in fired:
            if rule.action == "pause" and rule.of == "source" and about.source and is_providers:
                park_for = max(park_for, rule.lasts)
            elif rule.action == "pause":
                self._pause(_key(rule, about), rule.lasts, _said(rule, replies), now)
        bounces = [rule for rule in fired if rule.action == "bounce"]
        return Advice(
            bounced=tuple([each for each in replies if _matches(bounces, line_of(each))]),
            hold=any(rule.action == "hold" for rule in fired),
            retry_after=(outcome.retry_after or greylisted.lasts) if greylisted else None,
            greylisted=greylisted is not None,
            park_for=park_for,
            reasons=tuple(map(_reason, fired)),
        )

    @property
    def first(self) -> int:
        """How many connections a site has at first."""
        return min(FIRST, self._connections)

    def connections(self, about: About) -> int:
        """Return how many connections at most a site has, counting those that wait for an outcome to be stored.

        A dead one has room for its probe.
        """
        pace = self._paces.get((about.source, about.site))
        return max(1, pace.window.size) if pace is not None else self.first

    def deliveries_per_connection(self, about: About, most: int) -> int:
        """Return after how many deliveries a connection is to be ended; `most`: by the configuration."""
        provider, pace = self._provider(about), self._paces.get((about.source, about.site))
        allowed = (provider and provider.deliveries_per_connection) or most
        return min(most, allowed, (pace and pace.deliveries) or most)

    def rows(self, now: float) -> list[SiteRow]:
        """Show what is known of each (source, site), in no order."""
        found, tenants = [], dict[str, list[str]]()
        for key, paused in self._pauses.items():
            if key.tenant and paused.until > now:
                tenants.setdefault(key.site, []).append(key.tenant)
        for (source, site), pace in self._shown(now):
            pause = max(self._pauses.get(_PauseKey(each, site, ""), _NO_PAUSE) for each in ("", source))
            found.append(
                SiteRow(
                    site=site,
                    in_flight=pace.window.at_work,
                    connections=pace.window.size,
                    rate=pace.rate.rate if pace.rate.rate < math.inf else None,
                    dead_for=max(0.0, pace.window.dead_until - now),
                    paused_for=max(0.0, pause.until - now),
                    probing=pace.window.probing,
                    paused_because=pause.reason if pause.until > now else "",
                    tenants_paused=tuple(tenants.get(site, ())),
                    reply=str(pace.reply) if pace.reply else "",
                    silent_for=now - pace.learned_at if pace.reply else 0.0,
                )
            )
        return found

    def _shown(self, now: float) -> Iterator[tuple[tuple[str, str], Pace]]:
        """All that is known, and what is paused besides: a pause can be all that a process before this one left."""
        yield from self._paces.items()
        sites = {site for _, site in self._paces}
        paused = {(key.source, key.site): None for key, pause in self._pauses.items() if pause.until > now}
        for place in paused:
            if place not in self._paces and (place[0] or place[1] not in sites):
                yield place, Pace(self._connections)

    def learned(self, now: float, wall: float) -> tuple[list[Learned], list[Paused]]:
        """Write down what is known at `now`, which is `wall` in absolute seconds."""
        paces = [pace.learned(source, site, now, wall) for (source, site), pace in self._paces.items()]
        pauses = [
            Paused(source=key.source, site=key.site, tenant=key.tenant, until=wall + (until - now), reason=reason)
            for key, (until, reason) in self._pauses.items()
            if until > now
        ]
        return [each for each in paces if each is not None], pauses

    def recall(self, learned: Iterable[Learned], pauses: Iterable[Paused], now: float, wall: float) -> None:
        """Begin with what a process before this one knew. What is from the future, or too old, is left out."""
        for each in learned:
            if 0 <= wall - each.learned_at <= REMEMBERED:
                self._pace(About(each.source, each.site, "")).recall(each, wall - each.learned_at, now)
        for pause in pauses:
            if 0 < pause.until - wall <= REMEMBERED:
                key = _PauseKey(pause.source, pause.site, pause.tenant)
                self._pause(key, pause.until - wall, pause.reason, now)

    def forget(self, site: str) -> bool:
        """Reset what was learned of a site, and tell whether it was known; attempts under way are still counted."""
        paces = [pace for key, pace in self._paces.items() if key[1] == site]
        pauses = [each for each in self._pauses if each.site == site]
        for pace in paces:
            pace.reset()
        for pause in pauses:
            del self._pauses[pause]
        self._matched = {key: times for key, times in self._matched.items() if key[1].site != site}
        return bool(paces or pauses)

    def _pace(self, about: About) -> Pace:
        pace = self._paces.get((about.source, about.site))
        if pace is None:
            pace = self._paces[about.source, about.site] = Pace(self._connections)
        if about.hosts and pace.provider is not (provider := self._provider(about)):
            pace.run_by(provider, self._connections)
        return pace

    def _provider(self, about: About) -> Provider | None:
        if about.hosts not in self._providers:
            if len(self._providers) >= _SWEPT_AT:
                self._providers.clear()
            self._providers[about.hosts] = self._shaping.provider(about.hosts)
        return self._providers[about.hosts]

    def provider_of(self, about: About) -> str:
        """Name who runs a site; "" if no rule knows."""
        provider = self._provider(about)
        return provider.name if provider else ""

    def facts(self, about: About) -> Mapping[str, str]:
        """Return what limits can be by."""
        return {
            "source": about.source,
            "site": about.site,
            "tenant": about.tenant,
            "provider": self.provider_of(about),
        }

    def _match(self, provider: Provider | None, replies: Sequence[Reply]) -> list[Rule]:
        """List the rules that match what the site said; its provider's come before those for all."""
        lines = [line_of(each) for each in replies]
        rules: Sequence[Rule] = (*provider.rules, *self._shaping.rules) if provider else self._shaping.rules
        return [rule for rule in rules if any(map(rule.matches, lines))]

    def _fires(self, rule: Rule, about: About, now: float) -> bool:
        """Count a match; tell whether it is the one that makes them enough."""
        if rule.after == 1:
            return True
        times = self._matched.setdefault((id(rule), _key(rule, about)), deque(maxlen=rule.after))
        times.append(now)
        if len(times) < rule.after or now - times[0] > rule.within:
            return False
        times.clear()
        return True

    def _pause(self, key: _PauseKey, seconds: float, reason: str, now: float) -> None:
        before = self._pauses.get(key)
        if before is None or before.until < now + seconds:
            self._pauses[key] = _Pause(now + seconds, reason)

    def _sweep(self, now: float) -> None:
        """Forget what is of no use any more, and beyond _MOST what is of least use."""
        self._pauses = {key: pause for key, pause in self._pauses.items() if pause.until > now}
        since = now - self._counted_for
        self._matched = {key: times for key, times in self._matched.items() if times and times[-1] >= since}
        for name in sorted(self._pauses, key=lambda each: self._pauses[each].until)[:-_MOST]:
            del self._pauses[name]
        for count in sorted(self._matched, key=lambda each: self._matched[each][-1])[:-_MOST]:
            del self._matched[count]
        idle = sorted(
            [
                (not pace.at_rest(now), not pace.plain(now), pace.learned_at, key)
                for key, pace in self._paces.items()
                if not pace.window.at_work
            ]
        )
        for number, (at_stake, knows, learned_at, site) in enumerate(idle):
            old = not at_stake and (not knows or now - learned_at > REMEMBERED)
            if old or number < len(idle) - _MOST:
                del self._paces[site]
        self._sweep_at = max(_SWEPT_AT, 2 * (len(self._paces) + len(self._pauses) + len(self._matched)))


def _replies(outcome: Outcome) -> list[Reply]:
    """List what the site said to those who got nothing, each once."""
    if all(each.verdict is Verdict.DELIVERED for each in outcome.results):
        return []
    said = [each.reply for each in outcome.results if each.remote and each.verdict is not Verdict.DELIVERED]
    return list(dict.fromkeys(said))


def _said(rule: Rule, replies: Sequence[Reply]) -> str:
    """Return the reply that a rule matched; the last of its site may have been to another's mail."""
    return next(str(in_short(each)) for each in replies if rule.matches(line_of(each)))


def _matches(rules: Sequence[Rule], line: str) -> bool:
    return any(rule.matches(line) for rule in rules)


def _keys(about: About) -> tuple[_PauseKey, ...]:
    """The pauses that concern an attempt."""
    source, site, tenant, _ = about
    return _PauseKey(source, site, ""), _PauseKey("", site, ""), _PauseKey("", site, tenant)


def _key(rule: Rule, about: About) -> _PauseKey:
    """What a rule pauses."""
    source = about.source if rule.of == "source" else ""
    return _PauseKey(source, about.site, about.tenant if rule.of == "tenant" else "")


def _too_much(fired: Sequence[Rule]) -> bool | None:
    """Tell what the rules make of a reply: that there was too much, or not; None if it speaks for itself."""
    actions = {rule.action for rule in fired}
    return False if "greylist" in actions else "refusal" in actions or None


def _reason(rule: Rule) -> str:
    words = "*".join(rule.match[0].words)
    whose = f" of={rule.of}" if rule.action == "pause" else ""
    return f"action={rule.action}{whose} match={words!r}"
