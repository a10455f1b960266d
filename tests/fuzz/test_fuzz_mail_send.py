"""Whatever is posted to mail/send, the answer is never 500; and what is accepted says exactly what was asked for: its
header has the fields that were named and no other, and no line end in it is the caller's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import falcon.testing
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mta.accounts import keys, tenants
from mta.accounts.keys import ApiKey
from mta.accounts.uses import Uses
from mta.clock import SystemClock
from mta.config import Config
from mta.delivery.letter import write
from mta.mail import headers
from mta.queue.desk import Desk
from mta.queue.gate import admit_all
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import Toll
from mta.spool.lmdb.opening import open_spool
from relay_http.app import create_app
from tests.unit.delivery.peers import job

type_json = Any
OURS = {b"received", b"from", b"to", b"cc", b"reply-to", b"subject", b"date", b"message-id", b"mime-version"}
OURS |= {b"content-type", b"content-transfer-encoding"}
BASE: dict[str, type_json] = {
    "personalizations": [{"to": [{"email": "b@remote.test"}]}],
    "from": {"email": "a@shop.test", "name": "A"},
    "subject": "s",
    "content": [{"type": "text/plain", "value": "v"}],
}
SCALARS = [
    *(
        "",
        " ",
        "x",
        "a@shop.test",
        "x\r\nBcc: v@x.test",
        "a\nb",
        "a\rb",
        "\0",
        "\x1b[2J",
        "\x85",
        "\u2028",
        "é" * 300,
        "x" * 2000,
    ),
    *("a@[IPv6:fe80::1%\r\nDATA]", "a@[IPv6:fe80::1% <b@c.test>]", '"a\r\nb"@c.test', "a@b.test>\r\nRCPT TO:<v@x.test"),
    *(
        "text/html",
        'text/plain; a="b\r\nX: y"',
        "message/rfc822",
        "=?utf-8?q?=0D=0AX:_y?=",
        "YQ==",
        "inline",
        "<a@b>",
        " " * 5000,
    ),
    *(
        "\U0001f600",
        "a, b <c@d.test>",
        'a"b\\',
        "ü@bücher.test",
        "a@xn--a.test",
        0,
        1,
        -1,
        2**70,
        1.5,
        True,
        False,
        None,
    ),
]
NAMES = [
    *(
        "to",
        "cc",
        "bcc",
        "email",
        "name",
        "subject",
        "headers",
        "custom_args",
        "from",
        "reply_to",
        "reply_to_list",
        "type",
    ),
    *("value", "content", "attachments", "filename", "disposition", "content_id", "categories", "personalizations"),
    *(
        "mail_settings",
        "sandbox_mode",
        "enable",
        "send_at",
        "X-A",
        "Bcc",
        "x: y",
        "X\r\nY",
        "Sender",
        "é",
        "",
        "Date",
        "Message-ID",
    ),
]
values = st.recursive(
    st.sampled_from(SCALARS) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
places = st.sampled_from(
    [
        *[("from", name) for name in ("email", "name")],
        *[("personalizations", 0, "to", 0, name) for name in ("email", "name")],
        *[("personalizations", 0, name) for name in ("cc", "bcc", "from", "subject", "headers", "custom_args", "to")],
        *[("content", 0, name) for name in ("type", "value")],
        *[(name,) for name in NAMES],
        ("headers", "X-A"),
        ("reply_to", "email"),
        ("attachments", 0, "filename"),
        ("attachments", 0, "content_id"),
        ("attachments", 0, "type"),
    ]
)
PARENTS = {"headers": {}, "reply_to": {"email": "r@shop.test"}, "attachments": [{"content": "YQ==", "filename": "f"}]}


def changed(changes: list[tuple[tuple[str | int, ...], type_json]]) -> dict[str, type_json]:
    """The plain request with some of its values replaced."""
    request = msgspec.json.decode(msgspec.json.encode(BASE))
    for (*path, last), value in changes:
        place = request
        if path and path[0] not in request:
            request[path[0]] = msgspec.json.decode(msgspec.json.encode(PARENTS[path[0]]))
        try:
            for each in path:
                place = place[each]
            place[last] = value
        except (TypeError, LookupError):  # an earlier change has removed the place
            continue
    return request


class Kept:
    """A queue that keeps what it is given."""

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.refusal = admit_all

    async def accept(self, *submissions: Submission) -> list[Receipt]:
        self.submissions += submissions
        return [Receipt(each.id, 1) for each in submissions]


async def up() -> msgspec.Struct:
    return msgspec.defstruct("Up", [])()


class Free:
    """Rates that are none."""

    async def tolls(self, _: ApiKey, messages: int) -> tuple[Toll, ...]:
        assert messages
        return ()


type_post = Callable[[bytes], tuple[int, list[Submission]]]


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type_post]:
    directory: Path = tmp_path_factory.mktemp("http")
    config = Config.model_validate({"hostname": "relay.test", "state_dir": directory, "spool": {"reserve": "1MiB"}})
    clock, queue = SystemClock(), Kept()

    async def prepare() -> tuple[Callable[[bytes], Awaitable[int]], Callable[[], Awaitable[None]]]:
        spool = open_spool(config, clock)
        await tenants.create(spool, "shop", 0.0)
        _, key = await keys.create(spool, "shop", ["send"], 0.0)
        desk = Desk(spool, queue, clock, None, config.run_dir)  # type: ignore[arg-type]  # nobody comes to it
        app = create_app(config, queue, spool, clock, up, desk, None, Free(), Uses(spool, clock))
        given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

        async def send(body: bytes) -> int:
            async with falcon.testing.ASGIConductor(app) as client:
                return (await client.simulate_post("/v3/mail/send", body=body, headers=given)).status_code

        return send, spool.close

    with asyncio.Runner() as runner:
        send, close = runner.run(prepare())

        def post(body: bytes) -> tuple[int, list[Submission]]:
            queue.submissions.clear()
            return runner.run(send(body)), list(queue.submissions)

        yield post
        runner.run(close())


def check(submission: Submission, request: dict[str, type_json]) -> None:
    header, _ = headers.split(submission.content)
    own = {**request.get("headers", {}), **request["personalizations"][0].get("headers", {})}
    named = {name.lower().encode() for name in own}
    lines = header.split(b"\r\n")[:-1]
    fields = list(headers.fields(header))
    assert {field.name for field in fields} <= OURS | named
    assert len(fields) == sum(not line.startswith((b" ", b"\t")) for line in lines)  # no line is anything else
    assert all(len(line) <= 998 for line in submission.content.split(b"\r\n"))
    recipients = submission.envelope.recipients
    write(job(sender=submission.envelope.sender).message, recipients, b"", submission.content)  # no Trouble


@given(st.lists(st.tuples(places, values), min_size=1, max_size=4))
@example([(("personalizations", 0, "to", 0, "email"), "a@[IPv6:fe80::1%\r\nDATA]")])
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_values(post: type_post, changes: list[tuple[tuple[str | int, ...], type_json]]) -> None:
    request = changed(changes)
    status, accepted = post(msgspec.json.encode(request))
    assert status in (200, 202, 400, 413)
    assert bool(accepted) is (status == 202)
    for submission in accepted:
        check(submission, request)


@given(
    values.map(msgspec.json.encode) | st.binary(max_size=40) | st.sampled_from([b'{"\\ud800":1}', b"[" * 5000, b"NaN"])
)
@settings(max_examples=80, deadline=None)
def test_any_body(post: type_post, body: bytes) -> None:
    status, accepted = post(body)
    assert status in (400, 413, 415)
    assert accepted == []
