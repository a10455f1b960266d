"""`--once SECONDS`: for whom the same message over SMTP is sent but once; of keys and credentials alike."""

import click

from mta.accounts.particulars import LONGEST_ONCE

ONCE = click.option(
    "--once",
    type=click.FloatRange(0, LONGEST_ONCE),
    default=0.0,
    metavar="SECONDS",
    help="Send the same message that comes again over SMTP within so many seconds but once (0, the default: off).",
)
