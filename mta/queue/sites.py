"""What the process knows of sites: windows, which are dead, and what they said last. Pure.

Of sites that nothing was learned of nothing is kept; of the others the most recent, so many as there is room for.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from mta.mail.result import Outcome
from mta.queue.window import Window, was_reached

REMEMBERED = 10_000

Site = TypeVar("Site")


class _Known(msgspec.Struct):
    window: Window
    reply: str = ""
    learned_at: float = 0.0


class SiteRow(msgspec.Struct, frozen=True, kw_only=True):
    """A site as operators see it: connections at work, how many it may have, lanes with work for it.

    `dead_for` is how many seconds it is left alone yet, 0 if it is not; `reply` what it said last, `silent_for` how
    many seconds ago.
    """

    site: str
    at_work: int
    window: int
    lanes: int
    dead_for: float
    reply: str
    silent_for: float


class Sites(Generic[Site]):
    """Sites by their key. Times are monotonic seconds."""

    def __init__(self, limit: int) -> None:
        """No site gets more than `limit` connections."""
        self._limit = limit
        self._known: dict[Site, _Known] = {}  # whoever taught us something last is at the end
        self._dead: set[Site] = set()

    def room(self, site: Site, at_work: int, now: float) -> bool:
        """Tell whether a site takes one more connection beside so many."""
        return self._of(site).window.room(at_work, now)

    def learn(self, site: Site, outcome: Outcome, now: float) -> int:
        """Learn from an attempt; return by how much the site's window has changed, below 0 where it died."""
        reached = was_reached(outcome)
        if reached is None:
            return 0
        known = self._of(site)
        self._known.pop(site, None)
        self._known[site] = known
        known.reply, known.learned_at = str(outcome.results[-1].reply), now
        before, size = known.window.size, known.window.learn(reached, now)
        if not size:
            self._dead.add(site)
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return size - before

    def dead_for(self, site: Site, now: float) -> float:
        """Return for how many seconds more a site is left alone; 0 if it is not dead."""
        return max(0.0, self._of(site).window.dead_until - now) if site in self._dead else 0.0

    def revive(self, now: float) -> list[Site]:
        """List the sites that may be tried again; each once."""
        found = [each for each in self._dead if self.dead_for(each, now) <= 0]
        self._dead.difference_update(found)
        return found

    def next_revival(self, now: float) -> float | None:
        """Return in how many seconds there is one to revive; None if none is dead."""
        return min((self.dead_for(each, now) for each in self._dead), default=None)

    def __iter__(self) -> Iterator[Site]:
        return iter(self._known)

    def row(self, site: Site, at_work: int, lanes: int, now: float) -> SiteRow:
        """Show a site."""
        known = self._of(site)
        return SiteRow(
            site=str(site),
            at_work=at_work,
            window=known.window.size,
            lanes=lanes,
            dead_for=self.dead_for(site, now),
            reply=known.reply,
            silent_for=now - known.learned_at if known.reply else 0.0,
        )

    def _of(self, site: Site) -> _Known:
        return self._known.get(site) or _Known(Window(self._limit))
