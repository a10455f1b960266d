"""Whole attempts against scripted peers over real sockets."""

import asyncio
import itertools
import re

import aiosmtpd.smtp
import msgspec
import pytest

from mta.clock import SystemClock
from mta.mail.envelope import Notify, Recipient
from mta.mail.result import Reach, Scope, Verdict
from mta.queue.shaping import parse
from tests.unit.delivery.peers import (
    ACCEPT,
    CONTENT,
    EHLO,
    HOST,
    QUIT,
    DnsPeer,
    Relay,
    ScriptedServer,
    config,
    job,
    route,
)


def told(outcome):
    return [(each.verdict, each.reply.code, each.reply.enhanced) for each in outcome.results]


async def one(*scripts: str, made=None, **options):
    """Make one attempt along a route to a peer with these scripts; return outcome and peer."""
    content = options.pop("content", CONTENT)
    route_options = options.pop("route", {})
    async with ScriptedServer(*scripts) as server:
        settings = config(routes=[route(server.port, **route_options)], **options)
        async with Relay(settings, content=content) as relay:
            outcome = await asyncio.wait_for(relay.attempt(made or job()), 10)
    return outcome, server


async def test_delivered_in_one_pipelined_transaction():
    outcome, server = await one(EHLO + ACCEPT + QUIT)
    assert server.problems == []
    assert told(outcome) == [(Verdict.DELIVERED, 250, "2.0.0")]
    assert outcome.relay == f"{HOST}[{HOST}]:{server.port}"
    assert (outcome.source, outcome.tls, outcome.signed, outcome.counted) == (HOST, "", "no key", True)
    assert outcome.started_at <= outcome.ended_at
    assert server.contents == [CONTENT + b".\r\n"]
    assert b"MAIL FROM:<a@sender.test> SIZE=47\r\nRCPT TO:<r@rcpt.test>\r\nDATA\r\n" in server.chunks


async def test_without_pipelining_each_command_awaits_its_reply():
    script = """
    S: 220 old.test
    C: EHLO relay.test
    S: 250 old.test
    C: MAIL FROM:<a@sender.test>
    S: 250 ok
    C: RCPT TO:<r@rcpt.test>
    S: 250 ok
    C: DATA
    S: 354 go on
    C: <content>
    S: 250 taken
    """.replace("    ", "")
    outcome, server = await one(script + QUIT)
    assert server.problems == []
    assert outcome.results[0].verdict is Verdict.DELIVERED
    assert b"RCPT TO:<r@rcpt.test>\r\n" in server.chunks


async def test_helo_where_ehlo_is_unknown():
    script = "S: 220 old\nC: EHLO \nS: 502 what?\nC: HELO relay.test\nS: 250 hello\nC: MAIL FROM:<a@sender.test>\n"
    script += "S: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nC: <content>\nS: 250 taken\n"
    outcome, server = await one(script + QUIT)
    assert server.problems == []
    assert outcome.results[0].verdict is Verdict.DELIVERED


async def test_each_recipient_gets_its_own_reply():
    script = EHLO + (
        "C: MAIL\nC: RCPT TO:<a@\nC: RCPT TO:<b@\nC: RCPT TO:<c@\nC: RCPT TO:<d@\nC: DATA\n"
        "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no such user\nS: 451 4.2.1 greylisted, try again in 5 minutes\n"
        "S: 552 5.5.3 too many recipients\nS: 354 go on\nC: <content>\nS: 250 2.0.0 taken\n"
    )
    outcome, server = await one(script + QUIT, made=job(*(f"{each}@rcpt.test" for each in "abcd")))
    assert server.problems == []
    assert told(outcome) == [
        (Verdict.DELIVERED, 250, "2.0.0"),
        (Verdict.FAILED, 550, "5.1.1"),
        (Verdict.DEFERRED, 451, "4.2.1"),
        (Verdict.DEFERRED, 552, "5.5.3"),
    ]
    assert outcome.retry_after == 300


async def test_data_accepted_for_nobody_is_ended_by_a_dot_alone():
    refused = (
        EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 5.1.1 no\nS: 354 go on\nC: <content>\nS: 554 nobody\n"
    )
    outcome, server = await one(refused + QUIT)
    assert server.problems == []
    assert server.contents == [b".\r\n"]
    assert told(outcome) == [(Verdict.FAILED, 550, "5.1.1")]


