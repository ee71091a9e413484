"""Confirm, delete, undo: whether files are there, and taking them back; over real sockets."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from workspace import (
    BOOKS,
    QUICK,
    TEA,
    TEA_TEST,
    AssertComplete,
    OpenWorkspace,
    WaitFor,
    Workspace,
    many,
    write_csv,
)

import tcb_ops as tcb
from tcb_ops.api import prune
from tcb_ops.errors import InterruptedRunError, UsageError
from tcb_ops.features.simulator import Fault, FaultStep, Reset
from tcb_ops.features.stored import StoredOutcome, StoredReason
from tcb_ops.features.stored.api import undo_scope
from tcb_ops.features.stored.files import UndoStep, confirm_outcome, may_be_stored, undo_step
from tcb_ops.model import Merchant, Outcome, Owner, Reason
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.records import may_have_stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tcb_ops.run import Run

OURS, OTHER, OLD = "0" * 32, "1" * 32, "2" * 32
PLATFORM = "wxcomponent"
OWN = Merchant(PLATFORM, "平台自有", "own-env-1", owner=Owner.PLATFORM)


def upload(workspace: Workspace, **options: Any) -> Run:
    return tcb.upload(workspace.read(), settings=workspace.settings, limits=QUICK, **options)


def confirm(workspace: Workspace, what: Any = "latest", **options: Any) -> Run:
    return tcb.confirm(what, settings=workspace.settings, limits=QUICK, **options)


def undo(workspace: Workspace, what: Any = "latest", **options: Any) -> Run:
    return tcb.undo(what, settings=workspace.settings, limits=QUICK, **options)


def delete(workspace: Workspace, what: Any, **options: Any) -> Run:
    return tcb.delete(what, settings=workspace.settings, limits=QUICK, **options)


def ends(run: Run) -> dict[tuple[str, str], str]:
    return {(record.row.env, record.row.path): str(record.end.outcome) for record in run.rows()}


def stored(workspace: Workspace) -> dict[tuple[str, str], bytes]:
    """What the merchants' environments hold, byte for byte."""
    env_of = {
        key: env
        for env in {m.env for m in workspace.merchants}
        for key in workspace.sim.objects
        if f"-{env}-" in key[0]
    }
    return {
        (env_of[at], at[1]): workspace.sim.content(env_of[at], at[1]) or b"" for at in workspace.sim.objects
    }


@pytest.mark.parametrize(
    ("etag", "outcome"),
    [
        (OURS, StoredOutcome.PRESENT),
        (f"{OURS}-1", StoredOutcome.FOREIGN),
        (f"{OTHER}-12", StoredOutcome.FOREIGN),
        (OLD, StoredOutcome.STALE),
        (OTHER, StoredOutcome.DIFFERENT),
        ("", StoredOutcome.DIFFERENT),
    ],
)
def test_what_an_etag_says(etag: str, outcome: Outcome) -> None:
    assert confirm_outcome(etag, OURS, {OLD}) is outcome


@pytest.mark.parametrize(
    ("now", "before", "step"),
    [
        (OLD, OLD, UndoStep.NOTHING),
        (OURS, OLD, UndoStep.RESTORE),
        (OTHER, OLD, UndoStep.CONFLICT),
        (None, OLD, UndoStep.CONFLICT),
        (None, None, UndoStep.NOTHING),
        (OURS, None, UndoStep.DELETE),
        (OTHER, None, UndoStep.CONFLICT),
    ],
)
def test_how_an_upload_is_undone(now: str | None, before: str | None, step: UndoStep) -> None:
    assert undo_step(now, OURS, before) is step
    if now == OURS:
        assert undo_step(now, "", before) is UndoStep.CONFLICT


def test_headers_are_undone_too_and_what_may_not_have_been_stored_is_left() -> None:
    assert undo_step(OURS, OURS, OURS) is UndoStep.NOTHING
    assert undo_step(OURS, OURS, OURS, same_headers=False) is UndoStep.RESTORE
    assert undo_step(OLD, OURS, OLD, same_headers=False) is UndoStep.NOTHING
    assert undo_step(OTHER, OURS, None, certain=False) is UndoStep.NOTHING
    assert undo_step(None, "", None, certain=False) is UndoStep.NOTHING
    assert undo_step(OURS, OURS, None, certain=False) is UndoStep.NOT_KNOWN
    assert undo_step(OTHER, "", None, certain=False) is UndoStep.NOT_KNOWN
    assert undo_step(OTHER, OURS, OLD, certain=False) is UndoStep.CONFLICT


@pytest.mark.parametrize(
    ("outcome", "saved", "doubtful", "part"),
    [
        (Outcome.UPLOADED, None, False, True),
        (Outcome.UPLOADED, False, False, True),
        (Outcome.PENDING, True, False, True),
        (Outcome.PENDING, False, True, False),
        (Outcome.PENDING, None, False, False),
        (Outcome.REFUSED, True, False, True),
        (Outcome.REFUSED, None, True, True),
        (Outcome.REFUSED, None, False, False),
        (Outcome.FAILED, False, True, False),
        (Outcome.FAILED, None, True, True),
        (Outcome.FAILED, None, False, False),
    ],
)
def test_which_rows_are_part_of_an_undo(
    outcome: Outcome, saved: bool | None, doubtful: bool, part: bool
) -> None:
    assert may_be_stored(outcome, saved, doubtful=doubtful) is part


@pytest.mark.parametrize(
    ("reason", "attempts", "settings", "doubtful"),
    [
        (Reason.EXISTS, 9, {"if_exists": "fail"}, False),
        (Reason.NO_ANSWER, 1, {}, True),
        (Reason.NO_CONFIRMATION, 2, {}, True),
        (Reason.ETAG_MISMATCH, 2, {"backup": "b"}, True),
        (Reason.STORE_REFUSED, 2, {}, False),
        (Reason.STORE_REFUSED, 3, {"if_exists": "overwrite", "backup": ""}, True),
        (Reason.STORE_REFUSED, 3, {"backup": "b"}, False),
        (Reason.STORE_REFUSED, 4, {"if_exists": "skip"}, True),
        (Reason.REFUSED, 1, {}, False),
        (Reason.REFUSED, 3, {}, True),
        (Reason.FILE_CHANGED, 1, {}, False),
        (Reason.FILE_CHANGED, 2, {}, True),
        (Reason.FILE_CHANGED, 2, {"if_exists": "fail"}, False),
        (StoredReason.BACKUP_FAILED, 2, {"backup": "b"}, False),
        (StoredReason.BACKUP_FAILED, 3, {"backup": "b"}, True),
        (StoredReason.BACKUP_DAMAGED, 1, {"undoes": "20261127-1"}, False),
        (None, 0, {}, False),
    ],
)
def test_which_failed_rows_may_have_stored_their_files(
    reason: Reason | None, attempts: int, settings: dict[str, str], doubtful: bool
) -> None:
    assert may_have_stored(reason, attempts, settings) is doubtful


