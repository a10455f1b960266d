"""Messages as they are asked for into messages as they are sent; what is wrong between fields is noted. Pure."""

from binascii import a2b_base64
from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from mta.content.compose import Attachment, Mailbox, Part
from mta.spool.records import MessageClass
from relay_http.fields import Problems
from relay_http.outgoing import NO_HEADERS, Outgoing
from relay_http.own.kinds import Box, Headers, Metadata
from relay_http.own.letter import RECIPIENTS_LIMIT, Batch, Letter, Mail, Retrying, given
from relay_http.problem import Refusal, invalid
from relay_http.whole import Whole, read_whole

_CONTENT = ("text", "html", "parts")
_WITHOUT_RAW = ("from_", "reply_to", "subject", *_CONTENT, "attachments", "headers")
_NOTHING: tuple[Box, ...] = ()
_AS_CONFIGURED = Retrying()


class Times(msgspec.Struct, frozen=True):
    """When a request comes, and how many seconds a message may wait for its release and may live from there on."""

    now: float
    hold: float
    lifetime: float


def translate_mail(mail: Mail, times: Times) -> list[Outgoing]:
    """Say what is to be sent; Refusal 400 with all that is wrong."""
    return _translated([mail], None, times, [""])


def translate_batch(batch: Batch, times: Times) -> list[Outgoing]:
    """Say what is to be sent; Refusal 400 with all that is wrong."""
    common = given(batch.common, None)
    if common is not None and common.raw is not UNSET:
        raise invalid("It is each message's own.", "common.raw")
    return _translated(batch.messages, common, times, [f"messages.{number}" for number in range(len(batch.messages))])


def _translated(letters: Sequence[Letter], common: Letter | None, times: Times, paths: Sequence[str]) -> list[Outgoing]:
    problems = Problems()
    made = _Made(problems)
    sent: list[Outgoing] = []
    recipients = 0
    for letter, path in zip(letters, paths, strict=True):
        merged = letter if common is None else _merged(letter, common, path, problems)
        _look(merged, path, problems, times)
        recipients += sum(len(given(each, _NOTHING)) for each in (merged.to, merged.cc, merged.bcc))
        outgoing = made.outgoing(merged, path)
        if outgoing is not None:
            sent.append(outgoing)
    if recipients > RECIPIENTS_LIMIT:
        problems.add("", f"At most {RECIPIENTS_LIMIT} recipients in a request; there are {recipients}.")
    if problems.found:
        raise Refusal(400, *problems.found)
    return sent


def _merged(letter: Letter, common: Letter, path: str, problems: Problems) -> Letter:
    """Give a message what it does not say itself. What a message is made of comes whole from one of the two.

    What both together have too much of is noted.
    """
    changes: dict[str, object] = {}
    own = {name: getattr(letter, name) for name in Letter.__struct_fields__}
    says_content = any(own[name] is not UNSET for name in _CONTENT)
    for name, value in own.items():
        below = getattr(common, name)
        if below is UNSET or (says_content and name in _CONTENT):
            continue
        if value is UNSET:
            changes[name] = below
        elif isinstance(value, Headers | Metadata):
            try:
                changes[name] = value.over(below)
            except ValueError as error:
                problems.add(f"{path}.{name}", str(error))
    return msgspec.structs.replace(letter, **changes) if changes else letter


def _look(letter: Letter, path: str, problems: Problems, times: Times) -> None:
    """Note what is wrong between fields."""

    def note(name: str, said: str) -> None:
        name = name.rstrip("_")
        problems.add(f"{path}.{name}" if path else name, said)

    if letter.raw is not UNSET:
        for name in _WITHOUT_RAW:
            if getattr(letter, name) is not UNSET:
                note(name, "It is not given beside raw, which has all of it.")
    elif letter.from_ is UNSET:
        note("from", "It is required.")
    if not any(given(each, _NOTHING) for each in (letter.to, letter.cc, letter.bcc)):
        note("to", "A message needs a recipient in to, cc or bcc.")
    if letter.raw is UNSET and all(getattr(letter, name) in (UNSET, ()) for name in _CONTENT):
        note("text", "A message needs text, html, parts or raw.")
    send_at = letter.send_at.at if letter.send_at is not UNSET else 0.0
    if send_at > times.now + times.hold:
        note("send_at", f"At most {times.hold:.0f} seconds ahead.")
    if letter.deliver_by is not UNSET and letter.deliver_by.at <= max(send_at, times.now):
        note("deliver_by", "It is over before the message can be sent.")
    if given(_retrying(letter).lifetime, 0.0) > times.lifetime:
        note("retry.lifetime", f"At most {times.lifetime:.0f} seconds.")


