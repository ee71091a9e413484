"""The table of stored files: what is where, whose it is, and how the end of a row changes it.

Each row that ends writes to it in the same transaction. Whose file it is, is decided here, by pure functions of `StoredFile`; the
rules of undo, delete and confirm (`features/stored/rules.py`) ask them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcb_ops.ledger.records import RunRecord, may_have_changed
from tcb_ops.ledger.schema import any_of, sql_list
from tcb_ops.model import Outcome, Row, RowEnd
from tcb_ops.secrets import MASK

if TYPE_CHECKING:
    from tcb_ops.ledger.database import Connection


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What the ledger knows of a path of an environment. Runs are given by their ids; empty for none."""

    run: str
    """The run whose row left what is there."""
    line: int
    uploaded: bool
    """Whether that row sent the file; another tool's file that an undo put back was not."""
    changed: str
    """The run that changed the path last: `run`, or the undo that gave the file back to it."""
    changed_number: int
    """That run's number, which grows from run to run."""
    changed_at: float
    """When it did, in Unix seconds."""
    md5: str
    """Empty where nothing is there, or nothing is known."""
    bytes: int
    file_id: str
    content_type: str
    cache_control: str
    source: str
    """The URL that it was sent from, if that had a strong ETag."""
    etag: str
    """That ETag."""
    doubt: str
    """A run that may have changed the path since: it got no answer."""
    looked: str
    """The last run that ended at the path without changing it."""
    found: Outcome | None
    """How: a confirmation found the file, or another one; an upload or a deletion failed."""
    agrees: bool = True
    """Whether the row that left what is there says the same; if not, the table or the row is damaged."""
    pending: tuple[str, ...] = ()
    """Unfinished runs with a pending row for the path, at work after the last change: a call may be later than it."""
    restoring: bool = False
    """Whether one of them, or the run in doubt, may put another file there: an undo."""

    @property
    def is_known(self) -> bool:
        """Whether it is certain that this file is there."""
        contradicted = self.found is not None and not self.found.succeeded
        return bool(self.md5) and self.agrees and not (self.doubt or self.pending or contradicted)

    @property
    def is_gone(self) -> bool:
        """Whether it is certain that no file is there."""
        contradicted = self.found is not None and not self.found.succeeded
        return bool(self.changed) and not (self.md5 or self.doubt or self.pending or contradicted)

    def may_be(self, row: Row) -> bool:
        """Return whether a row's file may be this one: its size and its headers are the same. The bytes are to be compared."""
        same_size = row.size is None or row.size == self.bytes
        return same_size and (self.content_type, self.cache_control) == (row.content_type, row.cache_control)

    def has_etag_of(self, row: Row) -> bool:
        """Return whether a row's URL has the strong ETag that this file had: then the bytes are the same.

        Not if the part of the URL that is not kept tells files apart.
        """
        return bool(row.etag) and (row.etag, row.file) == (self.etag, self.source) and MASK not in row.file

    @property
    def is_ours(self) -> bool:
        """Whether the file that is there is one that a run uploaded.

        ======================================  ======
        the last change of the path             result
        ======================================  ======
        an upload                               yes
        an undo that gave back an upload's file yes
        an undo that put back any other file    no
        removed, or nothing is known            no
        any, and an undo may have restored one  no
        ======================================  ======

        An undo may have restored a file if it is unfinished or got no answer. An upload or a deletion that failed, or is
        pending, left a run's file there, or none.
        """
        return self.uploaded and bool(self.md5) and self.agrees and not self.restoring

    def is_of(self, uploads: Collection[str]) -> bool:
        """Return whether one of these runs uploaded the file that is there."""
        return self.uploaded and bool(self.md5) and self.agrees and self.run in uploads

    def changed_since(
        self, of_upload: Collection[str], number: int, *, certain: bool = True, sent: Collection[str] = ()
    ) -> str:
        """Return the run that changed the path after an upload; empty if none did.

        ====================================================  =======
        the last change of the path                           result
        ====================================================  =======
        none is known                                         none
        is of a run in `of_upload`                            none
        gave the file of a run in `of_upload` back            none
        put back what the upload had sent (`sent`)            none
        is older than an upload which may not have got there  none
        any other                                             its run
        ====================================================  =======

        `of_upload`: the upload, its retries, and what took them back. `number`: the upload's, which grows from run to run.
        `certain`: whether the upload stored its file for certain. `sent`: MD5s that it noted in its backup.
        """
        given_back = self.is_of(of_upload) or (not self.uploaded and self.md5 in sent)
        older = not certain and self.changed_number < number
        return "" if self.changed in of_upload or given_back or older else self.changed

    def may_have_changed(self, but_by: Collection[str]) -> str:
        """Return a run other than these that may have changed the path, or be about to; empty if there is none."""
        return next((run for run in (self.doubt, *self.pending) if run and run not in but_by), "")