@pytest.mark.slow
def test_files_are_confirmed_in_calls_of_fifty(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, BOOKS, rows=120))
    upload(workspace)
    run = confirm(workspace)
    assert assert_complete(run, 240) == {"present": 240}
    assert run.succeeded
    assert workspace.sim.stats["download"] == 6
    assert workspace.sim.stats["fetched"] == 0
    assert list(run.results()["备注"])[:2] == ["第 0 行", "第 1 行"]


@pytest.mark.slow
def test_an_empty_file_is_present_when_the_simulator_keeps_its_bytes_no_longer(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=70))
    (workspace.folder / "files" / "0.bin").write_bytes(b"")
    tcb.upload(workspace.read(), settings=workspace.settings, limits=RunLimits(concurrency=1))
    assert assert_complete(confirm(workspace, content=True), 70) == {"present": 70}


@pytest.mark.slow
def test_every_way_that_a_file_can_be_is_told(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    names = ["good", "gone", "other", "parts", "stale", "no-etag", "no-etag-other", "cached-parts"]
    workspace = open_workspace([(TEA.env, name) for name in names], store=tmp_path / "store")
    first = upload(workspace)
    workspace.sim.cache(TEA.env, "stale")
    for file in (workspace.folder / "files").iterdir():
        file.write_text(f"second {file.name}", encoding="utf-8")
    upload(workspace)
    workspace.sim.remove(TEA.env, "gone")
    workspace.sim.put(TEA.env, "other", b"somebody else's")
    workspace.sim.put(TEA.env, "parts", b"somebody else's", etag=f"{OTHER}-3")
    content = workspace.sim.content(TEA.env, "no-etag")
    assert content is not None
    workspace.sim.put(TEA.env, "no-etag", content, etag="")
    workspace.sim.put(TEA.env, "no-etag-other", b"not ours", etag="")
    run = confirm(workspace, content=True)
    assert {path: outcome for (_env, path), outcome in ends(run).items()} == {
        "good": "present",
        "gone": "absent",
        "other": "different",
        "parts": "foreign",
        "stale": "stale",
        "no-etag": "present",
        "no-etag-other": "different",
        "cached-parts": "present",
    }
    assert sum(assert_complete(run, 8).values()) == 8
    # Of the first upload, what the second put there is other bytes, and no older ones.
    again = confirm(workspace, first, content=True)
    assert ends(again)[TEA.env, "good"] == "different"
    # Without the bytes, a file that is there is present.
    assert assert_complete(confirm(workspace), 8) == {"present": 7, "absent": 1}


@pytest.mark.parametrize(
    "alter",
    [
        lambda files: files[::-1],
        lambda files: [{"fileid": "cloud://x.y/z", "status": -503003}, *files, {"status": 0}, "no object"],
        lambda files: files[: max(1, len(files) // 2)],
        lambda files: [*files, *files],
    ],
    ids=["another order", "strangers", "half an answer", "everything twice"],
)
@pytest.mark.parametrize("kind", ["confirm", "delete"])
def test_an_odd_answer_changes_nothing(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, alter: Any, kind: str
) -> None:
    workspace = open_workspace(many(TEA, rows=7))
    upload(workspace)
    workspace.sim.remove(TEA.env, "banner/3.png")
    workspace.sim.answer_files(alter)
    if kind == "confirm":
        run = confirm(workspace)
        assert assert_complete(run, 7) == {"present": 6, "absent": 1}
        assert ends(run)[TEA.env, "banner/3.png"] == "absent"
    else:
        run = delete(workspace, "latest")
        counts = assert_complete(run, 7)  # what a first answer left out is gone when it is asked about again
        assert counts["deleted"] + counts["already_gone"] == 7
        assert workspace.sim.objects == {}


def test_contradictions_and_files_that_are_never_mentioned_end_as_unknown(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=3))
    upload(workspace)

    def contradicting(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first = [file for file in files if file["fileid"].endswith("/0.png")]
        rest = [file for file in files if not file["fileid"].endswith("/1.png")]
        return [*rest, *({**file, "status": -503003} for file in first)]

    workspace.sim.answer_files(contradicting)
    run = confirm(workspace)
    assert assert_complete(run, 3) == {"present": 1, "unknown": 2}
    assert {r.end.reason for r in run.rows() if r.end.outcome == "unknown"} == {Reason.NO_ANSWER}
    workspace.sim.answer_files()
    again = tcb.retry(run, workspace.merchants, settings=workspace.settings, limits=QUICK)
    assert assert_complete(again, 2) == {"present": 2}


@pytest.mark.slow
def test_a_link_to_another_file_is_not_followed(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    workspace = open_workspace([(TEA.env, "图 1+.png"), (TEA.env, "b.png")])
    upload(workspace)
    assert assert_complete(confirm(workspace, content=True), 2) == {"present": 2}

    def exchanged(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        urls = [file["download_url"] for file in files]
        return [{**file, "download_url": url} for file, url in zip(files, reversed(urls), strict=True)]

    workspace.sim.answer_files(exchanged)
    assert assert_complete(confirm(workspace, content=True, new_run=True), 2) == {"unknown": 2}
    assert assert_complete(upload(workspace, new_run=True), 2) == {"uploaded": 2}


def test_a_call_that_is_too_large_is_halved(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=60))
    upload(workspace)
    workspace.sim.answer_files(most=20)
    assert assert_complete(confirm(workspace), 60) == {"present": 60}
    assert workspace.sim.stats["download:40097"] == 3  # 50, 25, 25
    assert assert_complete(delete(workspace, "latest"), 60) == {"deleted": 60}


def test_one_bad_file_id_does_not_spoil_its_call(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(
        many(TEA, rows=10), [Fault(step=FaultStep.DOWNLOAD, env=TEA.env, errcode=-601002)]
    )
    upload(workspace)
    run = confirm(workspace)
    assert assert_complete(run, 10) == {"unknown": 10}
    assert {record.end.errcode for record in run.rows()} == {-601002}


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"errcode": -1, "calls": ((1, 1),)}, "present"),
        ({"reset": Reset.BEFORE, "calls": ((1, 1),)}, "present"),
        ({"status": 502, "calls": ((1, 1),)}, "present"),
        ({"garbage": True}, "unknown"),
        ({"errcode": 48001}, "unknown"),
    ],
)
def test_answers_about_files_follow_the_policy_of_calls(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, fault: dict[str, Any], outcome: str
) -> None:
    workspace = open_workspace(many(TEA, rows=5), [Fault(step=FaultStep.DOWNLOAD, **fault)])
    upload(workspace)
    assert assert_complete(confirm(workspace), 5) == {outcome: 5}


@pytest.mark.slow
def test_an_environment_of_the_platform_is_listed(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    workspace = open_workspace(many(OWN, TEA, rows=60), merchants=[OWN, TEA], component_appid=PLATFORM)
    for n in range(1_100):
        workspace.sim.put(OWN.env, f"another/{n:04d}", b"theirs")
    tokens = {"source": "file", "file": tmp_path / "tokens.csv", "component_appid": PLATFORM}
    settings = workspace.with_options(tokens=tokens)
    tcb.upload(workspace.read(), settings=settings, limits=QUICK)
    workspace.sim.remove(OWN.env, "banner/1.png")
    workspace.sim.put(OWN.env, "banner/2.png", b"theirs")
    workspace.sim.put(OWN.env, "banner/3.png", b"theirs", etag=f"{OTHER}-1")
    run = tcb.confirm("latest", settings=settings, limits=QUICK)
    assert assert_complete(run, 120) == {"present": 117, "absent": 1, "different": 1, "foreign": 1}
    assert workspace.sim.stats["bucket"] == 2
    assert workspace.sim.stats["download"] == 2
    assert assert_complete(tcb.delete("latest", settings=settings, limits=QUICK), 120) == {
        "deleted": 119,
        "already_gone": 1,
    }
    assert len(workspace.sim.objects) == 1_100


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "rows"),
    [(10, 40), pytest.param(100, 20, marks=[pytest.mark.soak, pytest.mark.timeout(900)])],
)
def test_a_round_trip_that_is_killed_at_each_step_loses_nothing(
    open_workspace: OpenWorkspace, tmp_path: Path, count: int, rows: int
) -> None:
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
        while (code := _run_and_kill([*words, *settings, *slow], workspace, killed < 3)) == -signal.SIGKILL:
            killed += 1
        assert code == 0, words
    assert stored(workspace) == before
    last = confirm(workspace, new_run=True)
    assert last.counts == {"undone": count * rows}


