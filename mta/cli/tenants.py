"""`fairlead tenants`: whom messages, keys and domains belong to."""

import click

from mta.accounts import tenants as accounts
from mta.cli.output import Column
from mta.cli.session import Session, with_spool

_COLUMNS = (Column("tenant", "TENANT", 24), Column("weight", "WEIGHT", 6), Column("created_at", "CREATED", 20))
_WEIGHT = click.IntRange(1, accounts.HEAVIEST)


@click.group()
def tenants() -> None:
    """Create, weigh and list tenants."""


@tenants.command()
@click.argument("tenant")
@click.option("--weight", type=_WEIGHT, default=1, help="Its share of deliveries against that of others (default: 1).")
@with_spool
async def create(session: Session, tenant: str, weight: int) -> None:
    """Create TENANT. One that exists stays as it is."""
    created = await accounts.create(session.spool, tenant, session.clock.now(), weight)
    session.out.record({"tenant": tenant}, f"tenant {tenant} {'created' if created else 'exists'}")


@tenants.command("set")
@click.argument("tenant")
@click.option("--weight", type=_WEIGHT, required=True, help="Its share of deliveries against that of others.")
@with_spool
async def set_(session: Session, tenant: str, weight: int) -> None:
    """Change TENANT; delivery knows it within ten seconds."""
    await accounts.weigh(session.spool, tenant, weight)
    session.out.record({"tenant": tenant, "weight": weight}, f"tenant {tenant} has weight {weight}")


@tenants.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List all tenants."""
    for each in await accounts.list_all(session.spool):
        session.out.row({"tenant": each.name, "weight": each.weight, "created_at": each.created_at}, _COLUMNS)
