"""A sender domain as receivers see it, by a DNS that says all kinds of things."""

import dns.rcode
import msgspec
import pytest

from mta.accounts.dkim_keys import Algorithm, generate
from mta.accounts.domains import Domain, Selector, State
from mta.doctor import sender
from mta.doctor.ourselves import Leaving
from mta.doctor.sender import Sender
from tests.unit.doctor.world import about, graded, resolver_of

_, ED = generate(Algorithm.ED25519)
_, OTHER = generate(Algorithm.ED25519)
OURS = Leaving("8.8.4.4", "mail.us.test", "a")
OURS_6 = Leaving("2606:4700::6", "mail.us.test", "a")


def domain(*keys: tuple[str, str], name: str = "acme.test") -> Domain:
    selectors = tuple(
        Selector(name=key, algorithm="x", created_at=0.0, dns_value=value, sealed=b"") for key, value in keys
    )
    return Domain(name=name, tenant="acme", created_at=0.0, selectors=selectors)


GOOD = {
    ("acme.test", "TXT"): ['"verification=1"', '"v=spf1 ip4:8.8.4.0/24 ip6:2606:4700::/32 -all"'],
    ("acme.test", "MX"): ["10 mx.acme.test."],
    ("s1._domainkey.acme.test", "TXT"): [f'"{ED}"'],
    ("_dmarc.acme.test", "TXT"): ['"v=DMARC1; p=reject; rua=mailto:d@acme.test"'],
}


async def look(records, *, author="acme.test", registered=None, leaving=(OURS, OURS_6), broken=""):
    patient = Sender(author, registered or domain(("s1", ED)), tuple(leaving))
    async with resolver_of({key: value for key, value in records.items() if value}) as (resolver, peer):
        if broken:
            peer.rcodes[broken] = dns.rcode.SERVFAIL
        return await sender.findings(patient, resolver)


async def test_all_is_well():
    found = await look(GOOD)
    assert graded(found) == dict.fromkeys(
        ["spf", "spf 8.8.4.4", "spf 2606:4700::6", "dkim s1", "dmarc", "alignment", "return path"], "ok"
    )
    assert not any(each.advice for each in found)


@pytest.mark.parametrize(
    ("record", "name", "grade", "said"),
    [
        ("", "spf", "problem", "no record"),
        ("v=spf1 +all", "spf", "problem", "allows everybody"),
        ("v=spf1 ip4:8.8.4.4", "spf", "warning", "says nothing of other senders"),
        ("v=spf1 what -all", "spf", "problem", "it fails for everybody"),
        ("v=spf1 -all", "spf 8.8.4.4", "problem", "receivers are told to refuse"),
        ("v=spf1 ~all", "spf 8.8.4.4", "warning", "softfail"),
        ("v=spf1 include:none.test -all", "spf 8.8.4.4", "problem", "none.test: include leads to no record"),
    ],
)
async def test_what_is_wrong_with_spf_is_said_with_what_to_do(record: str, name: str, grade: str, said: str):
    found = await look({**GOOD, ("acme.test", "TXT"): [f'"{record}"'] if record else []})
    finding = about(found, name)
    assert (finding.grade.name.lower(), said in finding.said) == (grade, True), finding
    assert finding.advice


async def test_the_record_to_publish_names_our_addresses():
    found = await look({**GOOD, ("acme.test", "TXT"): []})
    advice = about(found, "spf").advice
    assert advice == 'publish acme.test. IN TXT "v=spf1 ip4:8.8.4.4 ip6:2606:4700::6 ~all"'


async def test_without_an_address_that_receivers_see_nothing_is_said_of_it():
    """Red when a private address gets into a record, or is said to fail."""
    found = await look(GOOD, leaving=())
    assert graded(found)["spf"] == "ok"
    assert "--address" in about(found, "spf of ours").advice
    found = await look({**GOOD, ("acme.test", "TXT"): []}, leaving=())
    assert about(found, "spf").advice == 'publish acme.test. IN TXT "v=spf1 ip4:ADDRESS ~all"'


async def test_two_records_are_none_and_nine_look_ups_are_nearly_too_many():
    found = await look({**GOOD, ("acme.test", "TXT"): ['"v=spf1 a -all"', '"v=spf1 -all"']})
    assert "2 records" in about(found, "spf").said
    chain = {(f"i{n}.test", "TXT"): [f'"v=spf1 include:i{n + 1}.test -all"'] for n in range(8)}
    chain[("i8.test", "TXT")] = ['"v=spf1 ip4:8.8.4.4 -all"']
    record = {("acme.test", "TXT"): ['"v=spf1 include:i0.test -all"']}
    found = await look({**GOOD, **chain, **record}, leaving=[OURS])
    assert graded(found)["spf 8.8.4.4"] == "warning"
    assert "9 of 10 look-ups" in about(found, "spf 8.8.4.4").said


