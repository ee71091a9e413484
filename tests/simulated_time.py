"""An event loop in which time passes only when everybody waits, and threads that work at its moments.

Nothing here sleeps: a run of an hour is played in milliseconds, and the same seed plays the same run again.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Executor, Future
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

MOST_TURNS = 100_000
"""Turns of the loop after which a run counts as endless. Two outages that are probed twenty times a second take 40,000."""


class KilledError(BaseException):
    """The process is killed here: nothing of it runs any more."""


class StuckError(Exception):
    """The run waits for something that never comes, or does not end."""


class _Handle:
    """A callback that is to be called. In place of asyncio's, which takes a third of the time of a simulated run."""

    __slots__ = ("args", "call", "cancelled", "context", "when")

    def __init__(
        self, call: Callable[..., object], args: tuple[Any, ...], context: Context | None, when: float = 0.0
    ) -> None:
        self.call, self.args, self.when = call, args, when
        self.context = context or copy_context()
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call it."""
        self.cancelled = True


class Clock:
    """Virtual time, which loops may share."""

    now = 0.0


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop with a virtual clock, which is killed at one of its turns."""

    get_debug = staticmethod(bool)  # False, and quicker than a method: each future asks for it

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock = clock or Clock()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timer_count = 0
        self.turns = 0
        self.killed_at: int | None = None
        """The turn at which the process is killed."""
        self.files = SimulatedThread(self, lambda: 0.0)

    def time(self) -> float:
        """Return the virtual seconds since the clock began."""
        return self.clock.now

    def _run_once(self) -> None:
        """Run what is ready until the loop is stopped; if nothing is, let time pass until the next timer."""
        while not self._stopping:
            if (due := self.due()) is None:
                raise StuckError("nobody will wake the run")
            self.clock.now = max(self.clock.now, due)
            self.turn()

    def due(self) -> float | None:
        """Return when there is something to run; None for never, unless another loop wakes this one."""
        if self._ready:
            return self.clock.now
        timers = self._timers
        while timers and timers[0][2].cancelled:
            heappop(timers)
        return timers[0][0] if timers else None

    def turn(self) -> None:
        """Run what is due now. Raises KilledError, or StuckError after too many turns."""
        ready, timers, now = self._ready, self._timers, self.clock.now
        self.turns += 1
        if self.killed_at is not None and self.turns >= self.killed_at:
            raise KilledError
        if self.turns > MOST_TURNS:
            raise StuckError("the run does not end")
        while timers and timers[0][0] <= now:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled:
                handle.context.run(handle.call, *handle.args)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        """Call a function at a moment; those of one moment in the order in which they were given."""
        timer = _Handle(callback, args, context, when)
        self._timer_count += 1
        heappush(self._timers, (when, self._timer_count, timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        """Call a function after `delay` seconds."""
        return self.call_at(self.clock.now + delay, callback, *args, context=context)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        """Call a function in the next turn."""
        handle = _Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Run a function in a simulated thread."""
        return (executor or self.files).start(func, *args)

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine; whoever waits for its result drives the loop."""
        return _Driven(self, self.create_task(work))

    def _write_to_self(self) -> None:
        """Wake nobody: there is one thread."""


class _Driven(Future[Any]):
    def __init__(self, loop: SimulatedLoop, task: asyncio.Task[Any]) -> None:
        super().__init__()
        self._loop, self._task = loop, task

    def result(self, timeout: float | None = None) -> Any:
        assert timeout is None
        try:
            return self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            raise CancelledError from None

    def cancel(self) -> bool:
        return self._task.cancel()


class SimulatedThread(Executor):
    """A thread that does its work in order, each piece at a moment of virtual time."""

    def __init__(self, loop: SimulatedLoop, seconds: Callable[[], float]) -> None:
        self._loop, self._seconds = loop, seconds
        self._free_at = 0.0

    def start(self, work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Queue a piece of work."""
        done = self._loop.create_future()
        self._free_at = max(self._free_at, self._loop.time()) + self._seconds()
        self._loop.call_at(self._free_at, self._do, done, work, args)
        return done

    def _do(self, done: asyncio.Future[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if done.cancelled():
            return
        try:
            done.set_result(work(*args))
        except KilledError:
            self._loop.killed_at = 0
        except Exception as error:  # noqa: BLE001  it belongs to whoever waits
            done.set_exception(error)
