"""`fairlead dkim`: keys that sign for sender domains (RFC 6376, RFC 8463).

Making one needs the public half of the sealing pair only; the first one makes the pair.
"""

import click
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from mta.accounts import dkim_keys, rotation
from mta.accounts.dkim_keys import Algorithm, DnsRecord
from mta.accounts.domains import Domain, Selector, State
from mta.cli.output import Column, time_text
from mta.cli.session import Session, Stop, with_spool
from mta.config import Config
from mta.control import ControlError, NotRunning, ask, socket_path
from mta.delivery.resolver import NoAnswer, Resolver
from mta.exits import Exit
from mta.mail.key_record import differs

_ALGORITHMS = [each.value for each in Algorithm]
_STRING_OCTETS = 255  # of one character-string in a TXT record, RFC 1035 3.3
_ANSWER = 5.0  # seconds
_SELECTOR = Column("selector", "SELECTOR", 16)
_STATE = Column("state", "STATE", 8)
_COLUMNS = (
    _SELECTOR,
    Column("algorithm", "ALGORITHM", 9),
    _STATE,
    Column("shown_at", "IN THE DNS SINCE", 20),
    Column("todo", "TO DO", 40),
)
_CHECKED = (_SELECTOR, _STATE, Column("dns", "DNS", 24), Column("name", "NAME", 40), Column("found_at", "FOUND AT", 40))


@click.group()
def dkim() -> None:
    """Create, replace and check DKIM keys."""


@dkim.command()
@click.argument("domain")
@click.option("--selector", required=True, help="The name of the key within the domain.")
@click.option("--algorithm", type=click.Choice(_ALGORITHMS), default="rsa2048", show_default=True)
@with_spool
async def create(session: Session, domain: str, selector: str, algorithm: str) -> None:
    """Create a key for DOMAIN and print the DNS record to publish, which any later call prints again.

    The first key of a domain signs from now on, so publish its record at once; a further one when it is in the DNS.
    """
    public, now = sealing_key(session.config), session.clock.now()
    known = await dkim_keys.require(session.spool, domain)
    async with session.doing("dkim.create", known.tenant, known.name, selector=selector, algorithm=algorithm):
        record = await dkim_keys.create(session.spool, domain, selector, Algorithm(algorithm), public, now)
    await _tell(session)
    _print(session, record)


@dkim.command()
@click.argument("domain")
@click.option("--algorithm", type=click.Choice(_ALGORITHMS), help="Of the keys to replace (default: all).")
@click.option("--selector", default="", help="The name of the new key (default: by the day).")
@with_spool
async def rotate(session: Session, domain: str, algorithm: str | None, selector: str) -> None:
    """Replace the keys of DOMAIN that sign: make new ones, and print the DNS records to publish.

    All else happens by itself. A new key signs, and the old one retires, when the DNS has shown it for five minutes;
    the record of the old one has to stay for a week more. `fairlead dkim list` says what is to be done when.
    """
    known = await dkim_keys.require(session.spool, domain)
    algorithms = [Algorithm(algorithm)] if algorithm else dkim_keys.active_algorithms(known)
    if not algorithms:
        raise Stop(f"{known.name} has no key that signs: create one")
    if selector and len(algorithms) > 1:
        raise Stop("say the --algorithm of the key that --selector is for", Exit.USAGE)
    public, now = sealing_key(session.config), session.clock.now()
    async with session.doing("dkim.rotate", known.tenant, known.name, algorithms=algorithms, selector=selector):
        records = [await dkim_keys.rotate(session.spool, domain, each, public, now, selector) for each in algorithms]
    await _tell(session)
    for record in records:
        _print(session, record)


@dkim.command("list")
@click.argument("domain")
@with_spool
async def list_(session: Session, domain: str) -> None:
    """List the keys of DOMAIN: what each is used for, and what is to be done in the DNS."""
    known = await dkim_keys.require(session.spool, domain)
    now = session.clock.now()
    for key in known.selectors:
        record = {
            "selector": key.name,
            "algorithm": key.algorithm,
            "state": key.state.value,
            "replaces": list(key.replaces),
            "shown_at": key.shown_at or None,
            "missing_at": key.missing_at or None,
            "trouble": key.trouble,
            "removable_at": key.removable_at or None,
            "todo": _todo(session.config, known, key, now),
        }
        session.out.row(record, _COLUMNS)


