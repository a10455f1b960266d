"""Health."""

from typing import Any

from mta.spool.interface import Space


async def test_a_live_process_says_so(api: Any) -> None:
    result = await api.request("GET", "/healthz")
    assert (result.status_code, result.json) == (200, {"status": "ok"})


async def test_ready_while_mail_can_be_committed(api: Any) -> None:
    result = await api.request("GET", "/readyz")
    assert result.status_code == 200
    assert result.json == {"ready": True, "reason": "", "delivery": {"running": True}}
    api.spool.room = Space(free=1, reserve=1, used=0)
    result = await api.request("GET", "/readyz")
    assert (result.status_code, result.json["reason"]) == (503, "the spool is full up to its reserve")
    api.spool.well = False
    result = await api.request("GET", "/readyz")
    assert (result.status_code, result.json["reason"]) == (503, "the spool cannot commit")
    assert result.json["ready"] is False
    assert (await api.request("GET", "/healthz")).status_code == 200


async def test_other_verbs(api: Any) -> None:
    result = await api.request("POST", "/healthz")
    assert (result.status_code, result.json["detail"]) == (405, "GET method allowed only")
