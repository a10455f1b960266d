"""Lists and searches: what an index finds is what looking at every message finds, page by page and in both orders."""

import random
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from mta.events.views import terms
from mta.events.views.cursor import cursor_at
from mta.mail.event import ENDS, Event, EventType
from mta.mail.ids import new_message_id
from mta.queue.views import EventSearch, Search, Status, WrongCursor
from tests.unit.events.views.conftest import WORDS, Installation, Log, happen

TENANTS = ("acme", "zeta", "Ömega", None, "nobody")
_STATUS = {each: Status(each.value) for each in (*ENDS, EventType.DEFERRED)}


class Plain:
    """The history once more, kept in lists."""

    def __init__(self, log: Log) -> None:
        self.accepted = [(seq, each) for seq, each in enumerate(log.events, 1) if each.type is EventType.ACCEPTED]
        self.of = {each.message: each for _, each in self.accepted}
        self.events = list(enumerate(log.events, 1))
        self.standing: dict[str, dict[str, list[Status]]] = {}
        for _, each in self.accepted:
            first = Status.SCHEDULED if each.release_at else Status.QUEUED
            self.standing[each.message] = {
                address: [first] * each.recipients.count(address) for address in each.recipients
            }
        for _, each in self.events:
            if each.type in _STATUS:
                several = self.standing[each.message][each.recipient]
                waits = [Status.SCHEDULED, Status.QUEUED, Status.DEFERRED]
                place = next((n for n, status in enumerate(several) if status in waits), len(several) - 1)
                several[place] = _STATUS[each.type]
                if each.type in (EventType.DEFERRED, EventType.DELIVERED, EventType.BOUNCED, EventType.EXPIRED):
                    for others in self.standing[each.message].values():
                        others[:] = [Status.QUEUED if other is Status.SCHEDULED else other for other in others]

    def status(self, message: str) -> Status:
        held = [each for several in self.standing[message].values() for each in several]
        return min(held, key=list(Status).index)

    def messages(self, tenant: str | None, search: Search) -> list[str]:
        return [each.message for _, each in self.accepted if tenant in (None, each.tenant) and self._is(each, search)]

    def _is(self, each: Event, search: Search) -> bool:
        subject = _plain(each.summary.subject if each.summary else "").split()
        checks: list[tuple[Any, Callable[[], bool]]] = [
            (search.ids, lambda: each.message in search.ids),
            (search.request, lambda: each.request == search.request),
            (search.batch, lambda: each.batch == search.batch),
            (search.sent_in, lambda: each.summary is not None and each.summary.dialect == search.sent_in),
            (search.message_id, lambda: each.message_id == search.message_id),
            (search.words, lambda: all(_plain(word) in subject for word in search.words.split())),
            (search.statuses, lambda: self.status(each.message) in search.statuses),
            (search.since is not None, lambda: each.at >= (search.since or 0)),
            (search.until is not None, lambda: each.at < (search.until or 0)),
        ]
        return _concerns(each, search) and all(check() for given, check in checks if given)

    def numbers(self, tenant: str | None, search: EventSearch) -> list[int]:
        return [seq for seq, each in self.events if tenant in (None, each.tenant) and self._happened(each, search)]

    def _happened(self, each: Event, search: EventSearch) -> bool:
        return (
            _concerns(self.of[each.message], search)
            and (not search.types or each.type in search.types)
            and search.message in ("", each.message)
            and search.message_id.strip("<>") in ("", self.of[each.message].message_id.strip("<>"))
            and (not search.recipient or search.recipient.lower() in _lower(each.recipients or (each.recipient,)))
            and search.sender_domain in ("", each.sender.rpartition("@")[2].lower())
            and (search.since is None or each.at >= search.since)
            and (search.until is None or each.at < search.until)
        )


def _concerns(each: Event, search: Search | EventSearch) -> bool:
    return (
        (not search.recipient or search.recipient.lower() in _lower(each.recipients))
        and (not search.sender or search.sender.lower() == each.sender.lower())
        and (not search.category or search.category.lower() in _lower(each.categories))
    )


def _lower(several: tuple[str, ...]) -> list[str]:
    return [each.lower() for each in several]


def _plain(text: str) -> str:
    """Without case and accents, as the full-text index has it."""
    return "".join(each for each in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(each))


