"""Whatever is posted to Mailgun's messages, the answer is never 500; what is refused says one sentence and stores
nothing, and no line end in an accepted header is the caller's.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mta.config import Limits
from mta.mail import headers
from tests.unit.relay_http.conftest import Api, make_config
from tests.unit.relay_http.mailgun.conftest import Client

OURS = {b"received", b"from", b"to", b"cc", b"reply-to", b"subject", b"date", b"message-id", b"mime-version"}
OURS |= {b"content-type", b"content-transfer-encoding", b"x-own", b"x-mailgun-variables"}
NAMES = [
    "from",
    "to",
    "cc",
    "bcc",
    "subject",
    "text",
    "html",
    "amp-html",
    "attachment",
    "inline",
    "message",
    "template",
]
NAMES += ["recipient-variables", "h:X-Own", "h:Reply-To", "h:Message-Id", "h:", "h:X-Mailgun-Variables", "v:", "v:a"]
NAMES += [
    f"o:{name}" for name in ("tag", "deliverytime", "deliver-within", "testmode", "require-tls", "tracking", "dkim")
]
VALUES = [
    "",
    "x",
    "yes",
    "a@b.test",
    "Ann <a@b.test>",
    "a@b.test,c@d.test",
    "a@shop.test",
    "x\r\nBcc: v@x.test",
    "\0",
    "é",
]
VALUES += [
    "%recipient.a%",
    "%recipient%",
    "%recipient",
    "1800000000",
    "Fri, 15 Jan 2027 08:00:00 +0000",
    "1h",
    "{}",
    "[]",
]
VALUES += [
    '{"a@b.test": {"a": "x\\r\\nBcc: v@x.test"}}',
    '{"a@b.test": {"a": [1]}}',
    "<a@b>",
    "From: a@shop.test\r\n\r\nx",
]
texts = st.sampled_from(VALUES) | st.text(st.characters(codec="utf-8"), max_size=30)
fields = st.lists(st.tuples(st.sampled_from(NAMES), texts), max_size=8)
BASE = [("from", "a@shop.test"), ("to", "a@b.test"), ("text", "x")]
type_fields = list[tuple[str, str]]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@settings(max_examples=150, deadline=None)
@given(fields=fields, whole=st.booleans(), path=st.sampled_from(["messages", "messages.mime"]))
@example([("subject", "%recipient.a%"), ("recipient-variables", VALUES[-4])], True, "messages")
@example([("h:X-Own", "%recipient.a%"), ("recipient-variables", VALUES[-4])], True, "messages")
@example([("to", "b@b.test"), ("message", VALUES[-1])], False, "messages.mime")
def test_messages(loop: asyncio.AbstractEventLoop, fields: type_fields, whole: bool, path: str) -> None:
    given_fields: list[Any] = [
        *(BASE if whole else []),
        *[(name, value.replace("\r\n--", "")) for name, value in fields],
    ]
    loop.run_until_complete(_send(given_fields, f"/v3/shop.test/{path}"))


async def _send(fields: list[Any], path: str) -> None:
    api = Api(make_config(limits=Limits()))
    await api.prepare()
    result = await Client(api).send_parts(fields, path)
    assert result.status_code in (200, 400, 403, 413), result.text
    if result.status_code != 200:
        assert result.json.keys() == {"message"}
        assert not api.queue.calls
        return
    assert result.json["message"].startswith("Queued")
    for sent in api.queue.accepted:
        header = sent.content[: headers.header_length(sent.content)]
        assert {each.name for each in headers.fields(header)} <= OURS
        assert all(json.dumps(value) for value in sent.custom_args.values())
