"""What a next hop has to show: each rule of the decision, without a socket."""

import itertools

import pytest

from mta.delivery.policy import (
    Dane,
    DaneState,
    Demand,
    Failure,
    Flaw,
    Known,
    Level,
    Needs,
    Refusal,
    Shown,
    Tlsa,
    demand_of,
    dependable,
    judge,
    level_of,
    memorable,
    rehearse,
    sts_class,
    told,
)
from mta.delivery.trouble import Fault
from tests.unit.delivery.peers import sts_policy

HOST = "mx.rcpt.test"
TLSA = Tlsa(3, 1, 1, b"x" * 32)
USABLE = Dane(DaneState.USABLE, (TLSA,), "base.rcpt.test")
UNUSABLE = Dane(DaneState.UNUSABLE, (TLSA,), HOST)
FAILED = Dane(DaneState.FAILED, text=f"the TLSA records of {HOST} cannot be had")
ENFORCE, TESTING = sts_policy(HOST), sts_policy(HOST, mode="testing")
ANYTHING = Needs()
UNTRUSTED = Flaw(Failure.CERTIFICATE_NOT_TRUSTED, f"certificate of {HOST} is not trusted")
NO_MATCH = Flaw(Failure.VALIDATION_FAILURE, f"certificate of {HOST} matches none of its TLSA records")

CLEAR = Shown()
UNVERIFIED = Shown(version="TLSv1.3", by_authority=UNTRUSTED, by_tlsa=NO_MATCH)
VERIFIED = Shown(version="TLSv1.3")


def known(**facts):
    return Known(**{"host": HOST, "domain": "rcpt.test", **facts})


def demand(needs=ANYTHING, **facts):
    found = demand_of(known(**facts), needs)
    assert isinstance(found, Demand), found
    return found


def refused(needs=ANYTHING, **facts):
    found = demand_of(known(**facts), needs)
    assert isinstance(found, Refusal), found
    return found


def test_nobody_asks_for_anything():
    assert demand() == Demand(names=(HOST,))
    assert judge(demand(), CLEAR) is None
    assert judge(demand(), Shown(version="TLSv1", by_authority=UNTRUSTED)) is None


@pytest.mark.parametrize(
    ("mode", "least", "by"),
    [
        ("none", Level.CLEAR, ""),
        ("opportunistic", Level.CLEAR, ""),
        ("require", Level.ENCRYPTED, "route require"),
        ("verify", Level.VERIFIED, "route verify"),
        ("implicit", Level.VERIFIED, "route implicit"),
    ],
)
def test_what_a_route_asks_for(mode, least, by):
    found = demand(mode=mode, routed=True)
    assert (found.least, found.by) == (least, by)


def test_sts_enforced_asks_for_a_host_that_is_listed_and_verified():
    found = demand(sts=ENFORCE)
    assert (found.least, found.by, found.words) == (Level.VERIFIED, "sts enforce", "MTA-STS policy of rcpt.test")
    assert judge(found, VERIFIED) is None
    refusal = refused(sts=ENFORCE, listed=False)
    assert (refusal.fault, refusal.by) == (Fault.FORBIDDEN, "sts enforce")
    assert refusal.flaw.text == f"MTA-STS policy of rcpt.test: {HOST} is none of its MX hosts"


def test_sts_in_testing_asks_for_nothing_and_says_what_it_would_have_refused():
    for listed in (True, False):
        found = demand(sts=TESTING, listed=listed)
        assert found == Demand(names=(HOST,))
    assert rehearse(known(sts=TESTING), demand(), VERIFIED) is None
    assert rehearse(known(sts=TESTING), demand(), UNVERIFIED).failure is Failure.CERTIFICATE_NOT_TRUSTED
    assert rehearse(known(sts=TESTING), demand(), CLEAR).failure is Failure.STARTTLS_NOT_SUPPORTED
    assert rehearse(known(sts=TESTING, listed=False), demand(), VERIFIED).failure is Failure.VALIDATION_FAILURE
    assert rehearse(known(sts=ENFORCE), demand(), CLEAR) is None


