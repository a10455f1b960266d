"""Postmark: what is sent and read back, and the code and the words of every refusal."""

import re
from email import policy
from email.parser import BytesParser
from typing import Any

import msgspec
import pytest

from mta.queue.views import Status
from mta.spool.records import MessageClass
from relay_http.postmark import openapi
from relay_http.postmark.shown import STATUSES
from relay_http.uuids import id_of
from tests.unit.relay_http.following import LATER, NEVER, OK, Relay

MAIL: dict[str, Any] = {
    "From": "Größe <b@shop.test>",
    "To": '"Änne, die Erste" <a@example.test>, c@example.test',
    "Subject": "Grüße",
    "TextBody": "text ü",
}
Json = dict[str, Any]


async def ask(relay: Relay, verb: str, path: str, body: object = None, key: str = "shop", **headers: str) -> Any:
    given = {"X-Postmark-Server-Token": relay.keys.get(key, key)} if key else {}
    given |= {name.replace("_", "-"): text for name, text in headers.items()}
    return await relay.ask(verb, path, body, "", given)


async def send(relay: Relay, mail: object = MAIL, path: str = "/email", key: str = "shop", **headers: str) -> Any:
    result = await ask(relay, "POST", path, mail, key, **headers)
    assert result.status_code == 200, result.text
    return result.json


async def refused(
    relay: Relay, mail: object, path: str = "/email", key: str = "shop", **headers: str
) -> tuple[int, int, str]:
    result = await ask(relay, "POST", path, mail, key, **headers)
    assert result.json.keys() == {"ErrorCode", "Message"}
    return result.status_code, result.json["ErrorCode"], result.json["Message"]


async def listed(relay: Relay, query: str = "") -> list[Json]:
    result = await ask(relay, "GET", f"/messages/outbound{query}")
    assert result.status_code == 200, result.text
    assert result.json["TotalCount"] >= len(result.json["Messages"])
    return list(result.json["Messages"])


def own(sent: Json) -> str:
    return id_of(sent["MessageID"]) or ""


async def test_everything_that_can_be_said(relay: Relay) -> None:
    sent = await send(
        relay,
        MAIL
        | {
            "Cc": "d@example.test",
            "Bcc": "Ü <e@example.test>",
            "ReplyTo": "help@shop.test",
            "HtmlBody": '<img src="cid:logo">',
            "Tag": "order",
            "Metadata": {"order": "ü", "number": 2, "new": True},
            "Headers": [{"Name": "X-Own", "Value": "Wert ü"}, {"Name": "X-Number", "Value": 7}],
            "TrackOpens": False,
            "TrackLinks": "None",
            "MessageStream": "broadcast",
            "Attachments": [
                {"Name": "größe.txt", "Content": "Z3LDtsOfZQ==", "ContentType": 'text/plain; charset="utf-8"'},
                {"Name": "", "Content": "iVA=", "ContentType": "image/png", "ContentID": "cid:logo"},
                {"Name": "b.png", "Content": "", "ContentType": "image/png", "ContentID": "other"},
            ],
        },
    )
    assert sent == {
        "To": "a@example.test, c@example.test",
        "SubmittedAt": "2027-01-15T08:00:00Z",
        "MessageID": sent["MessageID"],
        "ErrorCode": 0,
        "Message": "OK",
    }
    found: Any = BytesParser(policy=policy.default).parsebytes(await relay.content(own(sent)))
    assert (found["From"], found["Subject"]) == ("Größe <b@shop.test>", "Grüße")
    assert [each.display_name for each in found["To"].addresses] == ["Änne, die Erste", ""]
    assert (found["Cc"], found["Bcc"], found["Reply-To"]) == ("d@example.test", None, "help@shop.test")
    assert (found["X-Own"], found["X-Number"]) == ("Wert ü", "7")
    by_id = {part["Content-ID"]: part for part in found.walk()}
    assert by_id["<logo>"].get_content_disposition() == "inline"
    assert (by_id["<logo>"].get_payload(decode=True), by_id["<other>"].get_payload(decode=True)) == (b"\x89P", b"")
    assert by_id["<other>"].get_content_disposition() == "attachment"
    record = await relay.spool.message(own(sent))
    assert record is not None
    assert (record.categories, record.message_class) == (("order",), MessageClass.BULK)
    assert record.custom_args == {"order": "ü", "number": "2", "new": "true"}
    details = (await ask(relay, "GET", f"/messages/outbound/{sent['MessageID']}/details")).json
    assert (details["Status"], details["Tag"], details["MessageStream"]) == ("Queued", "order", "broadcast")
    assert details["TextBody"].strip() == "text ü"
    assert sorted(details["Recipients"]) == [f"{name}@example.test" for name in "acde"]
    assert details["Attachments"] == ["größe.txt", "", "b.png"]


