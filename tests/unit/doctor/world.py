"""A small world for the doctor: a DNS peer, a resolver that asks it, and what to read findings with."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from mta.clock import SystemClock
from mta.delivery.resolver import Resolver
from mta.doctor.findings import Finding
from tests.unit.delivery.peers import DnsPeer

type_records = Mapping[tuple[str, str], list[str]]


@asynccontextmanager
async def resolver_of(records: type_records) -> AsyncIterator[tuple[Resolver, DnsPeer]]:
    """A resolver that knows these records."""
    async with DnsPeer(records) as peer:
        settings = peer.settings.model_copy(update={"timeout": 5.0})  # nothing here is red for a busy machine
        resolver = Resolver(settings, SystemClock())
        try:
            yield resolver, peer
        finally:
            await resolver.close()


def graded(findings: Iterable[Finding]) -> dict[str, str]:
    """The grades, by what each finding is about; none is told twice."""
    found = list(findings)
    grades = {each.about: each.grade.name.lower() for each in found}
    assert len(grades) == len(found)
    return grades


def about(findings: Iterable[Finding], name: str) -> Finding:
    """The one finding about something."""
    [only] = [each for each in findings if each.about == name]
    return only
