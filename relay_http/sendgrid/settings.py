"""mail_settings of a mail/send request: what is done, and what is refused when it is enabled."""

from collections.abc import Sequence

import msgspec

from mta.content.compose import Mailbox, Part
from relay_http.fields import Fields
from relay_http.sendgrid.values import BAD_ADDRESS, read_mailbox

_REFUSED = (
    *("bypass_list_management", "bypass_spam_management", "bypass_bounce_management"),
    *("bypass_unsubscribe_management", "spam_check"),
)
_END_OF_HTML = "</body>"


class MailSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What of them is enabled. Footers are "" for none."""

    sandbox: bool = False
    bcc: Mailbox | None = None
    footer_text: str = ""
    footer_html: str = ""


_NONE = MailSettings()


def read_mail_settings(root: Fields) -> MailSettings:
    """Read the settings of a request."""
    settings = root.inner("mail_settings")
    if settings is None:
        return _NONE
    refuse_enabled(settings, _REFUSED)
    footer, bcc = _enabled(settings, "footer"), _enabled(settings, "bcc")
    return MailSettings(
        sandbox=_sandbox(settings),
        bcc=read_mailbox(bcc, "The bcc email parameter is required.", BAD_ADDRESS) if bcc is not None else None,
        footer_text=footer.text("text") or "" if footer is not None else "",
        footer_html=footer.text("html") or "" if footer is not None else "",
    )


def refuse_enabled(settings: Fields, names: Sequence[str]) -> None:
    """Refuse settings that are not there yet, unless they are off."""
    for name in names:
        if _enabled(settings, name) is not None:
            settings.problem(f"{name}.enable", f"{name} is not supported yet.")


def with_footer(parts: tuple[Part, ...], settings: MailSettings) -> tuple[Part, ...]:
    """Put the footers behind the texts: in html, before the end of its body."""
    if not settings.footer_text and not settings.footer_html:
        return parts
    return tuple([_footed(each, settings) for each in parts])


def _footed(part: Part, settings: MailSettings) -> Part:
    kind, text = part.media_type.partition(";")[0], part.text
    if kind == "text/plain" and settings.footer_text:
        return Part(part.media_type, f"{text}\n{settings.footer_text}")
    if kind == "text/html" and settings.footer_html:
        end = text.lower().rfind(_END_OF_HTML)
        # a text whose lower case is longer has its end somewhere else
        end = len(text) if end < 0 or text[end : end + len(_END_OF_HTML)].lower() != _END_OF_HTML else end
        return Part(part.media_type, text[:end] + settings.footer_html + text[end:])
    return part


def _enabled(settings: Fields, name: str) -> Fields | None:
    setting = settings.inner(name)
    return setting if setting is not None and setting.flag("enable") else None


def _sandbox(settings: Fields) -> bool:
    sandbox = settings.inner("sandbox_mode")
    if sandbox is not None and not isinstance(sandbox.members.get("enable", False), bool):
        sandbox.problem("enable", "The sandbox mode enable param should be a boolean value.")
        return False
    return bool(sandbox and sandbox.flag("enable"))
