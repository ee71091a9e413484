"""Which rows a command about stored files has: those that an upload stored, those of a list, or those of a folder."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import tzinfo
from enum import StrEnum
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import UsageError
from tcb_ops.features.stored import StoredOutcome
from tcb_ops.features.stored.files import (
    Backup,
    BackupError,
    KnownFiles,
    SavedFile,
    is_ours,
    is_undone,
    may_be_stored,
    runs_about,
    stored_by,
    undone_uploads,
    uploaded_md5s,
    written_since,
)
from tcb_ops.features.stored.kinds import CONFIRM, DELETE, UNDO
from tcb_ops.formatting import guard, sanitize
from tcb_ops.i18n import Text, _, as_lines, as_sentences, ngettext
from tcb_ops.kinds import Kind
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.generate import PathTemplate, ScannedFiles, write_list
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.row_files import content_type_of
from tcb_ops.model import STORED_OUTCOMES, Merchant, Outcome, Row
from tcb_ops.reports.explanations import change_lines
from tcb_ops.resources import system_reason
from tcb_ops.runs.ledger import Ledger, taken
from tcb_ops.runs.next_commands import SIGNED, SIGNED_LIST, list_of
from tcb_ops.runs.plan import RunSpec, environments_of_rows, list_spec
from tcb_ops.runs.records import EarlierUpload, RowRecord, RunRecord, may_have_stored
from tcb_ops.runs.uploads import UPLOAD
from tcb_ops.wechat.local_files import FileChangedError, FileUnreadableError, hash_file

_LISTED = 20
"""Files that a message lists."""
_DOUBTFUL = frozenset({Outcome.FAILED, Outcome.REFUSED})
_GONE = frozenset({StoredOutcome.DELETED, StoredOutcome.ALREADY_GONE, StoredOutcome.ABSENT})


class UndoPreview(StrEnum):
    """What the ledger and the backup say that an undo will do about a row."""

    RESTORED = "restored"
    DELETED = "deleted"
    LEFT = "left"
    NOT_UNDOABLE = "not_undoable"
    UNCERTAIN = "uncertain"
    """It is not known whether the upload stored it: the store will be asked."""


def undo_preview(
    state: Literal["undone", "stored", "unknown"], *, undoable: bool, saved: bool
) -> UndoPreview:
    """Decide what to announce about a row of an undo.

    ========  =======  =====  ============
    undoable  state    saved  result
    ========  =======  =====  ============
    no        any      any    not_undoable
    yes       undone   any    left
    yes       unknown  any    uncertain
    yes       stored   yes    restored
    yes       stored   no     deleted
    ========  =======  =====  ============

    `state`: whether what the upload stored is at the path, as far as the ledger knows. `saved`: whether the backup has a file.
    """
    if not undoable:
        return UndoPreview.NOT_UNDOABLE
    if state != "stored":
        return UndoPreview.LEFT if state == "undone" else UndoPreview.UNCERTAIN
    return UndoPreview.RESTORED if saved else UndoPreview.DELETED


@dataclass(frozen=True, slots=True)
class UndoScope:
    """What an undo would do, by rows."""

    restored: int
    deleted: int
    left: int
    """Rows that stay as they are: nothing of the upload is at their paths."""
    not_undoable: int
    uncertain: int
    """Rows of which it is not known whether the upload stored them."""
    with_backup: bool

    @property
    def text(self) -> Text:
        """The figures in words."""
        if self.with_backup:
            deleted = ngettext(
                "{n:,} file was new and will be deleted.",
                "{n:,} files were new and will be deleted.",
                self.deleted,
            )
            uncertain = ngettext(
                "Whether the upload stored {n:,} more file is not known: the store will be asked about it.",
                "Whether the upload stored {n:,} more files is not known: the store will be asked about them.",
                self.uncertain,
            )
        else:
            deleted = ngettext(
                "{n:,} file will be deleted. Without a backup it is not known whether another tool had one at its path.",
                "{n:,} files will be deleted. Without a backup it is not known whether another tool had files at their paths.",
                self.deleted,
            )
            uncertain = ngettext(
                "Whether the upload stored {n:,} more file is not known. Without a backup it stays.",
                "Whether the upload stored {n:,} more files is not known. Without a backup they stay.",
                self.uncertain,
            )
        restored = ngettext(
            "{n:,} file will be restored from the backup.",
            "{n:,} files will be restored from the backup.",
            self.restored,
        )
        left = ngettext(
            "{n:,} file stays: nothing of the upload is at its path.",
            "{n:,} files stay: nothing of the upload is at their paths.",
            self.left,
        )
        not_undoable = ngettext(
            "{n:,} file cannot be undone; `show` says why, row by row.",
            "{n:,} files cannot be undone; `show` says why, row by row.",
            self.not_undoable,
        )
        counts = (self.restored, self.deleted, self.uncertain, self.left, self.not_undoable)
        texts = (restored, deleted, uncertain, left, not_undoable)
        return as_sentences(text for count, text in zip(counts, texts, strict=True) if count)


def confirm_spec(
    ledger: Ledger,
    subject: RunRecord,
    only: Merchants | None,
    selection: str,
    *,
    content: bool,
    zone: tzinfo,
) -> RunSpec:
    """Return the rows that a run has uploaded, or left unchanged, its retries included.

    `zone`: of the times in its warning. Raises UsageError where there are none.
    """
    options = {"content": content, "backup": subject.settings.get("backup", ""), "root": subject.root}
    if SIGNED in subject.settings:
        options[SIGNED_LIST] = list_of(subject)
    spec = _of_run(
        ledger,
        subject,
        CONFIRM,
        lambda row: row.end.outcome in STORED_OUTCOMES,
        only,
        selection,
        options,
    )
    warnings: list[Text] = []
    if pending := ledger.counts(subject).get(Outcome.PENDING, 0):
        text = ngettext(
            "{n:,} row of upload {id} is pending, and is not confirmed.",
            "{n:,} rows of upload {id} are pending, and are not confirmed.",
            pending,
            id=subject.id,
        )
        warnings.append(text)
    meant = None if only is None else {(merchant.appid, merchant.env) for merchant in only}
    warnings += change_lines(ledger.later_changes(subject, meant), zone)
    return replace(spec, warning=as_sentences(warnings) if warnings else None)


def delete_spec(
    ledger: Ledger, subject: RunRecord, only: Merchants | None, selection: str, *, new_run: bool
) -> RunSpec:
    """Return the rows that a run has uploaded, its retries included, without paths that another run has written since.

    What an unfinished delete of the same files has deleted is left to it, when it is resumed: not with `new_run`. Raises
    UsageError where there are none, or if a process works on the run.
    """
    spec = _of_run(
        ledger, subject, DELETE, lambda row: row.end.outcome is Outcome.UPLOADED, only, selection, {}
    )
    deletes, undos = _ids(runs_about(ledger, subject, DELETE)), undone_uploads(ledger, subject.target)
    resumed = set[str]() if new_run else _unfinished(ledger, spec, subject.target)
    of_upload = frozenset(spec.options["of"]) | (deletes & resumed)
    open_ends = {Outcome.FAILED, Outcome.PENDING}

    def is_deleted(_path: str, history: Sequence[EarlierUpload]) -> bool:
        # A delete of these files that failed, or was interrupted, has left them there.
        counted = [entry for entry in history if entry.outcome not in open_ends or entry.run not in deletes]
        return not written_since(counted, of_upload, subject.number, undos, doubtful=True)

    known = KnownFiles(ledger, spec.rows, subject.target, is_deleted)
    left_out = sum(not deleted for _row, deleted in known)
    if not left_out:
        return spec

    def rows() -> Iterator[Row]:
        return (row for row, deleted in known if deleted)

    environments = environments_of_rows(rows(), spec.environments)
    text = ngettext(
        "{n:,} file is left out: another run has uploaded to its path, or deleted it, since.",
        "{n:,} files are left out: other runs have uploaded to their paths, or deleted them, since.",
        left_out,
    )
    if not environments:
        raise UsageError(as_sentences((text, _("Nothing is left to delete."))))
    return replace(spec, rows=rows, environments=environments, warning=text)


def undo_spec(ledger: Ledger, subject: RunRecord, only: Merchants | None, selection: str) -> RunSpec:
    """Return the rows that a run has uploaded or may have uploaded, each with what undoes it. Raises UsageError."""
    spec, files = _undo(ledger, subject, only, selection)
    return replace(spec, rows=lambda: (row for row, _preview in files()))


def scope_of_undo(ledger: Ledger, subject: RunRecord, only: Merchants | None) -> UndoScope:
    """Count what an undo would do. Raises UsageError where there is nothing to undo."""
    spec, files = _undo(ledger, subject, only, "")
    counts = Counter(preview for _row, preview in files())
    return UndoScope(
        counts[UndoPreview.RESTORED],
        counts[UndoPreview.DELETED],
        counts[UndoPreview.LEFT],
        counts[UndoPreview.NOT_UNDOABLE],
        counts[UndoPreview.UNCERTAIN],
        with_backup=bool(spec.options["backup"]),
    )


def _undo(
    ledger: Ledger, subject: RunRecord, only: Merchants | None, selection: str
) -> tuple[RunSpec, Callable[[], Iterator[tuple[Row, UndoPreview]]]]:
    """Return the rows that a run has uploaded or may have uploaded, each with what undoes it.

    A row whose path had a file has that file in the backup as its local file; a row whose path was free has none; a row that
    replaced an earlier upload without a backup has its problem, and ends as not_undoable. Raises UsageError.
    """
    kept = str(subject.settings.get("backup", ""))
    backup = Backup(Path(kept)) if kept else None
    records = backup if backup is not None and backup.folder.is_dir() else None

    def is_meant(record: RowRecord) -> bool:
        row, end = record.row, record.end
        saved = None if records is None else records.has(row.line)
        doubtful = may_have_stored(end.reason, end.attempts, subject.settings)
        return may_be_stored(end.outcome, saved, doubtful=doubtful)

    runs = [subject, *ledger.retries(subject)]
    retried = runs[1:] if records is None else []
    lines = {
        record.row.line
        for run in retried
        for record in ledger.rows(run, outcomes=_DOUBTFUL)
        if is_meant(record)
    }
    pending = 0 if backup is not None else sum(ledger.counts(run).get(Outcome.PENDING, 0) for run in runs)
    pending_text = ngettext(
        "{n:,} row of the upload is pending. Whether it was sent is not known, and it is not undone. To know, resume the "
        "upload instead.",
        "{n:,} rows of the upload are pending. Whether they were sent is not known, and they are not undone. To know, resume "
        "the upload instead.",
        pending,
    )
    warning = pending_text if pending else None
    spec = _of_run(
        ledger,
        subject,
        UNDO,
        lambda record: is_meant(record) or record.row.line in lines,
        only,
        selection,
        {"backup": kept, "undoes": subject.id},
        warning,
    )
    of_upload = frozenset(spec.options["of"])
    taken_back_by = frozenset(_ids(runs_about(ledger, subject, UNDO)))

    def judge(
        _path: str, history: Sequence[EarlierUpload]
    ) -> tuple[str, str, list[str], Literal["undone", "stored", "unknown"]]:
        own = [n for n, entry in enumerate(history) if entry.run in of_upload and entry.md5]
        before = _stored_before(history[: own[0]] if own else [])
        state: Literal["undone", "stored", "unknown"] = "unknown"
        if is_undone(history, taken_back_by):
            state = "undone"
        elif stored_by(history, of_upload) is not None:
            state = "stored"
        return (
            written_since(history, of_upload | taken_back_by, subject.number),
            "" if before is None else before.run,
            sorted(uploaded_md5s(history, of_upload)),
            state,
        )

    known = KnownFiles(ledger, spec.rows, subject.target, judge)

    def files() -> Iterator[tuple[Row, UndoPreview]]:
        for planned, (since, before_run, uploaded, state) in known:
            row = _undone(planned, since, before_run, uploaded, backup)
            yield row, undo_preview(state, undoable=not row.invalid, saved=bool(row.file))

    root = backup.folder if backup is not None else None
    return replace(spec, root=root, warning=warning), files


def confirm_list_spec(batch: Batch, selection: str, *, content: bool) -> RunSpec:
    """Return the rows of a list, to be compared with what the ledger last stored at their paths."""
    spec = list_spec(batch, CONFIRM, selection)
    return replace(spec, options={**spec.options, "content": content})


def delete_list_spec(
    ledger: Ledger, batch: Batch, target: str, selection: str, *, foreign: bool, content: bool, new_run: bool
) -> RunSpec:
    """Return the rows of a list. Raises UsageError where runs of this ledger wrote not all of them, and `foreign` is not given."""
    spec = list_spec(batch, DELETE, selection)
    spec = replace(spec, options={**spec.options, "foreign": foreign, "content": content})
    if not foreign and (listed := foreign_text(ledger, spec, target, new_run=new_run)) is not None:
        raise UsageError(
            as_lines((listed, _("Nothing was deleted."))),
            _("To delete them as well: --foreign"),
        )
    return spec


def foreign_text(ledger: Ledger, spec: RunSpec, target: str, *, new_run: bool) -> Text | None:
    """List the files of a delete that no run of the ledger uploaded; None where there are none.

    What an unfinished delete of the same list has deleted is no reason not to resume it: only with `new_run`.
    """
    resumed = set[str]() if new_run else _unfinished(ledger, spec, target)
    undos = undone_uploads(ledger, target)
    known = KnownFiles(ledger, spec.rows, target, lambda _path, history: is_ours(history, undos, resumed))
    foreign = (row for row, ours in known if not ours)
    first = list(islice(foreign, _LISTED))
    if not first:
        return None
    rest = sum(1 for _row in foreign)
    head = ngettext(
        "{n:,} file was not uploaded by a run of this ledger, or has been deleted since:",
        "{n:,} files were not uploaded by a run of this ledger, or have been deleted since:",
        len(first) + rest,
    )
    more = [_("and {n:,} more", n=rest)] if rest else []
    return as_lines([head, *(f"{sanitize(row.env)}  {sanitize(row.path)}" for row in first), *more])


def _unfinished(ledger: Ledger, spec: RunSpec, target: str) -> set[str]:
    """Return the unfinished runs that the same command resumes."""
    same = (spec.kind, spec.list_sha256, spec.selection, spec.parent)
    return {
        run.id
        for run in ledger.runs(target, damaged=[])
        if run.finished_at is None and (run.kind, run.list_sha256, run.selection, run.parent) == same
    }


def overwritten_rows(ledger: Ledger, batch: Batch, target: str) -> int:
    """Count the rows whose path an earlier run wrote, so that an upload replaces its file.

    The newest upload of the list does not count if it is unfinished: it may be resumed.
    """
    runs = ledger.runs(target, damaged=[])
    same = (run for run in runs if run.kind is UPLOAD and run.list_sha256 == batch.sha256)
    newest = next(same, None)
    own = newest.number if newest is not None and newest.finished_at is None else -1
    undos = undone_uploads(ledger, target)
    known = KnownFiles(ledger, batch.rows, target, lambda _path, history: is_ours(history, undos), own)
    return sum(ours for _row, ours in known)


def file_ids(ledger: Ledger, spec: RunSpec, target: str) -> Iterator[tuple[Row, str]]:
    """Give the rows of an upload with the file_ids that the platform gave them; empty where none is known."""
    of_upload = set(spec.options["of"])

    def file_id(path: str, history: Sequence[EarlierUpload]) -> str:
        ids = [entry.file_id for entry in history if entry.run in of_upload]
        return next((one for one in reversed(ids) if one.endswith(f"/{path}")), "")

    yield from KnownFiles(ledger, spec.rows, target, file_id)


def check_subject(subject: RunRecord, target: str) -> None:
    """Raise UsageError for a run that is no upload, or went to another target."""
    if subject.kind is not UPLOAD:
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
        )


def _of_run(
    ledger: Ledger,
    subject: RunRecord,
    kind: Kind,
    is_meant: Callable[[RowRecord], bool],
    only: Merchants | None,
    selection: str,
    options: Mapping[str, Any],
    besides: Text | None = None,
) -> RunSpec:
    """Return the spec of some rows of an upload. `besides`: what an error about no rows says, too."""
    retries = ledger.retries(subject)
    if kind is not CONFIRM:
        for run in (subject, *retries, *runs_about(ledger, subject, UNDO, DELETE)):
            if run.finished_at is None:
                with taken(ledger, run):  # raises if a process works on it
                    pass
    since = ledger.succeeded_since(subject) if retries else set[int]()
    wanted = None if only is None else {(merchant.env, merchant.appid) for merchant in only}

    def rows() -> Iterator[Row]:
        for record in ledger.rows(subject):
            row = record.row
            if wanted is not None and (row.env, row.appid) not in wanted:
                continue
            if is_meant(record) or row.line in since:
                yield replace(row, content_type="", cache_control="")

    environments = environments_of_rows(rows(), ledger.envs(subject))
    if not environments:
        nothing = _("run {id} has no uploaded files that this command is for.", id=subject.id)
        raise UsageError(nothing if besides is None else as_sentences((nothing, besides)))
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


def _undone(row: Row, since: str, before_run: str, uploaded: Collection[str], backup: Backup | None) -> Row:
    """Return a row with what undoes it.

    `since`: the run that has changed its path since, `before_run`: the one whose file was there before; empty if there is
    none. `uploaded`: the MD5s that the upload is known to have stored.
    """
    bare = replace(row, file="", size=None, mtime_ns=None)
    if since:
        return replace(bare, invalid=detail(DetailCode.WRITTEN_SINCE, run=since))
    if backup is None:
        return replace(bare, invalid=detail(DetailCode.NO_BACKUP, run=before_run)) if before_run else bare
    try:
        saved = backup.read(row.line)
    except BackupError as error:
        return replace(bare, invalid=error.text)
    if saved is None or (saved.env, saved.path) != (row.env, row.path):  # not known what was there
        return replace(bare, invalid=detail(DetailCode.BACKUP_DAMAGED, file=str(backup.record(row.line))))
    if saved.may_be_ours(uploaded):
        return replace(bare, invalid=detail(DetailCode.SAVED_AS_SENT))
    return _from_backup(bare, saved, backup.data(row.line, saved.md5)) if saved.md5 else bare


def _stored_before(written: Sequence[EarlierUpload]) -> EarlierUpload | None:
    """Return what left a file at a path, or may have; None if there is none. `written`: the oldest first."""
    for one in reversed(written):
        if one.outcome in _GONE:
            return None
        if one.md5 or one.outcome is Outcome.UNKNOWN:  # a failed upload may have left what was there before
            return one
    return None


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


def _ids(runs: Iterable[RunRecord]) -> set[str]:
    return {run.id for run in runs}


# --- folders ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """The rows of a synchronization."""

    scanned: ScannedFiles
    batch: Batch
    """A row per file and environment."""
    gone: Batch | None
    """Files that this folder's earlier synchronizations uploaded and that it no longer has; None if there are none."""

    @property
    def gone_text(self) -> Text | None:
        """The first files that are gone from the folder, in words."""
        if self.gone is None:
            return None
        count, envs = self.gone.count, self.gone.envs
        first = list(islice(self.gone.rows(), _LISTED))
        width = max(len(row.env) for row in first)
        head = ngettext(
            "{n:,} uploaded file is no longer in the folder, but in {environments}:",
            "{n:,} uploaded files are no longer in the folder, but in {environments}:",
            count,
            environments=ngettext("{n:,} environment", "{n:,} environments", envs),
        )
        rest, file = count - len(first), self.gone.source
        more = [_("and {n:,} more: {file}", n=rest, file=file)] if rest else []
        return as_lines([head, *(f"  {row.env:{width}}  {sanitize(row.path)}" for row in first), *more])

    def gone_from(self, environments: Collection[tuple[str, str]]) -> Batch | None:
        """Return the files of `gone` that are still gone, in other than these environments, given as (env, appid)."""
        if self.gone is None:
            return None
        kept = (
            row
            for row in self.gone.rows()
            if (row.env, row.appid) not in environments
            and not os.path.lexists(self.scanned.folder / row.file)
        )
        return _written(self.gone.source, kept, self.gone.merchants)

    @property
    def loses_most(self) -> bool:
        """Whether more files are gone than are left, as if it were another folder."""
        return self.gone is not None and self.gone.count > self.batch.count

    def changed(self, ledger: Ledger | None, target: str) -> Batch | None:
        """Return the rows that differ from what the ledger last knows at their paths; None if all are the same."""
        if ledger is None or self.batch.root is None:
            return self.batch
        root, digests = self.batch.root, dict[str, str]()

        def last_known(_path: str, history: Sequence[EarlierUpload]) -> tuple[str, int, str, str] | None:
            last = history[-1] if history else None
            return None if last is None else (last.md5, last.bytes, last.content_type, last.cache_control)

        def differs(row: Row, last: Sequence[Any] | None) -> bool:
            md5, size, *stored_headers = last or ("", None)
            if not md5 or size != row.size:
                return True
            if row.file not in digests:
                with suppress(FileChangedError, FileUnreadableError):
                    digests[row.file] = hash_file(root / row.file, row.size or 0, row.mtime_ns or 0)
            headers = [row.content_type or content_type_of(row.path, row.file), row.cache_control]
            return digests.get(row.file) != md5 or headers != stored_headers

        known = KnownFiles(ledger, self.batch.rows, target, last_known, confirmed=True)
        rows = (row for row, last in known if differs(row, last))
        return _written(self.batch.source.with_suffix(".changed.csv"), rows, self.batch.merchants, root)


