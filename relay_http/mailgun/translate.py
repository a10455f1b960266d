"""A valid request into messages: one, or in a batch one for each of `to`, with placeholders filled. Pure.

What is the same for all of a batch is the same object in all of them: the attachments, and texts without placeholders.
"""

from collections.abc import Iterator, Mapping

import msgspec

from mta.content.compose import Mailbox, Part
from relay_http.mailgun.options import VARIABLES_FIELD, Options, reply_to_of
from relay_http.mailgun.placeholders import Template, values_of
from relay_http.mailgun.request import Letter, too_large
from relay_http.mailgun.values import check_header
from relay_http.outgoing import NO_HEADERS, Outgoing
from relay_http.problem import invalid
from relay_http.values import BREAKS, breaks
from relay_http.writing import TEXTS_LIMIT


class Asked(msgspec.Struct, frozen=True):
    """What a request comes to. `filled` is how many characters a batch has made of its placeholders."""

    messages: list[Outgoing]
    sandbox: bool
    batch: bool = False
    filled: int = 0


def translate(letter: Letter) -> Asked:
    """Say what is to be sent; Refusal 400 for what a batch fills in wrongly, 413 for too much of it."""
    sandbox = letter.options.sandbox
    if letter.variables is None:
        return Asked([_one(letter)], sandbox)
    batch = _Batch(letter)
    return Asked(list(batch.messages()), sandbox, batch=True, filled=batch.filled)


def headers_of(options: Options, headers: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Add to header fields the one that shows the variables."""
    if not variables or not options.shows_variables:
        return dict(headers) if headers else NO_HEADERS
    return {**headers, VARIABLES_FIELD: msgspec.json.encode(variables).decode()}


def _one(letter: Letter) -> Outgoing:
    options = letter.options
    return Outgoing(
        sender=letter.sender,
        to=letter.to,
        cc=letter.cc,
        bcc=letter.bcc,
        reply_to=reply_to_of(options.reply_to),
        subject=letter.subject,
        headers=headers_of(options, options.headers, options.variables),
        parts=letter.parts,
        attachments=letter.attachments,
        categories=options.tags,
        custom_args=dict(options.variables) if options.variables else NO_HEADERS,
        release_at=options.release_at,
        deliver_within=options.within,
        tls_required=options.tls,
    )


class _Batch:
    """Everything with placeholders, cut up once."""

    def __init__(self, letter: Letter) -> None:
        options = letter.options
        self.filled = 0  # characters
        self._letter = letter
        self._shared = _one(msgspec.structs.replace(letter, options=msgspec.structs.replace(options, reply_to="")))
        self._subject = Template(letter.subject)
        self._headers = {name: Template(value) for name, value in options.headers.items()}
        self._reply_to = Template(options.reply_to)
        self._fixed_reply_to = reply_to_of(options.reply_to) if self._reply_to.fixed else ()
        self._variables = {name: Template(value) for name, value in options.variables.items()}
        self._texts = [(part, Template(part.text)) for part in letter.parts]
        self._same_texts = all(template.fixed for _, template in self._texts)
        fields = (*self._headers.values(), *self._variables.values())
        self._same_fields = all(each.fixed for each in fields)
        templates = (self._subject, self._reply_to, *fields, *[each for _, each in self._texts])
        self._measured = [each for each in templates if not each.fixed]

    def messages(self) -> Iterator[Outgoing]:
        """Make the message of each recipient."""
        given = self._letter.variables or {}
        for each in self._letter.to:
            values = values_of(each, given.get(each.address.lower(), NO_HEADERS))
            self.filled += sum([template.size(values) for template in self._measured])
            if self.filled > TEXTS_LIMIT:
                raise too_large()
            yield self._message(each, values)

    def _message(self, to: Mailbox, values: Mapping[str, str]) -> Outgoing:
        shared = self._shared
        headers, custom_args = shared.headers, shared.custom_args
        if not self._same_fields:
            custom_args = {name: each.fill(values) for name, each in self._variables.items()}
            headers = headers_of(self._letter.options, dict(self._filled(values)), custom_args)
        subject = self._subject.fill(values)
        if not self._subject.fixed and breaks(subject):
            raise invalid(f"'recipient-variables' parameter, in the subject of {to.address}: {BREAKS}", "subject")
        return msgspec.structs.replace(
            shared,
            to=(to,),
            reply_to=self._fixed_reply_to if self._reply_to.fixed else reply_to_of(self._reply_to.fill(values)),
            subject=subject,
            headers=headers,
            parts=shared.parts if self._same_texts else self._parts(values),
            custom_args=custom_args,
        )

    def _filled(self, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Fill header fields; one that comes out empty is left out."""
        for name, template in self._headers.items():
            value = template.fill(values)
            if value:
                if not template.fixed:
                    check_header(name, value)
                yield name, value

    def _parts(self, values: Mapping[str, str]) -> tuple[Part, ...]:
        return tuple([part if each.fixed else Part(part.media_type, each.fill(values)) for part, each in self._texts])
