"""`fairlead serve`: the relay, all roles or one."""

import asyncio
import logging

import click

from mta import logs
from mta.cli.session import as_owner, config_file
from mta.clock import SystemClock
from mta.config import Config
from mta.notify import Notifier
from mta.supervise import ROLES, Supervisor, enter_role, role_children

log = logging.getLogger(__name__)


@click.command()
@click.option("--role", type=click.Choice(ROLES), help="Run this role alone, as systemd does.")
@click.option("--instance", type=click.IntRange(min=0), default=0, help="Tells this process from others of its role.")
@as_owner
def serve(config: Config, role: str | None, instance: int) -> int:
    """Run the relay: every role as a process of its own, or one role.

    SIGTERM drains for up to 30 seconds, a second one hastens; SIGHUP reloads the configuration.
    """
    if role is not None:
        # PERF: the parent of all roles, without whom none of them starts, has no use for what they import
        from mta.process import run_role  # noqa: PLC0415

        enter_role(role)
        return run_role(role, instance, config, config_file())
    enter_role("serve")
    logs.configure(config.log, "serve")
    log.info("starting state_dir=%s", config.state_dir)
    return asyncio.run(Supervisor(role_children(config_file(), config.roles), SystemClock(), Notifier()).run())
