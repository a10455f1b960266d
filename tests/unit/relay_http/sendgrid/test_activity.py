"""The activity feed: what a query finds, and what of it is shown."""

from typing import Any

import msgspec
import pytest

from mta.mail.event import Event, EventType
from mta.mail.ids import new_message_id
from mta.mail.summary import Summary
from mta.queue.views import RecipientShown, Status, ViewsUnavailable
from relay_http.problem import Refusal
from relay_http.sendgrid.query import read_query
from tests.unit.relay_http.views import message_shown

NOW = 1_800_000_000.0


async def feed(site: Any, query: str, **more: str) -> Any:
    params = "&".join(f"{name}={value}" for name, value in more.items())
    return await site.ask("GET", f"/messages?query={query.replace(' ', '%20').replace(':', '%3A')}&{params}")


def recipient(address: str, status: Status, at: float = NOW) -> RecipientShown:
    return RecipientShown(address=address, status=status, at=at)


@pytest.fixture
def three(site: Any) -> list[str]:
    """Three messages: delivered and bounced, scheduled, and of another tenant."""
    ids = [new_message_id() for _ in range(3)]
    mixed = (recipient("ann@example.test", Status.DELIVERED), recipient("Bob@example.test", Status.BOUNCED, NOW + 5))
    site.views.shown = [
        message_shown(ids[0], status=Status.BOUNCED, recipients=mixed, summary=Summary(subject="One")),
        message_shown(ids[1], "ann@example.test", status=Status.SCHEDULED, at=NOW + 100),
        message_shown(ids[2], "ann@example.test", tenant="other"),
    ]
    return ids


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ('to_email="ann@example.test"', ["1.0", "0.0"]),
        ('to_email="bob@example.test"', ["0.1"]),
        ('status="delivered"', ["0.0"]),
        ('status="not_delivered"', ["0.1"]),
        ('status="processed"', ["1.0"]),
        ('status="processed" OR status="not_delivered"', ["1.0", "0.1"]),
        ('(status="delivered" or status="processed") AND to_email="ann@example.test"', ["1.0", "0.0"]),
        ('from_email="billing@shop.test" AND subject="One"', ["0.0", "0.1"]),
        ('last_event_time BETWEEN TIMESTAMP "2027-01-15T08:00:01Z" AND TIMESTAMP "2027-01-15T08:01:39Z"', ["0.1"]),
        ('last_event_time >= TIMESTAMP "2027-01-15T08:01:40"', ["1.0"]),
        ('last_event_time = "2027-01-15T08:00:00Z"', ["0.0"]),
        ('last_event_time < TIMESTAMP "2027-01-15T08:00:00Z"', []),
        ("from_email='nobody@shop.test'", []),
    ],
)
async def test_what_a_query_finds(site: Any, three: list[str], query: str, rows: list[str]) -> None:
    result = await feed(site, query)
    assert result.status_code == 200, result.text
    found = [each["msg_id"].split(".") for each in result.json["messages"]]
    assert all(request == message for request, message, _ in found)
    assert sorted(f"{three.index(message)}.{number}" for _, message, number in found) == sorted(rows)


async def test_rows_by_id(site: Any, three: list[str]) -> None:
    first = three[0]
    for query, count in (
        (f'msg_id="{first}"', 2),
        (f'msg_id="{first}.{first}.1"', 1),
        (f'msg_id="{first}.{first}.1" OR msg_id="{three[1]}.{three[1]}"', 2),
        (f'msg_id="{three[2]}"', 0),
    ):
        assert len((await feed(site, query)).json["messages"]) == count, query


async def test_a_row_says_what_the_vendors_says(site: Any, three: list[str]) -> None:
    (row,) = (await feed(site, 'to_email="bob@example.test"')).json["messages"]
    assert row == {
        "from_email": "billing@shop.test",
        "msg_id": f"{three[0]}.{three[0]}.1",
        "subject": "One",
        "to_email": "Bob@example.test",
        "status": "not_delivered",
        "opens_count": 0,
        "clicks_count": 0,
        "last_event_time": "2027-01-15T08:00:05Z",
    }


