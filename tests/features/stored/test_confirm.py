"""Confirm: whether files are there, and which; what later runs did to them: undone, deleted, overwritten."""

import pytest
from stored_runs import confirm, delete, ends, retry, undo, upload
from workspace import BOOKS, QUICK, TEA, many

import tcb_ops as tcb
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator import Fault, FaultStep, Reset
from tcb_ops.features.stored.kinds import DELETE, UNDO
from tcb_ops.model import Merchant, Outcome, Owner, Reason
from tcb_ops.runs.list_kinds import UPLOAD

OTHER = "1" * 32
PLATFORM = "wxcomponent"
OWN = Merchant(PLATFORM, "平台自有", "own-env-1", owner=Owner.PLATFORM)


@pytest.mark.slow
def test_files_are_confirmed_in_calls_of_fifty(open_workspace):
    workspace = open_workspace(many(TEA, BOOKS, rows=120))
    upload(workspace)
    run = confirm(workspace)
    assert run.counts == {"present": 240}
    assert run.succeeded
    assert workspace.sim.stats["download"] == 6
    assert workspace.sim.stats["fetched"] == 0
    assert list(run.results()["备注"])[:2] == ["第 0 行", "第 1 行"]


@pytest.mark.slow
def test_every_way_that_a_file_can_be_is_told(open_workspace, tmp_path):
    names = ["good", "gone", "other", "parts", "stale", "no-etag", "no-etag-other", "cached-parts", "empty"]
    workspace = open_workspace([(TEA.env, name) for name in names], store=tmp_path / "store")
    first = upload(workspace)
    workspace.sim.cache(TEA.env, "stale")
    for file in (workspace.folder / "files").iterdir():
        file.write_text(f"second {file.name}", encoding="utf-8")
    (workspace.folder / "files" / "8.bin").write_bytes(b"")
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
    upload(workspace)
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
    upload(workspace)

    def contradicting(files):
        first = [file for file in files if file["fileid"].endswith("/0.png")]
        rest = [file for file in files if not file["fileid"].endswith("/1.png")]
        return [*rest, *({**file, "status": -503003} for file in first)]

    workspace.sim.answer_files(contradicting)
    run = confirm(workspace)
    assert run.counts == {"present": 1, "unknown": 2}
    assert {r.end.reason for r in run.rows() if r.end.outcome == "unknown"} == {Reason.NO_ANSWER}
    workspace.sim.answer_files()
    again = retry(workspace, run)
    assert again.counts == {"present": 2}


@pytest.mark.slow
def test_a_link_to_another_file_is_not_followed(open_workspace, tmp_path):
    workspace = open_workspace([(TEA.env, "图 1+.png"), (TEA.env, "b.png")])
    upload(workspace)
    assert confirm(workspace, content=True).counts == {"present": 2}

    def exchanged(files):
        urls = [file["download_url"] for file in files]
        return [{**file, "download_url": url} for file, url in zip(files, reversed(urls), strict=True)]

    workspace.sim.answer_files(exchanged)
    assert confirm(workspace, content=True, new_run=True).counts == {"unknown": 2}
    assert upload(workspace, new_run=True).counts == {"uploaded": 2}


def test_a_call_that_is_too_large_is_halved(open_workspace):
    workspace = open_workspace(many(TEA, rows=60))
    upload(workspace)
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
        ({"garbage": True}, "unknown"),
        ({"errcode": 48001}, "unknown"),
        ({"errcode": -601002}, "unknown"),  # of each file
    ],
)
def test_answers_about_files_follow_the_policy_of_calls(open_workspace, fault, outcome):
    workspace = open_workspace(many(TEA, rows=5), [Fault(step=FaultStep.DOWNLOAD, **fault)])
    upload(workspace)
    assert confirm(workspace).counts == {outcome: 5}


@pytest.mark.slow
def test_files_of_an_environment_of_the_platform_are_confirmed_and_deleted(open_workspace, tmp_path):
    workspace = open_workspace(many(OWN, TEA, rows=3), merchants=[OWN, TEA], component_appid=PLATFORM)
    tokens = {"source": "file", "file": tmp_path / "tokens.csv", "component_appid": PLATFORM}
    options = {"settings": workspace.with_options(tokens=tokens), "limits": QUICK}
    tcb.upload(workspace.read(), **options)
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
    upload(workspace)
    for what in (confirm, undo, lambda workspace: delete(workspace, "latest")):
        with pytest.raises(UsageError, match="has no uploaded files"):
            what(workspace)


