"""Confirm: whether files are there, and which. Delete: nothing but what is meant. What later runs did to an upload's files is shown."""

import sqlite3

import pytest
from stored_runs import confirm, delete, ends, stored, undo, upload_other
from workspace import BOOKS, QUICK, TEA, TEA_TEST, cancel, many, write_csv

import tcb_ops as tcb
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.features.stored.kinds import DELETE, UNDO
from tcb_ops.model import Merchant, Outcome, Owner, Reason

pytestmark = pytest.mark.slow

OTHER = "1" * 32
PLATFORM = "wxcomponent"
OWN = Merchant(PLATFORM, "平台自有", "own-env-1", owner=Owner.PLATFORM)


def test_files_are_confirmed_in_calls_of_fifty(open_workspace):
    workspace = open_workspace(many(TEA, BOOKS, rows=120))
    workspace.upload()
    run = confirm(workspace)
    assert run.counts == {"present": 240}
    assert run.succeeded
    assert workspace.sim.stats["download"] == 6
    assert workspace.sim.stats["fetched"] == 0
    assert list(run.results()["备注"])[:2] == ["第 0 行", "第 1 行"]


def test_every_way_that_a_file_can_be_is_told(open_workspace, tmp_path):
    names = ["good", "gone", "other", "parts", "stale", "no-etag", "no-etag-other", "cached-parts", "empty"]
    workspace = open_workspace([(TEA.env, name) for name in names], store=tmp_path / "store")
    first = workspace.upload()
    workspace.sim.cache(TEA.env, "stale")
    for file in (workspace.folder / "files").iterdir():
        file.write_text(f"second {file.name}", encoding="utf-8")
    (workspace.folder / "files" / "8.bin").write_bytes(b"")
    workspace.upload()
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
        "empty": "present",
    }
    assert sum(run.counts.values()) == 9
    # Of the first upload, what the second put there is other bytes, and no older ones.
    again = confirm(workspace, first, content=True)
    assert ends(again)[TEA.env, "good"] == "different"
    # Without the bytes, a file that is there is present.
    assert confirm(workspace).counts == {"present": 8, "absent": 1}


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
def test_an_odd_answer_changes_nothing(open_workspace, alter, kind):
    workspace = open_workspace(many(TEA, rows=7))
    workspace.upload()
    workspace.sim.remove(TEA.env, "banner/3.png")
    workspace.sim.answer_files(alter)
    if kind == "confirm":
        run = confirm(workspace)
        assert run.counts == {"present": 6, "absent": 1}
        assert ends(run)[TEA.env, "banner/3.png"] == "absent"
    else:
        run = delete(workspace, "latest")
        counts = run.counts  # what a first answer left out is gone when it is asked about again
        assert counts["deleted"] + counts["already_gone"] == 7
        assert workspace.sim.objects == {}


def test_contradictions_and_files_that_are_never_mentioned_end_as_unknown(open_workspace):
    workspace = open_workspace(many(TEA, rows=3))
    workspace.upload()

    def contradicting(files):
        first = [file for file in files if file["fileid"].endswith("/0.png")]
        rest = [file for file in files if not file["fileid"].endswith("/1.png")]
        return [*rest, *({**file, "status": -503003} for file in first)]

    workspace.sim.answer_files(contradicting)
    run = confirm(workspace)
    assert run.counts == {"present": 1, "unknown": 2}
    assert {r.end.reason for r in run.rows() if r.end.outcome == "unknown"} == {Reason.NO_ANSWER}
    workspace.sim.answer_files()
    assert workspace.retry(run.id).counts == {"present": 2}


def test_a_link_to_another_file_is_not_followed(open_workspace, tmp_path):
    workspace = open_workspace([(TEA.env, "图 1+.png"), (TEA.env, "b.png")])
    workspace.upload()
    assert confirm(workspace, content=True).counts == {"present": 2}

    def exchanged(files):
        urls = [file["download_url"] for file in files]
        return [{**file, "download_url": url} for file, url in zip(files, reversed(urls), strict=True)]

    workspace.sim.answer_files(exchanged)
    assert confirm(workspace, content=True, new_run=True).counts == {"unknown": 2}
    assert workspace.upload(new_run=True).counts == {"uploaded": 2}


