"""What would become of a message: asked of the delivery role before anything is sent (a dry run). Values.

Asked are the DNS and the policies of the domains concerned, as a delivery would; nothing is dialled.
"""

import msgspec

DOMAINS = 20  # of recipients that are looked at


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be: whose it is, its domains in normal form, and what it asks of TLS.

    `sign_domain` is "" where none of its tenant's is the From domain's; `return_domain` for the null reverse-path.
    """

    tenant: str
    sign_domain: str
    from_domain: str
    return_domain: str
    domains: tuple[str, ...]
    tls_required: bool = False


class Signature(msgspec.Struct, frozen=True):
    """With what it would be signed: the registered domain, and its selectors. Without them `why` says why not."""

    domain: str
    selectors: tuple[str, ...] = ()
    why: str = ""


class SourceSpf(msgspec.Struct, frozen=True):
    """What the SPF record of the return path says of an address that mail leaves from (RFC 7208 2.6)."""

    address: str
    result: str


class Alignment(msgspec.Struct, frozen=True, kw_only=True):
    """Whether what receivers authenticate stands for the From domain (RFC 7489 3.1).

    `policy` is the DMARC record's p (or sp), "" where there is none; `trouble` says why it is not known. `spf` is of
    the addresses that receivers can see.
    """

    policy: str = ""
    dkim_aligned: bool = False
    spf_aligned: bool = False
    spf: tuple[SourceSpf, ...] = ()
    trouble: str = ""


class Host(msgspec.Struct, frozen=True):
    """A next hop, and what its session has to be: `clear`, `encrypted` or `verified`, and who wants that.

    Where nothing goes to it, `refused` says why.
    """

    host: str
    port: int
    tls: str = ""
    by: str = ""
    refused: str = ""


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail for a domain goes: hosts in their order, or why it goes nowhere.

    `routed`: the configuration names them. `sts` is the mode of the MTA-STS policy that holds, "" for none.
    """

    domain: str
    routed: bool = False
    sts: str = ""
    hosts: tuple[Host, ...] = ()
    trouble: str = ""


class Prospect(msgspec.Struct, frozen=True):
    """What delivery says. There are `more` destinations than are told of."""

    signature: Signature
    alignment: Alignment
    destinations: tuple[Destination, ...]
    more: int = 0
