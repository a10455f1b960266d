"""What is wrong with a certificate chain, by TLSA records (RFC 7672 3.1)."""

import hashlib
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mta.delivery.certificates import CHAIN_LIMIT, by_tlsa
from mta.delivery.der import cut_public_key, is_sequence
from mta.delivery.policy import Failure, Tlsa
from tests.unit.delivery.chains import CLIENT, HOST, NOW, Made, authority, builder, server

ROOT = authority()
MIDDLE = authority("middle", ROOT)
LEAF = server(MIDDLE, HOST)
WHOLE = (LEAF, MIDDLE, ROOT)
KINDS = [(selector, matching_type) for selector in (0, 1) for matching_type in (0, 1, 2)]
NO_MATCH = Failure.VALIDATION_FAILURE, "certificate of mx.example.com matches none of its TLSA records"


def tlsa(made, usage, selector=1, matching_type=1):
    """The record that is published for a certificate, made by other means than those under test."""
    data = made.der
    if selector:
        data = made.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if matching_type:
        data = hashlib.new("sha256" if matching_type == 1 else "sha512", data).digest()
    return Tlsa(usage, selector, matching_type, data)


def judge(made, *records, names=(HOST,), now=NOW):
    flaw = by_tlsa([each.der for each in made], records, names, now)
    return flaw and (flaw.failure, flaw.text)


@pytest.mark.parametrize("kind", KINDS)
def test_dane_ee_looks_at_the_key_and_at_nothing_else(kind):
    for made in (server(None, "other.example", days=(-3, -2)), server(ROOT, usages=[CLIENT])):
        assert judge([made], tlsa(made, 3, *kind)) is None
        assert judge([made, ROOT], tlsa(LEAF, 3, *kind), tlsa(made, 3, *kind)) is None
        assert judge([made, LEAF], tlsa(LEAF, 3, *kind)) == NO_MATCH  # whose key was not proved
        assert judge([made], tlsa(LEAF, 3, *kind)) == NO_MATCH


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("anchor", [MIDDLE, ROOT])
def test_dane_ta_is_an_authority_in_the_chain(kind, anchor):
    assert judge(WHOLE, tlsa(anchor, 2, *kind)) is None
    assert judge((LEAF, ROOT, authority("of no use"), MIDDLE), tlsa(anchor, 2, *kind)) is None
    assert judge(WHOLE, tlsa(authority(), 2, *kind)) is not None
    assert judge((server(None, HOST),), tlsa(anchor, 2, *kind)) is not None
    if kind != (0, 0):
        assert judge((LEAF,), tlsa(anchor, 2, *kind)) == NO_MATCH  # it has to be sent
        assert judge(WHOLE, tlsa(LEAF, 2, *kind)) == NO_MATCH  # a server is no authority
        assert judge((LEAF, *[ROOT] * CHAIN_LIMIT, MIDDLE), tlsa(MIDDLE, 2, *kind)) == NO_MATCH


def test_dane_ta_that_is_whole_in_the_dns_need_not_be_sent():
    assert judge((LEAF, MIDDLE), tlsa(ROOT, 2, 0, 0)) is None
    assert judge((LEAF,), tlsa(MIDDLE, 2, 0, 0)) is None
    failure, text = judge((LEAF,), tlsa(ROOT, 2, 0, 0))
    assert (failure, "not trusted" in text) == (Failure.CERTIFICATE_NOT_TRUSTED, True)
    assert judge((LEAF,), Tlsa(2, 0, 0, b"0\3abc"), tlsa(MIDDLE, 2, 0, 0)) is None
    assert judge((LEAF,), Tlsa(2, 0, 0, b"0\3abc"))[0] is Failure.VALIDATION_FAILURE


def test_dane_ta_that_only_stands_in_the_chain_says_nothing():
    """Authorities are public: who shows them besides a certificate of his own has shown nothing."""
    forged = authority("middle", authority("root"))
    for made in (server(None, HOST), server(authority("stranger"), HOST), server(forged, HOST)):
        for others in ((MIDDLE, ROOT), (forged, MIDDLE, ROOT), (MIDDLE, forged, ROOT)):
            for anchor in (MIDDLE, ROOT):
                failure, text = judge((made, *others), tlsa(anchor, 2))
                assert failure is Failure.CERTIFICATE_NOT_TRUSTED
                assert text.startswith("certificate of mx.example.com is not trusted: ")


def test_dane_ta_looks_at_dates_and_names():
    expired = server(MIDDLE, HOST, days=(-3, -2))
    assert judge((expired, MIDDLE), tlsa(MIDDLE, 2)) == (
        Failure.CERTIFICATE_EXPIRED,
        "certificate of mx.example.com expired on 2026-05-26",
    )
    of_domain = server(MIDDLE, "example.com", subject=HOST)
    mismatch = Failure.CERTIFICATE_HOST_MISMATCH, "certificate of mx.example.com is for example.com"
    assert judge((of_domain, MIDDLE), tlsa(MIDDLE, 2)) == mismatch
    assert judge((of_domain, MIDDLE), tlsa(MIDDLE, 2), names=(HOST, "example.com")) is None
    by_common_name = server(MIDDLE, subject=HOST)  # RFC 7672 3.2.2, where there is no other name
    assert judge((by_common_name, MIDDLE), tlsa(MIDDLE, 2)) is None
    assert judge((by_common_name, MIDDLE), tlsa(MIDDLE, 2), names=("example.com",))


def test_one_good_record_is_enough():
    stranger = authority("stranger")
    assert judge(WHOLE, tlsa(stranger, 3), tlsa(stranger, 2), tlsa(MIDDLE, 2)) is None
    assert judge((LEAF, MIDDLE, stranger), tlsa(stranger, 2), tlsa(MIDDLE, 2)) is None
    assert judge((server(MIDDLE, "x"), MIDDLE), tlsa(MIDDLE, 2), tlsa(LEAF, 3))[0] is Failure.CERTIFICATE_HOST_MISMATCH


