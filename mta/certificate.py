"""Our own certificate on listeners and for HTTP: TLS contexts made of files, anew for new sessions when they change.

Sessions keep the context that they began with. TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers alone (RFC 9325
4.2), by our preference; no renegotiation, no compression. Files are read when they have been the same for two looks:
a renewal replaces several, and between the first and the last they do not belong together.
"""

import logging
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mta.config import Listener, Tls

log = logging.getLogger(__name__)

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; TLS 1.3 has no others
_NAME_KINDS = ("DNS", "email", "URI")


class CertificateError(Exception):
    """A file cannot be used; the message names its setting, the file and the reason."""


class _Seen(NamedTuple):
    """What tells a file from the one that it replaces. All 0 if there is none."""

    changed_ns: int
    size: int
    inode: int


class OwnCertificate:
    """The contexts of listeners with TLS: one for those that ask no client for a certificate, and one per authority."""

    def __init__(self, files: Tls, listeners: Iterable[Listener] = (), setting: str = "tls") -> None:
        """Read the files, which the setting names; CertificateError when they cannot be used."""
        self._tls = files
        self._setting = setting
        self._authorities = {None, *(each.client_ca for each in listeners)}
        self._paths = [path for path in (files.certificate, files.key, *self._authorities) if path is not None]
        self._used = self._last = self._look_at_files()
        self._refused = ""  # why what is there cannot be used
        self._contexts = self._read()

    def context(self, client_ca: Path | None = None) -> ssl.SSLContext:
        """Return the context for a new session where there is a certificate, for clients of an authority or for all."""
        return self._contexts[client_ca]

    def look(self) -> None:
        """Read the files again if they have changed and do not any more. What cannot be used is logged, once.

        It is read again at each look: permissions that were put right, or descriptors to spare, change no file.
        """
        seen, last = self._look_at_files(), self._last
        self._last = seen
        if seen != last or (seen == self._used and not self._refused):
            return
        self._used = seen
        try:
            self._contexts = self._read()
        except CertificateError as error:
            if str(error) != self._refused:
                log.error("certificate=refused, the one before stays in use: %s", error)
            self._refused = str(error)
        else:
            self._refused = ""
            log.info("certificate=reloaded files=%d", len(self._paths))

    def _look_at_files(self) -> list[_Seen]:
        return [_seen(path) for path in self._paths]

    def _read(self) -> dict[Path | None, ssl.SSLContext]:
        if self._tls.certificate is None:
            return {}
        return {authority: server_context(self._tls, authority, self._setting) for authority in self._authorities}


def server_context(files: Tls, client_ca: Path | None, setting: str = "tls") -> ssl.SSLContext:
    """Read our certificate, and the authority of our clients' if there is one; CertificateError if that fails."""
    assert files.certificate is not None
    assert files.key is not None
    named = [(f"{setting}.certificate", files.certificate), (f"{setting}.key", files.key)]
    if client_ca is not None:
        named.append(("client_ca", client_ca))
    for name, path in named:  # what OpenSSL says names no file
        try:
            text = path.read_bytes()
        except OSError as error:
            raise CertificateError(f"{name}: {path}: {error.strerror}") from None
        if b"-----BEGIN " not in text:
            raise CertificateError(f"{name}: {path}: not PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CertificateError(f"{setting}: {files.certificate} with {files.key}: {_reason(error)}") from None
    if client_ca is not None:
        _ask_for_certificates(context, client_ca)
    return context


def _ask_for_certificates(context: ssl.SSLContext, client_ca: Path) -> None:
    """Ask clients for a certificate: none is no error, one that is not of `client_ca` ends the handshake."""
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_verify_locations(client_ca)
    except (OSError, ValueError) as error:
        raise CertificateError(f"client_ca: {client_ca}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or ("damaged" if isinstance(error, ssl.SSLError) else error))


def _no_passphrase() -> str:
    """Answer OpenSSL, which would ask at the terminal."""
    raise ValueError("the key has a passphrase, and nobody is there to say it: store it without one")


def _seen(path: Path) -> _Seen:
    try:
        found = path.stat()
    except OSError:
        return _Seen(0, 0, 0)
    return _Seen(found.st_mtime_ns, found.st_size, found.st_ino)


def names_of(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """List whom a verified certificate names, as `getpeercert` gives it: alternative names, CN, or its serial number.

    Nothing without one. Who made it has authority over all of these names: it is the operator's own.
    """
    if not certificate:
        return ()
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in _NAME_KINDS]
    names += [value for rdn in certificate.get("subject", ()) for kind, value in rdn if kind == "commonName"]
    return tuple(names) or (f"serial {certificate.get('serialNumber')}",)
