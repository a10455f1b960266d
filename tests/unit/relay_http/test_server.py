"""The server on real sockets, with the vendor's own client and with peers that misbehave."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import uvloop
from python_http_client.exceptions import BadRequestsError, UnauthorizedError
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Attachment, Cc, Content, FileContent, FileName, Mail

from mta.config import Limits
from relay_http import server as http_server
from relay_http.proxies import Proxies
from relay_http.server import HttpServer

Json = dict[str, Any]


class Running:
    """A server on a loopback port."""

    def __init__(self, api: Any, server: HttpServer, port: int) -> None:
        self.api = api
        self.server = server
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def request(self, mail: object, *more: str) -> bytes:
        body = msgspec.json.encode(mail)
        lines = (
            "POST /v3/mail/send HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self.api.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *more,
            "\r\n",
        )
        return "\r\n".join(lines).encode() + body


def loopback() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@pytest.fixture
async def serve(make_api: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    servers: list[HttpServer] = []

    async def start(**settings: object) -> Running:
        api = await make_api(**settings)
        server = HttpServer(api.config, api.app)
        listening = loopback()
        port = listening.getsockname()[1]
        await server.start([listening])
        servers.append(server)
        return Running(api, server, port)

    yield start
    for server in servers:
        await server.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        return int(head.split()[1]), await reader.readexactly(int(fields[b"content-length"]))


async def test_the_vendors_python_client(serve: Any) -> None:
    running = await serve()
    client = SendGridAPIClient(running.api.key, host=f"http://127.0.0.1:{running.port}")
    mail = Mail(
        from_email=("billing@shop.test", "Shop"),
        to_emails=[("ann@example.test", "Ann, Lee")],
        subject="Ihre Bestellung – №1",
        plain_text_content="Thank you",
        html_content="<b>Thank you</b>",
    )
    mail.add_cc(Cc("cc@example.test"))
    mail.add_attachment(Attachment(FileContent("SGk="), FileName("hi.txt")))
    response = await asyncio.to_thread(client.send, mail)
    assert response.status_code == 202
    sent = running.api.queue.only
    assert response.headers["X-Message-Id"] == sent.id
    assert sent.client == "127.0.0.1"
    assert [each.address for each in sent.envelope.recipients] == ["ann@example.test", "cc@example.test"]

    mail.add_content(Content("text/html", ""))
    with pytest.raises(BadRequestsError) as refused:
        await asyncio.to_thread(client.send, mail)
    assert refused.value.to_dict["errors"][0]["field"].startswith("content.")
    stranger = SendGridAPIClient("SG.a.b", host=f"http://127.0.0.1:{running.port}")
    with pytest.raises(UnauthorizedError, match="401"):
        await asyncio.to_thread(stranger.send, mail)
    assert len(running.api.queue.calls) == 1


async def test_a_client_that_sends_too_much_hears_why(serve: Any, mail: Json) -> None:
    running = await serve()
    reader, writer = await running.connect()
    head = running.request(mail).split(b"\r\n\r\n")[0].rsplit(b"Content-Length", 1)[0]
    writer.write(head + b"Content-Length: 31000000\r\nConnection: close\r\n\r\n" + b"x" * 31_000_000)
    status, body = await answer(reader)
    assert (status, msgspec.json.decode(body)["errors"][0]["message"]) == (413, "content too large")
    assert await reader.read() == b""
    writer.close()


def chunked(request: bytes) -> bytes:
    head, body = request.split(b"\r\n\r\n")
    head = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    return head + b"\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % octet for octet in body) + b"0\r\n\r\n"


async def test_several_requests_on_one_connection(serve: Any, mail: Json) -> None:
    running = await serve()
    reader, writer = await running.connect()
    writer.write(running.request(mail) + chunked(running.request(mail)) + running.request(mail))
    assert [(await answer(reader))[0] for _ in range(3)] == [202, 202, 202]
    writer.close()
    assert len(running.api.queue.calls) == 3


@pytest.mark.parametrize("form", [bytes, chunked])
@pytest.mark.parametrize("cut", [0, -1, -40, 100], ids=["whole", "end", "body", "head"])
async def test_an_upgrade_that_is_offered_is_ignored(
    serve: Any, mail: Json, form: Callable[[bytes], bytes], cut: int
) -> None:
    running = await serve()
    reader, writer = await running.connect()
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
    request = form(running.request(mail, *offer))
    for part in (request[:cut], request[cut:] + request + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)  # so that the parts arrive apart
    assert [(await answer(reader))[0] for _ in range(3)] == [202, 202, 200]
    writer.close()
    assert len(running.api.queue.calls) == 2


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_hangs_up_in_the_body_has_sent_nothing(serve: Any, mail: Json, chunked: bool) -> None:
    running = await serve()
    head, body = running.request(mail).split(b"\r\n\r\n")
    if chunked:  # the JSON is whole, the request is not
        head = head.rsplit(b"Content-Length", 1)[0] + b"Transfer-Encoding: chunked"
        body = b"%x\r\n%b\r\n" % (len(body), body)
    else:
        head = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % (len(body) + 1))
    _, writer = await running.connect()
    writer.write(head + b"\r\n\r\n" + body)
    await writer.drain()
    writer.close()
    await running.server.drain()
    assert not running.api.queue.calls


async def test_a_client_that_hangs_up_after_its_request_does_not_stop_the_commit(serve: Any, mail: Json) -> None:
    running = await serve()
    running.api.queue.gate.clear()
    _, writer = await running.connect()
    writer.write(running.request(mail))
    await running.api.queue.waiting.wait()
    writer.transport.abort()
    drained = asyncio.create_task(running.server.drain())
    running.api.queue.gate.set()
    await drained
    assert len(running.api.queue.calls) == 1


async def test_draining_ends_when_requests_in_flight_have_their_answers(serve: Any, mail: Json) -> None:
    running = await serve()
    running.api.queue.gate.clear()
    idle, idle_writer = await running.connect()
    reader, writer = await running.connect()
    writer.write(running.request(mail))
    await running.api.queue.waiting.wait()
    drained = asyncio.create_task(running.server.drain())
    assert await idle.read() == b""
    with pytest.raises(OSError, match="Connect call failed"):
        await running.connect()
    assert not drained.done()
    running.api.queue.gate.set()
    assert (await answer(reader))[0] == 202
    assert await reader.read() == b""
    await drained
    writer.close()
    idle_writer.close()


async def test_closing_does_not_wait(serve: Any, mail: Json) -> None:
    running = await serve()
    running.api.queue.gate.clear()
    reader, writer = await running.connect()
    writer.write(running.request(mail))
    await running.api.queue.waiting.wait()
    async with asyncio.timeout(3):
        await running.server.close()
    assert await reader.read() == b""
    writer.close()
    running.api.queue.gate.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(running.api.queue.calls) == 1


@pytest.mark.parametrize("line", [b"EHLO client.test", b"CONNECT a.test:25 HTTP/1.1\r\n", b"GET /\x01 HTTP/9.9"])
async def test_what_is_no_request_gets_an_error(serve: Any, line: bytes) -> None:
    running = await serve()
    reader, writer = await running.connect()
    writer.write(line + b"\r\n")
    status, body = await answer(reader)
    assert status == 400
    assert msgspec.json.decode(body)["detail"]
    assert await reader.read() == b""
    writer.close()


async def test_a_target_that_is_too_long_is_refused_in_the_words_of_its_path(serve: Any) -> None:
    running = await serve()
    for path, kind in ((b"/admin/v1/queue", b"problem+json"), (b"/v3/messages", b"json")):
        reader, writer = await running.connect()
        writer.write(b"GET %b?where=%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (path, b"a" * 66_000))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 431 ")
        assert b"content-type: application/%b\r\n" % kind in head
        writer.close()


@pytest.mark.parametrize("flood", [b"X-A: b\r\n", b"x"], ids=["fields", "one field"])
async def test_a_head_without_end_is_cut_off(serve: Any, flood: bytes) -> None:
    running = await serve()
    reader, writer = await running.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nX-B: ")
    await writer.drain()
    sent = 0
    answered = asyncio.create_task(answer(reader))
    while not answered.done() and sent < 64 << 20:
        try:
            writer.write(flood * 8192)
            await writer.drain()
        except OSError:
            break
        sent += len(flood) * 8192
    assert sent < 4 << 20
    with contextlib.suppress(OSError, EOFError):  # we sent on after the answer
        assert (await answered)[0] == 431
    writer.close()


@pytest.mark.parametrize(
    "beginning",
    [b"", b"\r\n", b"POST /v3/mail/send HT", b"POST /v3/mail/send HTTP/1.1\r\nContent-Length: 9\r\n\r\n", None],
    ids=["nothing", "blank line", "half a head", "no body", "after an answer"],
)
async def test_a_silent_client_is_let_go(serve: Any, beginning: bytes | None) -> None:
    running = await serve(limits={"idle": 0.2})
    reader, writer = await running.connect()
    if beginning is None:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200
        beginning = b"\r\n"
    writer.write(beginning)
    async with asyncio.timeout(3):
        await reader.read()
    assert reader.at_eof()
    writer.close()


async def drip_until_let_go(running: Any, begun: bytes, drop: bytes) -> None:
    reader, writer = await running.connect()
    writer.write(begun)
    eof = asyncio.create_task(reader.read())
    async with asyncio.timeout(3):
        while not eof.done():
            writer.write(drop)
            await asyncio.wait([eof], timeout=0.05)
    writer.close()


async def test_a_request_that_drips_is_let_go(serve: Any) -> None:
    await drip_until_let_go(await serve(limits={"idle": 0.2, "session": 0.6}), b"", b"G")


class Loop:
    """A loop's clock and one timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[float] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, _: object) -> object:
        return self.call_at(self.now + seconds, _)

    def call_at(self, at: float, _: object) -> object:
        self.due.append(at)
        return object()