def test_without_a_policy_a_session_in_the_clear_is_a_failure_all_the_same():
    assert rehearse(known(), demand(), CLEAR).failure is Failure.STARTTLS_NOT_SUPPORTED
    assert rehearse(known(), demand(), UNVERIFIED) is None


def test_dane_counts_where_the_mx_set_is_secure_alone():
    assert demand(secure=True, dane=USABLE).tlsa == (TLSA,)
    for facts in ({"secure": False}, {"secure": True, "routed": True}):
        assert demand(dane=USABLE, **facts) == Demand(names=(HOST,))
        assert demand(dane=FAILED, **facts) == Demand(names=(HOST,))
        assert demand(dane=UNUSABLE, **facts) == Demand(names=(HOST,))


def test_dane_asks_for_a_match_at_any_of_the_names_that_led_there():
    found = demand(secure=True, dane=USABLE)
    assert (found.least, found.by, found.words) == (Level.VERIFIED, "dane", "DANE")
    assert found.names == ("base.rcpt.test", HOST, "rcpt.test")
    assert judge(found, Shown(version="TLSv1.2", by_authority=UNTRUSTED)) is None
    assert judge(found, Shown(version="TLSv1.2", by_tlsa=NO_MATCH)).fault is Fault.UNVERIFIED


@pytest.mark.parametrize("listed", [True, False])
def test_dane_wins_over_sts_both_ways(listed):
    found = demand(secure=True, dane=USABLE, sts=ENFORCE, listed=listed)
    assert (found.tlsa, found.by) == ((TLSA,), "dane")
    assert judge(found, Shown(version="TLSv1.3", by_tlsa=NO_MATCH)).flaw.failure is Failure.VALIDATION_FAILURE
    assert rehearse(known(sts=TESTING, listed=listed), found, VERIFIED) is None
    refusal = refused(secure=True, dane=FAILED, sts=ENFORCE, listed=listed)
    assert (refusal.fault, refusal.flaw.failure) == (Fault.FORBIDDEN, Failure.DNSSEC_INVALID)
    assert refusal.flaw.text == f"DANE: the TLSA records of {HOST} cannot be had"


def test_dane_with_unusable_records_asks_for_tls_and_leaves_the_rest_to_sts():
    found = demand(secure=True, dane=UNUSABLE)
    assert (found.least, found.tlsa, found.by) == (Level.ENCRYPTED, (), "dane")
    assert judge(found, UNVERIFIED) is None
    assert judge(found, CLEAR).flaw.failure is Failure.STARTTLS_NOT_SUPPORTED
    found = demand(secure=True, dane=UNUSABLE, sts=ENFORCE)
    assert (found.least, found.by, found.words) == (Level.VERIFIED, "dane, sts enforce", "MTA-STS policy of rcpt.test")


@pytest.mark.parametrize("level", [Level.ENCRYPTED, Level.VERIFIED])
def test_downgrade_of_a_host_that_is_remembered(level):
    found = demand(remembered=level)
    assert (found.least, found.by, found.words) == (level, "memory", f"TLS as {HOST} had it before")
    assert judge(found, CLEAR).fault is Fault.UNENCRYPTED
    assert demand(remembered=level, sts=ENFORCE).by == "sts enforce"  # which asks for as much
    for mode in ("none", "require"):
        assert "memory" not in demand(remembered=level, mode=mode, routed=True).by
    assert demand(Needs(waived=True), remembered=level) == Demand(names=(HOST,))


def test_a_tenant_asks_for_more_whatever_the_domain_says():
    needs = Needs(least=Level.ENCRYPTED)
    assert demand(needs).least is Level.ENCRYPTED
    assert demand(needs, mode="none", routed=True).least is Level.ENCRYPTED
    assert demand(Needs(least=Level.VERIFIED, waived=True)).least is Level.VERIFIED
    found = demand(Needs(least=Level.VERIFIED), remembered=Level.ENCRYPTED)
    assert (found.least, found.by, found.words) == (Level.VERIFIED, "", "the sender's tenant")
    assert judge(found, UNVERIFIED).fault is Fault.NEEDS_LEVEL
    found = demand(Needs(least=Level.VERIFIED), sts=ENFORCE)  # which the domain asks of everybody
    assert (found.own, judge(found, UNVERIFIED).fault) == (False, Fault.UNVERIFIED)


