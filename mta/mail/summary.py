"""What lists and searches show of a message beside its envelope: told once, by its `accepted` event."""

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

    `subject`, `from_` and `to` are as the header shows them, decoded and cut off; `dialect` is what it was sent in (""
    for SMTP) and `key` the id of the API key.
    """

    subject: str = ""
    from_: str = ""
    to: str = ""
    dialect: str = ""
    key: str = ""
    files: tuple[FileShown, ...] = ()


NOTHING = Summary()
