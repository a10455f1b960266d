"""Who gets a slot: tenants by weight in the process and at each site, below that classes by share, then lanes. Pure.

Two things are scarce: slots, and places at a site. The process's shares say whose turn it is to get a slot, and that
tenant has it at one of its own sites with room, whoever else waits there; so nobody is kept waiting by those who
have a thousand sites. When a delivery ends, its place is offered at the same site first, to whom the site's own shares
say; so a site that is full is shared by weight, and a connection is used again. Such a stay may be out of turn
in the process: it is granted while it keeps nobody waiting for long (`STAYS`, `Shares.may_go`). Otherwise whose turn
it is has the slot, and the place as well if it has work there.

Whoever finds no room is held by what is in the way: the site, or a limit on the tenant, there or wider. When one more
may start, one of those whom it holds is let into the turns, and the next when that one has been served; and what is
free at a site is offered as a place is, to whom the site's own shares say. So a token costs the same whether two wait
for it or ten thousand.
"""

from collections.abc import Callable, Hashable, KeysView
from typing import Generic, Protocol, TypeVar

from mta.queue.held import CLASS_SHARES, Held
from mta.queue.shares import Shares
from mta.spool.records import Lane, MessageClass

STAYS = 4  # deliveries that go on where one ended, for one that begins with whose turn it is
LEAD = 16  # of these by which a tenant may be ahead of others in the process
FEW = 64  # tenants held by a site, who are all let in when there is room

Site = TypeVar("Site", bound=Hashable)
_NOTHING = object()
Asked = TypeVar("Asked", contravariant=True)  # noqa: PLC0105 - a site, as in Turns


class Room(Protocol[Asked]):
    """Knows the limits of sites."""

    def __call__(self, site: Asked, tenant: str, at_work: int, *, stays: bool) -> Hashable:
        """Tell what keeps one more of a tenant ("": of any) from starting at a site beside so many; None if nothing.

        It is the site itself where nobody may, and else what names the limit on the tenant. `stays`: where one has
        ended.
        """


class _Work:
    """A tenant's lanes at one site, by class."""

    def __init__(self) -> None:
        self.classes: Shares[MessageClass] = Shares(CLASS_SHARES.__getitem__)
        self.lanes: dict[MessageClass, Shares[Lane]] = {}


class _Place:
    """A site: who has work there and is not held by a limit of their own, and how many slots are at it."""

    def __init__(self, weight: Callable[[str], float]) -> None:
        self.shares: Shares[str] = Shares(weight)
        self.work: dict[str, _Work] = {}
        self.at_work = 0


class _Tenant(Generic[Site]):
    """A tenant's sites with room, or of which it is not known that they have none, by class."""

    def __init__(self) -> None:
        self.lanes = 0  # with work, anywhere
        self.classes: Shares[MessageClass] = Shares(CLASS_SHARES.__getitem__)
        self._sites: dict[MessageClass, Shares[Site]] = {}

    def sites(self, message_class: MessageClass) -> Shares[Site]:
        """Return those of a class."""
        found = self._sites.get(message_class)
        if found is None:
            found = self._sites[message_class] = Shares()
        return found