async def test_null_is_absent(relay: Relay) -> None:
    nothing = dict.fromkeys(
        ("Cc", "Bcc", "Tag", "HtmlBody", "Metadata", "ReplyTo", "TrackOpens", "MessageStream", "Headers", "Attachments")
    )
    assert (await send(relay, MAIL | nothing))["ErrorCode"] == 0
    assert "To" not in await send(relay, MAIL | {"To": None, "Bcc": "a@example.test"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"From": "x"}, "Invalid 'From' address: 'x'."),
        ({"From": "a@shop.test, b@shop.test"}, "Invalid 'From' address: 'a@shop.test, b@shop.test'."),
        ({"From": None}, "Invalid 'From' address: ''."),
        ({"To": "a@b.test, Ann <x@away..test>"}, "Invalid 'To' address: 'x@away..test'."),
        ({"Cc": "nobody"}, "Invalid 'Cc' address: 'nobody'."),
        ({"Bcc": ", ".join(["a@b.test"] * 51)}, "Invalid 'Bcc': At most 50"),
        ({"To": ""}, "Invalid 'To': Zero recipients specified."),
        ({"To": ["a@b.test"]}, "Invalid 'To': Invalid type."),
        ({"ReplyTo": "x"}, "Invalid 'ReplyTo' address: 'x'."),
        ({"Subject": "a\nb"}, "Invalid 'Subject': "),
        ({"TextBody": ""}, "Invalid 'TextBody': Provide either"),
        ({"Tag": "x" * 1001}, "Invalid 'Tag': "),
        ({"Metadata": {"a": {}}}, "Invalid 'Metadata.a': Invalid type."),
        ({"Metadata": {"a": "x" * 10_000}}, "Invalid 'Metadata': The metadata"),
        ({"Metadata": {str(number): "" for number in range(51)}}, "Invalid 'Metadata': At most 50"),
        ({"Headers": [{"Name": "Received", "Value": "x"}]}, "Invalid 'Headers.0.Name': This header is reserved"),
        ({"Headers": [{"Name": "X-A", "Value": "x"}] * 2}, "Invalid 'Headers.1.Name': A header may be given once."),
        ({"Headers": [{"Name": "X-A", "Value": "a\r\nb"}]}, "Invalid 'Headers.0.Name': It must not contain"),
        ({"TrackOpens": True}, "Invalid 'TrackOpens': Open tracking is not supported yet."),
        ({"TrackLinks": "HtmlOnly"}, "Invalid 'TrackLinks': Link tracking is not supported yet."),
        ({"MessageStream": "mine"}, "Invalid 'MessageStream': There are the streams outbound and broadcast."),
        ({"Attachments": [{"Name": "a", "ContentType": "a/b"}]}, "Invalid 'Attachments.0.Content': This field is req"),
        (
            {"Attachments": [{"Name": "a", "ContentType": "a/b", "Content": "YQ==", "ContentID": "cid:<a>"}]},
            "Invalid 'Attachments.0.ContentID': ",
        ),
    ],
)
async def test_what_is_wrong(relay: Relay, change: Json, said: str) -> None:
    status, code, message = await refused(relay, MAIL | change)
    assert (status, code, message[: len(said)]) == (422, 300, said)
    assert await listed(relay) == []