def test_a_call_that_is_too_large_is_halved(open_workspace):
    workspace = open_workspace(many(TEA, rows=60))
    workspace.upload()
    workspace.sim.answer_files(most=20)
    assert confirm(workspace).counts == {"present": 60}
    assert workspace.sim.stats["download:40097"] == 3  # 50, 25, 25
    assert delete(workspace, "latest").counts == {"deleted": 60}


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"errcode": -1, "calls": ((1, 1),)}, "present"),
        ({"reset": Reset.BEFORE, "calls": ((1, 1),)}, "present"),
        ({"status": 502, "calls": ((1, 1),)}, "present"),
        ({"body": "garbage"}, "unknown"),
        ({"errcode": 48001}, "unknown"),
        ({"errcode": -601002}, "unknown"),  # of each file
    ],
)
def test_answers_about_files_follow_the_policy_of_calls(open_workspace, fault, outcome):
    workspace = open_workspace(many(TEA, rows=5), [Fault(step=FaultStep.DOWNLOAD, **fault)])
    workspace.upload()
    assert confirm(workspace).counts == {outcome: 5}


def test_files_of_an_environment_of_the_platform_are_confirmed_and_deleted(open_workspace, tmp_path):
    workspace = open_workspace(many(OWN, TEA, rows=3), merchants=[OWN, TEA], component_appid=PLATFORM)
    tokens = {"source": "file", "file": tmp_path / "tokens.csv", "component_appid": PLATFORM}
    options = {"settings": workspace.with_options(tokens=tokens), "limits": QUICK}
    workspace.upload(**options)
    workspace.sim.remove(OWN.env, "banner/1.png")
    workspace.sim.put(OWN.env, "banner/2.png", b"theirs")
    assert tcb.confirm("latest", content=True, **options).counts == {
        "present": 4,
        "absent": 1,
        "different": 1,
    }
    assert tcb.delete("latest", **options).counts == {"deleted": 5, "already_gone": 1}
    assert workspace.sim.objects == {}


def test_a_run_that_uploaded_nothing_has_nothing_to_confirm(open_workspace):
    workspace = open_workspace(many(TEA, rows=2), [Fault(errcode=85088)])
    workspace.upload()
    for what in (confirm, undo, lambda workspace: delete(workspace, "latest")):
        with pytest.raises(UsageError, match="has no uploaded files"):
            what(workspace)


def test_only_an_upload_has_stored_files(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    workspace.upload()
    run = confirm(workspace)
    with pytest.raises(UsageError, match="only an upload has stored files"):
        confirm(workspace, run)


def test_links_and_tokens_stay_secret(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=3))
    workspace.upload()
    run = confirm(workspace, content=True)
    folder = run.export(tmp_path / "report")
    texts = [file.read_bytes() for file in folder.iterdir()] + [(workspace.folder / "ledger.db").read_bytes()]
    assert not any(b"sign=" in text or b"token-of-" in text for text in texts)


