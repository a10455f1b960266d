"""TLS and AUTH towards next hops, over real handshakes."""

import asyncio
import ssl
from base64 import b64encode

import pytest
import uvloop

from mta.lab.ca import PrivateCa
from mta.mail.result import Scope, Verdict
from tests.unit.delivery.peers import ACCEPT, EHLO, HOST, QUIT, Relay, ScriptedServer, config, job, route

OFFER = "S: 220 mx.test ESMTP\nC: EHLO relay.test\nS: 250-mx.test\nS: 250 STARTTLS\n"
STARTTLS = OFFER + "C: STARTTLS\nS: 220 2.0.0 go\nX: starttls\n"
INSIDE = "\n".join(EHLO.strip().splitlines()[1:]) + "\n"  # no greeting after the handshake


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return PrivateCa(tmp_path_factory.mktemp("ca"))


def server_context(ca, *names):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = ca.issue(*names)
    context.load_cert_chain(files.certificate, files.key)
    return context


async def attempt(server, **options):
    settings = config(routes=[route(server.port, **options.pop("route", {}))], **options)
    async with server, Relay(settings) as relay:
        return await asyncio.wait_for(relay.attempt(job()), 10)


async def test_opportunistic_takes_any_certificate(ca):
    server = await ScriptedServer(STARTTLS + INSIDE + ACCEPT + QUIT, tls=server_context(ca, "other.test")).start()
    outcome = await attempt(server)
    assert server.problems == []
    assert outcome.results[0].verdict is Verdict.DELIVERED
    assert outcome.tls.startswith("TLSv1.3:TLS_")
    assert outcome.tls.endswith(":unverified")


async def test_opportunistic_is_content_without_an_offer():
    server = await ScriptedServer(EHLO + ACCEPT + QUIT).start()
    outcome = await attempt(server)
    assert (outcome.results[0].verdict, outcome.tls) == (Verdict.DELIVERED, "")


async def test_none_does_not_take_the_offer():
    lock_step = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nC: <content>\nS: 250 ok\n"
    server = await ScriptedServer(OFFER + lock_step + QUIT).start()
    outcome = await attempt(server, route={"tls": "none"})
    assert server.problems == []
    assert (outcome.results[0].verdict, outcome.tls) == (Verdict.DELIVERED, "")


@pytest.mark.parametrize(
    "broken",
    [
        OFFER + "C: STARTTLS\nS: 454 4.7.0 not now\n",
        OFFER + "C: STARTTLS\nS: 220 go\nX: close\n",
        OFFER + "C: STARTTLS\nS: 220 go\nX: hear\nS: this is no handshake\nX: close\n",
    ],
    ids=["refused", "closed", "nonsense"],
)
async def test_opportunistic_that_fails_goes_on_in_the_clear(broken):
    hellos = 1 if "454" in broken else 2  # a refusal is no matter of the hello
    server = await ScriptedServer(*[broken] * hellos, EHLO + ACCEPT + QUIT).start()
    outcome = await attempt(server)
    assert (outcome.results[0].verdict, outcome.tls) == (Verdict.DELIVERED, "")
    assert len(server.heard) == hellos + 1
    server = await ScriptedServer(*[broken] * hellos, EHLO + ACCEPT).start()
    outcome = await attempt(server, route={"tls": "require"})
    assert outcome.results[0].verdict is Verdict.DEFERRED
    assert "TLS is asked for by: its route" in outcome.results[0].reply.text
    assert len(server.heard) == hellos


@pytest.mark.parametrize("injected", ["250-evil\\r\\n250 AUTH PLAIN\\r\\n", "2"])
async def test_octets_before_the_handshake_are_an_attack(injected):
    attacked = OFFER + f"C: STARTTLS\nR: 220 go\\r\\n{injected}\nX: hang"
    server = await ScriptedServer(attacked, EHLO + ACCEPT).start()
    outcome = await attempt(server)
    assert (outcome.results[0].verdict, outcome.results[0].reply.enhanced) == (Verdict.DEFERRED, "4.5.0")
    assert len(server.heard) == 1
    assert server.heard[0].endswith(b"STARTTLS\r\n")


