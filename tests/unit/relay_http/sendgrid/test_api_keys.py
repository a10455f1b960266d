"""Keys in the vendor's words: what is made, shown, changed and ended, and never more than the maker has."""

from typing import Any

import pytest

from mta.accounts import keys
from mta.accounts.particulars import Particulars
from mta.accounts.tolls import Rate
from relay_http.sendgrid.api_keys import NAMES


async def made(site: Any, **body: object) -> Any:
    result = await site.ask("POST", "/api_keys", {"name": "mine", **body})
    assert result.status_code == 201, result.text
    return result.json


async def test_a_key_is_made_and_is_good_for_what_was_asked(site: Any) -> None:
    key = await made(site, scopes=["mail.send", "mail.batch.create"])
    assert key.keys() == {"api_key", "api_key_id", "name", "scopes"}
    assert key["api_key"].startswith(f"SG.{key['api_key_id']}.")
    assert (key["name"], key["scopes"]) == ("mine", ["mail.send", "mail.batch.create"])
    assert (await site.ask("POST", "/mail/batch", key=key["api_key"])).status_code == 201
    assert (await site.ask("GET", "/api_keys", key=key["api_key"])).status_code == 403
    assert (await site.ask("GET", "/scopes", key=key["api_key"])).json["scopes"] == [
        name for name in NAMES if name.startswith(("mail.", "user.scheduled_sends.")) and not name.endswith(".read")
    ]


async def test_without_scopes_it_is_good_for_all_that_its_maker_is(site: Any) -> None:
    key = await made(site)
    assert key["scopes"] == list(NAMES)
    assert (await site.ask("GET", "/scopes", key=key["api_key"])).json == {"scopes": list(NAMES)}


async def test_keys_are_listed_shown_changed_and_ended(site: Any) -> None:
    key = await made(site, scopes=["mail.send"])
    path = f"/api_keys/{key['api_key_id']}"
    assert {"api_key_id": key["api_key_id"], "name": "mine"} in (await site.ask("GET", "/api_keys")).json["result"]
    shown = {"api_key_id": key["api_key_id"], "name": "mine", "scopes": ["mail.send"]}
    assert (await site.ask("GET", path)).json == {"result": [shown]}
    patched = await site.ask("PATCH", path, {"name": "yours"})
    assert (patched.status_code, patched.json) == (200, {"api_key_id": key["api_key_id"], "name": "yours"})
    put = await site.ask("PUT", path, {"name": "theirs", "scopes": ["messages.read"]})
    assert (put.status_code, put.json) == (200, {**shown, "name": "theirs", "scopes": ["messages.read"]})
    assert (await site.ask("POST", "/mail/batch", key=key["api_key"])).status_code == 403
    assert (await site.ask("DELETE", path)).status_code == 204
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        assert (await site.ask(method, path, body)).status_code == 404
    assert (await site.ask("GET", "/scopes", key=key["api_key"])).status_code == 401
    listed = (await site.ask("GET", "/api_keys")).json["result"]
    assert key["api_key_id"] not in [each["api_key_id"] for each in listed]


async def test_anothers_key_is_one_that_nobody_has(site: Any) -> None:
    key = await made(site)
    path = f"/api_keys/{key['api_key_id']}"
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"name": "x", "scopes": ["mail.send"]})):
        assert (await site.ask(method, path, body, key="other")).status_code == 404
    assert (await site.ask("GET", "/scopes", key=key["api_key"])).status_code == 200


async def test_nobody_gives_what_is_not_his(site: Any) -> None:
    text = "managing"
    _, site.keys[text] = await keys.create(
        site.spool, "shop", ["manage"], 0.0, Particulars(networks=("0.0.0.0/0",), rate=Rate(60, 60), sandbox=True)
    )
    refused = await site.ask("POST", "/api_keys", {"name": "x", "scopes": ["mail.send"]}, key=text)
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (403, "scopes.0")
    made_by_it = await site.ask("POST", "/api_keys", {"name": "x", "scopes": ["api_keys.create"]}, key=text)
    assert made_by_it.status_code == 201
    key = await keys.find(site.spool, made_by_it.json["api_key_id"])
    assert key is not None
    assert (key.networks, key.rate, key.per, key.sandbox) == (("0.0.0.0/0",), 60, 60, True)
    stronger = await made(site, scopes=["mail.send"])
    path = f"/api_keys/{stronger['api_key_id']}"
    refused = await site.ask("PATCH", path, {"name": "y"}, key=text)
    assert refused.status_code == 403
    assert (await site.ask("GET", "/api_keys", key="operator")).status_code == 403


@pytest.mark.parametrize(
    ("method", "body", "fields"),
    [
        ("POST", {}, ["name"]),
        ("POST", {"name": ""}, ["name"]),
        ("POST", {"name": 1, "scopes": "mail.send"}, ["name", "scopes"]),
        ("POST", {"name": "x" * 101}, ["name"]),
        ("POST", {"name": "a\nb"}, ["name"]),
        ("POST", {"name": "x", "scopes": []}, ["scopes"]),
        ("POST", {"name": "x", "scopes": ["mail.send", "mail.fly", 1]}, ["scopes.2"]),
        ("POST", {"name": "x", "scopes": ["mail.send", "mail.fly"]}, ["scopes.1"]),
        ("POST", {"name": "x", "scopes": ["mail.send"] * 201}, ["scopes"]),
        ("POST", [], [None]),
        ("PUT", {"name": "x"}, ["scopes"]),
    ],
)
async def test_what_is_wrong_is_told_with_its_field(
    site: Any, method: str, body: object, fields: list[str | None]
) -> None:
    path = "/api_keys" if method == "POST" else f"/api_keys/{(await made(site))['api_key_id']}"
    before = len(await keys.list_of(site.spool, "shop"))
    refused = await site.ask(method, path, body)
    assert refused.status_code == 400
    assert [each["field"] for each in refused.json["errors"]] == fields
    assert len(await keys.list_of(site.spool, "shop")) == before


@pytest.mark.parametrize("mount", ["", "/api/v1", "/api/v1/v3"])
async def test_where_the_vendors_clients_look(site: Any, mount: str) -> None:
    assert (await site.ask("GET", f"{mount}/api_keys")).status_code == 200
    assert (await site.ask("GET", f"{mount}/scopes")).status_code == 200
    assert (await site.ask("GET", f"{mount}/user/scheduled_sends")).status_code == 200


@pytest.mark.parametrize("path", ["/api_keys", "/admin/v1/keys"])
async def test_a_key_that_is_revoked_while_its_request_comes_makes_none(
    site: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    create, maker = keys.create, await made(site)

    async def late(*asked: Any, **more: Any) -> Any:
        await keys.revoke(site.spool, maker["api_key_id"], site.clock.now())
        return await create(*asked, **more)

    monkeypatch.setattr(keys, "create", late)
    result = await site.ask("POST", path, {"name": "mine", "scopes": ["send"]}, key=maker["api_key"])
    assert (result.status_code, "ended" in result.text) == (403, True), result.text
