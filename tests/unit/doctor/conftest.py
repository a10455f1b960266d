import os

import pytest

from mta.clock import SystemClock
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring


@pytest.fixture
async def spool(tmp_path):
    spool = LmdbSpool(
        tmp_path / "spool", Keyring([os.urandom(32)]), SystemClock(), map_size=1 << 26, reserve=0, sync=False
    )
    yield spool
    await spool.close()
