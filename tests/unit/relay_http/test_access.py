"""Whose key a request has: where it may come from, until when, and that its use is noted."""

from typing import Any

import msgspec
import pytest

from mta.accounts import keys
from mta.accounts.particulars import Particulars
from mta.accounts.uses import last_used
from tests.unit.relay_http.conftest import NOW

PATH = "/v3/mail/send"


async def key_of(api: Any, **particulars: Any) -> tuple[str, str]:
    key, text = await keys.create(api.spool, "shop", ["mail.send"], NOW - 10, Particulars(**particulars))
    return key.id, text


async def status(api: Any, key: str, mail: Any, **headers: str) -> int:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    result = await api.post(msgspec.json.encode(mail), {"Authorization": f"Bearer {key}", **fields})
    return int(result.status_code)


@pytest.mark.parametrize(
    ("networks", "answer"),
    [((), 202), (("192.0.2.0/24",), 202), (("::ffff:192.0.2.7",), 202), (("192.0.2.8/32", "::/0"), 403)],
)
async def test_a_key_comes_from_its_networks_alone(api: Any, mail: Any, networks: tuple[str, ...], answer: int) -> None:
    _, text = await key_of(api, networks=networks)
    assert await status(api, text, mail) == answer
    assert len(api.queue.calls) == (answer == 202)


async def test_the_client_is_whom_a_trusted_proxy_says(make_api: Any, mail: Any) -> None:
    api = await make_api(http={"trusted_proxies": ["192.0.2.0/24"]})
    _, text = await key_of(api, networks=("198.51.100.0/24",))
    assert await status(api, text, mail) == 403
    assert await status(api, text, mail, X_Forwarded_For="198.51.100.9, 203.0.113.1") == 403
    assert await status(api, text, mail, X_Forwarded_For="203.0.113.1, 198.51.100.9") == 202
    assert api.queue.only.client == "198.51.100.9"


async def test_without_trusted_proxies_nobody_is_believed(api: Any, mail: Any) -> None:
    _, text = await key_of(api, networks=("198.51.100.0/24",))
    assert await status(api, text, mail, X_Forwarded_For="198.51.100.9") == 403


async def test_an_expired_key_is_none(api: Any, mail: Any) -> None:
    _, ends = await key_of(api, expires_at=NOW)
    _, lasts = await key_of(api, expires_at=NOW + 1)
    assert [await status(api, text, mail) for text in (ends, lasts)] == [401, 202]


async def test_a_use_is_noted_and_a_refused_one_is_not(api: Any, mail: Any) -> None:
    used, text = await key_of(api)
    refused, elsewhere = await key_of(api, networks=("10.0.0.0/8",))
    await status(api, text, mail)
    await status(api, elsewhere, mail)
    before = dict(api.spool.records)
    await api.uses.store()
    assert [await last_used(api.spool, each) for each in (used, refused)] == [NOW, 0.0]
    assert len(api.spool.records) == len(before) + 1


async def test_a_vendors_name_that_is_not_enough_sends_nothing(api: Any, mail: Any) -> None:
    _, text = await keys.create(api.spool, "shop", ["stats.read", "mail.batch.create"], NOW)
    assert await status(api, text, mail) == 403
