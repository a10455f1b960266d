import hashlib
import os
import re
from itertools import pairwise

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from mta.accounts import dkim_keys, domains, rotation, tenants
from mta.accounts.dkim_keys import Algorithm
from mta.clock import SystemClock
from mta.delivery import canonical, signing
from mta.delivery.canonical import body_hash
from mta.delivery.signatory import Keys, SigningError
from mta.delivery.signing import Signed, Signer
from mta.spool.interface import Unavailable
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Message, Origin
from mta.spool.sealing import Keyring

PRIVATE = X25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key()
NOW = 1_700_000_000.5
HEADER = (
    b"Received: from x by y; now\r\n"
    b"From: A <a@example.com>\r\n"
    b"To: b@example.org,\r\n\tc@example.org\r\n"
    b"Subject:  two  words \r\n"
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
)
CONTENT = HEADER + b"\r\nHello \t there  \r\n\r\nBye\r\n\r\n\r\n"


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def now(self):
        return NOW

    def monotonic(self):
        return self.seconds


class Watched:
    """A spool whose reads of records are counted, and fail when it is told so."""

    def __init__(self, spool):
        self.spool = spool
        self.reads = 0
        self.failing = False

    async def get_record(self, kind, name):
        self.reads += 1
        if self.failing:
            raise Unavailable("closed")
        return await self.spool.get_record(kind, name)


@pytest.fixture
async def spool(tmp_path):
    keyring = Keyring([os.urandom(32)])
    spool = LmdbSpool(tmp_path / "spool", keyring, SystemClock(), map_size=1 << 26, reserve=0, sync=False)
    await tenants.create(spool, "acme", 1.0)
    await domains.add(spool, "example.com", "acme", 1.0)
    yield spool
    await spool.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watched(spool):
    return Watched(spool)


class InProcess:
    """The keys at hand, as the process has them."""

    def __init__(self, keys):
        self.keys = keys

    async def sign(self, wanted):
        return [self.keys.sign(each) for each in wanted]


class NobodyLooks:
    """Nothing new is seen in the DNS."""

    async def look(self, domain):
        return False


@pytest.fixture
def signer(watched, clock):
    return Signer(watched, InProcess(Keys(PRIVATE)), clock, NobodyLooks())


async def seen(spool, troubles):
    """Have the DNS looked at: what is wrong with a selector's record, by its name."""

    def looked(domain):
        found = {each.dns_value: troubles[each.name] for each in domain.selectors if each.name in troubles}
        return rotation.looked(domain, found, 2.0)

    await domains.change(spool, "example.com", looked)


@pytest.fixture
async def published(spool):
    """The DNS as it should be after two keys were made."""
    made = [
        await dkim_keys.create(spool, "example.com", "s1", Algorithm.RSA2048, PUBLIC, 1.0),
        await dkim_keys.create(spool, "example.com", "s2", Algorithm.ED25519, PUBLIC, 1.0),
    ]
    await seen(spool, {"s1": "", "s2": ""})
    return {each.name: each.value for each in made}


def message(**changes):
    fields = {
        "id": "A" * 22, "tenant": "acme", "sender": "a@example.com", "origin": Origin.RELAY, "accepted_at": 1.0,
        "release_at": 1.0, "expires_at": 2.0, "segments": (), "entries": 1, "sign_domain": "example.com",
    }  # fmt: skip
    return Message(**(fields | changes))


def verifies(content, index, dns):
    def txt(name, timeout=5):
        return dns[name.decode().removesuffix(".")].encode()

    try:
        return dkim.DKIM(content).verify(index, dnsfunc=txt)
    except dkim.ValidationError:  # how dkimpy says that the body is another
        return False


def tags(field):
    text = re.sub(rb"\s", b"", field.partition(b":")[2])
    return dict(tag.split(b"=", 1) for tag in text.split(b";"))


