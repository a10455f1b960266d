"""Who gets a slot: tenants by weight in the process and at each site, below that classes by share, then lanes. Pure.

At a site with room it is its own shares that say whose turn it is. Which site comes next the process's shares say: each
site stands where, of the tenants with work there, the one that is furthest back in the process stands. So a tenant
that floods one site, or ten thousand, or a thousand domains of one, does not hold up another at any of them, and a
slot never stays free while somebody could use it.
"""

from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

from mta.queue.shares import Shares
from mta.spool.records import Lane, MessageClass

CLASS_SHARES = {MessageClass.HIGH: 8.0, MessageClass.NORMAL: 3.0, MessageClass.BULK: 1.0}
_SPARE = 64  # tenants of which something is kept though they have nothing just now

Site = TypeVar("Site", bound=Hashable)


class _Tenant:
    """A tenant's work at one site."""

    def __init__(self) -> None:
        self.classes: Shares[MessageClass] = Shares(CLASS_SHARES.__getitem__)
        self.lanes: dict[MessageClass, Shares[Lane]] = {}


class _Place(Generic[Site]):
    """A site: who has work there, and how many slots are at it."""

    def __init__(self, site: Site, weight: Callable[[str], float]) -> None:
        self.site = site
        self.shares: Shares[str] = Shares(weight)
        self.tenants: dict[str, _Tenant] = {}
        self.at_work = 0
        self.sponsor: str | None = None  # in whose turn in the process it comes; None while it has no room
        self._standing: list[tuple[float, str]] = []  # tenants by where they stood in the process when last looked at

    def enter(self, tenant: str, point: float) -> _Tenant:
        """Let a tenant have work here; `point` is where it stands in the process."""
        work = self.tenants.get(tenant)
        if work is None:
            work = self.tenants[tenant] = _Tenant()
            self.shares.enter(tenant)
            heappush(self._standing, (point, tenant))
            if len(self._standing) > 2 * len(self.tenants) + _SPARE:  # of those who came and went
                once = {each: then for then, each in self._standing if each in self.tenants}
                self._standing = [(then, each) for each, then in once.items()]
                heapify(self._standing)
        return work

    def leave(self, tenant: str) -> None:
        """Note that a tenant has no more work here."""
        del self.tenants[tenant]
        self.shares.leave(tenant)

    def furthest_back(self, point: Callable[[str], float]) -> str | None:
        """Find, of the tenants with work here, the one that stands furthest back in the process."""
        standing = self._standing
        while standing:
            then, tenant = standing[0]
            if tenant not in self.tenants:
                heappop(standing)
            elif then < (now := point(tenant)):  # it was served since, here or elsewhere
                heapreplace(standing, (now, tenant))
            else:
                return tenant
        return None

    def next_behind(self, first: str, point: Callable[[str], float]) -> float | None:
        """Tell where the one stands that comes behind `first`, which is furthest back; None if there is none."""
        if len(self.tenants) < 2:
            return None
        own = heappop(self._standing)
        while (second := self.furthest_back(point)) == first:  # it left and came again
            heappop(self._standing)
        heappush(self._standing, own)
        return None if second is None else point(second)


