"""What every command needs: the configuration, the right user, the spool, the clock, a place to print.

Commands work on the spool itself, with the relay up or down: several processes share it.
"""

import asyncio
import functools
import logging
import os
import pwd
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from mta.accounts.audit import AuditLog, Underway, Who
from mta.cli.output import Printer
from mta.clock import Clock, SystemClock
from mta.config import Config, find, load
from mta.exits import Exit
from mta.spool.interface import Unavailable
from mta.spool.lmdb.opening import open_keyring, open_spool
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring

log = logging.getLogger(__name__)
type_command = ParamSpec("type_command")
type_made = TypeVar("type_made")


class Stop(click.ClickException):
    """The command ends here: one line for the user, and the exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Session:
    """One command's hold on the relay's state."""

    config: Config
    spool: LmdbSpool
    keyring: Keyring
    clock: Clock
    out: Printer
    audit: AuditLog

    def doing(
        self, action: str, tenant: str = "", on: str = "", **details: object
    ) -> AbstractAsyncContextManager[Underway]:
        """Have what is done in the block on record, with what came of it."""
        who = Who(person(), address="command line")
        return self.audit.doing(who, action, self.clock.now(), tenant=tenant, on=on, **details)


def config_file() -> Path | None:
    """Name the configuration file of this command line; None when there is none, and the defaults hold."""
    return find(click.get_current_context().find_root().params["config_file"])


def configuration() -> Config:
    """Read the configuration that the command line or the environment names, else the usual one, else the defaults."""
    path = config_file()
    return load(path) if path else Config()


@functools.cache
def person() -> str:
    """Name who is at this command line, for root whom sudo says: as first asked, which is before root is let go of."""
    uid = os.getuid()
    try:
        return (os.environ.get("SUDO_USER") if uid == 0 else None) or pwd.getpwuid(uid).pw_name
    except KeyError:  # a number without a name, as in containers
        return f"user {uid}"


def become_owner(state_dir: Path) -> None:
    """Let go of root for the owner of the state directory, made first (root's own) where it is missing.

    So that nothing in it is ever root's by accident, and a command can do no more than the daemon.
    """
    if os.geteuid() != 0:
        return
    if not state_dir.exists():
        log.debug("state_dir=%s created=yes owner=root", state_dir)
        state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    owner = state_dir.stat()
    if owner.st_uid == 0:
        return
    try:
        user = pwd.getpwuid(owner.st_uid)
    except KeyError:  # a number without a name, as in containers
        os.setgroups([owner.st_gid])
        os.setgid(owner.st_gid)
    else:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
    os.setuid(owner.st_uid)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: an object, or for a list one object a line (NDJSON)."
)


def as_owner(command: Callable[Concatenate[Config, type_command], type_made]) -> Callable[type_command, type_made]:
    """Make a function that takes a Config a click command, run as the owner of the state directory."""

    @functools.wraps(command)
    def run(*args: type_command.args, **kwargs: type_command.kwargs) -> type_made:
        config = configuration()
        person()
        become_owner(config.state_dir)
        return command(config, *args, **kwargs)

    return run


def with_spool(
    command: Callable[Concatenate[Session, type_command], Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Make a coroutine that takes a Session a click command with `--json`."""

    @json_option
    @functools.wraps(command)
    @as_owner
    def run(config: Config, as_json: bool, *args: Any, **kwargs: Any) -> None:
        asyncio.run(_run(config, Printer(as_json=as_json), lambda session: command(session, *args, **kwargs)))

    return run


async def _run(config: Config, out: Printer, command: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
    clock = SystemClock()
    try:
        keyring = open_keyring(config)
        spool = open_spool(config, clock, keyring)
    except Unavailable as error:  # not writable, no key, another version: trying again is no cure
        raise Stop(str(error), Exit.USAGE) from None
    try:
        await command(Session(config, spool, keyring, clock, out, AuditLog(spool)))
    finally:
        await spool.close()
