"""`fairlead queue lessons` and `forget`: what was learned of sites, to be shown, exported and reset."""

from collections.abc import Sequence

import click

from mta.cli.output import Column
from mta.cli.session import Session, Stop, with_spool
from mta.control import ControlError, NotRunning, ask, socket_path
from mta.queue import lessons as stored_lessons
from mta.queue.learned import Learned, Paused

_TIMEOUT = 5.0  # seconds
_COLUMNS = (
    Column("site", "SITE", 40),
    Column("source", "SOURCE", 15),
    Column("tenant", "TENANT", 12),
    Column("age", "AGE", 8),
    Column("what", "WHAT", 40),
)


@click.command()
@click.argument("sites", metavar="[SITE]...", nargs=-1)
@with_spool
async def lessons(session: Session, sites: Sequence[str]) -> None:
    """Show what is stored of sites, or of these: limits that were met, and pauses. It is stored once a minute.

    With --json it can be kept elsewhere, with the time at which each was learned.
    """
    now = session.clock.now()
    found = [each for each in (await stored_lessons.stored(session.spool)).values() if not sites or each.site in sites]
    if not found and not session.out.as_json:
        session.out.note("nothing was learned yet")
    for each in sorted(found, key=lambda lesson: (lesson.site, lesson.source)):
        record = {name: getattr(each, name) for name in each.__struct_fields__ if name != "version"}
        shown = {"kind": "learned" if isinstance(each, Learned) else "paused", **record}
        shown |= {"age": now - each.learned_at} if isinstance(each, Learned) else {"lasts": each.until - now}
        session.out.row(shown if session.out.as_json else _shown(each, now), _COLUMNS)


@click.command()
@click.argument("sites", metavar="SITE...", nargs=-1, required=True)
@with_spool
async def forget(session: Session, sites: Sequence[str]) -> None:
    """Reset what was learned of sites, as `queue top` names them: their limits, pauses, and that they are dead."""
    unknown = 0
    for site in sites:
        async with session.doing("queue.forget", on=site):
            known = await _forget(session, site)
        unknown += not known
        result = "forgotten" if known else "nothing known"
        session.out.record({"site": site, "result": result}, f"{site}: {result}")
    if unknown == len(sites):
        raise Stop("nothing was forgotten")


async def _forget(session: Session, site: str) -> bool:
    """Have delivery forget, which knows more than what is stored; if it is down, what is stored is all there is."""
    delivery = socket_path(session.config.run_dir, "delivery")
    try:
        return bool(await ask(delivery, "forget", _TIMEOUT, stored_lessons.AboutSite(site)))
    except NotRunning:
        return await stored_lessons.forget(session.spool, site)
    except ControlError as error:
        raise Stop(f"{error}: whether {site} is forgotten is not known, ask again") from None


def _shown(lesson: Learned | Paused, now: float) -> dict[str, object]:
    shown: dict[str, object] = {"site": lesson.site, "source": lesson.source}
    if isinstance(lesson, Paused):
        what = f"paused for {max(0.0, lesson.until - now):.0f} s: {lesson.reason}"
        return shown | {"tenant": lesson.tenant, "what": what}
    words = [f"{lesson.connections} connections"]
    if lesson.connections_refused is not None:
        words.append(f"{lesson.connections_refused} were refused")
    if lesson.ceiling is not None:
        words.append(f"up to {60 * lesson.ceiling:.1f} a minute")
    if lesson.deliveries:
        words.append(f"{lesson.deliveries} messages a connection")
    return shown | {"age": f"{now - lesson.learned_at:.0f} s", "what": ", ".join(words)}
