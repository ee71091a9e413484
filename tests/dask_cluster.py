"""A scheduler and workers of Dask for the tests."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from tcb_ops.ledger.ledger import Ledger
    from tcb_ops.ledger.records import RunRecord

DASK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "6s"}


class Cluster:
    """A scheduler and workers in processes of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        stack.callback(_collect)
        self._port = free_port()
        self.address = f"tcp://127.0.0.1:{self._port}"
        stack.enter_context(pytest.MonkeyPatch.context()).setenv(
            "TCB_OPS_UNENCRYPTED_SCHEDULERS", self.address
        )
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start_scheduler()

    def _start(
        self, program: str, *words: str, first: str = "", variables: Mapping[str, str] = {}
    ) -> subprocess.Popen[bytes]:
        out = self._stack.enter_context((self._folder / f"{program}.log").open("ab"))
        script = f"{first}\nfrom distributed.cli.dask_{program} import main\nmain()"
        argv = [sys.executable, "-c", script, *words, "--no-dashboard"]
        env = os.environ | DASK | variables
        process = subprocess.Popen(argv, stdout=out, stderr=out, cwd=self._folder, env=env)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(self._port))
        end = time.monotonic() + 240
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return self.scheduler
            assert time.monotonic() < end
            time.sleep(0.1)

    def start_worker(self, first: str = "", **variables: str) -> subprocess.Popen[bytes]:
        """Start a worker with these variables, in whose process `first` is run before Dask."""
        options = ("--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--death-timeout", "30")
        here = ("--local-directory", str(self._folder / "dask"), "--host", "127.0.0.1")
        words = (self.address, *options, *here)
        self.workers.append(self._start("worker", *words, first=first, variables=variables))
        return self.workers[-1]

    def wait_for_workers(self, number: int) -> None:
        from distributed import Client

        with Client(self.address, set_as_default=False, timeout=240) as client:
            client.wait_for_workers(number, timeout=240)


class TimedCalls(list[Any]):
    """The simulator's journal, with the time of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[float] = []

    def append(self, call: Any) -> None:
        super().append(call)
        self.at.append(time.monotonic())


def _collect() -> None:
    """Collect the sockets that Dask leaves open when its scheduler dies: Python warns of each, in whichever test is next."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def claims(ledger: Ledger, run: RunRecord) -> list[list[str]]:
    """Who has claimed each partition of a run, in order, with RELEASED after one that ended its work."""
    query = "SELECT workers FROM partitions WHERE run = ? ORDER BY session, number"
    records = ledger.fetch(query, (run.number,))
    return [json.loads(workers or "[]") for (workers,) in records]
