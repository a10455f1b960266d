"""An answer before it is sent: what idempotency keeps, and gives again to who asks the same."""

import falcon.asgi
import msgspec

JSON = "application/json"


class Answer(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A status, a body and the header fields that are the dialect's own."""

    version: int = 1
    status: int
    body: bytes = b""
    media_type: str = JSON
    headers: dict[str, str] = {}

    def put(self, resp: falcon.asgi.Response) -> None:
        """Make it the response."""
        resp.status = self.status
        resp.content_type = self.media_type
        resp.data = self.body
        if self.headers:
            resp.set_headers(self.headers)


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Answer).decode
_encode_json = msgspec.json.Encoder().encode


def put_json(resp: falcon.asgi.Response, shown: object, status: int = 200) -> None:
    """Answer what is not kept: lists, details, settings."""
    resp.status = status
    resp.content_type = JSON
    resp.data = _encode_json(shown)
    resp.set_header("Cache-Control", "no-store")