def changes(run):
    assert run.changed_by() == run.overview().changed_by
    return [(change.kind, change.run, change.files, change.of) for change in run.changed_by()]


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_each_later_change_of_an_uploads_files_is_named(open_workspace, where, request):
    workspace = open_workspace(many(TEA, BOOKS, rows=10))
    ledger = str(workspace.folder / "ledger.db")
    if where != "sqlite":
        ledger = request.getfixturevalue("postgres").url(request.getfixturevalue("database"))
    settings = workspace.with_options(ledger=ledger)
    options = {"settings": settings, "limits": QUICK}
    first = workspace.upload(**options)
    assert tcb.confirm(first, content=True, **options).counts == {"present": 20}
    assert (changes(first), first.overview().confirmed is not None, first.mark) == ([], True, None)

    file = workspace.folder / "merchants.csv"
    books, tea = (tcb.read_merchants(file, [f"env={one.env}"]) for one in (BOOKS, TEA))
    deleted = tcb.delete(first, merchants=books, **options)
    assert changes(first) == [(DELETE, deleted.id, 10, 20)]
    assert first.overview().confirmed is None
    assert changes(first.of_merchants(books)) == [(DELETE, deleted.id, 10, 10)]
    assert changes(first.of_merchants(tea)) == []

    for local in (workspace.folder / "files").iterdir():
        local.write_text(f"second {local.name}", encoding="utf-8")
    second = workspace.upload(new_run=True, backup=workspace.folder / "backup", **options)
    assert changes(first) == [(UPLOAD, second.id, 20, 20)]
    undone = tcb.undo(second, **options)
    assert changes(second) == [(UNDO, undone.id, 20, 20)]
    assert first.outcomes == {Outcome.UPLOADED: 20}
    assert tcb.confirm(second, content=True, **options).counts == {"undone": 20}
    assert tcb.undo(second, new_run=True, **options).counts == {"left": 20}
    assert str(second.mark) == f"undone by {undone.id}", "the undo after it changed nothing"
    # What the second overwrote is back; what was deleted before is still deleted.
    assert changes(first) == [(DELETE, deleted.id, 10, 20)]
    assert str(first.mark) == f"partly deleted by {deleted.id}"


@pytest.mark.parametrize("content", [False, True])
def test_a_file_that_came_back_after_an_undo_is_not_undone(open_workspace, *, content):
    workspace = open_workspace(many(TEA, rows=3))
    options = {"settings": workspace.settings, "limits": QUICK}
    run = workspace.upload(backup=workspace.folder / "backup", **options)
    uploaded = workspace.sim.content(TEA.env, "banner/0.png") or b""
    tcb.undo(run, **options)
    assert tcb.confirm(run, content=content, **options).counts == {"undone": 3}
    workspace.sim.put(TEA.env, "banner/0.png", uploaded)
    workspace.sim.put(TEA.env, "banner/1.png", b"somebody else's")
    found = tcb.confirm(run, content=content, new_run=True, **options)
    assert found.counts == {"present": 1, "different": 1, "undone": 1}


def test_a_list_with_other_bytes_overwrites_the_same_paths(open_workspace):
    workspace = open_workspace(many(TEA, BOOKS, rows=100))
    options = {"settings": workspace.settings, "limits": QUICK}
    first = workspace.upload(**options)
    lines = workspace.list.read_text(encoding="utf-8").splitlines()
    workspace.list.write_text("\n".join([lines[0], *lines[:50:-1]]) + "\n", encoding="utf-8")
    second = workspace.upload(**options)
    assert changes(first) == [(UPLOAD, second.id, second.record.rows, 200)]
    assert changes(first.final()) == changes(first)
    assert first.mark is None, "a list of runs names only what took files back"


def test_a_deleted_file_is_not_unchanged(open_workspace):
    workspace = open_workspace(many(TEA, rows=3))
    workspace.upload()
    assert delete(workspace, "latest").counts == {"deleted": 3}
    assert workspace.sim.objects == {}
    assert workspace.upload(skip_unchanged=True, new_run=True).counts == {"uploaded": 3}


def test_nothing_but_what_is_named_is_deleted(open_workspace):
    workspace = open_workspace([*many(TEA, rows=3), *many(TEA_TEST, rows=3)])
    workspace.upload()
    workspace.sim.put(TEA.env, "banner/99.png", b"another tool's")
    write_csv(workspace.list, ("env", "path"), [(TEA.env, "banner/1.png")])
    run = delete(workspace, tcb.read_paths(workspace.list, workspace.merchants))
    assert run.counts == {"deleted": 1}
    assert len(workspace.sim.objects) == 6


