"""Which source an attempt leaves from: the decision. Pure; times are absolute seconds, days those of UTC since 1970.

A pool's sources share its deliveries by weight, counted in recipients, at each provider (mta.queue.shares); those that
may not be used now are passed over, and get nothing for that time when they are back.
"""

from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from mta.queue.shares import Shares

DAY = 86_400.0
OTHER = "other"  # all providers that are not counted one by one
NEVER = float("inf")


class WarmUp(msgspec.Struct, frozen=True):
    """The first day of a source, and to how many recipients of one provider it delivers on that and each next day."""

    first_day: int
    caps: tuple[int, ...]

    def cap(self, day: int) -> int | None:
        """Return the cap of a day; None when it is warm."""
        number = day - self.first_day
        if number < 0:
            return 0
        return self.caps[number] if number < len(self.caps) else None


class Source(msgspec.Struct, frozen=True):
    """A local address of one family or of each, and the name it says in EHLO.

    The source "" is that of a machine without configured ones: the system chooses the address.
    """

    name: str
    hostname: str
    addresses: tuple[str, ...] = ()
    warm_up: WarmUp | None = None

    def local(self, peer: str) -> str | None:
        """Return the address to reach `peer` from: "" for the system's choice, None if there is none of its family."""
        if not self.addresses:
            return ""
        return next((each for each in self.addresses if (":" in each) is (":" in peer)), None)


class Leaving(NamedTuple):
    """Where a connection leaves from: a source, and its address for that peer ("": the system's choice)."""

    source: Source
    address: str


class Want(NamedTuple):
    """What a source is wanted for: `recipients` of a provider, and whether warm-ups count them.

    Where nobody knows the provider it is OTHER, which warm-ups count as one, and `site` names the site: turns are its
    own, and a source can be parked for it alone. `preferred` is the source that the message left from before, if it has
    to be the same ("": none); those of `but` cannot reach the site.
    """

    provider: str
    recipients: int
    counts: bool = True
    preferred: str = ""
    but: Collection[str] = ()
    site: str = ""

    @property
    def whose(self) -> str:
        """For whom a source can be parked, and has turns: the provider, or the site where none is known."""
        return self.site or self.provider


def want_of(
    provider: str, site: str, recipients: int, *, counts: bool, preferred: str = "", but: Collection[str] = ()
) -> Want:
    """Say what is wanted at a site, whose provider may not be known ("")."""
    return Want(provider or OTHER, recipients, counts, preferred, but, "" if provider else site)


class Wait(NamedTuple):
    """No source may be used before `until` (NEVER: none can), and why."""

    until: float
    why: str


class Standing(NamedTuple):
    """From when on a source may be used, and why not now ("": it may)."""

    opens_at: float
    why: str = ""


OPEN = Standing(0.0)  # whenever that is asked: another may have looked at the clock a moment before


def standing(source: Source, want: Want, counted: int, parked: Standing, now: float) -> Standing:
    """Tell whether a source may be used: `counted` are today's recipients of the provider, `parked` says until when."""
    if source.name in want.but:
        return Standing(NEVER, "cannot reach it")
    if parked.opens_at > now:
        return parked
    day = int(now // DAY)
    cap = source.warm_up.cap(day) if source.warm_up is not None and want.counts else None
    if cap is None or counted + want.recipients <= cap:
        return OPEN
    assert source.warm_up is not None  # it has a cap
    if day < source.warm_up.first_day:
        return Standing(source.warm_up.first_day * DAY, "its warm-up has not begun")
    return Standing((day + 1) * DAY, f"{counted} of today's {cap} for {want.provider}")


def begin(weights: Mapping[str, int], pool: str, want: Want) -> Shares[str]:
    """Make the shares of a pool at a provider, as they are after some of the turns that come again and again.

    Or else the first source would get the only message of each of ten thousand small sites. How many turns those are is
    chance, but the same after a restart.
    """
    drawn = blake2b(f"{pool}\0{want.whose}".encode(), digest_size=8).digest()
    first, turn = "", int.from_bytes(drawn, "big") % sum(weights.values())
    for first in weights:  # whose turn it is, number `turn` of as many as its weight
        if turn < weights[first]:
            break
        turn -= weights[first]
    shares = Shares[str](weights.__getitem__)
    for name in weights:
        shares.enter(name)
    had = True  # of those who have a turn at the same point, the ones before it have had theirs
    for name, weight in weights.items():
        had = had and name != first
        until_next = (-turn * weight % weights[first]) / weights[first]
        shares.charge(name, want.recipients * (until_next or float(had)))
    return shares


def choose(
    standings: Mapping[str, Standing], shares: Shares[str], want: Want, now: float, room: Callable[[str], bool]
) -> str | Wait:
    """Choose the source whose turn it is among those that may be used and have room, and charge it.

    One that is preferred goes out of turn and is not charged: it was when the message left for the first time. For want
    of room alone nobody takes its place: the wait is until one has room, its `until` is not after `now`.
    """
    usable = [name for name, found in standings.items() if found.opens_at <= now]
    if want.preferred in usable:
        return want.preferred if room(want.preferred) else Wait(now, f"{want.preferred}: no room")
    for name in standings:
        if name in usable and room(name):
            shares.enter(name)
        else:
            shares.leave(name)
    chosen = shares.first()
    if chosen is None:
        reasons = [f"{name}: {found.why or 'no room'}" for name, found in standings.items()]
        return Wait(min(found.opens_at for found in standings.values()), ", ".join(reasons))
    shares.serve(chosen)
    shares.charge(chosen, want.recipients - 1)
    return chosen
