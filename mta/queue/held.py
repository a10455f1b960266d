"""Those whom one limit keeps from starting: tenants by where they stand, classes by share, sites in turn. Pure."""

from collections.abc import Callable, Hashable, Iterator
from heapq import heappop, heappush, heapreplace
from typing import Generic, TypeVar

from mta.queue.shares import Shares
from mta.spool.records import MessageClass

CLASS_SHARES = {MessageClass.HIGH: 8.0, MessageClass.NORMAL: 3.0, MessageClass.BULK: 1.0}
_SLACK = 64  # places in an order that may be stale beside as many as there are tenants

Site = TypeVar("Site", bound=Hashable)


class Held(Generic[Site]):
    """Those whom one limit holds. `tried` was let in, to see whether it has room."""

    def __init__(self) -> None:
        self.tried: tuple[str, MessageClass, Site] | None = None
        self._sites: dict[str, dict[MessageClass, dict[Site, None]]] = {}  # in order
        self._classes: dict[str, Shares[MessageClass]] = {}  # of those tenants, and of some who were held before
        self._order: list[tuple[float, int, str]] = []  # tenants, where they stood in the process
        self._numbers: dict[str, int] = {}  # which place in it is theirs
        self._number = 0

    def __len__(self) -> int:
        return len(self._sites)

    def __iter__(self) -> Iterator[tuple[str, MessageClass, Site]]:
        for tenant, classes in self._sites.items():
            for message_class, sites in classes.items():
                for site in sites:
                    yield tenant, message_class, site

    def add(self, tenant: str, message_class: MessageClass, site: Site, stood: float) -> None:
        """Hold a class of a tenant at a site; `stood` is where the tenant does, in the process."""
        classes = self._sites.get(tenant)
        if classes is None:
            classes = self._sites[tenant] = {}
            self._number += 1
            self._numbers[tenant] = self._number
            heappush(self._order, (stood, self._number, tenant))
            self._classes.setdefault(tenant, Shares(CLASS_SHARES.__getitem__))
        classes.setdefault(message_class, {})[site] = None
        self._classes[tenant].enter(message_class)

    def remove(self, tenant: str, message_class: MessageClass, site: Site) -> None:
        """Hold it no more."""
        classes = self._sites[tenant]
        del classes[message_class][site]
        if not classes[message_class]:
            del classes[message_class]
            self._classes[tenant].leave(message_class)
        if not classes:
            del self._sites[tenant], self._numbers[tenant]
            if len(self._classes) > 2 * len(self._sites) + _SLACK:
                self._classes = {each: shares for each, shares in self._classes.items() if each in self._sites}
            if len(self._order) > 2 * len(self._sites) + _SLACK:
                self._order = sorted([place for place in self._order if self._numbers.get(place[2]) == place[1]])

    def first(self, stood: Callable[[str], float]) -> tuple[str, MessageClass, Site]:
        """Return the tenant who stands furthest back in the process, whose class's turn it is, the site first held."""
        while True:
            recorded, number, tenant = self._order[0]
            if self._numbers.get(tenant) != number:
                heappop(self._order)
            elif (now := stood(tenant)) > recorded:  # it was served elsewhere
                heapreplace(self._order, (now, number, tenant))
            else:
                break
        message_class = self._classes[tenant].first()
        assert message_class is not None
        return tenant, message_class, next(iter(self._sites[tenant][message_class]))

    def serve(self, tenant: str, message_class: MessageClass) -> None:
        """Charge a class for what the limit let start."""
        if tenant in self._classes:
            self._classes[tenant].serve(message_class)
