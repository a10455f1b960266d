"""`fairlead tenants`: whom messages, keys and domains belong to."""

import click

from mta.accounts import tenants as accounts
from mta.cli.output import Column
from mta.cli.session import Session, Stop, with_spool
from mta.config import DEFAULT_POOL
from mta.exits import Exit

_COLUMNS = (
    Column("tenant", "TENANT", 24),
    Column("weight", "WEIGHT", 6),
    Column("pool", "POOL", 12),
    Column("created_at", "CREATED", 20),
)
_WEIGHT = click.IntRange(1, accounts.HEAVIEST)


@click.group()
def tenants() -> None:
    """Create, change and list tenants."""


@tenants.command()
@click.argument("tenant")
@click.option("--weight", type=_WEIGHT, default=1, help="Its share of deliveries against that of others (default: 1).")
@click.option("--pool", default=DEFAULT_POOL, help="Of sources, that its mail leaves from (default: default).")
@with_spool
async def create(session: Session, tenant: str, weight: int, pool: str) -> None:
    """Create TENANT. One that exists stays as it is."""
    _configured(session, pool)
    created = await accounts.create(session.spool, tenant, session.clock.now(), weight, pool)
    session.out.record({"tenant": tenant}, f"tenant {tenant} {'created' if created else 'exists'}")


@tenants.command("set")
@click.argument("tenant")
@click.option("--weight", type=_WEIGHT, help="Its share of deliveries against that of others.")
@click.option("--pool", help="Of sources, that its mail leaves from.")
@with_spool
async def set_(session: Session, tenant: str, weight: int | None, pool: str | None) -> None:
    """Change TENANT; delivery knows it within ten seconds."""
    if weight is None and pool is None:
        raise Stop("say what to change: --weight, --pool", Exit.USAGE)
    changed: dict[str, object] = {}
    if pool is not None:
        _configured(session, pool)
        await accounts.assign(session.spool, tenant, pool)
        changed["pool"] = pool
    if weight is not None:
        await accounts.weigh(session.spool, tenant, weight)
        changed["weight"] = weight
    what = " and ".join(f"{key} {value}" for key, value in changed.items())
    session.out.record({"tenant": tenant, **changed}, f"tenant {tenant} has {what}")


@tenants.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List all tenants."""
    for each in await accounts.list_all(session.spool):
        record = {
            "tenant": each.name,
            "weight": each.weight,
            "pool": each.pool or DEFAULT_POOL,
            "created_at": each.created_at,
        }
        session.out.row(record, _COLUMNS)


def _configured(session: Session, pool: str) -> None:
    pools = {DEFAULT_POOL, *session.config.pools}
    if pool not in pools:
        raise Stop(
            f"there is no pool {pool[:64]!r} in the configuration; there are {', '.join(sorted(pools))}", Exit.USAGE
        )
