"""Simulated time: an event loop in which nothing waits. When nobody can go on, the clock jumps to who wakes next.

It does what asyncio's own does, and no more: no files, no threads, no debugging. An exception that nobody handles ends
the simulation.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, TypeVar

EPOCH = 1_800_000_000.0
_AT_ONCE = 200_000  # turns of the loop in one instant, beyond which somebody is running in a circle
_FEW = 1000  # calls that are foreseen, up to which those that were cancelled may stay among them

Result = TypeVar("Result")


class _Call(asyncio.TimerHandle):
    """What is to be called in a turn of the loop, or at some time."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> None:
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop with a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0
        self._turns = 0  # in this instant
        self._ready: deque[_Call] = deque()
        self._foreseen: list[tuple[float, int, _Call]] = []
        self._number = count()
        self._sweep_at = _FEW
        self._unheard: BaseException | None = None  # what a task has raised that nobody asks for

    def time(self) -> float:
        return self.at

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> _Call:
        call = _Call(callback, args, context)
        self._ready.append(call)
        return call

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Call:
        return self.call_at(self.at + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Call:
        call = _Call(callback, args, context)
        if when <= self.at:
            self._ready.append(call)
            return call
        if len(self._foreseen) >= self._sweep_at:
            self._foreseen = [each for each in self._foreseen if not each[2]._cancelled]
            heapify(self._foreseen)
            self._sweep_at = max(_FEW, 2 * len(self._foreseen))
        heappush(self._foreseen, (when, next(self._number), call))
        return call

    def create_task(
        self, coro: Coroutine[Any, Any, Result], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Result]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        process = _process.get()
        if process is not None:
            process.tasks[task] = None
            task.add_done_callback(process.forget)
        return task

    def _run_once(self) -> None:
        """Take one turn: call whoever can go on, after a jump of the clock if nobody can."""
        if self._unheard is not None:
            unheard, self._unheard = self._unheard, None
            raise unheard
        ready = self._ready
        if not ready:
            self._jump()
        self._turns += 1
        if self._turns > _AT_ONCE:
            self._turns = 0  # for the turns in which all are ended
            raise RuntimeError("time stands still: somebody is running in a circle")
        for _ in range(len(ready)):
            call = ready.popleft()
            if not call._cancelled:
                call._context.run(call._callback, *call._args)

    def _jump(self) -> None:
        foreseen = self._foreseen
        while foreseen and foreseen[0][2]._cancelled:
            heappop(foreseen)
        if not foreseen:
            raise RuntimeError("nothing will ever happen again")
        self.at, self._turns = foreseen[0][0], 0
        while foreseen and foreseen[0][0] == self.at:
            self._ready.append(heappop(foreseen)[2])

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise it in the next turn: this is called where an exception goes nowhere."""
        self._unheard = self._unheard or context.get("exception")

    def _write_to_self(self) -> None:
        """Whoever calls from a signal or a thread need not wake it: it never sleeps."""


def resolve(future: asyncio.Future[bool], value: bool) -> None:
    """Tell who awaits it, unless it was told already."""
    if not future.done():
        future.set_result(value)


class VirtualClock:
    """The clock of the virtual loop that runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return EPOCH + self._loop.at

    def monotonic(self) -> float:
        return self._loop.at

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if event.is_set():
            return True
        found = self._loop.create_future()
        timer = self._loop.call_later(seconds, resolve, found, False)
        event._waiters.append(found)  # without asyncio.timeout, which costs as much as all else that a turn does
        try:
            return await found
        finally:
            event._waiters.remove(found)
            timer.cancel()


_process: ContextVar["Process | None"] = ContextVar("process", default=None)


class Process:
    """What runs in a simulated process: some coroutines and all tasks that they begin. It can be killed."""

    def __init__(self, *running: Coroutine[Any, Any, None]) -> None:
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they began
        inside = _process.set(self)
        try:
            self._running = [asyncio.create_task(each) for each in running]
        finally:
            _process.reset(inside)

    def forget(self, task: asyncio.Task[Any]) -> None:
        """Hear that a task is over."""
        del self.tasks[task]

    async def kill(self) -> None:
        """End it wherever it is: nothing that it has not asked for yet happens any more."""
        while self.tasks:
            for task in self.tasks:
                task.cancel()
            await asyncio.wait(self.tasks)


def simulate(what: Coroutine[Any, Any, Result]) -> Result:
    """Run something in simulated time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(what)
