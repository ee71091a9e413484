"""The time in which a process may act: it is confirmed again and again, and where it has passed, nothing begins or happens."""

import asyncio
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
from source_server import Sources
from workspace import TEA, Workspace, cancel, many, write_csv

import tcb_ops as tcb
from tcb_ops.engine import engine
from tcb_ops.engine.calls import RunContext
from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import InterruptedRunError
from tcb_ops.features.cluster.coordinator import CoordinatorLedger
from tcb_ops.features.cluster.task import LEASE, SILENT_AFTER, FencedError, PartitionLedger, _work
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.ledger.locks import LapsedError, Lease
from tcb_ops.wechat.tokens import open_source

pytestmark = pytest.mark.integration

LIMITS = RunLimits(concurrency=4, per_env=4, backoff=0.01, slow_wait=0.05, patience=20)


def test_a_lease_lasts_so_long_after_the_question_and_no_confirmation_revives_a_lost_one():
    now = [100.0]
    lease = Lease(4.0, lambda: now[0])
    with pytest.raises(LapsedError):
        lease.check()  # not confirmed yet
    asked, now[0] = lease.now(), 103.0
    lease.confirm(asked)
    lease.check()
    now[0] = 104.0
    assert not lease.holds
    with pytest.raises(LapsedError):
        lease.check()
    lease.confirm(lease.now())
    assert lease.holds
    lease.lose()
    lease.confirm(lease.now())
    assert not lease.holds


@pytest.fixture
def suspended(monkeypatch):
    """Seconds for which the machine was suspended: the sum. A run's lock is checked once, and not again in this test."""
    seconds = [0.0]
    real = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: real(which) + sum(seconds))
    monkeypatch.setattr(engine, "LOCK_CHECK_EVERY", 1_000.0)
    return seconds


EFFECTS = {"save": FaultStep.DOWNLOAD, "post": FaultStep.LINK, "undo": FaultStep.DOWNLOAD}
"""The slow call after which the effect would follow."""


@pytest.mark.parametrize("effect", EFFECTS)
def test_after_a_suspension_nothing_happens_before_the_lock_is_confirmed(
    open_workspace, wait_for, tmp_path, suspended, effect
):
    workspace = open_workspace(many(TEA, rows=4), store=tmp_path / "store")
    sim, options = workspace.sim, {"settings": workspace.settings, "limits": LIMITS}
    if effect == "save":
        sim.put(TEA.env, "banner/0.png", b"before")
        sim.put(TEA.env, "banner/1.png", b"before")
    if effect == "undo":
        run = workspace.upload(**options)
    before, slow = sim.stats["stored"], EFFECTS[effect]
    sim.play([Fault(step=slow, delay=2.0)])
    if effect == "undo":
        running = tcb.start_undo(run.id, **options)
    else:
        backup = tmp_path / "backup" if effect == "save" else None
        running = workspace.start_upload(backup=backup, **options)
    name = "link_calls" if slow is FaultStep.LINK else str(slow)
    wait_for(lambda: sim.stats[name] == 4)
    suspended.append(3_600.0)
    engine_of_run: Any = running._session._engine
    wait_for(lambda: not engine_of_run._rows_in_flight)
    cancel(running)
    assert (sim.stats["stored"] - before, sim.stats["delete"], sim.stats[name]) == (0, 0, 4)
    assert not list((tmp_path / "backup").rglob("*.json"))


def test_no_row_begins_after_the_lease(open_workspace, wait_for, tmp_path, suspended):
    workspace = open_workspace(many(TEA, rows=4), [Fault(delay=2.0)])
    running = tcb.start_links(
        workspace.read(),
        out=tmp_path / "links.csv",
        settings=workspace.settings,
        limits=replace(LIMITS, concurrency=1),
    )
    wait_for(lambda: workspace.sim.stats["link_calls"] == 1)
    suspended.append(3_600.0)
    wait_for(lambda: running.so_far().counts.get("linked", 0) == 1)
    cancel(running)
    assert workspace.sim.stats["link_calls"] == 1


