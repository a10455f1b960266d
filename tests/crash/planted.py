"""`python -m tests.crash.planted SABOTAGE ARGUMENTS...`: the product's command line, broken in one way.

The parent of `serve` is made to start its roles by the same door, so that every process is broken alike.
"""

import sys
from pathlib import Path
from unittest import mock

from mta import __main__
from mta.cli import serve
from mta.config import Roles
from mta.supervise import Child, role_children
from tests.crash.sabotage import Sabotage, planted


def main(arguments: list[str]) -> int:
    """Run a command of the product under sabotage."""
    sabotage = Sabotage(arguments[0])

    def broken_children(config_file: Path | None, roles: Roles) -> list[Child]:
        door = ("tests.crash.planted", sabotage.value)
        return [
            Child(each.name, tuple(part for word in each.command for part in (door if word == "mta" else (word,))))
            for each in role_children(config_file, roles)
        ]

    with planted(sabotage), mock.patch.object(serve, "role_children", broken_children):
        return __main__.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
