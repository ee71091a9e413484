"""What later runs did to an upload's files is shown everywhere: undone, deleted, overwritten."""

import pytest
from workspace import BOOKS, QUICK, TEA, many

import tcb_ops as tcb
from tcb_ops.features.stored.kinds import DELETE, UNDO
from tcb_ops.model import Outcome
from tcb_ops.runs.list_kinds import UPLOAD


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
