"""The vendor's mail/send request: plain JSON in, typed fields out, or every problem with its path.

The sentences that the vendor's users know are kept where they search for them. What the API names and we
do not do yet is refused, in its disabled forms accepted, never ignored. An array is walked only after its
length was checked, so a request costs what its octets cost.
"""

import re

import msgspec

from mta.content.compose import Attachment, Mailbox, Part
from mta.mail.address import domain_of
from relay_http.fields import Fields, Problems
from relay_http.problem import Refusal
from relay_http.sendgrid.settings import read_mail_settings, refuse_enabled, with_footer
from relay_http.sendgrid.values import (
    BAD_ADDRESS,
    header_text,
    read_attachment,
    read_categories,
    read_custom_args,
    read_headers,
    read_mailbox,
    read_part,
    read_replacements,
    read_send_at,
    text_octets,
)

PERSONALIZATIONS_LIMIT = 1000
RECIPIENTS_LIMIT = 1000  # in one request, to, cc and bcc together
REPLY_TO_LIMIT = 1000
CONTENT_LIMIT = 100
SUBSTITUTIONS_OCTETS = 10_000
ATTACHMENTS_LIMIT = 1000

POOL_CHARS = range(2, 65)

_TRACKING_SETTINGS = ("click_tracking", "open_tracking", "subscription_tracking", "ganalytics")
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
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