async def sign_and_verify(signer, content, dns):
    signed = await signer.sign(message(), content)
    assert signed.note == "example.com:s1,s2"
    wire = signed.header + content + (b"" if content.endswith(b"\r\n") else b"\r\n")
    assert [verifies(wire, index, dns) for index in (0, 1)] == [True, True]
    return signed


def fields_of(header):
    return [field for field in re.split(rb"(?<=\r\n)(?=DKIM-Signature:)", header) if field]


async def test_both_algorithms_verify(signer, published):
    signed = await sign_and_verify(signer, CONTENT, published)
    rsa, ed25519 = (tags(field) for field in fields_of(signed.header))
    assert (rsa[b"a"], rsa[b"s"]) == (b"rsa-sha256", b"s1")
    assert (ed25519[b"a"], ed25519[b"s"]) == (b"ed25519-sha256", b"s2")
    for each in (rsa, ed25519):
        assert (each[b"v"], each[b"c"], each[b"d"]) == (b"1", b"relaxed/relaxed", b"example.com")
        assert each[b"t"] == b"1700000000"
        assert b"l" not in each


async def test_lines_are_short_and_end_with_crlf(signer, published):
    signed = await signer.sign(message(), CONTENT)
    lines = signed.header.split(b"\r\n")
    assert lines.pop() == b""
    assert all(len(line) <= 78 and b"\n" not in line for line in lines)


async def test_fields_that_must_not_be_added_are_named_once_more(signer, published):
    signed = await signer.sign(message(), CONTENT)
    names = tags(fields_of(signed.header)[0])[b"h"].split(b":")
    assert [names.count(name) for name in (b"from", b"to", b"subject", b"date", b"message-id")] == [2, 2, 2, 2, 1]
    assert b"received" not in names
    for added in (b"From: evil@example.com\r\n", b"To: x@y\r\n", b"Subject: x\r\n", b"Date: x\r\n"):
        assert not verifies(signed.header + added + CONTENT, 0, published)
        assert not verifies(signed.header + CONTENT.replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n", 1), 1, published)
    assert verifies(b"Received: on the way\r\nX-Seen: yes\r\n" + signed.header + CONTENT, 0, published)


async def test_changes_break_the_signature(signer, published):
    signed = await signer.sign(message(), CONTENT)
    for old, new in ((b"Hello", b"Hallo"), (b"two", b"three"), (b"<1@", b"<2@"), (b"c@example.org", b"d@example.org")):
        for index in (0, 1):
            assert not verifies(signed.header + CONTENT.replace(old, new), index, published)


@pytest.mark.parametrize(
    "content",
    [
        HEADER + b"\r\n",
        HEADER,
        HEADER + b"\r\n\r\n\r\n",
        HEADER + b"\r\n \t \r\n",
        HEADER + b"\r\nno end of line",
        HEADER + b"\r\n.\r\n..dots\r\n",
        HEADER + b"\r\n" + b"x" * 998 + b"\r\n" + b"y" * 10_000 + b"\r\n",
        HEADER + b"\r\n" + "grüße\r\n".encode() + b"\xff\xfe\r\n",
        HEADER + b"\r\n" + (b"  an \t indented line \r\n" * 20_000),
        b"From: a@example.com\r\n\r\nNeither To nor Subject\r\n",
        b"from:a@example.com\r\nSUBJECT:\r\n folded\r\n\t \r\n at will\r\n\r\nx\r\n",
        b"Subject: one\r\nFrom: a@example.com\r\nSubject: two\r\nTo: b@c\r\nTo: d@e\r\nSubject: three\r\n\r\nx\r\n",
        b"From: a@example.com\r\nSubject: \xc3\xbc\r\nX-Empty:\r\nX-Blank: \r\n \r\n\r\nx\r\n",
        b"From: a@example.com\r\nList-Unsubscribe: <x>\r\nList-Id: <y>\r\n\r\nx\r\n",
        b"DKIM-Signature: v=1; a=x; b=y\r\nFrom: a@example.com\r\n\r\nsigned before\r\n",
    ],
    ids=range(15),
)
async def test_odd_messages_verify(signer, published, content):
    await sign_and_verify(signer, content, published)


async def test_every_one_of_repeated_fields_is_signed(signer, published):
    content = b"Subject: one\r\nFrom: a@example.com\r\nSubject: two\r\n\r\nx\r\n"
    signed = await signer.sign(message(), content)
    for old in (b"one", b"two"):
        assert not verifies(signed.header + content.replace(old, b"new"), 0, published)


async def test_one_click_unsubscribe_is_signed(signer, published):
    # RFC 8058 4
    content = HEADER + b"List-Unsubscribe: <https://x>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n"
    signed = await signer.sign(message(), content)
    names = tags(fields_of(signed.header)[0])[b"h"].split(b":")
    assert {b"list-unsubscribe", b"list-unsubscribe-post"} <= set(names)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"To: b@example.org\r\n\r\nx\r\n", "no From field"),
        (b" From: a@example.com\r\n\r\nx\r\n", "malformed header"),
        (b"From: a@example.com\r\nnot a field\r\nTo: x\r\n\r\nx\r\n", "malformed header"),
        (b"From a@example.com Mon\r\nFrom: a@example.com\r\n\r\nx\r\n", "malformed header"),
        (b"\r\nFrom: a@example.com\r\n\r\nx\r\n", "no From field"),
        (b"From: a@example.com\r\n" + b"To: x\r\n" * 1000 + b"\r\n", "more than 500 header fields to sign"),
        (b"From: a@example.com\r\n" + b"X: x\r\n" * 100_000 + b"\r\n", "header of more than 262144 octets"),
    ],
)
async def test_header_that_cannot_be_signed(signer, published, content, note):
    assert await signer.sign(message(), content) == Signed(b"", note)