async def test_data_accepted_without_mail_hangs_up_before_the_dot():
    outcome, server = await one(EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 550 5.7.1 no\nS: 503 no\nS: 354 go on\n")
    assert told(outcome) == [(Verdict.FAILED, 550, "5.7.1")]
    assert server.heard[0].endswith(b"DATA\r\n")


@pytest.mark.parametrize(
    ("mail", "expected"),
    [
        ("550 5.7.1 not you", (Verdict.FAILED, 550, "5.7.1")),
        ("451 4.3.0 later", (Verdict.DEFERRED, 451, "4.3.0")),
        ("503 bad sequence", (Verdict.DEFERRED, 503, "")),
        ("250 fine\nS: 550 x\nS: 354 go on\nC: <content>", (Verdict.FAILED, 550, "")),
    ],
)
async def test_refusal_then_reset_with_the_next_transaction(mail, expected):
    tail = "" if mail.startswith("250") else "\nS: 503 no\nS: 503 no"
    done = "S: 250 nothing\n" if mail.startswith("250") else ""
    reset = (
        "C: RSET\nC: MAIL\nC: RCPT\nC: DATA\nS: 250 reset\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 250 ok\n"
    )
    script = EHLO + f"C: MAIL\nC: RCPT\nC: DATA\nS: {mail}{tail}\n{done}" + reset + QUIT
    async with ScriptedServer(script) as server, Relay(config(routes=[route(server.port)])) as relay:
        refused = await relay.attempt(job())
        taken = await relay.attempt(job())
    assert server.problems == []
    assert told(refused) == [expected]
    assert taken.results[0].verdict is Verdict.DELIVERED
    assert len(server.heard) == 1


@pytest.mark.parametrize("stage", ["greeting", "ehlo"])
@pytest.mark.parametrize("code", [421, 450, 554])
async def test_a_host_that_refuses_the_session_is_passed_over(stage, code):
    refusing = f"S: {code} 5.3.2 no service\n" if stage == "greeting" else f"S: 220 x\nC: EHLO\nS: {code} no\n"
    if stage == "ehlo" and code == 554:
        refusing += f"C: HELO\nS: {code} no\n"
    async with ScriptedServer(refusing) as first, ScriptedServer(EHLO + ACCEPT + QUIT) as second:
        async with Relay(config(routes=[route(first.port, second.port)])) as relay:
            outcome = await relay.attempt(job())
        assert outcome.results[0].verdict is Verdict.DELIVERED
        async with Relay(config(routes=[route(first.port)])) as relay:
            outcome = await relay.attempt(job())
    assert (outcome.results[0].verdict, outcome.results[0].scope) == (Verdict.DEFERRED, Scope.HOST)
    assert outcome.relay.endswith(f":{first.port}")


async def test_nobody_listening_is_deferred_and_names_no_relay(unused_tcp_port):
    async with Relay(config(routes=[route(unused_tcp_port)])) as relay:
        outcome = await relay.attempt(job())
    assert told(outcome) == [(Verdict.DEFERRED, 451, "4.4.1")]
    assert "refused" in outcome.results[0].reply.text
    assert (outcome.relay, outcome.counted, outcome.results[0].remote) == ("", True, False)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("X: close", (451, "4.4.2")),
        ("X: reset", (451, "4.4.2")),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nX: close", (451, "4.4.2")),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nX: reset", (451, "4.4.2")),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 421 4.3.2 closing\nX: close", (421, "4.3.2")),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nX: close", (451, "4.4.2")),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nX: close", (451, "4.4.2")),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 250 what\n", (250, "")),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 421 no\n", (421, "")),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nS: 354 huh\n", (354, "")),
    ],
)
async def test_whatever_breaks_is_deferred(script, expected):
    outcome, _ = await one(script)
    assert told(outcome) == [(Verdict.DEFERRED, *expected)]


@pytest.mark.parametrize(
    ("script", "reach"),
    [
        ("X: close", Reach.HOST),
        ("S: 421 4.7.0 not now\n", Reach.HOST),
        ("S: 220 x\nC: EHLO\nS: 421 no\n", Reach.HOST),
        (EHLO + "C: MAIL\nX: close", Reach.SESSION),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 421 4.7.0 slowly\nX: close", Reach.SESSION),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 421 4.3.2 closing\nX: close", Reach.TRANSACTION),
        (EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nX: close", Reach.TRANSACTION),
        (EHLO + ACCEPT + QUIT, Reach.TRANSACTION),
    ],
)
async def test_an_outcome_says_how_far_it_got(script, reach):
    outcome, _ = await one(script)
    assert outcome.reach is reach


