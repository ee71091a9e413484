"""Delete: nothing but what is meant, and what is there no more is said to be gone."""

import sqlite3

import pytest
from stored_runs import cancel, delete, retry, stored, undo, upload, upload_other
from workspace import BOOKS, QUICK, TEA, TEA_TEST, many, write_csv

import tcb_ops as tcb
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator import Fault, FaultStep, Reset


def test_a_deleted_file_is_not_unchanged(open_workspace):
    workspace = open_workspace(many(TEA, rows=3))
    upload(workspace)
    assert delete(workspace, "latest").counts == {"deleted": 3}
    assert workspace.sim.objects == {}
    assert upload(workspace, skip_unchanged=True, new_run=True).counts == {"uploaded": 3}


def test_nothing_but_what_is_named_is_deleted(open_workspace):
    workspace = open_workspace([*many(TEA, rows=3), *many(TEA_TEST, rows=3)])
    upload(workspace)
    workspace.sim.put(TEA.env, "banner/99.png", b"another tool's")
    write_csv(workspace.list, ("env", "path"), [(TEA.env, "banner/1.png")])
    run = delete(workspace, tcb.read_paths(workspace.list, workspace.merchants))
    assert run.counts == {"deleted": 1}
    assert len(workspace.sim.objects) == 6


def test_files_that_the_ledger_did_not_write_need_foreign(open_workspace):
    workspace = open_workspace(many(TEA, rows=1))
    upload(workspace)
    workspace.sim.put(TEA.env, "theirs.png", b"another tool's")
    write_csv(workspace.list, ("env", "path"), [(TEA.env, "banner/0.png"), (TEA.env, "theirs.png")])
    batch = tcb.read_paths(workspace.list, workspace.merchants)
    with pytest.raises(UsageError, match=r"(?s)1 file was not uploaded.*theirs\.png.*--foreign"):
        delete(workspace, batch)
    assert len(workspace.sim.objects) == 2
    assert delete(workspace, batch, foreign=True).counts == {"deleted": 2}


def test_a_file_that_came_after_our_deletion_is_foreign(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    delete(workspace, upload(workspace))
    workspace.sim.put(TEA.env, "banner/0.png", b"a colleague's")
    with pytest.raises(UsageError, match="2 files were not uploaded by a run of this ledger"):
        delete(workspace, workspace.read())
    assert len(stored(workspace)) == 1


def test_what_a_later_run_uploaded_is_neither_deleted_nor_undone(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    first = upload(workspace)
    upload_other(workspace, TEA.env, "banner/0.png")
    assert undo(workspace, first.id).counts == {"not_undoable": 1, "deleted": 1}
    assert list(stored(workspace)) == [(TEA.env, "banner/0.png")]
    with pytest.raises(UsageError, match="2 files are left out: other runs have uploaded to their paths"):
        delete(workspace, first.id)
    assert len(stored(workspace)) == 1


def test_a_file_that_comes_back_is_not_already_gone(open_workspace):
    workspace = open_workspace(many(TEA, rows=1))
    upload(workspace)
    answers = []

    def wrong_once(files):
        answers.append(1)
        if len(answers) > 1:
            return files
        # The first answer says "not there" of a file that is there: only the second look knows.
        workspace.sim.put(TEA.env, "banner/0.png", b"still there")
        return [{**file, "status": -503003} for file in files]

    workspace.sim.answer_files(wrong_once)
    assert delete(workspace, "latest").counts == {"deleted": 1}
    assert stored(workspace) == {}


def interrupted_delete(workspace, wait_for, what="latest"):
    """Delete the files of one environment; cancel while the call for the other one is under way."""
    workspace.sim.play([Fault(step=FaultStep.DELETE, env=BOOKS.env, delay=60)])
    handle = tcb.start_delete(what, settings=workspace.settings, limits=QUICK)
    wait_for(lambda: handle.so_far().counts.get("deleted", 0) > 0)
    cancel(handle)
    workspace.sim.play([])
    return handle


def test_a_retried_delete_leaves_what_was_uploaded_since(open_workspace):
    workspace = open_workspace(
        many(TEA, BOOKS, rows=2), [Fault(step=FaultStep.DELETE, env=BOOKS.env, errcode=48001)]
    )
    upload(workspace)
    first = delete(workspace, "latest")
    assert first.counts == {"deleted": 2, "refused": 2}
    workspace.sim.play([])
    upload_other(workspace, BOOKS.env, "banner/0.png")
    assert retry(workspace, first).counts == {"deleted": 1, "failed": 1}
    assert list(stored(workspace)) == [(BOOKS.env, "banner/0.png")]


@pytest.mark.slow
def test_an_interrupted_delete_is_resumed_by_the_same_call(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, BOOKS, rows=2))
    upload(workspace)
    batch = workspace.read()
    handle = interrupted_delete(workspace, wait_for, batch)
    run = delete(workspace, batch)  # what it has deleted itself is not foreign
    assert (run.id, run.counts) == (handle.id, {"deleted": 4})


def test_a_delete_of_a_run_that_has_only_to_be_finished_can_be(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    first = upload(workspace)
    run = delete(workspace, first.id)
    with sqlite3.connect(workspace.folder / "ledger.db") as db:
        db.execute("UPDATE runs SET finished_at = NULL WHERE id = ?", (run.id,))
    again = delete(workspace, first.id)
    assert (again.id, again.record.finished_at is not None) == (run.id, True)


@pytest.mark.slow
def test_a_new_delete_takes_nothing_that_came_after_an_unfinished_one(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, BOOKS, rows=2))
    first = upload(workspace)
    interrupted_delete(workspace, wait_for, first.id)
    workspace.sim.put(TEA.env, "banner/0.png", b"theirs")
    run = delete(workspace, first.id, new_run=True)
    assert {record.row.env for record in run.rows()} == {BOOKS.env}
    with pytest.raises(UsageError, match="4 files were not uploaded"):
        delete(workspace, workspace.read(), new_run=True)
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"theirs"}


def test_a_retried_delete_of_a_list_leaves_what_an_undo_has_restored_since(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=1), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    upload(workspace, backup=tmp_path / "backup")
    workspace.sim.play([Fault(step=FaultStep.DELETE, errcode=48001)])
    refused = delete(workspace, workspace.read())
    workspace.sim.play([])
    assert undo(workspace).counts == {"restored": 1}
    assert retry(workspace, refused).counts == {"failed": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"before"}


@pytest.mark.slow
def test_a_delete_leaves_paths_that_an_unfinished_upload_may_have_written(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, BOOKS, rows=1))
    first = upload(workspace)
    workspace.sim.play([Fault(step=FaultStep.STORE, env=BOOKS.env, delay=60)])
    handle = tcb.start_upload(workspace.read(), settings=workspace.settings, limits=QUICK, new_run=True)
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    cancel(handle)
    workspace.sim.play([])
    with pytest.raises(UsageError, match="2 files are left out"):
        delete(workspace, first.id)


def test_a_delete_without_an_answer_can_be_given_again(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    run = upload(workspace)
    workspace.sim.play([Fault(step=FaultStep.DELETE, reset=Reset.BEFORE)])
    assert delete(workspace, run.id).counts == {"failed": 2}
    workspace.sim.play([])
    assert delete(workspace, run.id).counts == {"deleted": 2}