async def test_unsigned_is_never_silent(signer, spool):
    assert await signer.sign(message(sign_domain=""), CONTENT) == Signed(b"", "no sender domain")
    assert await signer.sign(message(), CONTENT) == Signed(b"", "no key for example.com")
    assert await signer.sign(message(sign_domain="gone.test"), CONTENT) == Signed(b"", "gone.test is not registered")


async def test_a_domain_signs_for_its_tenant_alone(signer, published):
    signed = await signer.sign(message(tenant="other"), CONTENT)
    assert signed == Signed(b"", "example.com belongs to another tenant")


async def test_keys_that_cannot_be_opened_defer(spool, published, clock, caplog):
    signer = Signer(spool, InProcess(Keys(X25519PrivateKey.generate())), clock, NobodyLooks())
    for _ in range(2):
        with pytest.raises(SigningError, match="cannot be opened with this key file"):
            await signer.sign(message(), CONTENT)
    assert caplog.text.count("cannot sign") == 1
    assert (await signer.sign(message(tenant="other"), CONTENT)).header == b""


async def test_record_that_cannot_be_read_defers(signer, spool, watched, clock):
    watched.failing = True
    with pytest.raises(SigningError, match="cannot be read"):
        await signer.sign(message(), CONTENT)
    watched.failing = False
    await spool.put_record(domains.KIND, "example.com", b"\xc1 no record", replace=True)
    with pytest.raises(SigningError, match="cannot be read"):
        await signer.sign(message(), CONTENT)


async def test_new_keys_are_taken_up_within_a_second(signer, spool, watched, clock):
    assert (await signer.sign(message(), CONTENT)).header == b""
    record = await dkim_keys.create(spool, "example.com", "ed", Algorithm.ED25519, PUBLIC, 1.0)
    assert (await signer.sign(message(), CONTENT)).header == b""
    clock.seconds += 1.0
    signed = await signer.sign(message(), CONTENT)
    assert signed.note == "example.com:ed"
    assert verifies(signed.header + CONTENT, 0, {record.name: record.value})
    assert watched.reads == 2


