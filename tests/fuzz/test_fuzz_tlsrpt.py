"""Whatever a TLSRPT record holds, what is found in it can be sent to; whatever a report holds, it is read or refused by
ReportError, in time, and what is read can be written; whatever sessions are noted, a report of them is one.
"""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mta.delivery.policy import Failure, StsPolicy, Tlsa
from mta.delivery.tlsrpt import Session, TlsResults
from mta.lab.clock import FakeClock
from mta.mail.address import parse_mailbox
from mta.mail.tls_report import Report, report_json, report_of
from mta.mail.tls_report_reader import ReportError, read_report
from mta.mail.tls_report_record import endpoints
from mta.spool import tls_results
from tests.rfc8460 import complaints
from tests.unit.delivery.peers import Records
from tests.unit.mail.test_tlsrpt_reader import EXAMPLE

PIECES = [
    "v=TLSRPTv1",
    "; ",
    ";rua=",
    "rua",
    "=",
    ",",
    "mailto:",
    "https://",
    "a@b.test",
    "b.test",
    "%0d%0a",
    "%",
    "?",
    "/",
]
PIECES += [":", "@", "[::1]", "\r\n", "\x00", " ", "\t", "!", "%2C", "ext=1", ":443", ":0", "#", "é", '"', "x" * 300]
SECONDS = 1.0

texts = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), max_size=12).map("".join)
records = texts.map(lambda text: f"v=TLSRPTv1;rua={text}".encode()) | texts.map(str.encode) | st.binary()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=3,
)
lines = st.lists(st.text(st.characters(), max_size=40), max_size=4).map(tuple)
policies = st.builds(
    StsPolicy,
    domain=st.just("b.test"), id=st.just("1"), mode=st.just("enforce"), max_age=st.just(1), fetched_at=st.just(1.0),
    mx=st.lists(st.sampled_from(["mx.b.test", "*.b.test"]), max_size=3).map(tuple), text=lines,
)  # fmt: skip
tlsa = st.lists(st.builds(Tlsa, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary()), max_size=3)
sessions = st.builds(
    Session,
    at=st.just(1_800_000_000.0), domain=st.just("b.test"), sts=st.none() | policies,
    dane=st.none() | tlsa.map(tuple), host=st.sampled_from(["", "mx.b.test"]),
    source=st.sampled_from(["", "192.0.2.1"]), address=st.sampled_from(["", "2001:db8::1"]),
    failure=st.none() | st.sampled_from(Failure), text=st.text(st.characters(), max_size=300),
)  # fmt: skip


@given(st.lists(records, max_size=3))
@settings(max_examples=500, deadline=None)
def test_any_record(found: list[bytes]) -> None:
    for each in endpoints(found):
        assert each.uri.isascii()
        assert each.uri.isprintable()
        if each.mailbox:
            assert parse_mailbox(each.mailbox).isascii()
        else:
            assert each.host
            assert f"{each.path} ".split() == [each.path]
            assert each.path.startswith("/")
            assert 0 < each.port < 65536


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_a_report_with_any_value_at_any_place(data: st.DataObject) -> None:
    report = json.loads(json.dumps(EXAMPLE))
    container, key = data.draw(st.sampled_from(list(_places(report))))
    container[key] = data.draw(values)
    _read_or_refuse(json.dumps(report).encode())


@given(st.binary(max_size=200), st.booleans())
@example(json.dumps(EXAMPLE | {"organization-name": "\ud800"}).encode(), True)
@example(json.dumps(EXAMPLE | {"organization-name": "\0\x1b"}).encode(), False)
@settings(max_examples=300, deadline=None)
def test_any_octets(octets: bytes, packed: bool) -> None:
    _read_or_refuse(gzip.compress(octets) if packed else octets)
    _read_or_refuse(b"\x1f\x8b\x08\x00" + octets)


@given(st.lists(sessions, min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_sessions(noted: list[Session]) -> None:
    report = asyncio.run(_report(noted))
    shown = json.loads(report_json(report))
    assert not list(complaints(shown))
    assert sum(each.successful + each.failed for each in report.policies) == len(noted)
    assert read_report(report_json(report)) == report


async def _report(noted: list[Session]) -> Report:
    spool = Records()
    results = TlsResults(spool, FakeClock())  # type: ignore[arg-type]
    for each in noted:
        results.note(each)
    await results.keep()
    (found,) = await tls_results.all_results(spool, "2027-01-15")  # type: ignore[arg-type]
    return report_of(found.day, found.policies, organization="o", contact="p@relay.test", message_id="A" * 22)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def _read_or_refuse(octets: bytes) -> None:
    began = time.process_time()
    try:
        report = read_report(octets)
    except ReportError:
        return
    finally:
        assert time.process_time() - began < SECONDS
    assert read_report(report_json(report)).policies == report.policies