def _run_and_kill(words: list[str], workspace: Workspace, kill: bool) -> int:
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


def test_a_retry_after_confirm_uploads_what_is_missing(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=4))
    upload(workspace)
    workspace.sim.remove(TEA.env, "banner/1.png")
    assert assert_complete(upload(workspace, skip_unchanged=True, new_run=True), 4) == {"unchanged": 4}
    confirm(workspace)
    # The ledger has seen that the file is gone: it is not taken for unchanged.
    assert assert_complete(upload(workspace, skip_unchanged=True, new_run=True), 4) == {
        "uploaded": 1,
        "unchanged": 3,
    }


def test_a_run_that_uploaded_nothing_has_nothing_to_confirm(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=2), [Fault(errcode=85088)])
    upload(workspace)
    for what in (confirm, undo, lambda workspace: delete(workspace, "latest")):
        with pytest.raises(UsageError, match="has no uploaded files"):
            what(workspace)


def test_only_an_upload_has_stored_files(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    upload(workspace)
    run = confirm(workspace)
    with pytest.raises(UsageError, match="only an upload has stored files"):
        confirm(workspace, run)


def test_a_deleted_file_is_not_unchanged(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=3))
    upload(workspace)
    assert assert_complete(delete(workspace, "latest"), 3) == {"deleted": 3}
    assert workspace.sim.objects == {}
    assert assert_complete(upload(workspace, skip_unchanged=True, new_run=True), 3) == {"uploaded": 3}


def test_nothing_but_what_is_named_is_deleted(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace([*many(TEA, rows=3), *many(TEA_TEST, rows=3)])
    upload(workspace)
    workspace.sim.put(TEA.env, "banner/99.png", b"another tool's")
    write_csv(workspace.list, ("env", "path"), [(TEA.env, "banner/1.png")])
    run = delete(workspace, tcb.read_paths(workspace.list, workspace.merchants))
    assert assert_complete(run, 1) == {"deleted": 1}
    assert len(workspace.sim.objects) == 6


def test_files_that_the_ledger_did_not_write_need_foreign(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=1))
    upload(workspace)
    workspace.sim.put(TEA.env, "theirs.png", b"another tool's")
    write_csv(workspace.list, ("env", "path"), [(TEA.env, "banner/0.png"), (TEA.env, "theirs.png")])
    batch = tcb.read_paths(workspace.list, workspace.merchants)
    with pytest.raises(UsageError, match=r"(?s)1 file was not uploaded.*theirs\.png.*--foreign"):
        delete(workspace, batch)
    assert len(workspace.sim.objects) == 2
    assert assert_complete(delete(workspace, batch, foreign=True), 2) == {"deleted": 2}


