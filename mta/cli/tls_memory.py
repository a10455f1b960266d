"""`fairlead tls list`, `forget` and `status`: what is remembered of hosts, and how sessions with them went."""

from collections.abc import Sequence

import click

from mta.cli.output import Column
from mta.cli.session import Session, Stop, with_spool
from mta.control import ControlError, NotRunning, ask, socket_path
from mta.delivery import mx, remembered
from mta.delivery.remembered import Hosts
from mta.delivery.resolver import Resolver
from mta.delivery.route import Routes
from mta.delivery.trouble import NoWay

_TIMEOUT = 5.0  # seconds
_COLUMNS = (
    Column("host", "HOST", 40),
    Column("port", "PORT", 5),
    Column("level", "LEVEL", 9),
    Column("seen_at", "SEEN", 20),
    Column("ends_at", "REMEMBERED UNTIL", 20),
)
_COUNTS = (
    Column("policy", "POLICY", 16),
    Column("result", "RESULT", 28),
    Column("sessions", "SESSIONS", 8),
)


@click.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List the hosts of which is remembered how well sessions with them were protected; less is not taken from them."""
    found = sorted(await remembered.stored(session.spool), key=lambda each: (each.host, each.port))
    lifetime = session.config.delivery.tls_memory
    if not found and not session.out.as_json:
        session.out.note("no host is remembered yet")
    for each in found:
        shown = {"host": each.host, "port": each.port, "level": each.level.name.lower(), "seen_at": each.seen_at}
        session.out.row(shown | {"ends_at": each.seen_at + lifetime}, _COLUMNS)


@click.command()
@click.argument("names", metavar="HOST|SITE|DOMAIN...", nargs=-1, required=True)
@with_spool
async def forget(session: Session, names: Sequence[str]) -> None:
    """Forget how well sessions with hosts were protected: they did give up TLS, and what is less is to be taken again.

    A SITE (as `queue top` names it) or a DOMAIN stands for its hosts. Mail that waits goes out when it is due, or with
    `queue retry`.
    """
    missed = 0
    for name in names:
        hosts = tuple(dict.fromkeys(await _hosts_of(session, name)))
        async with session.doing("tls.forget", on=name):
            gone = await _forget(session, hosts)
        missed += not gone
        result = f"forgotten: {', '.join(gone)}" if gone else "nothing is remembered"
        session.out.record({"name": name, "forgotten": gone}, f"{name}: {result}")
    if missed == len(names):
        raise Stop("nothing was forgotten")


@click.command()
@with_spool
async def status(session: Session) -> None:
    """Count the sessions since delivery started, by the policy they were under and how they went (RFC 8460 4.3)."""
    try:
        counts = await ask(socket_path(session.config.run_dir, "delivery"), "tls_sessions", _TIMEOUT)
    except ControlError as error:
        raise Stop(str(error)) from None
    if not counts and not session.out.as_json:
        session.out.note("no session yet")
    for policy, results in counts.items():
        for result, sessions in sorted(results.items()):
            session.out.row({"policy": policy, "result": result, "sessions": sessions}, _COUNTS)


async def _hosts_of(session: Session, name: str) -> list[str]:
    """Name the hosts that are meant, as they are remembered."""
    config, name = session.config, name.lower()
    hosts = remembered.hosts_in(name)
    if hosts or ":" in name:
        return hosts or [name]
    resolver = Resolver(config.dns, session.clock)
    try:
        site = Routes(config.routes).site(name) or await mx.site_of(
            name, resolver, config.hostname, config.delivery.port
        )
    finally:
        await resolver.close()
    return [name, *([] if isinstance(site, NoWay) else [f"{hop.host}:{hop.port}" for hop in site.hops])]


async def _forget(session: Session, names: tuple[str, ...]) -> list[str]:
    """Have delivery forget, which remembers itself; if it is down, what is stored is all there is."""
    delivery = socket_path(session.config.run_dir, "delivery")
    try:
        return list(await ask(delivery, "tls_forget", _TIMEOUT, Hosts(names)))
    except NotRunning:
        return await remembered.forget(session.spool, names)
    except ControlError as error:
        raise Stop(f"{error}: whether {', '.join(names)} is forgotten is not known, ask again") from None