def some_search(chance: random.Random, log: Log) -> Search:
    first = log.events[0].at
    span = len(log.events)
    wishes: dict[str, Callable[[], Any]] = {
        "ids": lambda: tuple(each.message for each in chance.sample(log.events, 3)),
        "request": lambda: chance.choice(log.events).message,
        "batch": lambda: "b1",
        "recipient": lambda: f"user{chance.randrange(7)}@example{chance.randrange(2)}.test",
        "sender": lambda: chance.choice(("a@one.test", "B@two.test", "c@three.test")),
        "words": lambda: " ".join(chance.sample((*(each.upper() for each in WORDS), "nothing"), chance.randint(1, 2))),
        "category": lambda: chance.choice(("welcome", "Päck", "none")),
        "message_id": lambda: chance.choice(("<x@one.test>", "<y@two.test>", "<z@z.test>")),
        "sent_in": lambda: chance.choice(("sendgrid", "emails", "postmark")),
        "statuses": lambda: tuple(chance.sample(list(Status), chance.randint(1, 3))),
        "since": lambda: first + chance.randrange(span),
        "until": lambda: first + chance.randrange(span),
    }
    chosen = chance.sample(list(wishes), chance.choice((0, 1, 1, 1, 2, 2, 3)))
    return Search(**{name: wishes[name]() for name in chosen})


def some_event_search(chance: random.Random, log: Log) -> EventSearch:
    search = some_search(chance, log)
    wishes: dict[str, Any] = {
        "types": tuple(chance.sample(list(EventType), chance.randint(1, 3))),
        "message": chance.choice(log.events).message,
        "message_id": chance.choice(("<x@one.test>", "y@two.test", "z@z.test")),
        "sender_domain": chance.choice(("one.test", "two.test", "three.test")),
    }
    chosen = {name: wishes[name] for name in chance.sample(list(wishes), chance.choice((0, 0, 1, 1, 2)))}
    same = {name: getattr(search, name) for name in ("recipient", "sender", "category", "since", "until")}
    return EventSearch(**same, **chosen)


