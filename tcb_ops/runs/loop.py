"""The one private event loop, in a daemon thread: calls block, inside a running loop (a notebook) as well as outside.

A notebook's callbacks may run on one thread and loop one time and on another the next; here they only hand a job over.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

__all__ = ["hand_over"]

Result = TypeVar("Result")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def hand_over(work: Coroutine[None, None, Result]) -> Future[Result]:
    """Start a coroutine on the private loop."""
    try:
        loop = _running()
    except BaseException:  # Ctrl-C while the loop is made: nobody would await the work
        work.close()
        raise
    return asyncio.run_coroutine_threadsafe(work, loop)


def _running() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603  one loop a process, made when it is first needed
    with _lock:
        if _loop is None:
            loop = _new()
            threading.Thread(target=loop.run_forever, name="tcb-ops", daemon=True).start()
            _loop = loop  # only now: one that Ctrl-C kept from running would hold up every later call
        return _loop


def _new() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