async def test_downgrade_by_what_was_offered_in_the_clear_is_forgotten(ca):
    """What a man in the middle adds to the first EHLO is not believed after the handshake (RFC 3207 4.2)."""
    offer = EHLO.replace("S: 250-DSN", "S: 250-STARTTLS\nS: 250-AUTH PLAIN\nS: 250-DSN")
    inside = "C: EHLO relay.test\nS: 250 mx.test\n"
    mail = "C: MAIL FROM:<a@sender.test>\nS: 250 ok\nC: RCPT\nX: close\n"
    server = await ScriptedServer(
        offer + "C: STARTTLS\nS: 220 go\nX: starttls\n" + inside + mail, tls=server_context(ca, "other.test")
    ).start()
    await attempt(server)
    # one command at a time, and without SIZE: none of it was offered inside
    assert server.heard[0].endswith(b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<r@rcpt.test>\r\n")


async def test_require_without_an_offer_sends_nothing():
    server = await ScriptedServer(EHLO).start()
    outcome = await attempt(server, route={"tls": "require"})
    assert (outcome.results[0].verdict, outcome.results[0].reply.enhanced) == (Verdict.DEFERRED, "4.7.10")
    assert b"MAIL" not in server.heard[0]


@pytest.mark.parametrize("mode", ["verify", "implicit"])
async def test_certificates_are_verified(ca, mode):
    plain = STARTTLS + INSIDE + ACCEPT + QUIT
    implicit = EHLO + ACCEPT + QUIT
    for names, trusted, verdict in (
        ((HOST,), True, Verdict.DELIVERED),
        (("other.test",), True, Verdict.DEFERRED),
        ((HOST,), False, Verdict.DEFERRED),
    ):
        context = server_context(ca, *names)
        if mode == "verify":
            server = await ScriptedServer(plain, tls=context).start()
        else:
            server = await ScriptedServer(implicit).start(tls=context)
        options = {"ca_file": ca.ca_file} if trusted else {}
        outcome = await attempt(server, route={"tls": mode}, **options)
        assert outcome.results[0].verdict is verdict
        if verdict is Verdict.DELIVERED:
            assert outcome.tls.endswith(":verified")
        else:
            assert outcome.results[0].reply.enhanced == "4.7.5"
            assert b"MAIL" not in b"".join(server.heard)


AUTH = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250-PIPELINING\nS: 250 AUTH CRAM-MD5 {}\n"
PLAIN = b64encode(b"\0user\0p\xc3\xa4ss word").decode()


def login(tmp_path, text="p\u00e4ss word\n"):
    (tmp_path / "password").write_text(text, encoding="utf-8")
    return {"username": "user", "password_file": str(tmp_path / "password"), "tls": "none"}


@pytest.mark.parametrize(
    ("mechanisms", "dialog"),
    [
        ("LOGIN PLAIN", f"C: AUTH PLAIN {PLAIN}\nS: 235 2.7.0 ok\n"),
        ("LOGIN", "C: AUTH LOGIN dXNlcg==\nS: 334 UGFzc3dvcmQ6\nC: cMOkc3Mgd29yZA==\nS: 235 ok\n"),
    ],
)
async def test_auth(tmp_path, mechanisms, dialog):
    server = await ScriptedServer(AUTH.format(mechanisms) + dialog + ACCEPT + QUIT).start()
    outcome = await attempt(server, route=login(tmp_path))
    assert server.problems == []
    assert outcome.results[0].verdict is Verdict.DELIVERED


@pytest.mark.parametrize(
    ("mechanisms", "dialog", "code"),
    [("PLAIN", "C: AUTH PLAIN\nS: 535 5.7.8 wrong\n", 535), ("SCRAM-SHA-1", "", 451)],
)
async def test_auth_that_fails_is_ours_to_mend_and_tried_once(tmp_path, mechanisms, dialog, code):
    server = await ScriptedServer(AUTH.format(mechanisms) + dialog).start()
    outcome = await attempt(server, route=login(tmp_path))
    assert server.problems == []
    assert (outcome.results[0].verdict, outcome.results[0].scope) == (Verdict.DEFERRED, Scope.US)
    assert outcome.results[0].reply.code == code
    assert b"MAIL" not in server.heard[0]


async def test_a_password_that_cannot_be_read_defers_without_its_path(tmp_path):
    options = login(tmp_path)
    (tmp_path / "password").unlink()
    server = await ScriptedServer(AUTH.format("PLAIN")).start()
    outcome = await attempt(server, route=options)
    assert (outcome.results[0].verdict, outcome.results[0].scope) == (Verdict.DEFERRED, Scope.US)
    assert "password" in outcome.results[0].reply.text
    assert str(tmp_path) not in outcome.results[0].reply.text


def test_the_same_on_uvloop(ca):
    async def run():
        server = await ScriptedServer(
            STARTTLS + INSIDE + ACCEPT + ACCEPT + QUIT, tls=server_context(ca, "other.test")
        ).start()
        content = b"A: b\r\n\r\n" + (b"x" * 70 + b"\r\n") * 10_000
        async with server, Relay(config(routes=[route(server.port)]), content=content) as relay:
            outcomes = [await relay.attempt(job()) for _ in range(2)]
        assert server.problems == []
        assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 2
        assert server.contents == [content + b".\r\n"] * 2

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