@pytest.mark.parametrize("few", [0, 20, 500])
async def test_every_search_finds_what_looking_at_everything_finds(
    few: int, relay: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `few` the index that leads is another one each time."""
    monkeypatch.setattr("mta.events.views.lists.FEW", few)
    monkeypatch.setattr("mta.events.views.happenings._GATHERED", 20 - few)
    monkeypatch.setattr("mta.events.views.messages._LEADING", 20 - few)
    happen(relay.log, 100, seed=1)
    await relay.follow()
    plain, chance, found = Plain(relay.log), random.Random(few), 0
    for _ in range(60):
        search, tenant, oldest = some_search(chance, relay.log), chance.choice(TENANTS), chance.random() < 0.5
        expected = plain.messages(tenant, search)
        limit = chance.choice((5, 20, 1000))
        shown: list[str] = []
        cursor = ""
        while True:
            page = await relay.views.messages(tenant, search, limit=limit, cursor=cursor, oldest=oldest)
            shown += [each.id for each in page.messages]
            cursor = page.next
            if not cursor:
                break
        assert shown == (expected if oldest else expected[::-1]), (tenant, search)
        assert await relay.views.count(tenant, search, 10) == min(10, len(expected))
        offset = chance.randrange(5)
        part = await relay.views.messages(tenant, search, limit=limit, offset=offset, oldest=True)
        assert [each.id for each in part.messages] == expected[offset : offset + limit]
        found += len(expected)
    assert found > 300


@pytest.mark.parametrize("few", [0, 20, 500])
async def test_every_search_of_events_finds_what_looking_at_everything_finds(
    few: int, relay: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.events.views.lists.FEW", few)
    monkeypatch.setattr("mta.events.views.happenings._GATHERED", 20 - few)
    monkeypatch.setattr("mta.events.views.happenings._GATHERED_TO", 20 - few)
    happen(relay.log, 80, seed=2)
    await relay.follow()
    plain, chance, found = Plain(relay.log), random.Random(few), 0
    for _ in range(60):
        search, tenant, oldest = some_event_search(chance, relay.log), chance.choice(TENANTS), chance.random() < 0.5
        expected = plain.numbers(tenant, search)
        limit = chance.choice((20, 1000))
        shown: list[int] = []
        cursor = ""
        while True:
            page = await relay.views.events(tenant, search, limit=limit, cursor=cursor, oldest=oldest)
            for each in page.events:
                assert each.event == relay.log.events[each.seq - 1]
                assert each.message is not None
                assert each.message.id == each.event.message
            shown += [each.seq for each in page.events]
            cursor = page.next
            if len(page.events) < limit:
                break
        assert shown == (expected if oldest else expected[::-1]), (tenant, search)
        found += len(expected)
    assert found > 300


async def test_the_list_of_events_goes_on_with_what_comes(relay: Installation) -> None:
    first = relay.log.accept()
    await relay.follow()
    page = await relay.views.events("acme", EventSearch(), limit=10, oldest=True)
    assert [each.event for each in page.events] == [first]
    second = relay.log.accept()
    await relay.follow()
    more = await relay.views.events("acme", EventSearch(), limit=10, cursor=page.next, oldest=True)
    assert [each.event for each in more.events] == [second]
    again = await relay.views.events("acme", EventSearch(), limit=10, cursor=more.next, oldest=True)
    assert again.events == ()


async def test_a_cursor_leads_back_to_the_page_before(relay: Installation) -> None:
    events = [relay.log.accept() for _ in range(6)]
    await relay.follow()
    first = await relay.views.events("acme", EventSearch(), limit=2)
    second = await relay.views.events("acme", EventSearch(), limit=2, cursor=first.next)
    assert [each.event for each in second.events] == [events[3], events[2]]
    back = await relay.views.events("acme", EventSearch(), limit=2, cursor=first.next, oldest=True)
    assert [each.event for each in back.events] == [events[4], events[5]]


async def test_a_page_begins_behind_a_message(relay: Installation) -> None:
    ids = [relay.log.accept().message for _ in range(5)]
    await relay.follow()
    older = await relay.views.messages("acme", Search(), limit=2, cursor=ids[3])
    assert [each.id for each in older.messages] == [ids[2], ids[1]]
    newer = await relay.views.messages("acme", Search(), limit=2, cursor=ids[3], oldest=True)
    assert [each.id for each in newer.messages] == [ids[4]]
    with pytest.raises(WrongCursor):
        await relay.views.messages("zeta", Search(), limit=2, cursor=ids[3])


async def test_pages_are_not_moved_by_what_comes(relay: Installation) -> None:
    old = [relay.log.accept().message for _ in range(5)]
    await relay.follow()
    first = await relay.views.messages("acme", Search(), limit=2)
    relay.log.accept()
    await relay.follow()
    rest = await relay.views.messages("acme", Search(), limit=10, cursor=first.next)
    assert [each.id for each in (*first.messages, *rest.messages)] == old[::-1]


@pytest.mark.parametrize(
    "cursor",
    [
        *("x", "AAAA", "ä", "A" * 16, "=" * 16, "A" * 22, "ä" * 22, "A" * 5000),
        cursor_at("messages", 1 << 63),
    ],
)
async def test_a_cursor_that_nobody_gave_out(relay: Installation, cursor: str) -> None:
    relay.log.accept()
    await relay.follow()
    with pytest.raises(WrongCursor):
        await relay.views.messages("acme", Search(), limit=2, cursor=cursor, oldest=True)


async def test_a_cursor_of_another_list(relay: Installation) -> None:
    relay.log.accept()
    await relay.follow()
    page = await relay.views.events("acme", EventSearch(), limit=1)
    with pytest.raises(WrongCursor):
        await relay.views.messages("acme", Search(), limit=2, cursor=page.next)


async def test_a_message_id_is_found_whoever_made_it(relay: Installation) -> None:
    theirs = relay.log.accept(message_id="<Theirs@client.test>").message
    ours = new_message_id()
    relay.log.accept(message=ours, message_id=f"<{ours}@relay.test>")
    relay.log.accept()
    await relay.follow()
    for message_id, expected in (
        ("<Theirs@client.test>", [theirs]),
        ("theirs@client.test", [theirs]),
        (f"<{ours}@relay.test>", [ours]),
        ("<nobody@client.test>", []),
        ("<>", []),
    ):
        page = await relay.views.messages("acme", Search(message_id=message_id), limit=10)
        assert [each.id for each in page.messages] == expected


async def test_a_request_has_all_of_its_messages(relay: Installation) -> None:
    first = relay.log.accept()
    second = relay.log.accept(request=first.message)
    relay.log.accept()
    await relay.follow()
    page = await relay.views.messages("acme", Search(request=first.message), limit=10, oldest=True)
    assert [each.id for each in page.messages] == [first.message, second.message]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("rechnung", True),
        ("RECHNUNG marz", True),
        ("rechnung - 42", True),
        ("inv-42", True),
        ("inv_42", True),
        ('"rechnung" OR nothing', False),
        ("rechn", False),
        ("\ue0001", True),  # a word like others
        ("\ue0002", False),  # the mark of the other tenant's mail
        ("NEAR(rechnung)", False),
        ("subject:rechnung", False),
        ("rechnung\0", True),
        ("rechnung " * 1000, True),
        ('"', True),
    ],
)
async def test_words(relay: Installation, words: str, found: bool) -> None:
    """Signs between words count for nothing; what only has signs is no condition."""
    relay.log.accept(subject="Ihre Rechnung vom März: \ue0001 inv-42")
    relay.log.accept(tenant="zeta", subject="nothing or near subject rechn")
    await relay.follow()
    page = await relay.views.messages("acme", Search(words=words), limit=10)
    assert bool(page.messages) is found


@pytest.mark.parametrize("words", ["a." * 30_000, ". a" * 30_000])
def test_a_question_is_no_longer_than_a_subject(words: str) -> None:
    """SQLite keeps a cursor for each word that it is asked for, also within a phrase."""
    asked = terms.query(terms.groups(Search(words=words), ["acme"], [1]))
    assert 1 < asked.count("a") < 200
