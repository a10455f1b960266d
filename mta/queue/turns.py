"""Who gets a slot: tenants by weight in the process and at each site, below that classes by share, then lanes. Pure.

Two things are scarce: slots, and places at a site. The process's shares say whose turn it is to get a slot, and that
tenant has it at one of its own sites with room, whoever else waits there; so nobody is kept waiting by those who
have a thousand sites. When a delivery ends, its place is offered at the same site first, to whom the site's own shares
say; so a site that is full is shared by weight, and a connection is used again. Such a stay may be out of turn
in the process: it is granted while it keeps nobody waiting for long (`STAYS`, `Shares.may_go`).
"""

from collections.abc import Callable, Hashable, Iterator, KeysView
from typing import Generic, TypeVar

from mta.queue.shares import Shares
from mta.spool.records import Lane, MessageClass

CLASS_SHARES = {MessageClass.HIGH: 8.0, MessageClass.NORMAL: 3.0, MessageClass.BULK: 1.0}
STAYS = 4  # deliveries that go on where one ended, for one that begins with whose turn it is
LEAD = 16  # of these by which a tenant may be ahead of others in the process

Site = TypeVar("Site", bound=Hashable)


class _Work:
    """A tenant's lanes at one site, by class."""

    def __init__(self) -> None:
        self.classes: Shares[MessageClass] = Shares(CLASS_SHARES.__getitem__)
        self.lanes: dict[MessageClass, Shares[Lane]] = {}


class _Place:
    """A site: who has work there, how many slots are at it, and who was passed over because it was full."""

    def __init__(self, weight: Callable[[str], float]) -> None:
        self.shares: Shares[str] = Shares(weight)
        self.work: dict[str, _Work] = {}
        self.at_work = 0
        self.passed_over: dict[tuple[str, MessageClass], None] = {}  # in order


class _Tenant(Generic[Site]):
    """A tenant's sites with room, or of which it is not known that they have none, by class."""

    def __init__(self) -> None:
        self.lanes = 0  # with work, anywhere
        self.classes: Shares[MessageClass] = Shares(CLASS_SHARES.__getitem__)
        self.sites: dict[MessageClass, Shares[Site]] = {}