def test_two_anchors_with_the_same_name_are_tried_each():
    """As when an authority has a new key, and the old certificates are still around."""
    new = authority("middle", ROOT)
    for order in ((MIDDLE, new), (new, MIDDLE)):
        for made in (LEAF, server(new, HOST)):
            assert judge((made, *order), tlsa(MIDDLE, 2), tlsa(new, 2)) is None
            assert judge((made,), *(tlsa(each, 2, 0, 0) for each in order)) is None


@pytest.mark.parametrize("usage", [0, 1, 4, 255])
def test_other_usages_match_nothing(usage):
    assert judge(WHOLE, tlsa(LEAF, usage), tlsa(MIDDLE, usage), tlsa(ROOT, usage, 0, 0)) == NO_MATCH


def test_no_certificate_at_all():
    assert judge((), tlsa(LEAF, 3)) == NO_MATCH
    failure, text = judge((), tlsa(MIDDLE, 2, 0, 0))
    assert (failure, "there is none" in text) == (Failure.VALIDATION_FAILURE, True)


RECORD = st.builds(Tlsa, st.integers(0, 4), st.integers(0, 2), st.integers(0, 3), st.binary(max_size=70))
SHOWN = st.one_of(st.sampled_from([each.der for each in WHOLE]), st.binary(max_size=80))


@example([b""], [Tlsa(3, 0, 0, b"")])
@given(st.lists(SHOWN, max_size=4), st.lists(RECORD, max_size=4))
@settings(deadline=None)
def test_dane_records_of_chance_match_nothing_and_nothing_raises(shown, records):
    assert by_tlsa(shown, records, (HOST,), NOW) is not None


@given(st.sampled_from(KINDS), st.integers(0, 2), st.integers(0), st.integers(1, 255))
@settings(deadline=None)
def test_a_record_with_an_octet_changed_does_not_match(kind, whose, at, flip):
    usage = 2 if whose else 3
    good = tlsa(WHOLE[whose], usage, *kind)
    data = bytearray(good.data)
    data[at % len(data)] ^= flip
    assert judge(WHOLE, good) is None
    if usage == 2 and kind == (0, 0):
        return  # such a record is the anchor, whose own signature nobody looks at
    assert judge(WHOLE, Tlsa(usage, *kind, bytes(data))) is not None


def test_many_records_and_a_long_chain_cost_little():
    many = [f"{number}.x" for number in range(10_000)]
    made = server(MIDDLE, *many)
    stranger = [authority("middle", ROOT) for _ in range(20)]
    records = [tlsa(each, 2, *kind) for each in stranger for kind in KINDS]
    began = time.process_time()
    assert judge((made, *stranger * 20), *records)[0] is Failure.CERTIFICATE_NOT_TRUSTED
    assert judge((made, MIDDLE), *records) is not None
    assert time.process_time() - began < 2


def test_many_names_under_many_authorities_that_limit_names_cost_little():
    """Red when names are read or compared anew for each authority: the event loop stands still meanwhile."""
    outside = x509.NameConstraints(None, [x509.DNSName(f"{number}.y") for number in range(100)])
    root = authority(extensions=[outside])
    anchors = [root]
    for number in range(20):  # the same key in another certificate
        made = builder("root", root.certificate.subject, root.key.public_key(), (-9, number + 1))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made = made.add_extension(outside, critical=True)
        anchors.append(Made(made.sign(root.key, hashes.SHA256()), root.key))
    shown = server(root, *[f"{number}.x" for number in range(10_000)])
    records = [tlsa(each, 2, 0, 0) for each in anchors]

    def seconds(*several: Tlsa) -> float:
        began = time.process_time()
        failure, _ = judge([shown], *several, names=(HOST, "base.example.net", "example.org"))
        assert failure is Failure.CERTIFICATE_HOST_MISMATCH
        return time.process_time() - began

    one, many = (min(seconds(*several) for _ in range(5)) for several in (records[:1], records))
    assert many < 5 * one


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ec", "ed25519", "rsa"],
)
def test_the_public_key_is_cut_out_as_it_stands(key):
    made = server(ROOT, HOST, public_key=key.public_key())
    expected = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert cut_public_key(made.der) == expected
    assert is_sequence(expected)
    # a certificate of version 1 has no version
    unversioned = made.certificate.tbs_certificate_bytes.replace(bytes.fromhex("a003020102"), b"", 1)
    inner = unversioned[2 + (unversioned[1] & 0x7F) :]
    signed = b"\x30\x82" + len(inner).to_bytes(2, "big") + inner
    assert cut_public_key(b"\x30\x82" + len(signed).to_bytes(2, "big") + signed) == expected


@given(st.binary(max_size=60) | st.tuples(st.integers(0, 2000), st.integers(1, 255)))
@settings(deadline=None)
def test_what_is_no_certificate_has_no_key_to_cut_out(odd):
    if isinstance(odd, tuple):
        at, flip = odd
        changed = bytearray(LEAF.der)
        changed[at % len(changed)] ^= flip
        odd = bytes(changed)
    try:
        assert is_sequence(cut_public_key(odd))
    except ValueError:
        return
    assert is_sequence(odd)


@pytest.mark.parametrize(
    "odd", [b"", b"\x30", b"\x30\x80", b"\x30\x80\0\0", b"\x30\x01", b"\x30\0\0", b"\x31\0", b"\x30\x84\xff\xff"]
)
def test_what_is_not_one_sequence(odd):
    assert not is_sequence(odd)
    with pytest.raises(ValueError, match=r"element|sequence"):
        cut_public_key(odd)
