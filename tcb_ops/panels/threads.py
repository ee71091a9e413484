"""The threads in which panels do their work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

_idle_threads: deque[SimpleQueue[Callable[[], None]]] = deque()


def in_thread(job: Callable[[], None]) -> threading.Event:
    """Do a job in a daemon thread; return what is set at its end.

    A thread is used again: the memory that the allocator keeps for each new one would add up over a day's runs.
    """
    ended = threading.Event()
    try:
        jobs = _idle_threads.pop()
    except IndexError:
        jobs = SimpleQueue()
        threading.Thread(target=_serve, args=(jobs,), name="tcb-ops-panel", daemon=True).start()

    def do() -> None:
        job()
        _idle_threads.append(jobs)
        ended.set()

    jobs.put(do)
    return ended


def _serve(jobs: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        jobs.get()()