@dataclass(frozen=True, slots=True)
class OwnFile:
    """What an upload and its retries stored for a row of theirs, or found unchanged."""

    md5: str
    bytes: int
    file_id: str
    content_type: str
    cache_control: str
    sent: frozenset[str]
    """The MD5s of what they uploaded."""
    replaced: str
    """The run that had left the file which they replaced; empty if there was none that the ledger knows."""


# --- how the end of a row changes the table ------------------------------------------------------------------

_STORED = sql_list(sorted(outcome for outcome in Outcome.all() if outcome.stored))
_OF_ROW = "rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place"
REPLACED = """(replaced_run, replaced_line) = (
    SELECT files.run, CASE WHEN files.md5 <> '' THEN files.line END FROM envs JOIN files ON files.store = envs.store
    WHERE envs.run = rows.run AND envs.no = rows.place AND files.path = rows.path)"""
"""What a row that changes a path notes about what was there; without a line, nothing was. It is set with the row's end."""
REPLACED_CACHED = """
    SELECT before.cache_control, COUNT(*) FROM rows
    JOIN rows AS before ON before.run = rows.replaced_run AND before.line = rows.replaced_line
    WHERE rows.run = ? AND rows.outcome = 'uploaded' AND before.cache_control <> '' AND before.md5 <> rows.md5 GROUP BY 1"""
"""The files that a run replaced by others and that caches may still show, by the Cache-Control with which they were sent."""
_WHAT = {
    "run": "rows.run",
    "line": "rows.line",
    "changed": "rows.run",
    "changed_at": "rows.ended_at",
    "md5": f"CASE WHEN rows.outcome IN ({_STORED}) THEN rows.md5 ELSE '' END",
    "bytes": "rows.bytes",
    "content_type": "rows.content_type",
    "cache_control": "rows.cache_control",
    "source": "CASE WHEN rows.etag IS NOT NULL THEN rows.file END",
    "etag": "rows.etag",
    "uploaded": f"rows.outcome = '{Outcome.UPLOADED}'",
}
_KEPT = {"file_id": "NULL", "doubt": "NULL", "looked": "NULL", "found": "''"}
CHANGE = f"""
    INSERT INTO files (store, path, {", ".join(_WHAT)}, {", ".join(_KEPT)})
    SELECT envs.store, rows.path, {", ".join(_WHAT.values())}, {", ".join(_KEPT.values())} FROM {{}}
    ON CONFLICT (store, path) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in (*_WHAT, *_KEPT))}"""
"""Writes what rows have left at their paths; `{}`: these rows, with their environments and conditions."""
CHANGE_ROW = CHANGE.format(f"{_OF_ROW} WHERE rows.run = ? AND rows.line = ?")
_AT_ROW = (
    f"(store, path) = (SELECT envs.store, rows.path FROM {_OF_ROW} WHERE rows.run = ? AND rows.line = ?)"
)
_DOUBT = f"""
    INSERT INTO files (store, path, uploaded, doubt) SELECT envs.store, rows.path, FALSE, rows.run FROM {_OF_ROW}
    WHERE rows.run = ? AND {{}}
    ON CONFLICT (store, path) DO UPDATE SET doubt = excluded.doubt"""