class Personalization(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the request. What is empty or None is the request's own."""

    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[Mailbox, ...]
    sender: Mailbox | None
    subject: str
    headers: dict[str, str]
    custom_args: dict[str, str]
    substitutions: dict[str, str]
    send_at: int | None


class MailSend(msgspec.Struct, frozen=True, kw_only=True):
    """A valid request. `send_at` is 0 for now; `bcc` gets a copy of the first personalization's message."""

    sender: Mailbox
    reply_to: tuple[Mailbox, ...]
    personalizations: tuple[Personalization, ...]
    subject: str
    parts: tuple[Part, ...]
    attachments: tuple[Attachment, ...]
    headers: dict[str, str]
    categories: tuple[str, ...]
    custom_args: dict[str, str]
    sections: dict[str, str]
    send_at: int
    batch: str
    pool: str
    bcc: Mailbox | None
    sandbox: bool

    @property
    def substitutes(self) -> bool:
        """Whether texts have keys to be replaced."""
        return bool(self.sections) or any(each.substitutions for each in self.personalizations)


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
    personalizations = _personalizations(
        root, _Above(sender, custom_args, text_octets(custom_args), now, _is_dynamic(root))
    )
    subject = _subject(root)
    parts = _content(root)
    reply_to = _reply_to(root)
    attachments = map(read_attachment, root.objects("attachments", root.array("attachments", ATTACHMENTS_LIMIT)))
    files = tuple(each for each in attachments if each is not None)
    headers, categories = read_headers(root), read_categories(root)
    settings = read_mail_settings(root)
    sections, send_at = _sections(root), read_send_at(root, now)
    batch, pool = root.text("batch_id") or "", _pool(root)
    _refuse_unsupported(root)
    if sender is None or subject is None:
        return None
    return MailSend(
        sender=sender,
        reply_to=reply_to,
        personalizations=personalizations,
        subject=subject,
        parts=with_footer(parts, settings),
        attachments=files,
        headers=headers,
        categories=categories,
        custom_args=custom_args,
        sections=sections,
        send_at=send_at or 0,
        batch=batch,
        pool=pool,
        bcc=settings.bcc,
        sandbox=settings.sandbox,
    )


def _sender(root: Fields) -> Mailbox | None:
    if not root.has("from"):
        root.problem("from.email", _NO_FROM)
    fields = root.inner("from")
    return read_mailbox(fields, _NO_FROM, _BAD_FROM) if fields is not None else None


class _Above(msgspec.Struct, frozen=True):
    """What personalizations are read by."""

    sender: Mailbox | None
    custom_args: dict[str, str]
    custom_args_octets: int
    now: float
    dynamic: bool


def _personalizations(root: Fields, above: _Above) -> tuple[Personalization, ...]:
    given = root.array("personalizations", PERSONALIZATIONS_LIMIT)
    if given == []:
        root.problem("personalizations", _NO_PERSONALIZATION)
    recipients = sum(map(_recipient_count, given or ()))
    if recipients > RECIPIENTS_LIMIT:
        root.problem("personalizations", f"At most {RECIPIENTS_LIMIT} recipients are allowed, {recipients} are given.")
        return ()
    each = root.objects("personalizations", given)
    return tuple(_personalization(fields, above) for fields in each)


def _recipient_count(given: object) -> int:
    lists = [given.get(name) for name in ("to", "cc", "bcc")] if isinstance(given, dict) else []
    return sum(len(each) for each in lists if isinstance(each, list))


def _personalization(fields: Fields, above: _Above) -> Personalization:
    recipients = {name: _recipients(fields, name) for name in ("to", "cc", "bcc")}
    _refuse_duplicates(fields, recipients)
    subject = header_text(fields, "subject")
    if subject == "" and fields.has("subject"):
        fields.problem("subject", "The subject must be a string at least one character in length.")
    given = fields.inner("from")
    sender = read_mailbox(given, _NO_FROM, _BAD_FROM) if given is not None else None
    if sender and above.sender and domain_of(sender.address) != domain_of(above.sender.address):
        fields.problem("from", "The domain of the personalization's from must be that of the request's from.")
    _refuse_object(fields, "dynamic_template_data")
    substitutions = read_replacements(fields, "substitutions", octets=SUBSTITUTIONS_OCTETS)
    if substitutions and above.dynamic:
        fields.problem("substitutions", "Substitutions may not be used with dynamic templating")
    return Personalization(
        **recipients,
        sender=sender,
        subject=subject or "",
        headers=read_headers(fields),
        custom_args=read_custom_args(fields, above.custom_args, above.custom_args_octets),
        substitutions=substitutions,
        send_at=read_send_at(fields, above.now),
    )


def _recipients(fields: Fields, name: str) -> tuple[Mailbox, ...]:
    given = fields.array(name, RECIPIENTS_LIMIT)
    if name == "to" and given == []:
        fields.problem(name, _NO_TO)
    missing = f"The {name} email parameter is required."
    read = [read_mailbox(each, missing, BAD_ADDRESS) for each in fields.objects(name, given)]
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


def _is_dynamic(root: Fields) -> bool:
    return str(root.members.get("template_id", "")).startswith("d-")


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
    read = [read_mailbox(fields, "The reply_to email parameter is required.", BAD_ADDRESS) for fields in given]
    found = tuple(each for each in read if each is not None)
    if len({each.address.lower() for each in found}) < len(found):
        root.problem("reply_to_list", "Each address may be given once.")
    return found


def _sections(root: Fields) -> dict[str, str]:
    sections = read_replacements(root, "sections")
    for key, text in sections.items():
        if key and key in text:
            root.problem(f"sections.{key}", "A section must not contain itself.")
    return sections


def _pool(root: Fields) -> str:
    pool = root.text("ip_pool_name") or ""
    if pool and len(pool) not in POOL_CHARS:
        root.problem("ip_pool_name", "The ip pool name is 2 to 64 characters.")
    return pool


def _refuse_unsupported(root: Fields) -> None:
    template = root.text("template_id")
    if template:
        known = _is_dynamic(root) or _GUID.fullmatch(template)
        wrong = f"The template_id must be a valid GUID, you provided '{template[:64]}'."
        root.problem("template_id", "template_id is not supported yet." if known else wrong)
    _refuse_object(root, "asm")
    tracking = root.inner("tracking_settings")
    if tracking is not None:
        refuse_enabled(tracking, _TRACKING_SETTINGS)


def _refuse_object(fields: Fields, name: str) -> None:
    given = fields.inner(name)
    if given is not None and given.members:
        fields.problem(name, f"{name} is not supported yet.")
