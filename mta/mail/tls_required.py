"""What a sender asks of TLS for one message: all of it (REQUIRETLS) or none (`TLS-Required: No`). RFC 8689; pure."""

from collections.abc import Sequence

FIELD = "tls-required"


def tls_required(values: Sequence[bytes], *, requiretls: bool = False) -> str:
    """Return `yes` with the parameter REQUIRETLS, `no` if the TLS-Required field says so, else nothing (RFC 8689 4.1).

    `values` are those of all fields of that name. There may be one, whose only value is No (RFC 8689 3): anything
    else says nothing, because who writes it must not lose protection that the receiver asked for.
    """
    if requiretls:
        return "yes"  # whatever the field says
    return "no" if len(values) == 1 and values[0].strip().lower() == b"no" else ""
