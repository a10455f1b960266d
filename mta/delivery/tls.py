"""TLS towards next hops: which context a mode asks for, and what is told of a session (RFC 3207, RFC 8314).

`opportunistic` and `require` do not look at the certificate: whoever could swap it could as well strip
STARTTLS, or is kept out by nobody but a policy. `verify` and `implicit` want one that a known authority
(the system's, and `delivery.ca_file`) gave for the next hop's name.
"""

import ssl
from pathlib import Path

from mta.delivery.route import TlsMode


class TlsContexts:
    """The client side's contexts, made once. OSError if the CA file cannot be used."""

    def __init__(self, ca_file: Path | None) -> None:
        self._verifying = ssl.create_default_context()
        if ca_file is not None:
            try:
                self._verifying.load_verify_locations(cafile=ca_file)
            except OSError as error:  # ssl.SSLError is one; neither names the file
                reason = "not certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
                raise OSError(error.errno, f"delivery.ca_file {ca_file}: {reason}") from None
        self._unverifying = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._unverifying.check_hostname = False
        self._unverifying.verify_mode = ssl.CERT_NONE

    def context(self, mode: TlsMode) -> ssl.SSLContext:
        """Choose the context for a mode other than `none`."""
        return self._verifying if mode in ("verify", "implicit") else self._unverifying


def note(session: ssl.SSLObject) -> str:
    """Say how a connection is protected, as `TLSv1.3:TLS_AES_256_GCM_SHA384:verified`."""
    cipher = session.cipher()
    verified = "verified" if session.context.verify_mode is ssl.CERT_REQUIRED else "unverified"
    return f"{session.version()}:{cipher[0] if cipher else '?'}:{verified}"
