"""No walk over policies, hosts and wants that change ends with mail over less than was asked for at that moment.

A host is good one minute and bad the next, domains with the same host get policies and lose them, and connections are
kept in between: what was good enough for one message may not be for the next. The rules are written apart.
"""

import asyncio
import os
import random
import ssl
import time
import warnings

import msgspec

from mta.accounts.tenants import Tenant
from mta.delivery.sts_policies import Standing
from mta.lab.ca import PrivateCa
from mta.lab.clock import FakeClock
from mta.mail.result import Verdict
from tests.unit.delivery.peers import DnsPeer, Policies, Records, Relay, config, job, sts_policy
from tests.unit.delivery.test_protection import MX, tlsa_of

WALKS = 40
STEPS = 40
DOMAINS = ("a.test", "b.test", "c.test")
# what a session is worth, by how the host behaved when it began
WORTH = {"clear": 0, "old": 0, "weak": 0, "other name": 1, "good": 2}
LEAST = {"": 0, "encrypted": 1, "verified": 2}


def contexts(ca):
    made = {}
    for way, name in (("old", MX), ("weak", MX), ("other name", "elsewhere.test"), ("good", MX)):
        files = ca.issue(name)
        made[way] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made[way].load_cert_chain(files.certificate, files.key)
    made["old"].minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        made["old"].maximum_version = ssl.TLSVersion.TLSv1_1
    made["old"].set_ciphers("ALL:@SECLEVEL=0")
    made["weak"].maximum_version = ssl.TLSVersion.TLSv1_2
    made["weak"].set_ciphers("ECDHE-ECDSA-CAMELLIA128-SHA256")
    return made


class Turncoat:
    """An MX host that behaves as `way` says when a connection begins; `came` has how each message came."""

    def __init__(self, tls):
        self.way = "good"
        self.came = {}
        self.connections = 0
        self._tls = tls

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        way, encrypted, recipient = self.way, False, ""
        writer.write(b"220 mx.test\r\n")
        try:
            while line := await reader.readline():
                command = line[:4].upper()
                if command == b"STAR":
                    writer.write(b"220 go\r\n" + (b"nonsense\r\n" if way == "broken" else b""))
                    await writer.start_tls(self._tls[way])
                    encrypted = True
                elif command == b"DATA":
                    writer.write(b"354 go\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    self.came[recipient] = way if encrypted else "clear"
                    writer.write(b"250 taken\r\n")
                elif command == b"EHLO":
                    offered = b"REQUIRETLS" if encrypted else b"HELP" if way == "clear" else b"STARTTLS"
                    writer.write(b"250-mx.test\r\n250-PIPELINING\r\n250 " + offered + b"\r\n")
                else:
                    recipient = line.decode().partition("<")[2].partition("@")[0] if command == b"RCPT" else recipient
                    writer.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")
        except (OSError, KeyError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def asked_for(policy, wanted, least, *, dane, secure):
    """Say which worth a message to a domain asks for, None: it must not go there at all."""
    listed = policy is not None and policy.mx == (MX,)
    if wanted == "yes" and not (secure or listed):
        return None
    if wanted == "yes" or (dane and wanted != "no"):
        return 2
    if policy is not None and policy.mode == "enforce" and wanted != "no":
        return 2 if listed else None
    return LEAST[least]


async def walk(rng, ca):
    """Go one walk; return how many messages came, over how many connections."""
    clock, spool, policies, least = FakeClock(time.time()), Records(), Policies(), ""
    records = {(domain, "MX"): [f"10 {MX}."] for domain in DOMAINS}
    async with Turncoat(contexts(ca)) as host, DnsPeer({**records, (MX, "A"): ["127.0.0.1"]}) as dns:
        signed, tlsa = rng.sample(DOMAINS, rng.choice((0, 2))), f"_{host.port}._tcp.{MX}"
        dane = bool(signed) and rng.random() < 0.7
        if signed:
            dns.secure |= {*signed, MX, tlsa}
        if dane:
            dns.records[tlsa, "TLSA"] = [tlsa_of(ca)]
        settings = config(
            port=host.port, allow_private_targets=True, ca_file=ca.ca_file, tls_memory=rng.choice((0.0, 1e6))
        )
        async with Relay(settings, dns=dns.settings, policies=policies, spool=spool, clock=clock) as relay:
            for step in range(STEPS):
                host.way = rng.choice((*[host.way] * 5, *WORTH, "broken", "good"))
                domain, wanted = rng.choice(DOMAINS), rng.choice(("", "", "", "yes", "no"))
                if rng.random() < 0.2:
                    mode, mx = rng.choice((("enforce", MX), ("enforce", "x.test"), ("testing", MX), ("", "")))
                    policies.standings[domain] = Standing(sts_policy(mx, mode=mode, domain=domain) if mode else None)
                if rng.random() < 0.1:
                    least = rng.choice(list(LEAST))
                    spool.held["tenant", "t"] = msgspec.msgpack.encode(Tenant(name="t", created_at=0.0, tls=least))
                    await clock.advance(10)
                await clock.advance(1)
                made = job(f"{step}@{domain}", domain=domain)
                message = msgspec.structs.replace(made.message, tls_required=wanted)
                outcome = await asyncio.wait_for(relay.attempt(msgspec.structs.replace(made, message=message)), 10)
                came = host.came.get(str(step))
                assert (outcome.results[0].verdict is Verdict.DELIVERED) is (came is not None)
                policy, secure = policies.standings.get(domain, Standing()).policy, domain in signed
                asked = asked_for(policy, wanted, least, dane=dane and secure, secure=secure)
                told = f"step={step} {domain=} {wanted=} {least=} {dane=} {secure=} {policy=}"
                assert came is None or (asked is not None and WORTH[came] >= asked), f"{told} {came=}"
        return len(host.came), host.connections


async def test_no_downgrade_on_any_walk(tmp_path, capfd):
    seed = int(os.environ.get("FAIRLEAD_CRASH_SEED", random.SystemRandom().randrange(1 << 32)))
    rng, ca = random.Random(seed), PrivateCa(tmp_path)
    with capfd.disabled():
        print(f"\ndowngrade: {WALKS} walks, seed {seed}")
    walks = [await walk(rng, ca) for _ in range(WALKS)]
    messages, connections = (sum(each) for each in zip(*walks, strict=True))
    assert messages > 1.2 * connections  # or nothing is kept, and nothing is tested
