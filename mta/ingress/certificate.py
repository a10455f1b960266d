"""Our own certificate on listeners: TLS contexts made of files, and made anew for new sessions when the files change.

Sessions keep the context that they began with. TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers alone (RFC 9325
4.2), by our preference; no renegotiation, no compression. Files are read when they have been the same for two looks:
a renewal replaces several, and between the first and the last they do not belong together.
"""

import logging
import ssl
from pathlib import Path
from typing import NamedTuple

from mta.config import Tls

log = logging.getLogger(__name__)

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; TLS 1.3 has no others


class CertificateError(Exception):
    """A file cannot be used; the message names its setting, the file and the reason."""


class _Seen(NamedTuple):
    """What tells a file from the one that it replaces. All 0 if there is none."""

    changed_ns: int
    size: int
    inode: int


class OwnCertificate:
    """The context of listeners with TLS."""

    def __init__(self, files: Tls) -> None:
        """Read the files; CertificateError when they cannot be used."""
        self._tls = files
        self._paths = [path for path in (files.certificate, files.key) if path is not None]
        self._used = self._last = self._look_at_files()
        self._context = self._read()

    @property
    def context(self) -> ssl.SSLContext:
        """Return the context for a new session on a listener with TLS, which has a certificate by configuration."""
        assert self._context is not None
        return self._context

    def look(self) -> None:
        """Read the files again if they have changed and do not any more. What cannot be used is logged, once."""
        seen, last = self._look_at_files(), self._last
        self._last = seen
        if seen == self._used or seen != last:
            return
        self._used = seen
        try:
            self._context = self._read()
        except CertificateError as error:
            log.error("certificate=refused, the one before stays in use: %s", error)
        else:
            log.info("certificate=reloaded files=%d", len(self._paths))

    def _look_at_files(self) -> list[_Seen]:
        return [_seen(path) for path in self._paths]

    def _read(self) -> ssl.SSLContext | None:
        return None if self._tls.certificate is None else server_context(self._tls)


def server_context(files: Tls) -> ssl.SSLContext:
    """Read our certificate; CertificateError if that fails."""
    assert files.certificate is not None
    assert files.key is not None
    for name, path in (
        ("tls.certificate", files.certificate),
        ("tls.key", files.key),
    ):  # what OpenSSL says names no file
        try:
            path.open("rb").close()
        except OSError as error:
            raise CertificateError(f"{name}: {path}: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CertificateError(f"tls: {files.certificate} with {files.key}: {_reason(error)}") from None
    return context


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


def _no_passphrase() -> str:
    """Answer OpenSSL, which would ask at the terminal."""
    raise ValueError("the key has a passphrase, and nobody is there to say it: store it without one")


def _seen(path: Path) -> _Seen:
    try:
        found = path.stat()
    except OSError:
        return _Seen(0, 0, 0)
    return _Seen(found.st_mtime_ns, found.st_size, found.st_ino)
