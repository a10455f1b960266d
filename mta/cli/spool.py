"""`fairlead spool`: look after what is stored. What each does, and whether beside the relay: mta/spool/lmdb/care.py."""

import asyncio
from pathlib import Path

import click

from mta.accounts.dkim_keys import load_or_create_sealing_key
from mta.cli.output import Printer, printable
from mta.cli.session import Stop, as_owner, json_option
from mta.clock import SystemClock
from mta.config import Config
from mta.exits import Exit
from mta.spool.interface import Unavailable
from mta.spool.lmdb import care
from mta.spool.lmdb.moving import DATA_FILE
from mta.spool.lmdb.opening import open_keyring, open_spool

_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.group()
def spool() -> None:
    """Verify, back up and compact the spool."""


@spool.command()
@as_owner
def init(config: Config) -> None:
    """Make the keys and an empty spool; what exists stays as it is. The relay does so by itself, except as units.

    systemd hands the keys to its units, so they must exist before these start.
    """
    asyncio.run(open_spool(config, SystemClock()).close())
    if config.dkim_key_file.exists() or not config.dkim_public_file.exists():
        load_or_create_sealing_key(config.dkim_key_file, config.dkim_public_file)


@spool.command()
@click.argument("directory", type=_DIRECTORY, required=False)
@json_option
@as_owner
def verify(config: Config, directory: Path | None, as_json: bool) -> None:
    """Read everything, and check that it fits together; beside the relay, or in DIRECTORY: a backup."""
    out = Printer(as_json=as_json)
    findings = care.verify(directory or config.spool_dir, open_keyring(config))
    problems = findings.problems + (care.verify_structure(directory) if directory else [])
    text = [f"{name} {number}" for name, number in findings.counts.items()] + (problems or ["nothing is wrong"])
    out.record({"ok": not problems, "counts": findings.counts, "problems": problems}, "\n".join(text))
    if problems:
        raise Stop(f"{len(problems)} things are wrong")


@spool.command()
@click.argument("destination", type=_DIRECTORY)
@json_option
@as_owner
def backup(config: Config, destination: Path, as_json: bool) -> None:
    """Copy the spool as it is at this moment to DESTINATION, a directory to be made; the relay goes on.

    The keys are not in it, and without them nobody can read it: keep the key files elsewhere.
    """
    care.backup(config.spool_dir, destination)
    size = (destination / DATA_FILE).stat().st_size
    text = f"{size} octets in {printable(str(destination))}; its key is {config.spool_key_file}"
    Printer(as_json=as_json).record({"directory": str(destination), "octets": size}, text)


@spool.command()
@json_option
@as_owner
def compact(config: Config, as_json: bool) -> None:
    """Give free pages back to the file system; the relay must be stopped."""
    if not (config.spool_dir / DATA_FILE).exists():
        raise Stop(f"spool {config.spool_dir}: there is none")
    try:
        before, after = care.compact(config.spool_dir)
    except Unavailable as error:
        raise Stop(str(error), Exit.BUSY) from None
    record = {"octets_before": before, "octets_after": after}
    Printer(as_json=as_json).record(record, f"{before} octets before, {after} after")
