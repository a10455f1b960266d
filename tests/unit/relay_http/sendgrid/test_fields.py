"""What fields of mail/send do: schedules, batches, pools, substitutions, footers and copies."""

from base64 import b64encode
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest

from mta.accounts import tenants
from mta.queue.batches import new_batch

NOW = 1_800_000_000
Json = dict[str, Any]


def parsed(content: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


def text_of(content: bytes, kind: str = "plain") -> str:
    body = parsed(content).get_body((kind,))
    assert body is not None
    return str(body.get_content())


async def test_mail_goes_out_when_it_is_said_for_each_personalization_or_for_all(api: Any, mail: Json) -> None:
    mail["send_at"] = NOW + 259_200
    mail["personalizations"] = [
        {"to": [{"email": "one@example.test"}]},
        {"to": [{"email": "two@example.test"}], "send_at": NOW + 60},
        {"to": [{"email": "three@example.test"}], "send_at": -5},
    ]
    assert (await api.send(mail)).status_code == 202
    assert [each.envelope.release_at for each in api.queue.accepted] == [NOW + 259_200, NOW + 60, 0]


async def test_a_batch_is_one_that_was_made_for_the_tenant(api: Any, mail: Json) -> None:
    mail["batch_id"] = new_batch("other", NOW)
    assert await api.problems(mail) == [("batch_id", "invalid batch id")]
    mail["batch_id"] = "x"
    assert await api.problems(mail) == [("batch_id", "invalid batch id")]


async def test_a_pool_is_the_one_that_mail_leaves_from(api: Any, mail: Json) -> None:
    mail["ip_pool_name"] = "marketing"
    ((field, _),) = await api.problems(mail)
    assert field == "ip_pool_name"
    mail["ip_pool_name"] = "default"
    assert (await api.send(mail)).status_code == 202
    await tenants.create(api.spool, "pooled", float(NOW), pool="marketing")
    assert await tenants.pool_of(api.spool, "pooled") == "marketing"


async def test_substitutions_change_subject_texts_and_reply_to_and_share_the_files(api: Any, mail: Json) -> None:
    mail["subject"] = "Order -number-"
    mail["reply_to"] = {"email": "help+-number-@shop.test", "name": "Help for -name-"}
    mail["content"] = [
        {"type": "text/plain", "value": "Dear -name-, {{name}}"},
        {"type": "text/html", "value": "<p>-greeting-</p>"},
    ]
    mail["sections"] = {"%hello%": "Hello <b>-name-</b>"}
    mail["attachments"] = [{"content": b64encode(b"PDF").decode(), "filename": "a.pdf"}]
    mail["personalizations"] = [
        {
            "to": [{"email": "ann@example.test"}],
            "substitutions": {"-name-": "Änn", "-number-": "1", "-greeting-": "%hello%"},
        },
        {"to": [{"email": "bob@example.test"}], "subject": "For -name-", "substitutions": {"-name-": "Bob"}},
    ]
    assert (await api.send(mail)).status_code == 202
    ann, bob = [parsed(each.content) for each in api.queue.accepted]
    assert (ann["Subject"], bob["Subject"]) == ("Order 1", "For Bob")
    assert ann["Reply-To"] == "Help for Änn <help+1@shop.test>"
    assert bob["Reply-To"] == "Help for Bob <help+-number-@shop.test>"
    first, second = api.queue.accepted
    assert text_of(first.content) == "Dear Änn, {{name}}"
    assert text_of(first.content, "html") == "<p>Hello <b>Änn</b></p>"
    assert text_of(second.content) == "Dear Bob, {{name}}"
    assert text_of(second.content, "html") == "<p>-greeting-</p>"
    for message in (ann, bob):
        (file,) = message.iter_attachments()
        assert file.get_payload(decode=True) == b"PDF"


@pytest.mark.parametrize(
    ("place", "value"), [("subject", "a\r\nBcc: b@c.test"), ("reply_to", " @b"), ("reply_to", "\u202e")]
)
async def test_substitutions_make_no_headers(api: Any, mail: Json, place: str, value: str) -> None:
    mail["subject"] = "-x-" if place == "subject" else "S"
    mail["reply_to"] = {"email": "a-x-@shop.test", "name": "-x-" if value == "\u202e" else ""}
    mail["personalizations"][0]["substitutions"] = {"-x-": value}
    ((field, message),) = await api.problems(mail)
    assert field == "personalizations.0.substitutions"
    assert place in message


async def test_footers_stand_behind_the_texts(api: Any, mail: Json) -> None:
    mail["content"].append({"type": "text/html", "value": "<html><BODY>Thank you</BODY></html>"})
    mail["content"].append({"type": "text/calendar", "value": "BEGIN:VCALENDAR"})
    mail["mail_settings"] = {"footer": {"enable": True, "text": "Shop Ltd", "html": "<i>Shop Ltd</i>"}}
    assert (await api.send(mail)).status_code == 202
    content = api.queue.only.content
    assert text_of(content) == "Thank you\r\nShop Ltd"
    assert text_of(content, "html") == "<html><BODY>Thank you<i>Shop Ltd</i></BODY></html>"


async def test_an_html_footer_without_a_body_to_end(api: Any, mail: Json) -> None:
    mail["content"] = [{"type": "text/html", "value": "İ</body"}]
    mail["mail_settings"] = {"footer": {"enable": True, "html": "<i>F</i>"}}
    assert (await api.send(mail)).status_code == 202
    assert text_of(api.queue.only.content, "html") == "İ</body<i>F</i>\r\n"


async def test_a_copy_of_the_first_personalization_alone(api: Any, mail: Json) -> None:
    mail["personalizations"].append({"to": [{"email": "bob@example.test"}]})
    mail["mail_settings"] = {"bcc": {"enable": True, "email": "archive@shop.test"}}
    assert (await api.send(mail)).status_code == 202
    first, second = [[to.address for to in each.envelope.recipients] for each in api.queue.accepted]
    assert first == ["ann@example.test", "archive@shop.test"]
    assert second == ["bob@example.test"]
    assert b"archive" not in api.queue.accepted[0].content


WELCOME: Json = {
    "personalizations": [{"to": [{"email": "ada@example.com"}]}],
    "from": {"email": "hello@shop.test", "name": "YourApp"},
    "subject": "Welcome to YourApp, {{first_name}}",
    "content": [{"type": "text/html", "value": "<h1>Hi {{first_name}}</h1>"}],
    "categories": ["onboarding", "welcome"],
    "custom_args": {"user_id": "u_42", "cohort": "march-2026"},
}


async def test_the_example_of_the_email_api_is_accepted(api: Any) -> None:
    result = await api.send(WELCOME)
    assert (result.status_code, result.content) == (202, b"")
    sent = api.queue.only
    assert result.headers["x-message-id"] == sent.id
    assert sent.categories == ("onboarding", "welcome")
    assert sent.custom_args == {"user_id": "u_42", "cohort": "march-2026"}


async def test_and_with_the_fields_that_are_to_come_it_is_refused_with_each_of_them(api: Any) -> None:
    mail = {**WELCOME, "tracking_settings": {"open_tracking": {"enable": True}, "click_tracking": {"enable": True}}}
    mail["personalizations"] = [
        {"to": [{"email": "ada@example.com"}], "dynamic_template_data": {"first_name": "Ada"}},
    ]
    assert [field for field, _ in await api.problems(mail)] == [
        "personalizations.0.dynamic_template_data",
        "tracking_settings.click_tracking.enable",
        "tracking_settings.open_tracking.enable",
    ]
