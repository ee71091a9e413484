"""Attribute the CPU of a run of links to what uses it, by thread.

    python benchmarks/attribute.py [--rows 20000] [--delay 0]

A sampler looks at every thread 200 times a second and gives the CPU time that the thread has used since to the
innermost frame of a known module. It tells where the time goes, not how fast it is: run.py measures that.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import clients
import run

if TYPE_CHECKING:
    from types import FrameType

PARTS = (
    ("list", ("tcb_ops/lists/",)),
    ("plan, refill, commit: the ledger", ("tcb_ops/ledger/ledger", "tcb_ops/ledger/reader", "tcb_ops/ledger/records", "tcb_ops/ledger/database")),
    ("links.csv", ("tcb_ops/engine/links_file",)),
    ("answers: JSON, checks, Link", ("tcb_ops/wechat/responses", "tcb_ops/wechat/tokens", "/json/")),
    ("layers around the call: client, transport, httpx", ("tcb_ops/wechat/", "/httpx/")),
    ("HTTP call: aiohttp", ("/aiohttp/", "/multidict/", "/yarl/")),
    ("engine: scheduler, calls, outcomes, writer", ("tcb_ops/engine/engine", "tcb_ops/engine/calls", "tcb_ops/engine/scheduler", "tcb_ops/engine/outcome", "tcb_ops/engine/progress", "tcb_ops/engine/writer", "tcb_ops/engine/limits")),
    ("event loop: uvloop, asyncio", ("/asyncio/", "tcb_ops/engine/loop", "uvloop", "/concurrent/", "/threading.py")),
)  # fmt: skip
"""What the innermost frame's file says of a sample; the first that fits counts."""


def part_of(frame: FrameType | None) -> str:
    while frame is not None:
        file = frame.f_code.co_filename
        for part, places in PARTS:
            if any(place in file for place in places):
                return part
        frame = frame.f_back
    return "other"


class Sampler(threading.Thread):
    """Samples all other threads until stopped."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.seconds: Counter[tuple[str, str]] = Counter()
        """CPU-seconds by (thread, part)."""
        self.clocks: dict[int, float] = {}
        self._stop_event = threading.Event()

    def run(self) -> None:
        while not self._stop_event.wait(0.005):
            frames = sys._current_frames()  # noqa: SLF001  the only way to see other threads
            for thread in threading.enumerate():
                if thread is self or thread.ident is None or thread.ident not in frames:
                    continue
                try:
                    used = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
                except OSError:  # it has ended
                    continue
                spent = used - self.clocks.get(thread.ident, 0.0)
                self.clocks[thread.ident] = used
                self.seconds[thread.name, part_of(frames[thread.ident])] += spent

    def stop(self) -> None:
        self._stop_event.set()
        self.join()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Attribute the CPU of a run of links to what uses it, by thread."
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--delay", type=float, default=0, help="milliseconds that the server takes to answer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcb-ops-profile-") as name, run.lean_server(given.delay) as base:
        folder = Path(name)
        run.prepare(folder, replace(run.NOTHING, links=given.rows))
        work = clients.tcb_whole("links")
        before = time.process_time()
        sampler = Sampler()
        # With Python's 5 ms, the event loop would be seen only where it gives up the interpreter by itself: while it waits.
        sys.setswitchinterval(1e-5)
        # What the imports took does not count.
        sampler.clocks[threading.main_thread().ident or 0] = time.thread_time()
        sampler.start()
        rows = work((base, folder, folder / "links.csv"))
        sampler.stop()
        whole = time.process_time() - before
    print(
        f"{rows:,} links, {whole / rows * 1e6:.0f} µs of CPU per row with the sampler; load {os.getloadavg()[0]:.1f}"
    )
    threads = sorted({thread for thread, _ in sampler.seconds})
    for part, _ in (*PARTS, ("other", ())):
        by_thread = {thread: sampler.seconds[thread, part] / rows * 1e6 for thread in threads}
        if sum(by_thread.values()) >= 0.05:
            shown = ", ".join(f"{thread} {used:.1f}" for thread, used in by_thread.items() if used >= 0.05)
            print(f"{sum(by_thread.values()):7.1f} µs  {part}  ({shown})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
