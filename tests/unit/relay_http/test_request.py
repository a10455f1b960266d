"""Validation of mail/send: every problem with its path, all of them together."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_http.problem import Refusal
from relay_http.sendgrid.request import MailSend, read_mail_send

NOW_INT = 1_800_000_000
NOW = float(NOW_INT)
Json = dict[str, Any]
EVERYTHING: Json = {
    "personalizations": [
        {
            "to": [{"email": "ann@example.test", "name": "Ann"}],
            "cc": [{"email": "cc@example.test"}],
            "bcc": [{"email": "bcc@example.test"}],
            "from": {"email": "a@shop.test", "name": "Shop"},
            "subject": "Hello",
            "headers": {"X-A": "a"},
            "custom_args": {"order": "1"},
            "substitutions": {},
            "dynamic_template_data": {},
            "send_at": 1_700_000_000,
        }
    ],
    "from": {"email": "billing@shop.test", "name": "Shop"},
    "reply_to": {"email": "help@shop.test", "name": "Help"},
    "subject": "Your order",
    "content": [{"type": "text/plain", "value": "Hi"}, {"type": "text/html", "value": "<b>Hi</b>"}],
    "attachments": [
        {
            "content": "SGk=",
            "filename": "a.txt",
            "type": "text/plain",
            "disposition": "attachment",
            "content_id": "a",
        }
    ],
    "headers": {"X-B": "b"},
    "categories": ["orders"],
    "custom_args": {"shop": "1"},
    "sections": {},
    "asm": {},
    "template_id": "",
    "batch_id": "",
    "ip_pool_name": "",
    "send_at": 1_700_000_000,
    "mail_settings": {
        "sandbox_mode": {"enable": False},
        "bypass_list_management": {"enable": False},
        "footer": {"enable": False, "text": "", "html": ""},
        "spam_check": {"enable": False, "threshold": 1},
    },
    "tracking_settings": {
        "click_tracking": {"enable": False, "enable_text": False},
        "open_tracking": {"enable": False},
        "subscription_tracking": {"enable": False},
        "ganalytics": {"enable": False, "utm_source": ""},
    },
}


def copy(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def problems(plain: object) -> list[tuple[str | None, str]]:
    with pytest.raises(Refusal) as refused:
        read_mail_send(plain, NOW)
    assert refused.value.status == 400
    return [(each.field, each.message) for each in refused.value.problems]


def with_change(path: str, value: object) -> Json:
    mail = copy(EVERYTHING)
    *above, last = path.split(".")
    place = mail
    for step in above:
        place = place[int(step) if step.isdigit() else step]
    place[int(last) if last.isdigit() else last] = value
    return mail


def without(path: str) -> Json:
    mail = copy(EVERYTHING)
    *above, last = path.split(".")
    place = mail
    for step in above:
        place = place[int(step) if step.isdigit() else step]
    del place[last]
    return mail


def test_everything_at_once_is_valid() -> None:
    request = read_mail_send(copy(EVERYTHING), NOW)
    assert request.sender.address == "billing@shop.test"
    assert request.personalizations[0].sender is not None
    assert [part.media_type for part in request.parts] == ["text/plain", "text/html"]
    assert not request.sandbox


def test_an_empty_object_lacks_three_things() -> None:
    assert [field for field, _ in problems({})] == ["from.email", "personalizations", "content"]


def every_place(value: Any, path: str = "") -> list[tuple[str, Any]]:
    found = [(path, value)] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        found += every_place(each, f"{path}.{name}" if path else str(name))
    return found


KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
READ = [
    (path, value)
    for path, value in every_place(EVERYTHING)
    # Settings that are not enabled are not looked at any further.
    if path.rpartition(".")[2] not in {"enable_text", "text", "html", "threshold", "utm_source"}
]


@pytest.mark.parametrize("given_value", [None, [], {}, "text", 1, 1.5, True], ids=repr)
@pytest.mark.parametrize(("path", "value"), READ, ids=[path for path, _ in READ])
def test_a_wrong_type_anywhere_is_told_with_its_exact_path(path: str, value: object, given_value: object) -> None:
    if type(given_value) is type(value):
        return
    message = f"Invalid type. Expected: {KINDS[type(value)]}, given: {KINDS.get(type(given_value), 'null')}."
    if path == "mail_settings.sandbox_mode.enable":
        message = "The sandbox mode enable param should be a boolean value."
    found = problems(with_change(path, given_value))
    assert found.count((path, message)) == 1
    assert len(found) == 1


@pytest.mark.parametrize(
    ("path", "value", "field", "begins"),
    [
        ("personalizations", [], "personalizations", "The personalizations field is required"),
        ("personalizations.0.to", [], "personalizations.0.to", "The to array is required"),
        ("personalizations.0.to.0.email", "", "personalizations.0.to.0.email", "The to email parameter is required."),
        ("personalizations.0.cc.0.email", "", "personalizations.0.cc.0.email", "The cc email parameter is required."),
        ("personalizations.0.to.0.email", "ann", "personalizations.0.to.0.email", "Does not contain a valid address."),
        ("personalizations.0.to.0.email", "a@b\r\nRCPT TO:<c@d>", "personalizations.0.to.0.email", "Does not"),
        ("personalizations.0.to.0.email", "a\u0085@b.test", "personalizations.0.to.0.email", "Does not"),
        ("personalizations.0.to.0.email", "a\0@b.test", "personalizations.0.to.0.email", "Does not"),
        ("personalizations.0.bcc.0.email", "a@" + "b" * 320, "personalizations.0.bcc.0.email", "The email address is"),
        ("personalizations.0.to.0.name", "A\r\nBcc: b@c.test", "personalizations.0.to.0.name", "It must not contain"),
        ("personalizations.0.subject", "", "personalizations.0.subject", "The subject must be"),
        ("personalizations.0.subject", "a\nb", "personalizations.0.subject", "It must not contain"),
        ("personalizations.0.from.email", "", "personalizations.0.from.email", "The from object must be provided"),
        ("personalizations.0.from.email", "a@other.test", "personalizations.0.from", "The domain of the"),
        ("personalizations.0.headers", {"X-A": "a\rb"}, "personalizations.0.headers.X-A", "It must not contain"),
        ("personalizations.0.headers", {"Bcc": "a"}, "personalizations.0.headers.Bcc", "This header is reserved"),
        ("personalizations.0.send_at", NOW_INT + 259_201, "personalizations.0.send_at", "The send_at cannot be more"),
        ("personalizations.0.substitutions", {"": "b"}, "personalizations.0.substitutions", "A key is at least"),
        ("personalizations.0.substitutions", {"a": "b" * 10_000}, "personalizations.0.substitutions", "The subst"),
        (
            *("personalizations.0.dynamic_template_data", {"a": 1}, "personalizations.0.dynamic_template_data"),
            "dynamic_template_data is not supported yet.",
        ),
        ("from.email", "", "from.email", "The from object must be provided"),
        ("from.email", "shop", "from.email", "The from email does not contain a valid address."),
        ("from.name", "a\0b", "from.name", "It must not contain"),
        ("reply_to.email", "x", "reply_to.email", "Does not contain a valid address."),
        ("reply_to_list", [], "reply_to", "Only one of"),
        ("subject", "a\r\nb", "subject", "It must not contain"),
        ("content", [], "content", "Unless a valid template_id is provided, the content parameter is required."),
        ("content.0.value", "", "content.0.value", "The content value must be a string at least one character"),
        ("content.0.type", "", "content.0.type", "The content type is required."),
        ("content.0.type", "text", "content.0.type", "The type must be a media type"),
        ("content.0.type", "text/plain\r\nBcc: a", "content.0.type", "The type must be a media type"),
        ("content.0.type", "multipart/mixed", "content.0.type", "Multipart and message types"),
        ("content.0.type", "text/calendar", "content", "The order of content is"),
        ("attachments.0.content", "", "attachments.0.content", "The attachment content is required."),
        ("attachments.0.content", "no base64!", "attachments.0.content", "The attachment content must be base64"),
        ("attachments.0.content", "SGk=\n", "attachments.0.content", "The attachment content must be base64"),
        ("attachments.0.content", "SGk", "attachments.0.content", "The attachment content must be base64"),
        ("attachments.0.content", "SGï=", "attachments.0.content", "The attachment content must be base64"),
        ("attachments.0.filename", "a\r\nb", "attachments.0.filename", "It must not contain"),
        ("attachments.0.disposition", "", "attachments.0.disposition", "The disposition of your attachment"),
        ("attachments.0.type", "image", "attachments.0.type", "The type must be a media type"),
        ("attachments.0.content_id", "a b", "attachments.0.content_id", "The content_id is"),
        ("attachments.0.content_id", "a>\r\nX: y", "attachments.0.content_id", "The content_id is"),
        ("headers", {"Content-Type": "x"}, "headers.Content-Type", "This header is reserved"),
        ("headers", {"X A": "x"}, "headers.X A", "A header name is"),
        ("headers", {"X-Ä": "x"}, "headers.X-Ä", "A header name is"),
        ("headers", {"X:": "x"}, "headers.X:", "A header name is"),
        ("headers", {"": "x"}, "headers.", "A header name is"),
        ("headers", {"Message-ID": "mine"}, "headers.Message-ID", "A Message-ID is"),
        ("categories", ["a", "a"], "categories", "Each category may be given once."),
        ("categories", ["ä"], "categories.0", "A category is"),
        ("categories", ["ok", "x" * 256], "categories.1", "A category is"),
        ("categories", [str(number) for number in range(11)], "categories", "At most 10 categories are allowed"),
        ("template_id", "d-1", "template_id", "template_id is not supported yet."),
        ("template_id", "mine", "template_id", "The template_id must be a valid GUID, you provided 'mine'."),
        ("template_id", "7c5e5de2-3b1f-4c2c-8a32-1b2f6bd3f0a1", "template_id", "template_id is not supported yet."),
        ("ip_pool_name", "p", "ip_pool_name", "The ip pool name is 2 to 64"),
        ("ip_pool_name", "p" * 65, "ip_pool_name", "The ip pool name is 2 to 64"),
        ("send_at", NOW_INT + 259_201, "send_at", "The send_at cannot be more than 72 hours"),
        ("sections", {"-a-": "<p>-a-</p>"}, "sections.-a-", "A section must not contain itself."),
        ("sections", {"": "b"}, "sections", "A key is at least"),
        ("asm", {"group_id": 1}, "asm", "asm is not supported yet."),
        ("mail_settings.bcc", {"enable": True}, "mail_settings.bcc.email", "The bcc email parameter is required."),
        ("mail_settings.bcc", {"enable": True, "email": "x"}, "mail_settings.bcc.email", "Does not contain a valid"),
        ("mail_settings.footer", {"enable": True, "html": 1}, "mail_settings.footer.html", "Invalid type."),
        ("mail_settings.spam_check.enable", True, "mail_settings.spam_check.enable", "spam_check is not"),
        (
            *("mail_settings.bypass_list_management.enable", True, "mail_settings.bypass_list_management.enable"),
            "bypass_list_management is not supported yet.",
        ),
        (
            *("tracking_settings.click_tracking.enable", True, "tracking_settings.click_tracking.enable"),
            "click_tracking is not supported yet.",
        ),
    ],
)
def test_one_thing_wrong(path: str, value: object, field: str, begins: str) -> None:
    ((found, message),) = problems(with_change(path, value))
    assert found == field
    assert message.startswith(begins)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("from", "from.email"),
        ("from.email", "from.email"),
        ("personalizations", "personalizations"),
        ("personalizations.0.to", "personalizations.0.to"),
        ("personalizations.0.to.0.email", "personalizations.0.to.0.email"),
        ("content", "content"),
        ("content.0.value", "content.0.value"),
        ("content.0.type", "content.0.type"),
        ("attachments.0.content", "attachments.0.content"),
        ("attachments.0.filename", "attachments.0.filename"),
    ],
)
def test_one_thing_missing(path: str, field: str) -> None:
    mail = without(path)
    if path == "content.0.value":
        mail["content"].pop(1)
    assert [found for found, _ in problems(mail)] == [field]


def test_a_subject_may_come_from_every_personalization_or_from_the_request() -> None:
    mail = without("subject")
    read_mail_send(mail, NOW)
    mail["personalizations"].append({"to": [{"email": "a@b.test"}]})
    assert [field for field, _ in problems(mail)] == ["subject"]


def test_a_duplicate_is_told_once_for_each_personalization_and_allowed_across() -> None:
    mail = copy(EVERYTHING)
    mail["personalizations"].append({"to": [{"email": "ann@example.test"}]})
    read_mail_send(copy(mail), NOW)
    mail["personalizations"][1]["cc"] = [{"email": "x@y.test"}, {"email": "Ann@Example.test"}]
    unique = "Each email address in the personalization block should be unique between to, cc, and bcc."
    assert problems(mail) == [
        (
            "personalizations.1",
            f"{unique} We found the first duplicate instance of [Ann@Example.test] in the personalizations.1.cc field.",
        )
    ]


def test_all_problems_are_told_together() -> None:
    mail = with_change("subject", None)
    mail["from"] = "shop"
    mail["personalizations"][0]["to"][0] = "ann"
    mail["content"][1]["value"] = ["b"]
    mail["custom_args"] = {"a": 1}
    assert sorted(field or "" for field, _ in problems(mail)) == [
        *("content.1.value", "custom_args.a", "from", "personalizations.0.to.0", "subject")
    ]


def test_substitutions_and_dynamic_templates_exclude_each_other() -> None:
    mail = with_change("template_id", "d-1")
    mail["personalizations"][0]["substitutions"] = {"-a-": "b"}
    assert problems(mail) == [
        ("personalizations.0.substitutions", "Substitutions may not be used with dynamic templating"),
        ("template_id", "template_id is not supported yet."),
    ]


def test_limits() -> None:
    many = [{"email": f"u{number}@x.test"} for number in range(1001)]
    assert problems(with_change("personalizations.0.cc", many))[0][0] == "personalizations"
    read_mail_send(with_change("personalizations.0.cc", many[:998]), NOW)
    assert problems(with_change("personalizations", [{}] * 1001))[0][0] == "personalizations"
    assert problems({**without("reply_to"), "reply_to_list": many})[0][0] == "reply_to_list"
    assert problems(with_change("headers", {f"X-{number}": "" for number in range(1001)}))[0][0] == "headers"
    assert problems(with_change("custom_args", {"a": "x" * 10_000}))[0][0] == "custom_args"
    merged = with_change("custom_args", {"a": "x" * 6000})
    read_mail_send(copy(merged), NOW)
    merged["personalizations"][0]["custom_args"] = {"b": "x" * 6000}
    assert [field for field, _ in problems(merged)] == ["personalizations.0.custom_args"]
    merged["personalizations"][0]["custom_args"] = {"a": "x" * 9999}
    read_mail_send(merged, NOW)
    assert len(problems(with_change("headers", {f"X {number}": "" for number in range(1000)}))) == 1000


@pytest.mark.parametrize(
    ("kinds", "good"),
    [
        (["text/plain", "text/x-amp-html", "text/html"], True),
        (["text/plain", "text/html", "text/calendar"], True),
        (["text/html"], True),
        (["text/calendar"], True),
        (["text/html", "text/plain"], False),
        (["text/calendar", "text/html"], False),
    ],
)
def test_the_order_of_content(kinds: list[str], good: bool) -> None:
    mail = with_change("content", [{"type": kind, "value": "x"} for kind in kinds])
    if good:
        read_mail_send(mail, NOW)
    else:
        assert [field for field, _ in problems(mail)] == ["content"]


@pytest.mark.parametrize(
    ("given_type", "kept"),
    [
        ("text/calendar; method=REQUEST", "text/calendar; method=REQUEST"),
        ('TEXT/Plain; charset="utf-8"', "text/plain"),
        ('text/plain ;charset=x; format="flowed";', 'text/plain; format="flowed"'),
    ],
)
def test_parameters_of_a_content_type(given_type: str, kept: str) -> None:
    mail = with_change("content", [{"type": given_type, "value": "x"}])
    assert read_mail_send(mail, NOW).parts[0].media_type == kept


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.sampled_from([path for path, _ in READ]), json_values), min_size=1, max_size=4))
def test_any_json_is_read_or_refused(changes: list[tuple[str, Any]]) -> None:
    mail = copy(EVERYTHING)
    for path, value in changes:
        place: Any = mail
        *above, last = path.split(".")
        for step in above:
            if isinstance(place, list) and step.isdigit() and int(step) < len(place):
                place = place[int(step)]
            elif isinstance(place, dict) and step in place:
                place = place[step]
        if isinstance(place, dict):
            place[last] = value
    with contextlib.suppress(Refusal):
        assert isinstance(read_mail_send(mail, NOW), MailSend)