async def test_where_nobody_listens_or_is_to_be_asked_nobody_was_reached(unused_tcp_port):
    async with Relay(config(routes=[route(unused_tcp_port)])) as relay:
        assert (await relay.attempt(job())).reach is Reach.HOST
        await relay.attempter.drain(0)
        assert (await relay.attempt(job())).reach is Reach.NOBODY


async def test_lost_before_the_dot_asks_the_next_host_and_after_it_nobody():
    before = EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nX: close"
    after = EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nX: close"
    for script, verdict, connections in ((before, Verdict.DELIVERED, 1), (after, Verdict.DEFERRED, 0)):
        async with (
            ScriptedServer(script) as first,
            ScriptedServer(EHLO + ACCEPT + QUIT) as second,
            Relay(config(routes=[route(first.port, second.port)])) as relay,
        ):
            outcome = await relay.attempt(job())
        assert outcome.results[0].verdict is verdict
        assert len(second.heard) == connections


@pytest.mark.parametrize(
    ("replies", "code"),
    [
        ("S: 550 5.7.1 no", 550),
        ("S: 250 ok\nS: 250 ok\nS: 554 5.7.1 no", 554),
        ("S: 250 ok\nS: 450 no\nS: 503 no", 450),
        ("S: 250 ok\nS: 450 no", 450),
    ],
)
async def test_a_refusal_stands_when_the_peer_hangs_up_after_it(replies, code):
    script = EHLO + f"C: MAIL\nC: RCPT\nC: DATA\n{replies}\nX: close"
    async with (
        ScriptedServer(script) as first,
        ScriptedServer(EHLO + ACCEPT + QUIT) as second,
        Relay(config(routes=[route(first.port, second.port)])) as relay,
    ):
        outcome = await relay.attempt(job())
    assert outcome.results[0].reply.code == code
    assert second.heard == []


async def test_who_was_refused_before_the_connection_broke_has_failed():
    script = EHLO + "C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 5.1.1 no\nX: close"
    async with (
        ScriptedServer(script) as first,
        ScriptedServer(EHLO + ACCEPT + QUIT) as second,
        Relay(config(routes=[route(first.port, second.port)])) as relay,
    ):
        outcome = await relay.attempt(job("a@rcpt.test", "b@rcpt.test"))
    assert told(outcome) == [(Verdict.FAILED, 550, "5.1.1"), (Verdict.DEFERRED, 451, "4.4.2")]
    assert second.heard == []


@pytest.mark.parametrize(
    "script",
    [
        "X: hang",
        "R: 220-a\\r\\n\nX: hang",
        EHLO + "C: MAIL\nC: RCPT\nC: DATA\nX: hang",
        EHLO + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: <content>\nX: hang",
    ],
)
async def test_a_tarpit_is_left_when_its_time_is_over(script):
    outcome, _ = await one(script, greeting_timeout=0.05, command_timeout=0.05, final_timeout=0.05)
    assert told(outcome) == [(Verdict.DEFERRED, 451, "4.4.2")]


