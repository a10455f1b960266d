"""HTTPS over real sockets: what a stranger's name, address, certificate and answer may and may not do to us."""

import asyncio
import contextlib
import errno
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self, cast

import h11
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mta.clock import SystemClock
from mta.delivery import https as module
from mta.delivery.https import BODY_LIMIT, FetchError, Https, Place, _Exchange
from mta.delivery.policy import Failure
from mta.delivery.resolver import Resolver
from mta.lab.ca import LIFETIME, PrivateCa, ServerCertificate, _builder, _name
from mta.lab.clock import FakeClock
from mta.lab.policy_host import DEAF_HOST, Hosting, PolicyHost, padded
from tests.unit.delivery.peers import DnsPeer

PATH = "/.well-known/mta-sts.txt"
POLICY = "version: STSv1\nmode: enforce\nmx: mx1.lab.test\nmax_age: 86400\n"


class Bench:
    """A policy host, a DNS that knows it, and who asks them."""

    def __init__(self, directory: Path) -> None:
        self.ca = PrivateCa(directory)
        self.host = PolicyHost(self.ca, FakeClock())
        self.dns = DnsPeer()

    async def __aenter__(self) -> Self:
        await self.dns.__aenter__()
        await self.host.start()
        self.resolver = Resolver(self.dns.settings, SystemClock())
        self.https = Https(self.resolver, self.ca.ca_file, private=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.resolver.close()
        await self.host.close()
        await self.dns.__aexit__()

    def publish(self, domain: str = "a.test", hosting: Hosting = Hosting.GOOD, text: str = POLICY) -> None:
        self.host.put(domain, text, hosting)
        self.at(domain, "127.0.0.1")

    def at(self, domain: str, *addresses: str) -> None:
        for kind, those in (
            ("A", [each for each in addresses if ":" not in each]),
            ("AAAA", [each for each in addresses if ":" in each]),
        ):
            self.dns.records.pop((f"mta-sts.{domain}", kind), None)
            if those:
                self.dns.records[f"mta-sts.{domain}", kind] = those

    async def get(self, domain: str = "a.test", timeout: float = 5, https: Https | None = None) -> bytes:
        place = Place(f"mta-sts.{domain}", PATH, self.host.address.port)
        return await (https or self.https).get(place, "text/plain", timeout)

    async def refused(self, domain: str = "a.test", timeout: float = 5, https: Https | None = None) -> FetchError:
        with pytest.raises(FetchError) as refused:
            await self.get(domain, timeout, https)
        assert len(str(refused.value)) < 300
        assert str(refused.value).isprintable()
        return refused.value


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path / "tls") as bench:
        yield bench


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_policy_is_fetched_and_a_bad_certificate_seen_on_each_loop(tmp_path: Path, run: Any) -> None:
    async def story() -> None:
        async with Bench(tmp_path) as bench:
            bench.publish()
            bench.publish("b.test", Hosting.SELF_SIGNED)
            bench.publish("c.test", Hosting.SLOW)
            assert await bench.get() == POLICY.encode()
            assert (await bench.refused("b.test")).failure is Failure.STS_WEBPKI_INVALID
            assert "within 0.2 s" in str(await bench.refused("c.test", timeout=0.2))

    run(story())


@pytest.mark.parametrize("hosting", [Hosting.GOOD, Hosting.CHUNKED])
async def test_64_kib_are_fetched(bench: Bench, hosting: Hosting) -> None:
    text = padded(POLICY, BODY_LIMIT)
    bench.publish(hosting=hosting, text=text)
    assert await bench.get() == text.encode()


@pytest.mark.parametrize(
    ("hosting", "failure", "reason"),
    [
        (Hosting.ABSENT, Failure.STS_POLICY_FETCH_ERROR, "answered 404"),
        (Hosting.REDIRECT, Failure.STS_POLICY_FETCH_ERROR, "answered 301, and redirects are not followed"),
        (Hosting.SELF_SIGNED, Failure.STS_WEBPKI_INVALID, "self-signed certificate"),
        (Hosting.WRONG_HOST, Failure.STS_WEBPKI_INVALID, "Hostname mismatch"),
        (Hosting.EXPIRED, Failure.STS_WEBPKI_INVALID, "certificate has expired"),
        (Hosting.TOO_BIG, Failure.STS_POLICY_FETCH_ERROR, "more than 65536 octets"),
        (Hosting.TOO_BIG_CHUNKED, Failure.STS_POLICY_FETCH_ERROR, "more than 65536 octets"),
        (Hosting.UNFRAMED, Failure.STS_POLICY_FETCH_ERROR, "does not say how long its answer is"),
        (Hosting.WRONG_TYPE, Failure.STS_POLICY_FETCH_ERROR, "answered with text/html, not text/plain"),
        (Hosting.SLOW, Failure.STS_POLICY_FETCH_ERROR, "did not answer within 0.5 s"),
    ],
)
async def test_what_is_not_a_policy_well_served(bench: Bench, hosting: Hosting, failure: Failure, reason: str) -> None:
    bench.publish(hosting=hosting)
    refused = await bench.refused(timeout=0.5 if hosting is Hosting.SLOW else 5)
    assert (refused.failure, reason in str(refused)) == (failure, True), refused
    assert sum(bench.host.requests.values()) == (0 if failure is Failure.STS_WEBPKI_INVALID else 1)


