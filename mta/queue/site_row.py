"""What operators are shown of a site. A module of its own, not compiled: the API's description is made of its types."""

import msgspec


class SiteRow(msgspec.Struct, frozen=True, kw_only=True):
    """A site as operators see it: attempts in flight of the connections allowed, lanes with work due.

    `oldest` is for how long the first of it has been due, of the lanes that have waited for longest; that, and lanes,
    are not for limits to know. `rate` is messages a second, None: not limited. Durations are seconds: for how long it
    is dead or paused yet (0: it is not), and since when it said its last `reply`. `probing`: it is dead, and one
    attempt sees whether it still is. `tenants_paused`: those who are, there.
    """

    site: str
    in_flight: int
    connections: int
    lanes: int = 0
    oldest: float = 0.0
    rate: float | None = None
    dead_for: float = 0.0
    probing: bool = False
    paused_for: float = 0.0
    paused_because: str = ""
    tenants_paused: tuple[str, ...] = ()
    reply: str = ""
    silent_for: float = 0.0
