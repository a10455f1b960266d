"""The laboratory's policy host: each way to serve a policy is what it says, as an independent client sees it."""

import asyncio
import http.client
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.config import parse
from mta.lab.clock import FakeClock
from mta.lab.laboratory import Laboratory, RelayPorts, lab_config
from mta.lab.policy_host import BODY_LIMIT, DEAF_HOST, Hosting

POLICY = "version: STSv1\nmode: enforce\nmx: mx1.lab.test\nmax_age: 86400\n"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Laboratory]:
    lab = Laboratory(tmp_path / "lab", FakeClock())
    await lab.start()
    yield lab
    await lab.close()


def fetch(lab: Laboratory, domain: str, timeout: float = 5) -> tuple[int, str | None, str]:
    class Connection(http.client.HTTPSConnection):
        def connect(self) -> None:
            self.host, name = lab.policy_host.address.host, self.host
            http.client.HTTPConnection.connect(self)
            self.sock = context.wrap_socket(self.sock, server_hostname=name)
            self.host = name

    context = ssl.create_default_context(cafile=lab.ca_file)
    connection = Connection(f"mta-sts.{domain}", lab.policy_host.address.port, timeout=timeout)
    try:
        connection.request("GET", "/.well-known/mta-sts.txt")
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


async def get(lab: Laboratory, hosting: Hosting, domain: str = "a.test", timeout: float = 5) -> tuple[int, str, str]:
    lab.publish_policy(domain, POLICY, hosting=hosting)
    status, media_type, body = await asyncio.to_thread(fetch, lab, domain, timeout)
    return status, media_type or "", body


@pytest.mark.parametrize("hosting", [Hosting.GOOD, Hosting.CHUNKED, Hosting.UNFRAMED])
async def test_a_policy_is_served(lab: Laboratory, hosting: Hosting) -> None:
    status, media_type, body = await get(lab, hosting)
    assert (status, media_type.partition(";")[0], body) == (200, "text/plain", POLICY)
    assert lab.policy_host.requests == {"a.test": 1}


async def test_a_policy_is_served_badly(lab: Laboratory) -> None:
    assert (await get(lab, Hosting.ABSENT))[0] == 404
    assert (await get(lab, Hosting.REDIRECT))[0] == 301
    assert (await get(lab, Hosting.WRONG_TYPE))[:2] == (200, "text/html")
    for hosting in (Hosting.TOO_BIG, Hosting.TOO_BIG_CHUNKED):
        body = (await get(lab, hosting))[2]
        assert (len(body), body.startswith(POLICY)) == (BODY_LIMIT + 1, True)
    with pytest.raises(TimeoutError):
        await get(lab, Hosting.SLOW, timeout=0.1)


@pytest.mark.parametrize(
    ("hosting", "reason"),
    [
        (Hosting.SELF_SIGNED, "self.signed certificate"),
        (Hosting.WRONG_HOST, "Hostname mismatch"),
        (Hosting.EXPIRED, "certificate has expired"),
    ],
)
async def test_a_certificate_is_bad_for_one_reason(lab: Laboratory, hosting: Hosting, reason: str) -> None:
    lab.publish_policy("b.test", POLICY)
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        await get(lab, hosting)
    assert (await get(lab, Hosting.GOOD, "b.test"))[0] == 200  # beside it


async def test_a_policy_is_announced(lab: Laboratory) -> None:
    lab.publish_policy("a.test", POLICY, announced="20270115")
    lab.publish_policy("b.test", POLICY, hosting=Hosting.DEAF)
    assert lab.zone.texts("_mta-sts.a.test") == [b"v=STSv1; id=20270115;"]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(DEAF_HOST, lab.policy_host.address.port)


async def test_the_relay_in_the_laboratory_asks_its_policy_host(lab: Laboratory) -> None:
    ports = RelayPorts(relay=2001, submission=2002, submissions=2003, http=2004)
    assert parse(lab_config(lab, ports), "lab").sts.port == lab.policy_host.address.port


async def test_closing_hangs_up_on_who_is_still_served(lab: Laboratory) -> None:
    lab.publish_policy("a.test", POLICY, hosting=Hosting.SLOW)
    asking = asyncio.create_task(asyncio.to_thread(fetch, lab, "a.test"))
    while not lab.policy_host.requests:
        await asyncio.sleep(0.001)
    await lab.close()
    with pytest.raises((http.client.IncompleteRead, OSError)):
        await asking
