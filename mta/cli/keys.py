"""`fairlead keys`: API keys, which are passwords for SMTP (user `apikey`) as well."""

from collections.abc import Sequence
from typing import Any

import click

from mta.accounts import keys as accounts
from mta.accounts.keys import ApiKey
from mta.accounts.particulars import Particulars
from mta.accounts.rates import rate_text
from mta.accounts.tolls import Rate
from mta.accounts.uses import last_used
from mta.cli.kinds import NO_RATE, Duration, Messages, Time
from mta.cli.once import ONCE
from mta.cli.output import Column, time_text
from mta.cli.session import Session, Stop, with_spool
from mta.exits import Exit

_COLUMNS = (
    Column("id", "ID", 22),
    Column("name", "NAME", 16),
    Column("tenant", "TENANT", 16),
    Column("scopes", "SCOPES", 16),
    Column("state", "STATE", 20),
    Column("last_used_at", "LAST USED", 20),
    Column("created_at", "CREATED", 20),
    Column("bounds", "BOUNDS", 10),
)


@click.group()
def keys() -> None:
    """Create, list, rotate and revoke API keys."""


@keys.command()
@click.option("--tenant", help="Whose key it is, and whose mail it sends and manages.")
@click.option("--operator", is_flag=True, help="Instead: for the mail of all tenants (/admin); it sends none.")
@click.option(
    "--scope",
    "scopes",
    metavar="send|read|manage",
    required=True,
    multiple=True,
    help="What the key is good for; repeatable. A vendor's own name, such as mail.send, is good too.",
)
@click.option("--name", default="", help="What it is for, to tell it from others in the list.")
@click.option(
    "--network",
    "networks",
    metavar="NETWORK",
    multiple=True,
    help="It comes from there alone: 192.0.2.0/24; repeatable.",
)
@click.option(
    "--rate", type=Messages(), default="none", help="Messages that it may send, such as 1200/60 or 20/second."
)
@click.option("--expires", "expires_at", type=Time(), default=0.0, help="When it ends: 2027-12-01T08:00Z.")
@click.option("--sandbox", is_flag=True, help="What it sends is checked and answered, and not delivered.")
@ONCE
@with_spool
async def create(
    session: Session, /, tenant: str | None, operator: bool, scopes: Sequence[str], rate: Rate, **more: Any
) -> None:
    """Create a key and print it: nobody can see it again."""
    if (tenant is None) is not operator:
        raise Stop("say whose it is: --tenant NAME, or --operator", Exit.USAGE)
    particulars = Particulars(rate=None if rate == NO_RATE else rate, **more)
    told = {"scopes": scopes, **_told(particulars)}
    async with session.doing("keys.create", tenant or "", "", **told) as underway:
        key, text = await accounts.create(session.spool, tenant, scopes, session.clock.now(), particulars)
        underway.on = key.id
    session.out.record({"id": key.id, "key": text}, text)


@keys.command("list")
@click.option("--tenant", help="Those of this tenant.")
@with_spool
async def list_(session: Session, tenant: str | None) -> None:
    """List keys, oldest first, those that have ended too."""
    now, spool = session.clock.now(), session.spool
    for each in await (accounts.list_all(spool) if tenant is None else accounts.list_of(spool, tenant)):
        record = {
            "id": each.id,
            "name": each.name,
            "tenant": each.tenant,
            "operator": each.operator,
            "scopes": each.scopes,
            "grants": each.grants,
            "networks": each.networks,
            "rate": rate_text(each.rate, each.per) or None,
            "once": each.once,
            "sandbox": each.sandbox,
            "created_at": each.created_at,
            "expires_at": each.expires_at or None,
            "revoked_at": each.revoked_at or None,
            "last_used_at": await last_used(spool, each.id) or None,
        }
        session.out.row(record if session.out.as_json else record | _in_words(each, now), _COLUMNS)


@keys.command()
@click.argument("key_id", metavar="ID")
@with_spool
async def revoke(session: Session, key_id: str) -> None:
    """Make the key ID good for nothing, at once and for good."""
    key = await _find(session, key_id)
    async with session.doing("keys.revoke", key.tenant, key.id):
        await accounts.revoke(session.spool, key.id, session.clock.now())
    session.out.record({"id": key_id}, f"key {key_id} revoked")


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap", type=Duration(), default="1d", help="How long the old one stays good: 0s, 30m, 24h, 7d (1d)."
)
@with_spool
async def rotate(session: Session, key_id: str, overlap: float) -> None:
    """Make a key that is good for the same as the key ID, which ends when the overlap is over, and print it."""
    key = await _find(session, key_id)
    async with session.doing("keys.rotate", key.tenant, key.id, overlap=overlap) as underway:
        made, text = await accounts.rotate(session.spool, key, overlap, session.clock.now())
        underway.result = f"done: {made.id}"
    session.out.record({"id": made.id, "key": text, "instead_of": key.id}, text)


async def _find(session: Session, key_id: str) -> ApiKey:
    key = await accounts.find(session.spool, key_id)
    if key is None:
        raise Stop(f"there is no key {key_id[:64]!r}: the ID is what `fairlead keys list` shows")
    return key


def _told(particulars: Particulars) -> dict[str, object]:
    """Say for the audit log what a key is bound to."""
    rate = particulars.rate
    return {
        "name": particulars.name,
        "networks": particulars.networks,
        "rate": rate_text(rate.messages, rate.seconds) if rate else None,
        "expires_at": particulars.expires_at or None,
        "sandbox": particulars.sandbox or None,
        "once": particulars.once or None,
    }


def _in_words(key: ApiKey, now: float) -> dict[str, object]:
    state = f"until {time_text(key.expires_at)}" if key.expires_at else "good"
    if not key.good(now):
        state = "revoked" if key.revoked_at else "expired"
    bounds = [*key.networks, rate_text(key.rate, key.per), "sandbox" if key.sandbox else ""]
    scopes = key.scopes or key.grants
    return {
        "tenant": key.tenant or "(operator)",
        "scopes": scopes,
        "state": state,
        "bounds": " ".join(filter(None, bounds)),
    }