def test_one_timer_serves_all_requests_of_a_connection_and_each_has_its_own_time() -> None:
    connection, loop = object.__new__(http_server.Connection), Loop()
    closed: list[float] = []
    transport = SimpleNamespace(close=lambda: closed.append(loop.now))
    vars(connection).update(loop=loop, transport=transport, _limits=Limits(idle=10), _timer=None, _in_head=True)

    def fire() -> None:
        loop.now = loop.due[-1]
        connection._check()

    connection._expect_request()
    connection._expecting = False  # it came
    loop.now = 8
    connection._expect_request()
    assert loop.due == [10]
    fire()
    assert (loop.due, closed) == ([10, 18], [])
    connection._expecting = False
    fire()
    assert (loop.due, closed) == ([10, 18], [])
    loop.now = 30
    connection._expect_request()
    fire()
    assert (loop.due, closed) == ([10, 18, 40], [40])


class Much:
    """Answers with so many octets."""

    size = 16 << 20

    async def on_get(self, _: object, resp: Any) -> None:
        resp.data = bytes(self.size)


async def test_who_reads_the_answer_slowly_gets_all_of_it(serve: Any) -> None:
    running = await serve(limits=Limits(idle=0.2))
    running.api.app.add_route("/much", Much())
    reader, writer = await running.connect()
    writer.write(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    got = 0
    while got < Much.size:  # for longer than it may say nothing
        got += len(await reader.readexactly(min(Much.size - got, 2 << 20)))
        await asyncio.sleep(0.05)
    writer.close()


async def test_who_does_not_read_the_answer_is_let_go(serve: Any) -> None:
    """However little is left for it: what is below a high-water mark is not told to who writes."""
    running = await serve(limits=Limits(idle=0.2))
    much = Much()
    running.api.app.add_route("/much", much)
    connections = running.server._server.server_state.connections
    taken = 0
    for unsent in (None, 1_000, 30_000, 60_000):
        if unsent is not None:
            much.size = taken + unsent
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.connect(("127.0.0.1", running.port))
            silent.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(1):
                while not connections or not next(iter(connections)).transport.get_write_buffer_size():
                    await asyncio.sleep(0.01)
            taken = taken or much.size - next(iter(connections)).transport.get_write_buffer_size()
            async with asyncio.timeout(5):
                while connections:
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("idle", [0.3, 60])
async def test_a_head_that_drips_is_let_go(serve: Any, monkeypatch: pytest.MonkeyPatch, idle: float) -> None:
    """Red when it is looked for after `idle` alone, which is five minutes: a head had as long."""
    monkeypatch.setattr(http_server, "HEAD_TIME", 0.4)
    running = await serve(limits={"idle": idle, "session": 60})
    await drip_until_let_go(running, b"GET /healthz HTTP/1.1\r\nX-Drip: ", b"x")


@pytest.mark.parametrize(
    ("client", "clients", "full"),
    [
        ("192.0.2.1", ["192.0.2.1"] * 4, True),
        ("192.0.2.1", ["192.0.2.1"] * 3 + ["192.0.2.2"] * 9, False),
        ("127.0.0.1", ["127.0.0.1"] * 9, False),
        ("", [""] * 9, False),
    ],
)
def test_one_client_cannot_have_all_connections(client: str, clients: list[str], full: bool) -> None:
    assert http_server.crowded(client, clients, 3, Proxies([])) is full


async def test_connections_are_bounded(serve: Any) -> None:
    running = await serve(limits={"connections": 2})
    held = [await running.connect() for _ in range(2)]
    reader, writer = await running.connect()
    assert (await answer(reader))[0] == 503
    assert await reader.read() == b""
    for _, each in [*held, (reader, writer)]:
        each.close()


async def test_the_configured_address(make_api: Any, mail: Json) -> None:
    with loopback() as taken:
        port = taken.getsockname()[1]
        api = await make_api(http={"address": f"127.0.0.1:{port}"})
        with pytest.raises(OSError, match="in use"):
            await HttpServer(api.config, api.app).start()
    server = HttpServer(api.config, api.app)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await answer(reader))[0] == 200
    writer.close()
    await server.close()


