"""GET /v1/mail and what is below a message."""

from typing import Any
from urllib.parse import quote

import pytest

from mta.mail.event import Event, EventType
from mta.mail.ids import new_message_id
from mta.mail.summary import FileShown, Summary
from mta.queue.views import RecipientShown, Status, ViewsUnavailable
from tests.unit.relay_http.views import message_shown


@pytest.fixture
def shown(post: Any) -> list[str]:
    """Three messages of the tenant's and one of another's."""
    ids = [new_message_id() for _ in range(4)]
    post.views.shown = [
        message_shown(ids[0], "ann@example.test", categories=("order",), at=100.0),
        message_shown(ids[1], "bob@example.test", status=Status.DELIVERED, at=200.0, batch="b1"),
        message_shown(ids[2], "ann@example.test", status=Status.BOUNCED, at=300.0),
        message_shown(ids[3], "ann@example.test", tenant="other", at=400.0),
    ]
    return ids


async def listed(post: Any, query: str = "", key: str = "read") -> list[str]:
    result = await post.ask("GET", f"?{query}", key=key)
    assert (result.status_code, result.headers["cache-control"]) == (200, "no-store"), result.text
    return [each["id"] for each in result.json["messages"]]


async def test_lists_of_ones_own(post: Any, shown: list[str]) -> None:
    first, second, third, others = shown
    assert await listed(post) == [third, second, first]
    assert await listed(post, key="operator") == [others, third, second, first]
    assert await listed(post, key="other") == [others]
    assert await listed(post, "order=oldest") == [first, second, third]


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("recipient=ann@example.test", [2, 0]),
        ("status=bounced&status=delivered", [2, 1]),
        ("tag=order", [0]),
        ("batch=b1", [1]),
        ("since=200", [2, 1]),
        (f"until={quote('1970-01-01T00:03:20Z')}", [0]),
        ("words=order", [2, 1, 0]),
        ("words=nothing", []),
        ("sender=billing@shop.test&status=queued", [0]),
        ("dialect=sendgrid", []),
    ],
)
async def test_filters(post: Any, shown: list[str], query: str, meant: list[int]) -> None:
    assert await listed(post, query) == [shown[each] for each in meant]


async def test_by_ids(post: Any, shown: list[str]) -> None:
    assert await listed(post, f"id={shown[0]}&id={shown[3]}") == [shown[0]]
    assert await listed(post, f"request={shown[1]}") == [shown[1]]
    assert await listed(post, f"message_id={quote(f'<{shown[1]}@mail.shop.test>')}") == [shown[1]]


async def test_pages(post: Any, shown: list[str]) -> None:
    first = (await post.ask("GET", "?limit=2", key="read")).json
    assert [each["id"] for each in first["messages"]] == [shown[2], shown[1]]
    last = (await post.ask("GET", f"?limit=2&cursor={first['next']}", key="read")).json
    assert ([each["id"] for each in last["messages"]], last["next"]) == ([shown[0]], None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(("limit=0", "limit"), ("limit=501", "limit"), ("limit=%C2%B2", "limit"), ("cursor=x", "cursor")),
        *(("status=gone", "status"), ("since=yesterday", "since"), ("order=up", "order"), ("colour=red", "colour")),
        *(
            ("tag=a&tag=b", "tag"),
            ("&".join(["id=x"] * 101), "id"),
            (f"words={'x' * 513}", "words"),
            ("until=", "until"),
        ),
    ],
)
async def test_what_is_no_question(post: Any, query: str, field: str) -> None:
    assert await post.refused("GET", f"?{query}") == (400, [field])


async def test_a_message(post: Any, shown: list[str]) -> None:
    recipient = RecipientShown(
        address="ann@example.test", status=Status.DEFERRED, at=105.0, attempts=2, reply="451 later", retry_at=135.0
    )
    files = (FileShown("logo.png", "image/png", 3, inline=True),)
    post.views.change(
        shown[0],
        recipients=(recipient,),
        summary=Summary(subject="Hi", dialect="fairlead", files=files),
        status=Status.DEFERRED,
    )
    result = await post.ask("GET", f"/{shown[0]}", key="read")
    assert result.status_code == 200
    told = result.json
    assert (told["status"], told["subject"], told["tags"], told["batch"]) == ("deferred", "Hi", ["order"], None)
    assert told["recipients"] == [
        {
            "address": "ann@example.test",
            "status": "deferred",
            "at": 105.0,
            "attempts": 2,
            "reply": "451 later",
            "relay": None,
            "retry_at": 135.0,
        }
    ]
    assert told["attachments"] == [{"filename": "logo.png", "type": "image/png", "size": 3, "inline": True}]


async def test_who_has_it_so_already(post: Any, shown: list[str]) -> None:
    etag = (await post.ask("GET", f"/{shown[0]}")).headers["etag"]
    for given in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        result = await post.ask("GET", f"/{shown[0]}", headers={"If-None-Match": given})
        assert (result.status_code, result.content, result.headers["etag"]) == (304, b"", etag)
    post.views.change(shown[0], status=Status.DELIVERED)
    result = await post.ask("GET", f"/{shown[0]}", headers={"If-None-Match": etag})
    assert (result.status_code, result.json["status"]) == (200, "delivered")


@pytest.mark.parametrize("path", ["", "/timeline", "/raw", "/explain"])
async def test_what_is_not_there(post: Any, shown: list[str], path: str) -> None:
    for id_ in (new_message_id(), "x", shown[3], f"{shown[0]}.1x"):
        assert await post.refused("GET", f"/{id_}{path}") == (404, [])


@pytest.mark.parametrize("path", ["", "/x", "/x/timeline", "/x/raw", "/x/explain"])
async def test_who_may_not_look(post: Any, path: str) -> None:
    assert (await post.refused("GET", path, key="send"))[0] == 403
    assert (await post.refused("GET", path, key=""))[0] == 401


async def test_the_timeline(post: Any) -> None:
    id_ = await post.send()
    event = Event(id=f"{id_}.0.1", type=EventType.ACCEPTED, at=1.0, tenant="shop", message=id_)
    post.views.told = [(7, event)]
    told = (await post.ask("GET", f"/{id_}/timeline", key="read")).json
    assert told == {
        "id": id_,
        "events": [{"seq": 7, "id": event.id, "type": "accepted", "at": 1.0, "tenant": "shop", "message": id_}],
    }


async def test_the_octets_are_for_those_who_may_see_them(post: Any) -> None:
    id_ = await post.send(text="Secret")
    post.views.shown = [message_shown(id_, "ann@example.test")]
    assert (await post.refused("GET", f"/{id_}/raw", key="read"))[0] == 403
    for key in ("all", "operator", "content"):
        result = await post.ask("GET", f"/{id_}/raw", key=key)
        assert (result.status_code, result.headers["content-type"]) == (200, "message/rfc822")
        assert b"\r\n\r\nSecret" in result.content
    assert (await post.ask("POST", f"/{id_}/cancel")).status_code == 200
    assert await post.refused("GET", f"/{id_}/raw") == (410, [])


async def test_why_it_does_not_move(post: Any) -> None:
    id_ = await post.send(send_at=post.clock.now() + 60)
    told = (await post.ask("GET", f"/{id_}/explain", key="read")).json
    assert [(each["gate"], each["next_at"]) for each in told["entries"]] == [("scheduled", post.clock.now() + 60)]


async def test_views_that_cannot_be_read(post: Any) -> None:
    post.views.error = ViewsUnavailable("the views are being built")
    result = await post.ask("GET", "")
    assert (result.status_code, result.headers["retry-after"]) == (503, "5")