async def test_dribbling_does_not_buy_time():
    async def dribble(reader, writer):
        try:
            while True:
                writer.write(b"2")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(dribble, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Relay(config(routes=[route(port)], greeting_timeout=0.1)) as relay:
        outcome = await asyncio.wait_for(relay.attempt(job()), 2)
    assert told(outcome) == [(Verdict.DEFERRED, 451, "4.4.2")]


@pytest.mark.parametrize(
    "octets",
    ["220-x\\r\\n" * 2000, "2" * 100_000, "220-" + "x" * 100_000, "hello\\r\\n", "220-a\\r\\n250 b\\r\\n", "99 \\r\\n"],
    ids=["endless", "no-line", "long-line", "words", "two-codes", "short-code"],
)
async def test_what_is_not_a_reply_is_not_read_on(octets):
    outcome, _ = await one("R: " + octets + "\nX: hang")
    assert told(outcome) == [(Verdict.DEFERRED, 451, "4.5.0")]


async def test_bare_lf_replies_are_understood_and_control_characters_are_not_passed_on():
    script = EHLO.replace("S: 220 mx.test ESMTP", "R: 220 mx.test\\n") + ACCEPT.replace(
        "S: 250 2.0.0 taken as 1", "R: 250-2.0.0 taken\\x1b[31m\\n250 2.0.0 \\x00as 1\\n"
    )
    outcome, _ = await one(script + QUIT)
    assert outcome.results[0].verdict is Verdict.DELIVERED
    assert outcome.results[0].reply.text == "taken?[31m\n?as 1"


async def test_a_long_reply_is_kept_short():
    outcome, _ = await one(EHLO + ACCEPT.replace("taken as 1", "x" * 5000) + QUIT)
    assert outcome.results[0].verdict is Verdict.DELIVERED
    assert len(outcome.results[0].reply.text) < 1100


# What a message needs and a next hop lacks


PLAIN = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 PIPELINING\n"


@pytest.mark.parametrize(
    ("made", "content", "expected"),
    [
        (job(eight_bit=True), b"Subject: x\r\n\r\n\xe4\r\n", (Verdict.FAILED, 554, "5.6.3")),
        (job("\u00fc@rcpt.test", smtputf8=True), CONTENT, (Verdict.FAILED, 550, "5.6.7")),
        (job(smtputf8=True), "Subject: \u00fc\r\n\r\nx\r\n".encode(), (Verdict.FAILED, 550, "5.6.7")),
    ],
)
async def test_what_a_next_hop_cannot_take_goes_to_the_next_or_fails(made, content, expected):
    async with ScriptedServer(PLAIN + QUIT) as first, ScriptedServer(EHLO + ACCEPT + QUIT) as second:
        async with Relay(config(routes=[route(first.port, second.port)]), content=content) as relay:
            outcome = await relay.attempt(made)
            again = await relay.attempt(made)
        assert [each.results[0].verdict for each in (outcome, again)] == [Verdict.DELIVERED] * 2
        async with Relay(config(routes=[route(first.port)]), content=content) as relay:
            assert told(await relay.attempt(made)) == [expected]
            assert told(await relay.attempt(made)) == [expected]
    assert not any(b"MAIL" in each for each in first.heard)


async def test_declared_8bit_that_is_ascii_needs_nothing():
    outcome, _ = await one(PLAIN + ACCEPT + QUIT, made=job(eight_bit=True, smtputf8=True))
    assert outcome.results[0].verdict is Verdict.DELIVERED


async def test_too_big_for_every_next_hop_fails():
    script = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 SIZE 20\n"
    outcome, server = await one(script + QUIT)
    assert told(outcome) == [(Verdict.FAILED, 552, "5.3.4")]
    assert b"MAIL" not in server.heard[0]


async def test_unfit_here_and_unreachable_there_is_deferred(unused_tcp_port):
    async with (
        ScriptedServer(PLAIN + QUIT) as first,
        Relay(config(routes=[route(first.port, unused_tcp_port)]), content=b"A: b\r\n\r\n\xe4\r\n") as relay,
    ):
        assert told(await relay.attempt(job())) == [(Verdict.DEFERRED, 451, "4.4.1")]


async def test_dsn_parameters_go_on_where_dsn_is_offered():
    made = job(
        Recipient("a@rcpt.test", notify=Notify.SUCCESS | Notify.DELAY, orcpt="rfc822;a+2Bb@x.test"),
        Recipient("b@rcpt.test", notify=Notify.NEVER),
        ret="HDRS",
        envid="QQ+2B1",
    )
    script = ACCEPT.replace("C: RCPT TO:", "C: RCPT TO:<a\nC: RCPT TO:<b").replace("S: 250 2.1.5", "S: 250 ok\nS: 250")
    outcome, server = await one(EHLO + script + QUIT, made=made)
    assert server.problems == []
    assert b"MAIL FROM:<a@sender.test> SIZE=47 RET=HDRS ENVID=QQ+2B1\r\n" in server.heard[0]
    assert b"RCPT TO:<a@rcpt.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x.test\r\n" in server.heard[0]
    assert b"RCPT TO:<b@rcpt.test> NOTIFY=NEVER\r\n" in server.heard[0]
    assert [each.relayed for each in outcome.results] == [False, False]
    outcome, server = await one(PLAIN + script + QUIT, made=made)
    assert b"RCPT TO:<a@rcpt.test>\r\nRCPT TO:<b@rcpt.test>\r\n" in server.heard[0]
    assert [each.relayed for each in outcome.results] == [True, True]


# Kept connections


async def test_a_connection_is_kept_and_counted():
    async with ScriptedServer(EHLO + ACCEPT + ACCEPT + QUIT, EHLO + ACCEPT + QUIT) as server:
        settings = config(routes=[route(server.port)], deliveries_per_connection=2)
        async with Relay(settings) as relay:
            outcomes = [await relay.attempt(job()) for _ in range(3)]
    assert server.problems == []
    assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 3
    assert len(server.heard) == 2


async def test_a_provider_may_want_fewer_deliveries_on_a_connection():
    rules = parse("providers: [{name: p, mx: [p.test], deliveries_per_connection: 1}]\n", "shaping.yaml")
    async with (
        ScriptedServer(EHLO + ACCEPT + QUIT, EHLO + ACCEPT + QUIT) as server,
        DnsPeer({("rcpt.test", "MX"): ["10 mx.p.test."], ("mx.p.test", "A"): ["127.0.0.1"]}) as peer,
        Relay(config(port=server.port, allow_private_targets=True), dns=peer.settings, shaping=rules) as relay,
    ):
        for _ in range(2):
            assert (await relay.attempt(job())).results[0].verdict is Verdict.DELIVERED
    assert len(server.heard) == 2


@pytest.mark.parametrize("end", ["X: close", "C: MAIL\nX: close", "C: MAIL\nX: reset", "C: MAIL\nS: 421 4.7.0 enough"])
async def test_a_kept_connection_that_ended_is_replaced_at_once(end):
    async with (
        ScriptedServer(EHLO + ACCEPT + end, EHLO + ACCEPT + QUIT) as server,
        Relay(config(routes=[route(server.port)])) as relay,
    ):
        outcomes = [await relay.attempt(job()) for _ in range(2)]
    assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 2
    assert [each.closed_after for each in outcomes] == [0, 1 if "421" in end else 0]
    assert len(server.heard) == 2


async def test_when_a_kept_connection_ended_it_is_the_new_one_that_tells_how_far_it_got():
    async with (
        ScriptedServer(EHLO + ACCEPT + "C: MAIL\nX: close", "S: 421 4.7.0 not now\n") as server,
        Relay(config(routes=[route(server.port)])) as relay,
    ):
        outcomes = [await relay.attempt(job()) for _ in range(2)]
    assert [each.reach for each in outcomes] == [Reach.TRANSACTION, Reach.HOST]


async def test_a_connection_idle_too_long_is_told_quit():
    async with (
        ScriptedServer(EHLO + ACCEPT + QUIT) as server,
        Relay(config(routes=[route(server.port)], idle=0.02)) as relay,
    ):
        await relay.attempt(job())
        while not server.heard[0].endswith(b"QUIT\r\n"):
            await asyncio.sleep(0.01)  # for the peer, on its own time
        assert len(relay.attempter._pool) == 0


async def test_a_connection_that_ends_while_idle_is_forgotten():
    async with (
        ScriptedServer(EHLO + ACCEPT + "X: close") as server,
        Relay(config(routes=[route(server.port)])) as relay,
    ):
        await relay.attempt(job())
        async with asyncio.timeout(5):
            while len(relay.attempter._pool):
                await asyncio.sleep(0.01)


async def test_a_farewell_while_idle_ends_the_connection():
    async with (
        ScriptedServer(EHLO + ACCEPT + "S: 421 4.4.2 idle\nX: hang", EHLO + ACCEPT + QUIT) as server,
        Relay(config(routes=[route(server.port)])) as relay,
    ):
        outcomes = [await relay.attempt(job()) for _ in range(2)]
    assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 2


async def test_sites_do_not_share_connections():
    async with ScriptedServer(EHLO + ACCEPT + QUIT) as server:
        routes = [
            {"domains": ["a.test"], "relay": f"{HOST}:{server.port}", "tls": "none"},
            {"domains": ["b.test", "*.c.test"], "relay": f"{HOST}:{server.port}"},
        ]
        async with Relay(config(routes=routes)) as relay:
            for domain, connections in (("a.test", 1), ("b.test", 2)):
                outcome = await relay.attempt(job(domain=domain))
                assert outcome.results[0].verdict is Verdict.DELIVERED
                assert len(server.heard) == connections
            assert len(relay.attempter._pool) == 2


async def test_a_redirected_entry_goes_to_its_relay_whatever_the_routes_say():
    async with (
        ScriptedServer() as routed,
        ScriptedServer(EHLO + ACCEPT + QUIT) as named,
        Relay(config(routes=[route(routed.port)])) as relay,
    ):
        made = job()
        entry = msgspec.structs.replace(made.entry, relay=f"{HOST}:{named.port}")
        outcome = await relay.attempt(msgspec.structs.replace(made, entry=entry))
    assert outcome.relay == f"{HOST}[{HOST}]:{named.port}"
    assert told(outcome) == [(Verdict.DELIVERED, 250, "2.0.0")]
    assert routed.heard == []


# Bytes


SEQUENCES = ["\r\n", "\n", "\r", "\r\r\n", "\r\n\0", "\n\r", "\0\r\n"]
SMUGGLING = [f"{a}.{b}" for a, b in itertools.product(SEQUENCES, SEQUENCES) if (a, b) != ("\r\n", "\r\n")]


def test_there_are_48_sequences():
    assert len(SMUGGLING) == 48


async def test_no_smuggling_sequence_is_ever_sent():
    async with ScriptedServer(EHLO + ACCEPT * 60 + QUIT) as server, Relay(config(routes=[route(server.port)])) as relay:
        for sequence in SMUGGLING:
            for content in (
                b"Subject: x\r\n\r\nbefore" + sequence.encode() + b"MAIL FROM:<evil@x.test>\r\n",
                sequence.encode() + b"after\r\n",
            ):
                relay.contents.value = content
                outcome = await relay.attempt(job())
                assert told(outcome) == [(Verdict.FAILED, 554, "5.6.0")], sequence
    assert b"MAIL" not in b"".join(server.heard)


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"A: b\r\n\r\n.\r\nMAIL FROM:<evil@x.test>\r\n", b"A: b\r\n\r\n..\r\nMAIL FROM:<evil@x.test>\r\n.\r\n"),
        (b".\r\n..\r\n...\r\n", b"..\r\n...\r\n....\r\n.\r\n"),
        (b".\r\n.\r\n.\r\n", b"..\r\n..\r\n..\r\n.\r\n"),
        (b"A: b\r\n\r\nno end", b"A: b\r\n\r\nno end\r\n.\r\n"),
        (b"A: b\r\n\r\n" + b"x" * 10_000 + b"\r\n", b"A: b\r\n\r\n" + b"x" * 10_000 + b"\r\n.\r\n"),
    ],
)
async def test_leading_dots_are_doubled_and_nothing_else_changes(content, wire):
    outcome, server = await one(EHLO + ACCEPT + QUIT, content=content)
    assert server.problems == []
    assert outcome.results[0].verdict is Verdict.DELIVERED
    assert server.contents == [wire]


