"""Why an entry does not move: one gate for every state that it can be in."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.queue.drain import Rates
from mta.queue.explanation import AHEAD, Circumstances, Explanation, HeldBy, LaneState, drain_rate, explain
from mta.spool.interface import Due
from mta.spool.records import Claim, Entry, Hold, State, Wish
from tests.contract.spool_contract import NOW, a_message

ACCEPTED = a_message()
RATED = LaneState(gate=HeldBy.TURN, site="mx.test", at_work=1, limit=20, lanes=2, rates=Rates(lane=0.5, site=4.0))


def an_entry(**changes: object) -> Entry:
    return msgspec.structs.replace(ACCEPTED.entries[0], **changes)


def explained(entry: Entry, claim: Claim | None = None, **around: object) -> Explanation:
    return explain(Due(entry, ACCEPTED.message), claim, Circumstances(now=NOW + 60, **around))  # type: ignore[arg-type]


times = st.sampled_from((NOW - 100, NOW, NOW + 60, NOW + 61, NOW + 5000))
holds = st.sampled_from(((False, None), (True, None), (True, Hold(NOW, "by the operator"))))
entries = st.builds(
    lambda due_at, attempts, held: an_entry(due_at=due_at, attempts=attempts, held=held[0], hold=held[1]),
    times,
    st.integers(0, 3),
    holds,
)
wishes = st.sampled_from((None, Wish(held=True), Wish(end=State.CANCELLED), Wish(relay="mx.test:25")))
claims = st.one_of(st.none(), st.builds(lambda wish: Claim(epoch=1, attempt=2, retry_at=NOW + 90, wish=wish), wishes))
of_lanes = st.sampled_from((HeldBy.UNSEEN, HeldBy.LOOKUP, HeldBy.SITE_FULL, HeldBy.TURN))
rates = st.builds(Rates, *[st.sampled_from((0.0, 0.01, 3.0))] * 3)
lanes = st.one_of(
    st.none(),
    st.builds(lambda gate, rates, n: LaneState(gate=gate, rates=rates, lanes=n), of_lanes, rates, st.integers(0, 9)),
)
of_roles = st.sampled_from((None, HeldBy.DOWN, HeldBy.SICK, HeldBy.DRAINING))


@given(entries, claims, lanes, of_roles, st.integers(0, AHEAD))
def test_one_gate_holds_whatever_there_is(
    entry: Entry, claim: Claim | None, lane: LaneState | None, gate: HeldBy | None, ahead: int
) -> None:
    found = explained(entry, claim, lane=lane, gate=gate, trouble="nobody is there" if gate else "", ahead=ahead)
    expected = {
        HeldBy.IN_FLIGHT: claim is not None,
        HeldBy.HELD: claim is None and entry.held,
        HeldBy.SCHEDULED: claim is None and not entry.held and entry.due_at > NOW + 60 and entry.attempts == 0,
        HeldBy.RETRY: claim is None and not entry.held and entry.due_at > NOW + 60 and entry.attempts > 0,
    }
    if not any(expected.values()):
        expected = {gate or (lane.gate if lane else HeldBy.UNSEEN): True}
    assert [each for each, holds in expected.items() if holds] == [found.gate]
    assert found.why
    assert (found.estimated_at is None) is (found.no_estimate is not None)
    if found.estimated_at is not None:
        assert found.estimated_at >= max(NOW + 60, found.next_at or 0.0)
        assert found.rate


def test_held_says_by_whom_and_since_when() -> None:
    found = explained(an_entry(held=True, hold=Hold(NOW + 5, "by the operator")), lane=RATED)
    assert (found.gate, found.why, found.since_at) == (HeldBy.HELD, "held by the operator", NOW + 5)
    assert (found.ahead, found.estimated_at) == (None, None)
    assert found.no_estimate == "it waits until somebody releases it"
    before = explained(an_entry(held=True))  # held by an earlier version
    assert (before.gate, before.why, before.since_at) == (HeldBy.HELD, "held", None)


def test_in_flight_says_what_comes_after() -> None:
    claim = Claim(epoch=1, attempt=2, retry_at=NOW + 90, wish=Wish(held=True))
    found = explained(an_entry(attempts=1), claim, begun_at=NOW + 50, lane=RATED)
    assert (found.gate, found.attempts, found.since_at, found.next_at) == (HeldBy.IN_FLIGHT, 2, NOW + 50, None)
    assert found.why == "attempt 2 is under way; then held, unless it delivers"
    left = explained(an_entry(), claim, gate=HeldBy.DOWN, trouble="delivery is not running")
    assert "attempt 2 was under way; delivery is not running" in left.why
    assert left.next_at == NOW + 90


def test_a_retry_says_the_reply_that_caused_it() -> None:
    entry = an_entry(
        due_at=NOW + 300, attempts=2, last_reply="451 4.7.1 later", last_relay="mx[192.0.2.1]:25", last_attempt_at=NOW
    )
    found = explained(entry, lane=RATED, ahead=9)
    assert (found.gate, found.since_at, found.next_at) == (HeldBy.RETRY, NOW, NOW + 300)
    assert (found.reply, found.relay) == ("451 4.7.1 later", "mx[192.0.2.1]:25")
    assert found.why == "waits for its next attempt, after 2 attempts"
    assert (found.estimated_at, found.rate, found.rate_of) == (NOW + 300, 0.5, "lane")
    down = explained(entry, gate=HeldBy.DOWN, trouble="delivery is not running", ahead=9)
    assert (down.gate, down.delivery, down.no_estimate) == (
        HeldBy.RETRY, "delivery is not running", "delivery is not running"
    )  # fmt: skip


def test_what_is_due_is_expected_by_the_rate_of_its_lane() -> None:
    found = explained(an_entry(), lane=RATED, ahead=9)
    assert (found.gate, found.since_at, found.ahead, found.site) == (HeldBy.TURN, NOW, 9, "mx.test")
    assert found.estimated_at == NOW + 60 + 10 / 0.5
    full = explained(an_entry(), lane=msgspec.structs.replace(RATED, gate=HeldBy.SITE_FULL, at_work=20))
    assert (
        full.why
        == "due; all connections to its site mx.test are in use (20 of 20 in use there; lanes with work there: 2)"
    )


def test_a_gate_of_a_lane_can_have_a_time_and_a_reply() -> None:
    lane = msgspec.structs.replace(RATED, until=NOW + 900, reply="421 4.7.0 too fast")
    found = explained(an_entry(last_reply="451 4.7.1 later"), lane=lane)
    assert (found.next_at, found.reply, found.estimated_at) == (NOW + 900, "421 4.7.0 too fast", NOW + 900)


@pytest.mark.parametrize(
    ("rates_", "expected"),
    [
        (Rates(lane=1.0, site=8.0, tenant=16.0), (1.0, "lane")),
        (Rates(site=8.0, tenant=16.0), (8.0, "site")),
        (Rates(tenant=16.0), (16.0, "tenant")),
        (Rates(), (0.0, "")),
    ],
)
def test_whose_rate_it_is(rates_: Rates, expected: tuple[float, str]) -> None:
    assert drain_rate(LaneState(gate=HeldBy.TURN, rates=rates_)) == expected
