"""HTTP over TLS: handshakes are bounded in time and number, certificates renewed without a restart."""

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mta.certificate import CertificateError
from relay_http import handshakes
from relay_http.server import HttpServer
from tests.unit.ingress.authority import Authority, Pair
from tests.unit.relay_http.test_server import Running, answer, loopback


class Secure(Running):
    """A server on a loopback port, with a certificate."""

    def __init__(self, api: Any, server: HttpServer, port: int, authority: Authority) -> None:
        super().__init__(api, server, port)
        self.authority = authority

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cafile=str(self.authority.file))
        async with asyncio.timeout(5):
            return await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="127.0.0.1")

    async def plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def shown(self) -> bytes:
        """Do a handshake; return the certificate that is shown."""
        _, writer = await self.connect()
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return ssl.DER_cert_to_PEM_cert(found).encode()

    async def ask(self, mail: object) -> int:
        reader, writer = await self.connect()
        writer.write(self.request(mail))
        status, _ = await answer(reader)
        writer.close()
        return status


def install(pair: Pair, folder: Path) -> None:
    shutil.copy(pair.certificate, folder / "chain.pem")
    shutil.copy(pair.key, folder / "key.pem")


@pytest.fixture
async def serve(make_api: Callable[..., Any], tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    servers: list[HttpServer] = []
    authority = Authority(tmp_path)
    install(authority.serve("first"), tmp_path)

    async def start(**settings: object) -> Secure:
        tls = {"certificate": tmp_path / "chain.pem", "key": tmp_path / "key.pem"}
        api = await make_api(http={"tls": tls}, **settings)
        server = HttpServer(api.config, api.app)
        listening = loopback()
        port = listening.getsockname()[1]
        await server.start([listening])
        servers.append(server)
        return Secure(api, server, port, authority)

    yield start
    for server in servers:
        await server.close()


async def test_mail_is_sent_over_tls(serve: Any, mail: Any) -> None:
    running = await serve()
    assert await running.ask(mail) == 202
    assert running.api.queue.only.client == "127.0.0.1"


async def test_a_client_without_tls_hears_nothing_and_is_logged(serve: Any, mail: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    running = await serve()
    reader, writer = await running.plain()
    writer.write(running.request(mail))
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert not (await reader.read()).startswith(b"HTTP")
    writer.close()
    assert running.api.queue.calls == []
    assert "problem='TLS handshake: " in caplog.text


async def test_a_renewed_certificate_is_for_new_connections(serve: Any, mail: Any, tmp_path: Path) -> None:
    running = await serve()
    reader, writer = await running.connect()
    before = await running.shown()
    renewed = running.authority.serve("second")
    install(renewed, tmp_path)
    certificate = running.server._server._tls.certificate
    certificate.look()
    certificate.look()
    after = await running.shown()
    assert after != before
    assert after in renewed.certificate.read_bytes()
    writer.write(running.request(mail))
    assert (await answer(reader))[0] == 202
    writer.close()


async def test_it_looks_for_a_new_certificate_once_a_second(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await serve()
    server, looks = running.server._server, []
    monkeypatch.setattr(server._tls.certificate, "look", lambda: looks.append(1))
    for tick in range(1, 31):
        await server.on_tick(tick)
    assert len(looks) == 3


async def test_connections_that_wait_together_are_counted_and_leave_others_their_turn(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await serve(limits={"connections": 3})
    tls, loop = running.server._server._tls, asyncio.get_running_loop()
    taken: list[socket.socket] = []
    turns = [0]

    def turn() -> None:
        turns[0] += 1
        loop.call_soon(turn)

    async def at_once(_: object) -> None:
        if len(taken) == 40:
            await asyncio.Event().wait()

    class Listening:
        def accept(self) -> tuple[socket.socket, tuple[str, int]]:
            ours, theirs = socket.socketpair()
            taken.append(theirs)
            return ours, ("192.0.2.7", 1)

    monkeypatch.setattr(handshakes, "_readable", at_once)
    turn()
    task = asyncio.create_task(tls._accept(Listening(), asyncio.Protocol))
    async with asyncio.timeout(5):
        while len(taken) < 40:
            await asyncio.sleep(0)
    assert turns[0] >= 40
    assert tls._under_way.total() == 3
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    for each in taken:
        each.close()


async def test_handshakes_that_nobody_ends_are_bounded_in_number(serve: Any, mail: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    running = await serve(limits={"connections": 3})
    idle = [await running.plain() for _ in range(3)]
    tls = running.server._server._tls
    async with asyncio.timeout(5):
        while tls._under_way.total() < 3:
            await asyncio.sleep(0)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await running.connect()
    assert "problem='too many handshakes'" in caplog.text
    for _, writer in idle:
        writer.close()
    async with asyncio.timeout(5):
        while tls._under_way:
            await asyncio.sleep(0)
    assert await running.ask(mail) == 202


@pytest.mark.parametrize(("client", "full"), [("192.0.2.7", True), ("192.0.2.8", False), ("127.0.0.1", False)])
async def test_one_client_does_not_have_all_handshakes(serve: Any, client: str, full: bool) -> None:
    running = await serve(limits={"connections_per_client": 2})
    tls = running.server._server._tls
    tls._under_way.update({"192.0.2.7": 2, "127.0.0.1": 2})
    assert tls._too_many(client) is full


async def test_a_handshake_is_bounded_in_time(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "HANDSHAKE", 0.05)
    running = await serve()
    reader, writer = await running.plain()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_a_drained_server_takes_no_more_and_ends_what_it_has(serve: Any, mail: Any) -> None:
    running = await serve()
    running.api.queue.gate.clear()
    reader, writer = await running.connect()
    writer.write(running.request(mail))
    await running.api.queue.waiting.wait()
    draining = asyncio.create_task(running.server.drain())
    async with asyncio.timeout(5):
        while True:
            try:
                _, other = await running.plain()
            except ConnectionError:
                break
            other.close()
            await asyncio.sleep(0)
    running.api.queue.gate.set()
    assert (await answer(reader))[0] == 202
    writer.close()
    async with asyncio.timeout(5):
        await draining


async def test_a_certificate_that_cannot_be_used_is_named(make_api: Any, tmp_path: Path) -> None:
    api = await make_api(http={"tls": {"certificate": tmp_path / "none.pem", "key": tmp_path / "none.key"}})
    with pytest.raises(CertificateError, match=r"http\.tls\.certificate: .*none\.pem: No such file"):
        HttpServer(api.config, api.app)


def test_the_same_on_uvloop_and_a_unix_socket(make_api: Any, tmp_path: Path, mail: Any) -> None:
    async def run() -> None:
        authority = Authority(tmp_path)
        install(authority.serve("first"), tmp_path)
        tls = {"certificate": tmp_path / "chain.pem", "key": tmp_path / "key.pem"}
        api = await make_api(http={"address": f"unix:{tmp_path}/http", "tls": tls})
        server = HttpServer(api.config, api.app)
        await server.start()
        context = ssl.create_default_context(cafile=str(authority.file))
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_unix_connection(
                f"{tmp_path}/http", ssl=context, server_hostname="127.0.0.1"
            )
        writer.write(Running(api, server, 0).request(mail))
        assert (await answer(reader))[0] == 202
        writer.close()
        await server.close()
        assert api.queue.only.client == ""

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
