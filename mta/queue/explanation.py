"""Why an entry does not move: the one gate that holds it now, and when it is expected to be tried. Pure.

The gates stand in the order in which they hold. Those of an entry that is due are the delivery role's to name: it says
in a LaneState what holds the lane. docs/operations.md says what to do about each.
"""

from enum import StrEnum

import msgspec

from mta.queue.drain import Rates
from mta.queue.shown import wish_text
from mta.spool.interface import Due
from mta.spool.records import Claim, Lane

AHEAD = 1000  # entries of a lane before one, beyond which "more than that" is the answer


class HeldBy(StrEnum):
    """What holds an entry."""

    ENDED = "ended"
    IN_FLIGHT = "in_flight"
    HELD = "held"
    SCHEDULED = "scheduled"
    RETRY = "retry"
    # Of what is due:
    DOWN = "delivery_down"
    SICK = "spool_sick"
    DRAINING = "delivery_draining"
    UNSEEN = "lane_unseen"
    LOOKUP = "site_lookup"
    SITE_DEAD = "site_dead"
    SITE_PAUSED = "site_paused"
    TENANT_PAUSED = "tenant_paused"
    TENANT_LIMITED = "tenant_limited"
    RATE = "rate"
    NO_SOURCE = "no_source"
    SITE_FULL = "site_full"
    TURN = "turn"


class LaneState(msgspec.Struct, frozen=True, kw_only=True):
    """What delivery knows of a lane, and what holds whoever is due there.

    `lanes` have work at the site. `until` and `reply` are of a gate that opens by itself, and of the reply that closed
    it. `rates` are what the lane has of each: its own, its fair part of its site's, its part of its tenant's.
    """

    gate: HeldBy
    site: str = ""
    at_work: int = 0
    limit: int = 0
    lanes: int = 0
    until: float = 0.0
    reply: str = ""
    rates: Rates = Rates()


class Asked(msgspec.Struct, frozen=True):
    """What delivery is asked for: entries, and the lane of each."""

    entries: tuple[tuple[str, Lane], ...]


class Says(msgspec.Struct, frozen=True):
    """What delivery says: of each entry its lane's state, and since when it is being tried (0: it is not).

    A `gate` of its own (DOWN, SICK, DRAINING) holds whatever is due; `trouble` says more.
    """

    gate: HeldBy | None = None
    trouble: str = ""
    lanes: tuple[LaneState, ...] = ()
    begun_at: tuple[float, ...] = ()


