"""Undo: what an upload overwrote is back, what it added is gone, and nobody else's bytes are touched."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from stored_runs import confirm, delete, ends, interrupted, stored, undo, upload_other
from workspace import BOOKS, QUICK, TEA, cancel, many

import tcb_ops as tcb
from tcb_ops.api import prune
from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.features.stored.api import undo_scope, upload_of
from tcb_ops.model import Merchant

pytestmark = pytest.mark.slow

OTHER = "1" * 32


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("count", "rows", "kills"), [(5, 40, 1), (100, 20, 3)])
def test_a_round_trip_that_is_killed_at_each_step_loses_nothing(open_workspace, tmp_path, count, rows, kills):
    envs = [Merchant(f"wx{n:02d}", f"商户 {n}", f"env-{n:02d}") for n in range(count)]
    workspace = open_workspace(many(*envs, rows=rows), merchants=envs, store=tmp_path / "store")
    for merchant in envs:
        for n in range(0, rows, 3):
            workspace.sim.put(merchant.env, f"banner/{n}.png", f"before {merchant.env} {n}".encode())
        workspace.sim.put(merchant.env, "banner/999.png", b"foreign", etag=f"{OTHER}-2")
    before = stored(workspace)
    settings = ["--ledger", str(workspace.folder / "ledger.db"), "--target", workspace.sim.base]
    settings += [
        "--merchants",
        str(workspace.folder / "merchants.csv"),
        "--tokens",
        str(workspace.folder / "tokens.csv"),
    ]
    slow = ["--concurrency", "8", "--per-env", "2", "--backoff", "0.01"]
    root = ["--root", str(workspace.folder / "files"), "--backup", str(tmp_path / "backup")]
    for words in (["upload", str(workspace.list), *root], ["confirm", "--content"], ["undo"]):
        killed = 0
        while (
            code := _run_and_kill([*words, *settings, *slow], workspace, killed < kills)
        ) == -signal.SIGKILL:
            killed += 1
        assert code == 0, words
    assert stored(workspace) == before
    assert confirm(workspace, new_run=True).counts == {"undone": count * rows}


def _run_and_kill(words, workspace, kill):
    """Run a command; kill it as soon as its run has ended some rows."""
    command = [sys.executable, "-m", "tcb_ops", *words]
    with subprocess.Popen(
        command, cwd=workspace.folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        asked = sum(workspace.sim.stats.values())
        while kill and process.poll() is None:
            if sum(workspace.sim.stats.values()) > asked + 60:
                process.kill()
            time.sleep(0.002)
        return process.wait()


def test_an_undo_brings_back_every_byte(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, BOOKS, rows=6), store=tmp_path / "store")
    for n in range(3):
        workspace.sim.put(TEA.env, f"banner/{n}.png", f"before {n}".encode())
    workspace.sim.put(BOOKS.env, "banner/0.png", b"before, in parts", etag=f"{OTHER}-2")
    workspace.sim.put(BOOKS.env, "elsewhere", b"theirs")
    before = stored(workspace)
    run = workspace.upload(backup=tmp_path / "backup")
    assert run.counts == {"uploaded": 12}
    assert stored(workspace) != before
    assert undo_scope(settings=workspace.settings).counts == {"restored": 4, "deleted": 8}
    undone = undo(workspace)
    assert undone.counts == {"deleted": 8, "restored": 4}
    assert stored(workspace) == before
    assert undone.record.settings.undoes == run.id


def test_latest_is_the_upload_to_which_the_latest_run_belongs(open_workspace):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(path="banner/1.png", errcode=85088, calls=((1, 1),))]
    )
    first = workspace.upload()
    upload_other(workspace, TEA.env, "other.png")
    assert upload_of("latest", workspace.settings).id != first.id
    retried = workspace.retry(first.id)
    assert upload_of("latest", workspace.settings).id == first.id
    assert undo(workspace).record.settings.of == (first.id, retried.id)
    assert list(stored(workspace)) == [(TEA.env, "other.png")]


def test_what_somebody_else_changed_is_a_conflict_and_stays(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=4), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before 0")
    workspace.sim.put(TEA.env, "banner/1.png", b"before 1")
    workspace.upload(backup=tmp_path / "backup")
    workspace.sim.put(TEA.env, "banner/1.png", b"theirs")
    workspace.sim.put(TEA.env, "banner/2.png", b"theirs", etag=f"{OTHER}-2")
    workspace.sim.remove(TEA.env, "banner/3.png")
    assert undo(workspace).counts == {"restored": 1, "left": 1, "conflict": 2}
    # What the first undo met, a second one promises nothing about.
    assert undo_scope(settings=workspace.settings).counts == {"left": 1, "deleted": 1, "unknown": 2}
    assert stored(workspace) == {
        (TEA.env, "banner/0.png"): b"before 0",
        (TEA.env, "banner/1.png"): b"theirs",
        (TEA.env, "banner/2.png"): b"theirs",
    }


def test_an_overwritten_upload_without_a_backup_cannot_be_undone(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    upload_other(workspace, TEA.env, "banner/0.png")
    workspace.upload()
    assert undo_scope(settings=workspace.settings).counts == {"deleted": 1, "not_undoable": 1}
    run = undo(workspace)
    assert run.counts == {"deleted": 1, "not_undoable": 1}
    assert list(stored(workspace)) == [(TEA.env, "banner/0.png")]
    handle = tcb.start_confirm(settings=workspace.settings, limits=QUICK)
    handle.wait()
    assert f"1 of 2 files of this upload were undone by run {run.id}" in str(handle.warning)


def test_a_lost_backup_deletes_nothing(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before 0")
    run = workspace.upload(backup=tmp_path / "backup")
    (data,) = (tmp_path / "backup" / run.id).glob("0000002-*.data")
    data.unlink()
    assert undo(workspace).counts == {"deleted": 1, "failed": 1}
    assert list(stored(workspace)) == [(TEA.env, "banner/0.png")]


def test_a_backup_folder_that_is_gone_deletes_nothing(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=3), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before 0")
    run = workspace.upload(backup=tmp_path / "backup")
    shutil.rmtree(tmp_path / "backup" / run.id)
    (tmp_path / "backup" / run.id).mkdir()
    (tmp_path / "backup" / run.id / "0000003.json").write_text("damaged", encoding="utf-8")
    assert undo(workspace).counts == {"not_undoable": 3}
    assert len(stored(workspace)) == 3


def test_what_was_stored_without_an_answer_is_undone_too(open_workspace, tmp_path):
    lost = Fault(step=FaultStep.STORE, path="banner/[12].png", reset=Reset.MIDDLE)
    workspace = open_workspace(many(TEA, rows=4), [lost], store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/1.png", b"before 1")
    before = stored(workspace)
    assert workspace.upload(backup=tmp_path / "backup").counts == {"uploaded": 2, "failed": 2}
    assert len(stored(workspace)) == 4
    (workspace.folder / "files" / "2.bin").write_bytes(b"changed since")
    assert undo_scope(settings=workspace.settings).counts == {"deleted": 2, "unknown": 2}
    assert undo(workspace).succeeded
    assert stored(workspace) == before


def test_without_a_backup_what_may_be_somebody_elses_stays(open_workspace):
    lost = Fault(step=FaultStep.STORE, path="banner/1.png", reset=Reset.MIDDLE)
    workspace = open_workspace(many(TEA, rows=2), [lost])
    assert workspace.upload().counts == {"uploaded": 1, "failed": 1}
    assert undo_scope(settings=workspace.settings).counts == {"deleted": 1, "unknown": 1}
    run = undo(workspace)
    assert ends(run) == {(TEA.env, "banner/0.png"): "deleted", (TEA.env, "banner/1.png"): "not_undoable"}
    assert list(stored(workspace)) == [(TEA.env, "banner/1.png")]


def test_what_a_retry_stored_without_an_answer_is_undone(open_workspace, tmp_path):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.LINK, path="banner/1.png", errcode=-501007)]
    )
    run = workspace.upload(backup=tmp_path / "backup")
    assert run.counts == {"uploaded": 1, "refused": 1}
    workspace.sim.play([Fault(step=FaultStep.STORE, reset=Reset.MIDDLE)])
    workspace.retry(run.id)
    assert undo(workspace, run.id).counts == {"deleted": 2}
    assert stored(workspace) == {}


def test_an_earlier_upload_behind_a_failed_one_is_not_taken_for_a_free_path(open_workspace):
    workspace = open_workspace(many(TEA, rows=1))
    workspace.upload()
    workspace.sim.play([Fault(step=FaultStep.STORE, reset=Reset.BEFORE)])
    assert workspace.upload(new_run=True).counts == {"failed": 1}
    workspace.sim.play([])
    workspace.upload(new_run=True)
    assert undo(workspace).counts == {"not_undoable": 1}
    assert len(stored(workspace)) == 1


def test_what_an_undo_restored_is_somebody_elses(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=1), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"theirs")
    workspace.upload(backup=tmp_path / "backup")
    assert undo(workspace).succeeded
    with pytest.raises(
        UsageError, match=r"(?s)1 file was not uploaded by a run of this ledger.*\nNothing was"
    ):
        delete(workspace, workspace.read())
    assert set(stored(workspace).values()) == {b"theirs"}


def test_what_an_undo_may_have_restored_without_an_answer_is_not_deleted(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=1), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"theirs")
    upload = workspace.upload(backup=tmp_path / "backup")
    lost = Fault(step=FaultStep.STORE, reset=Reset.MIDDLE)
    workspace.sim.play([lost, Fault(step=FaultStep.DOWNLOAD, errcode=-1, calls=((2, 99),))])
    assert undo(workspace).counts == {"failed": 1}
    workspace.sim.play([])
    with pytest.raises(UsageError, match=r"(?s)1 file was not uploaded .* or may have been .* replaced"):
        delete(workspace, workspace.read())
    assert set(stored(workspace).values()) == {b"theirs"}
    assert undo(workspace, upload.id).counts == {"restored": 1}


def test_a_file_in_parts_that_was_not_overwritten_is_no_conflict(open_workspace, tmp_path):
    lost = Fault(step=FaultStep.STORE, reset=Reset.BEFORE)
    workspace = open_workspace(many(TEA, rows=1), [lost])
    workspace.sim.put(TEA.env, "banner/0.png", b"in parts", etag=f"{OTHER}-2")
    assert workspace.upload(backup=tmp_path / "backup").counts == {"failed": 1}
    assert undo(workspace).counts == {"left": 1}


def test_a_failed_row_that_stored_nothing_leaves_what_is_there(open_workspace):
    refused = Fault(step=FaultStep.STORE, path="banner/[12].png", reset=Reset.BEFORE)
    workspace = open_workspace(many(TEA, rows=3), [refused])
    workspace.sim.put(TEA.env, "banner/1.png", b"theirs")
    assert workspace.upload().counts == {"uploaded": 1, "failed": 2}
    assert undo_scope(settings=workspace.settings).counts == {"deleted": 1, "unknown": 2}
    assert undo(workspace).counts == {"deleted": 1, "left": 1, "not_undoable": 1}
    assert undo_scope(settings=workspace.settings).counts == {"left": 1, "unknown": 2}
    assert undo(workspace).counts == {"left": 2, "not_undoable": 1}
    assert stored(workspace) == {(TEA.env, "banner/1.png"): b"theirs"}


def test_rows_of_a_cancelled_upload_that_were_stored_are_undone(open_workspace, wait_for, tmp_path):
    workspace = open_workspace(many(TEA, rows=6), store=tmp_path / "store")
    upload_other(workspace, TEA.env, "banner/3.png")
    workspace.sim.put(TEA.env, "banner/4.png", b"before 4")
    workspace.sim.play([Fault(step=FaultStep.STORE, path="banner/[345].png", reset=Reset.MIDDLE)])
    before = stored(workspace)
    patient = RunLimits(concurrency=6, backoff=30.0, attempts=9, patience=60)
    handle = workspace.start_upload(limits=patient, backup=tmp_path / "backup")
    wait_for(lambda: workspace.sim.stats["stored"] >= 6 + 2)
    cancel(handle)
    assert undo(workspace, handle.id).counts == {"deleted": 4, "restored": 2}
    assert stored(workspace) == before


@pytest.mark.parametrize("with_backup", [False, True])
def test_what_a_retry_found_unchanged_is_not_taken_back(open_workspace, tmp_path, *, with_backup):
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    workspace.upload()
    workspace.sim.play([Fault(path="banner/1.png", errcode=-501007)])
    second = workspace.upload(new_run=True, backup=tmp_path / "backup" if with_backup else None)
    assert second.counts == {"uploaded": 1, "refused": 1}
    retry = interrupted(
        workspace,
        lambda: tcb.start_retry(second.id, workspace.merchants, settings=workspace.settings, limits=QUICK),
        FaultStep.LINK,
    )
    resumed = tcb.resume(retry, skip_unchanged=True, settings=workspace.settings, limits=QUICK)
    assert resumed.counts == {"unchanged": 1}
    there = stored(workspace)
    assert undo(workspace, second.id).counts == {"not_undoable": 1}
    assert stored(workspace) == there
    assert delete(workspace, second.id).counts == {"deleted": 1}
    assert stored(workspace).keys() == {(TEA.env, "banner/1.png")}


def test_a_second_undo_leaves_what_came_after_the_first(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/1.png", b"before")
    workspace.upload(backup=tmp_path / "backup")
    assert undo(workspace).counts == {"deleted": 1, "restored": 1}
    ours = {n: (workspace.folder / "files" / f"{n}.bin").read_bytes() for n in range(2)}
    for n, content in ours.items():  # a colleague uploads the same files from another ledger
        workspace.sim.put(TEA.env, f"banner/{n}.png", content)
    assert undo(workspace, new_run=True).counts == {"conflict": 2}
    assert set(stored(workspace).values()) == set(ours.values())


def test_a_run_that_sent_nothing_keeps_no_upload_from_being_undone(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    first = workspace.upload(backup=tmp_path / "backup")
    workspace.sim.play([Fault(reset=Reset.BEFORE)])
    assert workspace.upload(new_run=True).counts == {"failed": 2}
    workspace.sim.play([Fault(step=FaultStep.DELETE, reset=Reset.BEFORE)])
    assert delete(workspace, first.id).counts == {"failed": 2}
    workspace.sim.play([Fault(step=FaultStep.STORE, code="AccessDenied", status=403)])
    assert workspace.upload(new_run=True).counts == {"failed": 2}
    workspace.sim.play([])
    assert undo(workspace, first.id).counts == {"restored": 1, "deleted": 1}
    assert [*stored(workspace).values()] == [b"before"]


def test_saved_bytes_that_the_upload_sent_prove_nothing_and_stay(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    before = (workspace.folder / "files" / "0.bin").read_bytes()
    workspace.sim.put(TEA.env, "banner/0.png", before)
    workspace.upload(backup=tmp_path / "backup")
    assert undo_scope(settings=workspace.settings).counts == {"deleted": 1, "not_undoable": 1}
    assert undo(workspace).counts == {"not_undoable": 1, "deleted": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): before}


def test_a_file_that_another_run_stored_in_between_cannot_be_undone(open_workspace):
    workspace = open_workspace(many(TEA, rows=1), [Fault(step=FaultStep.STORE, reset=Reset.BEFORE)])
    first = workspace.upload()
    assert first.counts == {"failed": 1}
    workspace.sim.play([])
    (workspace.folder / "files" / "other.bin").write_bytes(b"another list's")
    upload_other(workspace, TEA.env, "banner/0.png", "other.bin")
    workspace.retry(first.id)
    assert undo(workspace, first.id).counts == {"not_undoable": 1}


@pytest.mark.parametrize("pruned", [False, True], ids=["", "pruned"])
def test_a_file_whose_row_does_not_say_the_same_is_left(open_workspace, *, pruned):
    damage = "UPDATE rows SET outcome = 'vanished' WHERE run = 1"
    workspace, run, files = uploaded_twice(open_workspace, damage, pruned=pruned)
    assert stored(workspace) == files
    handle = tcb.start_confirm(run.id, settings=workspace.settings, limits=QUICK)
    handle.wait()
    assert handle.warning is None  # the undo changed nothing
    damaged(workspace, damage.replace("= 1", f"= {run.record.number}"))
    with pytest.raises(UsageError, match="2 files were not uploaded"):
        delete(workspace, workspace.read())
    assert workspace.upload(skip_unchanged=True, new_run=True).counts == {"uploaded": 2}


@pytest.mark.parametrize("pruned", [False, True], ids=["", "pruned"])
def test_a_missing_feature_changes_nothing_of_what_is_known_of_files(open_workspace, *, pruned):
    missing = "UPDATE runs SET kind = 'zorp' WHERE number = 1"
    workspace, run, files = uploaded_twice(open_workspace, missing, pruned=pruned)
    assert stored(workspace) == files
    damaged(workspace, missing.replace("= 1", f"= {run.record.number}"))
    assert workspace.upload(skip_unchanged=True, new_run=True).counts == {"unchanged": 2}
    assert delete(workspace, workspace.read()).counts == {"deleted": 2}


def test_a_kind_that_only_looks_keeps_nothing_from_being_undone_when_its_feature_is_gone(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    run = workspace.upload()
    confirm(workspace, content=True)
    damaged(workspace, "UPDATE runs SET kind = 'zorp' WHERE kind = 'confirm'")
    assert undo(workspace, run.id).counts == {"deleted": 2}


def uploaded_twice(open_workspace, damage, *, pruned):
    """Upload other bytes to the same paths; without a backup, the second upload cannot be undone."""
    workspace = open_workspace(many(TEA, rows=2))
    workspace.upload()
    for file in (workspace.folder / "files").iterdir():
        file.write_bytes(b"changed " + file.read_bytes())
    run, files = workspace.upload(), stored(workspace)
    damaged(workspace, damage)
    if pruned:
        damaged(workspace, "UPDATE runs SET created_at = 1, finished_at = 2 WHERE number = 1")
        assert len(prune(1, settings=workspace.settings)) == 1
    assert undo_scope(settings=workspace.settings).counts == {"not_undoable": 2}
    assert undo(workspace).counts == {"not_undoable": 2}
    return workspace, run, files


def damaged(workspace, damage):
    with sqlite3.connect(workspace.folder / "ledger.db") as ledger:
        ledger.execute(damage)


def test_what_a_killed_upload_overwrote_comes_back_after_a_later_one(open_workspace, wait_for, tmp_path):
    lost = Fault(step=FaultStep.STORE, reset=Reset.MIDDLE)
    workspace = open_workspace(many(TEA, rows=1), [lost], store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    patient = RunLimits(backoff=30.0, patience=60)
    first = workspace.start_upload(limits=patient, backup=tmp_path / "backup")
    wait_for(lambda: workspace.sim.content(TEA.env, "banner/0.png") != b"before")
    cancel(first)
    workspace.sim.play([])
    (workspace.folder / "files" / "0.bin").write_bytes(b"changed since")
    assert workspace.upload(resume=first.id).counts == {"failed": 1}
    second = workspace.upload(new_run=True, backup=tmp_path / "backup")
    assert second.counts == {"uploaded": 1}
    assert undo(workspace, second).counts == {"restored": 1}  # what the first one has sent
    assert undo(workspace, first.id).counts == {"restored": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"before"}
