"""Planning of runs about stored files: which rows they have, and what must not be planned or resumed beside another run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import tzinfo
from itertools import islice
from pathlib import Path

from tcb_ops.engine.changes import PlannedChange
from tcb_ops.engine.next_commands import quoted, resume
from tcb_ops.engine.plan import RunSpec, environments_of_rows, list_spec, undone_uploads
from tcb_ops.errors import UsageError
from tcb_ops.features.stored import StoredOutcome
from tcb_ops.features.stored.backup import Backup, SavedFile
from tcb_ops.features.stored.kinds import CONFIRM, DELETE, UNDO
from tcb_ops.features.stored.queries import later_changes, pending_in_both, runs_about
from tcb_ops.features.stored.rules import Subject, delete_want, may_be_stored, undo_want
from tcb_ops.features.stored.run_settings import StoredRunSettings
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Text, _, as_lines, as_sentences, ngettext
from tcb_ops.kinds import Kind
from tcb_ops.ledger.files import UNCERTAIN
from tcb_ops.ledger.ledger import Ledger, taken
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RowRecord, RunRecord, may_have_changed
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import STORED_OUTCOMES, Outcome, Row, RunSettings, Selection, Step, Want
from tcb_ops.preflight import SendScope
from tcb_ops.reports.explanations import change_lines
from tcb_ops.settings import Settings
from tcb_ops.start import StartOptions, unfinished_run

LISTED = 20
"""Files that a message lists."""
_EXPECTED: Mapping[Step, Outcome] = {
    Step.NEW: StoredOutcome.RESTORED,
    Step.REPLACED: StoredOutcome.RESTORED,
    Step.DELETED: StoredOutcome.DELETED,
    Step.UNCHANGED: StoredOutcome.LEFT,
    Step.NOT_KNOWN: Outcome.UNKNOWN,
}
"""How a row of an undo ends, if the store has what the ledger says."""
_UNDO_TEXTS = {
    StoredOutcome.RESTORED: _("{files} will be restored from the backup."),
    StoredOutcome.DELETED: _("{files} will be deleted: nothing was there before."),
    Outcome.UNKNOWN: _("{files}: it is not known whether they are the upload's. The store will be asked."),
    StoredOutcome.LEFT: _("{files} will not be touched: nothing of the upload is there."),
    StoredOutcome.NOT_UNDOABLE: _(
        "{files} cannot be undone, and will not be touched, such as that of line {line}: {why}"
    ),
}
"""By the outcome that the ledger and the backup let expect; unknown: whether the upload's file is there."""
_WITHOUT_BACKUP = {
    StoredOutcome.DELETED: _(
        "{files} will be deleted. Without a backup it is not known whether another tool had files there."
    ),
    Outcome.UNKNOWN: _(
        "{files}: it is not known whether they are the upload's. Without a backup they are not touched."
    ),
}


@dataclass(frozen=True, slots=True)
class UndoScope:
    """What an undo would do."""

    counts: Mapping[Outcome, int]
    """Rows, without zeros."""
    text: Text
    """The figures in words."""
    reach: SendScope
    """The rows whose files may change."""
    warning: Text | None
    """What is not known of the upload's other rows."""


def confirm_spec(
    ledger: Ledger,
    subject: RunRecord,
    only: Merchants | None,
    zone: tzinfo,
    *,
    content: bool,
) -> RunSpec:
    """Return the rows that a run has uploaded, or left unchanged, its retries included.

    `zone`: of the times in its warning. Raises UsageError where there are none.
    """
    # The root is for the upload that is suggested afterwards: failed.csv lacks the queries of URLs.
    root = subject.root if subject.settings.signed is None else None
    settings = StoredRunSettings(content=content, backup=subject.settings.backup, root=root)
    spec = _of_run(
        ledger,
        subject,
        CONFIRM,
        lambda record: record.end.outcome in STORED_OUTCOMES,
        only,
        settings,
    )
    environments = None if only is None else {(merchant.appid, merchant.env) for merchant in only}
    warnings = change_lines(later_changes(ledger, subject, environments), zone)
    if pending := ledger.counts(subject).get(Outcome.PENDING, 0):
        text = ngettext(
            "{n:,} row of upload {id} is pending, and is not confirmed.",
            "{n:,} rows of upload {id} are pending, and are not confirmed.",
            pending,
            id=subject.id,
        )
        warnings = [text, *warnings]
    return replace(spec, warning=as_sentences(warnings) if warnings else None)


