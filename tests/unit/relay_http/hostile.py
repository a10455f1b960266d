"""What hostile clients put into JSON, and a look at what comes of it."""

from typing import Any

from hypothesis import strategies as st

from mta.content.compose import Body, Head, head
from mta.mail import headers
from relay_http.outgoing import Outgoing

_TEXTS = [
    *("", " ", "x", "a@shop.test", "A <a@shop.test>", "x\r\nBcc: v@x.test", "a\rb", "\0", "\x85", "\u202e", "é" * 300),
    *('"a\r\nb"@c.test', "a@b.test>\r\nRCPT TO:<v@x.test", "=?utf-8?q?=0D=0AX:_y?=", "2030-01-01T00:00:00Z", "high"),
    *('text/plain; a="b\r\nX: y"', "multipart/mixed", "aGk=", "X-Idempotency-Key", "X-A", "Received"),
]
_scalars = st.sampled_from([*_TEXTS, None, True, False, 0, -1, 1e300, 2**63]) | st.text(
    'aZ0é世 \t\r\n\0<>@,;:"\\()', max_size=8
)
values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_TEXTS), inner, max_size=3),
    max_leaves=6,
)
OURS = {b"received", b"from", b"to", b"cc", b"reply-to", b"subject", b"date", b"message-id", b"mime-version"}
OURS |= {b"content-type", b"content-transfer-encoding"}


def written(outgoing: Outgoing) -> set[bytes]:
    """Write a message; return the names of its fields that are not ours."""
    fields: dict[str, Any] = {
        name: getattr(outgoing, name) for name in ("sender", "to", "cc", "reply_to", "subject", "headers")
    }
    lead = head(Head(id="x", hostname="relay.test", date=0.0, **fields))
    body = Body(outgoing.parts, outgoing.attachments, "u")
    content = lead + body.lead(outgoing.parts) + body.rest
    assert content.isascii() or not all(each.address.isascii() for each in (outgoing.sender, *outgoing.recipients))
    return set(headers.names(content[: headers.header_length(content)])) - OURS
