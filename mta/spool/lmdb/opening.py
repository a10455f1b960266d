"""Opening the spool that a configuration names, with its keys."""

from mta.clock import Clock
from mta.companion import household
from mta.config import Config
from mta.spool.interface import Unavailable
from mta.spool.lmdb.moving import DATA_FILE
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import KeyFileError, Keyring, load_keyring, load_or_create_keyring


def open_keyring(config: Config) -> Keyring:
    """Read the spool's keys, making them with a new spool; Unavailable when that fails.

    A spool whose key file is gone is not given a new key: what it holds would be lost quietly.
    """
    path = config.spool_key_file
    try:
        if (config.spool_dir / DATA_FILE).exists():
            if not path.exists():
                raise Unavailable(f"spool key {path}: missing, but there is a spool that it seals: restore the key")
            return load_keyring(path)
        return load_or_create_keyring(path)
    except KeyFileError as error:
        raise Unavailable(f"spool key {error}") from None
    except OSError as error:
        raise Unavailable(f"spool key {path}: {error.strerror}") from None


def open_spool(config: Config, clock: Clock, keyring: Keyring | None = None, role: str = "") -> LmdbSpool:
    """Open or create the spool; Unavailable with the reason when that fails. At most one a process.

    The process of a role gives its name, and has a process beside it that makes the changes.
    """
    return LmdbSpool(
        config.spool_dir,
        keyring or open_keyring(config),
        clock,
        map_size=config.spool.map_size,
        reserve=config.spool.reserve,
        apart=household(config, role) if role else None,
    )
