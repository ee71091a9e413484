"""Seeded rounds of three workers on a shared ledger, with kills, freezes and lost connections, by `make soak`."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from dask_cluster import Cluster, TimedCalls
from postgres import Postgres
from workspace import AssertComplete, Workspace, many

import tcb_ops as tcb
from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import LedgerError, StoppedError, UsageError
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.model import Merchant
from tcb_ops.settings import Settings

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*ServerCursor:pytest.PytestUnraisableExceptionWarning"
)
"""psycopg leaves a cursor open if the server dies while it is read, and warns of it."""

MERCHANTS = [Merchant(f"wx{n}", f"商户 {n}", f"env-{n}-1a2b3c") for n in range(9)]
ROWS = 30
LIMITS = RunLimits(concurrency=4, per_env=4, rate=4.0, backoff=0.01, slow_wait=0.05, patience=10)
"""With `per_env` calls, one environment uses a worker's concurrency: each merchant is a partition."""


@pytest.fixture
def cluster(tmp_path):
    with ExitStack() as stack:
        found = Cluster(tmp_path, stack)
        for _ in range(3):
            found.start_worker()
        found.wait_for_workers(3)
        yield found


@pytest.fixture
def workspace(open_workspace):
    opened = open_workspace(many(*MERCHANTS, rows=ROWS), [Fault(delay=0.02)], merchants=MERCHANTS)
    opened.sim.calls = TimedCalls()
    return opened


def assert_rate_held(workspace: Workspace) -> None:
    """Calls arrive later than they are sent, and bunched by up to two seconds on a busy machine; twice the rate is found."""
    calls = workspace.sim.calls
    by_env = defaultdict(list)
    for call, at in zip(calls, calls.at, strict=True):
        if call.step is FaultStep.LINK:
            by_env[call.env].append(at)
    rate = LIMITS.rate or 0
    for times in by_env.values():
        for n, at in enumerate(times):
            assert sum(1 for other in times[n:] if other < at + 3) <= (3 + 2) * rate + 2


def assert_each_once(
    workspace: Workspace, assert_complete: AssertComplete, run: tcb.Run, faults: int
) -> None:
    rows = len(MERCHANTS) * ROWS
    assert assert_complete(run, rows) == {"uploaded": rows}
    stored = Counter(bucket for bucket, _key in workspace.sim.objects)
    assert set(stored.values()) == {ROWS}
    assert rows <= workspace.sim.stats["stored"] <= rows + faults * 2 * LIMITS.concurrency


@contextmanager
def started_by_another_process(
    workspace: Workspace, cluster: Cluster, ledger: str
) -> Iterator[subprocess.Popen[bytes]]:
    folder = workspace.folder
    options = {
        "--root": folder / "files",
        "--target": workspace.sim.base,
        "--merchants": folder / "merchants.csv",
        "--tokens": folder / "tokens.csv",
        "--ledger": ledger,
        "--cluster": cluster.address,
        "--concurrency": LIMITS.concurrency,
        "--per-env": LIMITS.per_env,
        "--rate": LIMITS.rate,
    }
    words = [str(word) for option in options.items() for word in option]
    argv = [sys.executable, "-m", "tcb_ops", "upload", str(workspace.list), *words]
    with (folder / "starting.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.soak
@pytest.mark.parametrize("ledger", ["postgres", "sqlite"])
def test_without_a_cluster_a_run_waits_for_the_workers_of_a_killed_starting_process(
    ledger, workspace, assert_complete, wait_for, cluster, postgres, database
):
    where = postgres.url(database) if ledger == "postgres" else str(workspace.folder / "ledger.db")
    settings = workspace.with_options(ledger=where)
    rows = len(MERCHANTS) * ROWS
    with started_by_another_process(workspace, cluster, where) as starting:
        wait_for(lambda: workspace.sim.stats["stored"] >= 30)
        starting.kill()
        starting.wait()
        running = workspace.start_upload(settings=settings, limits=LIMITS)
    assert running.resumed
    assert assert_complete(running.wait(), rows) == {"uploaded": rows}
    assert workspace.sim.stats["stored"] == rows, "what was in flight was recorded"
    assert_rate_held(workspace)


@pytest.mark.integration
def test_a_cluster_without_workers_stops_the_run_after_its_patience(workspace, tmp_path):
    with ExitStack() as stack:
        address = Cluster(tmp_path, stack).address
        with pytest.raises(StoppedError, match="has no worker; unfinished rows stay pending"):
            workspace.upload(
                cluster=address,
                settings=workspace.with_options(unencrypted_schedulers=[address]),
                limits=replace(LIMITS, patience=1),
            )
    assert workspace.sim.stats["link_calls"] == 0


class Faults:
    """Two faults at random moments of a run."""

    def __init__(self, seed: int, cluster: Cluster, postgres: Postgres) -> None:
        self.chance = random.Random(seed)
        self.plan = [
            self.chance.choice((self.kill, self.freeze, self.scheduler, self.database)) for _ in "12"
        ]
        self.frozen: list[subprocess.Popen[bytes]] = []
        self._cluster, self._postgres = cluster, postgres

    def kill(self) -> None:
        self._cluster.workers.pop(self.chance.randrange(len(self._cluster.workers))).kill()
        self._cluster.start_worker()

    def freeze(self) -> None:
        victim = self.chance.choice(self._cluster.workers)
        victim.send_signal(signal.SIGSTOP)
        self.frozen.append(victim)

    def scheduler(self) -> None:
        self._cluster.scheduler.kill()
        self._cluster.scheduler.wait()
        self._cluster.start_scheduler()

    def database(self) -> None:
        """Restart the server without a checkpoint, as after a crash."""
        self._postgres.stop()
        self._postgres.start()

    def thaw(self) -> None:
        for one in self.frozen:
            one.send_signal(signal.SIGCONT)
        self.frozen.clear()


def play(workspace: Workspace, cluster: Cluster, settings: Settings, faults: Faults) -> tuple[tcb.Run, int]:
    """Upload until every row is done, by the same call again and again; return the run and the number of sessions."""
    for session in range(1, 9):
        try:
            running = workspace.start_upload(cluster=cluster.address, settings=settings, limits=LIMITS)
        except (UsageError, LedgerError):  # the scheduler or the lock is not back yet
            time.sleep(1)
            continue
        while faults.plan and not running.ended_within(faults.chance.uniform(1.0, 4.0)):
            faults.plan.pop()()
        if not running.ended_within(20):
            faults.thaw()
        try:
            return running.wait(), session
        except StoppedError:
            faults.thaw()
            for worker in [one for one in cluster.workers if one.poll() is not None]:  # lost their scheduler
                cluster.workers.remove(worker)
                cluster.start_worker()
    pytest.fail("the run did not end")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100))
def test_no_row_is_lost_or_counted_twice_whatever_fails(
    seed, workspace, assert_complete, cluster, postgres, database
):
    settings = workspace.with_options(ledger=postgres.url(database))
    run, sessions = play(workspace, cluster, settings, Faults(seed, cluster, postgres))
    assert_each_once(workspace, assert_complete, run, 3 * sessions + 2)
    assert_rate_held(workspace)