def test_a_file_that_came_after_our_deletion_is_foreign(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    delete(workspace, upload(workspace))
    workspace.sim.put(TEA.env, "banner/0.png", b"a colleague's")
    with pytest.raises(UsageError, match="2 files were not uploaded by a run of this ledger"):
        delete(workspace, workspace.read())
    assert len(stored(workspace)) == 1


def test_what_a_later_run_uploaded_is_neither_deleted_nor_undone(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    first = upload(workspace)
    write_csv(workspace.folder / "other.csv", ("env", "path", "file"), [(TEA.env, "banner/0.png", "0.bin")])
    later = tcb.read_paths(workspace.folder / "other.csv", workspace.merchants, workspace.folder / "files")
    tcb.upload(later, settings=workspace.settings, limits=QUICK)
    assert undo(workspace, first.id).counts == {"not_undoable": 1, "deleted": 1}
    assert list(stored(workspace)) == [(TEA.env, "banner/0.png")]
    with pytest.raises(UsageError, match="2 files are left out: other runs have uploaded to their paths"):
        delete(workspace, first.id)
    assert len(stored(workspace)) == 1


@pytest.mark.slow
def test_an_upload_that_was_undone_is_not_resumed(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=20), [Fault(delay=0.1)])
    handle = tcb.start_upload(workspace.read(), settings=workspace.settings, limits=RunLimits(concurrency=1))
    for progress in handle.watch():
        if progress.done >= 3:
            with pytest.raises(UsageError, match="is being worked on by"):
                undo(workspace, handle.id)
            handle.cancel()
    with pytest.raises(InterruptedRunError):
        handle.wait()
    workspace.sim.play([])
    assert undo(workspace, handle.id).succeeded
    assert stored(workspace) == {}
    with pytest.raises(UsageError, match="it was undone, or its files were deleted"):
        upload(workspace, resume=handle.id)
    assert assert_complete(upload(workspace), 20) == {"uploaded": 20}


def test_a_damaged_backup_is_not_restored(open_workspace: OpenWorkspace, tmp_path: Path) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    run = upload(workspace, backup=tmp_path / "backup")
    (data,) = (tmp_path / "backup" / run.id).glob("*.data")
    data.write_bytes(b"broken")
    assert undo(workspace).counts == {"failed": 1, "deleted": 1}
    assert b"broken" not in stored(workspace).values()


def test_files_of_another_environment_are_refused(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(
        many(TEA, BOOKS, rows=2), [Fault(step=FaultStep.DELETE, env=BOOKS.env, errcode=-601012)]
    )
    upload(workspace)
    run = delete(workspace, "latest")
    assert assert_complete(run, 4) == {"deleted": 2, "refused": 2}
    assert {env for env, _ in stored(workspace)} == {BOOKS.env}


def test_a_file_that_comes_back_is_not_already_gone(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=1))
    upload(workspace)
    answers: list[int] = []

    def wrong_once(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers.append(1)
        if len(answers) > 1:
            return files
        # The first answer says "not there" of a file that is there: only the second look knows.
        workspace.sim.put(TEA.env, "banner/0.png", b"still there")
        return [{**file, "status": -503003} for file in files]

    workspace.sim.answer_files(wrong_once)
    assert assert_complete(delete(workspace, "latest"), 1) == {"deleted": 1}
    assert stored(workspace) == {}


@pytest.mark.slow
def test_an_undo_brings_back_every_byte(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, BOOKS, rows=6), store=tmp_path / "store")
    for n in range(3):
        workspace.sim.put(TEA.env, f"banner/{n}.png", f"before {n}".encode())
    workspace.sim.put(BOOKS.env, "banner/0.png", b"before, in parts", etag=f"{OTHER}-2")
    workspace.sim.put(BOOKS.env, "elsewhere", b"theirs")
    before = stored(workspace)
    run = upload(workspace, backup=tmp_path / "backup")
    assert assert_complete(run, 12) == {"uploaded": 12}
    assert stored(workspace) != before
    scope = undo_scope(settings=workspace.settings)
    assert (scope.restored, scope.deleted, scope.not_undoable) == (4, 8, 0)
    undone = undo(workspace)
    assert assert_complete(undone, 12) == {"deleted": 8, "restored": 4}
    assert stored(workspace) == before
    assert undone.record.settings["undoes"] == run.id


def test_what_somebody_else_changed_is_a_conflict_and_stays(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=4), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before 0")
    workspace.sim.put(TEA.env, "banner/1.png", b"before 1")
    upload(workspace, backup=tmp_path / "backup")
    workspace.sim.put(TEA.env, "banner/1.png", b"theirs")
    workspace.sim.put(TEA.env, "banner/2.png", b"theirs", etag=f"{OTHER}-2")
    workspace.sim.remove(TEA.env, "banner/3.png")
    run = undo(workspace)
    assert assert_complete(run, 4) == {"restored": 1, "left": 1, "conflict": 2}
    assert stored(workspace) == {
        (TEA.env, "banner/0.png"): b"before 0",
        (TEA.env, "banner/1.png"): b"theirs",
        (TEA.env, "banner/2.png"): b"theirs",
    }


def test_an_overwritten_upload_without_a_backup_cannot_be_undone(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    write_csv(workspace.folder / "one.csv", ("env", "path", "file"), [(TEA.env, "banner/0.png", "0.bin")])
    tcb.upload(
        tcb.read_paths(workspace.folder / "one.csv", workspace.merchants, workspace.folder / "files"),
        settings=workspace.settings,
        limits=QUICK,
    )
    upload(workspace)
    assert undo_scope(settings=workspace.settings).not_undoable == 1
    run = undo(workspace)
    assert assert_complete(run, 2) == {"deleted": 1, "not_undoable": 1}
    assert list(stored(workspace)) == [(TEA.env, "banner/0.png")]
    handle = tcb.start_confirm(settings=workspace.settings, limits=QUICK)
    handle.wait()
    assert f"1 of 2 files of this upload were undone by run {run.id}" in str(handle.warning)


def test_a_lost_backup_deletes_nothing(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before 0")
    run = upload(workspace, backup=tmp_path / "backup")
    (data,) = (tmp_path / "backup" / run.id).glob("0000002-*.data")
    data.unlink()
    undone = undo(workspace)
    assert assert_complete(undone, 2) == {"deleted": 1, "failed": 1}
    assert list(stored(workspace)) == [(TEA.env, "banner/0.png")]


def test_a_backup_folder_that_is_gone_deletes_nothing(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=3), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before 0")
    run = upload(workspace, backup=tmp_path / "backup")
    shutil.rmtree(tmp_path / "backup" / run.id)
    (tmp_path / "backup" / run.id).mkdir()
    (tmp_path / "backup" / run.id / "0000003.json").write_text("damaged", encoding="utf-8")
    assert assert_complete(undo(workspace), 3) == {"not_undoable": 3}
    assert len(stored(workspace)) == 3


@pytest.mark.parametrize("same", [False, True], ids=["other bytes", "the same bytes"])
@pytest.mark.parametrize("if_exists", ["overwrite", "skip"])
def test_a_retry_saves_what_somebody_else_put_there_meanwhile(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path, if_exists: Any, same: bool
) -> None:
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.STORE, code="AccessDenied", status=403)]
    )
    if if_exists == "overwrite":
        workspace.sim.put(TEA.env, "banner/0.png", b"before")
    run = upload(workspace, backup=tmp_path / "backup", if_exists=if_exists)
    assert assert_complete(run, 2) == {"failed": 2}
    workspace.sim.play([])
    workspace.sim.put(TEA.env, "banner/0.png", b"a colleague's")
    if same:
        (workspace.folder / "files" / "0.bin").write_bytes(b"a colleague's")
    retried = tcb.retry(run, workspace.merchants, settings=workspace.settings, limits=QUICK)
    if if_exists == "skip":
        assert assert_complete(retried, 2) == {"unchanged": 1, "uploaded": 1}
    else:
        assert assert_complete(retried, 2) == {"uploaded": 2}
        # The same bytes cannot be told from what the upload itself has sent.
        assert undo(workspace, run.id).counts == {"not_undoable" if same else "restored": 1, "deleted": 1}
    assert stored(workspace)[TEA.env, "banner/0.png"] == b"a colleague's"


def test_what_was_stored_without_an_answer_is_undone_too(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    lost = Fault(step=FaultStep.STORE, path="banner/[12].png", reset=Reset.MIDDLE)
    workspace = open_workspace(many(TEA, rows=4), [lost], store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/1.png", b"before 1")
    before = stored(workspace)
    run = upload(workspace, backup=tmp_path / "backup")
    assert assert_complete(run, 4) == {"uploaded": 2, "failed": 2}
    assert len(stored(workspace)) == 4
    (workspace.folder / "files" / "2.bin").write_bytes(b"changed since")
    scope = undo_scope(settings=workspace.settings)
    assert (scope.restored, scope.deleted, scope.uncertain) == (0, 2, 2)
    assert undo(workspace).succeeded
    assert stored(workspace) == before


@pytest.mark.parametrize("changed", [False, True])
def test_without_a_backup_what_may_be_somebody_elses_stays(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, changed: bool
) -> None:
    lost = Fault(step=FaultStep.STORE, path="banner/1.png", reset=Reset.MIDDLE)
    workspace = open_workspace(many(TEA, rows=2), [lost])
    assert assert_complete(upload(workspace), 2) == {"uploaded": 1, "failed": 1}
    if changed:
        (workspace.folder / "files" / "1.bin").write_bytes(b"changed since")
    scope = undo_scope(settings=workspace.settings)
    assert (scope.deleted, scope.uncertain) == (1, 1)
    run = undo(workspace)
    assert ends(run) == {(TEA.env, "banner/0.png"): "deleted", (TEA.env, "banner/1.png"): "not_undoable"}
    assert list(stored(workspace)) == [(TEA.env, "banner/1.png")]


@pytest.mark.slow
@pytest.mark.parametrize("reset", [None, Reset.BEFORE, Reset.MIDDLE])
def test_a_retry_keeps_what_was_saved_before_the_first_attempt(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path, reset: Reset | None
) -> None:
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.STORE, reset=Reset.MIDDLE)], store=tmp_path / "store"
    )
    workspace.sim.put(TEA.env, "banner/0.png", b"the merchant's")
    run = upload(workspace, backup=tmp_path / "backup")
    assert assert_complete(run, 2) == {"failed": 2}
    for file in (workspace.folder / "files").iterdir():
        file.write_bytes(b"second " + file.name.encode())
    workspace.sim.play([] if reset is None else [Fault(step=FaultStep.STORE, reset=reset)])
    tcb.retry(run, workspace.merchants, settings=workspace.settings, limits=QUICK)
    workspace.sim.play([])
    assert undo(workspace, run.id).counts == {"restored": 1, "deleted": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"the merchant's"}


