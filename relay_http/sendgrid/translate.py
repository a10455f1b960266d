"""A valid mail/send request into messages: one for each personalization, whose scalars replace those of the request
and whose maps are merged key by key. Pure.
"""

import msgspec

from mta.content.compose import Mailbox, Part
from mta.mail.address import AddressError
from relay_http.outgoing import Outgoing
from relay_http.problem import invalid
from relay_http.sendgrid.request import MailSend, Personalization
from relay_http.sendgrid.substitution import Substitution, Work
from relay_http.values import BREAKS, address, breaks, wrong_name


def translate(request: MailSend) -> list[Outgoing]:
    """Say what is to be sent; Refusal 400 or 413 for what substitutions make of it."""
    headers = _by_lower_name(request.headers)
    found = [_outgoing(request, headers, each) for each in request.personalizations]
    if request.bcc is not None:
        found[0] = msgspec.structs.replace(found[0], bcc=(*found[0].bcc, request.bcc))
    if request.substitutes:
        work = Work()
        for number, each in enumerate(request.personalizations):
            put = Substitution(each.substitutions, request.sections, work)
            found[number] = _substituted(found[number], put, f"personalizations.{number}.substitutions")
    return found


def _outgoing(request: MailSend, headers: dict[str, tuple[str, str]], each: Personalization) -> Outgoing:
    return Outgoing(
        sender=each.sender or request.sender,
        to=each.to,
        cc=each.cc,
        bcc=each.bcc,
        reply_to=request.reply_to,
        subject=each.subject or request.subject,
        headers=dict({**headers, **_by_lower_name(each.headers)}.values()) if each.headers else request.headers,
        parts=request.parts,
        attachments=request.attachments,
        categories=request.categories,
        custom_args={**request.custom_args, **each.custom_args} if each.custom_args else request.custom_args,
        release_at=request.send_at if each.send_at is None else each.send_at,
        batch=request.batch,
    )


def _by_lower_name(headers: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Have header fields by their names in any case: a personalization's win over the request's."""
    return {name.lower(): (name, value) for name, value in headers.items()}


def _substituted(outgoing: Outgoing, put: Substitution, path: str) -> Outgoing:
    subject = put(outgoing.subject)
    if breaks(subject):
        raise invalid(f"They make a subject that is none. {BREAKS}", path)
    parts = tuple([_part(each, put) for each in outgoing.parts])
    return msgspec.structs.replace(
        outgoing,
        subject=subject,
        # what did not change stays the same object, and is written once
        parts=outgoing.parts if all(map(_same, parts, outgoing.parts)) else parts,
        reply_to=tuple([_mailbox(each, put, path) for each in outgoing.reply_to]),
    )


def _same(one: Part, other: Part) -> bool:
    return one is other


def _part(part: Part, put: Substitution) -> Part:
    text = put(part.text)
    return part if text is part.text else Part(part.media_type, text)


def _mailbox(mailbox: Mailbox, put: Substitution, path: str) -> Mailbox:
    text, name = put(mailbox.address), put(mailbox.name)
    if text is mailbox.address and name is mailbox.name:
        return mailbox
    wrong = wrong_name(name)
    if wrong:
        raise invalid(f"They make a reply_to that is none. {wrong}", path)
    try:
        return Mailbox(address(text), name)
    except AddressError as error:
        raise invalid(f"They make a reply_to that is none: {error}", path) from None