# Names and addresses


async def test_names_without_an_address(bench: Bench) -> None:
    bench.dns.silent.add("mta-sts.silent.test")
    assert "mta-sts.nowhere.test has no address" in str(await bench.refused("nowhere.test"))
    assert "the DNS did not answer" in str(await bench.refused("silent.test"))
    for host in ("mta-sts.", "a..test", "a" * 64 + ".test", "x" * 254, "a\r\nb.test", "user@a.test", "0x7f.1:80", ""):
        with pytest.raises(FetchError, match="no such host name"):
            await bench.https.get(Place(host, PATH), "text/plain", 5)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "168.63.129.16",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
    ],
)
async def test_addresses_that_are_not_public_are_never_dialled(bench: Bench, address: str) -> None:
    bench.publish()
    bench.at("a.test", address)
    closed = Https(bench.resolver, bench.ca.ca_file, private=False)
    assert "has no public address" in str(await bench.refused(https=closed))
    with pytest.raises(FetchError, match="has no public address"):
        await closed.post(Place(address, "/", bench.host.address.port), b"", "text/plain", 5)
    assert bench.host.connections == 0


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses on their way to the network, which none of them reaches."""
    found: list[str] = []

    async def open_connection(host: str, *_: object, **__: object) -> None:
        found.append(host)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    return found


async def test_the_address_that_was_checked_is_dialled(bench: Bench, dialled: list[str]) -> None:
    """A name that is another address the next time it is asked for is not asked for again (rebinding)."""
    bench.dns.ttl = 0
    bench.at("a.test", "198.51.100.7", "93.184.216.34", "127.0.0.1", "2606:2800:220:1::1")
    await bench.refused(https=Https(bench.resolver, None, private=False))
    assert sorted(dialled) == ["2606:2800:220:1::1", "93.184.216.34"]
    assert sorted(kind for _, kind, _ in bench.dns.asked) == ["A", "AAAA"]


async def test_not_more_than_four_addresses_are_dialled(bench: Bench, dialled: list[str]) -> None:
    bench.at("a.test", *(f"127.0.1.{number}" for number in range(9)))
    assert "Connection refused" in str(await bench.refused())
    assert len(set(dialled)) == len(dialled) == 4


async def test_the_next_address_is_tried(bench: Bench) -> None:
    bench.publish()
    bench.at("a.test", DEAF_HOST, "127.0.0.1")
    assert await bench.get() == POLICY.encode()


async def test_a_silent_address_leaves_time_for_the_next(bench: Bench) -> None:
    bench.publish()
    with socket.create_server(("127.0.0.3", bench.host.address.port)):  # nobody accepts
        bench.at("a.test", "127.0.0.3", "127.0.0.1")
        assert await bench.get(timeout=1) == POLICY.encode()
        bench.at("b.test", "127.0.0.3", DEAF_HOST)
        bench.at("c.test", DEAF_HOST, "127.0.0.3")
        for domain in ("b.test", "c.test"):
            assert "no connection to 127.0.0." in str(await bench.refused(domain, timeout=0.6))


async def test_proxies_of_the_environment_are_not_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.publish()
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{DEAF_HOST}:1")
    assert await bench.get() == POLICY.encode()


async def test_an_address_can_be_the_host(bench: Bench) -> None:
    async with Sink(bench.ca.issue("127.0.0.1")) as sink:
        assert await bench.https.post(Place("127.0.0.1", "/x", sink.port), b"", "text/plain", 5) == 200
        assert b"Host: 127.0.0.1:%d\r\n" % sink.port in sink.heard


# Certificates and TLS


async def test_who_the_system_trusts_alone_is_not_enough_for_a_private_authority(bench: Bench) -> None:
    bench.publish()
    refused = await bench.refused(https=Https(bench.resolver, None, private=True))
    assert refused.failure is Failure.STS_WEBPKI_INVALID


async def test_other_authorities_are_known_after_an_hour(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Red when they are read once: a relay that runs for long would lose policies, one by one as they expire."""
    known = tmp_path / "known.pem"
    known.write_bytes(PrivateCa(tmp_path / "other").ca_file.read_bytes())
    https = Https(bench.resolver, known, private=True)
    bench.publish()
    assert (await bench.refused(https=https)).failure is Failure.STS_WEBPKI_INVALID
    known.write_bytes(bench.ca.ca_file.read_bytes())
    assert (await bench.refused(https=https)).failure is Failure.STS_WEBPKI_INVALID
    monkeypatch.setattr(module, "AUTHORITIES_FOR", 0.0)
    assert await bench.get(https=https) == POLICY.encode()
    known.write_text("half of it")
    assert await bench.get(https=https) == POLICY.encode()
    assert f"authorities=refused, those before stay in use: ca_file={known}" in caplog.text


