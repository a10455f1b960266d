"""The fragments of the OpenAPI document of the Emails API and Sendarix tell what the resources do."""

from typing import Any

import msgspec
import pytest

from relay_http.emails import openapi as emails
from relay_http.emails.request import KNOWN as EMAILS_KNOWN
from relay_http.sendarix import openapi as sendarix
from relay_http.sendarix.request import KNOWN as SENDARIX_KNOWN
from tests.unit.relay_http.following import Relay

FRAGMENTS = [emails, sendarix]


def operations(fragment: Any) -> dict[tuple[str, str], Any]:
    return {(path, verb): each for path, item in fragment.PATHS.items() for verb, each in item.items()}


@pytest.mark.parametrize(
    ("schema", "known"),
    [(emails.SCHEMAS["EmailsRequest"], EMAILS_KNOWN), (sendarix.SCHEMAS["SendarixRequest"], SENDARIX_KNOWN)],
)
def test_every_field_is_described(schema: Any, known: frozenset[str]) -> None:
    assert schema["properties"].keys() == known
    assert set(schema["required"]) < known


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_examples_have_the_members_of_their_schemas(fragment: Any) -> None:
    for operation in operations(fragment).values():
        contents = [each["content"] for each in operation["responses"].values()]
        contents += [operation["requestBody"]["content"]] if "requestBody" in operation else []
        for content in contents:
            (body,) = content.values()
            schema = fragment.SCHEMAS[body["schema"]["$ref"].rpartition("/")[2]]
            assert set(schema["required"]) <= body["example"].keys() <= schema["properties"].keys()


@pytest.mark.parametrize("fragment", FRAGMENTS)
async def test_examples_are_taken_and_answered_as_they_say(relay: Relay, fragment: Any) -> None:
    for (path, verb), operation in operations(fragment).items():
        if "requestBody" not in operation:
            continue
        (body,) = operation["requestBody"]["content"].values()
        text = msgspec.json.encode(body["example"]).replace(b"example.com", b"shop.test")
        text = text.replace(b"X-Idempotency-Key", b"X-Other")
        result = await relay.ask(verb.upper(), path, text)
        assert result.status_code in (200, 202), result.text
        (said,) = operation["responses"][str(result.status_code)]["content"].values()
        assert result.json.keys() == said["example"].keys()
