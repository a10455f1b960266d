"""`fairlead tenants`: whom messages, keys and domains belong to."""

import click

from mta.accounts import tenants as accounts
from mta.cli.output import Column
from mta.cli.session import Session, with_spool

_COLUMNS = (Column("tenant", "TENANT", 24), Column("created_at", "CREATED", 20))


@click.group()
def tenants() -> None:
    """Create and list tenants."""


@tenants.command()
@click.argument("tenant")
@with_spool
async def create(session: Session, tenant: str) -> None:
    """Create TENANT. One that exists stays as it is."""
    created = await accounts.create(session.spool, tenant, session.clock.now())
    session.out.record({"tenant": tenant}, f"tenant {tenant} {'created' if created else 'exists'}")


@tenants.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List all tenants."""
    for each in await accounts.list_all(session.spool):
        session.out.row({"tenant": each.name, "created_at": each.created_at}, _COLUMNS)
