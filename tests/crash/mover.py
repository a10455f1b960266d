"""A process that moves a spool into a new file, over and over: `python -m tests.crash.mover SPOOL KEYFILE`.

It says `moved` when it has. With a third argument it dies at that step instead: `staged`, `marked` or `entering`;
or, which is for the control, is `silent`: marks nothing.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path
from unittest import mock

import lmdb

from mta.spool.interface import SpoolError
from mta.spool.lmdb import environment, following, moving
from mta.spool.lmdb.commit import opened
from mta.spool.lmdb.environment import Place
from mta.spool.lmdb.following import Followed
from mta.spool.sealing import load_keyring

_PAUSE = 0.01


def _die(*_: object) -> None:
    os._exit(9)


def _dying(step: str) -> None:
    if step == "staged":
        mock.patch.object(following, "stage", lambda *given: (moving.stage(*given), _die())).start()
    elif step == "marked":
        mock.patch.object(following, "enter", _die).start()
    elif step == "entering":
        mock.patch.object(Path, "replace", _die).start()
    elif step == "silent":
        mock.patch.object(following, "MOVED", environment.FORMAT_VERSION).start()


def main(arguments: list[str]) -> int:
    """Move until killed."""
    spool_dir, key_file, *step = arguments
    _dying(*step or [""])
    following._COPIED, following._GIVEN_BACK = 1 << 40, -(1 << 40)
    keyring = load_keyring(Path(key_file))
    try:
        followed = Followed(partial(opened, Place(spool_dir, environment.PAGE << 18, 0), keyring))
        while True:
            if followed.move():
                os.write(1, b"moved\n")
            time.sleep(_PAUSE)
    except (OSError, lmdb.Error, SpoolError) as error:  # its disk has gone
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
