"""What went wrong, in words: exceptions of the layers below as lines for the user and an exit code."""

from mta.accounts.tenants import AccountError
from mta.config import ConfigError
from mta.exits import Exit
from mta.spool.interface import SpoolError
from mta.spool.sealing import KeyFileError


def explain(error: Exception) -> tuple[Exit, list[str]]:
    """Say what an exception means to the user; raise it again if nobody foresaw it."""
    if isinstance(error, ConfigError):
        return Exit.USAGE, error.problems
    if isinstance(error, KeyFileError | PermissionError):
        return Exit.USAGE, [_words(error)]
    if isinstance(error, AccountError | SpoolError | OSError):
        return Exit.FAILED, [_words(error)]
    raise error


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
