"""Simulated time: an event loop in which nothing waits. When nobody can go on, the clock jumps to who wakes next."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, TypeVar

EPOCH = 1_800_000_000.0
_AT_ONCE = 2_000_000  # turns of the loop in one instant, beyond which somebody is running in a circle

Result = TypeVar("Result")


class _Selector(selectors.SelectSelector):
    """Waits for no file: what the loop would wait, its clock jumps."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own."""

    def __init__(self) -> None:
        self._at = 0.0
        self._turns = 0
        super().__init__(_Selector(self._jump))

    def time(self) -> float:
        self._turns += 1
        if self._turns > _AT_ONCE:
            raise RuntimeError("time stands still: somebody is running in a circle")
        return self._at

    def _jump(self, seconds: float | None) -> None:
        if seconds is None:
            raise RuntimeError("nothing will ever happen again")
        self._at += seconds
        self._turns = 0


class VirtualClock:
    """The clock of the running virtual loop."""

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True


_process: ContextVar["Process | None"] = ContextVar("process", default=None)


class Process:
    """What runs in a simulated process: some coroutines and all tasks that they begin. It can be killed."""

    def __init__(self, *running: Coroutine[Any, Any, None]) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        inside = _process.set(self)
        try:
            self._running = [asyncio.create_task(each) for each in running]
        finally:
            _process.reset(inside)

    async def kill(self) -> None:
        """End it wherever it is: nothing that it has not asked for yet happens any more."""
        while self.tasks:
            for task in self.tasks:
                task.cancel()
            await asyncio.wait(self.tasks)


def _create_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **options: Any
) -> asyncio.Task[Any]:
    task = asyncio.Task(coro, loop=loop, **options)
    process = _process.get()
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task


def simulate(what: Coroutine[Any, Any, Result]) -> Result:
    """Run something in simulated time."""
    loop = VirtualLoop()
    loop.set_task_factory(_create_task)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(what)
