"""Which rows a run about stored files has: those that an upload stored, or those of a list."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import UsageError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Text, _, as_lines, as_sentences, ngettext
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import Batch
from tcb_ops.model import Kind, Outcome, Row
from tcb_ops.runs.backup import Backup, BackupError, SavedFile
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.locks import hold
from tcb_ops.runs.plan import RunSpec, environments_of_rows, list_spec
from tcb_ops.runs.records import EarlierUpload, EnvRecord, RunRecord

_CHUNK = 500
"""Paths that the ledger is asked about at once."""
_LISTED = 20
"""Foreign files that an error lists."""
_STORED = frozenset({Outcome.UPLOADED, Outcome.UNCHANGED})


@dataclass(frozen=True, slots=True)
class UndoScope:
    """What an undo would do, by rows."""

    restored: int
    deleted: int
    not_undoable: int

    @property
    def text(self) -> Text:
        """The figures in words."""
        parts = [
            ngettext(
                "{n:,} file is restored from the backup.",
                "{n:,} files are restored from the backup.",
                self.restored,
            )
            if self.restored
            else None,
            ngettext(
                "{n:,} file was new and is deleted.", "{n:,} files were new and are deleted.", self.deleted
            )
            if self.deleted
            else None,
            ngettext(
                "{n:,} file cannot be undone: its earlier version is not in a backup, or another run has changed it since.",
                "{n:,} files cannot be undone: their earlier versions are not in a backup, or other runs have changed them "
                "since.",
                self.not_undoable,
            )
            if self.not_undoable
            else None,
        ]
        return as_sentences(part for part in parts if part is not None)


def confirm_spec(
    ledger: Ledger, subject: RunRecord, only: Merchants | None, selection: str, *, content: bool
) -> RunSpec:
    """Return the rows that a run has uploaded, or left unchanged, its retries included. Raises UsageError where there are none."""
    options = {
        "content": content,
        "backup": subject.settings.get("backup", ""),
        "root": subject.root,
    }
    return _of_run(ledger, subject, Kind.CONFIRM, _STORED, only, selection, options)


def delete_spec(ledger: Ledger, subject: RunRecord, only: Merchants | None, selection: str) -> RunSpec:
    """Return the rows that a run has uploaded, its retries included, without paths that another run has written since.

    Raises UsageError where there are none, or if a process works on the run.
    """
    uploaded = frozenset({Outcome.UPLOADED})
    spec = _of_run(ledger, subject, Kind.DELETE, uploaded, only, selection, {})
    of = frozenset(spec.options["of"])

    def rows() -> Iterator[Row]:
        for row, written in known_files(ledger, spec.rows(), subject.target):
            if not _written_since(written, of):
                yield row

    left_out = sum(1 for _row in spec.rows()) - sum(1 for _row in rows())
    if not left_out:
        return spec
    environments = environments_of_rows(rows(), _merchants_of(spec.environments))
    text = ngettext(
        "{n:,} file is left out: another run has uploaded to its path, or deleted it, since.",
        "{n:,} files are left out: other runs have uploaded to their paths, or deleted them, since.",
        left_out,
    )
    if not environments:
        raise UsageError(text)
    return replace(spec, rows=rows, environments=environments, warning=text)


def undo_spec(ledger: Ledger, subject: RunRecord, only: Merchants | None, selection: str) -> RunSpec:
    """Return the rows that a run has uploaded, each with what undoes it.

    A row whose path had a file has that file in the backup as its local file; a row whose path was free has none; a row that
    replaced an earlier upload without a backup has its problem, and ends as not_undoable. Raises UsageError.
    """
    kept = str(subject.settings.get("backup", ""))
    backup = Backup(Path(kept)) if kept else None
    uploaded = frozenset({Outcome.UPLOADED})
    spec = _of_run(
        ledger, subject, Kind.UNDO, uploaded, only, selection, {"backup": kept, "undoes": subject.id}
    )

    undos = ledger.runs(subject.target)
    again = frozenset(run.id for run in undos if run.settings.get("undoes") == subject.id)

    def rows() -> Iterator[Row]:
        for some in _in_chunks(spec.rows()):
            yield from _undone(ledger, subject, some, backup, frozenset(spec.options["of"]), again)

    return replace(spec, rows=rows, root=backup.folder if backup is not None else None)


def scope_of_undo(spec: RunSpec) -> UndoScope:
    """Count what an undo would do."""
    counts = Counter("no" if row.invalid else "restore" if row.file else "delete" for row in spec.rows())
    return UndoScope(counts["restore"], counts["delete"], counts["no"])


def confirm_list_spec(batch: Batch, selection: str, *, content: bool) -> RunSpec:
    """Return the rows of a list, to be compared with what the ledger last stored at their paths."""
    spec = list_spec(batch, Kind.CONFIRM, selection)
    return replace(spec, options={**spec.options, "content": content})


def delete_list_spec(ledger: Ledger, batch: Batch, target: str, selection: str, *, foreign: bool) -> RunSpec:
    """Return the rows of a list. Raises UsageError where runs of this ledger wrote not all of them, and `foreign` is not given."""
    spec = list_spec(batch, Kind.DELETE, selection)
    if not foreign and (listed := foreign_text(ledger, spec, target)) is not None:
        raise UsageError(
            as_sentences((listed, _("Nothing was deleted."))),
            _("To delete them as well: --foreign"),
            options=["--foreign"],
        )
    return spec


def foreign_text(ledger: Ledger, spec: RunSpec, target: str) -> Text | None:
    """List the files of a delete that no run of the ledger uploaded; None where there are none."""
    count, first = foreign_rows(ledger, spec, target)
    if not count:
        return None
    head = ngettext(
        "{n:,} file was not uploaded by a run of this ledger:",
        "{n:,} files were not uploaded by a run of this ledger:",
        count,
    )
    more = [_("and {n:,} more", n=count - len(first))] if count > len(first) else []
    return as_lines([head, *(f"{sanitize(row.env)}  {sanitize(row.path)}" for row in first), *more])


def foreign_rows(ledger: Ledger, spec: RunSpec, target: str) -> tuple[int, list[Row]]:
    """Count the rows whose files no run of the ledger wrote; return the first of them."""
    count, first = 0, list[Row]()
    for row, written in known_files(ledger, spec.rows(), target):
        if not row.invalid and not (written and written[-1].md5):
            count += 1
            first += [row] if len(first) < _LISTED else []
    return count, first


def overwritten_rows(ledger: Ledger, rows: Iterable[Row], target: str) -> int:
    """Count the rows whose path an earlier run wrote, so that an upload replaces its file."""
    return sum(bool(written and written[-1].md5) for _row, written in known_files(ledger, rows, target))


def known_files(
    ledger: Ledger, rows: Iterable[Row], target: str, leave_out: int = -1
) -> Iterator[tuple[Row, list[EarlierUpload]]]:
    """Give each row with what runs to a target put at its path, the oldest first; not the run numbered `leave_out`."""
    for some in _in_chunks(rows):
        by_env: defaultdict[str, list[str]] = defaultdict(list)
        for row in some:
            by_env[row.env].append(row.path)
        found = {env: ledger.written(target, leave_out, env, paths) for env, paths in by_env.items()}
        for row in some:
            yield row, found[row.env].get(row.path, [])


def file_ids(ledger: Ledger, spec: RunSpec, target: str) -> Iterator[tuple[Row, str]]:
    """Give the rows of an upload with the file_ids that the platform gave them; empty where none is known."""
    of = set(spec.options["of"])
    for row, written in known_files(ledger, spec.rows(), target):
        ids = [one.file_id for one in written if one.run in of and one.file_id.endswith(f"/{row.path}")]
        yield row, ids[-1] if ids else ""


def check_subject(subject: RunRecord, target: str) -> None:
    """Raise UsageError for a run that is no upload, or went to another target."""
    if subject.kind is not Kind.UPLOAD:
        raise UsageError(
            _(
                "run {id} is a run of {kind}: only an upload has stored files.",
                id=subject.id,
                kind=subject.kind,
            )
        )
    if subject.target != target:
        raise UsageError(
            _(
                "run {id} went to {target}, and now the target is {run_target}.",
                id=subject.id,
                target=subject.target,
                run_target=target,
            ),
            _("Give its target with --target."),
            options=["--target"],
        )


def _of_run(
    ledger: Ledger,
    subject: RunRecord,
    kind: Kind,
    outcomes: frozenset[Outcome],
    only: Merchants | None,
    selection: str,
    options: Mapping[str, Any],
) -> RunSpec:
    if subject.finished_at is None and kind is not Kind.CONFIRM:
        with hold(ledger, subject.id):  # raises if a process works on it
            pass
    retries = ledger.retries(subject)
    since = ledger.succeeded_since(subject) if retries else set[int]()
    wanted = None if only is None else {(merchant.env, merchant.appid) for merchant in only}

    def rows() -> Iterator[Row]:
        for record in ledger.rows(subject):
            row, end = record.row, record.end
            if wanted is not None and (row.env, row.appid) not in wanted:
                continue
            if end.outcome in outcomes or row.line in since:
                yield replace(row, content_type="", cache_control="")

    environments = environments_of_rows(rows(), _merchants_of(ledger.envs(subject)))
    if not environments:
        raise UsageError(_("run {id} has uploaded nothing that is meant here.", id=subject.id))
    parts = [f"run {subject.id}", "content" if options.get("content") else "", selection]
    return RunSpec(
        kind,
        subject.list_name,
        subject.list_sha256,
        subject.list_bytes,
        subject.headers,
        None,
        rows,
        environments,
        "; ".join(filter(None, parts)),
        options={**options, "of": [subject.id, *(retry.id for retry in retries)]},
    )


def _undone(
    ledger: Ledger,
    subject: RunRecord,
    rows: Sequence[Row],
    backup: Backup | None,
    of: frozenset[str],
    again: frozenset[str],
) -> Iterator[Row]:
    """Give rows with what undoes them; `of`: the upload and its retries, `again`: earlier runs that undid it."""
    for row, written in known_files(ledger, rows, subject.target):
        bare = replace(row, file="", size=None, mtime_ns=None)
        if since := _written_since(written, of | again):
            yield replace(bare, invalid=detail(DetailCode.WRITTEN_SINCE, run=since))
            continue
        saved = None
        if backup is not None:
            try:
                saved = backup.read(row.line)
            except BackupError as error:
                yield replace(bare, invalid=error.text)
                continue
            if saved is None or (saved.env, saved.path) != (row.env, row.path):  # not known what was there
                lost = detail(DetailCode.BACKUP_DAMAGED, file=str(backup.record(row.line)))
                yield replace(bare, invalid=lost)
                continue
        if backup is not None and saved is not None and saved.md5:
            yield _from_backup(bare, saved, backup.data(row.line))
            continue
        before: list[EarlierUpload] = []
        for one in written:
            if one.run in of:
                break
            before.append(one)
        if saved is None and before and before[-1].md5:
            bare = replace(bare, invalid=detail(DetailCode.NO_BACKUP, run=before[-1].run))
        yield bare


def _from_backup(row: Row, saved: SavedFile, data: Path) -> Row:
    """Return a row that is restored from a file of the backup; without the file it ends as failed."""
    try:
        stat = data.stat()
    except OSError:
        return replace(row, file=data.name)
    return replace(
        row,
        file=data.name,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        content_type=saved.content_type,
        cache_control=saved.cache_control,
    )


def _written_since(written: Sequence[EarlierUpload], of: frozenset[str]) -> str:
    """Return the run that changed a path after those in `of`, empty if there is none; `written`: the oldest first.

    ========================================  =======
    the last change of the path               result
    ========================================  =======
    is of a run in `of`                       none
    restored the file of a run in `of`        none
    is any other                              its run
    ========================================  =======
    """
    changes = [one for one in written if one.outcome is not Outcome.UNCHANGED]
    ours = [one.md5 for one in changes if one.run in of and one.outcome is Outcome.UPLOADED]
    if not changes or changes[-1].run in of:
        return ""
    last = changes[-1]
    return "" if last.outcome is Outcome.RESTORED and last.md5 in ours[-1:] else last.run


def _merchants_of(environments: Iterable[EnvRecord]) -> Mapping[tuple[str, str], EnvRecord]:
    return {(one.env, one.appid): one for one in environments}


def _in_chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    stream = iter(rows)
    while some := list(islice(stream, _CHUNK)):
        yield some
