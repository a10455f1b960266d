"""`fairlead serve`: the relay, all roles or one."""

import asyncio
import logging

import click

from mta.cli.session import become_owner, configuration
from mta.config import find

_ROLES = ("ingress", "http", "delivery", "events")


@click.command()
@click.option("--role", type=click.Choice(_ROLES), help="Run this role alone, as systemd does.")
@click.option(
    "--instance", type=click.IntRange(min=0), default=0, help="The number of this process among those of its role."
)
def serve(role: str | None, instance: int) -> int:
    """Run the relay: every role as a process of its own, or one role.

    SIGTERM drains for up to 30 seconds, a second one hastens; SIGHUP reloads the configuration.
    """
    config = configuration()
    become_owner(config.state_dir)
    config_file = find(click.get_current_context().find_root().params["config_file"])
    if role is not None:
        from mta.process import run_role
        from mta.supervise import enter_role

        enter_role(role)
        return run_role(role, instance, config, config_file)
    from mta import logs
    from mta.clock import SystemClock
    from mta.notify import Notifier
    from mta.supervise import Supervisor, role_children

    logs.configure(config.log, "serve")
    logging.getLogger(__name__).info("starting state_dir=%s", config.state_dir)
    supervisor = Supervisor(role_children(config_file, config.roles), SystemClock(), Notifier())
    return asyncio.run(supervisor.run())