def test_only_an_upload_has_stored_files(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    upload(workspace)
    run = confirm(workspace)
    with pytest.raises(UsageError, match="only an upload has stored files"):
        confirm(workspace, run)


def test_links_and_tokens_stay_secret(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=3))
    upload(workspace)
    run = confirm(workspace, content=True)
    folder = run.export(tmp_path / "report")
    texts = [file.read_bytes() for file in folder.iterdir()] + [(workspace.folder / "ledger.db").read_bytes()]
    assert not any(b"sign=" in text or b"token-of-" in text for text in texts)


def changes(run):
    return [(change.kind, change.run, change.files, change.of) for change in run.changed_by]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_each_later_change_of_an_uploads_files_is_named(open_workspace, where, request):
    workspace = open_workspace(many(TEA, BOOKS, rows=10))
    ledger = str(workspace.folder / "ledger.db")
    if where != "sqlite":
        ledger = request.getfixturevalue("postgres").url(request.getfixturevalue("database"))
    settings = workspace.with_options(ledger=ledger)
    options = {"settings": settings, "limits": QUICK}
    first = tcb.upload(workspace.read(), **options)
    assert tcb.confirm(first, content=True, **options).counts == {"present": 20}
    assert (changes(first), first.confirmed is not None, first.mark) == ([], True, None)

    file = workspace.folder / "merchants.csv"
    books, tea = (tcb.read_merchants(file, [f"env={one.env}"]) for one in (BOOKS, TEA))
    deleted = tcb.delete(first, merchants=books, **options)
    assert changes(first) == [(DELETE, deleted.id, 10, 20)]
    assert first.confirmed is None
    assert changes(first.of_merchants(books)) == [(DELETE, deleted.id, 10, 10)]
    assert changes(first.of_merchants(tea)) == []

    for local in (workspace.folder / "files").iterdir():
        local.write_text(f"second {local.name}", encoding="utf-8")
    second = tcb.upload(workspace.read(), new_run=True, backup=workspace.folder / "backup", **options)
    assert changes(first) == [(UPLOAD, second.id, 20, 20)]
    undone = tcb.undo(second, **options)
    assert changes(second) == [(UNDO, undone.id, 20, 20)]
    assert first.outcomes == {Outcome.UPLOADED: 20}
    assert tcb.confirm(second, content=True, **options).counts == {"undone": 20}
    # What the second overwrote is back; what was deleted before is still deleted.
    assert changes(first) == [(DELETE, deleted.id, 10, 20)]
    assert str(first.mark) == f"partly deleted by {deleted.id}"


@pytest.mark.parametrize("content", [False, True])
def test_a_file_that_came_back_after_an_undo_is_not_undone(open_workspace, *, content):
    workspace = open_workspace(many(TEA, rows=3))
    options = {"settings": workspace.settings, "limits": QUICK}
    run = tcb.upload(workspace.read(), backup=workspace.folder / "backup", **options)
    uploaded = workspace.sim.content(TEA.env, "banner/0.png") or b""
    tcb.undo(run, **options)
    assert tcb.confirm(run, content=content, **options).counts == {"undone": 3}
    workspace.sim.put(TEA.env, "banner/0.png", uploaded)
    workspace.sim.put(TEA.env, "banner/1.png", b"somebody else's")
    found = tcb.confirm(run, content=content, new_run=True, **options)
    assert found.counts == {"present": 1, "different": 1, "undone": 1}


@pytest.mark.slow
def test_a_list_with_other_bytes_overwrites_the_same_paths(open_workspace):
    workspace = open_workspace(many(TEA, BOOKS, rows=100))
    options = {"settings": workspace.settings, "limits": QUICK}
    first = tcb.upload(workspace.read(), **options)
    lines = workspace.list.read_text(encoding="utf-8").splitlines()
    workspace.list.write_text("\n".join([lines[0], *lines[:50:-1]]) + "\n", encoding="utf-8")
    second = tcb.upload(workspace.read(), **options)
    assert changes(first) == [(UPLOAD, second.id, second.record.rows, 200)]
    assert changes(first.final()) == changes(first)
    assert str(first.mark) == f"partly overwritten by {second.id}"
