"""What a key has beside tenant and scopes: name, networks, rate, end, and whether it delivers; what can be wrong."""

from collections.abc import Iterator, Sequence

import msgspec

from mta.accounts.networks import MOST, NetworkError, network_of
from mta.accounts.scopes import OPERATOR_SCOPES, SCOPES, granted
from mta.accounts.tenants import AccountError, Fault
from mta.accounts.tolls import Rate

NAME_LIMIT = 100  # characters
LONGEST_ONCE = 7 * 86_400  # seconds: what is sent is remembered for so long
_LAST = 253_402_300_799.0  # the end of the year 9999
_GRANTS_LIMIT = 200  # names of scopes: a vendor's client may ask for all that there are


class Particulars(msgspec.Struct, frozen=True, kw_only=True):
    """As they are asked for: mta.accounts.keys.ApiKey has what each of them means."""

    name: str = ""
    networks: tuple[str, ...] = ()
    rate: Rate | None = None
    expires_at: float = 0.0
    sandbox: bool = False
    once: float = 0.0


NO_PARTICULARS = Particulars()


def checked(asked: Particulars, now: float) -> tuple[Particulars, list[Fault]]:
    """Return particulars with networks in their usual form, and what is wrong with them."""
    networks, faults = list[str](), list[Fault]()
    if len(asked.name) > NAME_LIMIT or not (asked.name.isprintable() or not asked.name):
        faults.append(Fault("name", f"at most {NAME_LIMIT} printable characters"))
    if len(asked.networks) > MOST:
        faults.append(Fault("networks", f"at most {MOST} networks"))
    for number, text in enumerate(asked.networks[:MOST]):
        try:
            networks.append(network_of(text))
        except NetworkError as error:
            faults.append(Fault(f"networks.{number}", str(error)))
    if asked.expires_at and not now < asked.expires_at <= _LAST:
        faults.append(Fault("expires_at", "a time to come, in seconds since 1970"))
    if not 0 <= asked.once <= LONGEST_ONCE:
        faults.append(Fault("once", f"0 to {LONGEST_ONCE} seconds"))
    return msgspec.structs.replace(asked, networks=tuple(dict.fromkeys(networks))), faults


def scope_faults(names: Sequence[str], *, operator: bool) -> Iterator[Fault]:
    """Say what is wrong with the names that a key is asked for with."""
    known = OPERATOR_SCOPES if operator else SCOPES
    whose = " of an operator's key" if operator else ""
    if not names:
        yield Fault("scopes", f"a key needs one of the scopes {', '.join(known)}")
    if len(names) > _GRANTS_LIMIT:
        yield Fault("scopes", f"at most {_GRANTS_LIMIT} names")
        return
    for number, name in enumerate(names):
        try:
            good = not operator or name in known
            granted((name,))
        except AccountError:
            good = False
        if not good:
            yield Fault(f"scopes.{number}", f"there is no scope {name[:64]!r}; scopes{whose} are {', '.join(known)}")
