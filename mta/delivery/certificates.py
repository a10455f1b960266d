"""What is wrong with the certificates that a next hop showed: by authorities (RFC 5280, RFC 9525), by TLSA (RFC 7672).

The handshake, made without verification, has proved that the peer has the key of the first certificate, and
nothing else. What is judged here comes from strangers: so many certificates, keys of such sizes, and what
cannot be read is a flaw. Nobody is asked for anything: no CRL, no OCSP, no certificate is fetched.
"""

import _ssl
import datetime as dt
import hashlib
import ipaddress
import logging
import re
import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, PublicKeyAlgorithmOID
from OpenSSL import crypto

from mta.delivery.der import cut_public_key
from mta.delivery.policy import Failure, Flaw, Tlsa

log = logging.getLogger(__name__)

CHAIN_LIMIT = 16  # certificates; what is behind them is not looked at
ANCHORS_LIMIT = 4  # of those that TLSA records name, tried in turn; with many names each costs 10 ms
_KINDS = frozenset(
    {
        PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5,
        PublicKeyAlgorithmOID.RSASSA_PSS,
        PublicKeyAlgorithmOID.EC_PUBLIC_KEY,
        PublicKeyAlgorithmOID.ED25519,
        PublicKeyAlgorithmOID.ED448,
    }
)
_RSA_BITS = range(2048, 8192 + 1)  # NIST SP 800-131A; above, each signature costs milliseconds
_RSA_EXPONENT_LIMIT = 2**32  # one as long as the modulus costs a thousand times as much
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_NAMES_SHOWN = 2
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SHOWABLE = re.compile(r"[A-Za-z0-9*._-]{1,100}")
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}  # RFC 6698 2.1.3
_UNREADABLE = (
    ValueError,
    crypto.Error,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class _Unfit(ValueError):
    """A certificate that is not one to work with; says why, in words for a reply."""


class Roots:
    """Authorities whose word is taken: the system's and those of a file, or those of the file alone.

    Whatever the file holds is trusted as it is, an intermediate authority or a server's own certificate too.
    """

    def __init__(self, ca_file: Path | None, *, only: bool = False) -> None:
        """Read them; OSError, which names the file, if they cannot be used. `only`: not the system's."""
        self._ca_file = ca_file
        self._only = only
        self._seen = self._look_at_files()
        self.certificates = self._read()

    def look(self) -> None:
        """Read them again if their files have changed. What cannot be used is logged, and those before stay."""
        seen = self._look_at_files()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.certificates = self._read()
        except OSError as error:
            log.error("authorities=refused, those before stay in use: %s", error.strerror or error)
        else:
            log.info("authorities=reloaded certificates=%d", len(self.certificates))

    def _files(self) -> list[Path]:
        files = [] if self._only else _system_files()
        return [*files, self._ca_file] if self._ca_file is not None else files

    def _look_at_files(self) -> list[tuple[Path, int, int, int]]:
        found = [(file, file.stat()) for file in self._files() if file.exists()]
        return [(file, each.st_mtime_ns, each.st_size, each.st_ino) for file, each in found]

    def _read(self) -> list[crypto.X509]:
        return [each for file in self._files() for each in _certificates_in(file)]


def chain_of(session: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the certificates that the peer of a client's session sent, DER, its own first; none if it sent none."""
    # public from 3.13 on; getpeercert() gives only the first
    chain = session._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # noqa: SLF001
    return tuple([each.public_bytes(_ssl.ENCODING_DER) for each in chain or ()])


def by_authority(chain: Sequence[bytes], host: str, roots: Roots, now: float) -> Flaw | None:
    """Tell what is wrong with a chain if it has to be given for `host` by one of `roots`; never raises.

    `host` is a name in A-labels or an IP address; `now` in absolute seconds.
    """
    try:
        shown = _Shown.read(chain)
        store = _store(roots.certificates, now)
        return _flaw_of_path(shown, store, host) or _flaw_of_names(_dns_ids(shown.leaf), shown, (host,))
    except _UNREADABLE as error:
        return _unreadable(host, error)


def by_tlsa(chain: Sequence[bytes], records: Sequence[Tlsa], names: Sequence[str], now: float) -> Flaw | None:
    """Tell what is wrong with a chain if a usable TLSA record has to match it; never raises.

    `names` are all that the certificate may be for (RFC 7672 3.2.2), the host first; `now` in absolute seconds.
    """
    try:
        chain = chain[:CHAIN_LIMIT]
        if _matching(chain[:1], [each for each in records if each.usage == 3]):
            return None  # RFC 7672 3.1.1: neither names nor dates count
        anchors = _anchors(chain, [each for each in records if each.usage == 2])
        if not anchors:
            return Flaw(Failure.VALIDATION_FAILURE, f"certificate of {names[0]} matches none of its TLSA records")
        shown = _Shown.read(chain)
        flaws = []
        for each in anchors[:ANCHORS_LIMIT]:
            flaw = _flaw_by_anchor(shown, each, names, now)
            if flaw is None:
                return None
            flaws.append(flaw)
        return flaws[0]
    except _UNREADABLE as error:
        return _unreadable(names[0], error)


def dns_ids_for(host: str) -> list[str]:
    """List the DNS-IDs, in lower case, that make a certificate good for a host name in A-labels (RFC 9525 6.3)."""
    host = host.lower().rstrip(".")
    label, _, parent = host.partition(".")
    # RFC 9525 6.3: the star is the whole of the left-most label, and stands for one; and for none right under a
    # top-level domain, as OpenSSL has it
    return [*([host] if "*" not in host else []), *([f"*.{parent}"] if label and "." in parent else [])]


class _Shown(NamedTuple):
    """A chain as it was read: the peer's own certificate, and others that may help to build its path."""

    leaf: x509.Certificate
    certificate: crypto.X509  # the same, OpenSSL's
    others: list[crypto.X509]

    @classmethod
    def read(cls, chain: Sequence[bytes]) -> "_Shown":
        """Read a chain; one of `_UNREADABLE` if its first certificate will not do. Of the others, those go unused."""
        if not chain:
            raise _Unfit("there is none")
        leaf, certificate = _read(chain[0])
        others = []
        for der in chain[1:CHAIN_LIMIT]:
            try:
                others.append(_read(der)[1])
            except _UNREADABLE:  # many servers send more than is needed
                continue
        return cls(leaf, certificate, others)


def _read(der: bytes) -> tuple[x509.Certificate, crypto.X509]:
    """Read a certificate; one of `_UNREADABLE` if that cannot be done or its key is not one to work with."""
    certificate = x509.load_der_x509_certificate(der)
    # before its key is read: of a Diffie-Hellman key of 8,192 bits that would be a minute of looking for primes
    if certificate.public_key_algorithm_oid not in _KINDS:
        raise _Unfit("its key is of a kind that is not used for TLS")
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in _RSA_BITS:
            raise _Unfit(f"its RSA key has {key.key_size} bits")
        if key.public_numbers().e > _RSA_EXPONENT_LIMIT:
            raise _Unfit("its RSA key has too large an exponent")
    return certificate, crypto.load_certificate(crypto.FILETYPE_ASN1, der)


def _store(anchors: Iterable[crypto.X509], now: float) -> crypto.X509Store:
    store = crypto.X509Store()  # a new one each time, for its time can be set only once
    store.set_time(dt.datetime.fromtimestamp(now, dt.UTC))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # an anchor need not be self-signed
    for each in anchors:
        store.add_cert(each)
    return store


def _system_files() -> list[Path]:
    """Return where OpenSSL would look: one file with all of them, or else a directory of links named by hashes."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return [Path(paths.cafile)]
    links = sorted(Path(paths.capath).glob("????????.[0-9]")) if paths.capath else []
    return [each for each in links if each.is_file()]


def _certificates_in(file: Path) -> list[crypto.X509]:
    try:
        blocks = _PEM.findall(file.read_bytes())
        found = [crypto.load_certificate(crypto.FILETYPE_PEM, each) for each in blocks]
    except OSError as error:
        raise OSError(error.errno, f"{file}: {error.strerror}") from None
    except crypto.Error:
        found = []
    if not found:
        raise OSError(f"{file}: not certificates in PEM")
    return found


def _flaw_of_path(shown: _Shown, store: crypto.X509Store, host: str) -> Flaw | None:
    """Look for a path from an anchor in `store` to the peer's certificate (RFC 5280 6)."""
    try:
        path = crypto.X509StoreContext(store, shown.certificate, shown.others).get_verified_chain()
    except crypto.X509StoreContextError as error:
        code, depth, words = error.errors
        if code != _EXPIRED:
            text = f"certificate of {host} is not trusted: {words}"
            return Flaw(Failure.CERTIFICATE_NOT_TRUSTED, text)
        if depth:
            return Flaw(Failure.CERTIFICATE_EXPIRED, f"certificate of {host} is of an authority whose own has expired")
        day = shown.leaf.not_valid_after_utc.date()
        return Flaw(Failure.CERTIFICATE_EXPIRED, f"certificate of {host} expired on {day}")
    # an anchor is trusted for itself; and the first, which a stranger can make long, is not read again for each of them
    for each in [shown.leaf, *[each.to_cryptography() for each in path[1:-1]]] if len(path) > 1 else []:
        if reason := _unsound(each):
            return Flaw(Failure.CERTIFICATE_NOT_TRUSTED, f"certificate of {host} is not trusted: {reason}")
    return None


def _unsound(certificate: x509.Certificate) -> str:
    """Say what OpenSSL has not looked at, for want of a security level and a purpose."""
    digest = certificate.signature_hash_algorithm
    if isinstance(digest, hashes.MD5 | hashes.SHA1):
        return f"signed with {digest.name}"
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    # RFC 5280 4.2.1.12
    if ExtendedKeyUsageOID.SERVER_AUTH in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages:
        return ""
    return "not for servers"


def _dns_ids(certificate: x509.Certificate) -> list[str]:
    names = _alternative_names(certificate)
    return names.get_values_for_type(x509.DNSName) if names else []


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _flaw_of_names(presented: Sequence[str], shown: _Shown, wanted: Sequence[str]) -> Flaw | None:
    good = {each for host in wanted for each in dns_ids_for(host)}
    if any(each.lower() in good for each in presented):
        return None
    if any(_has_address(shown.leaf, host) for host in wanted):
        return None
    some = [each for each in presented[:_NAMES_SHOWN] if _SHOWABLE.fullmatch(each)]
    more = len(presented) - len(some)
    listed = ", ".join(some) or "no host"
    text = f"certificate of {wanted[0]} is for {listed}{f' and {more} more' if some and more else ''}"
    return Flaw(Failure.CERTIFICATE_HOST_MISMATCH, text)


def _has_address(certificate: x509.Certificate, host: str) -> bool:
    """Tell whether a certificate is for a host that is an IP address (RFC 9525 6.5)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    names = _alternative_names(certificate)
    return names is not None and address in names.get_values_for_type(x509.IPAddress)


def _matching(chain: Sequence[bytes], records: Iterable[Tlsa]) -> list[bytes]:
    """Return those certificates of a chain that a record matches, whatever its usage (RFC 6698 2.1)."""
    data: dict[tuple[int, int], set[bytes]] = {}
    for each in records:
        if not each.data:
            continue
        data.setdefault((each.selector, each.matching_type), set()).add(each.data)
    return [der for der in chain if any(_association(der, *kind) in data[kind] for kind in data)]


def _association(der: bytes, selector: int, matching_type: int) -> bytes | None:
    """Return what a TLSA record would say of a certificate; None if that cannot be said."""
    try:
        selected = cut_public_key(der) if selector else der
    except ValueError:
        return None
    digest = _DIGESTS.get(matching_type)
    return digest(selected).digest() if digest else selected


def _anchors(chain: Sequence[bytes], records: Sequence[Tlsa]) -> list[bytes]:
    """Return the trust anchors that records name: certificates of the chain, or what stands in the record itself."""
    # RFC 7671 5.2.1: one that is in the DNS as a whole need not be sent
    published = [each.data for each in records if (each.selector, each.matching_type) == (0, 0)]
    return list(dict.fromkeys([*_matching(chain[1:], records), *published]))


def _flaw_by_anchor(shown: _Shown, anchor: bytes, names: Sequence[str], now: float) -> Flaw | None:
    try:
        store = _store([_read(anchor)[1]], now)
    except _UNREADABLE as error:
        return _unreadable(names[0], error)
    flaw = _flaw_of_path(shown, store, names[0])
    if flaw is not None:
        return flaw
    presented = _dns_ids(shown.leaf)
    if not presented:
        # RFC 7672 3.2.2: here the common name still counts, if there is no DNS-ID
        common = shown.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        presented = [each.value for each in common if isinstance(each.value, str)]
    return _flaw_of_names(presented, shown, names)


def _unreadable(host: str, error: Exception) -> Flaw:
    # a library's words may quote what a stranger wrote
    reason = str(error) if isinstance(error, _Unfit) else "it cannot be read"
    return Flaw(Failure.VALIDATION_FAILURE, f"certificate of {host} cannot be used: {reason}")
