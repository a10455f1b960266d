"""Lists and searches of many messages are quick, and building them is cheap (`scripts/campaign views`: a million)."""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

from mta.events.segments import LoggedEvent
from mta.events.views import schema
from mta.events.views.builder import Builder
from mta.events.views.following import GROUP
from mta.events.views.reader import SqliteViews
from mta.mail.event import EventType
from mta.queue.views import EventSearch, Search, Status
from mta.spool.interface import Spool
from tests.scale.views import BEGAN, LARGE, POPULAR, SMALL, History

MESSAGES = int(os.environ.get("FAIRLEAD_VIEWS_MESSAGES", "100000"))
_SLACK = 1 if MESSAGES >= 1_000_000 else 4  # a short run is one among others, on a machine that has more to do
BY_INDEX, BY_WORDS = 0.05, 0.2  # seconds
PER_EVENT = 40e-6  # seconds of CPU
_ROUNDS = 5


class Nothing:
    """A spool whose log has no tail."""

    async def log_end(self) -> int:
        return 0


def build(directory: Path, history: History) -> float:
    """Take in a history; return the CPU for each event, without what it takes to make them up."""
    _, connection = schema.begin(directory)
    builder = Builder(connection)
    events = history.events()
    count, cpu = 0, 0.0
    while group := list(_group(events)):
        began = time.process_time()
        builder.take(group, complete=True)
        cpu += time.process_time() - began
        count += len(group)
    builder.close()
    return cpu / count


def _group(events: Iterator[LoggedEvent]) -> Iterator[LoggedEvent]:
    return islice(events, GROUP)


