"""What may be asked for: a message, several with what they have in common, and what is asked of one that is there.

The types say what each field is; what is between fields is looked at in translate.py. A field that is not given is
UNSET: null is none of the values of any.
"""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from relay_http.own.kinds import (
    Box,
    ContentId,
    Encoded,
    Headers,
    Line,
    MediaType,
    Metadata,
    Moment,
    PartType,
    ReturnPath,
)

RECIPIENTS_LIMIT = 1000  # in a request, all of its messages together
MESSAGES_LIMIT = 1000
PARTS_LIMIT = 10
ATTACHMENTS_LIMIT = 1000

Boxes = Annotated[tuple[Box, ...], Meta(max_length=RECIPIENTS_LIMIT)]
Tag = Annotated[str, Meta(min_length=1, max_length=255)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=10)]
Text = Annotated[str, Meta(max_length=30_000_000)]
_Set = TypeVar("_Set")


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rendering of the text, such as `text/calendar`."""

    type: PartType
    content: Text


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attachment. One that is `inline` is shown where the html names its `content_id` (`cid:logo`)."""

    content: Encoded
    filename: Line | UnsetType = UNSET
    type: MediaType | UnsetType = UNSET
    content_id: ContentId | UnsetType = UNSET
    inline: bool = False


class Retrying(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to try again, in seconds after each failure (the last over and over), and for how long from the release on.

    What is not given is as the relay has it.
    """

    intervals: (
        Annotated[tuple[Annotated[float, Meta(ge=5, le=86_400)], ...], Meta(min_length=1, max_length=50)] | UnsetType
    ) = UNSET
    lifetime: Annotated[float, Meta(ge=60)] | UnsetType = UNSET


class Letter(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from", "class_": "class"}
):
    """A message: whom it is from and for, and what it says; or with `raw` all of that but for whom it is for.

    `class` is how urgent it is against others of the same tenant, `tls: require` sends it with REQUIRETLS (RFC 8689) or
    not at all. What has not been delivered by `deliver_by` expires.
    """

    from_: Box | UnsetType = UNSET
    to: Boxes | UnsetType = UNSET
    cc: Boxes | UnsetType = UNSET
    bcc: Boxes | UnsetType = UNSET
    reply_to: Boxes | UnsetType = UNSET
    subject: Line | UnsetType = UNSET
    text: Text | UnsetType = UNSET
    html: Text | UnsetType = UNSET
    parts: Annotated[tuple[Content, ...], Meta(max_length=PARTS_LIMIT)] | UnsetType = UNSET
    attachments: Annotated[tuple[File, ...], Meta(max_length=ATTACHMENTS_LIMIT)] | UnsetType = UNSET
    headers: Headers | UnsetType = UNSET
    raw: Encoded | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    class_: Literal["high", "normal", "bulk"] | UnsetType = UNSET
    send_at: Moment | UnsetType = UNSET
    deliver_by: Moment | UnsetType = UNSET
    batch: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    retry: Retrying | UnsetType = UNSET
    tls: Literal["opportunistic", "require"] | UnsetType = UNSET
    return_path: ReturnPath | UnsetType = UNSET


class Mail(Letter, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from", "class_": "class"}):
    """The body of POST /v1/mail. `sandbox` does all but deliver; `dry_run` says what would come of it."""

    sandbox: bool = False
    dry_run: bool = False


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/mail/batch: all or none. What a message does not say itself it has from `common`.

    Header fields and metadata are merged name by name; text, html, parts and attachments in `common` are stored once.
    """

    messages: Annotated[tuple[Letter, ...], Meta(min_length=1, max_length=MESSAGES_LIMIT)]
    common: Letter | UnsetType = UNSET
    sandbox: bool = False


class Reschedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/mail/{id}/reschedule. A time that has passed means now."""

    send_at: Moment


class Resend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/mail/{id}/resend: to whom instead of everybody that it was for."""

    to: Boxes | UnsetType = UNSET


def given(value: _Set | UnsetType, default: _Set) -> _Set:
    """Return a value, or the default where it was not given."""
    return default if isinstance(value, UnsetType) else value