def test_tls_required_no_asks_for_no_policy_of_the_receiver():
    needs = Needs(waived=True)
    for dane, sts, listed in itertools.product((USABLE, UNUSABLE, FAILED), (ENFORCE, TESTING), (True, False)):
        assert demand(needs, secure=True, dane=dane, sts=sts, listed=listed) == Demand(names=(HOST,))
    assert demand(needs, mode="verify", routed=True).least is Level.VERIFIED


REQUIRED = Needs(required=True)


@pytest.mark.parametrize(
    "facts",
    [{"secure": True}, {"sts": ENFORCE}, {"sts": TESTING}, {"routed": True}, {"secure": True, "dane": UNUSABLE}],
)
def test_requiretls_asks_for_a_verified_host_that_is_known_to_be_one(facts):
    found = demand(REQUIRED, **facts)
    assert (found.least, found.required) == (Level.VERIFIED, True)
    assert judge(found, VERIFIED) is None
    for shown in (CLEAR, UNVERIFIED, Shown(version="TLSv1.1")):
        assert judge(found, shown).fault is Fault.NEEDS_TLS


def test_requiretls_is_content_with_dane():
    found = demand(REQUIRED, secure=True, dane=USABLE)
    assert judge(found, Shown(version="TLSv1.3", by_authority=UNTRUSTED)) is None
    assert judge(found, Shown(version="TLSv1.3", by_tlsa=NO_MATCH)).fault is Fault.NEEDS_TLS


@pytest.mark.parametrize("facts", [{}, {"sts": TESTING, "listed": False}, {"sts": ENFORCE, "listed": False}])
def test_requiretls_goes_to_nobody_that_only_an_insecure_dns_names(facts):
    assert refused(REQUIRED, **facts).fault is Fault.NEEDS_TLS


def test_requiretls_waits_where_the_dns_does_not_answer():
    assert refused(REQUIRED, secure=True, dane=FAILED).fault is Fault.FORBIDDEN


@pytest.mark.parametrize("version", ["SSLv3", "TLSv1", "TLSv1.1"])
def test_downgrade_to_an_old_tls_is_not_what_a_policy_asks_for(version):
    for found in (demand(sts=ENFORCE), demand(mode="require", routed=True), demand(secure=True, dane=USABLE)):
        refusal = judge(found, Shown(version=version))
        assert (refusal.flaw.failure, refusal.fault) == (Failure.VALIDATION_FAILURE, Fault.UNVERIFIED)
        assert "older than TLS 1.2" in refusal.flaw.text


def test_a_refusal_names_who_asks_and_what_is_wrong():
    refusal = judge(demand(sts=ENFORCE), UNVERIFIED)
    assert refusal.flaw == Flaw(UNTRUSTED.failure, f"MTA-STS policy of rcpt.test: {UNTRUSTED.text}")
    refusal = judge(demand(sts=ENFORCE), CLEAR)
    assert refusal.flaw.text == f"MTA-STS policy of rcpt.test: {HOST} does not offer STARTTLS"


def test_the_level_is_by_tlsa_where_there_is_any():
    assert level_of(demand(), CLEAR) is Level.CLEAR
    assert level_of(demand(), UNVERIFIED) is Level.ENCRYPTED
    assert level_of(demand(), VERIFIED) is Level.VERIFIED
    found = demand(secure=True, dane=USABLE)
    assert level_of(found, Shown(version="TLSv1.3", by_authority=UNTRUSTED)) is Level.VERIFIED
    assert level_of(found, Shown(version="TLSv1.3", by_tlsa=NO_MATCH)) is Level.ENCRYPTED