_DOUBT_ROW = _DOUBT.format("rows.line = ? {}")
DOUBT_PENDING = _DOUBT.format("rows.place = ? AND rows.outcome = 'pending' {}")
"""Notes a doubt about the paths of an environment's pending rows; `{}`: which."""
_AFTER_CALLS = "AND EXISTS (SELECT 1 FROM runs WHERE number = rows.run AND upload_calls > 0)"
"""A run that has called the store; the first call of an upload is one for a link."""
_FOUND = f"UPDATE files SET looked = ?, found = ? WHERE {_AT_ROW} AND {{}}"
_ANYTHING = "'' = ?"
UNCERTAIN = frozenset({Outcome.FAILED, Outcome.REFUSED, Outcome.NOT_ATTEMPTED})
"""The ends of rows that may have changed their paths without a confirmation; see `may_have_changed`."""
_OF_SAME_FILE = "md5 = ?"
_UNCONTRADICTED = f"'' = ? AND found IN ({sql_list(['', *sorted(Outcome.successes())])})"
"""A failure, or a file of which only the name was looked at, says less than a finding that contradicts the table."""
_REPLACED_BY = "SELECT replaced_run, replaced_line FROM rows WHERE run = ? AND line = ?"
_UPLOADED = f"""
    SELECT 1 FROM rows WHERE run = ? AND line = ? AND outcome = '{Outcome.UPLOADED}'
    AND md5 = (SELECT md5 FROM rows WHERE run = ? AND line = ?)"""
_GIVE_BACK = f"UPDATE files SET run = ?, line = ?, uploaded = ? WHERE {_AT_ROW}"


def changing(run: RunRecord, ends: Sequence[RowEnd]) -> list[RowEnd]:
    """Return the ends after which another file, or none, is at the row's path."""
    return [end for end in ends if end.outcome in run.kind.replacing]


def note_what_else(connection: Connection, run: RunRecord, ends: Sequence[RowEnd]) -> None:
    """Write what ends say of their paths besides `changing`: doubts, what was found, and whose file an undo put back."""
    kind = run.kind
    statements = defaultdict[str, list[tuple[Any, ...]]](list)
    has_called = _AFTER_CALLS if kind.sends_files and run.cut_off is None else ""
    undone = set[int]()
    if run.settings.undoes:
        listed = run.settings.of
        query = f"SELECT number FROM runs WHERE {any_of('id', listed)}"
        undone = {number for (number,) in connection.execute(query, listed)}
    for end in ends:
        at = (run.number, end.line)
        if kind.changes_store and end.outcome in UNCERTAIN:
            if may_have_changed(end, kind, run.settings, run.cut_off):
                statements[_DOUBT_ROW.format(has_called)].append(at)
            if end.outcome is Outcome.FAILED:
                statements[_FOUND.format(_UNCONTRADICTED)].append(
                    (run.number, str.__str__(Outcome.FAILED), *at, "")
                )
        elif end.outcome in kind.replacing and run.settings.undoes:
            _give_back(connection, at, undone)
        elif end.outcome in kind.findings_of_files:
            compared = end.md5 if end.bytes is not None else ""  # a file was there
            otherwise = _UNCONTRADICTED if end.outcome.succeeded else _ANYTHING
            statement = _FOUND.format(_OF_SAME_FILE if compared else otherwise)
            statements[statement].append((run.number, str.__str__(end.outcome), *at, compared))
    for statement, values in statements.items():
        connection.cursor().executemany(statement, values)


def says_more(run: RunRecord, ends: Sequence[RowEnd]) -> bool:
    """Return whether `note_what_else` has something to write."""
    kind = run.kind
    if kind.changes_store:
        return bool(run.settings.undoes) or any(end.outcome in UNCERTAIN for end in ends)
    return bool(kind.findings_of_files)


def _give_back(connection: Connection, at: tuple[int, int], undone: Collection[int]) -> None:
    """Give a path back to who had it before the upload that a row has undone: if it left there what had been there."""
    # Row by row back to the first that is not undone: a retry replaced what its upload had left, and both are taken back. The
    # file is given back only if the undo left what that row had left: the same bytes, or nothing as there was nothing.
    before = connection.execute(_REPLACED_BY, at).fetchone()
    while before is not None and before[0] in undone:
        before = connection.execute(_REPLACED_BY, before).fetchone()
    if before is None or before[0] is None:
        return
    (is_there,) = connection.execute(f"SELECT md5 <> '' FROM files WHERE {_AT_ROW}", at).fetchone()
    if bool(is_there) != (before[1] is not None):
        return
    if not is_there or connection.execute(_UPLOADED, (*before, *at)).fetchone():
        connection.execute(_GIVE_BACK, (*before, bool(is_there), *at))


