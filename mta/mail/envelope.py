"""The envelope: MAIL FROM and RCPT TOs with their DSN parameters (RFC 5321 2.3.1, RFC 3461)."""

from enum import IntFlag

import msgspec

from mta.mail.address import domain_of


class Notify(IntFlag):
    """NOTIFY of RFC 3461 4.1. UNSET means the parameter was not given: failures and delays are told."""

    UNSET = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


class Recipient(msgspec.Struct, frozen=True, array_like=True):
    """One RCPT TO: the address as given, NOTIFY, and ORCPT as it came (xtext intact, "" if absent)."""

    address: str
    notify: int = 0
    orcpt: str = ""

    def wants(self, what: Notify) -> bool:
        """Tell whether a DSN of kind `what` (SUCCESS, FAILURE or DELAY) is wanted."""
        return bool(self.notify & what) if self.notify else what is Notify.FAILURE or what is Notify.DELAY

    @property
    def domain(self) -> str:
        """The recipient domain in lower case, as an A-label."""
        return domain_of(self.address)


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Who a message is from and for. `sender` is "" for the null reverse-path.

    `ret` is "", "FULL" or "HDRS"; `envid` is xtext as it came. `eight_bit` is BODY=8BITMIME (or 8-bit
    content seen), `smtputf8` the parameter of RFC 6531.

    `deliver_by` is a deadline in absolute seconds, 0 for none: what has not been delivered by then expires. With a
    `by_mode` it is that of RFC 2852 (R or N, and T), and with N only tells of a delay. `release_at` is when it may go
    out at the earliest, before `deliver_by`; `hold` is how that was asked for (`for;60`, RFC 4865 5.1.2). `priority` is
    that of RFC 6710, -9 to 9. `tls_required` is "yes" with REQUIRETLS, "no" where the header says `TLS-Required: No`
    (RFC 8689); "encrypted" or "verified" ask as much of each next hop, and nothing of those behind it; else "".
    """

    sender: str
    recipients: tuple[Recipient, ...]
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    deliver_by: float = 0
    by_mode: str = ""
    release_at: float = 0
    hold: str = ""
    priority: int = 0
    tls_required: str = ""
