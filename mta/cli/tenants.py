"""`fairlead tenants`: whom messages, keys and domains belong to, what they have waiting and may have."""

import click

from mta.accounts import tenants as accounts
from mta.accounts.rates import rate_text
from mta.accounts.reservations import reserved_shares
from mta.accounts.tenants import LONGEST_KEPT
from mta.accounts.tolls import Rate
from mta.cli import reservations
from mta.cli.kinds import Duration, Messages
from mta.cli.output import Column, time_text
from mta.cli.session import Session, Stop, with_spool
from mta.config import DEFAULT_POOL
from mta.control import ControlError, ask
from mta.exits import Exit
from mta.queue.gate import TenantStatus
from mta.sizes import SIZE, octets_of
from mta.spool.interface import Backlog

_COLUMNS = (
    Column("tenant", "TENANT", 24),
    Column("weight", "WEIGHT", 6),
    Column("pool", "POOL", 12),
    Column("waiting", "WAITING", 9),
    Column("octets", "OCTETS", 12),
    Column("created_at", "CREATED", 20),
)
_WEIGHT = click.IntRange(1, accounts.HEAVIEST)
_ASK_TIMEOUT = 2.0  # seconds for a role to say whom it refuses


class _Octets(click.ParamType[int]):
    """A size such as 500MiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = SIZE.fullmatch(str(value).strip())
        if found is None or found[2] == "%":
            self.fail(f"{value!r} is not a size such as 500MiB", param, ctx)
        return octets_of(str(value), 0)


@click.group()
def tenants() -> None:
    """Create, change, limit and list tenants; reserve shares for them."""


for each in reservations.COMMANDS:
    tenants.add_command(each)


@tenants.command()
@click.argument("tenant")
@click.option("--weight", type=_WEIGHT, default=1, help="Its share of deliveries against that of others (default: 1).")
@click.option("--pool", default=DEFAULT_POOL, help="Of sources, that its mail leaves from (default: default).")
@with_spool
async def create(session: Session, tenant: str, weight: int, pool: str) -> None:
    """Create TENANT. One that exists stays as it is."""
    _configured(session, pool)
    async with session.doing("tenants.create", tenant, tenant, weight=weight, pool=pool) as underway:
        created = await accounts.create(session.spool, tenant, session.clock.now(), weight=weight, pool=pool)
        underway.result = "done" if created else "unchanged"
    session.out.record({"tenant": tenant}, f"tenant {tenant} {'created' if created else 'exists'}")


@tenants.command("set")
@click.argument("tenant")
@click.option("--weight", type=_WEIGHT, help="Its share of deliveries against that of others.")
@click.option("--pool", help="Of sources, that its mail leaves from.")
@click.option(
    "--backlog-messages",
    "most_messages",
    metavar="N",
    type=click.IntRange(0),
    help="Refuse its new mail while N messages wait; 0 for never.",
)
@click.option(
    "--backlog-octets",
    "most_octets",
    metavar="SIZE",
    type=_Octets(),
    help="The same for the octets of what waits, such as 2GiB.",
)
@click.option(
    "--tls",
    type=click.Choice(["none", "encrypted", "verified"]),
    help="The least that its mail goes over; the default is none.",
)
@click.option("--rate", type=Messages(), help="Messages that it may send, such as 1200/60 or 20/second; none for any.")
@click.option(
    "--keep-content",
    type=Duration(most=LONGEST_KEPT),
    help="How long the content of a message is kept after its end, such as 24h; 0s for not at all.",
)
@with_spool
async def set_(
    session: Session, /, tenant: str, rate: Rate | None, keep_content: float | None, **given: int | str | None
) -> None:
    """Change TENANT; all roles know it within ten seconds."""
    fields = {name: value for name, value in given.items() if value is not None}
    if keep_content is not None:
        fields["keep_content"] = int(keep_content)
    if rate is not None:
        fields["rate"] = rate_text(rate.messages, rate.seconds) or "none"
    if not fields:
        raise Stop(
            "say what to change: --weight, --pool, --tls, --rate, --backlog-messages, --backlog-octets, --keep-content",
            Exit.USAGE,
        )
    if "pool" in fields:
        _configured(session, str(fields["pool"]))
    stored = fields | ({"tls": ""} if fields.get("tls") == "none" else {})
    stored |= {"rate": rate.messages, "per": rate.seconds} if rate is not None else {}
    async with session.doing("tenants.set", tenant, tenant, **fields):
        await accounts.change(session.spool, tenant, **stored)
    said = {"most_messages": "backlog-messages", "most_octets": "backlog-octets", "keep_content": "keep-content"}
    text = " and ".join(f"{said.get(name, name)} {value}" for name, value in fields.items())
    session.out.record({"tenant": tenant, **fields}, f"tenant {tenant} has {text}")


@tenants.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List all tenants, with the messages that wait and the octets of their content."""
    backlogs = await session.spool.backlogs()
    for each in await accounts.list_all(session.spool):
        backlog = backlogs.get(each.name, Backlog())
        session.out.row(
            {
                "tenant": each.name,
                "weight": each.weight,
                "pool": each.pool or DEFAULT_POOL,
                "waiting": backlog.messages,
                "octets": backlog.octets,
                "created_at": each.created_at,
            },
            _COLUMNS,
        )


