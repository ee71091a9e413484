"""The package's private event loop in a daemon thread: calls can block even inside a running loop (a notebook).

A notebook's callbacks may run on different threads and loops each time; they only pass their work to this one. In a process
that has it, the garbage collector runs less often.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from tcb_ops.errors import UsageError
from tcb_ops.i18n import _
from tcb_ops.system_errors import raise_if_exhausted

Result = TypeVar("Result")

ROOM = 16
"""File descriptors that a loop and its first connections need; without its own, uvloop aborts the process (SIGABRT)."""
FILES_READ = 16
"""Files that are read and hashed at the same time; more would hold more memory, and gain nothing measurable."""
LET_END = 8.0
"""Seconds that cancelled work has to end when the process ends: longer than a token source takes to close."""
WAIT_STEP = 0.2 if os.name == "nt" else None
"""Seconds after which a wait for a lock begins again: on Windows, Ctrl-C cannot interrupt it (python/cpython#74157)."""
COLLECT = (10_000, 20, 50)
"""Thresholds of the garbage collector, at least: with Python's own, an eighth of the CPU of a link goes into
looking for cycles among objects that calls in flight hold."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = 0
"""The process that made the loop."""
_under_way: set[Future[Any]] = set()


def submit_coroutine(work: Coroutine[None, None, Result]) -> Future[Result]:
    """Start a coroutine on the private loop; return its future."""
    try:
        loop = own_loop()
    except BaseException:  # such as Ctrl-C: the coroutine would never be awaited
        work.close()
        raise
    handed = asyncio.run_coroutine_threadsafe(work, loop)
    _under_way.add(handed)
    handed.add_done_callback(_under_way.discard)
    return handed


def result_of(future: Future[Result]) -> Result:
    """Wait for a future's result; Ctrl-C interrupts it on Windows too."""
    while True:
        try:
            return future.result(WAIT_STEP)
        except TimeoutError:
            if future.done():  # the work's own error
                raise


def cancel_all() -> None:
    """Cancel all work and wait for its end before the process ends early, so that a token being refreshed is stored.

    Blocks for at most LET_END + 1 seconds.
    """
    if _loop is None:
        return
    for handed in tuple(_under_way):
        handed.cancel()

    async def end() -> None:
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=LET_END)

    with suppress(TimeoutError):  # a loop that is stuck ends with the process
        asyncio.run_coroutine_threadsafe(end(), _loop).result(LET_END + 1)


def own_loop() -> asyncio.AbstractEventLoop:
    """Return the private loop, made when it is first needed. Raises UsageError in a process forked from one that has it."""
    global _loop, _pid  # noqa: PLW0603  one loop a process
    if _loop is not None and _pid != os.getpid():  # its thread stayed in the other process
        raise UsageError(
            _(
                "This process was forked from one that has already sent something with tcb-ops: start it by spawn, as with "
                'multiprocessing.get_context("spawn").'
            )
        )
    with _lock:
        if _loop is None:
            _check_room()
            if sys.platform == "win32":
                loop = asyncio.new_event_loop()
            else:
                import uvloop

                loop = uvloop.new_event_loop()
            loop.set_default_executor(ThreadPoolExecutor(FILES_READ, thread_name_prefix="tcb-ops-file"))
            if gc.get_threshold()[0]:  # 0: it was turned off
                gc.set_threshold(*map(max, gc.get_threshold(), COLLECT))
            threading.Thread(target=loop.run_forever, name="tcb-ops", daemon=True).start()
            _pid = os.getpid()
            _loop = loop  # last: a loop that Ctrl-C kept from starting would block every later call
        return _loop


def _check_room() -> None:
    """Raise ResourceLimitError if this process cannot open as many files as a loop needs."""
    opened: list[int] = []
    try:
        for _number in range(ROOM):
            opened.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401  what was opened is closed below
    except OSError as error:
        raise_if_exhausted(error)
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)
