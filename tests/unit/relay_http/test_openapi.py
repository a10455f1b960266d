"""/openapi.json and /docs: the document is valid, and it is of the routes that there are, and of no others."""

import re
from html.parser import HTMLParser
from typing import Any

import falcon.inspect
import msgspec
import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from relay_http.app import dialect_of
from relay_http.openapi import document, fragments

VERBS = {"get", "post", "put", "patch", "delete"}
NOT_IN_IT = {"/openapi.json", "/docs"}  # what it is itself


def named(path: str) -> str:
    """A path whose parts have no names: they are others in Falcon's routes."""
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return dict(msgspec.json.decode(msgspec.json.encode(document(dialect_of))))


def test_the_document_is_valid(written: dict[str, Any]) -> None:
    validate(written)
    with pytest.raises(OpenAPIValidationError):
        validate({**written, "paths": {"/x": {"get": {"responses": 1}}}})


def test_every_route_is_in_it_and_nothing_else(api: Any, written: dict[str, Any]) -> None:
    routes = {
        (named(route.path), method.method.lower())
        for route in falcon.inspect.inspect_routes(api.app)
        for method in route.methods
        if method.method.lower() in VERBS and not method.internal and route.path not in NOT_IN_IT
    }
    described = {(named(path), verb) for path, item in written["paths"].items() for verb in VERBS & item.keys()}
    assert described == routes


def test_no_part_takes_the_place_of_another() -> None:
    for part in ("PATHS", "SCHEMAS"):
        names = [name for fragment in fragments() for name in getattr(fragment, part)]
        assert len(set(names)) == len(names) > 0


def test_every_operation_says_what_it_may_answer(written: dict[str, Any]) -> None:
    names: list[str] = []
    for path, item in written["paths"].items():
        for verb in VERBS & item.keys():
            operation = item[verb]
            names.append(operation["operationId"])
            assert operation["tags"], path
            assert operation["summary"], path
            asks = operation.get("security", [{}])
            assert not asks or {"401", "403"} <= operation["responses"].keys(), path
            for status, response in operation["responses"].items():
                for content in response.get("content", {}).values():
                    assert "example" in content or "examples" in content, (path, verb, status)
    assert len(set(names)) == len(names)


def test_every_schema_that_is_named_is_there(written: dict[str, Any]) -> None:
    text = msgspec.json.encode(written).decode()
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= written["components"]["schemas"].keys()


async def test_it_is_served_to_everybody(api: Any, written: dict[str, Any]) -> None:
    result = await api.request("GET", "/openapi.json")
    assert (result.status_code, result.headers["content-type"]) == (200, "application/json")
    assert result.json == written
    etag = {"If-None-Match": result.headers["etag"]}
    assert (await api.request("GET", "/openapi.json", headers=etag)).status_code == 304
    assert (await api.request("GET", "/docs", headers=etag)).status_code == 200


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self.fetched += [str(given[name]) for name in ("src", "srcset", "data") if name in given]
        self.anchors.add(given.get("id") or "")
        if (given.get("href") or "").startswith("#"):
            self.links.add(str(given["href"])[1:])

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_the_page_is_one_file_with_all_operations(api: Any, written: dict[str, Any]) -> None:
    result = await api.request("GET", "/docs")
    assert (result.status_code, result.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert result.headers["content-security-policy"].startswith("default-src 'none'")
    page = Page(result.text)
    assert not page.fetched
    assert not page.tags & {"script", "link", "iframe", "img"}
    assert page.links <= page.anchors
    for path, item in written["paths"].items():
        assert path in page.text
        for verb in VERBS & item.keys():
            assert item[verb]["summary"] in page.text