FORGET = "DELETE FROM files WHERE changed IS NULL OR changed NOT IN (SELECT number FROM pruned_runs)"
"""Empties the table, except for what only pruned runs could tell."""


def replay(connection: Connection, run: RunRecord, end: RowEnd) -> None:
    """Write the end of a row again, unless something newer is known of its path."""
    at = (run.number, end.line)
    if not connection.execute(
        f"SELECT 1 FROM files WHERE {_AT_ROW} AND changed_at > ?", (*at, end.ended_at)
    ).fetchone():
        if end.outcome in run.kind.replacing:
            connection.execute(CHANGE_ROW, at)
        note_what_else(connection, run, [end])


def keep_file_ids(connection: Connection, run: RunRecord) -> None:
    """Write the file_ids of what a run has left into the table, before its rows are removed."""
    connection.execute(
        f"""
        UPDATE files SET file_id = rows.file_id FROM {_OF_ROW}
        WHERE rows.run = ? AND files.store = envs.store AND files.path = rows.path
        AND files.run = rows.run AND files.line = rows.line""",
        (run.number,),
    )


@dataclass(frozen=True, slots=True)
class RunName:
    """A run that the table names by its number."""

    id: str
    pruned: bool
    restores: bool
    """Whether it may put back a file that no run has sent."""


def stored_file(
    record: Sequence[Any], names: Mapping[int, RunName], pending: Sequence[tuple[int, str, bool]]
) -> StoredFile:
    """Return the file of a record of FILE_COLUMNS.

    `names`: runs by their numbers. `pending`: rows, as (number of the newest run when theirs was at work, its id, restoring).
    """
    run, line, uploaded, changed, changed_at, md5, size, file_id, *headers, doubt, looked, found, agrees = (
        record
    )
    content_type, cache_control, source, etag = (text or "" for text in headers)
    nobody = RunName("", pruned=False, restores=False)
    newer = [(run_id, restoring) for newest_run, run_id, restoring in pending if newest_run >= (changed or 0)]
    return StoredFile(
        names.get(run, nobody).id,
        line or 0,
        bool(uploaded),
        names.get(changed, nobody).id,
        changed or 0,
        changed_at or 0.0,
        md5,
        size or 0,
        file_id or "",
        content_type,
        cache_control,
        source,
        etag,
        names.get(doubt, nobody).id,
        names.get(looked, nobody).id,
        Outcome(found) if found else None,
        names.get(run, nobody).pruned if agrees is None else bool(agrees),
        tuple(run_id for run_id, _restoring in newer),
        names.get(doubt, nobody).restores or any(restoring for _run, restoring in newer),
    )


FILE_COLUMNS = f"""
    files.run, files.line, files.uploaded, changed, changed_at, files.md5, files.bytes,
    COALESCE(files.file_id, rows.file_id), files.content_type, files.cache_control, source, files.etag, doubt, looked, found,
    CASE WHEN files.md5 = '' THEN TRUE WHEN rows.run IS NOT NULL THEN rows.path = files.path AND rows.md5 = files.md5
        AND rows.outcome IN ({_STORED}) AND (rows.outcome = '{Outcome.UPLOADED}') = files.uploaded END"""
DIFFERING = f"""
    SELECT COUNT(*) FROM {_OF_ROW} LEFT JOIN files ON files.store = envs.store AND files.path = rows.path
    WHERE rows.run = ? AND rows.outcome IN ({{}}) AND (
        files.changed IS NULL OR (files.changed < rows.run AND files.changed_at < rows.ended_at)
        OR files.run IS NULL OR (files.run = rows.run AND (
            files.line <> rows.line OR files.md5 <> {_WHAT["md5"]} OR files.uploaded <> ({_WHAT["uploaded"]}))))"""
"""Counts the rows of a run whose paths the table has as if they had not been changed; `{{}}`: the outcomes that change them."""
FILES = "files LEFT JOIN rows ON rows.run = files.run AND rows.line = files.line"
"""The table, with the rows that left what is there. Of a run that was pruned, there is none."""