@pytest.mark.slow
def test_rows_that_ended_otherwise_after_a_lost_answer_are_undone(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    workspace = open_workspace(
        many(TEA, rows=2),
        [
            Fault(step=FaultStep.STORE, reset=Reset.MIDDLE, calls=((1, 1),)),
            Fault(step=FaultStep.STORE, code="AccessDenied", status=403, calls=((2, None),)),
        ],
        store=tmp_path / "store",
    )
    run = upload(workspace, backup=tmp_path / "backup")
    assert assert_complete(run, 2) == {"failed": 2}
    assert {record.end.reason for record in run.rows()} == {Reason.STORE_REFUSED}
    assert undo(workspace).counts == {"deleted": 2}
    assert stored(workspace) == {}


@pytest.mark.slow
def test_what_a_retry_stored_without_an_answer_is_undone(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.LINK, path="banner/1.png", errcode=-501007)]
    )
    run = upload(workspace, backup=tmp_path / "backup")
    assert assert_complete(run, 2) == {"uploaded": 1, "refused": 1}
    workspace.sim.play([Fault(step=FaultStep.STORE, reset=Reset.MIDDLE)])
    tcb.retry(run, workspace.merchants, settings=workspace.settings, limits=QUICK)
    assert undo(workspace, run.id).counts == {"deleted": 2}
    assert stored(workspace) == {}


@pytest.mark.parametrize("if_exists", ["skip", "fail"])
def test_a_file_that_exists_because_an_answer_was_lost_is_uploaded(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, if_exists: Any
) -> None:
    workspace = open_workspace(
        many(TEA, rows=2), [Fault(step=FaultStep.STORE, reset=Reset.MIDDLE, calls=((1, 1),))]
    )
    assert assert_complete(upload(workspace, if_exists=if_exists), 2) == {"uploaded": 2}
    assert undo(workspace).counts == {"deleted": 2}


@pytest.mark.slow
def test_an_upload_whose_retry_is_at_work_is_not_undone(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(
        many(TEA, rows=3), [Fault(step=FaultStep.STORE, code="AccessDenied", status=403)]
    )
    run = upload(workspace)
    workspace.sim.play([Fault(step=FaultStep.STORE, delay=30)])
    retrying = tcb.start_retry(run, workspace.merchants, settings=workspace.settings, limits=QUICK)
    with pytest.raises(UsageError, match="is being worked on by"):
        undo(workspace, run.id)
    retrying.cancel()
    with pytest.raises(InterruptedRunError):
        retrying.wait()


def test_an_earlier_upload_behind_a_failed_one_is_not_taken_for_a_free_path(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, rows=1))
    upload(workspace)
    workspace.sim.play([Fault(step=FaultStep.STORE, reset=Reset.BEFORE)])
    assert assert_complete(upload(workspace, new_run=True), 1) == {"failed": 1}
    workspace.sim.play([])
    upload(workspace, new_run=True)
    assert undo(workspace).counts == {"not_undoable": 1}
    assert len(stored(workspace)) == 1


def test_a_path_that_was_free_again_is_deleted(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=1))
    delete(workspace, upload(workspace))
    upload(workspace, new_run=True)
    assert undo(workspace).counts == {"deleted": 1}


def test_what_an_undo_restored_is_somebody_elses(open_workspace: OpenWorkspace, tmp_path: Path) -> None:
    workspace = open_workspace(many(TEA, rows=1), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"theirs")
    upload(workspace, backup=tmp_path / "backup")
    assert undo(workspace).succeeded
    with pytest.raises(
        UsageError, match=r"(?s)1 file was not uploaded by a run of this ledger.*\nNothing was"
    ):
        delete(workspace, workspace.read())
    assert set(stored(workspace).values()) == {b"theirs"}


def test_a_file_in_parts_that_was_not_overwritten_is_no_conflict(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
    lost = Fault(step=FaultStep.STORE, reset=Reset.BEFORE)
    workspace = open_workspace(many(TEA, rows=1), [lost])
    workspace.sim.put(TEA.env, "banner/0.png", b"in parts", etag=f"{OTHER}-2")
    assert assert_complete(upload(workspace, backup=tmp_path / "backup"), 1) == {"failed": 1}
    assert undo(workspace).counts == {"left": 1}


def test_a_failed_row_that_stored_nothing_leaves_what_is_there(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    refused = Fault(step=FaultStep.STORE, path="banner/[12].png", reset=Reset.BEFORE)
    workspace = open_workspace(many(TEA, rows=3), [refused])
    workspace.sim.put(TEA.env, "banner/1.png", b"theirs")
    assert assert_complete(upload(workspace), 3) == {"uploaded": 1, "failed": 2}
    scope = undo_scope(settings=workspace.settings)
    assert (scope.deleted, scope.uncertain, scope.left) == (1, 2, 0)
    assert undo(workspace).counts == {"deleted": 1, "left": 2}
    scope = undo_scope(settings=workspace.settings)  # a second undo finds nothing of the upload
    assert (scope.deleted, scope.uncertain, scope.left) == (0, 2, 1)
    assert undo(workspace).counts == {"left": 3}
    assert stored(workspace) == {(TEA.env, "banner/1.png"): b"theirs"}


def test_rows_of_a_cancelled_upload_that_were_stored_are_undone(
    open_workspace: OpenWorkspace, wait_for: WaitFor, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=6), store=tmp_path / "store")
    write_csv(workspace.folder / "earlier.csv", ("env", "path", "file"), [(TEA.env, "banner/3.png", "0.bin")])
    earlier = tcb.read_paths(
        workspace.folder / "earlier.csv", workspace.merchants, workspace.folder / "files"
    )
    tcb.upload(earlier, settings=workspace.settings, limits=QUICK)
    workspace.sim.put(TEA.env, "banner/4.png", b"before 4")
    workspace.sim.play([Fault(step=FaultStep.STORE, path="banner/[345].png", reset=Reset.MIDDLE)])
    before = stored(workspace)
    patient = RunLimits(concurrency=6, backoff=30.0, attempts=9, patience=60)
    handle = tcb.start_upload(
        workspace.read(), settings=workspace.settings, limits=patient, backup=tmp_path / "backup"
    )
    wait_for(lambda: workspace.sim.stats["stored"] >= 6 + 2)
    handle.cancel()
    with pytest.raises(InterruptedRunError):
        handle.wait()
    assert undo(workspace, handle.id).counts == {"deleted": 4, "restored": 2}
    assert stored(workspace) == before


@pytest.mark.slow
def test_an_unfinished_upload_without_a_backup_says_what_is_not_undone(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=20), [Fault(delay=0.1)])
    handle = tcb.start_upload(workspace.read(), settings=workspace.settings, limits=RunLimits(concurrency=1))
    for progress in handle.watch():
        if progress.done >= 3:
            handle.cancel()
    with pytest.raises(InterruptedRunError):
        handle.wait()
    undoing = tcb.start_undo(handle.id, settings=workspace.settings, limits=QUICK)
    assert undoing.warning is not None
    pending = 20 - undoing.wait().record.rows
    assert f"{pending} rows of the upload are pending" in undoing.warning.en