async def test_keys_that_the_dns_does_not_show_do_not_sign(signer, spool, clock):
    for selector in ("s1", "s2"):
        await dkim_keys.create(spool, "example.com", selector, Algorithm.ED25519, PUBLIC, 1.0)
    assert (await signer.sign(message(), CONTENT)).note == "example.com:s1"  # the first, which nobody has looked for
    for troubles, note in (
        ({"s1": "no TXT record", "s2": ""}, "example.com:s2"),
        ({"s1": "", "s2": ""}, "example.com:s1,s2"),
        ({"s2": "another key (p=)"}, "example.com:s1"),
        ({"s1": "no TXT record"}, "example.com:s1,s2 (not in DNS)"),
    ):
        await seen(spool, troubles)
        clock.seconds += 1.0
        signed = await signer.sign(message(), CONTENT)
        assert (signed.note, len(fields_of(signed.header))) == (note, note.count("s1") + note.count("s2"))


async def test_what_was_waited_for_counts_at_once(watched, spool, clock):
    class Looks:
        async def look(self, domain):
            await seen(spool, {"s1": "no TXT record", "s2": ""})
            return True

    for selector in ("s1", "s2"):
        await dkim_keys.create(spool, "example.com", selector, Algorithm.ED25519, PUBLIC, 1.0)
    signer = Signer(watched, InProcess(Keys(PRIVATE)), clock, Looks())
    assert (await signer.sign(message(), CONTENT)).note == "example.com:s2"


async def test_keys_are_opened_once(signer, published, clock, monkeypatch):
    opened = []
    real = dkim_keys.unseal
    monkeypatch.setattr(dkim_keys, "unseal", lambda *given: opened.append(given) or real(*given))
    for _ in range(3):
        await signer.sign(message(), CONTENT)
        clock.seconds += 1.0
    assert len(opened) == 2


async def test_the_domain_longest_unchecked_leaves_a_full_cache(signer, watched, clock, monkeypatch):
    monkeypatch.setattr(signing, "_DOMAINS_CACHED", 2)
    await signer.sign(message(sign_domain="a.test"), CONTENT)
    await signer.sign(message(sign_domain="b.test"), CONTENT)
    clock.seconds += 1.0
    for name, reads in (("a.test", 3), ("c.test", 4), ("a.test", 4), ("c.test", 4), ("b.test", 5)):
        await signer.sign(message(sign_domain=name), CONTENT)
        assert watched.reads == reads


def reference(body):
    # SMTP ends the last line, if the content does not; dkimpy then sees it ended
    ended = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    return hashlib.sha256(Relaxed.canonicalize_body(ended)).digest()


BODIES = st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"\r", b"\n", b"a", b"=20", b"\xff"])).map(b"".join)


@given(BODIES)
def test_body_is_hashed_as_dkimpy_does(body):
    assert body_hash(b"any" + body, 3) == reference(body)


@given(BODIES, st.integers(2, 8))
def test_body_is_hashed_the_same_in_pieces(body, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "PIECE", size)
        assert body_hash(body, 0) == reference(body)


@given(st.binary(max_size=400))
def test_pieces_are_small_and_complete(body):
    body = body.replace(b"a", b"\r\n").replace(b"b", b"\r\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "PIECE", 16)
        pieces = list(canonical._pieces(body, 0))
    assert b"".join(pieces) == body
    for piece in pieces:
        assert len(piece) <= 16 or b"\r\n" not in piece[:-2]
    # none is cut short without need, so that there are few
    assert all(len(one) + len(two) > 14 for one, two in pairwise(pieces[:-1]))


@pytest.mark.parametrize(
    "body",
    [
        b" " * (4 << 20),
        b" \t" * (2 << 20) + b"\r\n",
        (b" " * 990 + b"\r\n") * 4000,
        b"\r\n" * (2 << 20) + b"x",
        b"\r" * (4 << 20),
    ],
    ids=["one line of blanks", "blanks and tabs", "lines of blanks", "empty lines", "bare CR"],
)
def test_hostile_body_takes_linear_time(body):
    # one that went back over runs of blanks would take hours over these
    assert len(body_hash(body, 0)) == 32