def delete_work(
    ledger: Ledger,
    what: RunRecord | Batch,
    settings: Settings,
    options: StartOptions,
    *,
    only: Merchants | None = None,
    foreign: bool = False,
    of_list: str = "",
) -> tuple[RunSpec, Text | None]:
    """Return what a delete of an upload's files, or of a list, would do; and a list of files that no run of the ledger uploaded.

    The parameters are those of `start_delete_of`. An unfinished delete of the same files was checked when it began, and is
    resumed with the rows that it has: not with `new_run`. Raises UsageError where nothing is left to delete, if a process works on
    the upload, and for files that no run uploaded, unless `foreign` is given.
    """
    if isinstance(what, Batch):
        chosen = StoredRunSettings(foreign=foreign, of_list=of_list or None)
        spec = replace(list_spec(what, DELETE), settings=chosen)
    else:
        spec = _of_run(
            ledger,
            what,
            DELETE,
            lambda record: record.end.outcome is Outcome.UPLOADED,
            only,
            StoredRunSettings(),
        )
    if not options.get("new_run") and unfinished_run(spec, settings) is not None:
        return spec, None
    if isinstance(what, Batch):
        return spec, _not_ours(ledger, spec, settings.run_target, foreign=foreign)
    return _without_changed(ledger, spec, what), None


def _without_changed(ledger: Ledger, spec: RunSpec, subject: RunRecord) -> RunSpec:
    """Return the rows of a delete without paths that another run has changed since."""
    about = Subject.of([subject, *ledger.retries(subject)], runs_about(ledger, subject, DELETE))

    def changes() -> Iterator[PlannedChange]:
        for row, file in ledger.known_files(spec.rows(), subject.target):
            yield PlannedChange(row, file, delete_want(about, file))

    left_out = sum(change.want is Want.AS_IT_IS for change in changes())
    if not left_out:
        return spec

    def to_delete() -> Iterator[Row]:
        return (change.row for change in changes() if change.want is Want.NOTHING)

    environments = environments_of_rows(to_delete(), spec.environments)
    planned = {(environment.env, environment.appid) for environment in environments}

    def rows() -> Iterator[Row]:  # other runs may have changed files meanwhile
        return (row for row in to_delete() if (row.env, row.appid) in planned)

    text = ngettext(
        "{n:,} file is left out: another run has uploaded to its path, or deleted it, since.",
        "{n:,} files are left out: other runs have uploaded to their paths, or deleted them, since.",
        left_out,
    )
    if not environments:
        raise UsageError(as_sentences((text, _("Nothing is left to delete."))))
    return replace(spec, rows=rows, environments=environments, warning=text, changes=changes)


def _not_ours(ledger: Ledger, spec: RunSpec, target: str, *, foreign: bool) -> Text | None:
    """Return a list of the files that no run of the ledger uploaded; None without any. Raises UsageError if it is not `foreign`."""
    known_files = ledger.known_files(spec.rows(), target)
    others = (row for row, file in known_files if file is None or not file.is_ours)
    first = list(islice(others, LISTED))
    if not first:
        return None
    rest = sum(1 for _row in others)
    head = ngettext(
        "{n:,} file was not uploaded by a run of this ledger, or may have been deleted or replaced since:",
        "{n:,} files were not uploaded by a run of this ledger, or may have been deleted or replaced since:",
        len(first) + rest,
    )
    more = [_("and {n:,} more", n=rest)] if rest else []
    listed = as_lines([head, *(f"{sanitize(row.env)}  {sanitize(row.path)}" for row in first), *more])
    if not foreign:
        refused = as_lines((listed, _("Nothing was deleted.")))
        raise UsageError(refused, _("To delete them as well: {--foreign}"))
    return listed


