"""Uploads with a backup whose process freezes in the middle of its rows, wakes up when another one has finished them, and goes on."""

import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from dask_cluster import Cluster
from workspace import many

import tcb_ops as tcb
from tcb_ops.engine.limits import RunLimits
from tcb_ops.features.cluster.task import LEASE
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.model import Merchant

MERCHANTS = [Merchant(f"wx{n}", f"商户 {n}", f"env-{n}-1a2b3c") for n in range(2)]
ROWS = 20
LIMITS = RunLimits(concurrency=16, per_env=16, backoff=0.01, slow_wait=0.05, patience=20)
LOCKED_FOR = 6.0
UPLOAD = f"""
import sys
from pathlib import Path
import tcb_ops as tcb
from tcb_ops.errors import LedgerError
from tcb_ops.engine import engine
from tcb_ops.engine.limits import RunLimits

engine.LOCK_CHECK_EVERY = engine.LOCK_CHECK_WITHIN = {LOCKED_FOR / 2}
folder, ledger, target = Path(sys.argv[1]), *sys.argv[2:]
options = {{
    "api_base": target,
    "ledger": ledger,
    "merchants": folder / "merchants.csv",
    "tokens": {{"source": "file", "file": folder / "tokens.csv"}},
}}
settings = tcb.load_settings(options=options)
batch = tcb.read_paths(folder / "list.csv", tcb.read_merchants(folder / "merchants.csv"), folder / "files")
limits = RunLimits(concurrency=16, per_env=16, backoff=0.01, slow_wait=0.05, patience=20)
try:
    tcb.upload(batch, settings=settings, limits=limits, backup=folder / "backup")
except LedgerError as error:
    sys.exit(error.text.en)
"""
"""The program of another process. Its lock is checked more often than usual, so that it may be frozen for a shorter time."""


def workspace_of(open_workspace, tmp_path, chance):
    """A workspace with a file at every path; calls of one kind take so long that a freeze meets many of them."""
    slow = Fault(step=chance.choice((FaultStep.DOWNLOAD, FaultStep.STORE)), delay=chance.uniform(0.5, 2.0))
    rows = many(*MERCHANTS, rows=ROWS)
    workspace = open_workspace(rows, [slow], merchants=MERCHANTS, store=tmp_path / "store")
    for env, path in rows:
        workspace.sim.put(env, path, f"before {env} {path}".encode())
    return workspace


def stored(workspace):
    return {(env, path): workspace.sim.content(env, path) for env, path in many(*MERCHANTS, rows=ROWS)}


def wait_until_some_are_under_way(workspace, wait_for, chance):
    calls = chance.randint(4, LIMITS.concurrency)  # of the first rows: nothing is being committed yet

    def some_are_under_way():
        stats = workspace.sim.stats
        return stats["download"] >= calls or stats["store_calls"] >= calls

    wait_for(some_are_under_way)


def assert_all_restored(workspace, settings, run, before):
    undone = tcb.undo(run.id, settings=settings, limits=LIMITS)
    after = stored(workspace)
    lost = [place for place in before if after[place] != before[place]]
    assert (len(lost), dict(undone.counts)) == (0, {"restored": len(before)})


@pytest.mark.soak
@pytest.mark.parametrize("where", ["sqlite", "postgres"])
@pytest.mark.parametrize("seed", range(20))
def test_a_frozen_worker_spoils_no_original(
    seed, where, request, open_workspace, assert_complete, wait_for, tmp_path
):
    chance = random.Random(seed)
    workspace = workspace_of(open_workspace, tmp_path, chance)
    before = stored(workspace)
    ledger = str(tmp_path / "ledger.db")
    if where == "postgres":
        ledger = request.getfixturevalue("postgres").url(request.getfixturevalue("database"))
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, stack)
        settings = workspace.with_options(ledger=ledger)
        worker = cluster.start_worker()
        cluster.wait_for_workers(1)
        running = workspace.start_upload(
            cluster=cluster.address, settings=settings, limits=LIMITS, backup=tmp_path / "backup"
        )
        wait_until_some_are_under_way(workspace, wait_for, chance)
        worker.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        workspace.sim.play([])
        cluster.start_worker()
        run = running.wait()
        assert assert_complete(run, len(before)) == {"uploaded": len(before)}
        assert time.monotonic() - frozen_at > LEASE
        worker.send_signal(signal.SIGCONT)
        # What it does now, it does at once; that it does nothing is what is expected.
        time.sleep(1.5)
        assert_all_restored(workspace, settings, run, before)


@pytest.mark.kill
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 20))])
def test_a_frozen_process_on_postgresql_spoils_no_original(
    seed, postgres, database, open_workspace, assert_complete, wait_for, tmp_path
):
    chance = random.Random(seed)
    workspace = workspace_of(open_workspace, tmp_path, chance)
    before = stored(workspace)
    settings = workspace.with_options(ledger=postgres.url(database))
    argv = [sys.executable, "-c", UPLOAD, str(tmp_path), settings.ledger, workspace.sim.base]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        wait_until_some_are_under_way(workspace, wait_for, chance)
        process.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        workspace.sim.play([])
        # As the server does with a machine that has fallen silent.
        [(holder,)] = postgres.run(
            "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND granted AND datname = current_database()",
            database,
        )
        postgres.run(f"SELECT pg_terminate_backend({holder})")
        run = workspace.upload(settings=settings, limits=LIMITS, backup=tmp_path / "backup")
        assert assert_complete(run, len(before)) == {"uploaded": len(before)}
        wait_for(lambda: time.monotonic() - frozen_at > LOCKED_FOR)
        process.send_signal(signal.SIGCONT)
        _out, err = process.communicate(timeout=240)
        assert (process.returncode, "Traceback" in err) == (1, False), err
    finally:
        process.kill()
        process.communicate()
    assert_all_restored(workspace, settings, run, before)
