"""What was learned of sites, as it is stored, shown and exported."""

import math

import msgspec

from mta.queue.rate import BELOW, SCALE_FIRST


class Learned(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is known of a (source, site), as it is stored, shown and exported. New fields go to the end.

    `learned_at` is when the site last taught something, in absolute seconds. `ceiling` is in messages a second (None:
    none was ever refused for the rate) and `factor`, `scale`, `climbed` are those of mta.queue.rate.
    `connections_refused` is a number of connections that was refused, and for how many seconds from `learned_at` on
    that is believed; `deliveries` is after how many the site ends a connection, 0 if it is not known.
    """

    version: int = 1
    source: str
    site: str
    learned_at: float
    connections: int
    connections_refused: int | None = None
    connections_refused_for: float = 0.0
    ceiling: float | None = None
    factor: float = BELOW
    scale: float = SCALE_FIRST
    climbed: float = 0.0
    deliveries: int = 0

    def __post_init__(self) -> None:
        """ValueError for what cannot have been learned: records can be edited and imported."""
        known = self.ceiling is None or 0 < self.ceiling < math.inf
        curve = 0 < self.factor < 1 and 0 < self.scale < math.inf and 0 <= self.climbed < math.inf
        if not (math.isfinite(self.learned_at) and known and curve):
            raise ValueError("not a rate that can have been learned")
        refused = self.connections_refused is None or self.connections_refused >= 2
        if self.connections < 1 or not refused or not 0 <= self.connections_refused_for < math.inf:
            raise ValueError("not a number of connections that can have been learned")
        if self.deliveries < 0:
            raise ValueError("not a number of deliveries that can have been learned")


class Paused(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A pause as it is stored and shown, until absolute seconds; for all sources or tenants where there is none."""

    version: int = 1
    source: str = ""
    site: str
    tenant: str = ""
    until: float
    reason: str = ""