class Turns(Generic[Site]):
    """Lanes with work, by site, and whose turn it is."""

    def __init__(self, weight: Callable[[str], float], room: Callable[[Site, int], bool]) -> None:
        """`weight` of a tenant, above 0; `room` tells whether a site takes one more beside so many slots."""
        self._weight = weight
        self._room = room
        self._site_of: dict[Lane, Site] = {}  # of lanes with work
        self._places: dict[Site, _Place] = {}
        self._tenants: dict[str, _Tenant[Site]] = {}  # with work
        self._shares: Shares[str] = Shares(weight)  # of those with work at a site that may have room
        self._stays = 0  # since a slot went to whose turn it was

    @property
    def lanes(self) -> KeysView[Lane]:
        """All lanes with work."""
        return self._site_of.keys()

    def lanes_of(self, tenant: str) -> int:
        """Tell how many lanes with work a tenant has."""
        own = self._tenants.get(tenant)
        return 0 if own is None else own.lanes

    @property
    def tenants(self) -> KeysView[str]:
        """All tenants with work."""
        return self._tenants.keys()

    def passed_over(self) -> Iterator[Lane]:
        """The lanes whose sites had no room when their turn came, and have none yet."""
        for place in self._places.values():
            for tenant, message_class in place.passed_over:
                yield from place.work[tenant].lanes[message_class]

    def at_work(self, site: Site) -> int:
        """Tell how many slots are at a site."""
        place = self._places.get(site)
        return 0 if place is None else place.at_work

    def site_of(self, lane: Lane) -> Site | None:
        """Name the site of a lane with work."""
        return self._site_of.get(lane)

    def lanes_at(self, site: Site) -> int:
        """Tell how many lanes have work at a site."""
        place = self._places.get(site)
        if place is None:
            return 0
        return sum(len(lanes) for work in place.work.values() for lanes in work.lanes.values())

    def ready(self, lane: Lane, site: Site) -> None:
        """Note that a lane has work, for a site."""
        if lane in self._site_of:
            return
        self._site_of[lane] = site
        own = self._tenants.get(lane.tenant)
        if own is None:
            own = self._tenants[lane.tenant] = _Tenant[Site]()
        own.lanes += 1
        place = self._places.get(site)
        if place is None:
            place = self._places[site] = _Place(self._weight)
        work = place.work.get(lane.tenant)
        if work is None:
            work = place.work[lane.tenant] = _Work()
            place.shares.enter(lane.tenant)
        lanes = work.lanes.get(lane.message_class)
        if lanes is None:
            lanes = work.lanes[lane.message_class] = Shares()
            work.classes.enter(lane.message_class)
            self._may_have_room(lane.tenant, lane.message_class, site)
        lanes.enter(lane)

    def idle(self, lane: Lane) -> None:
        """Note that a lane has no more work."""
        site = self._site_of.pop(lane, None)
        if site is None:
            return
        place = self._places[site]
        work = place.work[lane.tenant]
        lanes = work.lanes[lane.message_class]
        lanes.leave(lane)
        if not lanes:
            del work.lanes[lane.message_class]
            work.classes.leave(lane.message_class)
            place.passed_over.pop((lane.tenant, lane.message_class), None)
            self._has_no_room(lane.tenant, lane.message_class, site)
        if not work.lanes:
            del place.work[lane.tenant]
            place.shares.leave(lane.tenant)
            self._clear(site, place)
        own = self._tenants[lane.tenant]
        own.lanes -= 1
        if not own.lanes:
            del self._tenants[lane.tenant]

    def take(self, ended: Site | None = None) -> tuple[Lane, Site, bool] | None:
        """Give a slot to a lane, and a place at its site; None if none can use it.

        If a delivery has `ended` at a site, its place there is still taken: True if that place is used again,
        otherwise the caller gives it back (`leave`) when it is free. The lane is charged one recipient at once, so that
        the next who takes gets the next.
        """
        if ended is None:
            return self._turn()
        return self._stay(ended) or self._turn() or self._stay(ended)

    def _turn(self) -> tuple[Lane, Site, bool] | None:
        """Serve the tenant whose turn it is, at one of its sites with room."""
        while (tenant := self._shares.first()) is not None:
            own = self._tenants[tenant]
            message_class = own.classes.first()
            assert message_class is not None
            site = own.sites[message_class].first()
            assert site is not None
            place = self._places[site]
            if self._room(site, place.at_work):
                self._stays = 0
                place.at_work += 1
                return self._serve(tenant, message_class, site, place), site, False
            self._has_no_room(tenant, message_class, site)
            place.passed_over[tenant, message_class] = None
        return None

    def _stay(self, site: Site) -> tuple[Lane, Site, bool] | None:
        """Serve whom the site's own shares say, unless it keeps others waiting for too long."""
        place = self._places[site]
        tenant = place.shares.first()
        if tenant is None or not self._room(site, place.at_work - 1):
            return None
        message_class = place.work[tenant].classes.first()
        assert message_class is not None
        if self._shares and not self._may_stay(tenant, message_class, site):
            return None
        self._stays += 1
        return self._serve(tenant, message_class, site, place), site, True

    def _may_stay(self, tenant: str, message_class: MessageClass, site: Site) -> bool:
        """Tell whether others can wait: other tenants, and the tenant's own other classes and sites."""
        own = self._tenants[tenant]
        return (
            self._stays < STAYS
            and self._shares.may_go(tenant, LEAD)
            and own.classes.may_go(message_class)
            and own.sites[message_class].may_go(site)
        )

    def _serve(self, tenant: str, message_class: MessageClass, site: Site, place: _Place) -> Lane:
        work, own = place.work[tenant], self._tenants[tenant]
        lanes = work.lanes[message_class]
        lane = lanes.first()
        assert lane is not None
        lanes.serve(lane)
        work.classes.serve(message_class)
        place.shares.serve(tenant)
        own.sites[message_class].serve(site)
        own.classes.serve(message_class)
        self._shares.serve(tenant)
        return lane

    def charge(self, lane: Lane, site: Site, recipients: int) -> None:
        """Charge a lane, and all that it belongs to, for what more it got at a site; it may have no more work there."""
        tenant, message_class = lane.tenant, lane.message_class
        self._shares.charge(tenant, recipients)
        own = self._tenants.get(tenant)
        if own is not None and message_class in own.sites:
            own.sites[message_class].charge(site, recipients)
            own.classes.charge(message_class, recipients)
        place = self._places.get(site)
        if place is None:
            return
        place.shares.charge(tenant, recipients)
        work = place.work.get(tenant)
        if work is not None:
            work.classes.charge(message_class, recipients)
            if (lanes := work.lanes.get(message_class)) is not None:
                lanes.charge(lane, recipients)

    def leave(self, site: Site) -> bool:
        """Give a place at a site back; tell whether somebody could use it."""
        place = self._places[site]
        place.at_work -= 1
        self._clear(site, place)
        return self.look(site)

    def look(self, site: Site) -> bool:
        """Ask anew whether a site has room for those who were passed over; tell whether somebody could use it."""
        place = self._places.get(site)
        if place is None or not place.work or not self._room(site, place.at_work):
            return False
        if place.passed_over:
            # Those who waited are often level in the process, as waiting saves nothing up: the first to enter is first.
            for tenant, message_class in sorted(place.passed_over, key=lambda each: place.shares.point(each[0])):
                self._may_have_room(tenant, message_class, site)
            place.passed_over.clear()
        return True

    def _clear(self, site: Site, place: _Place) -> None:
        if not place.at_work and not place.work:
            del self._places[site]

    def _may_have_room(self, tenant: str, message_class: MessageClass, site: Site) -> None:
        """Have a site come in a tenant's turns."""
        own = self._tenants[tenant]
        sites = own.sites.get(message_class)
        if sites is None:
            sites = own.sites[message_class] = Shares()
        sites.enter(site)
        own.classes.enter(message_class)
        self._shares.enter(tenant)

    def _has_no_room(self, tenant: str, message_class: MessageClass, site: Site) -> None:
        """Have a site come in a tenant's turns no more."""
        own = self._tenants[tenant]
        own.sites[message_class].leave(site)
        if not own.sites[message_class]:
            own.classes.leave(message_class)
        if not own.classes:
            self._shares.leave(tenant)
