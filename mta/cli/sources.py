"""`fairlead sources`: where mail leaves from, how far warm-ups are, and for whom a source is not to be used."""

import re

import click
import msgspec

from mta.cli.output import Column, time_text
from mta.cli.session import Session, Stop, with_spool
from mta.control import ControlError, ask, socket_path
from mta.delivery import source_records
from mta.delivery.source_records import Parked
from mta.delivery.sources import SourceRow, Sources
from mta.exits import Exit

_COLUMNS = (
    Column("source", "SOURCE", 12),
    Column("addresses", "ADDRESSES", 16),
    Column("hostname", "EHLO", 24),
    Column("pools", "POOLS", 16),
    Column("warm_up", "WARM-UP", 10),
    Column("parked", "PARKED FOR", 10),
    Column("trouble", "TROUBLE", 10),
)
_ANSWER = 5.0  # seconds
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_SHOWN = 3  # providers of a warm-up


@click.group()
def sources() -> None:
    """List, park and unpark sources: the addresses that mail leaves from."""


@sources.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List all sources with their warm-ups, and for whom they are parked."""
    for row in await _rows(session):
        record = msgspec.to_builtins(row)
        session.out.row(record if session.out.as_json else record | _in_words(row), _COLUMNS)


def _duration(_: click.Context, __: click.Parameter, value: str) -> float:
    found = re.fullmatch(r"([1-9][0-9]{0,3})([mhd])", value)
    if found is None:
        raise click.BadParameter("must be a time such as 30m, 24h or 7d")
    return float(found[1]) * _UNITS[found[2]]


@sources.command()
@click.argument("source")
@click.argument("provider")
@click.option("--for", "seconds", default="24h", callback=_duration, help="How long: 30m, 24h, 7d (default: 24h).")
@click.option("--reason", default="by the operator", help="For whoever looks at the list (default: by the operator).")
@with_spool
async def park(session: Session, source: str, provider: str, seconds: float, reason: str) -> None:
    """Use SOURCE no more for PROVIDER, until the time is over; the pool's other sources go on.

    PROVIDER is one of the shaping rules, or, where they name none, a site as `fairlead queue top` has it.
    """
    if source not in {each.name for each in session.config.sources}:
        raise Stop(f"there is no source {source[:64]!r} in the configuration", Exit.USAGE)
    if not provider.strip():
        raise Stop("say for which provider", Exit.USAGE)
    ends_at = session.clock.now() + seconds
    parked = Parked(source=source, provider=provider, ends_at=ends_at, reason=reason)
    async with session.doing("sources.park", on=source, provider=provider, ends_at=ends_at, reason=reason):
        await source_records.park(session.spool, parked)
    await _tell(session)
    record = {"source": source, "provider": provider, "ends_at": ends_at, "reason": reason}
    session.out.record(record, f"source {source} is parked for {provider} until {time_text(ends_at)}")


@sources.command()
@click.argument("source")
@click.argument("provider", required=False)
@with_spool
async def unpark(session: Session, source: str, provider: str | None) -> None:
    """Use SOURCE again for PROVIDER, or for all."""
    parked = await source_records.parked_now(session.spool, session.clock.now())
    meant = [each.provider for each in parked if each.source == source and provider in (None, each.provider)]
    if not meant:
        raise Stop(f"source {source[:64]} is not parked" + (f" for {provider[:200]}" if provider else ""))
    async with session.doing("sources.unpark", on=source, providers=meant):
        for each in meant:
            await source_records.unpark(session.spool, source, each)
    await _tell(session)
    session.out.record({"source": source, "unparked": meant}, f"source {source} is used again for {', '.join(meant)}")


async def _rows(session: Session) -> list[SourceRow]:
    """Ask delivery; where it is down say what the spool has."""
    delivery = socket_path(session.config.run_dir, "delivery")
    try:
        return msgspec.convert(await ask(delivery, "sources", _ANSWER), list[SourceRow])
    except ControlError as error:
        session.out.note(f"{error}: this is what it has left")
    except msgspec.ValidationError as error:
        raise Stop(f"delivery answers what this version does not understand: {error}") from None
    known = Sources(session.config, session.spool, session.clock)
    await known.recall()
    return known.rows()


async def _tell(session: Session) -> None:
    """Have delivery read again where sources are parked; if it does not hear, it does when it starts."""
    try:
        await ask(socket_path(session.config.run_dir, "delivery"), "parked", _ANSWER)
    except ControlError as error:
        session.out.note(f"{error}: it will know when it starts")


def _in_words(row: SourceRow) -> dict[str, object]:
    warm_up = "-"
    if row.warm_up is not None and row.warm_up.day < 1:
        warm_up = f"begins in {1 - row.warm_up.day} d"
    elif row.warm_up is not None:
        most = sorted(row.warm_up.today.items(), key=lambda each: -each[1])[:_SHOWN]
        counted = "".join(f", {provider} {recipients}" for provider, recipients in most)
        warm_up = f"day {row.warm_up.day}/{row.warm_up.days}, {row.warm_up.cap} each{counted}"
    return {
        "pools": [f"{pool}:{weight}" for pool, weight in row.pools.items()],
        "warm_up": warm_up,
        "parked": "; ".join(f"{each.provider} until {time_text(each.ends_at)} ({each.reason})" for each in row.parked),
    }
