"""Exit codes of every command: the contract with shells, cron, systemd and the parent of `serve`."""

from enum import IntEnum


class Exit(IntEnum):
    """What a process says when it ends."""

    OK = 0
    FAILED = 1
    USAGE = 2  # the command line, the configuration, or a resource it names (a port in use): trying again is no cure
    BUSY = 75  # EX_TEMPFAIL of sysexits: another process holds what is needed, try later
