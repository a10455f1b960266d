"""The vendor's mail/send request: plain JSON in, typed fields out, or every problem with its path.

The sentences that the vendor's users know are kept where they search for them. What the API names and we
do not do yet is refused, in its disabled forms accepted, never ignored. An array is walked only after its
length was checked, so a request costs what its octets cost.
"""

import msgspec

from mta.content.compose import Attachment, Mailbox, Part
from mta.mail.address import domain_of
from relay_http.fields import Fields, Problems
from relay_http.problem import Refusal
from relay_http.sendgrid.values import (
    header_text,
    read_attachment,
    read_categories,
    read_custom_args,
    read_headers,
    read_mailbox,
    read_part,
)

PERSONALIZATIONS_LIMIT = 1000
RECIPIENTS_LIMIT = 1000  # in one request, to, cc and bcc together
REPLY_TO_LIMIT = 1000
CONTENT_LIMIT = 100
ATTACHMENTS_LIMIT = 1000

_MAIL_SETTINGS = (
    *("bypass_list_management", "bypass_spam_management", "bypass_bounce_management"),
    *("bypass_unsubscribe_management", "footer", "bcc", "spam_check"),
)
_TRACKING_SETTINGS = ("click_tracking", "open_tracking", "subscription_tracking", "ganalytics")
_CONTENT_ORDER = {"text/plain": 0, "text/html": 1}

_NO_FROM = (
    "The from object must be provided for every email send. It is an object that requires the email parameter,"
    " but may also contain a name parameter."
)
_NO_TO = (
    "The to array is required for all personalization objects, and must have at least one email object with a"
    " valid email address."
)
_NO_PERSONALIZATION = "The personalizations field is required and must have at least one personalization."
_NO_SUBJECT = (
    "The subject is required. You can get around this requirement if you use a template with a subject defined"
    " or if every personalization has a subject defined."
)
_NO_CONTENT = (
    "Unless a valid template_id is provided, the content parameter is required. There must be at least one"
    " defined content block."
)
_BAD_FROM = "The from email does not contain a valid address."
_BAD_ADDRESS = "Does not contain a valid address."


