"""SPF records as text: what is read, what is refused, and what macros become (the examples of RFC 7208 7.4)."""

import ipaddress
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mta.doctor.spf_record import Asked, Mechanism, Record, SpfError, expand, parse, select

ASKED = Asked(
    address=ipaddress.ip_address("192.0.2.3"),
    sender="strong-bad@email.example.com",
    domain="email.example.com",
    helo="mail.example.com",
)


def test_every_term_is_read_with_its_qualifier_value_and_prefixes():
    text = (
        b"v=spf1 a mx/24 -a:Mail.Example.com/26//64 ~mx:%{d}.x.test//48 ?ptr ptr:x.test include:i.test"
        b" exists:%{i}.e.test ip4:192.0.2.1/24 ip6:2001:db8::1/32 +all redirect=r.test other=%{d}/x exp=why.test"
    )
    found = parse(text)
    network = ipaddress.ip_network
    assert found == Record(
        (
            Mechanism("+", "a"),
            Mechanism("+", "mx", prefixes=(24, 128)),
            Mechanism("-", "a", "Mail.Example.com", prefixes=(26, 64)),
            Mechanism("~", "mx", "%{d}.x.test", prefixes=(32, 48)),
            Mechanism("?", "ptr"),
            Mechanism("+", "ptr", "x.test"),
            Mechanism("+", "include", "i.test"),
            Mechanism("+", "exists", "%{i}.e.test"),
            Mechanism("+", "ip4", network=network("192.0.2.0/24")),
            Mechanism("+", "ip6", network=network("2001:db8::/32")),
            Mechanism("+", "all"),
        ),
        "r.test",
    )


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ("ip4", "needs an address or a network"),
        ("ip4:", "needs an address or a network"),
        ("ip4:192.0.2.0/33", "of its family"),
        ("ip4:192.0.2.0/024", "needs an address or a network"),
        ("ip4:2001:db8::1", "of its family"),
        ("ip6:192.0.2.1", "of its family"),
        ("ip6:fe80::1%eth0", "needs an address or a network"),
        ("all:x.test", "all has no value"),
        ("include", "needs a domain"),
        ("include:", "needs a domain name"),
        ("include:com", "needs a domain name"),
        ("include:x.123", "needs a domain name"),
        ("include:x.-test", "needs a domain name"),
        ("exists/24", "needs a domain"),
        ("a:x.test/33", "too long"),
        ("a//129", "too long"),
        ("a/", "malformed prefix"),
        ("a:x.test/024", "needs a domain name"),
        ("ptr/24", "has no prefix length"),
        ("a:%{x}.test", "malformed macro"),
        ("a:%d.test", "malformed macro"),
        ("a:%{d0}.test", "keeps no part"),
        ("exists:%{c}.test", "for explanations alone"),
        ("exp=%{r}.test", "for explanations alone"),
        ("other=%{t}", "for explanations alone"),
        ("other=%", "malformed macro"),
        ("mechanism", "no mechanism that there is"),
        ("-redirect=x.test", "no mechanism that there is"),
        ("redirect=x.test redirect=x.test", "redirect is there twice"),
        ("exp=x.test exp=y.test", "exp is there twice"),
        ("redirect=", "needs a domain name"),
        ("=x", "term 1 is malformed"),
        ("-all 9", "term 2 is malformed"),
        ("a\tmx", "not printable ASCII"),
        ("a:\x7f.test", "not printable ASCII"),
        (" a" * 300, "more than 200 terms"),
        ("x" * 5000, "longer than 4096 octets"),
    ],
)
def test_a_mistake_anywhere_is_one_of_the_record(terms: str, why: str):
    with pytest.raises(SpfError, match=why):
        parse(f"v=spf1 {terms}".encode("latin-1"))


def test_one_record_is_selected_by_its_version():
    others = [b"v=spf10 a", b"v=spf1a", b" v=spf1 a", b"spf2.0/pra +all", b""]
    assert select(others) is None
    assert select([*others, b"V=SPF1"]) == b"V=SPF1"
    assert select([*others, b"v=spf1 -all"]) == b"v=spf1 -all"
    with pytest.raises(SpfError, match="2 records"):
        select([b"v=spf1 a", b"v=spf1 -all"])


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%{h}.%{p}.test.", "mail.example.com.unknown.test"),
        ("a%%b%_c%-d.test", "a%b c%20d.test"),
    ],
)
def test_macros_become_names(spec: str, name: str):
    assert expand(spec, ASKED) == name


def test_an_ipv6_address_is_written_by_nibbles_and_capital_letters_escape():
    six = Asked(ipaddress.ip_address("2001:db8::cb01"), "a/b@c.test", "c.test", "h.test")
    name = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.c.test"
    assert expand("%{ir}.%{v}._spf.%{d2}", six) == name
    assert expand("%{S}", six) == "a%2fb%40c.test"


def test_a_name_that_is_too_long_is_cut_at_the_left():
    long = Asked(ASKED.address, "a@b.test", ".".join(["x" * 60] * 4), "h.test")
    assert len(expand("%{d}.%{d}.end.test", long)) <= 253
    assert expand("%{d}.%{d}.end.test", long).endswith("x.end.test")
    exact = ".".join(["x" * 60] * 4) + ".ninechars"
    assert len(exact) == 253
    assert expand(f"more.{exact}", ASKED) == exact
    assert expand("x" * 254, ASKED) == ""  # which nobody can ask for


def test_a_name_is_cut_in_linear_time():
    dotted = Asked(ASKED.address, "a@b.test", ".".join("x" * 127), "h.test")
    began = time.process_time()
    assert expand("%{d}." * 4000 + "end.test", dotted).endswith(".x.x.end.test")
    assert time.process_time() - began < 1.0


@given(st.binary(max_size=200))
@example(b"a:" + b"/" * 190)
@example(b"%{d" * 60)
def test_any_octets_are_a_record_or_a_mistake(octets: bytes):
    words = ""
    try:
        for each in parse(b"v=spf1 " + octets).mechanisms:
            assert len(expand(each.spec, ASKED).partition(".")[2]) <= 253
    except SpfError as error:
        words = str(error)
    assert words.isprintable()