def test_a_large_form_that_was_begun_before_a_suspension_is_not_ended_after_it(
    open_workspace, wait_for, suspended
):
    with Sources() as sources:
        workspace = open_workspace([])
        handles: list[Any] = []

        def suspend() -> None:
            wait_for(lambda: bool(handles) and handles[0]._session._engine._calls.upload_calls == 1)
            suspended.append(3_600.0)

        url = sources.serve("/large.bin", b"x" * (1 << 20), halfway=suspend)
        write_csv(workspace.list, ("env", "path", "file"), [(TEA.env, "large.bin", url)])
        settings = workspace.with_options(source_hosts=["127.0.0.1"])
        batch = tcb.read_paths(workspace.list, workspace.merchants, workspace.folder, settings=settings)
        running = tcb.start_upload(batch, settings=settings, limits=LIMITS)
        handles.append(running)
        wait_for(lambda: len(suspended) == 2)
        engine_of_run: Any = running._session._engine
        wait_for(lambda: not engine_of_run._rows_in_flight)
        cancel(running)
    assert workspace.sim.stats["stored"] == 0


def test_a_run_that_lasts_longer_than_its_lease_goes_on(open_workspace, assert_complete, monkeypatch):
    monkeypatch.setattr(engine, "LOCK_CHECK_EVERY", 0.05)
    monkeypatch.setattr(engine, "LOCK_CHECK_WITHIN", 2.0)
    workspace = open_workspace(many(TEA, rows=8), [Fault(delay=0.2)])
    run = workspace.upload(limits=replace(LIMITS, concurrency=1))
    assert assert_complete(run, 8) == {"uploaded": 8}


# --- a worker of a cluster ---------------------------------------------------------------------------------------


class Partition:
    """A run of one partition, on which the test's own workers work."""

    def __init__(self, workspace: Workspace, ledger: CoordinatorLedger, stack: ExitStack) -> None:
        self._workspace, self.sim, self._stack = workspace, workspace.sim, stack
        running = workspace.start_upload(limits=LIMITS)
        cancel(running)
        self.ledger, self.record = ledger, ledger.run(running.id)
        assert ledger.begin(self.record) == 1
        ledger.add_partitions(self.record, 1, [ledger.environments(self.record)], 0)

    def claim(self, name: str) -> PartitionLedger:
        worker = PartitionLedger(self._workspace.settings.ledger, self.record.id, 1, 0, name)
        self._stack.enter_context(closing(worker))
        assert worker.claim() is not None
        return worker

    async def work(self, worker: PartitionLedger, wait: float) -> None:
        settings = self._workspace.settings
        context = RunContext(
            ledger=worker,
            run=worker.partition_run(),
            settings=settings,
            limits=LIMITS,
            tokens=open_source(settings),
            root=self._workspace.folder / "files",
            lease_seconds=LEASE,
        )
        await asyncio.wait_for(_work(context, worker, wait), 240)


@pytest.fixture
def partition(open_workspace, monkeypatch):
    monkeypatch.setattr(engine, "GRACE", 0.05)
    workspace = open_workspace(many(TEA, rows=4), [Fault(delay=60.0)])
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(CoordinatorLedger(workspace.settings.ledger)))
        yield Partition(workspace, ledger, stack)


def test_a_worker_whose_partition_another_one_has_sends_nothing_more(partition, wait_for, monkeypatch):
    monkeypatch.setattr(engine, "GRACE", 20.0)
    # The answers come after the next look at the fence, within the lease.
    partition.sim.play([Fault(step=FaultStep.LINK, delay=2.5)])
    links = partition.sim.stats["link_calls"]

    async def taken_over() -> None:
        working = asyncio.create_task(partition.work(partition.claim("ops-1/1"), 0.0))
        await asyncio.to_thread(wait_for, lambda: partition.sim.stats["link_calls"] == links + 4)
        await asyncio.to_thread(partition.claim, "ops-2/2")
        await working

    with pytest.raises(FencedError):
        asyncio.run(taken_over())
    assert partition.sim.stats["store_calls"] == 0


def test_a_worker_that_waits_for_a_former_one_sends_nothing_and_ends_with_the_run(partition):
    worker, links = partition.claim("ops-1/1"), partition.sim.stats["link_calls"]

    async def stopped() -> None:
        # Without a look at the run the worker would wait for 60 seconds; without the wait it would send at once.
        working = asyncio.create_task(partition.work(worker, 60.0))
        await asyncio.sleep(1.5)
        await asyncio.to_thread(partition.ledger.beat, partition.record, 1, stopping=True)
        await asyncio.wait_for(working, 0.8 * SILENT_AFTER)

    with pytest.raises(InterruptedRunError):
        asyncio.run(stopped())
    assert partition.sim.stats["link_calls"] == links
