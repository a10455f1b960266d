"""API keys: `SG.<id>.<secret>`, of which only the id and the SHA-256 of the secret are kept.

The shape is the vendor's, whose client libraries warn about any other. A plain hash is enough because
the secret is 256 random bits: there is nothing to guess, and nothing slow in the way of a request.
A key that has ended stays on record, to be listed, until its tenant has too many.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from mta.accounts import tenants, uses
from mta.accounts.networks import outside
from mta.accounts.particulars import NO_PARTICULARS, Particulars, checked, scope_faults
from mta.accounts.scopes import allowed, granted, meant
from mta.accounts.tenants import AccountError, Fault
from mta.accounts.tolls import Rate, rate_of
from mta.mail.ids import MESSAGE_ID_CHARS, new_message_id
from mta.spool.interface import Spool

KIND = "key"
MOST = 1000  # keys of a tenant on record
LONGEST_OVERLAP = 30 * 86_400.0  # seconds
_OF = "keys of"  # kind of records without content, one for each key of a tenant; before `\0` and the tenant
_ANYWHERE = ("0.0.0.0/0", "::/0")
_SECRET_BYTES = 32
_ID = re.compile(rf"[A-Za-z0-9_-]{{{MESSAGE_ID_CHARS}}}")
_KEY = re.compile(rf"SG\.({_ID.pattern})\.([A-Za-z0-9_-]{{43}})")
_encode = msgspec.msgpack.Encoder().encode


class Beyond(AccountError):
    """What was asked for is more than the key that it is asked with is good for itself."""


class ApiKey(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A key as it is stored. New fields go to the end. Times are 0 for never.

    An `operator`'s is for the mail of all tenants, and has none of its own. `grants` are the names that it was asked
    for with (mta.accounts.scopes). Without `networks` it comes from anywhere. `rate` messages are taken from it in
    `per` seconds, 0 for any number. What a `sandbox` key sends is not delivered. Of a key with `once`, the same message
    that comes again over SMTP within so many seconds is not sent again.
    """

    version: int = 1
    id: str
    tenant: str
    scopes: tuple[str, ...]
    digest: bytes
    created_at: float
    revoked_at: float = 0.0
    operator: bool = False
    name: str = ""
    networks: tuple[str, ...] = ()
    rate: int = 0
    per: int = 0
    expires_at: float = 0.0
    sandbox: bool = False
    grants: tuple[str, ...] = ()
    once: float = 0.0

    def good(self, now: float) -> bool:
        """Tell whether it has not ended."""
        return not self.revoked_at and (not self.expires_at or now < self.expires_at)

    def allows(self, name: str) -> bool:
        """Tell whether it is good for what has this name: a scope, or a dialect's own name."""
        return allowed(name, self.scopes, self.grants)


# PERF: a key asks again and again, and its record seldom changes.
_decode = lru_cache(maxsize=1024)(msgspec.msgpack.Decoder(ApiKey).decode)
_NOBODY = ApiKey(id="", tenant="", scopes=(), digest=bytes(32), created_at=0.0, revoked_at=1.0)
_NO_SECRET = ("", "")


async def create(
    spool: Spool,
    tenant: str | None,
    names: Sequence[str],
    now: float,
    particulars: Particulars = NO_PARTICULARS,
    maker: ApiKey | None = None,
) -> tuple[ApiKey, str]:
    """Create a tenant's key, or with None an operator's, and return it with its text, which nobody can see again.

    `names` are scopes, or dialects' own names of them. AccountError with all that is wrong if it may not be: for one
    that would be good for more than the `maker`'s own key, too.
    """
    particulars, faults = checked(particulars, now)
    faults += scope_faults(names, operator=tenant is None)
    if tenant is not None and not await tenants.exists(spool, tenant):
        faults.append(Fault("tenant", f"there is no tenant {tenant[:64]!r}"))
    _raise(faults)
    key, text = _made(tenant, granted(names), now)
    key = msgspec.structs.replace(
        key,
        name=particulars.name,
        networks=particulars.networks,
        rate=particulars.rate.messages if particulars.rate else 0,
        per=particulars.rate.seconds if particulars.rate else 0,
        expires_at=particulars.expires_at,
        sandbox=particulars.sandbox,
        once=particulars.once,
        grants=tuple(dict.fromkeys(names)),
    )
    await _check(spool, maker, key, now)
    await _store(spool, key, now)
    return key, text


