"""`fairlead doctor`: what a receiver sees of us, and what we see of a receiver, with one advice a line."""

import ipaddress

import click

from mta.accounts import domains
from mta.accounts.tenants import AccountError
from mta.cli.output import printable
from mta.cli.session import Session, Stop, with_spool
from mta.delivery.resolver import Resolver
from mta.doctor.examination import examine, patient_of
from mta.doctor.findings import Finding, Grade, Section, count, worst
from mta.exits import Exit

_WIDTH = 28  # of what a finding is about


def _addresses(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_address(each)) for each in values)
    except ValueError:
        raise click.BadParameter("must be an IP address such as 192.0.2.10") from None


@click.command()
@click.argument("domain")
@click.option(
    "--address", "addresses", multiple=True, callback=_addresses, help="What receivers see us as, behind NAT."
)
@click.option("--no-connect", is_flag=True, help="Do not connect to the hosts that receive its mail.")
@with_spool
async def doctor(session: Session, domain: str, addresses: tuple[str, ...], no_connect: bool) -> None:
    """Examine DOMAIN: what receivers see of us as its sender, and what we see of it as a receiver.

    Each line is ok, a warning or a problem, with what to do. It asks the DNS itself, by the configuration's resolvers.
    Ends with 1 if there is a problem.
    """
    try:
        name = domains.normalise(domain)
    except AccountError as error:
        raise Stop(str(error), Exit.USAGE) from None
    resolver = Resolver(session.config.dns, session.clock)
    try:
        patient = await patient_of(name, session.spool, session.config, addresses, session.clock.now())
        sections = await examine(patient, session.config, resolver, session.clock, connect=not no_connect)
    finally:
        await resolver.close()
    session.out.record(_record(name, sections), "\n".join(line for each in sections for line in _lines(each)).strip())
    problems = count(sections, Grade.PROBLEM)
    if problems:
        raise Stop(f"{domain[:64]}: {problems} problem{'s' if problems > 1 else ''}")


def _record(domain: str, sections: list[Section]) -> dict[str, object]:
    return {
        "domain": domain,
        "grade": worst(sections).name.lower(),
        "sections": [
            {"title": each.title, "findings": [_finding(finding) for finding in each.findings]} for each in sections
        ],
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "about": finding.about,
        "grade": finding.grade.name.lower(),
        "said": finding.said,
        "advice": finding.advice,
    }


def _lines(section: Section) -> list[str]:
    lines = [section.title]
    for each in section.findings:
        # what is outside text stays on its line
        about, said, advice = map(printable, (each.about, each.said, each.advice))
        lines.append(f"  {each.grade.name.lower():<8} {about:<{_WIDTH}} {said}")
        if advice:
            lines.append(f"  {'':<8} {'':<{_WIDTH}} -> {advice}")
    return [*lines, ""]