def test_a_backup_that_cannot_be_written_is_refused_before_anything_is_sent(
    open_workspace: OpenWorkspace, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    file = tmp_path / "backup"
    file.write_text("a file where the folder should be", encoding="utf-8")
    for folder, problem in ((file, "is not a folder"), ("/dev/full/x", "backups cannot be written to")):
        with pytest.raises(UsageError, match=problem):
            upload(workspace, backup=folder)
    assert workspace.sim.stats["link_calls"] == 0


def test_what_cannot_be_saved_is_not_overwritten(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path
) -> None:
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
    assert assert_complete(run, 2) == {"failed": 2}
    assert {record.end.reason for record in run.rows()} == {StoredReason.BACKUP_FAILED}
    assert set(stored(workspace).values()) == {b"before"}


@pytest.mark.parametrize(
    ("policy", "outcomes"),
    [("skip", {"uploaded": 1, "unchanged": 2}), ("fail", {"uploaded": 1, "unchanged": 1, "failed": 1})],
)
def test_files_that_exist_are_kept(
    open_workspace: OpenWorkspace,
    assert_complete: AssertComplete,
    tmp_path: Path,
    policy: Any,
    outcomes: dict[str, int],
) -> None:
    workspace = open_workspace(many(TEA, rows=3), store=tmp_path / "store")
    same = (workspace.folder / "files" / "1.bin").read_bytes()
    workspace.sim.put(TEA.env, "banner/0.png", b"theirs")
    workspace.sim.put(TEA.env, "banner/1.png", same)
    run = upload(workspace, if_exists=policy)
    assert assert_complete(run, 3) == outcomes
    assert workspace.sim.content(TEA.env, "banner/0.png") == b"theirs"
    digests = {record.row.path: record.end.md5 for record in run.rows()}
    assert digests["banner/1.png"] == hashlib.md5(same, usedforsecurity=False).hexdigest()
    assert digests["banner/0.png"] == ""


def test_an_upload_is_confirmed_in_its_summary(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=3))
    run = upload(workspace)
    assert "confirmed" not in run.summary()
    found = confirm(workspace, content=True)
    assert run.summary()["confirmed"] == {"run": found.id, "counts": {"present": 3}}
    workspace.sim.remove(TEA.env, "banner/0.png")
    confirm(workspace, new_run=True)
    assert run.summary()["confirmed"]["counts"] == {"present": 2, "absent": 1}


def test_links_and_tokens_stay_secret(open_workspace: OpenWorkspace, tmp_path: Path) -> None:
    workspace = open_workspace(many(TEA, rows=3))
    upload(workspace)
    run = confirm(workspace, content=True)
    folder = run.export(tmp_path / "report")
    texts = [file.read_bytes() for file in folder.iterdir()] + [(workspace.folder / "ledger.db").read_bytes()]
    assert not any(b"sign=" in text or b"token-of-" in text for text in texts)


NARROW = RunLimits(concurrency=4, per_env=2, backoff=0.01, slow_wait=0.05, patience=10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["confirm", "delete", "undo"])
def test_an_interrupted_run_is_resumed(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, tmp_path: Path, kind: str
) -> None:
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=60), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/5.png", b"before")
    before = stored(workspace)
    upload(workspace, backup=tmp_path / "backup")
    start = {"confirm": tcb.start_confirm, "delete": tcb.start_delete, "undo": tcb.start_undo}[kind]
    handle = start(
        "latest", settings=workspace.settings, limits=NARROW, progress=lambda _: handle_of[0].cancel()
    )
    handle_of = [handle]
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()
    run = start("latest", settings=workspace.settings, limits=NARROW).wait()
    assert run.id == handle.id
    counts = assert_complete(run, 180)
    if kind == "undo":
        assert counts == {"deleted": 179, "restored": 1}
        assert stored(workspace) == before
    elif kind == "delete":
        assert sum(counts.get(name, 0) for name in ("deleted", "already_gone")) == 180
        assert workspace.sim.objects == {}
    else:
        assert counts == {"present": 180}


# --- what others do in between ------------------------------------------------------------------------------------------


def interrupted_delete(workspace: Workspace, wait_for: WaitFor, what: Any = "latest") -> tcb.RunHandle:
    """Delete the files of one environment; cancel while the call for the other one is under way."""
    workspace.sim.play([Fault(step=FaultStep.DELETE, env=BOOKS.env, delay=60)])
    handle = tcb.start_delete(what, settings=workspace.settings, limits=QUICK)
    wait_for(lambda: handle.so_far().counts.get("deleted", 0) > 0)
    handle.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()
    workspace.sim.play([])
    return handle


