"""What a next hop has to show before mail goes over a session (decision 20). Pure."""

from enum import IntEnum, StrEnum

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
