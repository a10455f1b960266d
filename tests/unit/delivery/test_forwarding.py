"""Mail that is passed on is sealed; dkimpy, which has no part in it, verifies our sets and makes those of others."""

import base64
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import dkim
import dns.rcode
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mta.accounts import dkim_keys, domains, tenants
from mta.accounts.dkim_keys import Algorithm
from mta.clock import SystemClock
from mta.config import Arc
from mta.delivery import arc, forwarding
from mta.delivery.arc import INSTANCES, Broken, chain_of, key_names, verify
from mta.delivery.forwarding import Sealer
from mta.delivery.published import Published
from mta.delivery.resolver import Resolver
from mta.delivery.signatory import Keys, Wanted
from mta.delivery.signing import Signed, Signer
from mta.lab.clock import FakeClock
from mta.mail import headers
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Message, Origin
from mta.spool.sealing import Keyring
from tests.unit.delivery.chains import of_diffie_hellman
from tests.unit.delivery.peers import DnsPeer

PRIVATE = X25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key()
NOW = 1_700_000_000.0
OURS = "fwd.test"
ORIGINAL = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=elsewhere.test; s=x; h=from; bh=; b=\r\n"
    b"From: A <a@elsewhere.test>\r\n"
    b"To: b@example.test,\r\n\tc@example.test\r\n"
    b"Subject:  two  words \r\n"
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    b"\r\n"
    b"Hello \t there  \r\n\r\nBye\r\n\r\n"
)
RESULTS = (
    b"Authentication-Results: MX.test 1;\r\n"
    b"\tspf=pass smtp.mailfrom=elsewhere.test;\r\n"
    b"\tdkim=pass (good) header.d=e.test\r\n"
)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)


def record_of(public: rsa.RSAPublicKey) -> str:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "v=DKIM1; k=rsa; p=" + base64.b64encode(der).decode()


class InProcess:
    def __init__(self) -> None:
        self._keys = Keys(PRIVATE)

    async def sign(self, wanted: Sequence[Wanted]) -> list[bytes]:
        return [self._keys.sign(each) for each in wanted]


class World:
    """A relay that seals, and a DNS with its key and that of another hop."""

    def __init__(self, spool: LmdbSpool, peer: DnsPeer) -> None:
        self.spool = spool
        self.dns = peer
        self.clock = FakeClock(NOW)
        self.resolver = Resolver(peer.settings, self.clock)
        self.published = Published(spool, self.resolver, self.clock)
        self.signer = Signer(spool, InProcess(), self.clock, self.published)
        settings = Arc.model_validate({"domain": OURS, "trusted": ["mx.test"]})
        self.sealer = Sealer(settings, self.signer, InProcess(), self.resolver, self.clock)
        self.publish("k._domainkey.hop.test", record_of(KEY.public_key()))

    def publish(self, name: str, text: str) -> None:
        pieces = [text[start : start + 255] for start in range(0, len(text), 255)]
        self.dns.records[name, "TXT"] = [" ".join(f'"{each}"' for each in pieces)]

    def texts(self) -> dict[str, list[bytes]]:
        known = {name: values for (name, kind), values in self.dns.records.items() if kind == "TXT"}
        return {name: ["".join(re.findall('"(.*?)"', each)).encode() for each in known[name]] for name in known}

    async def close(self) -> None:
        await self.published.close()
        await self.resolver.close()

    async def seal(self, content: bytes, **changes: object) -> tuple[bytes, str]:
        """Pass a message on; return it as it leaves, and the note."""
        fields = {
            "id": "A" * 22, "tenant": "acme", "sender": "a@elsewhere.test", "origin": Origin.RELAY, "accepted_at": 1.0,
            "release_at": 1.0, "expires_at": 2.0, "segments": (), "entries": 1,
        }  # fmt: skip
        signed = await self.sealer.sign(Message(**(fields | changes)), content)
        return signed.header + content, signed.note

    def judged(self, content: bytes) -> tuple[str, str]:
        """Say what dkimpy and we think of a message's chain; it is the same, but for a chain that has ended."""
        return by_dkimpy(content, self.texts()), by_us(content, self.texts())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    keyring = Keyring([os.urandom(32)])
    spool = LmdbSpool(tmp_path / "spool", keyring, SystemClock(), map_size=1 << 26, reserve=0, sync=False)
    await tenants.create(spool, "acme", 1.0)
    await domains.add(spool, OURS, "acme", 1.0)
    record = await dkim_keys.create(spool, OURS, "s1", Algorithm.RSA2048, PUBLIC, 1.0)
    async with DnsPeer() as peer:
        world = World(spool, peer)
        world.publish(record.name, record.value)
        yield world
        await world.close()
    await spool.close()


