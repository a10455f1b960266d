"""messages.mime: a message that is whole already, and the options beside it."""

from collections.abc import Sequence

from mta.content import compose
from mta.mail import headers
from relay_http.forms import FormPart
from relay_http.mailgun.options import read_options, reply_to_of
from relay_http.mailgun.parameters import Parameters
from relay_http.mailgun.request import MESSAGE_LIMIT, read_to, refuse_templates, too_large
from relay_http.mailgun.translate import Asked, headers_of
from relay_http.mailgun.values import recipient_variables
from relay_http.outgoing import NO_HEADERS, Outgoing
from relay_http.problem import invalid
from relay_http.whole import read_whole


def read_mime(form: Sequence[FormPart], now: float) -> Asked:
    """Read a request to `messages.mime`; Refusal 400 or 413. `now` is absolute seconds."""
    given = Parameters(form)
    to = read_to(given)
    octets = _message(given)
    refuse_templates(given)
    if recipient_variables(given.text("recipient-variables") or "{}"):
        raise invalid("'recipient-variables' parameter is not supported yet for MIME messages", "recipient-variables")
    options = read_options(given, now, batch=False)
    try:
        whole = read_whole(octets)
    except ValueError as error:
        raise invalid(f"'message' parameter: {error}", "message") from None
    own = headers_of(options, options.headers, options.variables)
    reply_to = reply_to_of(options.reply_to)
    message_id = next((value for name, value in own.items() if name.lower() == "message-id"), whole.message_id)
    message = Outgoing(
        sender=whole.sender,
        to=to,
        subject=whole.subject,
        headers={"Message-ID": message_id} if message_id else NO_HEADERS,
        raw=_with_fields(whole.octets, [*own, *(["Reply-To"] if reply_to else [])], compose.more_fields(own, reply_to)),
        categories=options.tags,
        custom_args=dict(options.variables) if options.variables else NO_HEADERS,
        release_at=options.release_at,
        deliver_within=options.within,
        tls_required=options.tls,
    )
    return Asked([message], sandbox=options.sandbox)


def _message(given: Parameters) -> bytes:
    """Take the message, which clients send as a file and as a field."""
    parts = [each for each in given.parts("message") if each.data]
    if len(parts) != 1:
        raise invalid("message parameter is missing" if not parts else "'message' parameter is given twice", "message")
    if len(parts[0].data) > MESSAGE_LIMIT:
        raise too_large()
    return bytes(parts[0].data)


def _with_fields(octets: bytes, names: Sequence[str], written: bytes) -> bytes:
    """Put fields before a message, in place of those of the same names."""
    if not names:
        return octets
    length = headers.header_length(octets)
    return written + headers.remove(octets[:length], [name.lower().encode() for name in names]) + octets[length:]
