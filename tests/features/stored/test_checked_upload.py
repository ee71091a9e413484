"""Uploads that look at each path first, with --backup or --if-exists: what they save, keep and send."""

import hashlib

import pytest
from stored_runs import cancel, retry, stored, undo, upload
from workspace import BOOKS, QUICK, TEA, many

import tcb_ops as tcb
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator import Fault, FaultStep, Reset
from tcb_ops.features.stored import StoredReason


@pytest.mark.parametrize("same", [False, True], ids=["other bytes", "the same bytes"])
@pytest.mark.parametrize("if_exists", ["overwrite", "skip"])
def test_a_retry_saves_what_somebody_else_put_there_meanwhile(open_workspace, tmp_path, if_exists, same):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.STORE, code="AccessDenied", status=403)]
    )
    if if_exists == "overwrite":
        workspace.sim.put(TEA.env, "banner/0.png", b"before")
    run = upload(workspace, backup=tmp_path / "backup", if_exists=if_exists)
    assert run.counts == {"failed": 2}
    workspace.sim.play([])
    workspace.sim.put(TEA.env, "banner/0.png", b"a colleague's")
    if same:
        (workspace.folder / "files" / "0.bin").write_bytes(b"a colleague's")
    retried = retry(workspace, run)
    if if_exists == "skip":
        assert retried.counts == {"unchanged": 1, "uploaded": 1}
    else:
        assert retried.counts == {"uploaded": 2}
        # The same bytes cannot be told from what the upload itself has sent.
        assert undo(workspace, run.id).counts == {"not_undoable" if same else "restored": 1, "deleted": 1}
    assert stored(workspace)[TEA.env, "banner/0.png"] == b"a colleague's"


@pytest.mark.slow
@pytest.mark.parametrize("reset", [None, Reset.BEFORE, Reset.MIDDLE])
def test_a_retry_keeps_what_was_saved_before_the_first_attempt(open_workspace, tmp_path, reset):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.STORE, reset=Reset.MIDDLE)], store=tmp_path / "store"
    )
    workspace.sim.put(TEA.env, "banner/0.png", b"the merchant's")
    run = upload(workspace, backup=tmp_path / "backup")
    assert run.counts == {"failed": 2}
    for file in (workspace.folder / "files").iterdir():
        file.write_bytes(b"second " + file.name.encode())
    workspace.sim.play([] if reset is None else [Fault(step=FaultStep.STORE, reset=reset)])
    retry(workspace, run)
    workspace.sim.play([])
    assert undo(workspace, run.id).counts == {"restored": 1, "deleted": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"the merchant's"}


@pytest.mark.parametrize("if_exists", ["skip", "fail"])
def test_a_file_that_exists_because_an_answer_was_lost_is_uploaded(open_workspace, if_exists):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.STORE, reset=Reset.MIDDLE, calls=((1, 1),))]
    )
    assert upload(workspace, if_exists=if_exists).counts == {"uploaded": 2}
    assert undo(workspace).counts == {"deleted": 2}


def test_a_backup_that_cannot_be_written_is_refused_before_anything_is_sent(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=2))
    file = tmp_path / "backup"
    file.write_text("a file where the folder should be", encoding="utf-8")
    for folder, problem in ((file, "is not a folder"), ("/dev/full/x", "backups cannot be written to")):
        with pytest.raises(UsageError, match=problem):
            upload(workspace, backup=folder)
    assert workspace.sim.stats["link_calls"] == 0


def test_what_cannot_be_saved_is_not_overwritten(open_workspace, tmp_path):
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.DOWNLOAD, delay=0.2)], store=tmp_path / "store"
    )
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    workspace.sim.put(TEA.env, "banner/1.png", b"before")
    handle = tcb.start_upload(
        workspace.read(), settings=workspace.settings, limits=QUICK, backup=tmp_path / "backup"
    )
    (tmp_path / "backup").rmdir()
    (tmp_path / "backup").write_text("a file where the folder should be", encoding="utf-8")
    run = handle.wait()
    assert run.counts == {"failed": 2}
    assert {record.end.reason for record in run.rows()} == {StoredReason.BACKUP_FAILED}
    assert set(stored(workspace).values()) == {b"before"}


@pytest.mark.parametrize(
    ("policy", "outcomes"),
    [("skip", {"uploaded": 1, "unchanged": 2}), ("fail", {"uploaded": 1, "unchanged": 1, "failed": 1})],
)
def test_files_that_exist_are_kept(open_workspace, assert_complete, tmp_path, policy, outcomes):
    workspace = open_workspace(many(TEA, rows=3), store=tmp_path / "store")
    same = (workspace.folder / "files" / "1.bin").read_bytes()
    workspace.sim.put(TEA.env, "banner/0.png", b"theirs")
    workspace.sim.put(TEA.env, "banner/1.png", same)
    run = upload(workspace, if_exists=policy)
    assert run.counts == outcomes
    assert workspace.sim.content(TEA.env, "banner/0.png") == b"theirs"
    digests = {record.row.path: record.end.md5 for record in run.rows()}
    assert digests["banner/1.png"] == hashlib.md5(same, usedforsecurity=False).hexdigest()
    assert digests["banner/0.png"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("started_with", [{}, {"backup": "b"}], ids=["plain", "with a backup"])
def test_an_upload_is_resumed_as_it_was_started(open_workspace, wait_for, tmp_path, started_with):
    workspace = open_workspace(
        many(TEA, BOOKS, rows=2), [Fault(step=FaultStep.STORE, env=BOOKS.env, delay=60)]
    )
    backup = {name: tmp_path / folder for name, folder in started_with.items()}
    handle = tcb.start_upload(workspace.read(), settings=workspace.settings, limits=QUICK, **backup)
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    cancel(handle)
    workspace.sim.play([])
    sent = workspace.sim.stats["link_calls"]
    for other in ({"backup": tmp_path / "elsewhere"}, {"if_exists": "skip"}):
        for resume in (None, handle.id):
            with pytest.raises(UsageError, match="as it was started"):
                upload(workspace, resume=resume, **other)
    assert workspace.sim.stats["link_calls"] == sent
    assert upload(workspace, **backup).id == handle.id
    assert undo(workspace).counts == {"deleted": 4}