def by_dkimpy(content: bytes, texts: Mapping[str, Sequence[bytes]]) -> str:
    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        found = texts.get(name.decode("utf-8", "replace").removesuffix("."), ())
        return found[0] if found else None

    try:
        validity, _, _ = dkim.ARC(content).verify(dnsfunc=txt)
    except (dkim.DKIMException, ValueError, LookupError, TypeError):  # where it trusts what it reads
        return "fail"
    return (validity or b"ended").decode()


def by_us(content: bytes, texts: Mapping[str, Sequence[bytes]], now: float = NOW) -> str:
    fields = list(headers.fields(content[: headers.header_length(content)]))
    chain = chain_of(fields)
    if chain.ended:
        return "ended"
    if not chain.highest and not chain.broken:
        return "none"
    try:
        assert key_names(chain) <= {f"{s}._domainkey.{d}" for s, d in (("s1", OURS), ("k", "hop.test"))}
        verify(chain, fields, content, texts, now)
    except Broken:
        return "fail"
    return "pass"


class _Header(SimpleNamespace):
    """As much of the package authres as dkimpy wants for sealing."""

    @classmethod
    def parse(cls, text: str) -> "_Header":
        service, *results = [each.strip() for each in text.partition(":")[2].split(";")]
        return cls(authserv_id=service, results=[_Result(each) for each in results])


class _Result:
    def __init__(self, text: str) -> None:
        self._text = text
        self.method, _, self.result = text.partition(" ")[0].partition("=")

    def __str__(self) -> str:
        return self._text


