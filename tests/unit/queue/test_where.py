"""Conditions: what an operator types, which entries it means, and what he is told if it is no condition."""

import re
from fnmatch import translate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.envelope import Recipient
from mta.queue.where import Where, WhereError
from mta.spool.records import Claim, Entry, Message, MessageClass, RecipientState, State
from tests.contract.spool_contract import CLAIM, NOW, a_message

ACCEPTED = a_message(domain="mail.example.com")
MESSAGE = msgspec.structs.replace(ACCEPTED.message, sender="News@Acme.test", categories=("welcome", "Trial"))
ENTRY = msgspec.structs.replace(
    ACCEPTED.entries[0],
    message_class=MessageClass.BULK,
    recipients=(
        RecipientState(Recipient("Ann@mail.example.com")),
        RecipientState(Recipient("bob@mail.example.com"), State.DELIVERED),
    ),
)


def means(
    *conditions: str, entry: Entry = ENTRY, claim: Claim | None = None, message: Message = MESSAGE, age: float = 7201
) -> bool:
    where = Where(conditions)
    return where.admits_entry(entry, claim) and where.admits_message(message, NOW + age)


@pytest.mark.parametrize(
    ("condition", "meant"),
    [
        ("tenant=acme", True),
        ("tenant=acm", False),
        ("tenant!=acme", False),
        ("domain=mail.example.com", True),
        ("domain=MAIL.Example.com", True),
        ("domain=example.com", False),
        ("domain=*.example.com", True),
        ("domain = *example*", True),
        ("sender=news@acme.test", True),
        ("sender=*@ACME.test", True),
        ("sender=<>", False),
        ("sender!=<>", True),
        ("recipient=ann@mail.example.com", True),
        ("recipient=bob@mail.example.com", False),  # he has it
        ("recipient!=ann@mail.example.com", False),
        ("class=bulk", True),
        ("class!=bulk", False),
        ("class=high", False),
        ("state=queued", True),
        ("state=held", False),
        ("age>2h", True),
        ("age<2h", False),
        ("age>121m", False),
        ("age<1d", True),
        ("category=welcome", True),
        ("category=trial", False),
        ("category=Tri*", True),
        ("category!=other", True),
    ],
)
def test_what_a_condition_means(condition: str, meant: bool) -> None:
    assert means(condition) is meant


def test_the_null_sender() -> None:
    dsn = msgspec.structs.replace(MESSAGE, sender="")
    assert means("sender=<>", message=dsn)
    assert means("sender=", message=dsn)
    assert not means("sender!=<>", message=dsn)


def test_states() -> None:
    held = msgspec.structs.replace(ENTRY, held=True)
    assert means("state=held", entry=held)
    assert not means("state=queued", entry=held)
    assert means("state=in_flight", claim=CLAIM)
    assert not means("state=queued", claim=CLAIM)


def test_all_of_several_conditions_must_hold() -> None:
    assert means("domain=*.example.com", "age>2h", "class=bulk")
    assert not means("domain=*.example.com", "age>2h", "class=high")
    assert not means("domain=*.example.com", "age>3h", "class=bulk")
    assert means()


def test_messages_are_asked_only_where_they_must_be() -> None:
    assert not Where(["domain=x", "state=held", "recipient=a@x", "tenant=t", "class=high"]).asks_messages
    for each in ("age>1s", "sender=a@x", "category=c"):
        assert Where([each]).asks_messages


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("", "conditions are of tenant, domain"),
        ("subject=x", "conditions are of tenant, domain"),
        ("Domain=x", "conditions are of tenant, domain"),
        ("age", "'age>2h'"),  # what is left when a shell has taken >2h for a file
        ("domain", "compared with what"),
        ("age=2h", "age takes < or >"),
        ("domain>x", "domain takes = or !="),
        ("age>2", "with its unit"),
        ("age>2 hours", "with its unit"),
        ("age>-2h", "with its unit"),
        ("class=urgent", "one of high, normal, bulk"),
        ("state=deferred", "one of queued, held, in_flight"),
        ("domain=ex\u2028ample.com", "domain"),
    ],
)
def test_what_is_no_condition_is_said_so(condition: str, why: str) -> None:
    with pytest.raises(WhereError, match=re.escape(why)):
        Where(["tenant=acme", condition])


@given(pattern=st.text("ab*", max_size=8), tenant=st.text("ab", max_size=12))
def test_a_star_stands_for_any_characters(pattern: str, tenant: str) -> None:
    entry = msgspec.structs.replace(ENTRY, tenant=tenant)
    assert means(f"tenant={pattern}", entry=entry) is bool(re.fullmatch(translate(pattern), tenant))
