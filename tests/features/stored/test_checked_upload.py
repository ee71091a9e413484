"""Uploads that look at each path first, and runs that would change the same paths at the same time: what they save, keep, send and refuse."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from stored_runs import delete, interrupted, other_list, stored, undo
from workspace import BOOKS, QUICK, TEA, cancel, many

import tcb_ops as tcb
from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.features.stored import StoredReason
from tcb_ops.model import Outcome

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("same", [False, True], ids=["other bytes", "the same bytes"])
def test_a_retry_saves_what_somebody_else_put_there_meanwhile(open_workspace, tmp_path, same):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.STORE, code="AccessDenied", status=403)]
    )
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    run = workspace.upload(backup=tmp_path / "backup")
    assert run.counts == {"failed": 2}
    workspace.sim.play([])
    workspace.sim.put(TEA.env, "banner/0.png", b"a colleague's")
    if same:
        (workspace.folder / "files" / "0.bin").write_bytes(b"a colleague's")
    assert workspace.retry(run.id).counts == {"uploaded": 2}
    # The same bytes cannot be told from what the upload itself has sent.
    assert undo(workspace, run.id).counts == {"not_undoable" if same else "restored": 1, "deleted": 1}
    assert stored(workspace)[TEA.env, "banner/0.png"] == b"a colleague's"


@pytest.mark.parametrize("reset", [None, Reset.BEFORE, Reset.MIDDLE])
def test_a_retry_keeps_what_was_saved_before_the_first_attempt(open_workspace, tmp_path, reset):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.STORE, reset=Reset.MIDDLE)], store=tmp_path / "store"
    )
    workspace.sim.put(TEA.env, "banner/0.png", b"the merchant's")
    run = workspace.upload(backup=tmp_path / "backup")
    assert run.counts == {"failed": 2}
    for file in (workspace.folder / "files").iterdir():
        file.write_bytes(b"second " + file.name.encode())
    workspace.sim.play([] if reset is None else [Fault(step=FaultStep.STORE, reset=reset)])
    workspace.retry(run.id)
    workspace.sim.play([])
    assert undo(workspace, run.id).counts == {"restored": 1, "deleted": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"the merchant's"}


def test_a_backup_that_cannot_be_written_is_refused_before_anything_is_sent(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=2))
    file = tmp_path / "backup"
    file.write_text("a file where the folder should be", encoding="utf-8")
    for folder, problem in ((file, "is not a folder"), ("/dev/full/x", "Backups cannot be written to")):
        with pytest.raises(UsageError, match=problem):
            workspace.upload(backup=folder)
    assert workspace.sim.stats["link_calls"] == 0


def test_what_cannot_be_saved_is_not_overwritten(open_workspace, tmp_path):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.DOWNLOAD, delay=0.2)], store=tmp_path / "store"
    )
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    workspace.sim.put(TEA.env, "banner/1.png", b"before")
    handle = workspace.start_upload(backup=tmp_path / "backup")
    (tmp_path / "backup").rmdir()
    (tmp_path / "backup").write_text("a file where the folder should be", encoding="utf-8")
    run = handle.wait()
    assert run.counts == {"failed": 2}
    assert {record.end.reason for record in run.rows()} == {StoredReason.BACKUP_FAILED}
    assert set(stored(workspace).values()) == {b"before"}


@pytest.mark.parametrize("started_with", [{}, {"backup": "b"}], ids=["plain", "with a backup"])
def test_an_upload_is_resumed_as_it_was_started(open_workspace, wait_for, tmp_path, started_with):
    workspace = open_workspace(
        many(TEA, BOOKS, rows=2), [Fault(step=FaultStep.STORE, env=BOOKS.env, delay=60)]
    )
    backup = {name: tmp_path / folder for name, folder in started_with.items()}
    handle = workspace.start_upload(**backup)
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    cancel(handle)
    workspace.sim.play([])
    sent = workspace.sim.stats["link_calls"]
    for resume in (None, handle.id):
        with pytest.raises(UsageError, match="as it was started"):
            workspace.upload(resume=resume, backup=tmp_path / "elsewhere")
    assert workspace.sim.stats["link_calls"] == sent
    assert workspace.upload(**backup).id == handle.id
    assert undo(workspace).counts == {"deleted": 4}


def test_an_upload_that_was_undone_is_not_resumed(open_workspace, wait_for):
    workspace = open_workspace(
        many(TEA, rows=5), [Fault(step=FaultStep.STORE, path="banner/3.png", delay=60)]
    )
    handle = workspace.start_upload(limits=RunLimits(concurrency=1))
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) == 3)
    with pytest.raises(UsageError, match="is being worked on by"):
        undo(workspace, handle.id)
    cancel(handle)
    workspace.sim.play([])
    assert undo(workspace, handle.id).succeeded
    assert stored(workspace) == {}
    with pytest.raises(UsageError, match="it was undone, or its files were deleted"):
        workspace.upload(resume=handle.id)
    assert workspace.upload().counts == {"uploaded": 5}


def test_an_upload_whose_retry_is_at_work_is_not_undone(open_workspace):
    workspace = open_workspace(
        many(TEA, rows=3), [Fault(step=FaultStep.STORE, code="AccessDenied", status=403)]
    )
    run = workspace.upload()
    workspace.sim.play([Fault(step=FaultStep.STORE, delay=30)])
    retrying = tcb.start_retry(run, workspace.merchants, settings=workspace.settings, limits=QUICK)
    with pytest.raises(UsageError, match="is being worked on by"):
        undo(workspace, run.id)
    cancel(retrying)


def test_an_undo_and_a_delete_of_one_upload_do_not_run_side_by_side(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, rows=2))
    run = workspace.upload()
    workspace.sim.play([Fault(step=FaultStep.DELETE, delay=60)])
    handle = tcb.start_undo(run.id, settings=workspace.settings, limits=QUICK)
    wait_for(lambda: workspace.sim.stats["delete"] > 0)
    with pytest.raises(UsageError, match=handle.id):
        delete(workspace, run.id)
    cancel(handle)


def test_nothing_is_taken_back_beside_an_unfinished_upload_of_the_same_paths(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    first = workspace.upload()
    batch = other_list(workspace, TEA.env, "banner/1.png")
    options = {"settings": workspace.settings, "limits": QUICK}
    unfinished = interrupted(workspace, lambda: tcb.start_upload(batch, **options), FaultStep.LINK)
    calls = dict(workspace.sim.stats)
    for take_back in (
        lambda: undo(workspace, first),
        lambda: delete(workspace, workspace.read(), foreign=True),
    ):
        with pytest.raises(
            UsageError, match=f"Run {unfinished} .upload. is unfinished, with rows pending at paths"
        ) as refused:
            take_back()
        assert refused.value.exit_code == 2
        assert f"--resume {unfinished}" in refused.value.text.en
    assert workspace.sim.stats == calls
    assert len(tcb.runs(settings=workspace.settings)) == 2  # what was refused is not in the ledger
    tcb.resume(unfinished, **options)
    assert undo(workspace, first).counts == {"deleted": 1, "not_undoable": 1}


@pytest.mark.parametrize("take_back", [tcb.start_undo, tcb.start_delete])
def test_nothing_is_uploaded_beside_an_unfinished_undo_or_delete_of_the_same_paths(open_workspace, take_back):
    workspace = open_workspace(many(TEA, rows=2))
    first = workspace.upload()
    options = {"settings": workspace.settings, "limits": QUICK}
    unfinished = interrupted(workspace, lambda: take_back(first, **options), FaultStep.DELETE)
    with pytest.raises(UsageError, match=f"Run {unfinished} .* is unfinished, with rows pending at paths"):
        workspace.upload(new_run=True)
    tcb.resume(unfinished, **options)
    assert workspace.upload(new_run=True).counts == {"uploaded": 2}


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_of_an_upload_and_what_takes_its_paths_back_one_is_refused_or_the_upload_is_there(
    open_workspace, rounds
):
    """Started at random, and from two threads with ledgers of their own, as by two operators."""
    dice, refusals = random.Random(28), 0
    workspace = open_workspace(many(TEA, BOOKS, rows=20))
    options = {"settings": workspace.settings, "limits": QUICK}
    for number in range(rounds):
        first = workspace.upload(new_run=True)
        for file in (workspace.folder / "files").iterdir():
            file.write_bytes(f"{number} {file.name}".encode())
        batch = workspace.read()
        upload_start, other_start = dice.random() / 4, dice.random() / 4
        take_back = dice.choice(
            [
                lambda first=first: tcb.undo(first, **options),
                lambda first=first: tcb.delete(first, **options),
                lambda batch=batch: tcb.delete(batch, new_run=True, **options),
            ]
        )
        with ThreadPoolExecutor(2) as threads:
            sent = threads.submit(
                _after, upload_start, lambda batch=batch: tcb.upload(batch, new_run=True, **options)
            )
            taken = threads.submit(_after, other_start, take_back)
        refusals += sum(future.exception() is not None for future in (sent, taken))
        assert all(isinstance(future.exception(), UsageError | None) for future in (sent, taken))
        if sent.exception() is None and sent.result().record.number > first.record.number:
            later = taken.exception() is None and taken.result().record.number > sent.result().record.number
            there = stored(workspace)
            for record in sent.result().rows():
                if record.end.outcome is Outcome.UPLOADED and not later:
                    assert there.get((record.row.env, record.row.path)) is not None, number
    assert refusals < 2 * rounds


def _after(seconds, start):
    time.sleep(seconds)
    return start()
