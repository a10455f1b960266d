"""The kinds of values in requests that JSON alone does not know: how each is read, and its JSON Schema.

msgspec asks `read_kind` for them wherever a request type names one, so what is read and what the OpenAPI document says
come from the same types. What is wrong is a ValueError whose text is fit for an answer.
"""

from collections.abc import Callable
from datetime import datetime
from typing import cast

from mta.content.compose import Mailbox
from mta.mail.address import AddressError
from relay_http.values import (
    ADDRESS_CHARS,
    BREAKS,
    NAME_CHARS,
    address,
    breaks,
    is_base64,
    is_content_id,
    mailbox,
    media_type,
    wrong_header,
    wrong_name,
)

METADATA_OCTETS = 10_000
HEADERS_LIMIT = 100
LINE_CHARS = 10_000
_LAST = 253_402_300_800  # absolute seconds: the end of the year 9999
_MEMBERS = {"address", "name"}


class WrongAt(ValueError):
    """What is wrong is at a path below the value."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path


class Box:
    """A mailbox: `a@b`, `Name <a@b>`, or an object of `address` and `name`."""

    __slots__ = ("mailbox",)

    def __init__(self, given: object) -> None:
        if isinstance(given, str):
            self.mailbox = mailbox(given)
            return
        if not isinstance(given, dict) or not all(isinstance(each, str) for each in given.values()):
            raise ValueError("It is an address, or an object of the texts address and name.")
        for name in given:
            if name not in _MEMBERS:
                raise WrongAt(str(name), "There is no such field.")
        wrong = wrong_name(given.get("name", ""))
        if wrong:
            raise WrongAt("name", wrong)
        try:
            self.mailbox = Mailbox(address(given.get("address", "")), given.get("name", ""))
        except AddressError as error:
            raise WrongAt("address", str(error)) from None


class ReturnPath:
    """An address for MAIL FROM, or "" for the null reverse-path."""

    __slots__ = ("text",)

    def __init__(self, given: object) -> None:
        self.text = address(_text(given)) if given != "" else ""


class Line:
    """A text that goes into a header field."""

    __slots__ = ("text",)

    def __init__(self, given: object) -> None:
        self.text = _text(given)
        if len(self.text) > LINE_CHARS:
            raise ValueError(f"At most {LINE_CHARS} characters.")
        if breaks(self.text):
            raise ValueError(BREAKS)


class Moment:
    """A time: absolute seconds, or ISO 8601 with its offset from UTC."""

    __slots__ = ("at",)

    def __init__(self, given: object) -> None:
        number = given if isinstance(given, int | float) and not isinstance(given, bool) else _seconds(_text(given))
        if not 0 < number < _LAST:
            raise ValueError("Not a time of this era.")
        self.at = float(number)


class Encoded:
    """Octets in base64 (RFC 4648 4)."""

    __slots__ = ("text",)

    def __init__(self, given: object) -> None:
        self.text = _text(given)
        if not is_base64(self.text):
            raise ValueError("It must be base64 of the plain alphabet, padded, without line breaks.")


class MediaType:
    """A media type with its parameters, but for the charset, which is UTF-8."""

    __slots__ = ("text",)

    def __init__(self, given: object) -> None:
        self.text = media_type(_text(given), "charset")


class PartType(MediaType):
    """The media type of a text: none that has others in it."""

    __slots__ = ()

    def __init__(self, given: object) -> None:
        super().__init__(given)
        if self.text.startswith(("multipart/", "message/")):
            raise ValueError("A multipart or message type cannot be a part.")


class ContentId:
    """A Content-ID, with or without its angle brackets."""

    __slots__ = ("text",)

    def __init__(self, given: object) -> None:
        self.text = _text(given).removeprefix("<").removesuffix(">")
        if not is_content_id(self.text):
            raise ValueError("A Content-ID is 1 to 255 printable ASCII characters without spaces, < and >.")


class Headers:
    """The caller's own header fields."""

    __slots__ = ("fields",)

    def __init__(self, given: object) -> None:
        self.fields = _texts(given)
        if len(self.fields) > HEADERS_LIMIT:
            raise ValueError(f"At most {HEADERS_LIMIT} header fields.")
        for name, value in self.fields.items():
            wrong = wrong_header(name, value)
            if wrong:
                raise WrongAt(name, wrong)

    def over(self, below: "Headers") -> "Headers":
        """Merge with others, of which these win, whatever the case of their names."""
        fields = {name.lower(): (name, text) for each in (below, self) for name, text in each.fields.items()}
        return Headers(dict(fields.values()))


