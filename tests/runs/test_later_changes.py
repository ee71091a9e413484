"""What later runs did to an upload's files is shown everywhere: undone, deleted, overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from workspace import BOOKS, QUICK, TEA, many

import tcb_ops as tcb
from tcb_ops.model import Kind, Outcome
from tcb_ops.runs.stored_files import undone_outcome

if TYPE_CHECKING:
    from pathlib import Path

    from workspace import OpenWorkspace, Workspace


def upload(workspace: Workspace, **options: Any) -> tcb.Run:
    return tcb.upload(workspace.read(), settings=workspace.settings, limits=QUICK, **options)


def changes(run: tcb.Run) -> list[tuple[Kind, str, int, int]]:
    return [(change.kind, change.run, change.files, change.of) for change in run.changed_by]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_each_later_change_of_an_uploads_files_is_named(
    open_workspace: OpenWorkspace, where: str, request: pytest.FixtureRequest
) -> None:
    workspace = open_workspace(many(TEA, BOOKS, rows=10))
    ledger = str(workspace.folder / "ledger.db") if where == "sqlite" else request.getfixturevalue("database")
    settings = workspace.with_options(ledger=ledger)
    options: dict[str, Any] = {"settings": settings, "limits": QUICK}
    first = tcb.upload(workspace.read(), **options)
    assert tcb.confirm(first, content=True, **options).counts == {"present": 20}
    assert (changes(first), first.confirmed is not None, first.mark) == ([], True, None)

    file = workspace.folder / "merchants.csv"
    books, tea = (tcb.read_merchants(file, [f"env={one.env}"]) for one in (BOOKS, TEA))
    deleted = tcb.delete(first, merchants=books, **options)
    assert changes(first) == [(Kind.DELETE, deleted.id, 10, 20)]
    assert first.confirmed is None
    assert changes(first.of_merchants(books)) == [(Kind.DELETE, deleted.id, 10, 10)]
    assert changes(first.of_merchants(tea)) == []

    second = tcb.upload(workspace.read(), new_run=True, backup=workspace.folder / "backup", **options)
    assert changes(first) == [(Kind.UPLOAD, second.id, 20, 20)]
    undone = tcb.undo(second, **options)
    assert changes(second) == [(Kind.UNDO, undone.id, 20, 20)]
    assert first.outcomes == {Outcome.UPLOADED: 20}
    # What the second overwrote is back; what was deleted before is still deleted.
    assert changes(first) == [(Kind.DELETE, deleted.id, 10, 20)]
    assert str(first.mark) == f"partly deleted by {deleted.id}"
