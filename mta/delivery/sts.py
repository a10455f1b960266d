"""MTA-STS: what a domain's record and policy say, and what becomes of the policy that is known (RFC 8461). Pure.

Where the policy cannot be had any more, the one that is known applies until it expires: whoever could take record or
policy away would else have won (RFC 8461 10.2).
"""

import re
from collections.abc import Iterable

import msgspec

from mta.delivery.policy import Failure, Flaw, StsPolicy
from mta.mail.address import AddressError, a_label, is_domain

MAX_AGE_LIMIT = 31_557_600  # seconds, RFC 8461 3.2
MX_LIMIT = 100  # patterns; nobody tries more hosts, and a body of 64 KiB would have thousands
REFRESH_AFTER = 86_400.0  # seconds, RFC 8461 3.3
_QUOTED = 50  # lines that reports quote

_EXTENSION = rb"[0-9A-Za-z][0-9A-Za-z_.-]{0,31}=[\x21-\x3a\x3c\x3e-\x7e]+"
_FIELD = re.compile(rb"id=(?P<id>[0-9A-Za-z]{1,32})|(?!id=)" + _EXTENSION)
_LINE = re.compile(r"([0-9A-Za-z][0-9A-Za-z_.-]{0,31}):[ \t]*([^ \t].*)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_MAX_AGE = re.compile(r"[0-9]{1,10}")
_MODES = ("enforce", "testing", "none")


class StsError(Exception):
    """A policy cannot be used; the message says why."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.failure = Failure.STS_POLICY_INVALID


class Announced(msgspec.Struct, frozen=True):
    """What the DNS says of a domain's policy: its id, "" where there is none. Not `answered`: it says nothing."""

    id: str = ""
    answered: bool = True


class Step(msgspec.Struct, frozen=True):
    """What to do about a domain: fetch its policy first, or go on with one (None: as if there were none).

    `known` is the policy to be remembered, which one of mode none is too. `trouble` is why it is not a newer one.
    """

    fetch: bool
    policy: StsPolicy | None
    known: StsPolicy | None
    trouble: Flaw | None = None


def record_id(texts: Iterable[bytes]) -> str | None:
    """Return the id that the TXT records of `_mta-sts.DOMAIN` announce; None if they announce no policy."""
    ours = [each for each in texts if each.startswith(b"v=STSv1;")]
    if len(ours) != 1:  # RFC 8461 3.1: several are none
        return None
    fields = [each.strip(b" \t") for each in ours[0].split(b";")[1:]]
    if not fields[-1]:  # the last delimiter may end the record
        fields.pop()
    found: str | None = None
    for each in fields:
        field = _FIELD.fullmatch(each)
        if field is None:
            return None
        if found is None and field["id"]:  # RFC 8461 3.2: of a field that is there twice the first counts
            found = field["id"].decode()
    return found


def parse(body: bytes, domain: str, announced: str, now: float) -> StsPolicy:
    """Read a policy that was fetched now, announced with an id. StsError if it is not one."""
    first: dict[str, str] = {}
    patterns: dict[str, None] = {}
    quoted: list[str] = []
    for number, (key, value) in _lines(body):
        if key == "mx":
            pattern = _pattern(value, number)
            if pattern in patterns:
                continue
            patterns[pattern] = None
            if len(patterns) > MX_LIMIT:
                raise StsError(f"policy has more than {MX_LIMIT} mx")
        elif key in first or key not in ("version", "mode", "max_age"):
            continue  # RFC 8461 3.2: unknown fields are ignored, and all of a field but the first
        else:
            first[key] = value
        quoted.append(f"{key}: {value}")
    mode = _required(first, "mode")
    if _required(first, "version") != "STSv1":
        raise StsError("policy is of another version than STSv1")
    if mode not in _MODES:
        raise StsError("policy has a mode that is none of enforce, testing, none")
    max_age = _required(first, "max_age")
    if not _MAX_AGE.fullmatch(max_age):
        raise StsError("policy has a max_age that is no number of seconds")
    if not patterns and mode != "none":
        raise StsError("policy has no mx")
    return StsPolicy(
        domain=domain,
        id=announced,
        mode=mode,
        mx=tuple(patterns),
        max_age=min(int(max_age), MAX_AGE_LIMIT),
        fetched_at=now,
        text=tuple(quoted[:_QUOTED]),
    )


def _lines(body: bytes) -> Iterable[tuple[int, tuple[str, str]]]:
    """Read the fields of a policy with the numbers of their lines; blank ones, which are common, say nothing."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise StsError("policy is not UTF-8") from None
    for number, ended in enumerate(text.split("\n"), 1):  # RFC 8461 3.2: LF or CRLF, and nothing else ends a line
        line = ended.removesuffix("\r").rstrip(" \t")
        if not line:
            continue
        if _CONTROL.search(line):
            raise StsError(f"policy has a control character in line {number}")
        field = _LINE.fullmatch(line)
        if field is None:
            raise StsError(f"policy has no field in line {number}")
        yield number, (field[1], field[2])


def _pattern(value: str, number: int) -> str:
    if not is_domain(value.removeprefix("*.")):
        raise StsError(f"policy has an mx in line {number} that is neither a host nor *.domain")
    return value.lower()


def _required(fields: dict[str, str], key: str) -> str:
    if key not in fields:
        raise StsError(f"policy has no {key}")
    return fields[key]


def matches(policy: StsPolicy, host: str) -> bool:
    """Tell whether a policy lists an MX host (RFC 8461 4.1)."""
    try:
        name = a_label(host).removesuffix(".")
    except AddressError:
        return False
    label, _, parent = name.partition(".")
    # RFC 8461 4.1: the wildcard is the whole left-most label, and stands for exactly one
    return name in policy.mx or (bool(label and parent) and f"*.{parent}" in policy.mx)


def expires_at(policy: StsPolicy) -> float:
    """Return until when a policy applies, in absolute seconds."""
    return policy.fetched_at + policy.max_age


def refresh_after(policy: StsPolicy) -> float:
    """Return how many seconds after its fetch a policy should be renewed, well before it expires (RFC 8461 3.3)."""
    return min(REFRESH_AFTER, policy.max_age / 2)


def step(cached: StsPolicy | None, announced: Announced, fetched: StsPolicy | Flaw | None, now: float) -> Step:
    """Decide what applies to a domain: by the policy that is known, its record, and what a fetch (if any) gave."""
    if isinstance(fetched, StsPolicy):
        return _with(fetched, None, now)
    known = cached if cached is not None and now < expires_at(cached) else None
    if fetched is not None:
        return _with(known, fetched, now)
    # RFC 8461 3.1: without a record there is nothing to fetch; what is known applies all the same until it expires
    fetch = bool(announced.id) and (known is None or known.id != announced.id)
    return msgspec.structs.replace(_with(known, None, now), fetch=fetch)


def _with(known: StsPolicy | None, trouble: Flaw | None, now: float) -> Step:
    # RFC 8461 5: mode none is as if there were no policy, and how a domain leaves; max_age 0 is over at once
    applies = known is not None and known.mode != "none" and now < expires_at(known)
    return Step(fetch=False, policy=known if applies else None, known=known, trouble=trouble)