class Turns(Generic[Site]):
    """Lanes with work, by site, and whose turn it is."""

    def __init__(self, weight: Callable[[str], float], room: Callable[[Site, int], bool]) -> None:
        """`weight` of a tenant, above 0; `room` tells whether a site takes one more beside so many slots."""
        self._weight = weight
        self._room = room
        self._places: dict[Site, _Place[Site]] = {}
        self._site_of: dict[Lane, Site] = {}  # of lanes with work
        self._shares: Shares[str] = Shares(weight)  # of the tenants that sponsor a site
        self._sponsored: dict[str, Shares[Site]] = {}  # by tenant
        self._contested: dict[str, list[tuple[float, int, Site]]] = {}  # by sponsor: from which point it is another's
        self._entries = 0

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._site_of

    def at_work(self, site: Site) -> int:
        """Tell how many slots are at a site."""
        place = self._places.get(site)
        return 0 if place is None else place.at_work

    def ready(self, lane: Lane, site: Site) -> None:
        """Note that a lane has work, for a site."""
        if lane in self._site_of:
            return
        self._site_of[lane] = site
        place = self._place(site)
        comes = lane.tenant not in place.tenants
        work = place.enter(lane.tenant, self._shares.point(lane.tenant))
        lanes = work.lanes.get(lane.message_class)
        if lanes is None:
            lanes = work.lanes[lane.message_class] = Shares()
            work.classes.enter(lane.message_class)
        lanes.enter(lane)
        self._look(place)
        if comes:
            self._contest(place)

    def idle(self, lane: Lane) -> None:
        """Note that a lane has no more work."""
        site = self._site_of.pop(lane, None)
        if site is None:
            return
        place = self._places[site]
        work = place.tenants[lane.tenant]
        lanes = work.lanes[lane.message_class]
        lanes.leave(lane)
        if not lanes:
            del work.lanes[lane.message_class]
            work.classes.leave(lane.message_class)
        if not work.lanes:
            place.leave(lane.tenant)
        self._look(place)

    def take(self, stay: Site | None = None) -> tuple[Lane, Site] | None:
        """Give a slot to the lane whose turn it is; None if there is none.

        Of the sites that come in the same tenant's turn it is `stay`, if that is one of them. The lane is charged one
        recipient at once, so that the next who takes gets the next.
        """
        while (tenant := self._shares.first()) is not None:
            sites = self._sponsored[tenant]
            site = stay if stay is not None and stay in sites else sites.first()
            assert site is not None  # whoever sponsors none has no share
            place = self._places[site]
            sites.charge(site)
            served = place.shares.first()
            assert served is not None
            work = place.tenants[served]
            message_class = work.classes.first()
            assert message_class is not None
            lane = work.lanes[message_class].first()
            assert lane is not None
            place.at_work += 1
            self.charge(lane, site, 1)
            return lane, site
        return None

    def charge(self, lane: Lane, site: Site, recipients: int) -> None:
        """Charge a lane, and all that it belongs to, for what it got at a site; it may have no more work there."""
        self._shares.charge(lane.tenant, recipients)
        self._pass_on(lane.tenant)
        place = self._places.get(site)
        if place is None:
            return
        place.shares.charge(lane.tenant, recipients)
        work = place.tenants.get(lane.tenant)
        if work is not None:
            work.classes.charge(lane.message_class, recipients)
            lanes = work.lanes.get(lane.message_class)
            if lanes is not None:
                lanes.charge(lane, recipients)
        self._look(place)

    def hold(self, site: Site) -> None:
        """Keep a slot at a site for nobody's turn."""
        place = self._place(site)
        place.at_work += 1
        self._look(place)

    def leave(self, site: Site) -> bool:
        """Give back a slot; tell whether somebody could use it."""
        place = self._places[site]
        place.at_work -= 1
        self._look(place)
        return place.sponsor is not None

    def look(self, site: Site) -> None:
        """Ask anew whether a site has room."""
        if (place := self._places.get(site)) is not None:
            self._look(place)

    def _place(self, site: Site) -> _Place[Site]:
        place = self._places.get(site)
        if place is None:
            place = self._places[site] = _Place(site, self._weight)
        return place

    def _look(self, place: _Place[Site]) -> None:
        """Have a site come in the turn of whoever has work there and stands furthest back, if it has room."""
        has_room = self._room(place.site, place.at_work)
        sponsor = place.furthest_back(self._shares.point) if has_room else None
        before = place.sponsor
        if sponsor != before:
            if sponsor is not None:
                self._sites_of(sponsor).enter(place.site)
                self._shares.enter(sponsor)
            if before is not None:
                sites = self._sponsored[before]
                sites.leave(place.site)
                if not sites:
                    self._shares.leave(before)
            place.sponsor = sponsor
            self._contest(place)
        if not place.at_work and not place.tenants:
            del self._places[place.site]

    def _contest(self, place: _Place[Site]) -> None:
        """Note from which point of its sponsor on a site comes in another's turn."""
        sponsor = place.sponsor
        if sponsor is None:
            return
        behind = place.next_behind(sponsor, self._shares.point)
        if behind is not None:
            self._entries += 1
            heappush(self._contested.setdefault(sponsor, []), (behind, self._entries, place.site))

    def _pass_on(self, tenant: str) -> None:
        """Have the sites that a tenant sponsors come in another's turn, where it is not furthest back any more."""
        contested = self._contested.get(tenant)
        while contested and contested[0][0] < self._shares.point(tenant):
            _, _, site = heappop(contested)
            place = self._places.get(site)
            if place is not None and place.sponsor == tenant:
                self._look(place)
                if place.sponsor == tenant:
                    self._contest(place)
        if contested == []:
            del self._contested[tenant]

    def _sites_of(self, tenant: str) -> Shares[Site]:
        """Find the shares of the sites that a tenant sponsors; empty ones go when they are many."""
        sites = self._sponsored.get(tenant)
        if sites is None:
            if len(self._sponsored) > 2 * len(self._shares) + _SPARE:
                self._sponsored = {each: those for each, those in self._sponsored.items() if those}
            sites = self._sponsored[tenant] = Shares()
        return sites
