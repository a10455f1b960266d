"""Placeholders: `%recipient.key%` and its kin in texts, filled for each recipient of a batch. Pure.

A key may have any characters but `%` (anymail has `%recipient.v:order%`). One pass: what is filled in is not looked
through. What nobody has a value for stays as it stands.
"""

from collections.abc import Mapping

from mta.content.compose import Mailbox
from relay_http.problem import invalid

_MARK = "%recipient"
_NAME_CHARS = 256
MARKS_LIMIT = 10_000  # in a text
_OF_EACH = ("", "_email", "_name", "_fname", "_lname")


class Template:
    """A text, cut up once: literals are the even pieces, names the odd ones. Refusal 400 for too many of these."""

    def __init__(self, text: str) -> None:
        if _MARK in text and text.count(_MARK) > MARKS_LIMIT:
            raise invalid(f"at most {MARKS_LIMIT} placeholders are allowed in a text")
        self.text = text
        self._pieces = _cut(text) if _MARK in text else [text]

    @property
    def fixed(self) -> bool:
        """Whether it is the same for all."""
        return len(self._pieces) == 1

    def size(self, values: Mapping[str, str]) -> int:
        """Tell how many characters it would be, about."""
        return len(self.text) + sum([len(values.get(name, "")) for name in self._pieces[1::2]])

    def fill(self, values: Mapping[str, str]) -> str:
        """Fill it for one recipient."""
        pieces = self._pieces
        if len(pieces) == 1:
            return self.text
        filled = [values.get(each, f"{_MARK}{each}%") if n % 2 else each for n, each in enumerate(pieces)]
        return "".join(filled)


def values_of(mailbox: Mailbox, own: Mapping[str, str]) -> dict[str, str]:
    """Name what can be filled in for a recipient."""
    first, _, last = mailbox.name.partition(" ")
    whole = f"{mailbox.name} <{mailbox.address}>" if mailbox.name else mailbox.address
    return {
        "": whole,
        "_email": mailbox.address,
        "_name": mailbox.name,
        "_fname": first,
        "_lname": last.strip(),
        **{f".{name}": value for name, value in own.items()},
    }


def _cut(text: str) -> list[str]:
    pieces: list[str] = []
    begun = at = 0
    while (at := text.find(_MARK, at)) >= 0:
        start = at + len(_MARK)
        end = text.find("%", start)
        if end < 0:
            break
        name = text[start:end]
        if name in _OF_EACH or (name.startswith(".") and len(name) <= _NAME_CHARS):
            pieces += (text[begun:at], name)
            begun = at = end + 1
        else:
            at = start
    return [*pieces, text[begun:]]