def another_hop(content: bytes, cv: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Have dkimpy add a set, as a hop that changes nothing."""
    authres = SimpleNamespace(AuthenticationResultsHeader=_Header, core=SimpleNamespace(SyntaxError=ValueError))
    monkeypatch.setattr(dkim, "authres", authres, raising=False)
    service = b"hop%d.test" % (content.count(b"ARC-Seal:") + 1)
    content = b"Authentication-Results: %b; spf=pass; arc=%b\r\n" % (service, cv.encode()) + content
    sealed = dkim.ARC(content).sign(b"k", b"hop.test", PEM, service, timestamp=int(NOW) - 100)
    assert len(sealed) == 3
    return b"".join(each.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for each in sealed) + content


async def test_a_first_set(world: World) -> None:
    assert world.judged(ORIGINAL) == ("none", "none")
    wire, note = await world.seal(RESULTS + ORIGINAL)
    assert note == "arc:fwd.test:s1 i=1 cv=none"
    assert world.judged(wire) == ("pass", "pass")
    seal, signature, results = wire.removesuffix(RESULTS + ORIGINAL).split(b"\r\nARC-")
    assert seal.startswith(b"ARC-Seal: i=1; a=rsa-sha256; t=1700000000; cv=none;\r\n\td=fwd.test;\r\n\ts=s1;\r\n\tb=")
    assert signature.startswith(
        b"Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; t=1700000000;\r\n\td=fwd.test;"
    )
    assert re.search(rb"h=[^;]*\bdkim-signature\b", signature)
    assert results == (
        b"Authentication-Results: i=1; mx.test;\r\n\t"
        b"spf=pass smtp.mailfrom=elsewhere.test;\r\n\tdkim=pass (good) header.d=e.test\r\n"
    )
    assert all(len(line) <= 78 for line in wire.removesuffix(RESULTS + ORIGINAL).split(b"\r\n"))


async def test_a_chain_over_many_hops(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = ORIGINAL
    for hop in range(1, 9):
        wire = b"Received: from x by y; hop %d\r\n" % hop + wire
        if hop % 2:
            wire = another_hop(wire, "none" if hop == 1 else "pass", monkeypatch)
        else:
            wire, note = await world.seal(RESULTS + wire)
            assert note == f"arc:fwd.test:s1 i={hop} cv=pass"
        assert world.judged(wire) == ("pass", "pass")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Hello", b"Hallo"),
        (b"two", b"one"),
        (b"i=1; hop1.test", b"i=1; hop9.test"),  # who has said what the first hop has seen
        (b"i=1; cv=none", b"i=1; cv=pass"),
        (b"i=2; cv=pass", b"i=2; cv=none"),
        (b"i=3; cv=pass", b"i=4; cv=pass"),
        (b"i=2; cv=pass", b"i=2; cv=pass; h=from"),
    ],
)
async def test_a_chain_that_does_not_hold_is_marked(
    world: World, monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes
) -> None:
    wire = ORIGINAL
    for cv in ("none", "pass", "pass"):
        wire = another_hop(wire, cv, monkeypatch)
    changed = wire.replace(old, new, 1)
    assert changed != wire
    assert world.judged(changed) == ("fail", "fail")
    wire, note = await world.seal(RESULTS + changed)
    instance = 5 if b"i=4" in new else 4
    assert note == f"arc:fwd.test:s1 i={instance} cv=fail"
    # it signs itself alone (RFC 8617 5.1.2), and nobody goes on from there
    alone = wire.removesuffix(RESULTS + changed)
    (own,) = arc.seal_digests([arc.Set(*_set_of(alone))])
    value = re.search(rb"\tb=([^;]*?)\r\nARC-Message", alone, re.DOTALL)
    assert value is not None
    selector = (await domains.find(world.spool, OURS)).selectors[0]
    public = dkim_keys.unseal(selector.sealed, PRIVATE, OURS, "s1").public_key()
    public.verify(base64.b64decode(re.sub(rb"\s", b"", value[1])), own, arc.PKCS1v15(), arc.Prehashed(arc.SHA256()))
    assert by_us(wire, world.texts()) == "ended"
    assert await world.seal(RESULTS + wire) == (
        RESULTS + wire,
        "no sender domain; not sealed: its chain has come to an end",
    )


def _set_of(header: bytes) -> tuple[bytes, bytes, bytes]:
    seal, signature, results = [each.raw for each in headers.fields(header)]
    return results, signature, seal


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda head: head.replace(b"ARC-Seal: i=2", b"X-Seal: i=2"), "not complete"),
        (lambda head: head + b"ARC-Seal: i=2; cv=pass; b=\r\n", "instance 2 is there twice"),
        (lambda head: head + b"ARC-Seal: i=0; cv=pass; b=\r\n", "without an instance"),
        (lambda head: head + b"ARC-Seal: i=51; cv=pass; b=\r\n", "without an instance"),
        (lambda head: head + b"ARC-Seal: nonsense\r\n", "without an instance"),
        (lambda head: head + b"ARC-Authentication-Results: mx.test; none\r\n", "without an instance"),
        (lambda head: head.replace(b"s=k;", b"s=a b;"), "lacks what it needs"),
        (lambda head: head.replace(b"d=hop.test", b"d=" + b"x" * 300), "lacks what it needs"),
        (lambda head: head.replace(b"a=rsa-sha256", b"a=rsa-sha1"), "lacks what it needs"),
        (lambda head: head.replace(b"; a=rsa-sha256", b"; l=1; a=rsa-sha256"), "form that is not accepted"),
        (lambda head: head.replace(b"; a=rsa-sha256", b"; x=1699999999; a=rsa-sha256"), "expired"),
        (lambda head: head.replace(b"; a=rsa-sha256", b"; x=" + b"9" * 5000 + b"; a=rsa-sha256"), "expired"),
        (lambda head: head.replace(b"; a=rsa-sha256", b"; n=" + b"x" * 9000 + b"; a=rsa-sha256"), "instance"),
        (lambda head: head.replace(b"h=from", b"h=arc-seal : from"), "signs other fields"),
        (lambda head: head.replace(b"from", b"fro"), "signs other fields"),
        (lambda head: head.replace(b"c=relaxed/relaxed", b"c=nonsense"), "form that is not accepted"),
    ],
)
def test_what_is_no_chain_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes], why: str
) -> None:
    wire = another_hop(another_hop(ORIGINAL, "none", monkeypatch), "pass", monkeypatch)
    header, body = headers.split(wire)
    texts = {"k._domainkey.hop.test": [record_of(KEY.public_key()).encode()]}
    assert by_us(wire, texts) == "pass"
    changed = change(header)
    assert changed != header
    fields = list(headers.fields(changed))
    with pytest.raises(Broken, match=why):
        verify(chain_of(fields), fields, changed + b"\r\n" + body, texts, NOW)


def absurd(modulus_bits: int, exponent: int) -> str:
    """An RSA key with numbers of these sizes."""
    return record_of(rsa.RSAPublicNumbers(exponent, (1 << modulus_bits) - 1).public_key())


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ([], "no TXT record"),
        ([b"v=DKIM1; p="], "revoked"),
        ([b"v=DKIM1; p=AAAA"], "not an RSA key"),
        ([b"v=DKIM1; p=MAMCAQA="], "malformed key"),
        ([b"v=DKIM1; k=ed25519; p=" + base64.b64encode(bytes(32))], "not an RSA key"),
        ([b"v=DKIM1; k=ed25519; " + record_of(KEY.public_key()).encode().partition(b"k=rsa; ")[2]], "not an RSA key"),
        ([absurd(8192, 65537).encode()], "too big"),
        ([absurd(2048, (1 << 33) + 1).encode()], "too big"),
        ([absurd(512, 65537).encode()], "too small"),
        ([absurd(1024, 65537).encode()], "does not match"),
    ],
)
def test_a_key_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, texts: list[bytes], why: str) -> None:
    wire = another_hop(ORIGINAL, "none", monkeypatch)
    fields = list(headers.fields(wire[: headers.header_length(wire)]))
    with pytest.raises(Broken, match=why):
        verify(chain_of(fields), fields, wire, {"k._domainkey.hop.test": texts}, NOW)


def test_a_key_whose_parameters_take_long_to_check_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(of_diffie_hellman())
    began = time.process_time()
    test_a_key_that_cannot_be_used(monkeypatch, [record], "not an RSA key")
    assert time.process_time() - began < 1.0


def test_a_key_may_be_published_without_its_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """An RSAPublicKey, as RFC 6376 3.6.1 has it, where nearly everybody has a SubjectPublicKeyInfo."""
    der = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    wire = another_hop(ORIGINAL, "none", monkeypatch)
    assert by_us(wire, {"k._domainkey.hop.test": [b"p=" + base64.b64encode(der)]}) == "pass"


BASE: dict[str, bytes] = {}


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["put", "add", "cut"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_change_is_judged_as_dkimpy_judges_it(
    monkeypatch: pytest.MonkeyPatch, at: int, octet: int, how: str
) -> None:
    if not BASE:
        BASE["wire"] = another_hop(another_hop(ORIGINAL, "none", monkeypatch), "pass", monkeypatch)
    wire = BASE["wire"]
    at %= len(wire)
    changed = wire[:at] + (b"" if how == "cut" else bytes([octet])) + wire[at + (how != "add") :]
    texts = {"k._domainkey.hop.test": [record_of(KEY.public_key()).encode()]}
    fields = list(headers.fields(changed[: headers.header_length(changed)]))
    chain = chain_of(fields)
    try:
        verify(chain, fields, changed, texts, NOW)
        holds = bool(chain.sets)
    except Broken:
        holds = False
    bare = changed.count(b"\n") != changed.count(b"\r\n") or changed.count(b"\r") != changed.count(b"\r\n")
    # it takes a bare CR or LF for the end of a line, and passes over fields without an instance
    assert holds == (by_dkimpy(changed, texts) == "pass") or (not holds and (bare or chain.broken))


async def by_hand(world: World, seal_tags: bytes) -> bytes:
    """Make a set whose signatures match, in simple form, whatever its tags say."""
    wire, _ = await world.seal(RESULTS + ORIGINAL)
    selector = (await domains.find(world.spool, OURS)).selectors[0]
    key = dkim_keys.unseal(selector.sealed, PRIVATE, OURS, "s1")
    results, _, _ = _set_of(wire.removesuffix(RESULTS + ORIGINAL))
    body = base64.b64encode(hashlib.sha256(b"Hello \t there  \r\n\r\nBye\r\n").digest())
    unsigned = (
        b"ARC-Message-Signature:  i=1; a=rsa-sha256;\r\n c=simple/simple; d=fwd.test; s=s1; h=from:Subject; bh=%b; b="
        % body
    )
    signed = b"From: A <a@elsewhere.test>\r\nSubject:  two  words \r\n" + unsigned

    def finished(unsigned: bytes, digest: bytes) -> bytes:
        return unsigned + base64.b64encode(key.sign(digest, arc.PKCS1v15(), arc.Prehashed(arc.SHA256()))) + b"\r\n"

    signature = finished(unsigned, hashlib.sha256(signed).digest())
    unsigned = b"ARC-Seal: i=1; a=rsa-sha256; %b; d=fwd.test; s=s1; b=" % seal_tags
    (digest,) = arc.seal_digests([arc.Set(results, signature, unsigned)])
    return finished(unsigned, digest) + signature + results + ORIGINAL


async def test_simple_forms_are_verified(world: World) -> None:
    """The signer of another hop may use them, and dkimpy verifies them."""
    made = await by_hand(world, b"cv=none")
    assert world.judged(made) == ("pass", "pass")
    assert world.judged(made.replace(b"two  words", b"two words")) == ("fail", "fail")


@pytest.mark.parametrize("seal_tags", [b"cv=pass", b"cv=NONE", b"t=1", b"cv=none; h=from"])
async def test_a_seal_that_matches_and_says_what_cannot_be(world: World, seal_tags: bytes) -> None:
    assert by_us(await by_hand(world, seal_tags), world.texts()) == "fail"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (ORIGINAL, "no authentication results that are trusted"),
        (RESULTS.replace(b"MX.test", b"evil.test") + ORIGINAL, "no authentication results that are trusted"),
        (RESULTS.replace(b"MX.test 1;", b"(c) mx.test;") + ORIGINAL, "no authentication results that are trusted"),
        (RESULTS.replace(b"Results:", b"Results :") + ORIGINAL, "no authentication results that are trusted"),
        (RESULTS.replace(b": MX", b":\vMX") + ORIGINAL, "no authentication results that are trusted"),
        (RESULTS.replace(b"test 1;", b"test\f;") + ORIGINAL, "no authentication results that are trusted"),
        (RESULTS.replace(b"spf", b"x" * 9000) + ORIGINAL, "no authentication results that are trusted"),
        (b"Authentication-Results: mx.test;\r\n" + ORIGINAL, "no authentication results that are trusted"),
        (RESULTS + b"no field\r\n" + ORIGINAL, "malformed header"),
        (RESULTS + b"ARC-Seal: nonsense\r\n" + ORIGINAL, "its chain is none: a field without an instance from 1 to 50"),
        (RESULTS + b"ARC-Seal: i=50; cv=pass\r\n" + ORIGINAL, "its chain has come to an end"),
    ],
)
async def test_what_is_not_sealed_says_why(world: World, content: bytes, note: str) -> None:
    assert await world.seal(content) == (content, f"no sender domain; not sealed: {note}")


async def test_results_of_one_service_are_brought_together(world: World) -> None:
    several = b"Authentication-Results: mx.test; spf=pass;\r\nX: y\r\nAuthentication-Results: other.test; spf=fail\r\n"
    wire, _ = await world.seal(several + RESULTS + ORIGINAL)
    assert b"ARC-Authentication-Results: i=1; mx.test;\r\n\tspf=pass;\r\n\tspf=pass smtp.mailfrom" in wire
    assert b"spf=fail" not in wire.removesuffix(several + RESULTS + ORIGINAL)
    assert world.judged(wire) == ("pass", "pass")


async def test_only_mail_that_is_passed_on_is_sealed(world: World) -> None:
    for origin in (Origin.SUBMISSION, Origin.HTTP, Origin.DSN):
        assert await world.seal(RESULTS + ORIGINAL, origin=origin) == (RESULTS + ORIGINAL, "no sender domain")
    wire, note = await world.seal(RESULTS + ORIGINAL, sign_domain=OURS)
    assert note == "fwd.test:s1"
    assert wire.startswith(b"DKIM-Signature: ")
    assert b"ARC-" not in wire


async def test_a_domain_without_an_rsa_key_does_not_seal(world: World) -> None:
    await domains.add(world.spool, "other.test", "acme", 1.0)
    await dkim_keys.create(world.spool, "other.test", "e1", Algorithm.ED25519, PUBLIC, 1.0)
    for domain in ("other.test", "unknown.test"):
        settings = Arc.model_validate({"domain": domain, "trusted": ["mx.test"]})
        world.sealer = Sealer(settings, world.signer, InProcess(), world.resolver, world.clock)
        wire, note = await world.seal(RESULTS + ORIGINAL)
        assert (wire, note) == (
            RESULTS + ORIGINAL,
            f"no sender domain; not sealed: {domain} has no rsa2048 key for acme",
        )


async def test_a_tenant_has_nothing_sealed_by_a_domain_of_another(world: World) -> None:
    await tenants.create(world.spool, "other", 1.0)
    wire, note = await world.seal(RESULTS + ORIGINAL, tenant="other")
    assert (wire, note) == (
        RESULTS + ORIGINAL,
        "no sender domain; not sealed: fwd.test has no rsa2048 key for other",
    )


async def test_a_chain_is_left_as_it_is_while_the_dns_does_not_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = RESULTS + another_hop(ORIGINAL, "none", monkeypatch)
    world.dns.rcodes["k._domainkey.hop.test"] = dns.rcode.SERVFAIL
    why = "no sender domain; not sealed: no answer from the DNS for the keys of its chain"
    assert await world.seal(wire) == (wire, why)
    world.dns.rcodes.clear()
    world.dns.silent.add("k._domainkey.hop.test")
    monkeypatch.setattr(forwarding, "PATIENCE", 0.1)
    await world.clock.advance(10)
    assert await world.seal(wire) == (wire, why)


async def test_fifty_hops_are_sealed_and_no_more(world: World) -> None:
    wire = ORIGINAL
    for hop in range(1, INSTANCES + 1):
        wire, note = await world.seal(RESULTS + wire)
        assert note == f"arc:fwd.test:s1 i={hop} cv={'none' if hop == 1 else 'pass'}"
    assert by_us(wire, world.texts()) == "pass"
    assert (await world.seal(RESULTS + wire))[1].endswith("its chain has come to an end")


async def test_a_large_message_is_sealed(world: World) -> None:
    content = RESULTS + ORIGINAL + b"a line of text   \r\n" * 10_000
    wire, _ = await world.seal(content)
    assert world.judged(wire) == ("pass", "pass")
    signed = Signed(*await world.seal(wire.replace(b"a line", b"a  line", 1)))
    assert signed.note == "arc:fwd.test:s1 i=2 cv=pass"  # relaxed: blanks are one


@pytest.mark.parametrize(
    "field",
    [
        b"ARC-Seal: i=1; cv=none; a=rsa-sha256; b=\r\n",
        b"ARC-Authentication-Results: i=7;\r\n",
        b"ARC-Message-Signature:" + b"\r\n a=b;" * 500 + b"\r\n",
        b"Authentication-Results: mx.test " + b" 1" * 500 + b"\r\n",
        b"Authentication-Results: " + b" " * 60_000 + b"\r\n",
        b"Authentication-Results: mx.test" + b" " * 30_000 + b"1" * 30_000 + b"\r\n",
        b"DKIM-Signature:" + b"\r\n\t x" * 10_000 + b"\r\n",
    ],
    ids=range(7),
)
async def test_a_hostile_header_takes_linear_time(world: World, field: bytes) -> None:
    content = RESULTS + field * (250_000 // len(field)) + ORIGINAL
    began = time.process_time()
    await world.seal(content)
    assert time.process_time() - began < 1.0
