"""A valid mail/send request into messages: one for each personalization, whose scalars replace those of the request
and whose maps are merged key by key. Pure.
"""

from relay_http.outgoing import Outgoing
from relay_http.sendgrid.request import MailSend, Personalization


def translate(request: MailSend) -> list[Outgoing]:
    """Say what is to be sent."""
    return [_outgoing(request, each) for each in request.personalizations]


def _outgoing(request: MailSend, each: Personalization) -> Outgoing:
    return Outgoing(
        sender=each.sender or request.sender,
        to=each.to,
        cc=each.cc,
        bcc=each.bcc,
        reply_to=request.reply_to,
        subject=each.subject or request.subject,
        headers=_headers(request.headers, each.headers) if each.headers else request.headers,
        parts=request.parts,
        attachments=request.attachments,
        categories=request.categories,
        custom_args={**request.custom_args, **each.custom_args} if each.custom_args else request.custom_args,
    )


def _headers(below: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """Merge header fields by their names in any case; the personalization's win."""
    return dict({name.lower(): (name, value) for name, value in (*below.items(), *own.items())}.values())
