"""`fairlead doctor`: what is printed for people and for programs, how it ends, and what of strangers gets through."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mta.accounts import domains, tenants
from mta.cli.doctor import _lines
from mta.doctor.findings import Finding, Grade, Section
from tests.unit.delivery.peers import DnsPeer

PTR = ("4.4.8.8.in-addr.arpa", "PTR")
RELAY = {PTR: ["relay.test."], ("relay.test", "A"): ["8.8.4.4"]}
RECEIVER = {("rcpt.test", "MX"): ["10 mx.test."], ("mx.test", "A"): ["8.8.8.8"]}
SENDER = {
    ("acme.test", "TXT"): ['"v=spf1 ip4:8.8.4.4 -all"'],
    ("acme.test", "MX"): ["10 mx.test."],
    ("_dmarc.acme.test", "TXT"): ['"v=DMARC1; p=reject"'],
}


@contextmanager
def dns(records) -> Iterator[DnsPeer]:
    """A DNS that answers in a thread of its own: the command has a loop of its own."""
    peer = DnsPeer(records)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(peer.__aenter__(), loop).result(10)
        yield peer
        asyncio.run_coroutine_threadsafe(peer.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def doctor(relay):
    """Examine a domain by a DNS that has these records."""

    def run(records, *arguments: str, settings: str = ""):
        with dns(records) as peer:
            known = relay.config_file.read_text().partition("dns:")[0]
            relay.config_file.write_text(f"{known}dns: {{servers: ['127.0.0.1:{peer.port}'], timeout: 5}}\n{settings}")
            return relay.run("doctor", *arguments, "--address", "8.8.4.4", "--no-connect")

    return run


def register(relay, name: str = "acme.test") -> None:
    async def work(spool):
        await tenants.create(spool, "acme", 0.0)
        await domains.add(spool, name, "acme", 0.0)

    relay.with_spool(work)


def test_a_receiver_in_good_order(doctor):
    done = doctor(RELAY | RECEIVER, "RCPT.test.")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "this relay, as receivers see it"
    assert any(line.split() == ["ok", "mx.test", "8.8.8.8"] for line in lines), done.out
    assert "rcpt.test as a receiver" in lines
    assert "not a sender domain here" in done.out


def test_the_same_for_programs(doctor):
    record = doctor(RELAY | RECEIVER, "rcpt.test", "--json").record
    assert (record["domain"], record["grade"]) == ("rcpt.test", "ok")
    assert [each["title"] for each in record["sections"]] == [
        "this relay, as receivers see it",
        "rcpt.test as a sender",
        "rcpt.test as a receiver",
    ]
    findings = record["sections"][2]["findings"]
    assert {"about": "mx.test", "grade": "ok", "said": "8.8.8.8", "advice": ""} in findings


def test_problems_are_counted_and_end_it_with_1(relay, doctor):
    register(relay)
    done = doctor(RELAY | SENDER | {("mx.test", "A"): ["8.8.8.8"]}, "acme.test")
    assert (done.code, done.err) == (1, "fairlead: acme.test: 1 problem\n"), done.out
    assert "problem  dkim" in done.out
    assert "-> fairlead dkim create acme.test --selector s1" in done.out
    record = doctor(RELAY | SENDER, "acme.test", "--json").record
    assert record["grade"] == "problem"


def test_warnings_do_not_end_it_with_1(doctor):
    records = RELAY | RECEIVER | {("relay.test", "A"): ["8.8.4.4"], ("mx.test", "A"): ["8.8.8.8", "10.0.0.1"]}
    done = doctor(records, "rcpt.test")
    assert (done.code, "warning  mx.test" in done.out) == (0, True)


@pytest.mark.parametrize("domain", ["not a domain", "[192.0.2.1]", "a..b", "x" * 300])
def test_what_is_no_domain_is_refused(doctor, domain: str):
    done = doctor({}, domain)
    assert (done.code, done.out) == (2, "")
    assert "is not a domain name" in done.err


def test_an_address_has_to_be_one(relay):
    done = relay.run("doctor", "rcpt.test", "--address", "here")
    assert (done.code, "must be an IP address" in done.err) == (2, True)


def test_what_strangers_publish_reaches_no_terminal_raw(relay, doctor):
    """Red when a record can clear the screen, or write lines that look like ours."""
    register(relay)
    hostile = '"v=DMARC1; p=reject; rua=\\027[2J\\027]0;x\\007\\010\\013\\010  ok       spf passes\\226\\128\\174"'
    records = {
        **SENDER,
        ("_dmarc.acme.test", "TXT"): [hostile],
        ("acme.test", "TXT"): [hostile.replace("DMARC1", "spf1")],
    }
    pointers = {PTR: ["evil\\027[2J.test."]}
    done = doctor(RELAY | records | pointers, "acme.test")
    assert done.code == 1
    for char in "\x1b\x07\x08\x0b\u202e":
        assert char not in done.out
    assert all(line.isprintable() for line in done.out.splitlines())
    assert not any(line.startswith("  ok       spf passes") for line in done.out.splitlines())
    assert len(max(done.out.splitlines(), key=len)) < 600


def test_a_finding_is_on_its_line_whatever_is_in_it():
    """Red when text that a check forgot to clean writes lines that look like ours."""
    hostile = Finding("x\n  ok", Grade.PROBLEM, "x\n  ok       spf passes\x1b[2J", "do\nthis")
    lines = _lines(Section("title", (hostile,)))
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)


def test_a_dns_that_says_nothing_ends_it_in_its_time_with_warnings(relay, doctor):
    register(relay)
    done = doctor({}, "acme.test", settings="")
    assert done.code == 1
    with dns({}) as peer:
        port = peer.port
    relay.config_file.write_text(
        relay.config_file.read_text().partition("dns:")[0] + f"dns: {{servers: ['127.0.0.1:{port}'], timeout: 0.2}}\n"
    )
    done = relay.run("doctor", "acme.test", "--address", "8.8.4.4", "--no-connect")
    assert "no answer from the DNS" in done.out
