"""Requests as the vendor's clients make them."""

from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

import falcon.testing
import pytest

BOUNDARY = "----formdata-7"
File = tuple[str, bytes, str]  # filename, octets, media type


def basic(key: str, user: str = "api") -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{key}".encode()).decode()}


def multipart(fields: list[tuple[str, str | File]]) -> bytes:
    """Write a form as `requests` does: text without a media type, files with one unless it is empty."""
    body = b""
    for name, value in fields:
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if isinstance(value, str):
            body += b"\r\n\r\n" + value.encode()
        else:
            filename, octets, kind = value
            body += f'; filename="{filename}"'.encode()
            body += (f"\r\nContent-Type: {kind}" if kind else "").encode() + b"\r\n\r\n" + octets
        body += b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


class Client:
    """Mailgun's, as far as the wire goes."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.views = api.views
        self.spool = api.spool
        self.queue = api.queue

    async def post(self, path: str, body: bytes, kind: str, **headers: str) -> falcon.testing.Result:
        given = {**basic(self.api.key), "Content-Type": kind}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.api.request("POST", path, body, given)  # type: ignore[no-any-return]

    async def send(self, form: dict[str, Any], **headers: str) -> falcon.testing.Result:
        """Send by an urlencoded form; lists are repeated fields."""
        body = urlencode(form, doseq=True).encode()
        return await self.post("/v3/shop.test/messages", body, "application/x-www-form-urlencoded", **headers)

    async def send_parts(
        self, fields: list[tuple[str, str | File]], path: str = "/v3/shop.test/messages", **headers: str
    ) -> falcon.testing.Result:
        return await self.post(path, multipart(fields), f"multipart/form-data; boundary={BOUNDARY}", **headers)

    async def refused(self, form: dict[str, Any], status: int = 400) -> str:
        """Send what must be refused; return the message."""
        result = await self.send(form)
        assert result.status_code == status, result.text
        assert not self.queue.calls
        assert result.json.keys() == {"message"}
        return str(result.json["message"])

    async def get(self, path: str, key: str | None = None, **headers: str) -> falcon.testing.Result:
        given = basic(self.api.read_key if key is None else key) | headers
        return await self.api.request("GET", path, headers=given)  # type: ignore[no-any-return]


@pytest.fixture
def client(api: Any) -> Client:
    return Client(api)


@pytest.fixture
def form() -> dict[str, Any]:
    return {
        "from": "Shop <billing@shop.test>",
        "to": "Ann <ann@example.test>",
        "subject": "Your order",
        "text": "Thank you",
    }
