"""API keys: `SG.<id>.<secret>`, of which only the id and the SHA-256 of the secret are kept.

The shape is the vendor's, whose client libraries warn about any other. A plain hash is enough because
the secret is 256 random bits: there is nothing to guess, and nothing slow in the way of a request.
A revoked key stays on record, to be listed.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from mta.accounts import tenants
from mta.accounts.tenants import AccountError
from mta.mail.ids import MESSAGE_ID_CHARS, new_message_id
from mta.spool.interface import Spool

KIND = "key"
SCOPES = ("send", "read", "manage")
OPERATOR_SCOPES = ("read", "manage")  # who sends is a tenant
_SECRET_BYTES = 32
_ID = re.compile(rf"[A-Za-z0-9_-]{{{MESSAGE_ID_CHARS}}}")
_KEY = re.compile(rf"SG\.({_ID.pattern})\.([A-Za-z0-9_-]{{43}})")
_encode = msgspec.msgpack.Encoder().encode


class ApiKey(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A key as it is stored. New fields go to the end. `revoked_at` is 0 while the key is good.

    An `operator`'s is for the mail of all tenants, and has none of its own. Of a key with `once`, the same message
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
    sandbox: bool = False  # nothing that it sends is delivered
    rate: int = 0  # messages in `per` seconds, 0 for any number
    per: int = 0
    once: float = 0.0


# PERF: a key asks again and again, and its record seldom changes.
_decode = lru_cache(maxsize=1024)(msgspec.msgpack.Decoder(ApiKey).decode)
_NOBODY = ApiKey(id="", tenant="", scopes=(), digest=bytes(32), created_at=0.0, revoked_at=1.0)
_NO_SECRET = ("", "")


async def create(
    spool: Spool, tenant: str | None, scopes: Sequence[str], now: float, once: float = 0.0
) -> tuple[ApiKey, str]:
    """Create a tenant's key, or with None an operator's, and return it with its text, which nobody can see again.

    AccountError if it may not be.
    """
    known = OPERATOR_SCOPES if tenant is None else SCOPES
    unknown = [scope for scope in scopes if scope not in known]
    if unknown:
        whose = " of an operator's key" if tenant is None else ""
        raise AccountError(f"there is no scope {unknown[0][:64]!r}; scopes{whose} are {', '.join(known)}")
    if not scopes:
        raise AccountError(f"a key needs one of the scopes {', '.join(known)}")
    if tenant is not None:
        await tenants.require(spool, tenant)
    key_id, secret = new_message_id(), secrets.token_urlsafe(_SECRET_BYTES)
    granted = tuple(scope for scope in SCOPES if scope in scopes)
    key = ApiKey(
        id=key_id,
        tenant=tenant or "",
        scopes=granted,
        digest=_digest(secret),
        created_at=now,
        operator=tenant is None,
        once=once,
    )
    await spool.put_record(KIND, key_id, _encode(key), replace=False)
    return key, f"SG.{key_id}.{secret}"


async def authenticate(spool: Spool, text: str) -> ApiKey | None:
    """Return the key whose text this is, None if there is none or it was revoked.

    Takes as long for an unknown id as for a wrong secret.
    """
    found = _KEY.fullmatch(text)
    key_id, secret = found.groups() if found else _NO_SECRET
    stored = await spool.get_record(KIND, key_id)
    key = _decode(stored) if stored is not None else _NOBODY
    good = hmac.compare_digest(_digest(secret), key.digest)
    return key if good and not key.revoked_at else None


async def list_all(spool: Spool) -> list[ApiKey]:
    """Return all keys, oldest first, the revoked ones too."""
    return [_decode(value) for _, value in await spool.list_records(KIND)]


async def revoke(spool: Spool, key_id: str, now: float) -> bool:
    """Make a key good for nothing from `now` on; False if there is no such key. Revoking again changes nothing."""
    stored = await spool.get_record(KIND, key_id) if _ID.fullmatch(key_id) else None
    if stored is None:
        return False
    key = _decode(stored)
    if not key.revoked_at:
        await spool.put_record(KIND, key_id, _encode(msgspec.structs.replace(key, revoked_at=now)), replace=True)
    return True


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