class Personalization(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the request. What is empty or None is the request's own."""

    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[Mailbox, ...]
    sender: Mailbox | None
    subject: str
    headers: dict[str, str]
    custom_args: dict[str, str]


class MailSend(msgspec.Struct, frozen=True, kw_only=True):
    """A valid request."""

    sender: Mailbox
    reply_to: tuple[Mailbox, ...]
    personalizations: tuple[Personalization, ...]
    subject: str
    parts: tuple[Part, ...]
    attachments: tuple[Attachment, ...]
    headers: dict[str, str]
    categories: tuple[str, ...]
    custom_args: dict[str, str]
    sandbox: bool


def read_mail_send(plain: object, now: float) -> MailSend:
    """Read a request; Refusal 400 with all that is wrong. `now` is absolute seconds."""
    problems = Problems()
    root = Fields.of(plain, "", problems)
    request = _mail_send(root, now) if root is not None else None
    if problems.found or request is None:
        raise Refusal(400, *problems.found)
    return request


def _mail_send(root: Fields, now: float) -> MailSend | None:
    sender = _sender(root)
    custom_args = read_custom_args(root, {})
    personalizations = _personalizations(root, sender, custom_args, now)
    subject = _subject(root)
    parts = _content(root)
    reply_to = _reply_to(root)
    attachments = map(read_attachment, root.objects("attachments", root.array("attachments", ATTACHMENTS_LIMIT)))
    files = tuple(each for each in attachments if each is not None)
    headers, categories = read_headers(root), read_categories(root)
    sandbox = _sandbox(root)
    _refuse_unsupported(root, now)
    if sender is None or subject is None:
        return None
    return MailSend(
        sender=sender,
        reply_to=reply_to,
        personalizations=personalizations,
        subject=subject,
        parts=parts,
        attachments=files,
        headers=headers,
        categories=categories,
        custom_args=custom_args,
        sandbox=sandbox,
    )


def _sender(root: Fields) -> Mailbox | None:
    if not root.has("from"):
        root.problem("from.email", _NO_FROM)
    fields = root.inner("from")
    return read_mailbox(fields, _NO_FROM, _BAD_FROM) if fields is not None else None


def _personalizations(
    root: Fields, sender: Mailbox | None, custom_args: dict[str, str], now: float
) -> tuple[Personalization, ...]:
    given = root.array("personalizations", PERSONALIZATIONS_LIMIT)
    if given == []:
        root.problem("personalizations", _NO_PERSONALIZATION)
    recipients = sum(map(_recipient_count, given or ()))
    if recipients > RECIPIENTS_LIMIT:
        root.problem("personalizations", f"At most {RECIPIENTS_LIMIT} recipients are allowed, {recipients} are given.")
        return ()
    each = root.objects("personalizations", given)
    return tuple(_personalization(fields, sender, custom_args, now) for fields in each)


def _recipient_count(given: object) -> int:
    lists = [given.get(name) for name in ("to", "cc", "bcc")] if isinstance(given, dict) else []
    return sum(len(each) for each in lists if isinstance(each, list))


def _personalization(
    fields: Fields, root_sender: Mailbox | None, root_args: dict[str, str], now: float
) -> Personalization:
    recipients = {name: _recipients(fields, name) for name in ("to", "cc", "bcc")}
    _refuse_duplicates(fields, recipients)
    subject = header_text(fields, "subject")
    if subject == "" and fields.has("subject"):
        fields.problem("subject", "The subject must be a string at least one character in length.")
    given = fields.inner("from")
    sender = read_mailbox(given, _NO_FROM, _BAD_FROM) if given is not None else None
    if sender and root_sender and domain_of(sender.address) != domain_of(root_sender.address):
        fields.problem("from", "The domain of the personalization's from must be that of the request's from.")
    for name in ("substitutions", "dynamic_template_data"):
        _refuse_object(fields, name)
    _refuse_send_at(fields, now)
    return Personalization(
        **recipients,
        sender=sender,
        subject=subject or "",
        headers=read_headers(fields),
        custom_args=read_custom_args(fields, root_args),
    )


def _recipients(fields: Fields, name: str) -> tuple[Mailbox, ...]:
    given = fields.array(name, RECIPIENTS_LIMIT)
    if name == "to" and given == []:
        fields.problem(name, _NO_TO)
    missing = f"The {name} email parameter is required."
    read = [read_mailbox(each, missing, _BAD_ADDRESS) for each in fields.objects(name, given)]
    return tuple(mailbox for mailbox in read if mailbox is not None)


def _refuse_duplicates(fields: Fields, recipients: dict[str, tuple[Mailbox, ...]]) -> None:
    seen: set[str] = set()
    for name, mailboxes in recipients.items():
        for each in mailboxes:
            if each.address.lower() in seen:
                fields.problems.add(
                    fields.path,
                    "Each email address in the personalization block should be unique between to, cc, and bcc. We found"
                    f" the first duplicate instance of [{each.address}] in the {fields.at(name)} field.",
                )
                return
            seen.add(each.address.lower())


def _subject(root: Fields) -> str | None:
    subject = header_text(root, "subject")
    given = root.members.get("personalizations")
    needed = isinstance(given, list) and any(isinstance(each, dict) and "subject" not in each for each in given)
    if subject == "" and needed and not _has_template(root):
        root.problem("subject", _NO_SUBJECT)
    return subject


def _has_template(root: Fields) -> bool:
    return root.members.get("template_id", "") != ""


def _content(root: Fields) -> tuple[Part, ...]:
    given = root.array("content", CONTENT_LIMIT)
    if given == [] and not _has_template(root):
        root.problem("content", _NO_CONTENT)
    parts = tuple(part for part in map(read_part, root.objects("content", given)) if part is not None)
    kinds = [part.media_type.partition(";")[0] for part in parts]
    order = [_CONTENT_ORDER.get(kind, 2) for kind in kinds if kind != "text/x-amp-html"]
    if order != sorted(order):
        root.problem("content", "The order of content is text/plain, text/html, then others (RFC 1341 section 7.2).")
    return parts


def _reply_to(root: Fields) -> tuple[Mailbox, ...]:
    if root.has("reply_to") and root.has("reply_to_list"):
        root.problem("reply_to", "Only one of reply_to and reply_to_list is allowed.")
    given = list(root.objects("reply_to_list", root.array("reply_to_list", REPLY_TO_LIMIT)))
    one = root.inner("reply_to")
    if one is not None:
        given.append(one)
    read = [read_mailbox(fields, "The reply_to email parameter is required.", _BAD_ADDRESS) for fields in given]
    found = tuple(each for each in read if each is not None)
    if len({each.address.lower() for each in found}) < len(found):
        root.problem("reply_to_list", "Each address may be given once.")
    return found


def _sandbox(root: Fields) -> bool:
    """Tell whether the sandbox is asked for; refuse other mail settings that are enabled."""
    settings = root.inner("mail_settings")
    if settings is None:
        return False
    _refuse_enabled(settings, _MAIL_SETTINGS)
    sandbox = settings.inner("sandbox_mode")
    if sandbox is not None and not isinstance(sandbox.members.get("enable", False), bool):
        sandbox.problem("enable", "The sandbox mode enable param should be a boolean value.")
        return False
    return bool(sandbox and sandbox.flag("enable"))


def _refuse_unsupported(root: Fields, now: float) -> None:
    for name in ("template_id", "batch_id", "ip_pool_name"):
        if root.text(name):
            root.problem(name, f"{name} is not supported yet.")
    for name in ("sections", "asm"):
        _refuse_object(root, name)
    _refuse_send_at(root, now)
    tracking = root.inner("tracking_settings")
    if tracking is not None:
        _refuse_enabled(tracking, _TRACKING_SETTINGS)


def _refuse_enabled(settings: Fields, names: tuple[str, ...]) -> None:
    for name in names:
        setting = settings.inner(name)
        if setting is not None and setting.flag("enable"):
            setting.problem("enable", f"{name} is not supported yet.")


def _refuse_object(fields: Fields, name: str) -> None:
    given = fields.inner(name)
    if given is not None and given.members:
        fields.problem(name, f"{name} is not supported yet.")


def _refuse_send_at(fields: Fields, now: float) -> None:
    """Refuse a time to come; one that has passed means now."""
    send_at = fields.integer("send_at")
    if send_at is not None and send_at > now:
        fields.problem("send_at", "send_at is not supported yet.")