def plan_sync(
    scanned: ScannedFiles,
    targets: Sequence[Merchant],
    template: PathTemplate,
    merchants: Merchants,
    folder: Path,
    *,
    ledger: Ledger | None,
    target: str,
) -> SyncPlan:
    """Write the list of a folder's files, and the one of those that are gone, into `folder`; read and check both.

    A synchronization is recognized by its list's name, which is made of the folder's. Raises InputError, UsageError.
    """
    if template.dated:
        raise UsageError(_("--path with {{date}}: every day all files would be new. Leave {{date}} out."))
    root = scanned.folder.resolve()
    name = f"sync-{root.name or 'root'}-{sha256(str(root).encode()).hexdigest()[:6]}"
    dest = folder / f"{name}.csv"
    with _replacing(dest) as part:
        write_list(scanned, targets, template, part, root, versions=True)
    batch = read_paths(dest, merchants, root)
    found = iter(()) if ledger is None else _gone(ledger, target, dest.name, scanned, targets, template)
    return SyncPlan(scanned, batch, _written(folder / f"{name}.gone.csv", found, merchants))


@contextmanager
def _replacing(dest: Path) -> Iterator[Path]:
    """Give a new file that replaces `dest` at the end. Raises UsageError if it cannot be written."""
    part = dest.with_suffix(f".{os.getpid()}.part")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        yield part
        part.replace(dest)
    except OSError as error:
        why = system_reason(error)
        raise UsageError(_("{dest} cannot be written ({why})", dest=dest, why=why)) from None
    finally:
        part.unlink(missing_ok=True)


