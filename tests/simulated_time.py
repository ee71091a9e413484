"""An event loop in which time passes only when everybody waits, and threads that work at its moments.

Nothing here sleeps: a run of an hour is played in milliseconds, and the same seed plays the same run again.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Executor, Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

MOST_TURNS = 30_000
"""Turns of the loop after which a run counts as endless."""


class KilledError(BaseException):
    """The process is killed here: nothing of it runs any more."""


class StuckError(Exception):
    """The run waits for something that never comes, or does not end."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop with a virtual clock, which is killed at one of its turns."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self.turns = 0
        self.killed_at: int | None = None
        """The turn at which the process is killed."""
        self.files = SimulatedThread(self, lambda: 0.0)

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass until the next timer. asyncio calls this once a turn."""
        self.turns += 1
        if self.killed_at is not None and self.turns >= self.killed_at:
            raise KilledError
        if timeout is None:
            raise StuckError("nobody will wake the run")
        if self.turns > MOST_TURNS:
            raise StuckError("the run does not end")
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0].when())
        return []

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Run a function in a simulated thread."""
        return asyncio.wrap_future((executor or self.files).submit(func, *args), loop=self)

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine; whoever waits for its result drives the loop."""
        return _Driven(self, self.create_task(work))

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

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

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """Queue a piece of work."""
        done: Future[Any] = Future()
        self._free_at = max(self._free_at, self._loop.time()) + self._seconds()
        self._loop.call_at(self._free_at, self._do, done, lambda: fn(*args, **options))
        return done

    def _do(self, done: Future[Any], work: Callable[[], Any]) -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(work())
        except KilledError:
            self._loop.killed_at = 0
        except Exception as error:  # noqa: BLE001  it belongs to whoever waits
            done.set_exception(error)
