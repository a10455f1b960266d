"""What ends a contest: mail that is not signed as it should be."""

import dkim
import pytest
from nacl.encoding import Base64Encoder
from nacl.signing import SigningKey

from mta.config import HostPort
from tests.bench.contest import look_at
from tests.bench.orders import Malfunction
from tests.bench.servers import Server

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
