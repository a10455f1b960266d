"""Which entries are meant: conditions such as `domain=example.com` and `age>2h`, all of which must hold. Pure.

| field | operators | value |
|---|---|---|
| tenant, domain, sender, recipient, category | `=` `!=` | a name; `*` is any characters; `<>` the null sender |
| class | `=` `!=` | high, normal, bulk |
| state | `=` `!=` | queued, held, in_flight |
| age | `>` `<` | since acceptance: 90s, 30m, 2h, 3d, 1w |

A recipient is one who waits; an entry that has him is meant with all its recipients.
"""

import re
from collections.abc import Callable, Sequence

from mta.mail.address import AddressError, a_label
from mta.spool.records import Claim, Entry, Message, MessageClass

_CONDITION = re.compile(r"([a-z]+)\s*(!=|=|<|>)\s*(.*)", re.DOTALL)
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_STATES = ("queued", "held", "in_flight")
_CLASSES = tuple(each.name.lower() for each in MessageClass)
_FIELDS = ("tenant", "domain", "sender", "recipient", "class", "state", "age", "category")

type_of_entry = Callable[[Entry, Claim | None], bool]
type_of_message = Callable[[Message, float], bool]


class WhereError(ValueError):
    """The text is no condition; the message says why, in words fit for a user."""


class Where:
    """Conditions, all of which must hold; none at all mean every entry. `given` is whether there is any."""

    def __init__(self, conditions: Sequence[str], tenant: str = "") -> None:
        """Read conditions on the entries of one tenant, or of all; WhereError at the first that is none."""
        self.given = bool(conditions)
        self.conditions = tuple(conditions)
        self._of_entry: list[type_of_entry] = []
        self._of_message: list[type_of_message] = []
        if tenant:
            self._of_entry.append(lambda entry, _: entry.tenant == tenant)
        for each in conditions:
            self._read(each)

    @property
    def asks_messages(self) -> bool:
        """Whether messages have to be read."""
        return bool(self._of_message)

    def admits_entry(self, entry: Entry, claim: Claim | None) -> bool:
        """Tell whether an entry may be meant, going by what is known without its message."""
        return all(holds(entry, claim) for holds in self._of_entry)

    def admits_message(self, message: Message, now: float) -> bool:
        """Tell whether the entries of a message may be meant."""
        return all(holds(message, now) for holds in self._of_message)

    def _read(self, condition: str) -> None:
        found = _CONDITION.fullmatch(condition.strip())
        field = found[1] if found else condition.strip()
        if field not in _FIELDS:
            raise WhereError(f"{condition[:64]!r}: conditions are of {', '.join(_FIELDS)}")
        if found is None:
            raise WhereError(f"{condition[:64]!r}: compared with what? A shell wants quotes around < and >: 'age>2h'")
        operator, value = found[2], found[3].strip()
        if (operator in "<>") is not (field == "age"):
            raise WhereError(f"{condition[:64]!r}: {field} takes {'< or >' if field == 'age' else '= or !='}")
        if field == "age":
            self._of_message.append(_age(operator, value))
        elif field == "sender":
            fits = _pattern("" if value == "<>" else value.casefold())
            self._of_message.append(_unless(operator, lambda message, _: fits(message.sender.casefold())))
        elif field == "category":
            fits = _pattern(value)
            self._of_message.append(_unless(operator, lambda message, _: any(map(fits, message.categories))))
        else:
            self._of_entry.append(_unless(operator, _entry_condition(field, value)))


def state_of(entry: Entry, claim: Claim | None) -> str:
    """Name the state of an entry that has not ended."""
    if claim is not None:
        return "in_flight"
    return "held" if entry.held else "queued"


def _entry_condition(field: str, value: str) -> type_of_entry:
    if field == "class":
        wanted = MessageClass[_one_of(field, value, _CLASSES).upper()]
        return lambda entry, _: entry.message_class is wanted
    if field == "state":
        state = _one_of(field, value, _STATES)
        return lambda entry, claim: state_of(entry, claim) == state
    if field == "recipient":
        fits = _pattern(value.casefold())
        return lambda entry, _: any(fits(each.recipient.address.casefold()) for each in entry.waiting)
    if field == "domain":
        try:
            value = a_label(value)
        except AddressError as error:
            raise WhereError(f"domain {value[:64]!r}: {error}") from None
        fits = _pattern(value)
        return lambda entry, _: fits(entry.domain)
    fits = _pattern(value)
    return lambda entry, _: fits(entry.tenant)


def _one_of(field: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise WhereError(f"{field} {value[:64]!r}: it is one of {', '.join(known)}")
    return value


def _age(operator: str, value: str) -> type_of_message:
    found = _DURATION.fullmatch(value)
    if found is None:
        raise WhereError(f"age {value[:64]!r}: it is a number with its unit: 90s, 30m, 2h, 3d or 1w")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if operator == ">":
        return lambda message, now: now - message.accepted_at > seconds
    return lambda message, now: now - message.accepted_at < seconds


def _unless(operator: str, holds: Callable[..., bool]) -> Callable[..., bool]:
    if operator == "=":
        return holds
    return lambda *about: not holds(*about)


def _pattern(text: str) -> Callable[[str], bool]:
    """Make a test for a text in which `*` stands for any characters."""
    first, *others = re.split(r"\*+", text)
    if not others:
        return lambda value: value == text
    *middle, last = others

    def fits(value: str) -> bool:
        if len(value) < len(first) + len(last) or not (value.startswith(first) and value.endswith(last)):
            return False
        at, end = len(first), len(value) - len(last)
        for part in middle:
            found = value.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return fits
