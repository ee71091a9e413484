"""What a session takes from its surroundings: clock, chance, threads, connections and an event loop.

The default is the real world. A test can give a session another one, in which time passes as it wants.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.wechat.transport import Transport


@dataclass(frozen=True, slots=True)
class Runtime:
    """The surroundings of a session. The monotonic clock is the event loop's own."""

    now: Callable[[], float] = time.time
    """Unix seconds."""
    chance: Callable[[], float] = random.random
    """A number from 0 up to 1, for the jitter of waits."""
    executor: Callable[[str], Executor] = lambda name: ThreadPoolExecutor(1, f"tcb-ops-{name}")
    """Returns a thread for the blocking work of this name, in order."""
    transport: Callable[[int], AbstractAsyncContextManager[Transport]] = lambda most: Transport(
        connections=most
    )
    """Opens so many connections."""
    submit: Callable[[Coroutine[Any, Any, Any]], Future[Any]] = submit_coroutine
    """Starts a coroutine on the event loop of sessions."""
