"""The checker: what clients were told, held against what is there and what has arrived.

`survey` reads what a crash has left behind; `judge` and `judge_arrivals` are pure and say what is wrong.
The product's own `spool verify` belongs to the survey, but no count of the judgement comes from it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lmdb

from mta.clock import SystemClock
from mta.events.reader import LogReader
from mta.mail.event import ENDS, Event, EventType
from mta.spool.interface import SpoolError
from mta.spool.lmdb.care import verify, verify_structure
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import load_keyring
from tests.crash.ledger import Outcome
from tests.crash.letters import by_http, is_sender, is_whole, recipients_of, request_of, tag_of

_PAGE = 1000


class Place(NamedTuple):
    """Where the state of an installation is."""

    spool: Path
    key_file: Path
    segments: Path


@dataclass
class Remains:
    """What is there: who waits, whose end was told and how, and what cannot be as it is."""

    accepted: Counter[str] = field(default_factory=Counter)  # tag -> events `accepted`
    ids: dict[str, set[str]] = field(default_factory=partial(defaultdict, set))  # tag -> its messages
    waiting: dict[str, set[str]] = field(default_factory=partial(defaultdict, set))  # tag -> recipients
    ends: dict[str, list[EventType]] = field(default_factory=partial(defaultdict, list))  # recipient -> final events
    told: Counter[str] = field(default_factory=Counter)  # recipient -> events `dsn_sent`
    problems: list[str] = field(default_factory=list)

    def hear(self, event: Event) -> None:
        """Take an event into account."""
        if event.type is EventType.ACCEPTED:
            if not is_sender(event.recipients[0]):
                tag = tag_of(event.recipients[0])
                self.accepted[tag] += 1
                self.ids[tag].add(event.message)
        elif event.type is EventType.DSN_SENT:
            self.told[event.recipient] += 1
        elif event.type in ENDS and not is_sender(event.recipient):
            self.ends[event.recipient].append(event.type)


async def survey(place: Place, *, structure: bool = True) -> Remains:
    """Read the whole state of an installation whose processes are dead, as its own restart would."""
    remains = Remains()
    if not (place.spool / "data.mdb").exists():  # the crash came before there was a spool
        return remains
    try:
        findings = verify(place.spool, load_keyring(place.key_file))
        remains.problems += findings.problems
        if structure:
            remains.problems += verify_structure(place.spool)
        await _read(place, remains)
    except (SpoolError, lmdb.Error) as error:
        remains.problems.append(f"spool: {error}")
    return remains


async def _read(place: Place, remains: Remains) -> None:
    keyring = load_keyring(place.key_file)
    spool = LmdbSpool(place.spool, keyring, SystemClock(), map_size=0, reserve=0)
    try:
        async for entry, _ in spool.walk_entries():
            message = await spool.message(entry.message)
            if message is None or is_sender(entry.waiting[0].recipient.address):
                continue
            tag = tag_of(entry.waiting[0].recipient.address)
            remains.waiting[tag] |= {each.recipient.address for each in entry.waiting}
            if not is_whole(await spool.content(message), tag):
                remains.problems.append(f"{tag}: what is stored of {message.id} is not what was handed over")
        reader, last = LogReader(spool, place.segments, keyring), 0
        while page := await reader.read(last, _PAGE):
            for each in page:
                if each.seq != last + 1:
                    remains.problems.append(f"log: {last + 1} to {each.seq - 1} are missing")
                last = each.seq
                remains.hear(each.event)
    finally:
        await spool.close()


class Judgement(NamedTuple):
    """What is wrong, a line each; all empty when the promises were kept."""

    lost: list[str]  # recipients of acknowledged letters that are nowhere
    half: list[str]  # letters of which some is there and some is not, or that contradict themselves
    ghosts: list[str]  # letters that are there though nobody was told so: refused, or never offered
    problems: list[str]

    def __bool__(self) -> bool:
        return any(self)


def judge(outcomes: Mapping[str, Outcome], remains: Remains, *, drained: bool = False) -> Judgement:
    """Hold the ledger against what is there. `drained`: nothing waits any more, so all must have ended."""
    known = {*remains.accepted, *remains.waiting, *map(tag_of, remains.ends)}
    acked = {tag for tag, outcome in outcomes.items() if outcome is Outcome.ACKED}
    lost = [recipient for tag in acked for recipient in recipients_of(tag) if not _is_there(recipient, remains)]
    half = [f"{tag}: {what}" for tag in known for what in _contradictions(tag, remains, drained=drained)]
    missing = {request_of(tag) for tag in outcomes if tag not in known}
    half += [f"{tag}: others of its request are missing" for tag in known if request_of(tag) in missing]
    ghosts = sorted(tag for tag in known if outcomes.get(tag) in (None, Outcome.REFUSED))
    return Judgement(sorted(lost), sorted(half), ghosts, remains.problems)


def _is_there(recipient: str, remains: Remains) -> bool:
    return bool(remains.ends.get(recipient)) or recipient in remains.waiting.get(tag_of(recipient), ())


def _contradictions(tag: str, remains: Remains, *, drained: bool) -> Iterable[str]:
    if remains.accepted[tag] != 1:
        yield f"accepted {remains.accepted[tag]} times"
    waiting = remains.waiting.get(tag, set())
    if strangers := waiting.difference(recipients_of(tag)):
        yield f"{sorted(strangers)} are no recipients of it"
    for recipient in recipients_of(tag):
        ends = remains.ends.get(recipient, [])
        if len(ends) + (recipient in waiting) != 1:
            yield f"{recipient} {'waits' if recipient in waiting else 'does not wait'} and has ended {len(ends)} times"
        if drained and recipient in waiting:
            yield f"{recipient} still waits"
        if remains.told[recipient] != (EventType.BOUNCED in ends and not by_http(tag)):
            yield f"{recipient} has ended as {ends}, its sender was told {remains.told[recipient]} times"


class Arrival(NamedTuple):
    """A recipient's letter at the sink. `transaction` and `connection` are the sink's own numbers.

    `message` tells a sender's DSNs apart: there is one for each entry that fails.
    """

    recipient: str
    message: str
    transaction: int
    connection: int
    whole: bool


class Arrivals(NamedTuple):
    """What is wrong with what has arrived. `excused` counts repeated transactions that the kills explain."""

    duplicates: list[str]
    excused: int
    torn: list[str]
    ghosts: list[str]
    untold: list[str]


def judge_arrivals(
    outcomes: Mapping[str, Outcome], remains: Remains, arrivals: Iterable[Arrival], uncertain: Mapping[int, int]
) -> Arrivals:
    """Hold the sink against ledger and log, when all has ended.

    `uncertain` maps the transactions whose outcome the relay may not have committed when it was killed to
    their connection: promise 2 lets them be repeated, one of each connection and no others.
    """
    arrived: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
    torn, ghosts, untold = list[str](), list[str](), list[str]()
    for each in arrivals:
        arrived[each.recipient, each.message].append(each)
        if outcomes.get(tag_of(each.recipient)) in (None, Outcome.REFUSED):
            ghosts.append(each.recipient)
        if not each.whole:
            torn.append(each.recipient)
    repeated: dict[int, set[int]] = defaultdict(set)
    duplicates, excused = list[str](), set[int]()
    for (recipient, _), several in arrived.items():
        for each in several[:-1]:
            repeated[each.connection].add(each.transaction)
            if each.transaction in uncertain and len(repeated[each.connection]) == 1:
                excused.add(each.transaction)
            else:
                duplicates.append(f"{recipient}: transaction {each.transaction} of connection {each.connection}")
        if not is_sender(recipient) and EventType.DELIVERED not in remains.ends.get(recipient, ()):
            untold.append(f"{recipient}: arrived, told {remains.ends.get(recipient)}")
    recipients = {recipient for recipient, _ in arrived}
    untold += [
        f"{recipient}: told delivered, never arrived"
        for recipient, ends in remains.ends.items()
        if EventType.DELIVERED in ends and recipient not in recipients
    ]
    return Arrivals(duplicates, len(excused), torn, ghosts, untold)
