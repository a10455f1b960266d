"""The command line: `fairlead [-c FILE] COMMAND`. Each group of commands is a module of mta.cli, loaded when called.

This is where errors become one line on standard error and an exit code (mta/exits.py); never a traceback,
except for what nobody foresaw.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import cast

import click

from mta.exits import Exit

# name -> what `fairlead --help` says of it, without importing it
_COMMANDS = {
    "serve": "Run the relay: all roles, or one.",
    "lab": "Run the relay in a laboratory on loopback.",
    "config": "Check the configuration.",
    "tenants": "Create, change and list tenants.",
    "keys": "Create, list, rotate and revoke API keys.",
    "credentials": "Create, list and revoke SMTP credentials.",
    "domains": "Add and list sender domains.",
    "dkim": "Create, replace and check DKIM keys.",
    "tls": "Show how TLS sessions with other hosts go.",
    "doctor": "Examine a domain: SPF, DKIM, DMARC, MX, TLS and what is wrong with them.",
    "sources": "List, park and unpark the addresses that mail leaves from.",
    "queue": "List, show and change what waits.",
    "explain": "Say what holds a message now.",
    "events": "Read the log of events.",
    "audit": "Tell who did what to accounts and to the queue.",
    "views": "Show how far the views of the log are, and build them anew.",
    "spool": "Verify, back up and compact the spool.",
    "sendmail": "Hand a message to the relay, as /usr/sbin/sendmail does.",
}


class _Commands(click.Group):
    """Commands by name, imported when they are called: `fairlead --help` and sendmail stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name == "sendmail":
            return _Sendmail("sendmail")
        return cast("click.Command", getattr(importlib.import_module(f"mta.cli.{cmd_name}"), cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


class _Sendmail(click.Command):
    """Arguments of sendmail(8), which are not click's to read."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = args
        return []

    def invoke(self, ctx: click.Context) -> int:
        sendmail = importlib.import_module("mta.cli.sendmail")
        return cast("int", sendmail.main(ctx.args, ctx.find_root().params["config_file"]))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-c", "--config", "config_file", metavar="FILE", help="The configuration, instead of $FAIRLEAD_CONFIG or the usual."
)
@click.version_option(package_name="fairlead", message="%(prog)s %(version)s")
def fairlead(config_file: str | None) -> None:
    """Fairlead: an SMTP relay and MTA with an HTTP API.

    Commands work whether the relay is up or down. As root they first become the owner of the state directory.
    """
    del config_file  # for the commands, which find it in the context


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    try:
        code = fairlead.main(args=arguments, prog_name="fairlead", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _failed(Exit.USAGE, f"{error.format_message()}{where}")
    except click.ClickException as error:
        return _failed(getattr(error, "code", Exit.FAILED), error.format_message())
    except Exception as error:  # noqa: BLE001 - the boundary of every command; what nobody foresaw is raised again
        code, lines = importlib.import_module("mta.cli.problems").explain(error)
        return _failed(code, *lines)
    return code if isinstance(code, int) else Exit.OK


def _failed(code: int, *lines: str) -> int:
    for line in lines:
        click.echo(f"fairlead: {' '.join(line.split())}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
