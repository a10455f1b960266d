"""REQUIRETLS and TLS-Required: the parameter before the field, and of the field only its one legal value."""

import pytest

from mta.mail import headers
from mta.mail.tls_required import FIELD, tls_required

FROM = b"From: a@b.test\r\n"


@pytest.mark.parametrize(
    ("header", "without", "with_parameter"),
    [
        (b"", "", "yes"),
        (b"TLS-Required: No\r\n", "no", "yes"),
        (b"tls-required:no\r\n", "no", "yes"),
        (b"TLS-REQUIRED :\r\n\tNO \r\n", "no", "yes"),
        (b"TLS-Required: No\r\nTLS-Required: No\r\n", "", "yes"),
        (b"TLS-Required: No\r\nTLS-Required: Yes\r\n", "", "yes"),
        (b"TLS-Required: Yes\r\n", "", "yes"),
        (b"TLS-Required:\r\n", "", "yes"),
        (b"TLS-Required: No, No\r\n", "", "yes"),
        (b"TLS-Required: N\r\n o\r\n", "", "yes"),
        (b"TLS-Required: No (please)\r\n", "", "yes"),
        (b"X-TLS-Required: No\r\n", "", "yes"),
    ],
)
def test_requiretls_and_the_field(header: bytes, without: str, with_parameter: str) -> None:
    values = headers.values(FROM + header, FIELD.encode())
    assert tls_required(values) == without
    assert tls_required(values, requiretls=True) == with_parameter
