"""What would become of a message: written, nothing stored, and delivery asked."""

import asyncio
from typing import Any

from mta.control import ControlServer, Question
from mta.queue.prospect import Alignment, Asked, Destination, Host, Prospect, Signature, SourceSpf

FORESEEN = Prospect(
    Signature("shop.test", ("s1",)),
    Alignment(policy="reject", dkim_aligned=True, spf=(SourceSpf("192.0.2.1", "pass"),)),
    (
        Destination(
            domain="example.test", sts="enforce", hosts=(Host("mx.example.test", 25, "verified", "sts enforce"),)
        ),
    ),
)
MAIL = {
    "from": "billing@shop.test",
    "to": ["ann@example.test", "bob@EXAMPLE.test"],
    "cc": ["x@elsewhere.test"],
    "text": "Hello",
    "tls": "require",
    "return_path": "bounces@mail.shop.test",
    "dry_run": True,
}


async def test_all_that_can_be_foreseen(post: Any) -> None:
    heard: list[Asked] = []

    async def answer(asked: Asked) -> Prospect:
        heard.append(asked)
        return FORESEEN

    server = ControlServer(post.delivery, {"plan": Question(Asked, answer)})
    await server.start()
    try:
        result = await post.ask("POST", "", MAIL, key="send")
    finally:
        await server.close()
    assert result.status_code == 200, result.text
    told = result.json
    assert heard == [
        Asked(
            tenant="shop",
            sign_domain="shop.test",
            from_domain="shop.test",
            return_domain="mail.shop.test",
            domains=("example.test", "elsewhere.test"),
            tls_required=True,
        )
    ]
    assert (told["sender"], len(told["recipients"]), told["trouble"]) == ("bounces@mail.shop.test", 3, "")
    assert "From: billing@shop.test\r\n" in told["mime"]
    assert told["mime"].endswith("\r\n\r\nHello\r\n")
    assert told["size"] == len(told["mime"])
    assert told["signature"] == {"domain": "shop.test", "selectors": ["s1"], "why": ""}
    assert told["alignment"]["spf"] == [{"address": "192.0.2.1", "result": "pass"}]
    assert told["destinations"][0]["hosts"][0]["tls"] == "verified"
    assert await post.spool.log_end() == 0


async def test_while_delivery_is_down(post: Any) -> None:
    result = await post.ask("POST", "", {**MAIL, "html": "é" * 300_000})
    told = result.json
    assert (result.status_code, told["trouble"]) == (200, "delivery is not running")
    assert (told["signature"], told["alignment"], told["destinations"]) == (None, None, None)
    assert len(told["mime"]) == 256 << 10 < told["size"]


async def test_what_is_refused_is_refused_in_a_dry_run(post: Any) -> None:
    assert await post.refused("POST", "", {**MAIL, "from": "a@other.test"}) == (403, ["from"])
    assert await post.refused("POST", "", {**MAIL, "cc": ["x"]}) == (400, ["cc.0"])
    assert (await post.refused("POST", "/batch", {"messages": [MAIL]}))[1] == ["messages.0.dry_run"]


async def test_one_of_a_tenants_at_a_time(post: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("mta.queue.desk.TURN_WAIT", 0.01)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: Asked) -> Prospect:
        asked.set()
        await go_on.wait()
        return FORESEEN

    server = ControlServer(post.delivery, {"plan": Question(Asked, answer)})
    await server.start()
    try:
        first = asyncio.create_task(post.ask("POST", "", MAIL))
        await asked.wait()
        assert (await post.refused("POST", "", MAIL))[0] == 429
        go_on.set()
        assert (await first).status_code == 200
    finally:
        await server.close()
