"""The one private event loop, in a daemon thread: calls block, inside a running loop (a notebook) as well as outside.

A notebook's callbacks may run on one thread and loop one time and on another the next; here they only hand a job over.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from tcb_ops.resources import raise_if_exhausted

Result = TypeVar("Result")

ROOM = 16
"""Files that a loop and its first connections need; without room for its own, uvloop ends the process (SIGABRT)."""
LET_END = 8.0
"""Seconds for what is cancelled at the end of the process: longer than a token source takes to close."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_under_way: set[Future[Any]] = set()


def hand_over(work: Coroutine[None, None, Result]) -> Future[Result]:
    """Start a coroutine on the private loop."""
    try:
        loop = _running()
    except BaseException:  # Ctrl-C while the loop is made: nobody would await the work
        work.close()
        raise
    handed = asyncio.run_coroutine_threadsafe(work, loop)
    _under_way.add(handed)
    handed.add_done_callback(_under_way.discard)
    return handed


def wind_up() -> None:
    """Before the process ends early: cancel what is under way and let it end, so that a refresh on its way is stored.

    Blocks, for little more than LET_END at most.
    """
    if _loop is None:
        return
    for handed in tuple(_under_way):
        handed.cancel()

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=LET_END)

    with suppress(TimeoutError):  # a loop that is stuck ends with the process
        asyncio.run_coroutine_threadsafe(end(), _loop).result(LET_END + 1)


def _running() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603  one loop a process, made when it is first needed
    with _lock:
        if _loop is None:
            loop = _new()
            threading.Thread(target=loop.run_forever, name="tcb-ops", daemon=True).start()
            _loop = loop  # only now: one that Ctrl-C kept from running would hold up every later call
        return _loop


def _new() -> asyncio.AbstractEventLoop:
    _check_room()
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def _check_room() -> None:
    """Raise ResourceLimitError where this process cannot open as many files as a loop needs."""
    opened: list[int] = []
    try:
        for _ in range(ROOM):
            opened.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401  what was opened is closed below
    except OSError as error:
        raise_if_exhausted(error)
        raise
    finally:
        for one in opened:
            os.close(one)