def test_a_retried_delete_leaves_what_was_uploaded_since(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(
        many(TEA, BOOKS, rows=2), [Fault(step=FaultStep.DELETE, env=BOOKS.env, errcode=48001)]
    )
    upload(workspace)
    first = delete(workspace, "latest")
    assert first.counts == {"deleted": 2, "refused": 2}
    workspace.sim.play([])
    write_csv(workspace.folder / "new.csv", ("env", "path", "file"), [(BOOKS.env, "banner/0.png", "0.bin")])
    batch = tcb.read_paths(workspace.folder / "new.csv", workspace.merchants, workspace.folder / "files")
    tcb.upload(batch, settings=workspace.settings, limits=QUICK)
    again = tcb.retry(first.id, workspace.merchants, settings=workspace.settings, limits=QUICK)
    assert again.counts == {"deleted": 1, "failed": 1}
    assert list(stored(workspace)) == [(BOOKS.env, "banner/0.png")]


@pytest.mark.slow
def test_an_interrupted_delete_is_resumed_by_the_same_call(
    open_workspace: OpenWorkspace, wait_for: WaitFor
) -> None:
    workspace = open_workspace(many(TEA, BOOKS, rows=2))
    upload(workspace)
    batch = workspace.read()
    handle = interrupted_delete(workspace, wait_for, batch)
    run = delete(workspace, batch)  # what it has deleted itself is not foreign
    assert (run.id, run.counts) == (handle.id, {"deleted": 4})


def test_a_delete_of_a_run_that_has_only_to_be_finished_can_be(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    first = upload(workspace)
    run = delete(workspace, first.id)
    with sqlite3.connect(workspace.folder / "ledger.db") as db:
        db.execute("UPDATE runs SET finished_at = NULL WHERE id = ?", (run.id,))
    again = delete(workspace, first.id)
    assert (again.id, again.record.finished_at is not None) == (run.id, True)


def test_a_second_undo_leaves_what_came_after_the_first(
    open_workspace: OpenWorkspace, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/1.png", b"before")
    upload(workspace, backup=tmp_path / "backup")
    assert undo(workspace).counts == {"deleted": 1, "restored": 1}
    ours = {n: (workspace.folder / "files" / f"{n}.bin").read_bytes() for n in range(2)}
    for n, content in ours.items():  # a colleague uploads the same files from another ledger
        workspace.sim.put(TEA.env, f"banner/{n}.png", content)
    assert undo(workspace, new_run=True).counts == {"conflict": 2}
    assert set(stored(workspace).values()) == set(ours.values())


@pytest.mark.slow
def test_a_run_that_sent_nothing_keeps_no_upload_from_being_undone(
    open_workspace: OpenWorkspace, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    first = upload(workspace, backup=tmp_path / "backup")
    workspace.sim.play([Fault(reset=Reset.BEFORE)])
    assert upload(workspace, new_run=True).counts == {"failed": 2}
    workspace.sim.play([Fault(step=FaultStep.DELETE, reset=Reset.BEFORE)])
    assert delete(workspace, first.id).counts == {"failed": 2}
    workspace.sim.play([Fault(step=FaultStep.STORE, code="AccessDenied", status=403)])
    assert upload(workspace, new_run=True).counts == {"failed": 2}
    workspace.sim.play([])
    assert undo(workspace, first.id).counts == {"restored": 1, "deleted": 1}
    assert [*stored(workspace).values()] == [b"before"]


@pytest.mark.slow
@pytest.mark.parametrize("option", ["backup", "if_exists"])
def test_an_upload_is_resumed_as_it_was_started(
    open_workspace: OpenWorkspace, wait_for: WaitFor, tmp_path: Path, option: str
) -> None:
    workspace = open_workspace(
        many(TEA, BOOKS, rows=2), [Fault(step=FaultStep.STORE, env=BOOKS.env, delay=60)]
    )
    handle = tcb.start_upload(workspace.read(), settings=workspace.settings, limits=QUICK)
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    handle.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()
    workspace.sim.play([])
    sent = workspace.sim.stats["link_calls"]
    given: dict[str, Any] = {"backup": {"backup": tmp_path / "b"}, "if_exists": {"if_exists": "skip"}}[option]
    for resume in (None, handle.id):
        with pytest.raises(UsageError, match="as it was started"):
            upload(workspace, resume=resume, **given)
    assert workspace.sim.stats["link_calls"] == sent
    assert upload(workspace, new_run=True, **given).counts.keys() <= {"uploaded", "unchanged"}


@pytest.mark.slow
def test_a_backup_is_continued_with_or_without_its_option(
    open_workspace: OpenWorkspace, wait_for: WaitFor, tmp_path: Path
) -> None:
    workspace = open_workspace(
        many(TEA, BOOKS, rows=2), [Fault(step=FaultStep.STORE, env=BOOKS.env, delay=60)]
    )
    handle = tcb.start_upload(
        workspace.read(), settings=workspace.settings, limits=QUICK, backup=tmp_path / "b"
    )
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    handle.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()
    workspace.sim.play([])
    with pytest.raises(UsageError, match="as it was started"):
        upload(workspace, backup=tmp_path / "elsewhere")
    assert upload(workspace, backup=tmp_path / "b").id == handle.id
    assert undo(workspace).counts == {"deleted": 4}


def test_a_listing_that_repeats_itself_proves_nothing(
    open_workspace: OpenWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = open_workspace(many(OWN, rows=2), merchants=[OWN], component_appid=PLATFORM)
    for n in range(1_100):
        workspace.sim.put(OWN.env, f"another/{n:04d}", b"theirs")
    tokens = {"source": "file", "file": tmp_path / "tokens.csv", "component_appid": PLATFORM}
    settings = workspace.with_options(tokens=tokens)
    tcb.upload(workspace.read(), settings=settings, limits=QUICK)
    listed = workspace.sim._store.listed
    monkeypatch.setattr(
        workspace.sim._store, "listed", lambda bucket, prefix, marker: listed(bucket, prefix, marker and "")
    )
    assert tcb.confirm("latest", settings=settings, limits=QUICK).counts == {"unknown": 2}


@pytest.mark.slow
def test_a_new_delete_takes_nothing_that_came_after_an_unfinished_one(
    open_workspace: OpenWorkspace, wait_for: WaitFor
) -> None:
    workspace = open_workspace(many(TEA, BOOKS, rows=2))
    first = upload(workspace)
    interrupted_delete(workspace, wait_for, first.id)
    workspace.sim.put(TEA.env, "banner/0.png", b"theirs")
    run = delete(workspace, first.id, new_run=True)
    assert {record.row.env for record in run.rows()} == {BOOKS.env}
    with pytest.raises(UsageError, match="4 files were not uploaded"):
        delete(workspace, workspace.read(), new_run=True)
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"theirs"}


@pytest.mark.slow
def test_a_delete_of_a_list_leaves_what_an_undo_has_restored_since(
    open_workspace: OpenWorkspace, wait_for: WaitFor, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, BOOKS, rows=2), store=tmp_path / "store")
    workspace.sim.put(BOOKS.env, "banner/0.png", b"before")
    first = upload(workspace, backup=tmp_path / "backup")
    handle = interrupted_delete(workspace, wait_for, workspace.read())
    assert undo(workspace, first.id, merchants=workspace.merchants).counts["restored"] == 1
    run = tcb.api.start_resume(handle.id, settings=workspace.settings, limits=QUICK).wait()
    assert run.counts == {"deleted": 2, "failed": 2}
    assert stored(workspace) == {(BOOKS.env, "banner/0.png"): b"before"}


def test_a_retried_delete_of_a_list_leaves_what_an_undo_has_restored_since(
    open_workspace: OpenWorkspace, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=1), store=tmp_path / "store")
    workspace.sim.put(TEA.env, "banner/0.png", b"before")
    upload(workspace, backup=tmp_path / "backup")
    workspace.sim.play([Fault(step=FaultStep.DELETE, errcode=48001)])
    refused = delete(workspace, workspace.read())
    workspace.sim.play([])
    assert undo(workspace).counts == {"restored": 1}
    assert tcb.retry(refused.id, workspace.merchants, settings=workspace.settings, limits=QUICK).counts == {
        "failed": 1
    }
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"before"}


def test_saved_bytes_that_the_upload_sent_prove_nothing_and_stay(
    open_workspace: OpenWorkspace, tmp_path: Path
) -> None:
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    before = (workspace.folder / "files" / "0.bin").read_bytes()
    workspace.sim.put(TEA.env, "banner/0.png", before)
    upload(workspace, backup=tmp_path / "backup")
    scope = undo_scope(settings=workspace.settings)
    assert (scope.restored, scope.deleted, scope.not_undoable) == (0, 1, 1)
    assert undo(workspace).counts == {"not_undoable": 1, "deleted": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): before}


@pytest.mark.slow
def test_a_delete_leaves_paths_that_an_unfinished_upload_may_have_written(
    open_workspace: OpenWorkspace, wait_for: WaitFor
) -> None:
    workspace = open_workspace(many(TEA, BOOKS, rows=1))
    first = upload(workspace)
    workspace.sim.play([Fault(step=FaultStep.STORE, env=BOOKS.env, delay=60)])
    handle = tcb.start_upload(workspace.read(), settings=workspace.settings, limits=QUICK, new_run=True)
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    handle.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()
    workspace.sim.play([])
    with pytest.raises(UsageError, match="2 files are left out"):
        delete(workspace, first.id)


