"""The dialect's part of the OpenAPI document says what is there."""

from collections.abc import Iterator
from typing import Any

from relay_http.sendgrid.openapi import PATHS, SCHEMAS
from relay_http.sendgrid.openapi_mail import EXAMPLE, MAIL
from relay_http.sendgrid.request import read_mail_send
from relay_http.sendgrid.routes import MOUNTS
from tests.unit.relay_http.test_request import EVERYTHING

NOW = 1_800_000_000.0
VERBS = {"get", "post", "put", "patch", "delete"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in PATHS.items():
        assert isinstance(item, dict)
        for verb, operation in item.items():
            yield path, verb, operation


async def test_every_documented_operation_is_there_and_no_other(site: Any) -> None:
    for path, item in PATHS.items():
        assert isinstance(item, dict)
        there = await site.ask("OPTIONS", path.replace("{", "").replace("}", ""))
        verbs = {each.strip().lower() for each in there.headers["allow"].split(",")} & VERBS
        assert verbs == set(item), path


def test_operations_are_named_once_and_refuse_in_the_vendors_shape() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    for path, _, operation in operations():
        statuses = operation["responses"]
        assert {"401", "403", "503"} <= set(statuses)
        assert ("404" in statuses) is ("{" in path)
        for status, answer in statuses.items():
            if status[0] == "4":
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/SendGridErrors"}


def test_every_schema_that_is_named_is_there() -> None:
    def named(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"].removeprefix("#/components/schemas/")
            for each in value.values():
                yield from named(each)
        elif isinstance(value, list | tuple):
            for each in value:
                yield from named(each)

    assert set(named(PATHS)) | set(named(SCHEMAS)) == set(SCHEMAS)


def test_the_mounts_have_the_same() -> None:
    first, *others = [{path.removeprefix(mount) for path in PATHS if _of(path) == mount} for mount in MOUNTS]
    assert all(each == first for each in others)


def _of(path: str) -> str:
    return max([mount for mount in MOUNTS if path.startswith(f"{mount}/")], key=len)


def test_what_a_request_may_have_is_described() -> None:
    read_mail_send(EXAMPLE, NOW)
    properties: Any = MAIL["properties"]
    assert set(properties) == {*EVERYTHING, "reply_to_list"}
    of_one = properties["personalizations"]["items"]["properties"]
    assert set(of_one) == set(EVERYTHING["personalizations"][0])
    assert set(properties["attachments"]["items"]["properties"]) == set(EVERYTHING["attachments"][0])
