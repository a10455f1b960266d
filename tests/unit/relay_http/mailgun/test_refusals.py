"""What is refused, in the words that the vendor's users and clients know; nothing is stored then."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.unit.relay_http.mailgun.conftest import Client, basic

Form = dict[str, Any]
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("name", ["from", "to"])
@pytest.mark.parametrize("empty", [True, False])
async def test_missing_addresses(client: Client, form: Form, name: str, empty: bool) -> None:
    form[name] = ""
    if not empty:
        del form[name]
    assert await client.refused(form) == f"{name} parameter is missing"


@pytest.mark.parametrize("name", ["from", "to", "cc", "bcc"])
@pytest.mark.parametrize("address", ["nobody", "a@b@c", "Ann <ann@example.test", "a@example.test\r\nBcc: x@y.test"])
async def test_addresses_that_are_none(client: Client, form: Form, name: str, address: str) -> None:
    said = await client.refused(form | {name: address})
    assert said == f"'{name}' parameter is not a valid address. please check documentation"


async def test_no_text(client: Client, form: Form) -> None:
    del form["text"]
    assert await client.refused(form) == "Need at least one of 'text' or 'html' parameters specified"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a@b.test": 1}', "[" * 100_000])
async def test_recipient_variables_that_are_no_json(client: Client, form: Form, text: str) -> None:
    said = await client.refused(form | {"recipient-variables": text})
    assert said == "'recipient-variables' parameter is not a valid JSON"


async def test_too_many_recipients(client: Client, form: Form) -> None:
    form["to"] = [f"n{number}@example.test" for number in range(1000)]
    assert await client.refused(form | {"cc": "one@example.test"}) == "Too many recipients, max is 1000"


async def test_too_many_copies_of_a_batch(client: Client, form: Form) -> None:
    form["to"] = [f"n{number}@example.test" for number in range(500)]
    form["bcc"] = [f"b{number}@example.test" for number in range(20)]
    assert (await client.refused(form | {"recipient-variables": "{}"})).startswith("Too many copies")


@pytest.mark.parametrize(
    "text", ["tomorrow", "2027-01-15T10:00:00Z", "x" * 10_000, "99 Foo 2027", "Fri, 31 Feb 2027 1:2:3 +0000"]
)
async def test_dates(client: Client, form: Form, text: str) -> None:
    assert await client.refused(form | {"o:deliverytime": text}) == f"'{text[:64]}' is not an RFC-2822 compliant date"


async def test_a_date_that_is_too_far_ahead(client: Client, form: Form) -> None:
    assert "7 days" in await client.refused(form | {"o:deliverytime": str(1_800_000_000 + 7 * 86_400 + 1)})


@pytest.mark.parametrize("text", ["1", "4m59s", "24h1s", "h", "1d", "-1h", "1h 30m", "9" * 400 + "h"])
async def test_durations(client: Client, form: Form, text: str) -> None:
    assert "o:deliver-within" in await client.refused(form | {"o:deliver-within": text})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("o:tracking", "yes"),
        ("o:tracking", "maybe"),
        ("o:tracking-clicks", "htmlonly"),
        ("o:tracking-opens", "TRUE"),
        ("o:tracking-pixel-location-top", "yes"),
        ("o:testmode", "1"),
        ("o:require-tls", "on"),
        ("o:dkim", "no"),
        ("o:deliverytime-optimize-period", "24h"),
        ("o:time-zone-localize", "10:00"),
        ("o:archive-to", "https://example.test/"),
        ("template", "welcome"),
        ("t:version", "2"),
        ("t:text", "yes"),
        ("t:variables", "{}"),
        ("o:tag", "ü"),
        ("o:tag", "x" * 129),
        ("o:tag", [f"t{number}" for number in range(11)]),
        ("o:deliverytime", ["1800000001", "1800000002"]),
        ("subject", ["a", "b"]),
        ("subject", "a\nb"),
        ("attachment", "no file"),
        ("from", "a@shop.test,b@shop.test"),
        ("html", "<a href='%unsubscribe_url%'>"),
        ("h:X-Own", "a\r\nBcc: x@y.test"),
        ("h:X Own", "a"),
        ("h:Message-Id", "none"),
        ("h:Reply-To", "nobody"),
        ("h:X-Mailgun-Variables", "[]"),
        *[(f"h:{name}", "x") for name in ("To", "from", "Subject", "Content-Type", "Bcc", "DKIM-Signature")],
    ],
)
async def test_each_names_its_parameter(client: Client, form: Form, name: str, value: Any) -> None:
    said = await client.refused(form | {name: value})
    assert name in said


async def test_a_header_name_beyond_ascii(client: Client, form: Form) -> None:
    assert await client.refused(form | {"h:X-Größe": "x"}) == "Header name must be pure ASCII: X-Größe"


async def test_the_same_header_in_two_spellings(client: Client, form: Form) -> None:
    assert "given twice" in await client.refused(form | {"h:X-Own": "a", "h:x-own": "b"})


async def test_options_together(client: Client, form: Form) -> None:
    form |= {f"v:{number}": "x" * 1000 for number in range(17)}
    assert "16 kB" in await client.refused(form)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject", "a\r\nBcc: x@y.test"),
        ("h:X-Own", "a\nb"),
        ("h:Reply-To", "nobody"),
        ("h:Message-Id", "<no@>"),
    ],
)
async def test_what_a_batch_fills_in_is_looked_at_too(client: Client, form: Form, field: str, value: str) -> None:
    form |= {field: "%recipient.x%", "to": ["good@example.test", "bad@example.test"]}
    good = "<a@b.test>" if field == "h:Message-Id" else "good@example.test"
    form["recipient-variables"] = json.dumps({"good@example.test": {"x": good}, "bad@example.test": {"x": value}})
    await client.refused(form)


async def test_a_batch_that_grows_too_large(client: Client, form: Form) -> None:
    form["to"] = [f"n{number}@example.test" for number in range(1000)]
    form["text"] = "%recipient.x%" * 1000
    form["recipient-variables"] = json.dumps({each: {"x": "x" * 100} for each in form["to"]})
    await client.refused(form, 413)


async def test_a_message_over_25_megabytes(client: Client) -> None:
    fields: list[Any] = [("from", "a@shop.test"), ("to", "b@example.test"), ("text", "x")]
    result = await client.send_parts([*fields, ("attachment", ("a.bin", b"\0" * (19 << 20) + b"\0" * 800_000, ""))])
    assert (result.status_code, result.json) == (413, {"message": "Message is larger than 25 MB"})
    assert not client.queue.calls


@pytest.mark.parametrize("filename", ["a%0D%0Ab.txt", "a%0Ab"])
async def test_a_file_name_with_line_breaks(client: Client, filename: str) -> None:
    fields: list[Any] = [("from", "a@shop.test"), ("to", "b@example.test"), ("text", "x")]
    result = await client.send_parts([*fields, ("attachment", (filename, b"x", "text/plain"))])
    assert (result.status_code, "attachment" in result.json["message"]) == (400, True)


async def test_an_inline_file_whose_name_is_too_long_to_be_named_by(client: Client) -> None:
    fields: list[Any] = [("from", "a@shop.test"), ("to", "b@example.test"), ("html", "x")]
    result = await client.send_parts([*fields, ("inline", ("ü" * 100, b"x", "image/png"))])
    assert (result.status_code, "inline" in result.json["message"]) == (400, True)


async def test_a_media_type_that_is_none(client: Client) -> None:
    fields: list[Any] = [("from", "a@shop.test"), ("to", "b@example.test"), ("text", "x")]
    result = await client.send_parts([*fields, ("attachment", ("a", b"x", "nonsense"))])
    assert (result.status_code, "attachment" in result.json["message"]) == (400, True)


async def test_a_form_that_is_none(client: Client) -> None:
    result = await client.post("/v3/shop.test/messages", b"--x", "multipart/form-data; boundary=y")
    assert (result.status_code, result.json["message"][:36]) == (400, "the body is not multipart/form-data:")


async def test_another_type_of_body(client: Client) -> None:
    result = await client.post("/v3/shop.test/messages", b"{}", "application/json")
    assert (result.status_code, list(result.json)) == (415, ["message"])


@pytest.mark.parametrize("domain", ["other.test", "unknown.test", "test.", "a." + "x" * 300, "%2e", "shop.test%0a"])
async def test_a_domain_that_is_not_the_tenants(client: Client, form: Form, domain: str) -> None:
    result = await client.post(f"/v3/{domain}/messages", urlencode(form).encode(), FORM)
    assert (result.status_code, result.json["message"][:18]) == (404, "Domain not found: ")


async def test_a_sender_of_another_tenant(client: Client, form: Form) -> None:
    result = await client.send(form | {"from": "ceo@other.test"})
    assert (result.status_code, list(result.json)) == (403, ["message"])
    assert not client.queue.calls


async def test_without_a_key(client: Client, form: Form) -> None:
    result = await client.api.request("POST", "/v3/shop.test/messages", b"", {"Content-Type": FORM})
    assert (result.status_code, result.json) == (401, {"Error": "unauthorized"})


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !", "Basic YXBp", "Basic YXBpOg==", "Basic /w=="])
async def test_what_is_no_basic_authentication(client: Client, header: str) -> None:
    result = await client.api.request("POST", "/v3/shop.test/messages", b"", {"Authorization": header})
    assert (result.status_code, result.json) == (401, {"Error": "unauthorized"})


async def test_a_wrong_key(client: Client) -> None:
    result = await client.api.request("POST", "/v3/shop.test/messages", b"", basic("SG.wrong"))
    assert (result.status_code, result.json) == (401, {"message": "Invalid private key"})


async def test_a_key_without_the_scope(client: Client, form: Form) -> None:
    client.api.key = client.api.read_key
    assert await client.refused(form, 403) == "Forbidden"


async def test_a_wrong_method(client: Client) -> None:
    result = await client.get("/v3/shop.test/messages")
    assert (result.status_code, result.json) == (405, {"message": "POST method allowed only"})


@pytest.mark.parametrize("path", ["/v3/suppression/messages", "/v3/mail/messages", "/v3/suppression/events"])
async def test_what_has_no_dot_is_no_domain(client: Client, path: str) -> None:
    result = await client.api.request("POST", path, b"", {"Authorization": f"Bearer {client.api.key}"})
    assert (result.status_code, result.json["errors"][0]["message"]) == (404, "not found")


async def test_a_path_below_a_domain_that_nobody_knows(client: Client) -> None:
    result = await client.get("/v3/shop.test/nonsense")
    assert (result.status_code, result.json) == (404, {"message": "not found"})


@pytest.mark.parametrize("name", ["subject", "h:Reply-To"])
async def test_what_a_batch_fills_in_is_measured_before(
    client: Client, form: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("relay_http.mailgun.translate.TEXTS_LIMIT", 10_000)
    form[name] = "%recipient.x%" * 101
    form["recipient-variables"] = json.dumps({"ann@example.test": {"x": "x" * 100}})
    assert "25 MB" in await client.refused(form, 413)


async def test_more_addresses_than_are_read(client: Client, form: dict[str, Any]) -> None:
    assert (
        await client.refused(form | {"to": "a@b.test," * 200_000}) == "'to' parameter is longer than 1000000 characters"
    )