@pytest.mark.slow
def test_an_undo_and_a_delete_of_one_upload_do_not_run_side_by_side(
    open_workspace: OpenWorkspace, wait_for: WaitFor
) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    run = upload(workspace)
    workspace.sim.play([Fault(step=FaultStep.DELETE, delay=60)])
    handle = tcb.start_undo(run.id, settings=workspace.settings, limits=QUICK)
    wait_for(lambda: workspace.sim.stats["delete"] > 0)
    with pytest.raises(UsageError, match=handle.id):
        delete(workspace, run.id)
    handle.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()


def test_a_file_that_another_run_stored_in_between_cannot_be_undone(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=1), [Fault(step=FaultStep.STORE, reset=Reset.BEFORE)])
    first = upload(workspace)
    assert first.counts == {"failed": 1}
    workspace.sim.play([])
    (workspace.folder / "files" / "other.bin").write_bytes(b"another list's")
    write_csv(workspace.folder / "new.csv", ("env", "path", "file"), [(TEA.env, "banner/0.png", "other.bin")])
    batch = tcb.read_paths(workspace.folder / "new.csv", workspace.merchants, workspace.folder / "files")
    tcb.upload(batch, settings=workspace.settings, limits=QUICK)
    tcb.retry(first.id, workspace.merchants, settings=workspace.settings, limits=QUICK)
    assert undo(workspace, first.id).counts == {"not_undoable": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE rows SET outcome = 'vanished' WHERE run = 1",
        "UPDATE runs SET kind = 'zorp' WHERE number = 1",
    ],
)
@pytest.mark.parametrize("pruned", [False, True], ids=["", "pruned"])
def test_an_earlier_run_whose_record_cannot_be_understood_may_have_stored_files(
    open_workspace: OpenWorkspace, damage: str, *, pruned: bool
) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    upload(workspace)
    for file in (workspace.folder / "files").iterdir():
        file.write_bytes(b"changed " + file.read_bytes())
    run, files = upload(workspace), stored(workspace)
    damaged(workspace, damage)
    if pruned:
        damaged(workspace, "UPDATE runs SET created_at = 1, finished_at = 2 WHERE number = 1")
        assert len(prune(1, settings=workspace.settings)) == 1
    assert undo_scope(settings=workspace.settings).not_undoable == 2
    assert undo(workspace).counts == {"not_undoable": 2}
    assert stored(workspace) == files
    handle = tcb.start_confirm(run.id, settings=workspace.settings, limits=QUICK)
    handle.wait()
    assert handle.warning is None  # the undo changed nothing
    damaged(workspace, damage.replace("= 1", f"= {run.record.number}"))
    with pytest.raises(UsageError, match="2 files were not uploaded"):
        delete(workspace, workspace.read())
    assert upload(workspace, skip_unchanged=True, new_run=True).counts == {"uploaded": 2}


def damaged(workspace: Workspace, damage: str) -> None:
    with sqlite3.connect(workspace.folder / "ledger.db") as ledger:
        ledger.execute(damage)


def test_a_delete_without_an_answer_can_be_given_again(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    run = upload(workspace)
    workspace.sim.play([Fault(step=FaultStep.DELETE, reset=Reset.BEFORE)])
    assert delete(workspace, run.id).counts == {"failed": 2}
    workspace.sim.play([])
    assert delete(workspace, run.id).counts == {"deleted": 2}


# --- beside an unfinished run of the same paths ---------------------------------------------------------------------------


def interrupted(workspace: Workspace, start: Callable[[], tcb.RunHandle], step: FaultStep) -> str:
    """Start a run, cancel it at its first call of a step; return its id."""
    workspace.sim.play([Fault(step=step, delay=60)])
    asked = sum(workspace.sim.stats.values())
    handle = start()
    while sum(workspace.sim.stats.values()) == asked:
        time.sleep(0.005)
    handle.cancel()
    with pytest.raises(InterruptedRunError):
        handle.wait()
    workspace.sim.play([])
    return handle.id


def test_nothing_is_taken_back_beside_an_unfinished_upload_of_the_same_paths(
    open_workspace: OpenWorkspace,
) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    first = upload(workspace)
    other = write_csv(
        workspace.folder / "other.csv", ("env", "path", "file"), [(TEA.env, "banner/1.png", "0.bin")]
    )
    batch = tcb.read_paths(other, workspace.merchants, root=workspace.folder / "files")
    options = {"settings": workspace.settings, "limits": QUICK}
    unfinished = interrupted(workspace, lambda: tcb.start_upload(batch, **options), FaultStep.LINK)
    calls = dict(workspace.sim.stats)
    for take_back in (
        lambda: undo(workspace, first),
        lambda: delete(workspace, workspace.read(), foreign=True),
    ):
        with pytest.raises(
            UsageError, match=f"run {unfinished} .upload. is unfinished, with 1 row"
        ) as refused:
            take_back()
        assert refused.value.exit_code == 2
        assert f"--resume {unfinished}" in refused.value.text.en
    assert workspace.sim.stats == calls
    assert len(tcb.all_runs(settings=workspace.settings)) == 2  # what was refused is not in the ledger
    tcb.resume(unfinished, **options)
    assert undo(workspace, first).counts == {"deleted": 1, "not_undoable": 1}


@pytest.mark.parametrize("take_back", [tcb.start_undo, tcb.start_delete])
def test_nothing_is_uploaded_beside_an_unfinished_undo_or_delete_of_the_same_paths(
    open_workspace: OpenWorkspace, take_back: Any
) -> None:
    workspace = open_workspace(many(TEA, rows=2))
    first = upload(workspace)
    options = {"settings": workspace.settings, "limits": QUICK}
    unfinished = interrupted(workspace, lambda: take_back(first, **options), FaultStep.DELETE)
    with pytest.raises(UsageError, match=f"run {unfinished} .* is unfinished, with 2 rows"):
        upload(workspace, new_run=True)
    tcb.resume(unfinished, **options)
    assert upload(workspace, new_run=True).counts == {"uploaded": 2}


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_of_an_upload_and_what_takes_its_paths_back_one_is_refused_or_the_upload_is_there(
    open_workspace: OpenWorkspace, rounds: int
) -> None:
    """Started at random, and from two threads with ledgers of their own, as by two operators."""
    dice, refusals = random.Random(28), 0
    workspace = open_workspace(many(TEA, BOOKS, rows=20))
    options = {"settings": workspace.settings, "limits": QUICK}
    for number in range(rounds):
        first = upload(workspace, new_run=True)
        for file in (workspace.folder / "files").iterdir():
            file.write_bytes(f"{number} {file.name}".encode())
        batch = workspace.read()
        upload_start, other_start = dice.random() / 4, dice.random() / 4
        take_back: Callable[[], Run] = dice.choice(
            [
                lambda first=first: tcb.undo(first, **options),
                lambda first=first: tcb.delete(first, **options),
                lambda batch=batch: tcb.delete(batch, new_run=True, content=True, **options),
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


def _after(seconds: float, start: Callable[[], Run]) -> Run:
    time.sleep(seconds)
    return start()