async def test_several_processes_share_a_port(make_api: Any) -> None:
    with loopback() as unused:
        port = unused.getsockname()[1]
    api = await make_api(http={"address": f"127.0.0.1:{port}"}, roles={"http": 2})
    servers = [HttpServer(api.config, api.app) for _ in range(2)]
    for server in servers:
        await server.start()
    for server in servers:
        await server.close()


async def test_a_unix_socket(make_api: Any, tmp_path: Path, mail: Json) -> None:
    path = tmp_path / "http.sock"
    api = await make_api(http={"address": f"unix:{path}"})
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    server = HttpServer(api.config, api.app)
    await server.start()
    second = HttpServer(api.config, api.app)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.close()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(Running(api, server, 0).request(mail))
    assert (await answer(reader))[0] == 202
    assert api.queue.only.client == ""
    writer.close()
    await server.close()
    assert not path.exists()


def test_the_same_on_uvloop(make_api: Any, mail: Json, tmp_path: Path) -> None:
    async def story() -> None:
        for address in (f"unix:{tmp_path / 'http.sock'}", "127.0.0.1:0"):
            api = await make_api(http={"address": address})
            server = HttpServer(api.config, api.app)
            listening = [] if address.startswith("unix") else [loopback()]
            names = [each.getsockname() for each in listening]
            await server.start(listening)
            if names:
                reader, writer = await asyncio.open_connection(*names[0])
            else:
                reader, writer = await asyncio.open_unix_connection(tmp_path / "http.sock")
            api.queue.gate.clear()
            writer.write(Running(api, server, 0).request(mail))
            await api.queue.waiting.wait()
            drained = asyncio.create_task(server.drain())
            api.queue.gate.set()
            assert (await answer(reader))[0] == 202
            await drained
            await server.close()
            assert api.queue.only.client == ("127.0.0.1" if names else "")
            writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