class Metadata:
    """What a caller wants to find in the events of a message again."""

    __slots__ = ("octets", "texts")

    def __init__(self, given: object) -> None:
        self.texts = _texts(given)
        self.octets = _octets(self.texts)
        _check(self.octets)

    def over(self, below: "Metadata") -> "Metadata":
        """Merge with others, of which these win, without counting all again: a thousand may be over the same."""
        found = Metadata({})
        found.texts = {**below.texts, **self.texts}
        hidden = {name: below.texts[name] for name in self.texts if name in below.texts}
        found.octets = self.octets + below.octets - _octets(hidden)
        _check(found.octets)
        return found


def _octets(texts: dict[str, str]) -> int:
    return sum([len(name.encode()) + len(text.encode()) for name, text in texts.items()])


def _check(octets: int) -> None:
    if octets > METADATA_OCTETS:
        raise ValueError(f"At most {METADATA_OCTETS} octets of names and texts.")


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError("It must be a string.")  # noqa: TRY004 - what msgspec takes for a problem of the request
    return given


def _texts(given: object) -> dict[str, str]:
    if not isinstance(given, dict):
        raise ValueError("It must be an object of strings.")  # noqa: TRY004 - as above
    for name, text in given.items():
        if not isinstance(text, str):
            raise WrongAt(str(name), "It must be a string.")
    return given


def _seconds(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("A time is absolute seconds, or like 2027-01-31T09:00:00Z.")
    return found.timestamp()


type_kind = Callable[[object], object]

_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_SCHEMAS: dict[type, dict[str, object]] = {
    Box: {
        "description": "An address, `Name <address>`, or both apart.",
        "oneOf": [
            {"type": "string", "pattern": "[^ ]@[^ ]", "maxLength": NAME_CHARS + ADDRESS_CHARS},
            {
                "type": "object",
                "properties": {
                    "address": {"type": "string", "pattern": "[^ ]@[^ ]", "maxLength": ADDRESS_CHARS},
                    "name": {"type": "string", "maxLength": NAME_CHARS},
                },
                "required": ["address"],
                "additionalProperties": False,
            },
        ],
    },
    ReturnPath: {"type": "string", "maxLength": ADDRESS_CHARS, "description": "An address; empty for none."},
    Line: {"type": "string", "maxLength": LINE_CHARS, "description": "Without line breaks."},
    Moment: {
        "description": "Absolute seconds, or ISO 8601 with an offset.",
        "oneOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "format": "date-time"}],
    },
    Encoded: {"type": "string", "contentEncoding": "base64"},
    MediaType: {"type": "string", "maxLength": 255, "examples": ["application/pdf"]},
    PartType: {"type": "string", "maxLength": 255, "examples": ["text/calendar; method=REQUEST"]},
    ContentId: {"type": "string", "minLength": 1, "maxLength": 257},
    Headers: {**_STRINGS, "maxProperties": HEADERS_LIMIT},
    Metadata: {**_STRINGS, "description": f"At most {METADATA_OCTETS} octets."},
}


def read_kind(kind: type, given: object) -> object:
    """Read a value of one of the kinds; ValueError."""
    if kind not in _SCHEMAS:
        raise NotImplementedError(kind)
    return cast("type_kind", kind)(given)


def schema_of_kind(kind: type) -> dict[str, object]:
    """Return the JSON Schema of a kind."""
    return dict(_SCHEMAS[kind])