async def test_so_many_rows_and_no_more(site: Any) -> None:
    site.views.shown = [message_shown(new_message_id(), "ann@example.test") for _ in range(1200)]
    query = 'to_email="ann@example.test"'
    assert len((await feed(site, query)).json["messages"]) == 10
    assert len((await feed(site, query, limit="1000")).json["messages"]) == 1000
    for limit in ("0", "1001", "x", "-1"):
        refused = await feed(site, query, limit=limit)
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (400, "limit")


async def test_a_row_with_its_events(site: Any, three: list[str]) -> None:
    id_ = three[0]
    site.views.change(id_, custom_args={"user": "42"}, categories=("orders",))
    common = {"tenant": "shop", "message": id_}
    site.views.told = [
        (1, Event(id=f"{id_}.0.1", type=EventType.ACCEPTED, at=NOW, **common)),
        (2, Event(id=f"{id_}.1.1", type=EventType.DELIVERED, at=NOW, recipient="ann@example.test", **common)),
        (3, Event(id=f"{id_}.2.1", type=EventType.CHANGED, at=NOW, recipient="Bob@example.test", **common)),
        (
            4,
            Event(
                id=f"{id_}.2.2", type=EventType.BOUNCED, at=NOW + 5, recipient="Bob@example.test",
                relay="mx.test[192.0.2.9]:25", attempt=1, reply="550 5.1.1 no such user", **common,
            ),
        ),
    ]  # fmt: skip
    result = await site.ask("GET", f"/messages/{id_}.{id_}.1")
    assert result.status_code == 200
    assert result.json["unique_args"] == '{"user":"42"}'
    assert result.json["categories"] == ["orders"]
    assert result.json["events"] == [
        {"event_name": "processed", "processed": "2027-01-15T08:00:00Z"},
        {
            "event_name": "bounce",
            "processed": "2027-01-15T08:00:05Z",
            "mx_server": "mx.test[192.0.2.9]:25",
            "attempt_num": 1,
            "bounce_type": "hard",
            "reason": "550 5.1.1 no such user",
        },
    ]
    assert (await site.ask("GET", f"/messages/{id_}")).json["to_email"] == "ann@example.test"
    for unknown in (f"{id_}.{id_}.2", f"{id_}.{id_}.x", f"{id_}.{id_}.99999", three[2], "x", f"{id_}.."):
        assert (await site.ask("GET", f"/messages/{unknown}")).status_code == 404, unknown


async def test_who_may_not_read_does_not(site: Any) -> None:
    assert (await site.ask("GET", '/messages?query=status="delivered"', key="operator")).status_code == 403
    site.views.error = ViewsUnavailable()
    refused = await site.ask("GET", '/messages?query=status="delivered"')
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (await site.ask("GET", "/messages?query=")).status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "to_email",
        "to_email=",
        "to_email=ann",
        'to_email!="a"',
        'clicks="1"',
        'status="bounced"',
        'to_email="a" to_email="b"',
        'to_email="a" AND to_email="b"',
        'to_email="a" OR to_email="b"',
        'status="delivered" OR to_email="b"',
        'status="delivered" OR (status="processed" AND to_email="b")',
        'last_event_time LIKE "x"',
        'last_event_time > "yesterday"',
        'status="delivered" OR last_event_time > "2027-01-15T08:00:00Z"',
        '(status="delivered"',
        'status="delivered")',
        "(" * 4000,
        "(" * 9 + 'status="delivered"' + ")" * 9,
        'subject="' + "x" * 4000 + '"',
        "\0",
        'status="delivered" AND',
    ],
    ids=lambda query: query[:40],
)
def test_what_is_no_query_is_refused(query: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_query(query)
    (problem,) = refused.value.problems
    assert (refused.value.status, problem.field) == (400, "query")
    assert len(problem.message) < 300


def test_what_is_searched_for() -> None:
    found = read_query('(status="processed" OR status="not_delivered") AND to_email="A@b.test"').search
    assert Status.DELIVERED not in found.statuses
    assert found.recipient == "A@b.test"
    assert read_query('status="delivered" AND (((subject="x")))').search.words == "x"
    between = read_query(
        'last_event_time BETWEEN TIMESTAMP "2027-01-15T08:00:00Z" AND TIMESTAMP "2027-01-16T08:00:00Z"'
    )
    assert between.search.since == NOW - 7 * 86_400
    assert between.search.until == NOW + 86_401
    assert msgspec.structs.asdict(read_query('msg_id="x"').search)["request"] == "x"