@pytest.mark.parametrize("shown", [Shown(version="TLSv1.1"), Shown(version="TLSv1.2", old=True)])
def test_nobody_counts_on_old_tls(shown):
    """Red when it is more: a kept connection would be good for messages that no new one could be made for."""
    assert level_of(demand(), shown) is Level.ENCRYPTED
    assert dependable(demand(), shown) is Level.CLEAR
    assert dependable(demand(), UNVERIFIED) is Level.ENCRYPTED
    assert dependable(demand(), VERIFIED) is Level.VERIFIED


def test_what_is_remembered_can_be_asked_for_again():
    assert memorable(demand(), CLEAR, pinned=False) is Level.CLEAR
    assert memorable(demand(), UNVERIFIED, pinned=False) is Level.ENCRYPTED
    assert memorable(demand(), VERIFIED, pinned=False) is Level.VERIFIED
    assert memorable(demand(), VERIFIED, pinned=True) is Level.ENCRYPTED
    assert memorable(demand(secure=True, dane=USABLE), VERIFIED, pinned=False) is Level.ENCRYPTED
    assert memorable(demand(), Shown(version="TLSv1.2", old=True), pinned=False) is Level.CLEAR
    for shown in SHOWN:  # red when old TLS is remembered: such a host gets no second message
        level = memorable(demand(), shown, pinned=False)
        assert judge(demand(remembered=level), shown) is None


def test_what_events_say():
    assert told("", ANYTHING, None) == ""
    assert told("sts enforce, memory", ANYTHING, ENFORCE) == "sts enforce, memory"
    assert told("", ANYTHING, TESTING) == "sts testing"
    assert told("memory", ANYTHING, TESTING) == "memory, sts testing"
    assert told("dane", ANYTHING, TESTING) == "dane"
    assert told("", Needs(waived=True), TESTING) == ""
    assert told("dane", REQUIRED, None) == "dane, requiretls"
    assert told("", Needs(least=Level.ENCRYPTED), None) == "tenant encrypted"


def test_domains_whose_sts_policies_ask_the_same_are_of_one_class():
    assert sts_class(None) == sts_class(TESTING) == ""
    one, other = sts_policy("a.test", "*.b.test"), sts_policy("*.B.test", "a.test", domain="other.test")
    assert sts_class(one) == sts_class(other) != ""
    assert sts_class(sts_policy("a.test")) != sts_class(one)
    # red when somebody could search for patterns whose class is that of another domain, to share its connections
    assert len(bytes.fromhex(sts_class(one))) >= 16


FACTS = list(
    itertools.product(
        (False, True),  # secure
        (Dane(), USABLE, UNUSABLE, FAILED),
        (None, ENFORCE, TESTING),
        (False, True),  # listed
        (Level.CLEAR, Level.ENCRYPTED, Level.VERIFIED),  # remembered
    )
)
SHOWN = [
    Shown(version=version, by_authority=authority, by_tlsa=tlsa)
    for version, authority, tlsa in itertools.product(("", "TLSv1.1", "TLSv1.3"), (None, UNTRUSTED), (None, NO_MATCH))
]


def test_no_downgrade_below_sts_or_dane_in_any_combination():
    """Where an enforced policy or usable TLSA exist, nothing but TLS 1.2 with a verified, listed host is admitted."""
    for secure, dane, sts, listed, remembered in FACTS:
        found = demand_of(known(secure=secure, dane=dane, sts=sts, listed=listed, remembered=remembered), ANYTHING)
        by_dane = secure and dane.state is DaneState.USABLE
        by_sts = sts is ENFORCE and not by_dane
        for shown in SHOWN:
            admitted = isinstance(found, Demand) and judge(found, shown) is None
            if not admitted:
                continue
            assert not (secure and dane.state is DaneState.FAILED)
            if by_dane:
                assert (shown.version, shown.by_tlsa) == ("TLSv1.3", None)
            if by_sts:
                assert (shown.version, shown.by_authority, listed) == ("TLSv1.3", None, True)
            if secure and dane.state is DaneState.UNUSABLE:
                assert shown.version == "TLSv1.3"
            assert by_dane or level_of(found, shown) >= remembered
