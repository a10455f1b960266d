"""`fairlead keys`: API keys, which are passwords for SMTP (user `apikey`) as well."""

import click

from mta.accounts import keys as accounts
from mta.cli.once import ONCE
from mta.cli.output import Column
from mta.cli.session import Session, Stop, with_spool
from mta.exits import Exit

_COLUMNS = (
    Column("id", "ID", 22),
    Column("tenant", "TENANT", 16),
    Column("scopes", "SCOPES", 16),
    Column("created_at", "CREATED", 20),
    Column("revoked_at", "REVOKED", 20),
)


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.option("--tenant", help="Whose key it is, and whose mail it sends and manages.")
@click.option("--operator", is_flag=True, help="Instead: for the mail of all tenants (/admin); it sends none.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    type=click.Choice(accounts.SCOPES),
    help="What the key is good for; repeatable.",
)
@ONCE
@with_spool
async def create(session: Session, tenant: str | None, operator: bool, scopes: tuple[str, ...], once: float) -> None:
    """Create a key and print it: nobody can see it again."""
    if (tenant is None) is not operator:
        raise Stop("say whose it is: --tenant NAME, or --operator", Exit.USAGE)
    key, text = await accounts.create(session.spool, tenant, scopes, session.clock.now(), once)
    session.out.record({"id": key.id, "key": text}, text)


@keys.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List all keys, oldest first, the revoked ones too."""
    for each in await accounts.list_all(session.spool):
        record = {
            "id": each.id,
            "tenant": each.tenant,
            "operator": each.operator,
            "scopes": each.scopes,
            "created_at": each.created_at,
            "revoked_at": each.revoked_at or None,
            "once": each.once,
        }
        session.out.row(record, _COLUMNS)


@keys.command()
@click.argument("key_id", metavar="ID")
@with_spool
async def revoke(session: Session, key_id: str) -> None:
    """Make the key ID good for nothing, at once and for good."""
    if not await accounts.revoke(session.spool, key_id, session.clock.now()):
        raise Stop(f"there is no key {key_id[:64]!r}: the ID is what `fairlead keys list` shows")
    session.out.record({"id": key_id}, f"key {key_id} revoked")