async def test_a_common_name_is_no_host_name(bench: Bench) -> None:
    certificate = bench.ca.issue("mta-sts.a.test")
    issued = x509.load_pem_x509_certificate(certificate.certificate.read_bytes())
    bare = bench.ca._signer.sign(
        _builder(_name("mta-sts.a.test"), issued.public_key(), LIFETIME).add_extension(  # type: ignore[arg-type]
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
    )
    certificate.certificate.write_bytes(bare.public_bytes(Encoding.PEM))
    bench.at("a.test", "127.0.0.1")
    async with Sink(certificate) as sink:
        with pytest.raises(FetchError, match="Hostname mismatch") as refused:
            await bench.https.get(Place("mta-sts.a.test", PATH, sink.port), "text/plain", 5)
    assert refused.value.failure is Failure.STS_WEBPKI_INVALID


async def test_a_certificate_of_10_000_names_is_refused_at_once(bench: Bench) -> None:
    certificate = bench.ca.issue("mta-sts.a.test", *(f"name{number}.a.test" for number in range(10_000)))
    bench.at("a.test", "127.0.0.1")
    async with Sink(certificate) as sink:
        before = time.process_time()
        with pytest.raises(FetchError, match=r"TLS failed: EXCESSIVE_MESSAGE_SIZE") as refused:
            await bench.https.get(Place("mta-sts.a.test", PATH, sink.port), "text/plain", 5)
        assert time.process_time() - before < 1
    assert refused.value.failure is Failure.STS_POLICY_FETCH_ERROR


async def test_tls_before_1_2_is_none(bench: Bench) -> None:
    def old(context: ssl.SSLContext) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    bench.at("a.test", "127.0.0.1")
    async with Sink(bench.ca.issue("mta-sts.a.test"), change=old) as sink:
        with pytest.raises(FetchError, match=r"TLS failed|no connection") as refused:
            await bench.https.get(Place("mta-sts.a.test", PATH, sink.port), "text/plain", 5)
    assert refused.value.failure is Failure.STS_POLICY_FETCH_ERROR


# Answers


class Sink:
    """Answers whatever is asked with fixed octets, and hangs up if told."""

    def __init__(
        self,
        certificate: ServerCertificate,
        answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        *,
        change: Callable[[ssl.SSLContext], None] = lambda _: None,
        hang_up: bool = True,
    ) -> None:
        self.answer = answer
        self.heard = b""
        self.ended = asyncio.Event()
        self.hang_up = hang_up
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate.certificate, certificate.key)
        change(self.context)

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in self.heard.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self.heard += await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
            writer.write(self.answer)
            await writer.drain()
            if not self.hang_up:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.ended.set()


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


