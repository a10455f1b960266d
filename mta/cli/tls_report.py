"""`fairlead tls report`: how TLS sessions of a day went, as it is reported to the domains (RFC 8460)."""

import datetime as dt
from collections.abc import Iterator

import click
import msgspec

from mta.accounts import domains
from mta.cli.output import Column, time_text
from mta.cli.session import Session, Stop, with_spool
from mta.control import ControlError, ask, socket_path
from mta.mail.tls_report import PolicyResults, day_of, policy_json
from mta.spool import tls_results
from mta.spool.sealing import SealBroken
from mta.spool.tls_results import Progress, Results

_ANSWER = 5.0  # seconds
_COLUMNS = (
    Column("domain", "DOMAIN", 24),
    Column("policy", "POLICY", 15),
    Column("successful", "WELL", 6),
    Column("failed", "FAILED", 6),
    Column("result", "RESULT", 25),
    Column("host", "HOST", 24),
    Column("reason", "REASON", 24),
)


def _day(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else dt.date.fromisoformat(value).isoformat()
    except ValueError:
        raise click.BadParameter("must be a date such as 2027-01-15") from None


@click.command()
@click.argument("domain", required=False)
@click.option("--day", callback=_day, help="A day of UTC such as 2027-01-15 (default: today).")
@with_spool
async def report(session: Session, domain: str | None, day: str | None) -> None:
    """Show how TLS sessions of a day went, with all domains or with DOMAIN, and how far the reports have come.

    Today's are those so far. With --json each domain is an object, with its policies as they stand in its report.
    """
    wanted = day or day_of(session.clock.now())
    await _count(session)
    found = await tls_results.all_results(session.spool, wanted)
    if domain is not None:
        name = domains.normalise(domain)
        found = [each for each in found if each.domain == name]
    if not found:
        raise Stop(f"there were no sessions{f' with {domain[:200]}' if domain else ''} on {wanted}")
    progress = await _progress(session, wanted)
    for each in found:
        if session.out.as_json:
            session.out.row(_record(each, progress.get(each.domain)), _COLUMNS)
        for row in () if session.out.as_json else _rows(each):
            session.out.row(row, _COLUMNS)
    if not session.out.as_json:
        for each in found:
            if each.domain in progress:
                session.out.note(f"{each.domain}: {_told(progress[each.domain])}")


async def _count(session: Session) -> None:
    """Have delivery store what it has counted up to now."""
    try:
        await ask(socket_path(session.config.run_dir, "delivery"), "tls_counted", _ANSWER)
    except ControlError as error:
        session.out.note(f"{error}: this is what it has left")


async def _progress(session: Session, day: str) -> dict[str, Progress]:
    try:
        return await tls_results.all_progress(session.spool, day)
    except (SealBroken, msgspec.DecodeError) as error:
        session.out.note(f"what was reported of {day} cannot be read, and nothing more is: {error}")
        return {}


def _record(results: Results, progress: Progress | None) -> dict[str, object]:
    shown: dict[str, object] = {
        "day": results.day,
        "domain": results.domain,
        "policies": [policy_json(each) for each in results.policies],
    }
    if progress is not None:
        shown["report"] = {
            "id": progress.id,
            "sent": progress.sent,
            "left": progress.left,
            "tries": progress.tries,
            "next_at": None if progress.over else progress.next_at,
            "trouble": progress.trouble,
        }
    return shown


def _rows(results: Results) -> Iterator[dict[str, object]]:
    """A row for each policy, and below it one for each way in which its sessions failed."""
    for each in results.policies:
        policy = {"domain": results.domain, "policy": _policy(each)}
        yield {**policy, "successful": str(each.successful), "failed": str(each.failed)}
        for details, count in each.details:
            host = details.mx_hostname
            yield {
                **policy,
                "failed": str(count),
                "result": details.result_type,
                "host": f"{host}[{details.receiving_ip}]" if details.receiving_ip else host,
                "reason": details.reason,
            }


def _policy(results: PolicyResults) -> str:
    """Name a policy's type, with the mode of one that only looks."""
    testing = any(each.replace(" ", "").lower() == "mode:testing" for each in results.policy.strings)
    return f"{results.policy.type}{' testing' if testing else ''}"


def _told(progress: Progress) -> str:
    sent = f"sent to {', '.join(progress.sent)}" if progress.sent else "not sent"
    if progress.left == ():
        return f"report {sent}"
    again = "given up" if progress.over else f"tried again at {time_text(progress.next_at)}"
    return f"report {sent}; {again}: {progress.trouble}"
