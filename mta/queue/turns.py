"""Who gets a slot: tenants by weight in the process and at each site, below that classes by share, then lanes. Pure.

A site with room puts forward the tenant whose turn it is there; of those put forward, the process takes the one whose
turn it is in all. So a tenant that floods one site, or ten thousand, or a thousand domains of one, holds up
another for one delivery at most, and a slot never stays free while somebody could use it.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from mta.queue.shares import Shares
from mta.spool.records import Lane, MessageClass

CLASS_SHARES = {MessageClass.HIGH: 8.0, MessageClass.NORMAL: 3.0, MessageClass.BULK: 1.0}
_SPARE = 64  # tenants that are put forward nowhere, of which something is kept

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
        self.forward: str | None = None  # the tenant that is put forward


class Turns(Generic[Site]):
    """Lanes with work, by site, and whose turn it is."""

    def __init__(self, weight: Callable[[str], float], room: Callable[[Site, int], bool]) -> None:
        """`weight` of a tenant, above 0; `room` tells whether a site takes one more beside so many slots."""
        self._weight = weight
        self._room = room
        self._places: dict[Site, _Place[Site]] = {}
        self._site_of: dict[Lane, Site] = {}  # of lanes with work
        self._shares: Shares[str] = Shares(weight)
        self._forward: dict[str, Shares[Site]] = {}  # by tenant, where it is put forward

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._site_of

    def at_work(self, site: Site) -> int:
        """Tell how many slots are at a site."""
        place = self._places.get(site)
        return 0 if place is None else place.at_work

    def lanes(self) -> Counter[Site]:
        """Count the lanes with work, by site."""
        return Counter(self._site_of.values())

    def ready(self, lane: Lane, site: Site) -> None:
        """Note that a lane has work, for a site."""
        if lane in self._site_of:
            return
        self._site_of[lane] = site
        place = self._place(site)
        tenant = place.tenants.get(lane.tenant)
        if tenant is None:
            tenant = place.tenants[lane.tenant] = _Tenant()
        lanes = tenant.lanes.get(lane.message_class)
        if lanes is None:
            lanes = tenant.lanes[lane.message_class] = Shares()
        lanes.enter(lane)
        tenant.classes.enter(lane.message_class)
        place.shares.enter(lane.tenant)
        self._look(place)

    def idle(self, lane: Lane) -> None:
        """Note that a lane has no more work."""
        site = self._site_of.pop(lane, None)
        if site is None:
            return
        place = self._places[site]
        tenant = place.tenants[lane.tenant]
        lanes = tenant.lanes[lane.message_class]
        lanes.leave(lane)
        if not lanes:
            del tenant.lanes[lane.message_class]
            tenant.classes.leave(lane.message_class)
        if not tenant.lanes:
            del place.tenants[lane.tenant]
            place.shares.leave(lane.tenant)
        self._look(place)

    def take(self, stay: Site | None = None) -> tuple[Lane, Site] | None:
        """Give a slot to the lane whose turn it is, at `stay` if that is one of its tenant's; None if there is none.

        It is charged one recipient at once, so that the next asks for the next.
        """
        tenant = self._shares.first()
        if tenant is None:
            return None
        sites = self._forward[tenant]
        site = stay if stay is not None and stay in sites else sites.first()
        assert site is not None  # where nobody has put it forward, it has no share
        place = self._places[site]
        work = place.tenants[tenant]
        message_class = work.classes.first()
        assert message_class is not None
        lane = work.lanes[message_class].first()
        assert lane is not None
        place.at_work += 1
        sites.charge(site)
        self.charge(lane, 1)
        return lane, site

    def charge(self, lane: Lane, recipients: int) -> None:
        """Charge a lane with work for what it got."""
        site = self._site_of.get(lane)
        if site is None:
            return
        place = self._places[site]
        work = place.tenants[lane.tenant]
        work.lanes[lane.message_class].charge(lane, recipients)
        work.classes.charge(lane.message_class, recipients)
        place.shares.charge(lane.tenant, recipients)
        self._shares.charge(lane.tenant, recipients)
        self._look(place)

    def hold(self, site: Site) -> None:
        """Keep a slot at a site for nobody's turn."""
        place = self._place(site)
        place.at_work += 1
        self._look(place)

    def leave(self, site: Site) -> None:
        """Give back a slot."""
        place = self._places[site]
        place.at_work -= 1
        self._look(place)

    def look(self, site: Site) -> None:
        """Ask anew whether a site has room."""
        if (place := self._places.get(site)) is not None:
            self._look(place)

    def _place(self, site: Site) -> _Place[Site]:
        place = self._places.get(site)
        if place is None:
            place = self._places[site] = _Place(site, self._weight)
        return place

    def _places_of(self, tenant: str) -> Shares[Site]:
        """Find the shares of a tenant's sites; those of tenants that are put forward nowhere go when they are many."""
        sites = self._forward.get(tenant)
        if sites is None:
            if len(self._forward) > 2 * len(self._shares) + _SPARE:
                self._forward = {each: sites for each, sites in self._forward.items() if sites}
            sites = self._forward[tenant] = Shares()
        return sites

    def _look(self, place: _Place[Site]) -> None:
        """Put forward whose turn it is at a site, if it has room."""
        forward = place.shares.first() if self._room(place.site, place.at_work) else None
        if forward != place.forward:
            if place.forward is not None:
                sites = self._forward[place.forward]
                sites.leave(place.site)
                if not sites:  # kept, for it is soon wanted again
                    self._shares.leave(place.forward)
            if forward is not None:
                self._places_of(forward).enter(place.site)
                self._shares.enter(forward)
            place.forward = forward
        if forward is None and not place.at_work and not place.tenants:
            del self._places[place.site]