@pytest.mark.parametrize(
    ("texts", "grade", "said"),
    [
        ([], "problem", "no TXT record"),
        ([OTHER], "problem", "another key"),
        ([ED, OTHER], "problem", "2 TXT records"),
        ([ED[: ED.index("p=") + 2]], "problem", "revoked"),
        ([ED + "; h=sha1"], "problem", "h= does not allow sha256"),
        ([ED + "; t=y"], "warning", "test mode"),
        ([ED + "; t=s:y"], "warning", "test mode"),
        ([ED + "; t=s; n=yes"], "ok", "it signs"),
    ],
)
async def test_each_key_that_signs_is_compared_with_the_dns(texts: list[str], grade: str, said: str):
    found = await look({**GOOD, ("s1._domainkey.acme.test", "TXT"): [f'"{each}"' for each in texts]})
    finding = about(found, "dkim s1")
    assert (finding.grade.name.lower(), said in finding.said) == (grade, True), finding
    assert bool(finding.advice) is (grade != "ok")


@pytest.mark.parametrize(
    ("state", "texts", "grade"),
    [
        (State.PENDING, [ED], "ok"),
        (State.PENDING, [], "warning"),
        (State.RETIRED, [ED], "ok"),
        (State.RETIRED, [], "ok"),
    ],
)
async def test_a_key_that_does_not_sign_is_no_problem(state: State, texts: list[str], grade: str):
    [key] = domain(("s1", ED)).selectors
    finding = sender.of_key("acme.test", msgspec.structs.replace(key, state=state), [each.encode() for each in texts])
    assert finding.grade.name.lower() == grade


async def test_a_key_in_pieces_and_with_blanks_is_the_same_key():
    cut = ED.index("p=") + 10
    found = await look({**GOOD, ("s1._domainkey.acme.test", "TXT"): [f'"{ED[:cut]} " "{ED[cut:]};"']})
    assert graded(found)["dkim s1"] == "ok"


async def test_a_key_as_long_as_a_message_costs_nothing():
    huge = "v=DKIM1; k=rsa; p=" + "A" * 9000
    pieces = " ".join(f'"{huge[start : start + 250]}"' for start in range(0, len(huge), 250))
    found = await look({**GOOD, ("s1._domainkey.acme.test", "TXT"): [pieces]})
    assert about(found, "dkim s1").grade.name == "PROBLEM"


async def test_a_domain_without_a_key_goes_unsigned_and_hangs_on_spf():
    found = await look(GOOD, registered=domain())
    assert "fairlead dkim create acme.test" in about(found, "dkim").advice
    assert about(found, "alignment").said == "by SPF alone, which forwarding breaks"


@pytest.mark.parametrize(
    ("records", "name", "grade", "said"),
    [
        ([], "dmarc", "warning", "no record"),
        (["v=DMARC1; p=none"], "dmarc", "warning", "asks receivers for nothing"),
        (["v=DMARC1; p=none; rua=mailto:a@b.test"], "dmarc", "ok", "asks receivers for nothing"),
        (["v=DMARC1; p=what"], "dmarc", "problem", "receivers ignore it"),
        (["v=DMARC1; p=reject", "v=DMARC1; p=none"], "dmarc", "problem", "2 records"),
    ],
)
async def test_what_is_wrong_with_dmarc_is_said(records: list[str], name: str, grade: str, said: str):
    found = await look({**GOOD, ("_dmarc.acme.test", "TXT"): [f'"{each}"' for each in records]})
    finding = about(found, name)
    assert (finding.grade.name.lower(), said in finding.said) == (grade, True), finding


@pytest.mark.parametrize(("record", "grade"), [("p=reject", "ok"), ("p=reject; adkim=s", "problem")])
async def test_a_signature_of_the_parent_stands_for_a_subdomain_unless_it_has_to_be_strict(record: str, grade: str):
    records = {
        ("news.acme.test", "TXT"): ['"v=spf1 ip4:8.8.4.4 ip6:2606:4700::6 -all"'],
        ("_dmarc.acme.test", "TXT"): [f'"v=DMARC1; {record}"'],
    }
    found = await look({**GOOD, **records}, author="news.acme.test")
    assert graded(found)["alignment"] == grade
    assert graded(found)["dkim s1"] == "ok"  # it is the registered domain's


@pytest.mark.parametrize(
    ("records", "grade", "said"),
    [
        (["0 ."], "problem", "null MX"),
        ([], "problem", "neither MX nor address"),
        (["10 mx.acme.test."], "ok", "mx.acme.test"),
    ],
)
async def test_bounces_have_somewhere_to_go(records: list[str], grade: str, said: str):
    found = await look({**GOOD, ("acme.test", "MX"): records})
    finding = about(found, "return path")
    assert (finding.grade.name.lower(), said in finding.said) == (grade, True), finding


@pytest.mark.parametrize("broken", ["acme.test", "s1._domainkey.acme.test", "_dmarc.acme.test"])
async def test_no_answer_is_a_warning_and_no_mistake(broken: str):
    found = await look(GOOD, broken=broken)
    assert "problem" not in graded(found).values()
    assert "warning" in graded(found).values()