@pytest.mark.parametrize("address", ["a@rcpt.test>\r\nRCPT TO:<b@rcpt.test", "a\n@rcpt.test", "a\0@rcpt.test"])
async def test_no_command_can_be_put_into_an_address(address):
    for made in (job(address), job(sender=address), job(Recipient("a@rcpt.test", orcpt=address)), job(envid=address)):
        outcome, server = await one(EHLO + QUIT, made=made)
        assert told(outcome) == [(Verdict.FAILED, 553, "5.1.3")]
        assert b"MAIL" not in server.heard[0]


async def test_large_content_arrives_whole():
    content = b"A: b\r\n\r\n" + b"." * 70 + b"\r\n" + (b"." + b"x" * 70 + b"\r\n") * 40_000
    outcome, server = await one(EHLO.replace("SIZE 1000000", "SIZE") + ACCEPT + QUIT, content=content)
    assert outcome.results[0].verdict is Verdict.DELIVERED
    assert re.sub(rb"(?m)^\.\.", b".", server.contents[0].removesuffix(b".\r\n")) == content


async def test_a_peer_that_stops_reading_is_left():
    async def stuck(reader, writer):
        writer.write(b"220 x\r\n")
        for _ in range(2):
            await reader.readuntil(b"\r\n")
            writer.write(b"250-x\r\n250 PIPELINING\r\n" if _ == 0 else b"250 ok\r\n250 ok\r\n354 go\r\n")
        await released.wait()
        writer.close()

    released = asyncio.Event()
    server = await asyncio.start_server(stuck, HOST, 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    settings = config(routes=[route(port)], block_timeout=0.1)
    async with server, Relay(settings, content=b"A: b\r\n\r\n" + b"x\r\n" * 10_000_000) as relay:
        outcome = await asyncio.wait_for(relay.attempt(job()), 5)
        released.set()
    assert told(outcome) == [(Verdict.DEFERRED, 451, "4.4.2")]
    assert "content" in outcome.results[0].reply.text


async def test_a_refusal_in_the_middle_of_content_is_the_reply():
    script = EHLO.replace("SIZE 1000000", "SIZE") + (
        "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: A: b\nS: 552 5.3.4 too much\nX: hang"
    )
    outcome, _ = await one(script, content=b"A: b\r\n\r\n" + b"x" * 70_000_000 + b"\r\n")
    assert told(outcome) == [(Verdict.FAILED, 552, "5.3.4")]


# Our own failures


async def test_a_defect_is_one_message_deferred(caplog):
    class Broken:
        async def content(self, message):
            raise ZeroDivisionError

    async with ScriptedServer(EHLO + ACCEPT + QUIT) as server, Relay(config(routes=[route(server.port)])) as relay:
        contents, relay.attempter._content = relay.attempter._content, Broken()
        outcome = await relay.attempt(job())
        assert told(outcome) == [(Verdict.DEFERRED, 451, "4.3.0")]
        assert outcome.results[0].scope is Scope.US
        assert "ZeroDivisionError" in caplog.text
        relay.attempter._content = contents
        assert (await relay.attempt(job())).results[0].verdict is Verdict.DELIVERED
    assert len(server.heard) == 1


async def test_cancellation_passes_and_leaves_nothing_open():
    async with ScriptedServer(EHLO + "C: MAIL\nX: hang") as server, Relay(config(routes=[route(server.port)])) as relay:
        task = asyncio.create_task(relay.attempt(job()))
        while b"MAIL" not in b"".join(server.heard):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(relay.attempter._pool) == 0


# Drain


async def _under_way(script: str, sign: bytes):
    server = await ScriptedServer(script).start()
    relay = Relay(config(routes=[route(server.port)]))
    task = asyncio.create_task(relay.attempt(job()))
    while sign not in b"".join(server.heard):
        await asyncio.sleep(0.01)
    return server, relay, task


async def test_drain_breaks_off_before_the_dot():
    server, relay, task = await _under_way(EHLO + "C: MAIL\nC: RCPT\nC: DATA\nX: hang", b"DATA")
    async with server, relay:
        await relay.attempter.drain(0.05)
        outcome = await task
        assert told(outcome) == [(Verdict.DEFERRED, 451, "4.3.2")]
        assert outcome.results[0].reply.text == "shutting down"
        assert not outcome.counted
        late = await relay.attempt(job())
        assert (told(late), late.counted) == ([(Verdict.DEFERRED, 451, "4.3.2")], False)
    assert len(server.heard) == 1


async def test_an_attempt_is_recalled_before_its_dot():
    server, relay, task = await _under_way(EHLO + "C: MAIL\nC: RCPT\nC: DATA\nX: hang", b"DATA")
    async with server, relay:
        assert relay.attempter.recall({"m" * 22 + ".2"}) == 0
        await asyncio.sleep(0.02)
        assert not task.done()
        assert relay.attempter.recall({"m" * 22 + ".1", "m" * 22 + ".2"}) == 1
        outcome = await task
    assert (told(outcome), outcome.counted) == ([(Verdict.DEFERRED, 451, "4.3.0")], False)
    assert outcome.results[0].reply.text == "broken off on an operator's word"


async def test_no_attempt_is_recalled_past_its_dot():
    script = EHLO + ACCEPT.replace("S: 250 2.0.0", "X: hang\nS: 250 2.0.0") + QUIT
    server, relay, task = await _under_way(script, b"\r\n.\r\n")
    async with server, relay:
        assert relay.attempter.recall({"m" * 22 + ".1"}) == 0
        server._release.set()
        assert (await task).results[0].verdict is Verdict.DELIVERED


async def test_an_attempt_out_of_time_is_broken_off_before_its_dot():
    server, relay, task = await _under_way(EHLO + "C: MAIL\nC: RCPT\nC: DATA\nX: hang", b"DATA")
    async with server, relay:
        assert relay.attempter.break_off(lambda job: job.entry.number == 2) == 0
        assert relay.attempter.break_off(lambda job: job.entry.number == 1) == 1
        outcome = await task
    assert (told(outcome), outcome.counted) == ([(Verdict.DEFERRED, 451, "4.4.7")], False)
    assert outcome.broken_off


async def test_no_attempt_is_out_of_time_past_its_dot():
    script = EHLO + ACCEPT.replace("S: 250 2.0.0", "X: hang\nS: 250 2.0.0") + QUIT
    server, relay, task = await _under_way(script, b"\r\n.\r\n")
    async with server, relay:
        assert relay.attempter.break_off(lambda _: True) == 0
        server._release.set()
        outcome = await task
    assert outcome.results[0].verdict is Verdict.DELIVERED
    assert not outcome.broken_off


async def test_a_deadline_that_must_be_kept_goes_to_nobody_who_does_not():
    made = job()
    late = msgspec.structs.replace(made.message, deliver_by=SystemClock().now() + 60, by_mode="R")
    async with (
        ScriptedServer(EHLO + QUIT) as server,
        Relay(config(routes=[route(server.port)])) as relay,
    ):
        outcome = await relay.attempt(msgspec.structs.replace(made, message=late))
    assert told(outcome) == [(Verdict.FAILED, 554, "5.3.3")]
    assert b"MAIL" not in b"".join(server.heard)


async def test_drain_breaks_off_what_is_being_signed_for_a_kept_connection():
    signing = asyncio.Event()

    class Slow:
        async def content(self, message):
            signing.set()
            await asyncio.Event().wait()

    async with (
        ScriptedServer(EHLO + ACCEPT + QUIT) as server,
        Relay(config(routes=[route(server.port)])) as relay,
    ):
        await relay.attempt(job())
        relay.attempter._content = Slow()
        task = asyncio.create_task(relay.attempt(job()))
        await signing.wait()
        await asyncio.wait_for(relay.attempter.drain(0.01), 2)
        outcome = await task
    assert (told(outcome), outcome.counted) == ([(Verdict.DEFERRED, 451, "4.3.2")], False)
    assert server.problems == []  # the connection was in step, and was told QUIT


async def test_drain_waits_for_the_reply_to_the_dot():
    script = EHLO + ACCEPT.replace("S: 250 2.0.0", "X: hang\nS: 250 2.0.0") + QUIT
    server, relay, task = await _under_way(script, b"\r\n.\r\n")
    async with server, relay:
        drained = asyncio.create_task(relay.attempter.drain(0.01, after_dot=5))
        await asyncio.sleep(0.05)
        assert not task.done()
        server._release.set()
        await drained
        assert (await task).results[0].verdict is Verdict.DELIVERED


async def test_drain_does_not_wait_for_ever_after_the_dot():
    script = EHLO + ACCEPT.replace("S: 250 2.0.0", "X: hang\nS: 250 2.0.0") + QUIT
    server, relay, task = await _under_way(script, b"\r\n.\r\n")
    async with server, relay:
        await relay.attempter.drain(0.01, after_dot=0.05)
        outcome = await task
    assert told(outcome) == [(Verdict.DEFERRED, 451, "4.3.2")]
    assert outcome.counted


# An independent peer


class _Captured:
    def __init__(self) -> None:
        self.envelopes = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        self.envelopes.append(envelope)
        return "250 2.0.0 captured"


async def test_aiosmtpd_takes_what_we_send():
    handler = _Captured()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: aiosmtpd.smtp.SMTP(handler, enable_SMTPUTF8=True, loop=loop), HOST, 0)
    content = "Subject: \u00fc\r\n\r\n.dot\r\n..two\r\n\u00e4\r\n".encode()
    port = server.sockets[0].getsockname()[1]
    async with server, Relay(config(routes=[route(port)]), content=content) as relay:
        made = job("\u00fc@rcpt.test", "b@rcpt.test", smtputf8=True, eight_bit=True)
        for _ in range(2):
            outcome = await relay.attempt(made)
            assert [each.verdict for each in outcome.results] == [Verdict.DELIVERED] * 2
    assert [each.content for each in handler.envelopes] == [content] * 2
    assert handler.envelopes[0].rcpt_tos == ["\u00fc@rcpt.test", "b@rcpt.test"]
    assert handler.envelopes[0].mail_options == [f"SIZE={len(content)}", "BODY=8BITMIME", "SMTPUTF8"]