@tenants.command()
@click.argument("tenant")
@with_spool
async def show(session: Session, tenant: str) -> None:
    """Show what TENANT has waiting, how fast it goes, and whether its new mail is refused, and since when."""
    await accounts.require(session.spool, tenant)
    settings = await accounts.settings_of(session.spool, tenant)
    backlog = (await session.spool.backlogs()).get(tenant, Backlog())
    share = (await reserved_shares(session.spool, session.clock.now())).get(tenant, 0.0)
    doors = await _doors(session, tenant)
    record = {
        "tenant": tenant,
        "weight": settings.weight,
        "pool": settings.pool or DEFAULT_POOL,
        "reserved_share": share or None,
        "tls": settings.tls or None,
        "rate": rate_text(settings.rate, settings.per) or None,
        "most_messages": settings.most_messages or None,
        "most_octets": settings.most_octets or None,
        "keep_content": settings.keep_content,
        "waiting": backlog.messages,
        "octets": backlog.octets,
        "untried": backlog.untried,
        "doors": {
            door: {
                "messages_per_second": status.messages_per_second,
                "tries_per_second": status.tries_per_second,
                "refused": status.refused or None,
                "refused_since_at": status.refused_since or None,
                "retry_after": status.retry_after or None,
            }
            for door, status in doors.items()
        },
    }
    lines = [
        f"tenant    {tenant}, weight {settings.weight}, pool {settings.pool or DEFAULT_POOL}"
        + (f", {share:.0%} reserved now" if share else "")
        + (f", its mail goes {settings.tls} or not at all" if settings.tls else ""),
        f"waiting   {backlog.messages} messages, {backlog.octets} octets; {backlog.untried} entries not tried yet",
        f"limits    {settings.most_messages or 'no'} messages, {settings.most_octets or 'no'} octets",
        f"rate      {rate_text(settings.rate, settings.per) or 'none'}",
        f"content   is kept for {settings.keep_content} s after the end",
        *(_door_text(door, status) for door, status in doors.items()),
    ]
    session.out.record(record, "\n".join(lines))


def _door_text(door: str, status: TenantStatus) -> str:
    tries = "not known" if status.tries_per_second is None else f"{status.tries_per_second:.1f}/s"
    text = f"{door:<9} {status.messages_per_second:.1f} messages/s leave, first attempts {tries}; "
    if not status.refused:
        return text + "new mail is taken"
    return text + f"refused ({status.refused}) since {time_text(status.refused_since)}, for {status.retry_after} s"


async def _doors(session: Session, tenant: str) -> dict[str, TenantStatus]:
    """Ask the processes that take mail what they know of a tenant; those that are down know nothing."""
    found: dict[str, TenantStatus] = {}
    for role in ("ingress", "http"):
        for path in sorted(session.config.run_dir.glob(f"{role}*.sock")):
            try:
                statuses = await ask(path, "capacity", _ASK_TIMEOUT)
            except ControlError:
                continue
            if tenant in statuses:
                found[path.stem] = TenantStatus(**statuses[tenant])
    return found


def _configured(session: Session, pool: str) -> None:
    pools = {DEFAULT_POOL, *session.config.pools}
    if pool not in pools:
        raise Stop(
            f"there is no pool {pool[:64]!r} in the configuration; there are {', '.join(sorted(pools))}", Exit.USAGE
        )