def test_files_that_the_ledger_did_not_write_need_foreign(open_workspace):
    workspace = open_workspace(many(TEA, rows=1))
    workspace.upload()
    workspace.sim.put(TEA.env, "theirs.png", b"another tool's")
    write_csv(workspace.list, ("env", "path"), [(TEA.env, "banner/0.png"), (TEA.env, "theirs.png")])
    batch = tcb.read_paths(workspace.list, workspace.merchants)
    with pytest.raises(UsageError, match=r"(?s)1 file was not uploaded.*theirs\.png.*foreign=True"):
        delete(workspace, batch)
    assert len(workspace.sim.objects) == 2
    assert delete(workspace, batch, foreign=True).counts == {"deleted": 2}


def test_a_file_that_came_after_our_deletion_is_foreign(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    delete(workspace, workspace.upload())
    workspace.sim.put(TEA.env, "banner/0.png", b"a colleague's")
    with pytest.raises(UsageError, match="2 files were not uploaded by a run of this ledger"):
        delete(workspace, workspace.read())
    assert len(stored(workspace)) == 1


def test_what_a_later_run_uploaded_is_neither_deleted_nor_undone(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    first = workspace.upload()
    upload_other(workspace, TEA.env, "banner/0.png")
    assert undo(workspace, first.id).counts == {"not_undoable": 1, "deleted": 1}
    assert list(stored(workspace)) == [(TEA.env, "banner/0.png")]
    with pytest.raises(UsageError, match="2 files are left out: other runs have uploaded to their paths"):
        delete(workspace, first.id)
    assert len(stored(workspace)) == 1


def test_a_file_that_comes_back_is_not_already_gone(open_workspace):
    workspace = open_workspace(many(TEA, rows=1))
    workspace.upload()
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
    workspace.upload()
    first = delete(workspace, "latest")
    assert first.counts == {"deleted": 2, "refused": 2}
    workspace.sim.play([])
    upload_other(workspace, BOOKS.env, "banner/0.png")
    assert workspace.retry(first.id).counts == {"deleted": 1, "failed": 1}
    assert list(stored(workspace)) == [(BOOKS.env, "banner/0.png")]


def test_an_interrupted_delete_is_resumed_by_the_same_call(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, BOOKS, rows=2))
    workspace.upload()
    batch = workspace.read()
    handle = interrupted_delete(workspace, wait_for, batch)
    run = delete(workspace, batch)  # what it has deleted itself is not foreign
    assert (run.id, run.counts) == (handle.id, {"deleted": 4})


def test_a_delete_of_a_run_that_has_only_to_be_finished_can_be(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    first = workspace.upload()
    run = delete(workspace, first.id)
    with sqlite3.connect(workspace.folder / "ledger.db") as db:
        db.execute("UPDATE runs SET finished_at = NULL WHERE id = ?", (run.id,))
    again = delete(workspace, first.id)
    assert (again.id, again.record.finished_at is not None) == (run.id, True)


def test_a_new_delete_takes_nothing_that_came_after_an_unfinished_one(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, BOOKS, rows=2))
    first = workspace.upload()
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
    workspace.upload(backup=tmp_path / "backup")
    workspace.sim.play([Fault(step=FaultStep.DELETE, errcode=48001)])
    refused = delete(workspace, workspace.read())
    workspace.sim.play([])
    assert undo(workspace).counts == {"restored": 1}
    assert workspace.retry(refused.id).counts == {"failed": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"before"}


def test_a_delete_leaves_paths_that_an_unfinished_upload_may_have_written(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, BOOKS, rows=1))
    first = workspace.upload()
    workspace.sim.play([Fault(step=FaultStep.STORE, env=BOOKS.env, delay=60)])
    handle = workspace.start_upload(new_run=True)
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    cancel(handle)
    workspace.sim.play([])
    with pytest.raises(UsageError, match="2 files are left out"):
        delete(workspace, first.id)


def test_a_delete_without_an_answer_can_be_given_again(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    run = workspace.upload()
    workspace.sim.play([Fault(step=FaultStep.DELETE, reset=Reset.BEFORE)])
    assert delete(workspace, run.id).counts == {"failed": 2}
    workspace.sim.play([])
    assert delete(workspace, run.id).counts == {"deleted": 2}
