"""Whose turn it is: fair queueing by start time among members with weights. Pure.

Each member that has work stands at a point of virtual time and is put forward by cost / weight when it is
served; the one that stands furthest back comes next (Goyal, Vin and Cheng, Start-time Fair Queueing, 1996). Who
comes back after a pause starts where the others are now: it has the very next turn, and nothing for the time
it was away. Whoever is alone has everything.
"""

from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)

_SLACK = 64  # places in the heap, and remembered points, that may be stale beside as many as there are members


def _alike(_: object) -> float:
    return 1.0


class Shares(Generic[Member]):
    """Members with work, and whose turn it is. Each call costs the logarithm of their number at most."""

    def __init__(self, weight: Callable[[Member], float] = _alike) -> None:
        """`weight` is asked at each charge, so that a change of weights holds at once; it must be above 0."""
        self._weight = weight
        self._now = 0.0
        self._points: dict[Member, float] = {}  # of all with work, and of those without that are ahead of now
        self._ahead: dict[Member, tuple[int, float]] = {}  # how often out of turn, and where it stood at the last time
        self._waiting: dict[Member, int] = {}  # of those with work: which place in the heap is theirs
        self._heap: list[tuple[float, bool, int, Member]] = []
        self._came_at = (
            -1.0
        )  # the last time that somebody came before all who stand at the same point: one at a time may
        self._places = 0
        self._many = _SLACK  # points, beyond which it is looked for those that can go

    def __contains__(self, member: Member) -> bool:
        return member in self._waiting

    def __iter__(self) -> Iterator[Member]:
        return iter(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, member: Member, *, kept_waiting: bool = False) -> None:
        """Have it served in its turn from now on.

        `kept_waiting`: what it left for was no want of work, and its turn may have gone by; it comes before all who
        stand at the same point.
        """
        if member in self._waiting:
            return
        self.first()  # which brings `now` up to where the furthest back stands
        stood = self._points.get(member, -1.0)
        point = self._points[member] = max(self._now, stood)
        level = not kept_waiting and (stood >= self._now or self._came_at == self._now)
        if not level and not kept_waiting:
            self._came_at = self._now
        self._places += 1
        self._waiting[member] = self._places
        heappush(self._heap, (point, level, self._places, member))
        if len(self._heap) > 2 * len(self._waiting) + _SLACK:
            self._heap = [place for place in self._heap if self._waiting.get(place[3]) == place[2]]
            heapify(self._heap)

    def leave(self, member: Member) -> None:
        """Pass it over: it has no work now. What it was charged is remembered for as long as it matters."""
        if self._waiting.pop(member, None) is not None:
            self._forget(member)

    def first(self) -> Member | None:
        """Tell whose turn it is; None if nobody has work."""
        heap = self._heap
        while heap:
            point, _, place, member = heap[0]
            if self._waiting.get(member) != place:
                heappop(heap)
            elif point < self._points[member]:  # charged since it was put there
                heapreplace(heap, (self._points[member], True, place, member))
            else:
                self._now = max(self._now, point)
                return member
        return None

    def point(self, member: Member) -> float:
        """Tell where a member stands, or would if it came now: it never goes back."""
        return max(self._now, self._points.get(member, 0.0))

    def stood(self, member: Member) -> float:
        """Tell where a member stood when it was charged last, 0 if it was not for long: others can have gone beyond."""
        return self._points.get(member, 0.0)

    def may_go(self, member: Member, times: int = 1) -> bool:
        """Tell whether it may be served, be it out of turn: so many times, until the others have caught up."""
        first = self.first()
        if first is None or first == member or member not in self._ahead:
            return True
        count, stood = self._ahead[member]
        return count < times or stood <= self._points[first]

    def serve(self, member: Member) -> None:
        """Charge it 1 for what it gets now, and `charge` the rest when it is known."""
        point = self.point(member)
        if point > self._now:
            count, stood = self._ahead.get(member, (0, 0.0))
            self._ahead[member] = (1 if stood <= self._now else count + 1), point
        else:
            self._ahead.pop(member, None)
        self.charge(member)

    def charge(self, member: Member, cost: float = 1.0) -> None:
        """Put it forward for what it got, whether it has more work or not."""
        self._points[member] = self.point(member) + cost / self._weight(member)
        if member not in self._waiting:
            self._forget(member)

    def _forget(self, member: Member) -> None:
        """Drop what matters no more: whoever comes back from behind starts at now anyway."""
        if self._points[member] <= self._now:
            del self._points[member]
            self._ahead.pop(member, None)
        elif len(self._points) > self._many:
            if not self._waiting:  # nobody is owed anything by anybody
                self._now = max(self._points.values())
            self.first()
            self._points = {
                each: point for each, point in self._points.items() if point > self._now or each in self._waiting
            }
            self._ahead = {each: times for each, times in self._ahead.items() if each in self._points}
            self._many = 2 * len(self._points) + _SLACK
