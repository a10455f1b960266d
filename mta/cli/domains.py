"""`fairlead domains`: sender domains, each with all that is below it one tenant's own."""

import click

from mta.accounts import domains as accounts
from mta.cli.output import Column
from mta.cli.session import Session, with_spool

_COLUMNS = (
    Column("domain", "DOMAIN", 32),
    Column("tenant", "TENANT", 16),
    Column("selectors", "SELECTORS", 16),
    Column("created_at", "CREATED", 20),
)


@click.group()
def domains() -> None:
    """Add and list sender domains."""


@domains.command()
@click.argument("domain")
@click.option("--tenant", required=True, help="Who may send as the domain.")
@with_spool
async def add(session: Session, domain: str, tenant: str) -> None:
    """Register DOMAIN for a tenant: nobody else can send as it. One that the tenant has stays as it is."""
    async with session.doing("domains.add", tenant, domain):
        added = await accounts.add(session.spool, domain, tenant, session.clock.now())
    session.out.record({"domain": added.name, "tenant": added.tenant}, f"domain {added.name} is {added.tenant}'s")


@domains.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List all domains."""
    for each in await accounts.list_all(session.spool):
        record = {
            "domain": each.name,
            "tenant": each.tenant,
            "selectors": [selector.name for selector in each.selectors],
            "created_at": each.created_at,
        }
        session.out.row(record, _COLUMNS)
