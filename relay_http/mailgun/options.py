"""What both ways to send have in common: the o:, h: and v: parameters."""

from collections.abc import Mapping

import msgspec

from mta.content.compose import Mailbox
from relay_http.mailgun.parameters import Parameters
from relay_http.mailgun.placeholders import Template
from relay_http.mailgun.values import addresses, check_header, date, duration, flag, variables
from relay_http.problem import invalid

TAGS_LIMIT = 10
TAG_CHARS = 128
AHEAD_LIMIT = 7 * 86_400.0  # seconds from now until a message goes out, at most
WITHIN = 300.0, 86_400.0  # seconds from then on in which it may be delivered
VARIABLES_FIELD = "X-Mailgun-Variables"
_TRACKING = ("o:tracking", "o:tracking-clicks", "o:tracking-opens", "o:tracking-pixel-location-top")
_UNSUPPORTED = ("o:deliverytime-optimize-period", "o:time-zone-localize", "o:archive-to")
_REPLY_TO = "reply-to"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How messages are to be sent.

    `within` is in seconds from when they may go out. `reply_to` is the text of h:Reply-To; it, headers and `variables`
    may have placeholders of a batch, and are not looked at where they have. `shows_variables`: in a header field.
    """

    tags: tuple[str, ...]
    sandbox: bool
    release_at: float
    within: float
    tls: str
    headers: Mapping[str, str]
    reply_to: str
    variables: Mapping[str, str]
    shows_variables: bool


def read_options(given: Parameters, now: float, *, batch: bool) -> Options:
    """Read the options; Refusal 400. `now` is absolute seconds."""
    _refuse_unsupported(given)
    release_at, within = _times(given, now)
    headers, reply_to, own = _headers(given, batch=batch)
    hidden = given.text("o:suppress-headers").lower()
    own.update(given.prefixed("v:"))
    return Options(
        tags=_tags(given),
        sandbox=flag("o:testmode", given.text("o:testmode")),
        release_at=release_at,
        within=within,
        tls=_tls(given),
        headers=headers,
        reply_to=reply_to,
        variables=own,
        shows_variables=not (hidden == "all" or VARIABLES_FIELD.lower() in hidden),
    )


def reply_to_of(text: str) -> tuple[Mailbox, ...]:
    """Read the addresses of h:Reply-To."""
    return addresses("h:Reply-To", [text]) if text else ()


def _refuse_unsupported(given: Parameters) -> None:
    for name in _TRACKING:
        text = given.text(name)
        if text.lower() == "htmlonly" or flag(name, text):
            raise invalid(f"'{name}' parameter: tracking is not supported yet", name)
    for name in _UNSUPPORTED:
        if given.text(name):
            raise invalid(f"'{name}' parameter is not supported yet", name)
    if given.text("o:dkim") and not flag("o:dkim", given.text("o:dkim")):
        raise invalid("'o:dkim' parameter: mail of a registered domain is always signed", "o:dkim")


def _tags(given: Parameters) -> tuple[str, ...]:
    """Read the tags, each once in whatever case."""
    tags = tuple({each.lower(): each for each in given.texts("o:tag")}.values())
    if len(tags) > TAGS_LIMIT:
        raise invalid(f"'o:tag' parameter: at most {TAGS_LIMIT} tags are allowed", "o:tag")
    if any(len(each) > TAG_CHARS or not each.isascii() or not each.isprintable() for each in tags):
        raise invalid(f"'o:tag' parameter: a tag is 1 to {TAG_CHARS} printable ASCII characters", "o:tag")
    return tags


def _times(given: Parameters, now: float) -> tuple[float, float]:
    at, within = given.text("o:deliverytime"), given.text("o:deliver-within")
    release_at = date("o:deliverytime", at) if at else 0.0
    if release_at > now + AHEAD_LIMIT:
        raise invalid(f"'o:deliverytime' parameter: at most {AHEAD_LIMIT / 86_400:.0f} days ahead", "o:deliverytime")
    return release_at, duration("o:deliver-within", within, *WITHIN) if within else 0.0


def _tls(given: Parameters) -> str:
    """Say what is asked of TLS in the words of the envelope."""
    required = flag("o:require-tls", given.text("o:require-tls"))
    unproven = flag("o:skip-verification", given.text("o:skip-verification"))
    if required:
        return "encrypted" if unproven else "verified"
    return "no" if unproven else ""


def _headers(given: Parameters, *, batch: bool) -> tuple[dict[str, str], str, dict[str, str]]:
    """Read the caller's own header fields: others, Reply-To, and the variables that one of them may have."""
    headers: dict[str, str] = {}
    names: set[str] = set()
    reply_to, own = "", dict[str, str]()
    for name, value in given.prefixed("h:"):
        lower = name.lower()
        if lower in names:
            raise invalid(f"'h:{name[:76]}' parameter is given twice", f"h:{name[:76]}")
        names.add(lower)
        fixed = not batch or Template(value).fixed
        if lower == _REPLY_TO:
            reply_to = value
            if fixed:
                reply_to_of(value)
        elif lower == VARIABLES_FIELD.lower():
            own = variables(value or "{}")
        elif value or not name.isascii():
            if fixed:
                check_header(name, value)
            headers[name] = value
    return headers, reply_to, own
