"""SMTP credentials: user names with generated passwords, of which only the SHA-256 is kept.

A user name belongs to one tenant of the whole installation and goes on belonging to it when revoked.
Passwords are made here (160 random bits), never chosen: so a plain hash is enough.
"""

import base64
import hashlib
import hmac
import secrets

import msgspec

from mta.accounts import tenants
from mta.accounts.tenants import AccountError
from mta.spool.interface import Spool

KIND = "credential"
USER_LIMIT = 255  # characters
API_KEY_USER = "apikey"  # who logs in with an API key for a password (features A1)
_PASSWORD_BYTES = 20
_encode = msgspec.msgpack.Encoder().encode


class Credential(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A credential as it is stored. New fields go to the end. `revoked_at` is 0 while it is good.

    With `once`, the same message that comes again within so many seconds is not sent again.
    """

    version: int = 1
    user: str
    tenant: str
    digest: bytes
    created_at: float
    revoked_at: float = 0.0
    once: float = 0.0


_decode = msgspec.msgpack.Decoder(Credential).decode
_NOBODY = Credential(user="", tenant="", digest=bytes(32), created_at=0.0, revoked_at=1.0)


async def create(spool: Spool, tenant: str, user: str, now: float, once: float = 0.0) -> tuple[Credential, str | None]:
    """Create a credential and return it with its password, which nobody can see again.

    One that exists is returned as it is, with None, unless it was revoked: then it is made anew.
    AccountError if the name is unfit or another tenant's.
    """
    if not _fit(user) or user == API_KEY_USER:
        raise AccountError(f"a user is 1 to {USER_LIMIT} printable characters, and not {API_KEY_USER!r}")
    await tenants.require(spool, tenant)
    # 32 lower-case letters and digits, that no shell, URL or configuration file has to quote
    password = base64.b32encode(secrets.token_bytes(_PASSWORD_BYTES)).decode("ascii").lower()
    credential = Credential(user=user, tenant=tenant, digest=_digest(password), created_at=now, once=once)
    if await spool.put_record(KIND, user, _encode(credential), replace=False):
        return credential, password
    existing = await _find(spool, user)
    if existing.tenant != tenant:
        raise AccountError(f"user {user!r} is another tenant's")
    if not existing.revoked_at:
        return existing, None
    await spool.put_record(KIND, user, _encode(credential), replace=True)
    return credential, password


async def authenticate(spool: Spool, user: str, password: str) -> Credential | None:
    """Return the credential that user and password fit, None if there is none or it was revoked.

    Takes as long for an unknown user as for a wrong password.
    """
    credential = await _find(spool, user if _fit(user) else "")
    good = hmac.compare_digest(_digest(password), credential.digest)
    return credential if good and not credential.revoked_at else None


async def find(spool: Spool, user: str) -> Credential | None:
    """Return a credential by its user name, the revoked ones too; None if there is none."""
    found = await _find(spool, user) if _fit(user) else _NOBODY
    return None if found is _NOBODY else found


async def list_all(spool: Spool) -> list[Credential]:
    """Return all credentials by user, the revoked ones too."""
    return [_decode(value) for _, value in await spool.list_records(KIND)]


async def revoke(spool: Spool, user: str, now: float) -> bool:
    """Make a credential good for nothing from `now` on; False if there is none. Revoking again changes nothing."""
    credential = await _find(spool, user) if _fit(user) else _NOBODY
    if credential is _NOBODY:
        return False
    if not credential.revoked_at:
        revoked = msgspec.structs.replace(credential, revoked_at=now)
        await spool.put_record(KIND, user, _encode(revoked), replace=True)
    return True


async def _find(spool: Spool, user: str) -> Credential:
    stored = await spool.get_record(KIND, user)
    return _decode(stored) if stored is not None else _NOBODY


def _fit(user: str) -> bool:
    return 1 <= len(user) <= USER_LIMIT and user.isprintable()


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()