def _retrying(letter: Letter) -> Retrying:
    return given(letter.retry, _AS_CONFIGURED)


class _Made:
    """What messages of a request are made of, what they have in common made once."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._parts: dict[tuple[int, ...], tuple[Part, ...]] = {}
        self._files: dict[int, tuple[Attachment, ...]] = {}
        self._whole: dict[int, Whole | None] = {}

    def outgoing(self, letter: Letter, path: str) -> Outgoing | None:
        """Make a message; None if that cannot be."""
        whole = self._read_whole(letter, path)
        if whole is None and (letter.raw is not UNSET or letter.from_ is UNSET):
            return None
        sender = whole.sender if whole is not None else given(letter.from_, Box("nobody@invalid")).mailbox
        subject = given(letter.subject, None)
        headers = given(letter.headers, None)
        metadata = given(letter.metadata, None)
        fields = headers.fields if headers is not None else NO_HEADERS
        if whole is not None and whole.message_id:
            fields = {"Message-ID": whole.message_id}
        return_path = given(letter.return_path, None)
        return Outgoing(
            sender=sender,
            to=_mailboxes(given(letter.to, _NOTHING)),
            cc=_mailboxes(given(letter.cc, _NOTHING)),
            bcc=_mailboxes(given(letter.bcc, _NOTHING)),
            reply_to=_mailboxes(given(letter.reply_to, _NOTHING)),
            subject=whole.subject if whole is not None else subject.text if subject is not None else "",
            headers=fields,
            parts=self._read_parts(letter),
            attachments=self._read_files(letter),
            raw=whole.octets if whole is not None else b"",
            categories=given(letter.tags, ()),
            custom_args=metadata.texts if metadata is not None else NO_HEADERS,
            message_class=MessageClass[given(letter.class_, "normal").upper()],
            release_at=letter.send_at.at if letter.send_at is not UNSET else 0.0,
            deliver_by=letter.deliver_by.at if letter.deliver_by is not UNSET else 0.0,
            batch=given(letter.batch, ""),
            retry_intervals=given(_retrying(letter).intervals, ()),
            lifetime=given(_retrying(letter).lifetime, 0.0),
            tls_required="yes" if letter.tls == "require" else "",
            envelope_sender=return_path.text if return_path is not None else None,
        )

    def _read_whole(self, letter: Letter, path: str) -> Whole | None:
        raw = given(letter.raw, None)
        if raw is None:
            return None
        if id(raw) not in self._whole:
            self._whole[id(raw)] = None
            try:
                self._whole[id(raw)] = read_whole(a2b_base64(raw.text))
            except ValueError as error:
                self._problems.add(f"{path}.raw" if path else "raw", str(error))
        return self._whole[id(raw)]

    def _read_parts(self, letter: Letter) -> tuple[Part, ...]:
        key = id(letter.text), id(letter.html), id(letter.parts)
        found = self._parts.get(key)
        if found is None:
            texts = [("text/plain", letter.text), ("text/html", letter.html)]
            parts = [Part(kind, text) for kind, text in texts if isinstance(text, str)]
            found = (*parts, *[Part(each.type.text, each.content) for each in given(letter.parts, ())])
            self._parts[key] = found
        return found

    def _read_files(self, letter: Letter) -> tuple[Attachment, ...]:
        found = self._files.get(id(letter.attachments))
        if found is None:
            found = self._files[id(letter.attachments)] = tuple(
                [
                    Attachment(
                        encoded=each.content.text,
                        media_type=each.type.text if each.type is not UNSET else "application/octet-stream",
                        filename=each.filename.text if each.filename is not UNSET else "",
                        content_id=each.content_id.text if each.content_id is not UNSET else "",
                        inline=each.inline,
                    )
                    for each in given(letter.attachments, ())
                ]
            )
        return found


def _mailboxes(boxes: tuple[Box, ...]) -> tuple[Mailbox, ...]:
    return tuple([each.mailbox for each in boxes])
