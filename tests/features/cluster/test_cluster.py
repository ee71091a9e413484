"""A run on a cluster: several workers, one ledger; each row once, whoever is killed, frozen or fenced."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from dask_cluster import TimedCalls, claims
from ledgers import new_run, planned
from tables import table
from workspace import cancel, many

import tcb_ops as tcb
from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import ArgumentError, LedgerError, UsageError
from tcb_ops.features.cluster.coordinator import (
    Coordinator,
    CoordinatorLedger,
    divide,
    only_here,
    partition_count,
    without_password,
)
from tcb_ops.features.cluster.task import (
    HAND_OVER,
    RELEASED,
    SILENT_AFTER,
    FencedError,
    PartitionLedger,
    ask_to_stop,
    fence_workers,
)
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.ledger import ledger
from tcb_ops.ledger.locks import host_name
from tcb_ops.ledger.records import Closing, EnvRecord, Usage
from tcb_ops.model import Merchant, Outcome, RowEnd

pytestmark = pytest.mark.integration

MERCHANTS = [Merchant(f"wx{n}", f"商户 {n}", f"env-{n}-1a2b3c") for n in range(6)]
LIMITS = RunLimits(concurrency=8, per_env=4, backoff=0.01, slow_wait=0.05, patience=10)


# --- the ledger --------------------------------------------------------------------------------------------------


def env(number: int, appid: str, name: str, pending: int, owner: str = "merchant") -> EnvRecord:
    return EnvRecord(number, name, appid, appid, owner, left=False, rows=pending, pending=pending)


@table(
    "environments, most, groups",
    {
        "balanced": ([("a", "1", 9), ("b", "2", 5), ("c", "3", 4)], 2, [[0], [1, 2]]),
        "an appid": ([("a", "1", 9), ("a", "2", 5), ("c", "3", 4)], 2, [[0, 1], [2]]),
        "an environment": ([("a", "1", 9), ("b", "1", 5), ("c", "3", 4)], 2, [[0, 1], [2]]),
        "done": ([("a", "1", 0), ("b", "2", 5)], 2, [[1]]),
        "few merchants": ([("a", "1", 9), ("b", "2", 5)], 20, [[0], [1]]),
        "nothing": ([], 2, []),
    },
)
def test_what_shares_a_limit_is_in_one_partition(environments, most, groups):
    found = divide([env(n, *one) for n, one in enumerate(environments)], most)
    assert [[one.number for one in group] for group in found] == groups


def test_all_of_the_component_is_in_one_partition():
    found = divide([env(n, f"wx{n}", f"env-{n}", 5, "platform") for n in range(3)], 9, "wxcomponent")
    assert len(found) == 1


RUN = new_run().id


@pytest.fixture
def run(ledger):
    return planned(ledger)


@pytest.fixture
def coordinator(run, place):
    with closing(CoordinatorLedger(place)) as ledger:
        assert ledger.begin(run) == 1
        ledger.add_partitions(run, 1, [[one] for one in ledger.environments(run)], 0)
        yield ledger


def worker(place: str, name: str = "ops-1/1", session: int = 1) -> PartitionLedger:
    return PartitionLedger(place, RUN, session, 0, name)


def end(line: int) -> RowEnd:
    return RowEnd(line, Outcome.UPLOADED, attempts=2, bytes=1, ended_at=2.0)


@pytest.mark.parametrize(
    ("environments", "workers", "per_env", "concurrency", "result"),
    [
        (400, 2, 8, 64, 16),
        (80, 2, 8, 64, 10),
        (40, 2, 8, 64, 4),
        (40, 2, 64, 64, 16),
        (10, 2, 8, 64, 4),
        (0, 1, 1, 4, 2),
    ],
)
def test_how_many_partitions_use_the_concurrency_of_each_worker(
    environments, workers, per_env, concurrency, result
):
    assert partition_count(environments, workers, per_env=per_env, concurrency=concurrency) == result


def test_a_commit_of_a_fenced_worker_is_refused(run, coordinator, place):
    with closing(worker(place)) as first, closing(worker(place, "ops-2/2")) as second:
        assert first.claim() is False
        mine = first.partition_run()
        first.record(mine, [end(2)], Usage())
        assert second.claim() is True
        for write in (
            lambda: first.record(mine, [end(4)], Usage()),
            lambda: first.close_environments(mine, [Closing(first.environments(mine)[0], end(0))]),
            first.renew,
        ):
            with pytest.raises(FencedError):
                write()
        second.record(mine, [end(6), end(8)], Usage())
    assert coordinator.counts(run) == {Outcome.UPLOADED: 3, Outcome.PENDING: 7}
    assert claims(coordinator, run)[0] == ["ops-1/1", "ops-2/2"]


def test_a_worker_that_ended_its_work_was_not_lost_and_is_not_waited_for(run, coordinator, place):
    with closing(worker(place)) as first, closing(worker(place, "ops-2/2")) as second:
        first.claim()
        first.record(first.partition_run(), [end(2)], Usage())
        first.release()
        assert second.claim() is False
        first.release()  # too late: it has been fenced
    assert claims(coordinator, run)[0] == ["ops-1/1", RELEASED, "ops-2/2"]


def test_a_worker_frozen_in_a_commit_blocks_nobody_for_long(run, coordinator, place, monkeypatch):
    if "://" not in place:
        pytest.skip("the nanny of a local worker kills it, which frees the file")
    monkeypatch.setattr(ledger, "IDLE_SECONDS", 1)
    with closing(worker(place)) as frozen, closing(worker(place, "ops-2/2")) as next_one:
        frozen.claim()
        with suppress(LedgerError), frozen.writing():  # the transaction stays open, as in a frozen process
            assert next_one.claim() is True
    assert claims(coordinator, run)[0] == ["ops-1/1", "ops-2/2"]


def test_a_new_session_fences_the_workers_of_the_earlier_one(run, coordinator, place):
    with closing(worker(place)) as old, closing(worker(place, "ops-1/3")) as late:
        old.claim()
        old.renew()
        ask_to_stop(coordinator, run)
        coordinator.beat(run, 1)  # of its starting process, which lives and has lost the lock
        old.renew()
        assert old.stopping
        assert late.claim() is None
        old.record(old.partition_run(), [end(2)], Usage())  # what was in flight
        fence_workers(coordinator, run)
        assert coordinator.begin(run) == 2
        with pytest.raises(FencedError):
            old.record(old.partition_run(), [end(4)], Usage())
        assert late.claim() is None
    assert coordinator.counts(run) == {Outcome.PENDING: 9, Outcome.UPLOADED: 1}
    assert coordinator.begin(run) == 3


def test_a_claim_that_waited_while_the_run_was_being_stopped_is_refused(
    run, coordinator, place, postgres, wait_for
):
    if "://" not in place:
        pytest.skip("SQLite's transactions wait before they read")
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with closing(worker(place)) as late, ThreadPoolExecutor(1) as thread:
        with coordinator.writing() as connection:  # as stop_workers writes
            connection.execute("UPDATE partitions SET fence = fence")
            claimed = thread.submit(late.claim)
            wait_for(lambda: bool(postgres.run(waiting)))
            connection.execute("UPDATE cluster_sessions SET stopping = TRUE")
        assert claimed.result() is None
    assert claims(coordinator, run)[0] == []


def test_workers_stop_without_their_starting_process(run, coordinator, place, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tcb_ops.features.cluster.task.time", SimpleNamespace(monotonic=lambda: now[0]))
    with closing(worker(place)) as orphan:
        orphan.claim()
        orphan.renew()
        now[0] += SILENT_AFTER + 1
        coordinator.beat(run, 1)
        orphan.renew()
        assert not orphan.stopping
        now[0] += SILENT_AFTER + 1
        orphan.renew()
        assert orphan.stopping


# --- runs --------------------------------------------------------------------------------------------------------


def test_two_workers_do_every_row_once(open_workspace, assert_complete, place):
    workspace = open_workspace(many(*MERCHANTS, rows=20), merchants=MERCHANTS)
    settings = workspace.with_options(ledger=place)
    run = workspace.upload(cluster="local:2", settings=settings, limits=LIMITS)
    assert assert_complete(run, 120) == {"uploaded": 120}
    assert workspace.sim.stats["stored"] == 120
    assert run.record.link_calls == run.record.upload_calls == 120
    assert len(workers_of(run)) == 2


def workers_of(run: tcb.RunHandle | tcb.Run) -> list[int]:
    """The processes that have claimed a partition."""
    run = run.so_far() if isinstance(run, tcb.RunHandle) else run
    with closing(CoordinatorLedger(run.settings.ledger)) as ledger:
        claimed = {name for workers in claims(ledger, run.record) for name in workers}
    return [int(name.rpartition("/")[2]) for name in claimed]


STRANGER = """
import asyncio, os, sys, urllib.request
from http.client import HTTPException
from distributed.core import rpc
from distributed.security import Security