class Circumstances(msgspec.Struct, frozen=True):
    """What an explanation goes by beside the records. `ahead` is counted up to AHEAD; delivery's `gate` as in Says."""

    now: float
    ahead: int = 0
    lane: LaneState | None = None
    begun_at: float = 0.0
    gate: HeldBy | None = None
    trouble: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why an entry is where it is. `why` is for people; the rest says the same for programs.

    Times are None where there is none or nobody knows: `next_at` is a set time, `estimated_at` what the drain rate
    makes likely (not before that, if `ahead` is AHEAD), or `no_estimate` says why there is none.
    """

    entry: str
    tenant: str
    domain: str
    gate: HeldBy
    why: str
    since_at: float | None = None
    next_at: float | None = None
    attempts: int = 0
    reply: str | None = None
    relay: str | None = None
    ahead: int | None = None
    site: str | None = None
    rate: float | None = None
    rate_of: str | None = None
    estimated_at: float | None = None
    no_estimate: str | None = None
    delivery: str | None = None


class Estimate(msgspec.Struct, frozen=True):
    """When an entry is likely to be tried, by which rate (attempts a second), or why nobody can say."""

    at: float | None = None
    rate: float | None = None
    of: str | None = None
    none_because: str | None = None


class _Held(msgspec.Struct, frozen=True):
    """A gate, and what is said of it."""

    gate: HeldBy
    why: str
    since_at: float | None = None
    next_at: float | None = None
    reply: str = ""


def explain(due: Due, claim: Claim | None, around: Circumstances) -> Explanation:
    """Say which gate holds an entry that has not ended."""
    entry = due.entry
    held = _gate(due, claim, around)
    estimate = _estimate(held, around)
    positioned = held.gate not in (HeldBy.IN_FLIGHT, HeldBy.HELD)
    return Explanation(
        entry=entry.id,
        tenant=entry.tenant,
        domain=entry.domain,
        gate=held.gate,
        why=held.why,
        since_at=held.since_at,
        next_at=held.next_at,
        attempts=entry.attempts if claim is None else claim.attempt,
        reply=held.reply or entry.last_reply or None,
        relay=entry.last_relay or None,
        ahead=around.ahead if positioned else None,
        site=(around.lane.site or None) if around.lane else None,
        rate=estimate.rate,
        rate_of=estimate.of,
        estimated_at=estimate.at,
        no_estimate=estimate.none_because,
        delivery=around.trouble or None,
    )


def _gate(due: Due, claim: Claim | None, around: Circumstances) -> _Held:
    entry, now = due.entry, around.now
    if claim is not None:
        return _in_flight(claim, around)
    if entry.held:
        hold = entry.hold
        return _Held(HeldBy.HELD, f"held {hold.reason}" if hold else "held", hold.at if hold else None)
    if entry.due_at > now and not entry.attempts:
        return _Held(HeldBy.SCHEDULED, "to be sent later", due.message.accepted_at, entry.due_at)
    if entry.due_at > now:
        since_at = entry.last_attempt_at or None
        return _Held(
            HeldBy.RETRY, f"waits for its next attempt, after {_times(entry.attempts)}", since_at, entry.due_at
        )
    if around.gate is not None:
        return _Held(around.gate, f"due, but {around.trouble}", entry.due_at)
    lane = around.lane or LaneState(gate=HeldBy.UNSEEN)
    return _Held(lane.gate, _of_lane(lane), entry.due_at, lane.until or None, lane.reply)


def _in_flight(claim: Claim, around: Circumstances) -> _Held:
    why = f"attempt {claim.attempt} is under way"
    if around.gate is HeldBy.DOWN:
        why = f"attempt {claim.attempt} was under way; {around.trouble}, and gives it back when it starts"
    if claim.wish is not None:
        why += f"; then {wish_text(claim.wish)}, unless it delivers"
    return _Held(HeldBy.IN_FLIGHT, why, around.begun_at or None, claim.retry_at if around.gate is HeldBy.DOWN else None)


def _of_lane(lane: LaneState) -> str:
    """Say what holds whoever is due in a lane; without a limit, whoever asks is not to know of others there."""
    words = {
        HeldBy.UNSEEN: "due; delivery has not come to its lane yet",
        HeldBy.LOOKUP: "due; it is looked up where its mail goes",
        HeldBy.SITE_DEAD: f"due; its site {lane.site} does not answer: one attempt at a time sees whether it does",
        HeldBy.SITE_PAUSED: f"due; its site {lane.site} is left alone for a while, after a reply",
        HeldBy.TENANT_PAUSED: f"due; its tenant is kept from its site {lane.site} for a while, after a reply",
        HeldBy.TENANT_LIMITED: "due; its tenant has had as much as it may in this time",
        HeldBy.RATE: f"due; its site {lane.site} has had as much as it takes in this time",
        HeldBy.NO_SOURCE: f"due; no source that its tenant's mail leaves from may be used for its site {lane.site}",
        HeldBy.SITE_FULL: f"due; all connections to its site {lane.site} are in use",
        HeldBy.TURN: "due; its lane waits for its turn, when a connection is free",
    }
    said = words.get(lane.gate, f"due; {lane.gate.value.replace('_', ' ')}")
    if lane.limit and lane.site:
        said += f" ({lane.at_work} of {lane.limit} in use there; lanes with work there: {lane.lanes})"
    return said


def _times(attempts: int) -> str:
    return "one attempt" if attempts == 1 else f"{attempts} attempts"


def _estimate(held: _Held, around: Circumstances) -> Estimate:
    if held.gate is HeldBy.HELD:
        return Estimate(none_because="it waits until somebody releases it")
    if around.gate is not None:
        return Estimate(none_because=around.trouble)
    if held.gate is HeldBy.IN_FLIGHT:
        return Estimate(none_because="it is being tried")
    lane = around.lane
    rate, of = (0.0, "") if lane is None else drain_rate(lane)
    if not rate:
        return Estimate(none_because="no attempt that tells how quickly it goes has ended in the last minutes")
    return Estimate(max(held.next_at or 0.0, around.now + (around.ahead + 1) / rate), rate, of)


def drain_rate(lane: LaneState) -> tuple[float, str]:
    """Tell how quickly a lane drains, and whose rate says so: its own, else its part of its site's or tenant's."""
    for rate, of in ((lane.rates.lane, "lane"), (lane.rates.site, "site"), (lane.rates.tenant, "tenant")):
        if rate > 0:
            return rate, of
    return 0.0, ""
