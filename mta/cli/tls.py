"""`fairlead tls`: how sessions with other hosts are protected. Each command is a module of its own."""

import click

from mta.cli.tls_memory import forget, list_, status
from mta.cli.tls_report import report


@click.group()
def tls() -> None:
    """Show how TLS sessions with other hosts go."""


for each in (report, list_, forget, status):
    tls.add_command(each)
