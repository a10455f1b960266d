"""`fairlead audit`: who did what to accounts and to the queue."""

import click

from mta.cli.kinds import Duration, Time
from mta.cli.output import Column
from mta.cli.session import Session, with_spool

_COLUMNS = (
    Column("at", "AT", 20),
    Column("by", "BY", 16),
    Column("address", "FROM", 16),
    Column("action", "ACTION", 18),
    Column("tenant", "TENANT", 12),
    Column("on", "ON", 22),
    Column("result", "RESULT", 8),
    Column("details", "DETAILS", 10),
)
_PAGE = 500


class _Since(click.ParamType[float]):
    """A time, or how long ago."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        text = str(value).strip()
        if text[-1:] in ("s", "m", "h", "d"):
            return -Duration().convert(text, param, ctx)
        return Time().convert(text, param, ctx)


@click.command()
@click.option("--since", type=_Since(), default="1d", help="A time, or how long ago: 2026-12-01T08:00Z, 2h, 7d (1d).")
@click.option("--tenant", default="", help="What concerns this tenant.")
@with_spool
async def audit(session: Session, since: float, tenant: str) -> None:
    """Tell who did what to accounts and to the queue, the latest first; it is kept for 90 days."""
    begins_at = since if since > 0 else session.clock.now() + since
    before: str | None = ""
    while before is not None:
        records, before = await session.audit.page(tenant, _PAGE, before, begins_at)
        for each in records:
            shown = {
                name: getattr(each, name) for name in each.__struct_fields__ if name not in ("version", "position")
            }
            words = {"details": " ".join(f"{name}={value}" for name, value in each.details.items())}
            session.out.row(shown if session.out.as_json else shown | words, _COLUMNS)
