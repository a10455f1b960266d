"""What ends a contest: mail that is not signed as it should be, or not encrypted."""

import dkim
import pytest
from nacl.encoding import Base64Encoder
from nacl.signing import SigningKey

from mta.config import HostPort
from tests.bench.contest import arrived, look_at
from tests.bench.orders import Malfunction, Report
from tests.bench.servers import Server
from tests.bench.sink import Sink

CONTENT = b"From: app0@bench.test\r\nSubject: bench.1.0\r\n\r\nHello.\r\n"
KEY = SigningKey.generate()
RECORD = f"v=DKIM1; k=ed25519; p={KEY.verify_key.encode(Base64Encoder).decode()}"
SIGNED = (
    dkim.sign(CONTENT, b"s1", b"bench.test", KEY.encode(Base64Encoder), signature_algorithm=b"ed25519-sha256") + CONTENT
)


def server(record: str) -> Server:
    return Server("Fairlead", HostPort(host="127.0.0.1", port=25), (), record)


def test_signatures_are_verified() -> None:
    look_at([SIGNED], server(RECORD))
    with pytest.raises(Malfunction, match="does not verify"):
        look_at([SIGNED, SIGNED.replace(b"Hello", b"Hallo")], server(RECORD))


def test_mail_is_signed_or_not_as_it_should_be() -> None:
    look_at([CONTENT], server(""))
    for content, record in ((CONTENT, RECORD), (SIGNED, "")):
        with pytest.raises(Malfunction, match="signed"):
            look_at([content], server(record))


async def test_mail_arrives_over_tls_where_it_should() -> None:
    sink = Sink()
    sink.expect(1)
    sink.take(CONTENT)
    report = Report(accepted=1, began=0, ended=1, cpu=0)
    encrypted = server("")._replace(encrypted=True)
    assert await arrived(sink, encrypted, report) == sink.last_at
    sink.in_clear = 1
    await arrived(sink, server(""), report)
    with pytest.raises(Malfunction, match="1 of 1 arrived in the clear"):
        await arrived(sink, encrypted, report)
