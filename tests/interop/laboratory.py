"""The laboratory on a thread of its own, for tests whose clients block: smtplib, sendgrid, swaks."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mta.clock import SystemClock
from mta.lab.laboratory import Laboratory
from mta.lab.mailbox import Captured

type_result = TypeVar("type_result")
_WAITING = 30.0  # seconds


class LaboratoryThread:
    """A laboratory that runs on its own event loop; its zone may be changed from anywhere before it is asked."""

    def __init__(self, lab: Laboratory, loop: asyncio.AbstractEventLoop) -> None:
        self.lab = lab
        self._loop = loop

    def wait_for(self, wanted: Callable[[Captured], bool]) -> Captured:
        """Wait for the one message of a kind; AssertionError if there are several."""
        found = self.run(self.lab.wait_for(wanted, timeout=_WAITING))
        assert len(found) == 1, [each.envelope for each in found]
        return found[0]

    def holding(self, token: str) -> Captured:
        """Wait for the one message whose content holds `token`."""
        return self.wait_for(lambda captured: token.encode() in captured.content)

    def run(self, work: Coroutine[object, object, type_result]) -> type_result:
        """Run a coroutine in the laboratory."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAITING + 5)


@contextmanager
def laboratory(directory: Path) -> Iterator[LaboratoryThread]:
    """Run a laboratory."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="laboratory")
    thread.start()
    lab = LaboratoryThread(Laboratory(directory, SystemClock()), loop)
    try:
        lab.run(lab.lab.start())
        yield lab
        lab.run(lab.lab.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
