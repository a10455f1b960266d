"""GET events: what is asked of the views, and what is shown."""

from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from mta.mail.event import Event, EventType
from mta.mail.summary import FileShown, Summary
from mta.queue.views import EventSearch, ViewsUnavailable
from relay_http.mailgun.events import Place
from tests.unit.relay_http.mailgun.conftest import Client
from tests.unit.relay_http.views import message_shown

ID = "AZ" + "a" * 20
PATH = "/v3/shop.test/events"


def event(type_: EventType, at: float, **more: Any) -> Event:
    fields: dict[str, Any] = {"recipient": "ann@example.test", "sender": "billing@shop.test"}
    return Event(id=f"{ID}.1.{at:.0f}", type=type_, at=at, tenant="shop", message=ID, **(fields | more))


@pytest.fixture
def told(client: Client) -> Client:
    """A message that was deferred, then delivered; and one that bounced."""
    summary = Summary(
        subject="Grüße",
        from_="Shop <billing@shop.test>",
        to="Ann <ann@example.test>",
        files=(FileShown("a.txt", "text/plain", 5),),
    )
    shown = message_shown(ID, "ann@example.test", summary=summary, categories=("t",), custom_args={"order": "7"})
    client.views.shown = [shown]
    reply = {"reply": "250 2.0.0 ok", "status": "2.0.0", "relay": "mx.example.test[192.0.2.1]:25", "tls": "TLSv1.3"}
    deferred = {"reply": "451 4.3.0 later", "status": "4.3.0", "retry_at": 162.0, "attempt": 1}
    client.views.told = [
        (1, event(EventType.ACCEPTED, 100, recipient="", recipients=("ann@example.test",))),
        (2, event(EventType.DEFERRED, 102, **deferred)),
        (3, event(EventType.CHANGED, 103)),
        (4, event(EventType.DELIVERED, 162.5, attempt=2, source="192.0.2.9", **reply)),
        (5, event(EventType.BOUNCED, 170, reply="550 5.1.1 unknown", status="5.1.1")),
        (6, event(EventType.EXPIRED, 171)),
    ]
    return client


async def test_a_delivered_event_in_full(told: Client) -> None:
    result = await told.get(f"{PATH}?event=delivered")
    (item,) = result.json["items"]
    assert item == {
        "event": "delivered",
        "id": f"{ID}.1.162",
        "timestamp": 162.5,
        "log-level": "info",
        "recipient": "ann@example.test",
        "recipient-domain": "example.test",
        "message": {
            "headers": {
                "to": "Ann <ann@example.test>",
                "from": "Shop <billing@shop.test>",
                "subject": "Grüße",
                "message-id": f"{ID}@mail.shop.test",
            },
            "attachments": [{"filename": "a.txt", "content-type": "text/plain", "size": 5}],
            "recipients": ["ann@example.test"],
            "size": 1000,
        },
        "envelope": {
            "transport": "smtp",
            "sender": "billing@shop.test",
            "sending-ip": "192.0.2.9",
            "targets": "ann@example.test",
        },
        "flags": {"is-routed": False, "is-authenticated": True, "is-system-test": False, "is-test-mode": False},
        "tags": ["t"],
        "campaigns": [],
        "user-variables": {"order": "7"},
        "storage": {"url": f"http://falconframework.org/v3/domains/shop.test/messages/{ID}", "key": ID},
        "delivery-status": {
            "code": 250,
            "message": "250 2.0.0 ok",
            "description": "",
            "enhanced-code": "2.0.0",
            "attempt-no": 2,
            "mx-host": "mx.example.test",
            "tls": True,
            "session-seconds": 0.0,
        },
    }


async def test_the_newest_first_and_only_what_the_vendor_knows(told: Client) -> None:
    items = (await told.get(PATH)).json["items"]
    assert [(each["event"], each.get("severity"), each.get("reason")) for each in items] == [
        ("failed", "permanent", "old"),
        ("failed", "permanent", "bounce"),
        ("delivered", None, None),
        ("failed", "temporary", "generic"),
        ("accepted", None, None),
    ]
    assert [each.get("delivery-status", {}).get("code") for each in items] == [602, 550, 250, 451, None]
    assert items[3]["delivery-status"]["retry-seconds"] == 60
    assert items[4]["recipient"] == "ann@example.test"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("event=accepted+OR+delivered", 2),
        ("event=failed", 3),
        ("event=failed&severity=permanent", 2),
        ("event=failed&severity=temporary", 1),
        ("severity=temporary", 1),
        ("event=opened", 0),
        ("event=clicked+OR+accepted", 1),
        (f"message-id={ID}@mail.shop.test", 5),
        (f"message-id=%3C{ID}@mail.shop.test%3E", 5),
        ("message-id=other@mail.shop.test", 0),
        ("recipient=ann@example.test&event=delivered", 1),
        ("recipient=%22ann@example.test%22&event=delivered", 1),
        ("recipients=bob@example.test", 0),
        ("to=ann@example.test&event=delivered", 1),
        ("from=billing@shop.test", 5),
        ("tags=none", 0),
        ("begin=102&end=163", 2),
        ("begin=163&end=102", 2),
        ("begin=102&ascending=yes", 4),
        ("begin=102&ascending=no", 1),
        ("end=102&ascending=yes", 1),
        ("begin=Thu,+01+Jan+1970+00:02:42+-0000&ascending=yes", 3),
        ("pretty=yes&unknown=x", 5),
    ],
)
async def test_filters(told: Client, query: str, count: int) -> None:
    result = await told.get(f"{PATH}?{query}")
    assert (result.status_code, len(result.json.get("items", ()))) == (200, count), result.text