async def test_the_words_that_anymail_looks_for(relay: Relay) -> None:
    _, _, message = await refused(relay, MAIL | {"To": "Ann <x@away..test>"})
    assert re.match(r"^(Invalid|Error\s+parsing)\s+'(To|Cc|Bcc)'", message)
    found = re.search(r"address:?\s*'(.*)'", message)
    assert found is not None
    assert found[1] == "x@away..test"


async def test_who_asks(relay: Relay) -> None:
    assert (await refused(relay, MAIL, key=""))[:2] == (401, 10)
    status, code, message = await refused(relay, MAIL, key="wrong")
    assert (status, code) == (401, 10)
    assert re.search("valid.*token", message, re.IGNORECASE)
    assert (await refused(relay, MAIL, key="read"))[:2] == (403, 10)
    assert (await refused(relay, MAIL | {"From": "x@other.test"}))[:2] == (422, 400)
    assert (await refused(relay, b"{"))[:2] == (422, 402)
    assert (await refused(relay, b"[]"))[:2] == (422, 403)
    assert (await refused(relay, MAIL, Content_Type="text/plain"))[:2] == (415, 409)
    assert (await refused(relay, MAIL, "/email/bulk"))[:2] == (404, 701)
    assert (await refused(relay, MAIL, "/email/bulk", key=""))[:2] == (401, 10)


@pytest.mark.parametrize("path", ["/email/withTemplate", "/email/withTemplate/", "/email/batchWithTemplates/"])
async def test_templates_are_refused(relay: Relay, path: str) -> None:
    status, code, message = await refused(relay, {"TemplateId": 1}, path)
    assert (status, code, message) == (422, 300, "Invalid 'TemplateModel': Templates are not supported yet.")
    assert (await refused(relay, {}, path, key=""))[0] == 401


async def test_the_test_token_sends_nothing(relay: Relay) -> None:
    token = "POSTMARK_API_TEST"
    sent = await send(relay, MAIL | {"From": "a@other.test"}, key=token)
    assert (sent["ErrorCode"], sent["Message"], bool(own(sent))) == (0, "Test job accepted", True)
    batch = await send(relay, [MAIL, {}], "/email/batch", token)
    assert [each["ErrorCode"] for each in batch] == [0, 300]
    assert (await refused(relay, MAIL | {"To": "x"}, key=token))[:2] == (422, 300)
    assert (await refused(relay, MAIL | {"TextBody": "x" * 1_000_000}, key=token))[:2] == (413, 410)
    assert (await ask(relay, "GET", "/messages/outbound", key=token)).status_code == 401
    assert await listed(relay) == []


async def test_asking_again(relay: Relay) -> None:
    first = await send(relay, Idempotency_Key="k")
    assert await send(relay, Idempotency_Key="k") == first
    assert (await refused(relay, MAIL | {"Tag": "other"}, Idempotency_Key="k"))[0] == 409
    assert (await refused(relay, MAIL, Idempotency_Key="ü"))[:2] == (422, 300)
    assert len(await listed(relay)) == 1


async def test_a_batch_has_a_result_for_each(relay: Relay) -> None:
    asked = [MAIL | {"To": "first@b.test"}, MAIL | {"To": "x"}, None, MAIL | {"To": "last@b.test"}]
    results = await send(relay, asked, "/email/batch", Idempotency_Key="k")
    assert [each["ErrorCode"] for each in results] == [0, 300, 403, 0]
    assert (results[0]["To"], results[3]["To"]) == ("first@b.test", "last@b.test")
    assert results[1]["Message"] == "Invalid 'To' address: 'x'."
    messages = [each["MessageID"] for each in await listed(relay)]
    assert messages == [results[3]["MessageID"], results[0]["MessageID"]]
    assert await send(relay, asked, "/email/batch", Idempotency_Key="k") == results
    assert await send(relay, [], "/email/batch") == []
    assert [each["ErrorCode"] for each in await send(relay, [7], "/email/batch")] == [403]
    assert (await refused(relay, [MAIL] * 501, "/email/batch"))[:2] == (422, 410)
    assert (await refused(relay, {}, "/email/batch"))[:2] == (422, 403)
    assert len(await listed(relay)) == 2