def scope_of_undo(spec: RunSpec) -> UndoScope:
    """Count what an undo would do; `spec`: of `undo_spec`."""
    counts, rows, example = Counter[Outcome](), Counter[tuple[str, str]](), None
    for change in spec.changes() if spec.changes is not None else ():
        row, step = change.row, change.step
        if row.invalid:
            example = example or row
            counts[StoredOutcome.NOT_UNDOABLE] += 1
            continue
        counts[_EXPECTED[step]] += 1
        if step is not Step.UNCHANGED:
            rows[row.appid, row.env] += 1
    texts = _UNDO_TEXTS | ({} if spec.settings.backup else _WITHOUT_BACKUP)
    about = {"line": example.line, "why": example.invalid} if example is not None else {}
    text = as_sentences(
        form.format(files=ngettext("{n:,} file", "{n:,} files", counts[preview]), **about)
        for preview, form in texts.items()
        if preview in counts
    )
    reach = SendScope(rows.total(), len({appid for appid, _env in rows}), len(rows))
    return UndoScope(counts, text, reach, spec.warning)


def undo_spec(ledger: Ledger, subject: RunRecord, only: Merchants | None) -> RunSpec:
    """Return the rows that a run has uploaded or may have uploaded, each with what undoes it.

    A row whose path had a file has that file in the backup as its local file; a row whose path was free has none; a row that
    replaced an earlier upload without a backup has its problem, and ends as not_undoable. Raises UsageError.
    """
    backup = Backup(Path(subject.settings.backup)) if subject.settings.backup else None
    records = backup if backup is not None and backup.folder.is_dir() else None

    def is_meant(record: RowRecord, run: RunRecord = subject) -> bool:
        saved = None if records is None else records.record(record.row.line).exists()
        doubtful = may_have_changed(record.end, run.kind, run.settings, run.cut_off)
        return may_be_stored(record.end.outcome, saved, doubtful=doubtful)

    runs = [subject, *ledger.retries(subject)]
    retried = ((record, run) for run in runs[1:] for record in ledger.rows(run, outcomes=UNCERTAIN))
    doubtful = {record.row.line for record, run in retried if is_meant(record, run)}
    warning = None
    if backup is None and (pending := sum(ledger.counts(run).get(Outcome.PENDING, 0) for run in runs)):
        warning = ngettext(
            "{n:,} row of the upload is pending. Whether it was sent is not known, and it is not undone. To know, resume the "
            "upload instead.",
            "{n:,} rows of the upload are pending. Whether they were sent is not known, and they are not undone. To know, resume "
            "the upload instead.",
            pending,
        )
    spec = _of_run(
        ledger,
        subject,
        UNDO,
        lambda record: is_meant(record) or record.row.line in doubtful,
        only,
        StoredRunSettings(backup=subject.settings.backup, undoes=subject.id),
        warning,
    )
    undos = runs_about(ledger, subject, UNDO)
    about = Subject.of(runs, undos)
    conflicts = {
        record.row.line
        for run in undos
        for record in ledger.rows(run, outcomes=frozenset({StoredOutcome.CONFLICT}))
    }

    def changes() -> Iterator[PlannedChange]:
        for row, file, own in ledger.with_own_files(spec.rows(), runs):
            saved = backup.of_row(row) if backup is not None else None
            want, why = undo_want(about, file, own, saved, conflict=row.line in conflicts)
            yield PlannedChange(_undone(row, saved, why, backup), file, want)

    root = backup.folder if backup is not None else None
    return replace(
        spec, root=root, warning=warning, rows=lambda: (change.row for change in changes()), changes=changes
    )