async def test_a_range_that_ascends_is_read_so(told: Client) -> None:
    items = (await told.get(f"{PATH}?begin=100&end=163")).json["items"]
    assert [each["timestamp"] for each in items] == [100, 102, 162.5]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=301",
        "limit=x",
        "limit=" + "9" * 5000,
        "limit=00000000099999",
        "begin=yesterday",
        "event=nonsense",
        "severity=high",
        "ascending=up",
        "recipient=a+OR+b",
        "tags=NOT+x",
        "subject=x",
        "size=>1",
        "page=!!",
        "page=" + "A" * 9000,
        "page=kA",
        "from=" + "x" * 600,
        "from=%00",
    ],
)
async def test_what_is_no_question(told: Client, query: str) -> None:
    result = await told.get(f"{PATH}?{query}")
    assert (result.status_code, result.json.keys()) == (400, {"message"}), result.text


@pytest.mark.parametrize("by", ["path", "query"])
async def test_pages_forth_and_back_by_path_and_by_query(told: Client, by: str) -> None:
    def address(url: str) -> str:
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}" == "http://falconframework.org"
        return parts.path if by == "path" else f"{PATH}?{parts.query}&limit=1&event=accepted"

    page = (await told.get(f"{PATH}?limit=2&event=failed+OR+delivered")).json
    seen = [[each["timestamp"] for each in page["items"]]]
    first = page
    while page["items"]:
        page = (await told.get(address(page["paging"]["next"]))).json
        seen.append([each["timestamp"] for each in page["items"]])
    assert seen == [[171, 170], [162.5, 102], []]
    back = (await told.get(address(page["paging"]["previous"]))).json
    assert [each["timestamp"] for each in back["items"]] == [162.5, 102]
    back = (await told.get(address(back["paging"]["previous"]))).json
    assert back["items"] == first["items"]
    before = (await told.get(address(back["paging"]["previous"]))).json
    assert before["items"] == []
    assert (await told.get(address(before["paging"]["next"]))).json["items"] == first["items"]


async def test_an_empty_page_goes_on_later(told: Client) -> None:
    page = (await told.get(f"{PATH}?begin=100&ascending=yes")).json
    page = (await told.get(urlsplit(page["paging"]["next"]).path)).json
    assert page["items"] == []
    told.views.told.append((7, event(EventType.DROPPED, 200)))
    page = (await told.get(urlsplit(page["paging"]["next"]).path)).json
    assert [each["timestamp"] for each in page["items"]] == [200]


async def test_a_token_of_ones_own_making_shows_nothing_else(told: Client) -> None:
    search = EventSearch(types=(EventType.CHANGED, EventType.DELIVERED), sender_domain="other.test")
    token = urlsafe_b64encode(msgspec.msgpack.encode(Place(limit=9, oldest=True, search=search))).decode()
    items = (await told.get(f"{PATH}/{token}")).json["items"]
    assert [each["event"] for each in items] == ["delivered"]
    for wrong in (Place(limit=301, oldest=True, search=search), Place(limit=1, oldest=True, search=search, cursor="x")):
        token = urlsafe_b64encode(msgspec.msgpack.encode(wrong)).decode()
        assert (await told.get(f"{PATH}/{token}")).status_code == 400


async def test_another_domains_events_are_not_shown(told: Client) -> None:
    assert (await told.get("/v3/mg.shop.test/events")).json["items"] == []
    token = urlsplit((await told.get(f"{PATH}?limit=2")).json["paging"]["next"]).path.rpartition("/")[2]
    assert (await told.get(f"/v3/mg.shop.test/events/{token}")).json["items"] == []
    assert (await told.get("/v3/other.test/events")).status_code == 404


async def test_an_event_whose_message_is_gone(told: Client) -> None:
    told.views.shown = []
    (item,) = (await told.get(f"{PATH}?event=accepted")).json["items"]
    assert (item["recipient"], item["message"]["headers"]["subject"]) == ("ann@example.test", "")


async def test_a_key_that_may_not_read(told: Client) -> None:
    assert (await told.get(PATH, told.api.key)).json == {"message": "Forbidden"}


async def test_without_views(told: Client) -> None:
    told.views.error = ViewsUnavailable()
    result = await told.get(PATH)
    assert (result.status_code, list(result.json)) == (503, ["message"])
