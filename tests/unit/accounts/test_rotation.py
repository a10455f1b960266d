"""Which keys sign, and what a look at the DNS makes of them; over any sequence of looks something signs."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.accounts import domains
from mta.accounts.domains import Domain, Selector, State
from mta.accounts.rotation import KEPT, SETTLING, changing, hinges, looked, signing, unpublished

OLD, NEW = "old", "new"
AT = 1_800_000_000.0


def key(name: str, state: State = State.ACTIVE, **changes: object) -> Selector:
    made = Selector(name=name, algorithm="rsa2048", created_at=1.0, dns_value=f"p={name}", sealed=b"", state=state)
    return msgspec.structs.replace(made, **changes)


def domain(*keys: Selector) -> Domain:
    return Domain(name="a.test", tenant="acme", created_at=1.0, selectors=keys)


def rotating(**changes: object) -> Domain:
    """The old key signs and is in the DNS, a new one is to replace it."""
    return domain(key(OLD, shown_at=AT - 9), key(NEW, State.PENDING, replaces=(OLD,), **changes))


def look(at: Domain, now: float, *shown: str) -> Domain:
    """Look at a DNS that shows these keys and says that there are no others."""
    return looked(at, {each.dns_value: "" if each.name in shown else "gone" for each in at.selectors}, now)


def states(of: Domain) -> dict[str, str]:
    return {each.name: each.state.value for each in of.selectors}


def signs(of: Domain) -> list[str]:
    return [each.name for each in signing(of)]


def test_a_replacement_signs_when_it_has_been_shown_for_a_while() -> None:
    now = rotating()
    now = look(now, AT, OLD)
    assert (signs(now), states(now)) == ([OLD], {OLD: "active", NEW: "pending"})
    now = look(now, AT + 60, OLD, NEW)
    assert (signs(now), now.selectors[1].shown_at) == ([OLD], AT + 60)
    now = look(now, AT + 59 + SETTLING, OLD, NEW)
    assert signs(now) == [OLD]
    now = look(now, AT + 60 + SETTLING, OLD, NEW)
    assert (signs(now), states(now)) == ([NEW], {OLD: "retired", NEW: "active"})
    assert now.selectors[0].removable_at == AT + 60 + SETTLING + KEPT


def test_one_that_comes_and_goes_begins_again() -> None:
    now = look(look(look(rotating(), AT, OLD, NEW), AT + SETTLING - 1, OLD), AT + SETTLING, OLD, NEW)
    assert signs(now) == [OLD]
    assert signs(look(now, AT + 2 * SETTLING - 1, OLD, NEW)) == [OLD]
    assert signs(look(now, AT + 2 * SETTLING, OLD, NEW)) == [NEW]


def test_a_replacement_does_not_settle_where_the_old_key_is_gone() -> None:
    assert signs(look(rotating(), AT, NEW)) == [NEW]


def test_no_answer_leaves_a_key_as_it_was() -> None:
    before = rotating()
    assert looked(before, {}, AT + 10 * KEPT) == before
    shown = look(before, AT, OLD, NEW)
    # an answer for one of them is one
    switched = looked(shown, {shown.selectors[1].dns_value: ""}, AT + SETTLING)
    assert (signs(switched), switched.selectors[0].shown_at) == ([NEW], AT - 9)


def test_a_new_key_that_vanishes_gives_way_to_the_old_one_while_that_is_there() -> None:
    switched = look(look(rotating(), AT, OLD, NEW), AT + SETTLING, OLD, NEW)
    back = look(switched, AT + 1000, OLD)
    assert (signs(back), states(back)) == ([OLD], {OLD: "active", NEW: "pending"})
    assert back.selectors[0].removable_at == 0
    again = look(look(back, AT + 2000, OLD, NEW), AT + 2000 + SETTLING, OLD, NEW)
    assert (signs(again), again.selectors[0].removable_at) == ([NEW], AT + 2000 + SETTLING + KEPT)
    nothing = look(switched, AT + 1000)
    assert (signs(nothing), unpublished(signing(nothing))) == ([NEW], True)


def in_a_row() -> Domain:
    """A key has been replaced, and the one that replaced it is to be."""
    return domain(
        key("s1", State.RETIRED, shown_at=AT - 9, removable_at=AT + KEPT),
        key("s2", shown_at=AT - 9, replaces=("s1",)),
        key("s3", State.PENDING, replaces=("s2",)),
    )


def test_one_that_stands_in_for_a_key_is_replaced_with_it() -> None:
    """Red when a key that has leaked, and was withdrawn while it was being replaced, can sign again after that."""
    now = look(in_a_row(), AT, "s1", "s3")
    assert states(now) == {"s1": "active", "s2": "pending", "s3": "pending"}
    now = look(now, AT + SETTLING, "s1", "s3")
    assert states(now) == {"s1": "retired", "s2": "retired", "s3": "active"}
    assert states(look(now, AT + 2 * SETTLING, "s1", "s2", "s3")) == states(now)
    without = look(now, AT + 2 * SETTLING, "s1")
    assert states(without) == {"s1": "active", "s2": "retired", "s3": "pending"}
    again = look(look(without, AT + 3 * SETTLING, "s1", "s3"), AT + 4 * SETTLING, "s1", "s3")
    assert states(again) == states(now)


def test_a_retired_key_is_forgotten_when_its_time_is_over_and_its_record_gone() -> None:
    switched = look(look(rotating(), AT, OLD, NEW), AT + SETTLING, OLD, NEW)
    over = switched.selectors[0].removable_at
    assert states(look(switched, over - 1, NEW)) == {OLD: "retired", NEW: "active"}  # removed too soon, and known still
    assert states(look(switched, over, OLD, NEW)) == {OLD: "retired", NEW: "active"}
    assert looked(switched, {}, over + KEPT) == switched
    done = look(switched, over, NEW)
    assert states(done) == {NEW: "active"}
    assert (changing(switched), changing(done)) == (True, False)


def test_a_further_key_signs_beside_the_first_as_soon_as_it_is_shown() -> None:
    both = domain(key(OLD), key(NEW, State.PENDING))
    assert hinges(both)
    assert signs(both) == [OLD]
    assert signs(look(both, AT, OLD)) == [OLD]
    now = look(both, AT, OLD, NEW)
    assert (signs(now), states(now)) == ([OLD, NEW], {OLD: "active", NEW: "active"})


def test_keys_that_are_not_shown_do_not_sign_beside_one_that_is() -> None:
    both = domain(key(OLD), key(NEW))
    assert signs(both) == [OLD, NEW]  # nobody has looked yet
    one = look(both, AT, NEW)
    assert (signs(one), unpublished(signing(one))) == ([NEW], False)
    assert signs(look(one, AT + 60, OLD, NEW)) == [OLD, NEW]


def test_where_none_is_shown_all_active_ones_sign() -> None:
    none = look(domain(key(OLD), key(NEW)), AT)
    assert (signs(none), unpublished(signing(none))) == ([OLD, NEW], True)
    assert [each.missing_at for each in none.selectors] == [AT, AT]
    later = looked(none, {"p=old": "another key", "p=new": "gone"}, AT + 60)
    assert [(each.trouble, each.missing_at) for each in later.selectors] == [("another key", AT), ("gone", AT)]
    alone = look(domain(key(OLD)), AT)
    assert (signs(alone), unpublished(signing(alone)), hinges(alone)) == ([OLD], True, False)


def test_a_domain_without_keys() -> None:
    assert (signing(domain()), hinges(domain()), changing(domain()), unpublished(())) == ((), False, False, False)
    assert looked(domain(), {}, AT) == domain()


def test_a_key_of_before_is_active() -> None:
    former = msgspec.msgpack.encode([1, "a.test", "acme", 1.0, [["s1", "rsa2048", 1.0, "p=s1", b"sealed"]]])
    (read,) = domains.decode(former).selectors
    assert (read.state, read.shown_at, read.missing_at, read.replaces) == (State.ACTIVE, 0, 0, ())


LOOK = st.tuples(st.floats(1, 4 * SETTLING), st.dictionaries(st.sampled_from([OLD, NEW, "ed"]), st.booleans()))


@given(st.lists(LOOK, max_size=12))
def test_whatever_is_seen_something_signs_and_nothing_missing_while_there_is_better(
    seen: list[tuple[float, dict]],
) -> None:
    now, at = AT, domain(key(OLD), key("ed"), key(NEW, State.PENDING, replaces=(OLD,)))
    for seconds, answers in seen:
        now += seconds
        at = looked(at, {f"p={name}": "" if shown else "gone" for name, shown in answers.items()}, now)
        assert signing(at)
        assert all(each.state is State.ACTIVE for each in signing(at))
        shown = [each for each in at.selectors if each.shown_at and each.state is not State.PENDING]
        if unpublished(signing(at)):
            assert not shown
        assert {each.name for each in at.selectors} == {OLD, NEW, "ed"}  # within the week


LOOK_AT_ROW = st.tuples(st.floats(1, 4 * SETTLING), st.dictionaries(st.sampled_from(["s1", "s2", "s3"]), st.booleans()))


@given(st.lists(LOOK_AT_ROW, max_size=12))
def test_of_keys_that_replace_each_other_one_signs(seen: list[tuple[float, dict]]) -> None:
    now, at = AT, in_a_row()
    for seconds, answers in seen:
        now += seconds
        at = looked(at, {f"p={name}": "" if shown else "gone" for name, shown in answers.items()}, now)
        assert len(signing(at)) == 1
        if unpublished(signing(at)):
            assert not [each for each in at.selectors if each.shown_at and each.state is not State.PENDING]


@pytest.mark.parametrize("broken", ["retiring", 1])
def test_a_state_of_a_later_version_is_not_taken_for_another(broken: object) -> None:
    row = ["s1", "rsa2048", 1.0, "p=s1", b"sealed", broken]
    with pytest.raises(msgspec.DecodeError):
        domains.decode(msgspec.msgpack.encode([1, "a.test", "acme", 1.0, [row]]))