def questions(views: SqliteViews, history: History) -> dict[str, tuple[float, Callable[[], Awaitable[Any]]]]:
    """What is asked, and the seconds that it may take."""
    third = history.marked["a third"]
    middle = BEGAN + history.messages / 2
    common, other = history.words[10], history.words[500]
    found: dict[str, tuple[float, Callable[[], Awaitable[Any]]]] = {}

    def listed(what: str, search: Search, tenant: str | None = LARGE, limit: float = BY_INDEX, **more: Any) -> None:
        found[what] = limit, lambda: views.messages(tenant, search, limit=100, **more)

    def happened(
        what: str, search: EventSearch, tenant: str | None = LARGE, limit: float = BY_INDEX, **more: Any
    ) -> None:
        found[f"events {what}"] = limit, lambda: views.events(tenant, search, limit=100, **more)

    listed("the newest", Search())
    listed("the oldest", Search(), oldest=True)
    listed("the newest of a small tenant", Search(), SMALL)
    listed("the newest of everybody", Search(), None)
    listed("behind 10,000", Search(), offset=10_000)
    listed("queued", Search(statuses=(Status.QUEUED,)))
    listed("bounced", Search(statuses=(Status.BOUNCED,)))
    listed("cancelled", Search(statuses=(Status.CANCELLED,)))
    listed("recipient", Search(recipient=third.recipients[0]))
    listed("recipient of much", Search(recipient=POPULAR))
    listed("recipient of much, bounced", Search(recipient=POPULAR, statuses=(Status.BOUNCED,)))
    listed("recipient, of everybody", Search(recipient=POPULAR), None)
    listed("sender", Search(sender=third.sender))
    listed("sender, queued", Search(sender=third.sender, statuses=(Status.QUEUED,)))
    listed("sender, delivered", Search(sender=third.sender, statuses=(Status.DELIVERED,)))
    listed("sender and category", Search(sender=third.sender, category="bill"))
    listed("sender of another tenant", Search(sender=third.sender), SMALL)
    listed("category", Search(category="welcome"))
    listed("two that never meet", Search(category="welcome", sender=third.sender, recipient="nobody@x.test"))
    listed("request", Search(request=third.request))
    listed("message id", Search(message_id=third.message_id))
    listed("id", Search(ids=(third.message,)))
    listed("an hour", Search(since=middle, until=middle + 3600))
    listed("an hour, bounced", Search(since=middle, until=middle + 3600, statuses=(Status.BOUNCED,)))
    listed("until the middle, sender", Search(until=middle, sender=third.sender))
    listed("sent in", Search(sent_in="sendgrid"))
    listed("word of all", Search(words="update"), limit=BY_WORDS)
    listed("word of all, of a small tenant", Search(words="update"), SMALL, limit=BY_WORDS)
    listed("word", Search(words=common), limit=BY_WORDS)
    listed("two words", Search(words=f"{common} {other}"), limit=BY_WORDS)
    listed("rare word", Search(words="rareword"), limit=BY_WORDS)
    listed("word of all, rare word, sender", Search(words="update rareword", sender=third.sender), limit=BY_WORDS)
    listed("word, bounced", Search(words="update", statuses=(Status.BOUNCED,)), limit=BY_WORDS)
    listed("word, of everybody", Search(words=common), None, limit=BY_WORDS)
    found["a message"] = BY_INDEX, lambda: views.message(LARGE, third.message)
    found["its timeline"] = BY_INDEX, lambda: views.timeline(LARGE, third.message)
    found["count"] = BY_INDEX, lambda: views.count(LARGE, Search(), 10_000)
    found["count of a sender"] = BY_INDEX, lambda: views.count(LARGE, Search(sender=third.sender), 10_000)
    happened("the newest", EventSearch())
    happened("the oldest", EventSearch(), oldest=True)
    happened("of a small tenant", EventSearch(), SMALL)
    happened("of everybody", EventSearch(), None)
    happened("of a domain", EventSearch(sender_domain=f"mail3.{LARGE}.test"))
    happened("bounced", EventSearch(types=(EventType.BOUNCED,)))
    happened("bounced, of a domain", EventSearch(types=(EventType.BOUNCED,), sender_domain=f"mail3.{LARGE}.test"))
    happened("expired", EventSearch(types=(EventType.EXPIRED,)))
    happened("of a message", EventSearch(message=third.message))
    happened("to a recipient", EventSearch(recipient=third.recipients[0]))
    happened("to a recipient of much", EventSearch(recipient=POPULAR))
    happened("to a recipient of much, bounced", EventSearch(recipient=POPULAR, types=(EventType.BOUNCED,)))
    happened("from a sender", EventSearch(sender=third.sender), limit=BY_WORDS)
    happened("of a category", EventSearch(category="bill"), limit=BY_WORDS)
    happened("in an hour", EventSearch(since=middle, until=middle + 3600))
    return found


async def test_lists_and_searches(tmp_path: Path, seed: int, say: Callable[[object], None]) -> None:
    history = History(MESSAGES, seed)
    over: list[str] = []

    def judged(what: str, seconds: float, limit: float, unit: float, name: str) -> None:
        said = f"views: {what}: {seconds / unit:.1f} {name}, limit {limit / unit:.0f}"
        if seconds > limit * _SLACK:
            said += " OVER"
            over.append(said)
        say(said)

    say(f"views: messages={MESSAGES} seed={seed}")
    judged("CPU an event", build(tmp_path, history), PER_EVENT, 1e-6, "µs")
    build_file = schema.newest(tmp_path)
    assert build_file is not None
    say(f"views: octets a message: {build_file.octets / MESSAGES:.0f}")
    views = SqliteViews(tmp_path, cast("Spool", Nothing()), tmp_path / "nobody.sock")
    try:
        for what, (limit, ask) in questions(views, history).items():
            times: list[float] = []
            for _ in range(_ROUNDS):
                began = time.perf_counter()
                await ask()
                times.append(time.perf_counter() - began)
            judged(what, sorted(times)[_ROUNDS // 2], limit, 1e-3, "ms")
    finally:
        await views.close()
    assert over == []
    assert len(history.marked) == 1