async def test_what_became_of_it(relay: Relay) -> None:
    sent = await send(relay, MAIL | {"To": "a@one.test, b@two.test"})
    await relay.attempt(own(sent), LATER)
    await relay.wait(60)
    await relay.attempt(own(sent), OK)
    await relay.attempt(own(sent), NEVER, 2)
    details = (await ask(relay, "GET", f"/messages/outbound/{sent['MessageID']}/details")).json
    assert (details["Status"], details["TextBody"], details["Body"]) == ("Sent", None, "")
    told = [(each["Recipient"], each["Type"], each["Details"]) for each in details["MessageEvents"]]
    where = {"DestinationServer": "mx.test[192.0.2.1]:25", "DestinationIP": ""}
    assert told == [
        ("a@one.test", "Transient", {"DeliveryMessage": "451 4.7.1 later", **where}),
        ("a@one.test", "Delivered", {"DeliveryMessage": "250 2.0.0 ok", **where}),
        ("b@two.test", "Bounced", {"Summary": "550 5.1.1 no such user"}),
    ]
    for unknown in ("x", "01a1eeba-0001-75b5-87b0-da5fbbc1269c"):
        assert (await ask(relay, "GET", f"/messages/outbound/{unknown}/details")).json["ErrorCode"] == 701


async def test_lists(relay: Relay) -> None:
    first = await send(relay, MAIL | {"Tag": "one", "Subject": "first words"})
    second = await send(relay, MAIL | {"To": "z@example.test"})
    await relay.attempt(own(second), OK)

    async def found(query: str) -> list[str]:
        return [each["MessageID"] for each in await listed(relay, query)]

    both = [second["MessageID"], first["MessageID"]]
    assert await found("") == await found("?count=500&offset=0") == both
    assert await found("?count=1&offset=1") == [first["MessageID"]]
    for query in ("tag=one", "subject=first", "status=queued", "recipient=a@example.test"):
        assert await found(f"?{query}") == [first["MessageID"]]
    for query in ("fromemail=b@shop.test", "fromEmail=b@shop.test", "fromdate=2027-01-15", "toDate=2027-01-15"):
        assert await found(f"?{query}") == both
    assert await found("?todate=2027-01-14") == await found("?fromDate=2027-01-16") == []
    assert await found("?status=Sent") == [second["MessageID"]]
    for query in ("count=0", "count=501", "offset=-1", "status=x", "recipient=x", "todate=x", "metadata_a=b"):
        result = await ask(relay, "GET", f"/messages/outbound?{query}")
        assert (result.status_code, result.json["ErrorCode"]) == (422, 300)
        assert result.json["Message"].startswith(f"Invalid '{query.partition('=')[0]}': ")


def test_every_status_is_queued_or_sent() -> None:
    assert {*STATUSES["queued"], *STATUSES["sent"]} == set(Status)


async def test_the_document_is_true(relay: Relay) -> None:
    for path in ("/email", "/email/batch"):
        operation: Any = openapi.PATHS[path]["post"]  # type: ignore[index]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        text = msgspec.json.encode(example).replace(b"example.com", b"shop.test")
        said = operation["responses"]["200"]["content"]["application/json"]["example"]
        answered = await send(relay, text, path)
        each, such = (answered, said) if isinstance(said, dict) else (answered[0], said[0])
        assert each.keys() == such.keys()