def _written(
    dest: Path, found: Iterable[Row], merchants: Merchants, root: Path | None = None
) -> Batch | None:
    """Write rows as a list and read it; None if there are none."""
    rows = 0
    with _replacing(dest) as part, part.open("x", encoding="utf-8-sig", newline="") as file:
        out = csv.writer(file)
        out.writerow(["env", "appid", "path", "file", "tcb_guarded"])
        for row in found:
            out.writerow(map(guard, (row.env, row.appid, row.path, row.file)))
            rows += 1
    return read_paths(dest, merchants, root) if rows else None


def _gone(
    ledger: Ledger,
    target: str,
    list_name: str,
    scanned: ScannedFiles,
    targets: Sequence[Merchant],
    template: PathTemplate,
) -> Iterator[Row]:
    """Give the files that runs of the list uploaded last, whose local file no longer exists."""
    ours = {run.id: run for run in ledger.runs(target) if run.kind is UPLOAD and run.list_name == list_name}

    def is_of_folder(_path: str, history: Sequence[EarlierUpload]) -> bool:
        # A deletion or an upload that failed, or was interrupted, leaves one of its own files there.
        without = {Outcome.UNCHANGED, Outcome.FAILED, Outcome.PENDING}
        sent = [entry for entry in history if entry.outcome not in without]
        return bool(sent) and bool(sent[-1].md5) and sent[-1].run in ours

    paths = set(template.paths(scanned.files, targets[0]))
    for merchant in targets:
        if template.by_target:
            paths = set(template.paths(scanned.files, merchant))
        stored = ledger.paths_stored(list(ours.values()), merchant.env, merchant.appid)
        missing = [
            Row(number, merchant.env, path, merchant.appid, merchant.name, file, ())
            for number, (path, file) in enumerate(stored)
            if path not in paths and not os.path.lexists(scanned.folder / file)
        ]
        if missing:
            known = KnownFiles(ledger, partial(iter, missing), target, is_of_folder)
            yield from (row for row, is_gone in known if is_gone)
