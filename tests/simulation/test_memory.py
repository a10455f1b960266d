"""The simulation's spool keeps the promises that every spool makes."""

import pytest

from mta.spool.interface import Spool
from tests.contract.spool_contract import NOW, OpenSpool, SpoolContract
from tests.contract.terms_contract import TermsContract
from tests.simulation.memory import MemorySpool, Stored


class TestMemoryContract(SpoolContract, TermsContract):
    """What outlives a process is what others have open."""

    @pytest.fixture
    def open_spool(self) -> OpenSpool:
        stored = Stored()

        async def opened() -> Spool:
            return MemorySpool(stored, lambda: NOW)

        return opened
