"""The commands of `fairlead tenants` for reservations: a tenant's guaranteed share for a time."""

import re

import click

from mta.accounts import reservations as accounts
from mta.accounts.reservations import Reservation
from mta.cli.kinds import Time
from mta.cli.output import Column, time_text
from mta.cli.session import Session, with_spool

_COLUMNS = (
    Column("id", "ID", 8),
    Column("tenant", "TENANT", 24),
    Column("share", "SHARE", 5),
    Column("from_at", "FROM", 20),
    Column("until_at", "UNTIL", 20),
)
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%")


class _Share(click.ParamType[float]):
    """A share such as 30%."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = _SHARE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a share such as 30%", param, ctx)
        return float(found[1]) / 100


@click.command()
@click.argument("tenant")
@click.option("--share", type=_Share(), required=True, help="Of all deliveries, of each site and of the disk: 30%.")
@click.option("--from", "from_at", type=Time(), help="When it begins: 2026-12-01T08:00Z (default: now).")
@click.option("--until", "until_at", type=Time(), required=True, help="When it ends.")
@with_spool
async def reserve(session: Session, tenant: str, share: float, from_at: float | None, until_at: float) -> None:
    """Reserve a share for TENANT for a time. What it does not use, others get."""
    begins_at = session.clock.now() if from_at is None else from_at
    async with session.doing("tenants.reserve", tenant, share=share, from_at=begins_at, until_at=until_at) as underway:
        made = await accounts.reserve(session.spool, tenant, share, begins_at, until_at)
        underway.on = made.id
    times = f"from {time_text(made.from_at)} until {time_text(made.until_at)}"
    session.out.record(_record(made), f"reservation {made.id}: {made.share:.0%} for {tenant} {times}")


@click.command("reservations")
@with_spool
async def list_(session: Session) -> None:
    """List all reservations, those that are over too."""
    for each in await accounts.list_all(session.spool):
        record = _record(each)
        session.out.row(record if session.out.as_json else record | {"share": f"{each.share:.0%}"}, _COLUMNS)


@click.command()
@click.argument("reservation")
@with_spool
async def unreserve(session: Session, reservation: str) -> None:
    """Remove a RESERVATION, by its ID."""
    async with session.doing("tenants.unreserve", on=reservation):
        await accounts.remove(session.spool, reservation)
    session.out.record({"id": reservation}, f"reservation {reservation} removed")


def _record(reservation: Reservation) -> dict[str, object]:
    return {
        "id": reservation.id,
        "tenant": reservation.tenant,
        "share": reservation.share,
        "from_at": reservation.from_at,
        "until_at": reservation.until_at,
    }


COMMANDS = (reserve, list_, unreserve)
