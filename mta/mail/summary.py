"""What lists and searches show of a message beside its envelope: told once, by its `accepted` event."""

import re
from binascii import Error, a2b_base64, a2b_qp
from itertools import groupby

import msgspec

SUBJECT_CHARS = 255
SHOWN_CHARS = 320  # of a header's addresses
FILES_SHOWN = 20


class FileShown(msgspec.Struct, frozen=True, array_like=True):
    """An attachment, without its content. `size` is in octets, decoded."""

    name: str
    media_type: str
    size: int
    inline: bool = False


class Summary(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a message says of itself. New fields go to the end: stored events hold it.

    `subject`, `from_` and `to` are as the header shows them, decoded and cut off; in the log, those of SMTP are as they
    stood there (`decoded` does the rest). `dialect` is what it was sent in ("" for SMTP), `key` the id of the API key.
    """

    subject: str = ""
    from_: str = ""
    to: str = ""
    dialect: str = ""
    key: str = ""
    files: tuple[FileShown, ...] = ()


NOTHING = Summary()


def summary_json(summary: Summary) -> dict[str, object]:
    """Show a summary as events do."""
    shown = msgspec.structs.asdict(summary)
    files = [msgspec.structs.asdict(each) for each in summary.files]
    return {name.rstrip("_"): value for name, value in shown.items()} | {"files": files}


_RAW = 3  # octets in the header for each character that is shown, when it is encoded
_WORD = r"=\?([!->@-~]{1,40})\?([BbQq])\?([ !->@-~]*)\?="  # RFC 2047 2, and the spaces that some leave in it
_ENCODED_WORD = re.compile(_WORD)
_RUN = re.compile(rf"{_WORD}(?:\s*{_WORD})*")  # RFC 2047 6.2: white space between encoded words is not shown


def of_header(subject: bytes, from_: bytes, to: bytes) -> Summary:
    """Make the summary of a message that came by SMTP from unfolded values of its header, b"" for what it lacks.

    PERF: it is on the way of every message, so decoding is left to whoever shows it.
    """
    return Summary(
        subject=subject[: _RAW * SUBJECT_CHARS].decode("utf-8", "replace"),
        from_=from_[: _RAW * SHOWN_CHARS].decode("utf-8", "replace"),
        to=to[: _RAW * SHOWN_CHARS].decode("utf-8", "replace"),
    )


def decoded(summary: Summary) -> Summary:
    """Decode the encoded words of what `of_header` made, and cut it off. Never raises."""
    return msgspec.structs.replace(
        summary,
        subject=decode_words(summary.subject)[:SUBJECT_CHARS],
        from_=decode_words(summary.from_)[:SHOWN_CHARS],
        to=decode_words(summary.to)[:SHOWN_CHARS],
    )


def decode_words(text: str) -> str:
    """Decode encoded words (RFC 2047) wherever they stand, as most readers do; what is none stays as it is."""
    return _RUN.sub(_run, text) if "=?" in text else text


def _run(found: re.Match[str]) -> str:
    """Decode words that follow each other; characters may be cut in two between those of one charset."""
    octets = [
        (charset.partition("*")[0].lower(), _octets(encoding, data)) for charset, encoding, data in _words(found[0])
    ]
    try:
        return "".join(
            b"".join(each for _, each in several).decode(charset, "replace")
            for charset, several in groupby(octets, lambda each: each[0])
        )
    except (LookupError, ValueError):  # no such charset, or not one of text
        return found[0]


def _words(text: str) -> list[tuple[str, str, str]]:
    return _ENCODED_WORD.findall(text)


def _octets(encoding: str, data: str) -> bytes:
    if encoding in "Qq":
        return a2b_qp(data, header=True)
    try:
        return a2b_base64(data + "=" * (-len(data) % 4))
    except Error:
        return b"?"