async def answered(bench: Bench, answer: bytes, timeout: float = 5) -> bytes:
    bench.at("a.test", "127.0.0.1")
    async with Sink(bench.ca.issue("mta-sts.a.test"), answer) as sink:
        return await bench.https.get(Place("mta-sts.a.test", PATH, sink.port), "text/plain", timeout)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + b"Content-Length: 2\r\n\r\nok and more",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK + b"Content-Length: 2\r\n\r\nok",
        OK.replace(b"text/plain", b"Text/Plain ;x=y")
        + b"Transfer-Encoding: chunked\r\n\r\n1;ext=1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-type:text/plain\r\nContent-length: 2\r\n\r\nok",
    ],
)
async def test_answers_that_will_do_for_sts(bench: Bench, answer: bytes) -> None:
    assert await answered(bench, answer) == b"ok"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "no usable HTTP|hung up"),
        (b"version: STSv1\r\n\r\n", "no usable HTTP"),
        (b"\x00" * 100, "no usable HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, "no usable HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "no usable HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, "too much around its body"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 0\r\n\r\n", "answered 206"),
        (b"HTTP/1.1 308 Permanent Redirect\r\nLocation: /\r\n\r\n", "answered 308, and redirects"),
        (b"HTTP/1.1 500 \x1b[2J\r\n\r\n", "no usable HTTP|answered 500"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "no media type"),
        (OK.replace(b"plain", b"\xffplain") + b"Content-Length: 2\r\n\r\nok", "not text/plain|no usable HTTP"),
        (OK.replace(b"text/plain", b"text/plainer") + b"Content-Length: 2\r\n\r\nok", "text/plainer, not text/plain"),
        (OK + b"Content-Length: 3\r\n\r\nok", "no usable HTTP"),
        (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", "no usable HTTP"),
        (OK + b"Content-Length: -2\r\n\r\nok", "no usable HTTP"),
        (OK + b"Content-Length: 99999999999999999999\r\n\r\n" + b"x" * 70_000, "more than 65536"),
        (OK + b"Transfer-Encoding: gzip\r\n\r\nok", "no usable HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFFF\r\n", "no usable HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "no usable HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\no\r\n" * 60_000 + b"0\r\n\r\n", "too much around"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000, "no usable HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000, "no usable HTTP"),
    ],
    ids=lambda value: repr(value[:60]),
)
async def test_answers_that_will_not_do_for_sts(bench: Bench, answer: bytes, reason: str) -> None:
    with pytest.raises(FetchError, match=reason) as refused:
        await answered(bench, answer)
    assert refused.value.failure is Failure.STS_POLICY_FETCH_ERROR


GOOD = OK + b"Transfer-Encoding: chunked\r\n\r\n1;e=x\r\no\r\n1\r\nk\r\n0\r\nTrailer: x\r\n\r\n"


@given(
    st.binary(max_size=200)
    | st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=4), st.integers(0, 4)).map(
        lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + change[2] :]
    )
)
def test_whatever_is_answered_for_sts_is_a_body_or_an_error(answer: bytes) -> None:
    async def read() -> bytes:
        reader = asyncio.StreamReader()
        reader.feed_data(answer)
        reader.feed_eof()
        exchange = _Exchange("a.test", reader, cast("asyncio.StreamWriter", None))
        exchange._h11.send(h11.Request(method="GET", target="/", headers=[("Host", "a.test")]))
        exchange._h11.send(h11.EndOfMessage())
        return await exchange.body(await exchange.answer())

    with contextlib.suppress(FetchError, h11.ProtocolError):
        assert len(asyncio.run(read())) <= len(answer)


async def test_a_path_that_http_does_not_allow_is_not_asked_for(bench: Bench) -> None:
    bench.publish()
    with pytest.raises(FetchError, match="no usable HTTP"):
        await bench.https.get(
            Place("mta-sts.a.test", "/ HTTP/1.1\r\nX: y\r\n\r\n", bench.host.address.port), "text/plain", 5
        )
    assert not bench.host.requests


async def test_giving_up_hangs_up(bench: Bench) -> None:
    bench.publish(hosting=Hosting.SLOW)
    asking = asyncio.create_task(bench.get(timeout=60))
    while not bench.host.requests:
        await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    bench.publish()
    assert await bench.get() == POLICY.encode()


# Handing over


@pytest.mark.parametrize("status", [200, 201, 301, 413, 500])
async def test_a_body_is_handed_over_and_the_status_told(bench: Bench, status: int) -> None:
    body = bytes(range(256)) * 2000
    answer = b"HTTP/1.1 %d Whatever\r\nLocation: https://evil.test/\r\n\r\n" % status
    bench.at("a.test", "127.0.0.1")
    async with Sink(bench.ca.issue("mta-sts.a.test"), answer, hang_up=False) as sink:
        place = Place("mta-sts.a.test", "/report?id=1", sink.port)
        assert await bench.https.post(place, body, "application/tlsrpt+gzip", 5) == status
        await asyncio.wait_for(sink.ended.wait(), 5)  # we hang up, whoever does not
    head, _, sent = sink.heard.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /report?id=1 HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/tlsrpt+gzip" in head
    assert sent == body


async def test_who_takes_nothing_is_given_up(bench: Bench) -> None:
    bench.publish(hosting=Hosting.DEAF)
    bench.at("a.test", DEAF_HOST)
    with pytest.raises(FetchError, match="no connection"):
        await bench.https.post(Place("mta-sts.a.test", "/", 1), b"", "text/plain", 5)


def test_a_place_is_written_as_it_is_known() -> None:
    assert str(Place("a.test", "/x?y")) == "https://a.test/x?y"
    assert str(Place("a.test", "/", 8443)) == "https://a.test:8443/"
