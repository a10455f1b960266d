"""The decision, over every combination of what a sender can meet: as the rules that were written apart from it say."""

from collections import Counter
from itertools import combinations
from random import Random

from mta.delivery import sts
from mta.delivery.policy import (
    Dane,
    DaneState,
    Failure,
    Flaw,
    Known,
    Level,
    Needs,
    Refusal,
    Shown,
    StsPolicy,
    demand_of,
    judge,
    level_of,
)
from mta.delivery.policy import Tlsa as Record
from mta.delivery.sts import Announced
from mta.delivery.tls import Hello, ladder
from tests.downgrade import rules
from tests.downgrade.rules import Cache, Cell, End, Https, Mode, Mx, Tls, Tlsa, Txt, expected, impossible

_NOW, _MAX_AGE = 1_800_000_000.0, 86400
_RECORD = Record(3, 1, 1, b"\xab" * 32)
_FLAWS = {
    Tls.SELF_SIGNED: Failure.CERTIFICATE_NOT_TRUSTED,
    Tls.OTHER_NAME: Failure.CERTIFICATE_HOST_MISMATCH,
    Tls.EXPIRED: Failure.CERTIFICATE_EXPIRED,
}
_ENDS = {Level.CLEAR: End.CLEAR, Level.ENCRYPTED: End.ENCRYPTED, Level.VERIFIED: End.VERIFIED}


def a_policy(mode: Mode, mx: Mx, fetched_at: float, policy_id: str = "old") -> StsPolicy:
    patterns = {Mx.WILDCARD: "*.x.test", Mx.TWO_LABELS: "*.x.test", Mx.UNLISTED: "other.x.test"}
    return StsPolicy(
        domain="x.test",
        id=policy_id,
        mode=mode.value,
        mx=(patterns.get(mx, "mx.x.test"),),
        max_age=_MAX_AGE,
        fetched_at=fetched_at,
    )


def standing(cell: Cell) -> StsPolicy | None:
    """Find the policy that applies, as StsPolicies does."""
    cached = None
    if cell.cache is not Cache.NONE:
        cached = a_policy(cell.mode, cell.mx, _NOW - (1 if cell.cache is Cache.VALID else _MAX_AGE + 1))
    ids = {Txt.SAME: "old", Txt.NEW: "new"}
    announced = Announced(ids.get(cell.txt, ""), answered=cell.txt is not Txt.SERVFAIL)
    step = sts.step(cached, announced, None, _NOW)
    if step.fetch:
        served = a_policy(cell.mode, cell.mx, _NOW, announced.id)
        fetched = served if cell.https is Https.OK else Flaw(Failure.STS_POLICY_FETCH_ERROR, str(cell.https))
        step = sts.step(cached, announced, fetched, _NOW)
    return step.policy


def met(known: Known, tls: Tls, *, key_matches: bool = False) -> End:
    """Say what comes of one next hop, as an attempt finds it."""
    demand = demand_of(known, Needs())
    if isinstance(demand, Refusal):
        return End.DEFERRED
    hellos = ladder("opportunistic", demand)
    if tls in (Tls.NOT_OFFERED, Tls.REFUSED) or (tls is Tls.OLD and Hello.OLD not in hellos) or tls is Tls.FAILS:
        if tls is not Tls.NOT_OFFERED and Hello.CLEAR not in hellos:
            return End.DEFERRED
        shown = Shown()
    else:
        failure = _FLAWS.get(tls)
        shown = Shown(
            version="TLSv1" if tls is Tls.OLD else "TLSv1.3",
            by_authority=None if failure is None else Flaw(failure, str(tls)),
            by_tlsa=None if key_matches else Flaw(Failure.VALIDATION_FAILURE, "another key"),
        )
    return End.DEFERRED if judge(demand, shown) is not None else _ENDS[level_of(demand, shown)]


def host_of(mx: Mx) -> str:
    return "a.mx.x.test" if mx is Mx.TWO_LABELS else "mx.x.test"


def known(policy: StsPolicy | None, mx: Mx, **more: object) -> Known:
    host = host_of(mx)
    return Known(host=host, domain="x.test", sts=policy, listed=policy is None or sts.matches(policy, host), **more)


def test_sts_downgrade_every_combination() -> None:
    cells = [each for each in rules.sts_cells() if not impossible(each)]
    assert len(rules.sts_cells()) == 21_600
    found = Counter[tuple[End, End]]()
    for each in cells:
        found[expected(each), met(known(standing(each), each.mx), each.tls)] += 1
    assert {wanted for wanted, _ in found} == set(End)
    assert [(wanted, end) for wanted, end in found if wanted is not end] == []


def test_dane_downgrade_every_combination() -> None:
    states = {
        Tlsa.NONE: Dane(),
        Tlsa.UNSIGNED: Dane(),
        Tlsa.MATCHES: Dane(DaneState.USABLE, (_RECORD,), "mx.x.test"),
        Tlsa.OTHER: Dane(DaneState.USABLE, (_RECORD,), "mx.x.test"),
        Tlsa.UNUSABLE: Dane(DaneState.UNUSABLE, (Record(0, 0, 1, b"\xab" * 32),), "mx.x.test"),
        Tlsa.SERVFAIL: Dane(DaneState.FAILED, text="the TLSA records cannot be had"),
    }
    wrong = []
    for each in rules.dane_cells():
        policy = a_policy(Mode.ENFORCE, each.mx, _NOW - 1) if each.sts else None
        hop = known(policy, each.mx, secure=each.signed_mx, dane=states[each.tlsa] if each.signed_mx else Dane())
        end = met(hop, each.tls, key_matches=each.tlsa is Tlsa.MATCHES)
        if end is not expected(each):
            wrong.append((each, end))
    assert wrong == []


def test_downgrade_rules_draw_every_pair() -> None:

    drawn = rules.some(rules.sts_cells(), 0, Random(7))
    possible = [each for each in rules.sts_cells() if not impossible(each)]
    pairs = {pair for each in possible for pair in combinations(enumerate(each), 2)}
    assert {pair for each in drawn for pair in combinations(enumerate(each), 2)} == pairs