def _of_run(
    ledger: Ledger,
    subject: RunRecord,
    kind: Kind,
    is_meant: Callable[[RowRecord], bool],
    only: Merchants | None,
    settings: StoredRunSettings,
    besides: Text | None = None,
) -> RunSpec:
    """Return the spec of some rows of an upload. `besides`: what an error about no rows says, too."""
    retries = ledger.retries(subject)
    if kind is not CONFIRM:
        for run in (subject, *retries, *runs_about(ledger, subject, UNDO, DELETE)):
            if run.finished_at is None:
                with taken(ledger, run):  # raises if a process works on it
                    pass
            ledger.check_files(run)
    # What a retry found unchanged is looked at, but is not the upload's to take back.
    counted = Outcome.successes() if kind is CONFIRM else {Outcome.UPLOADED}
    since = ledger.ended_since(subject, counted) if retries else set[int]()
    selected = None if only is None else {(merchant.env, merchant.appid) for merchant in only}

    def rows() -> Iterator[Row]:
        for record in ledger.rows(subject):
            row = record.row
            if selected is not None and (row.env, row.appid) not in selected:
                continue
            if is_meant(record) or row.line in since:
                yield replace(row, content_type="", cache_control="")

    environments = environments_of_rows(rows(), ledger.envs(subject))
    if not environments:
        nothing = _("Run {id} has no uploaded files that this command is for.", id=subject.id)
        raise UsageError(nothing if besides is None else as_sentences((nothing, besides)))
    about = Selection.of(("run", subject.id), ("content", settings.content))
    return RunSpec(
        kind,
        *(subject.list_name, subject.list_sha256, subject.list_bytes, subject.headers),
        None,
        rows,
        environments,
        about if only is None else about + only.selection,
        settings=replace(settings, of=(subject.id, *(retry.id for retry in retries))),
    )


def _undone(row: Row, saved: SavedFile | Text | None, why: Text | None, backup: Backup | None) -> Row:
    """Return a row of an undo: with the saved file, or why it cannot be undone."""
    bare = replace(row, file="", size=None, mtime_ns=None, invalid=why)
    if why is not None or backup is None or not isinstance(saved, SavedFile) or not saved.md5:
        return bare
    data = backup.data(row.line, saved.md5)
    with suppress(OSError):  # without its bytes it ends as failed
        status = data.stat()
        bare = replace(bare, size=status.st_size, mtime_ns=status.st_mtime_ns)
    return replace(bare, file=data.name, content_type=saved.content_type, cache_control=saved.cache_control)


# --- beside other runs ----------------------------------------------------------------------------------------------


def check_beside(
    ledger: Ledger, kind: Kind, own: RunSettings, settings: Settings
) -> Callable[[LedgerReader, int], None]:
    """Return what raises UsageError if rows of an unfinished run are pending at paths of the run with this number.

    ============  =========================================================================
    kind          unfinished runs
    ============  =========================================================================
    upload        those that take back what uploads have stored: undos, deletes
    undo, delete  uploads, but those that it takes back, and those that are never resumed,
                  since they were undone or deleted
    ============  =========================================================================

    Under the planning lock, of two that are planned at once the second finds the first one's rows. Raises UsageError itself
    if a process works on an upload that is to be taken back.
    """
    passed_over = set[str]()
    if kind.takes_back:
        passed_over = {*own.of, *undone_uploads(ledger, settings)}
        for upload in map(ledger.run, own.of):
            if upload.finished_at is None:  # it may have been resumed since the rows were looked up
                with taken(ledger, upload):
                    pass

    def check(reader: LedgerReader, number: int) -> None:
        for run in reader.runs(settings.run_target, damaged=[]):
            other = run.changes_store and run.kind.takes_back != kind.takes_back
            if not other or run.finished_at is not None or run.id in passed_over:
                continue
            if (path := pending_in_both(reader, number, run.number)) is not None:
                raise UsageError(
                    _(
                        "Run {id} ({kind}) is unfinished, with rows pending at paths of this {own_kind}, such as {path}. Nothing "
                        "was sent. Wait until it has ended. If nobody works on it, resume it first.",
                        id=run.id,
                        kind=run.kind,
                        own_kind=kind,
                        path=path,
                    ),
                    _("To resume it:\n{command}", command=quoted(resume(settings, run))),
                )

    return check


def check_resumed_backup(run: RunRecord, backup: str) -> None:
    """Raise UsageError if an upload is to be resumed with a --backup that it was not started with."""
    planned = run.settings.backup or ""
    folders = [os.path.realpath(folder) for folder in (planned, Path(planned).parent) if planned]
    if os.path.realpath(backup) not in folders:
        raise UsageError(
            _(
                "Run {id} is unfinished, and was not started with this {--backup}. To resume it as it was started, leave "
                "{--backup} out; {--new-run} starts another run.",
                id=run.id,
            ),
        )
