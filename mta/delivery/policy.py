"""What a next hop has to show before mail goes over a session (decision 20). Pure."""

from enum import Enum, IntEnum, StrEnum, auto

import msgspec


class Level(IntEnum):
    """How well a session is protected, in order."""

    CLEAR = 0
    ENCRYPTED = 1  # TLS, and with whom is not known
    VERIFIED = 2  # TLS, and the certificate is the host's, by an authority or by TLSA


class Failure(StrEnum):
    """What was wrong with a session, or with a policy, in the words of RFC 8460 4.3."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"  # whatever has no name of its own
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


class Tlsa(msgspec.Struct, frozen=True):
    """A TLSA record (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


class StsPolicy(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A domain's MTA-STS policy (RFC 8461 3.2), and the id of the record that announced it."""

    version: int = 1
    domain: str
    id: str
    mode: str  # enforce, testing or none
    mx: tuple[str, ...]
    max_age: int
    fetched_at: float  # absolute seconds
    text: tuple[str, ...] = ()  # its lines, as reports quote them (RFC 8460 4.4, policy-string)


class Flaw(msgspec.Struct, frozen=True):
    """What is wrong with a session or a next hop, and the words for it."""

    failure: Failure
    text: str


class DaneState(Enum):
    """What is known of a host's TLSA records (RFC 7672 2.1.1, 2.2)."""

    NONE = auto()  # it has none, or its DNS is not signed: no DANE
    USABLE = auto()  # one of them has to match
    UNUSABLE = auto()  # it has some, and none says anything to us: TLS is mandatory, and with whom is not known
    FAILED = auto()  # bogus, or no answer: the host must not be used


class Dane(msgspec.Struct, frozen=True):
    """TLSA records of a host; only usable ones, if any is. Without anything: there is no DANE.

    `base` is the name they stand at (the TLSA base domain), which goes into SNI (RFC 7672 8.1) and is one that a
    certificate may be for, beside the host and the domain that mail is for (RFC 7672 3.2.2). `text` says what failed,
    in words for a reply.
    """

    state: DaneState = DaneState.NONE
    records: tuple[Tlsa, ...] = ()
    base: str = ""
    text: str = ""
