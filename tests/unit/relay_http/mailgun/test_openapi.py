"""The dialect's part of the OpenAPI document is whole, and its examples are what is answered."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from relay_http.mailgun.openapi import PATHS, SCHEMAS
from tests.unit.relay_http.mailgun.conftest import Client

paths: dict[str, Any] = PATHS  # type: ignore[assignment]
schemas: dict[str, Any] = SCHEMAS  # type: ignore[assignment]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        for each in node.values():
            yield from references(each)
    elif isinstance(node, list | tuple):
        for each in node:
            yield from references(each)


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    named = set(references(paths)) | set(references(schemas))
    assert named - {"SendGridErrors"} == set(schemas)  # paths without a dot are answered in its words


def test_every_operation_has_examples_and_says_who_may() -> None:
    for path, item in paths.items():
        for operation in item.values():
            in_path = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
            assert in_path == re.findall(r"{(\w+)}", path)
            assert operation["security"] == [{"basic": []}]
            assert {"200", "400", "401", "403", "405", "500", "503"} <= set(operation["responses"])
            for response in operation["responses"].values():
                (content,) = response["content"].values()
                assert content["example"]


@pytest.mark.parametrize("path", ["/v3/{domain}/messages", "/v3/{domain}/messages.mime"])
async def test_an_example_of_a_request_is_accepted(client: Client, path: str) -> None:
    operation = paths[path]["post"]
    example = operation["requestBody"]["content"]["multipart/form-data"]["example"]
    fields = [(name, value.replace("example.com", "shop.test")) for name, value in example.items()]
    result = await client.send_parts(fields, path.replace("{domain}", "shop.test"))
    assert result.status_code == 200, result.text
    assert result.json.keys() == operation["responses"]["200"]["content"]["application/json"]["example"].keys()