async def authenticate(spool: Spool, text: str, now: float) -> ApiKey | None:
    """Return the key whose text this is, None if there is none or it has ended. Where it comes from is not looked at.

    Takes as long for an unknown id as for a wrong secret.
    """
    found = _KEY.fullmatch(text)
    key_id, secret = found.groups() if found else _NO_SECRET
    stored = await spool.get_record(KIND, key_id)
    key = _decode(stored) if stored is not None else _NOBODY
    good = hmac.compare_digest(_digest(secret), key.digest)
    return key if good and key.good(now) else None


async def find(spool: Spool, key_id: str, tenant: str = "") -> ApiKey | None:
    """Return a key by its id, None if there is none, or none of this tenant."""
    stored = await spool.get_record(KIND, key_id) if _ID.fullmatch(key_id) else None
    key = _decode(stored) if stored is not None else None
    return key if key is not None and tenant in ("", key.tenant) else None


async def list_all(spool: Spool) -> list[ApiKey]:
    """Return all keys, oldest first, those that have ended too."""
    return _oldest_first([_decode(value) for _, value in await spool.list_records(KIND)])


async def list_of(spool: Spool, tenant: str) -> list[ApiKey]:
    """Return the keys of a tenant, oldest first, those that have ended too."""
    await _index(spool)
    ids = [key_id for key_id, _ in await spool.list_records(_kind_of(tenant))]
    found = [await find(spool, key_id, tenant) for key_id in ids]
    return _oldest_first([each for each in found if each is not None])


async def change(spool: Spool, key: ApiKey, names: Sequence[str], now: float, maker: ApiKey, name: str = "") -> ApiKey:
    """Give a key other scopes and another name, and return it; AccountError as for one that is made so."""
    await _check_good(spool, maker, now)
    _, faults = checked(Particulars(name=name), now)
    _raise([*faults, *scope_faults(names, operator=key.operator)])

    def renamed(key: ApiKey) -> ApiKey:
        changed = msgspec.structs.replace(key, name=name, grants=tuple(dict.fromkeys(names)), scopes=granted(names))
        _raise(beyond(maker, changed), Beyond)
        return changed

    return await _change(spool, key, renamed)


async def revoke(spool: Spool, key_id: str, now: float, tenant: str = "") -> bool:
    """Make a key (of a tenant) good for nothing from `now` on; False if there is none. Again, it changes nothing."""
    key = await find(spool, key_id, tenant)
    if key is None:
        return False
    await _change(spool, key, lambda each: each if each.revoked_at else msgspec.structs.replace(each, revoked_at=now))
    return True


async def rotate(
    spool: Spool, key: ApiKey, overlap: float, now: float, maker: ApiKey | None = None
) -> tuple[ApiKey, str]:
    """Make a key that is good for the same as one, which ends `overlap` seconds from now; return it with its text.

    AccountError if that one has ended, or is good for more than the `maker`'s.
    """
    if not 0 <= overlap <= LONGEST_OVERLAP:
        _raise([Fault("overlap", f"0 to {LONGEST_OVERLAP:.0f} seconds")])
    key = await find(spool, key.id) or key  # which may have ended since it was looked up
    await _check(spool, maker, key, now)
    if not key.good(now):
        raise AccountError(f"key {key.id} has ended: create one")
    made, text = _made(None if key.operator else key.tenant, key.scopes, now)
    made = msgspec.structs.replace(key, id=made.id, digest=made.digest, created_at=now)
    await _store(spool, made, now)
    ends_at = now + overlap

    def ending(each: ApiKey) -> ApiKey:
        return each if not each.good(ends_at) else msgspec.structs.replace(each, expires_at=ends_at)

    # behind the new one, or a crash between them would leave neither
    await _change(spool, key, ending)
    return made, text