@dkim.command()
@click.argument("domain")
@with_spool
async def check(session: Session, domain: str) -> None:
    """Compare what the DNS shows of the keys of DOMAIN with what it has to, now; fails where they differ."""
    known = await dkim_keys.require(session.spool, domain)
    resolver = Resolver(session.config.dns, session.clock)
    wrong = 0
    try:
        for key in known.selectors:
            record = {"selector": key.name, "state": key.state.value, "name": dkim_keys.name_of(known.name, key)}
            record |= await _found(resolver, known, key)
            wrong += record["dns"] != "ok" and not dkim_keys.is_free(key, session.clock.now())
            session.out.row(record, _CHECKED)
    finally:
        await resolver.close()
    if wrong:
        raise Stop(f"{wrong} of the records of {known.name} cannot be used by verifiers as they are")


async def _found(resolver: Resolver, domain: Domain, key: Selector) -> dict[str, str]:
    name = dkim_keys.name_of(domain.name, key)
    try:
        found = await resolver.texts(name)
    except NoAnswer as reason:
        return {"dns": f"no answer: {reason}", "found_at": ""}
    return {"dns": differs(found.texts, key.dns_value) or "ok", "found_at": found.canonical or name}


def _todo(config: Config, domain: Domain, key: Selector, now: float) -> str:
    record = _record(config, dkim_keys.dns_record(domain.name, key))
    if key.state is State.RETIRED:
        if dkim_keys.is_free(key, now):
            return f"remove {record.name} from the DNS"
        return f"leave {record.name} in the DNS until {time_text(key.removable_at)}"
    if key.state is State.PENDING and key.shown_at:
        return f"nothing: it signs from {time_text(key.shown_at + rotation.SETTLING)} on"
    if key.missing_at or key.state is State.PENDING:
        return f"publish {record.name}" + (f": {key.trouble}" if key.trouble else "")
    return ""


def _record(config: Config, record: DnsRecord) -> DnsRecord:
    return dkim_keys.delegated(record, config.dkim.delegate) if config.dkim.delegate else record


def _print(session: Session, made: DnsRecord) -> None:
    record = _record(session.config, made)
    shown = {"name": record.name, "type": record.type, "value": record.value}
    lines = [zone_line(record.name, record.type, record.value)]
    if record.alias:
        shown["alias"] = record.alias
        lines.insert(0, f"{record.alias}. IN CNAME {record.name}.")
    session.out.record(shown, "\n".join(lines))


async def _tell(session: Session) -> None:
    """Have delivery look whether the key is in the DNS; where it does not run, it does when it starts."""
    try:
        await ask(socket_path(session.config.run_dir, "delivery"), "dkim", _ANSWER)
    except NotRunning:
        pass
    except ControlError as error:
        session.out.note(f"{error}: it looks for the key within the hour")


def sealing_key(config: Config) -> X25519PublicKey:
    """Return the public half of the sealing pair, making the pair if there is none yet."""
    if config.dkim_public_file.exists():
        return dkim_keys.load_public_key(config.dkim_public_file)
    return dkim_keys.load_or_create_sealing_key(config.dkim_key_file, config.dkim_public_file).public_key()


def zone_line(name: str, kind: str, value: str) -> str:
    """Write a record for a zone file (RFC 1035 5.1), its text in strings of at most 255 octets."""
    escaped = [each.replace("\\", "\\\\").replace('"', '\\"') for each in _pieces(value)]
    strings = " ".join(f'"{each}"' for each in escaped)
    return f"{name}. IN {kind} " + (f"( {strings} )" if len(escaped) > 1 else strings)


def _pieces(value: str) -> list[str]:
    return [value[start : start + _STRING_OCTETS] for start in range(0, len(value), _STRING_OCTETS)] or [""]