class Turns(Generic[Site]):
    """Lanes with work, by site, and whose turn it is."""

    def __init__(self, weight: Callable[[str], float], room: Room[Site]) -> None:
        """`weight` of a tenant is above 0."""
        self._weight = weight
        self._room = room
        self._site_of: dict[Lane, Site] = {}  # of lanes with work
        self._places: dict[Site, _Place] = {}
        self._tenants: dict[str, _Tenant[Site]] = {}  # with work
        self._shares: Shares[str] = Shares(weight)  # of those with work at a site that may have room
        self._stays = 0  # since a slot went to whose turn it was
        self._held: dict[Hashable, Held[Site]] = {}  # by what holds them
        self._open: dict[Site, None] = {}  # that had no room, and may have some
        self._held_by: dict[tuple[str, MessageClass, Site], Hashable] = {}
        self._tried: dict[tuple[str, MessageClass, Site], Hashable] = {}  # who was let in, and by what it was held
        self._passed_over = 0  # lanes of those who are held

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

    @property
    def passed_over(self) -> int:
        """How many lanes had no room when their turn came, and have none yet."""
        return self._passed_over

    def shed(self, count: int) -> list[Lane]:
        """Forget up to so many of the lanes that had no room, those first that are known for longest; return them."""
        shed = list[Lane]()
        for lane, site in self._site_of.items():
            if len(shed) >= count:
                break
            if (lane.tenant, lane.message_class, site) in self._held_by:
                shed.append(lane)
        for lane in shed:
            self.idle(lane)
        return shed

    def has(self, site: Site) -> bool:
        """Tell whether a site has work, or slots."""
        return site in self._places

    def at_work(self, site: Site) -> int:
        """Tell how many slots are at a site."""
        place = self._places.get(site)
        return 0 if place is None else place.at_work

    def site_of(self, lane: Lane) -> Site | None:
        """Name the site of a lane with work."""
        return self._site_of.get(lane)

    def lanes_at(self, site: Site) -> dict[tuple[str, MessageClass], int]:
        """Count the lanes that have work at a site, by tenant and class."""
        place = self._places.get(site)
        if place is None:
            return {}
        return {(tenant, each): len(work.lanes[each]) for tenant, work in place.work.items() for each in work.lanes}

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
        self._passed_over += (lane.tenant, lane.message_class, site) in self._held_by

    def idle(self, lane: Lane) -> None:
        """Note that a lane has no more work."""
        site = self._site_of.pop(lane, None)
        if site is None:
            return
        place = self._places[site]
        work = place.work[lane.tenant]
        lanes = work.lanes[lane.message_class]
        lanes.leave(lane)
        self._passed_over -= (lane.tenant, lane.message_class, site) in self._held_by
        if not lanes:
            del work.lanes[lane.message_class]
            work.classes.leave(lane.message_class)
            self._has_no_room(lane.tenant, lane.message_class, site)
            self._let_go((lane.tenant, lane.message_class, site))
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
            return self._offered() or self._turn()
        return self._offer(ended, stays=True) or self._offered() or self._turn(ended) or self._offer(ended, stays=True)

    def _offered(self) -> tuple[Lane, Site, bool] | None:
        """Serve somebody at a site that has had no room, and may have some now."""
        while self._open:
            site = next(iter(self._open))
            found = self._offer(site, stays=False) if site in self._places else None
            if found is not None:
                return found
            del self._open[site]
        return None

    def _turn(self, ended: Site | None = None) -> tuple[Lane, Site, bool] | None:
        """Serve the tenant whose turn it is, at one of its sites with room, be it the place of what ended."""
        while (tenant := self._shares.first()) is not None:
            own = self._tenants[tenant]
            message_class = own.classes.first()
            assert message_class is not None
            site = own.sites(message_class).first()
            assert site is not None
            place = self._places[site]
            stays = site == ended
            by = self._room(site, tenant, place.at_work - stays, stays=stays)
            if by is None:
                self._stays = 0
                place.at_work += not stays
                return self._serve(tenant, message_class, site, place), site, stays
            self._hold(tenant, message_class, site, by)
        return None

    def _offer(self, site: Site, *, stays: bool) -> tuple[Lane, Site, bool] | None:
        """Serve whom the site's own shares say, unless it keeps others waiting for too long."""
        place = self._places[site]
        while (tenant := place.shares.first()) is not None:
            by = self._room(site, tenant, place.at_work - stays, stays=stays)
            if by is None:
                break
            if by == site:
                return None
            for each in list(place.work[tenant].lanes):
                self._hold(tenant, each, site, by)
        if tenant is None:
            return None
        message_class = place.work[tenant].classes.first()
        assert message_class is not None
        if self._shares and not self._may_go(tenant, message_class, site):
            return None
        self._stays += 1
        place.at_work += not stays
        return self._serve(tenant, message_class, site, place), site, stays

    def _may_go(self, tenant: str, message_class: MessageClass, site: Site) -> bool:
        """Tell whether others can wait: other tenants, and the tenant's own other classes and sites."""
        own = self._tenants[tenant]
        return (
            self._stays < STAYS
            and self._shares.may_go(tenant, LEAD)
            and own.classes.may_go(message_class)
            and own.sites(message_class).may_go(site)
        )

    def _serve(self, tenant: str, message_class: MessageClass, site: Site, place: _Place) -> Lane:
        work, own = place.work[tenant], self._tenants[tenant]
        lanes = work.lanes[message_class]
        lane = lanes.first()
        assert lane is not None
        lanes.serve(lane)
        work.classes.serve(message_class)
        place.shares.enter(tenant)
        place.shares.serve(tenant)
        own.sites(message_class).serve(site)
        own.classes.serve(message_class)
        self._shares.serve(tenant)
        who = (tenant, message_class, site)
        if who in self._tried:
            self._held[self._tried[who]].serve(tenant, message_class)
            self._was_tried(who, None)
        return lane

    def charge(self, lane: Lane, site: Site, recipients: int) -> None:
        """Charge a lane, and all that it belongs to, for what more it got at a site; it may have no more work there."""
        tenant, message_class = lane.tenant, lane.message_class
        self._shares.charge(tenant, recipients)
        own = self._tenants.get(tenant)
        if own is not None:
            own.sites(message_class).charge(site, recipients)
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

    def look(self, by: Hashable) -> bool:
        """Let in whoever is next of those that a site or a limit holds; tell whether somebody could use it."""
        if by not in self._held:
            return False
        place = self._places.get(by)  # type: ignore[arg-type]  # there is none if it is no site
        if place is not None:
            site: Site = by  # type: ignore[assignment]
            in_the_way = self._room(site, "", place.at_work, stays=False)
            if in_the_way == site:
                return False
            self._open[site] = None
            self._let_in_first(site, place)
            self._let_in(by)  # if it is a wider limit that is in the way, to wait for that one
            return in_the_way is None
        self._let_in(by)
        return True

    def _let_in_first(self, site: Site, place: _Place) -> None:
        """Let in whom a site's own shares say, too; and all, if they are few, in that order.

        Where slots are scarce, who is held saves nothing up for its turn in the process.
        """
        held = self._held[site]
        if len(held) <= FEW:
            for who in sorted(held, key=lambda each: place.shares.point(each[0])):
                self._let_go(who)
                self._may_have_room(*who, kept_waiting=True)
        elif (tenant := place.shares.first()) is not None:
            message_class = place.work[tenant].classes.first()
            assert message_class is not None
            who = (tenant, message_class, site)
            if self._held_by.get(who, _NOTHING) == site:
                self._let_go(who)
                self._may_have_room(*who, kept_waiting=True)

    def look_at_all(self) -> None:
        """Let in whoever is next everywhere: limits have changed."""
        for by in list(self._held):
            self.look(by)

    def _hold(self, tenant: str, message_class: MessageClass, site: Site, by: Hashable) -> None:
        """Have somebody wait until a limit lets it in again."""
        who = (tenant, message_class, site)
        self._has_no_room(tenant, message_class, site)
        shares = self._places[site].shares
        if by == site:
            shares.enter(tenant)
        else:
            shares.leave(tenant)
        if self._held_by.get(who, _NOTHING) != by:
            self._let_go(who, by)
            held = self._held.get(by)
            if held is None:
                held = self._held[by] = Held[Site]()
            held.add(tenant, message_class, site, self._shares.stood(tenant))
            self._held_by[who] = by
            self._passed_over += self._lanes_of(who)

    def _let_go(self, who: tuple[str, MessageClass, Site], now_by: Hashable = None) -> None:
        """Forget what held somebody, or let it in; it has no more work, or is held by something else now."""
        by = self._held_by.pop(who, _NOTHING)
        if by is not _NOTHING:
            self._passed_over -= self._lanes_of(who)
            self._held[by].remove(*who)
            self._clear_held(by)
        self._was_tried(who, now_by)

    def _was_tried(self, who: tuple[str, MessageClass, Site], now_by: Hashable) -> None:
        """Let the next in when one was served, or found something else in the way than what held it."""
        by = self._tried.pop(who, _NOTHING)
        if by is not _NOTHING:
            self._held[by].tried = None
            if by != now_by:  # not before all others: or in one turn a crowd could go from one limit to another
                self._let_in(by, kept_waiting=now_by is None)
            self._clear_held(by)

    def _let_in(self, by: Hashable, *, kept_waiting: bool = True) -> None:
        held = self._held.get(by)
        if held is None or held.tried is not None or not held:
            return
        held.tried = who = held.first(self._shares.stood)
        tenant, message_class, site = who
        held.remove(tenant, message_class, site)
        del self._held_by[who]
        self._passed_over -= self._lanes_of(who)
        self._tried[who] = by
        self._places[site].shares.enter(tenant)
        self._may_have_room(tenant, message_class, site, kept_waiting=kept_waiting)

    def _lanes_of(self, who: tuple[str, MessageClass, Site]) -> int:
        tenant, message_class, site = who
        lanes = self._places[site].work[tenant].lanes.get(message_class)
        return 0 if lanes is None else len(lanes)

    def _clear_held(self, by: Hashable) -> None:
        held = self._held.get(by)
        if held is not None and held.tried is None and not held:
            del self._held[by]

    def _clear(self, site: Site, place: _Place) -> None:
        if not place.at_work and not place.work:
            del self._places[site]

    def _may_have_room(
        self, tenant: str, message_class: MessageClass, site: Site, *, kept_waiting: bool = False
    ) -> None:
        """Have a site come in a tenant's turns."""
        own = self._tenants[tenant]
        own.sites(message_class).enter(site)
        own.classes.enter(message_class)
        self._shares.enter(tenant, kept_waiting=kept_waiting)

    def _has_no_room(self, tenant: str, message_class: MessageClass, site: Site) -> None:
        """Have a site come in a tenant's turns no more."""
        own = self._tenants[tenant]
        sites = own.sites(message_class)
        sites.leave(site)
        if not sites:
            own.classes.leave(message_class)
        if not own.classes:
            self._shares.leave(tenant)