def beyond(maker: ApiKey, made: ApiKey) -> list[Fault]:
    """Say in what a key is good for more than its maker's: nobody gives what is not his.

    An operator's gives every tenant what tenants' keys can have; only the command line makes one of an operator's own.
    """
    faults = list[Fault]()
    if made.operator or (not maker.operator and made.tenant != maker.tenant):
        faults.append(Fault("tenant", "a key makes keys of its own tenant alone"))
    if not maker.operator:
        for number, name in enumerate(made.grants or made.scopes):
            if not all(maker.allows(each) for each in meant((name,))):
                faults.append(Fault(f"scopes.{number}", f"your key has not the scope {name} itself"))
    if maker.networks and (away := outside(made.networks or _ANYWHERE, maker.networks)):
        faults.append(Fault("networks", f"your key may not be used from {away} itself"))
    if (rate := stored_rate(maker)) is not None and not _slower(stored_rate(made), rate):
        faults.append(Fault("rate", f"your key has the rate {rate.messages}/{rate.seconds} itself"))
    if maker.expires_at and not 0 < made.expires_at <= maker.expires_at:
        faults.append(Fault("expires_at", "your key ends before"))
    if maker.sandbox and not made.sandbox:
        faults.append(Fault("sandbox", "your key is one for the sandbox itself"))
    return faults


async def _check(spool: Spool, maker: ApiKey | None, made: ApiKey, now: float) -> None:
    if maker is not None:
        await _check_good(spool, maker, now)
        _raise(beyond(maker, made), Beyond)


async def _check_good(spool: Spool, maker: ApiKey, now: float) -> None:
    """Refuse a maker that has ended since it was let in: a request's body may come long after its head."""
    stored = await find(spool, maker.id)
    if stored is None or not stored.good(now):
        raise Beyond("your key has ended")


def stored_rate(key: ApiKey) -> Rate | None:
    """Return the rate of a key, None if it has none."""
    return rate_of(key.rate, key.per)


def _slower(one: Rate | None, other: Rate) -> bool:
    """Tell whether a rate lets through no more than another, over a long time and at once."""
    return one is not None and one.interval >= other.interval and one.burst <= other.burst


def _made(tenant: str | None, scopes: tuple[str, ...], now: float) -> tuple[ApiKey, str]:
    key_id, secret = new_message_id(), secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(
        id=key_id,
        tenant=tenant or "",
        scopes=scopes,
        digest=_digest(secret),
        created_at=now,
        operator=tenant is None,
    )
    return key, f"SG.{key_id}.{secret}"


async def _store(spool: Spool, key: ApiKey, now: float) -> None:
    """Store a new key; AccountError if its tenant has too many. Those that ended first make room."""
    known = await list_of(spool, key.tenant)
    if len(known) >= MOST:
        ended = [each for each in known if not each.good(now)]
        if not ended:
            raise AccountError(f"there are {MOST} keys already: revoke one")
        oldest = min(ended, key=lambda each: each.revoked_at or each.expires_at)
        await spool.delete_record(KIND, oldest.id)
        await spool.delete_record(_kind_of(key.tenant), oldest.id)
        await spool.delete_record(uses.KIND, oldest.id)
    await spool.put_record(_kind_of(key.tenant), key.id, b"", replace=True)  # one too many is no harm, one too few is
    await spool.put_record(KIND, key.id, _encode(key), replace=False)


async def _change(spool: Spool, key: ApiKey, how: Callable[[ApiKey], ApiKey]) -> ApiKey:
    """Change a key as `how` says, asked again if somebody else was faster; AccountError if it is gone."""
    while (stored := await spool.get_record(KIND, key.id)) is not None:
        before = _decode(stored)
        after = how(before)
        if after == before or await spool.change_record(KIND, key.id, stored, _encode(after)):
            return after
    raise AccountError(f"there is no key {key.id}")


async def _index(spool: Spool) -> None:
    """List keys by tenant, once for a spool of an earlier version, which did not."""
    if await spool.get_record(_OF, "") is None:
        for key in await list_all(spool):
            await spool.put_record(_kind_of(key.tenant), key.id, b"", replace=True)
        await spool.put_record(_OF, "", b"", replace=True)


def _kind_of(tenant: str) -> str:
    return f"{_OF}\0{tenant}"


def _oldest_first(keys: list[ApiKey]) -> list[ApiKey]:
    return sorted(keys, key=lambda each: (each.created_at, each.id))


def _raise(faults: Sequence[Fault], error: type[AccountError] = AccountError) -> None:
    if faults:
        raise error("; ".join([each.message for each in faults]), faults)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