keys = Security.temporary()
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)  # nobody


async def answers(address, security):
    node = rpc(address, connection_args=security.get_connection_args("client"), timeout=2)
    try:
        await asyncio.wait_for(node.identity(), 5)
    except Exception:
        return False
    return True


PAGES = ("", "health", "status", "metrics", "json/identity.json", "info/main/workers.html", "info/logs.html")


def served():
    found = 0
    for port in sys.argv[1:]:
        for page in PAGES:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5).read()
            except (OSError, HTTPException):  # no page, or TLS
                continue
            found += 1
    return found


async def main():
    tries = [(scheme, port) for port in sys.argv[1:] for scheme in ("tcp", "tls")]
    tries = (tries * 20)[: max(20, len(tries))]
    reached = await asyncio.gather(
        *(answers(f"{scheme}://127.0.0.1:{port}", keys if scheme == "tls" else Security()) for scheme, port in tries)
    )
    print(sum(reached) + served(), len(tries))

asyncio.run(main())
"""
"""Calls every port, unencrypted, with keys of its own and by HTTP, as another user where that is possible; counts the answers."""


@pytest.mark.slow
def test_a_stranger_reaches_no_part_of_a_local_cluster(open_workspace, wait_for):
    workspace = open_workspace(many(*MERCHANTS, rows=20), [Fault(delay=5.0)], merchants=MERCHANTS)
    running = workspace.start_upload(cluster="local:2", limits=LIMITS)
    wait_for(lambda: len(workers_of(running)) == 2)
    own = psutil.Process()
    workers = own.children(recursive=True)
    ports = {
        str(socket.laddr.port)
        for process in (own, *workers)
        for socket in process.net_connections("tcp")
        if socket.status == psutil.CONN_LISTEN
    }
    folders = {
        Path(file.path.partition("/dask-scratch-space")[0])
        for process in (own, *workers)
        for file in process.open_files()
        if "/dask-scratch-space" in file.path
    }
    modes = {folder.stat().st_mode & 0o777 for folder in folders}
    asked = subprocess.run(
        [sys.executable, "-c", STRANGER, *ports], capture_output=True, text=True, check=False, cwd="/"
    )
    cancel(running)
    assert asked.returncode == 0, asked.stderr
    reached, tries = map(int, asked.stdout.split())
    assert (reached, tries >= 20) == (0, True)
    assert len(ports) >= 5, "of the scheduler, two workers and what starts them"
    assert modes == {0o700}, "all of them import from there"


def places_of(run: tcb.Run, lost: str) -> set[str]:
    """The environments that another worker took over from one that was lost."""
    with closing(CoordinatorLedger(run.settings.ledger)) as ledger:
        name_of = {environment.number: environment.env for environment in ledger.environments(run.record)}
        found = ledger.fetch("SELECT workers, envs FROM partitions")
        lost_ones = [json.loads(envs) for workers, envs in found if lost in json.loads(workers or "[]")[:-1]]
    return {name_of[number] for numbers in lost_ones for number in numbers}


@pytest.mark.kill
@pytest.mark.parametrize(
    "place", [pytest.param("sqlite", marks=pytest.mark.soak), "postgresql"], indirect=True
)
def test_the_merchants_of_a_killed_worker_continue_on_another(
    open_workspace, assert_complete, wait_for, place
):
    workspace = open_workspace(many(*MERCHANTS, rows=40), [Fault(delay=1.0)], merchants=MERCHANTS)
    workspace.sim.calls = calls = TimedCalls()
    settings = workspace.with_options(ledger=place)
    running = workspace.start_upload(cluster="local:2", settings=settings, limits=LIMITS)
    wait_for(lambda: workspace.sim.stats["stored"] >= 20 and len(workers_of(running)) == 2)
    killed = workers_of(running)[0]
    name = f"{host_name()}/{killed}"
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    workspace.sim.play([])  # slow until then: one worker must not be done before the other has started
    with closing(CoordinatorLedger(place)) as ledger:
        wait_for(lambda: any(name in workers[:-1] for workers in claims(ledger, running.record)))
    assert time.monotonic() - began < 60
    run = running.wait()
    assert assert_complete(run, 240) == {"uploaded": 240}
    taken_over = places_of(run, name)
    after = [
        at - began for call, at in zip(calls, calls.at, strict=True) if call.env in taken_over and at > began
    ]
    assert after
    assert not [at for at in after if 1 < at < HAND_OVER], "a worker that is only frozen may still be calling"
    assert workspace.sim.stats["stored"] <= 240 + 2 * LIMITS.concurrency


@pytest.mark.kill
@pytest.mark.parametrize(
    "place", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)], indirect=True
)
def test_a_cancelled_run_stops_its_workers_and_is_resumed(open_workspace, assert_complete, wait_for, place):
    # Calls so slow that the run would last for 15 seconds.
    workspace = open_workspace(many(*MERCHANTS, rows=40), [Fault(delay=0.5)], merchants=MERCHANTS)
    settings = workspace.with_options(ledger=place)
    running = workspace.start_upload(cluster="local:2", settings=settings, limits=LIMITS)
    wait_for(lambda: workspace.sim.stats["stored"] >= 20)
    running.cancel()
    with pytest.raises(tcb.InterruptedRunError) as caught:
        running.wait()
    assert "cluster='local:2'" in str(caught.value)
    counts = assert_complete(tcb.open_run(running.id, settings=settings), 240)
    assert 0 < counts["pending"] < 240
    assert workspace.sim.stats["stored"] == counts["uploaded"], "what was in flight was recorded"
    workspace.sim.play([])
    again = workspace.start_upload(settings=settings, limits=LIMITS)
    assert (again.id, again.resumed) == (running.id, True)
    assert assert_complete(again.wait(), 240) == {"uploaded": 240}
    assert workspace.sim.stats["stored"] == 240


def test_a_run_is_resumed_when_workers_of_an_earlier_session_can_write_no_more(open_workspace, wait_for):
    workspace = open_workspace(many(*MERCHANTS, rows=5), [Fault(delay=100)], merchants=MERCHANTS)
    settings = workspace.settings

    first = workspace.start_upload(settings=settings, limits=LIMITS)
    wait_for(lambda: workspace.sim.stats["link_calls"] > 0)
    cancel(first)
    with closing(CoordinatorLedger(settings.ledger)) as ledger:
        session = ledger.begin(first.record)
        ledger.add_partitions(first.record, session, [ledger.environments(first.record)], 0)
        with closing(PartitionLedger(settings.ledger, first.id, session, 0, "ops-1/1")) as worker:
            worker.claim()
            before = time.monotonic()
            cancel(workspace.start_upload(settings=settings, limits=LIMITS))
            assert time.monotonic() - before > HAND_OVER
            with pytest.raises(FencedError):
                worker.record(worker.partition_run(), [end(2)], Usage())


WITHOUT = """
import sys
import tcb_ops as tcb
settings = tcb.load_settings(sys.argv[1])
tcb.upload(tcb.read_paths("list.csv", "merchants.csv", "files"), settings=settings)
assert not {"dask", "distributed", "tcb_ops.features.cluster.coordinator"} & sys.modules.keys()
"""


@pytest.mark.slow
def test_a_run_without_a_cluster_loads_nothing_of_it(open_workspace):
    workspace = open_workspace(many(*MERCHANTS, rows=1), merchants=MERCHANTS)
    settings = workspace.folder / "tcb-ops.toml"
    settings.write_text(f'target = "{workspace.sim.base}"\n[tokens]\nsource = "file"\n', encoding="utf-8")
    ended = subprocess.run([sys.executable, "-c", WITHOUT, settings], cwd=workspace.folder, check=False)
    assert ended.returncode == 0


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", ["local:0", "local:", "http://127.0.0.1:8786", "tls://scheduler"])
def test_what_is_no_cluster_is_refused(open_workspace, cluster):
    workspace = open_workspace(many(*MERCHANTS, rows=1), merchants=MERCHANTS)
    shown = re.escape(f"cluster cannot be {cluster!r}. It must be local:N")
    with pytest.raises(ArgumentError, match=shown):
        workspace.upload(cluster=cluster)
    assert not workspace.sim.stats.get("link_calls")


@table(
    "cluster, accepted, why",
    {
        "not there": ("tcp://127.0.0.1:9", ["tcp://127.0.0.1:9"], "cannot be reached"),
        "not encrypted, on this machine": (
            "tcp://127.0.0.1:9",
            ["tcp://127.0.0.1:8"],
            r'TLS.+unencrypted_schedulers = \["tcp://127.0.0.1:9"\]',
        ),
        "not encrypted, elsewhere": ("tcp://192.0.2.1:8786", [], "TLS"),
    },
)
def test_a_scheduler_that_is_not_there_or_not_encrypted_is_refused(
    open_workspace, monkeypatch, cluster, accepted, why
):
    monkeypatch.setattr("tcb_ops.features.cluster.coordinator.CONNECT_WITHIN", 0.5)
    workspace = open_workspace(many(*MERCHANTS, rows=1), merchants=MERCHANTS)
    settings = workspace.with_options(unencrypted_schedulers=accepted)
    with pytest.raises(UsageError, match=why) as caught:
        workspace.upload(cluster=cluster, settings=settings)
    assert caught.value.exit_code == 2
    assert tcb.runs(settings=settings) == []


@table(
    "options, why",
    {
        "SQLite": ({}, "An SQLite ledger cannot be shared"),
        "component": (
            {"ledger": "postgresql+psycopg://x@db/t", "tokens": {"source": "component"}},
            "stay on one machine.+token server of your own",
        ),
        "simulator": ({"ledger": "postgresql+psycopg://x@db/t"}, "cannot reach a target on this machine"),
    },
)
def test_what_remote_workers_cannot_use_is_refused(open_workspace, options, why):
    workspace = open_workspace(many(*MERCHANTS, rows=1), merchants=MERCHANTS)
    refusal = only_here(workspace.with_options(**options), "tls://ops-1:8786")
    assert re.search(why, str(refusal))


def test_the_password_of_a_ledger_stays_out_of_tasks():
    url = "postgresql+psycopg://li:planted-secret@db:5432/tcb?sslmode=require&password=planted-secret"
    assert without_password(url) == "postgresql+psycopg://li@db:5432/tcb?sslmode=require"
    assert without_password("/srv/tcb-ops.db") == "/srv/tcb-ops.db"


def test_a_task_and_a_repr_have_nothing_of_the_settings_file_that_is_secret(tmp_path):
    url = "postgresql+psycopg://li:planted-secret@db:5432/tcb"
    unused = 'url = "https://planted-secret/{appid}"\ncommand = ["planted-secret"]'
    receiver = '[[notify]]\nkind = "command"\ncommand = ["planted-secret"]'
    text = f'ledger = "{url}"\n[tokens]\n{unused}\n{receiver}\n'
    (tmp_path / "tcb-ops.toml").write_text(text, encoding="utf-8")
    settings = tcb.load_settings(tmp_path / "tcb-ops.toml")
    context: Any = SimpleNamespace(
        settings=settings, limits=LIMITS, run=SimpleNamespace(id=RUN), root=tmp_path, skip_unchanged=False
    )
    client: Any = SimpleNamespace(scheduler=None)
    coordinator = Coordinator(client, context, lambda _progress: None)
    coordinator._session = 1
    assignment = coordinator._assignment(0)
    assert assignment.ledger == "postgresql+psycopg://li@db:5432/tcb"
    assert b"planted-secret" not in pickle.dumps(assignment)
    assert "planted-secret" not in repr((settings, settings.origin, assignment, assignment.settings.origin))
