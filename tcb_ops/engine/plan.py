"""Planning a run before anything is sent: new or resumed; rows from a list, another run, or the merchants alone."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tcb_ops.engine.changes import PlannedChange, changes_of, comparing
from tcb_ops.engine.corrections import corrected_run
from tcb_ops.engine.links_file import check_columns
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.engine.next_commands import of_run, quoted
from tcb_ops.engine.next_commands import resume as resume_command
from tcb_ops.engine.next_commands import retry as retry_command
from tcb_ops.errors import UsageError, needed
from tcb_ops.frames import Given
from tcb_ops.hooks import BackupHooks, SourceHooks, StoredHooks, hooks
from tcb_ops.i18n import Text, _, as_list
from tcb_ops.kinds import Kind
from tcb_ops.ledger.histories import corrections_of, merged_runs
from tcb_ops.ledger.ledger import Ledger, taken
from tcb_ops.ledger.locks import host_name, operator_name
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import EnvRecord, NewRun, RowRecord, RunRecord, Tally, resumed_within
from tcb_ops.ledger.run_view import RunView
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.row_files import as_they_are, source_check
from tcb_ops.model import (
    Listener,
    Merchant,
    Outcome,
    Owner,
    Reason,
    Row,
    RunSettings,
    Secret,
    Selection,
    target_name,
)
from tcb_ops.secrets import masked
from tcb_ops.settings import Settings

_digits = partial(secrets.token_hex, 2)


Choice: TypeAlias = Literal["new", "resume", "ask"]
"""What to do about an unfinished run of the same work."""


def choose(unfinished_since: float | None, now: float, kind: Kind, *, new_run: bool) -> Choice:
    """Decide whether to start a run, resume one, or ask.

    =====================  ===================  ======
    kind                   unfinished run       choice
    =====================  ===================  ======
    any                    no, or `--new-run`   new
    with `renewed_after`   younger than that    resume
    with `renewed_after`   older                new
    any other              under 24 hours old   resume
    any other              older                ask
    =====================  ===================  ======

    A kind with `renewed_after` must not reuse old responses, and an unattended run cannot ask.
    """
    if unfinished_since is None or new_run:
        return "new"
    if now - unfinished_since < resumed_within(kind):
        return "resume"
    return "new" if kind.renewed_after else "ask"


def plan(
    ledger: Ledger,
    work: RunSpec,
    settings: Settings,
    *,
    out: Path | None,
    options: Mapping[str, Any],
    note: str = "",
    new_run: bool = False,
    resume: str = "",
    now: float,
    may_resume: Callable[[str, float], bool] = lambda _run, _begun: False,
) -> tuple[RunRecord, bool]:
    """Find the run to resume, or record a new one; return it, and whether it is resumed.

    Nothing is sent. The caller holds the planning lock.

    `out` is the path for the run's links.csv or report; None for no report. `options` are the run's options, for the
    manifest. `may_resume` is called with the id and start time of an unfinished run over a day old; if it returns False
    and neither `new_run` nor `resume` is given, raises UsageError.
    """
    if resume:
        newest = ledger.newest(work.kind, settings.run_target, work.parent) if resume == "latest" else None
        run = newest or ledger.run(resume, settings.run_target)
        if run.id in undone_uploads(ledger, settings):
            raise UsageError(
                _("Run {id} cannot be resumed: it was undone, or its files were deleted.", id=run.id),
                _("Upload its list again with {--new-run}."),
            )
        return _resumed(ledger, _named_run(run, work, settings), work, settings), True
    if not new_run:  # a list with the wrong --root is no other work: both runs would write to the same paths
        _refuse_another_root(ledger, work, settings)
    unfinished = same_work(ledger, work, settings, now)
    choice = choose(unfinished.created_at if unfinished else None, now, work.kind, new_run=new_run)
    if unfinished and choice == "ask" and not may_resume(unfinished.id, unfinished.created_at):
        started = datetime.fromtimestamp(unfinished.created_at, settings.zone).isoformat(" ", "minutes")
        text = _(
            "Run {id} of this list, started {started}, is unfinished and over a day old: resume it, or start another "
            "with {--new-run}."
        )
        raise UsageError(
            text.format(id=unfinished.id, started=started),
            _("To resume it:\n{command}", command=quoted(resume_command(settings, unfinished))),
        )
    if unfinished and choice != "new":
        return _resumed(ledger, unfinished, work, settings), True
    new_id = new_run_id(ledger, datetime.fromtimestamp(now, settings.zone))
    settings_kept = replace(
        work.kind.settings_of(new_id, work.settings, work.parent),
        selection=work.selection.options,
        etag=settings.etag,
        tokens=settings.tokens.source,
        timezone=settings.timezone,
        listener=settings.listener or "",
        **options,
    )
    new = NewRun(
        id=new_id,
        kind=work.kind,
        target=settings.run_target,
        list_name=work.list_name,
        list_sha256=work.list_sha256,
        list_bytes=work.list_bytes,
        headers=work.headers,
        root=work.root_name,
        settings=settings_kept,
        note=masked("".join(letter if letter.isprintable() else " " for letter in note)),
        operator=operator_name(),
        host=host_name(),
        out=str(out) if out is not None else "",
        created_at=now,
        parent=work.parent,
    )
    check: Callable[[LedgerReader, int], None] | None = None
    if work.kind.changes_store and (stored := hooks(StoredHooks)):
        check = stored.check_beside(ledger, work.kind, settings_kept, settings)
    return ledger.plan(new, work.rows(), work.environments, check), False


def new_run_id(ledger: LedgerReader, start: datetime, digits: Callable[[], str] = _digits) -> str:
    """Return an id that no run of the ledger has: its second, and random digits, which keep runs of one second apart."""
    while ledger.stored_runs("id = ?", (new_id := f"{start:%Y%m%d-%H%M%S}-{digits()}",)):
        pass
    return new_id


def _resumed(ledger: Ledger, run: RunRecord, work: RunSpec, settings: Settings) -> RunRecord:
    if backup := work.settings.backup:
        needed(BackupHooks).check_resumed(run, backup)
    recorded, listener = run.settings.listener, settings.listener or ""
    if recorded == Listener.NOTHING:  # so nothing was sent
        run = ledger.note_settings(run, replace(run.settings, listener=listener))
    elif listener not in {recorded, Listener.NOTHING}:
        wrong = _("Run {id} went to a simulator, and what listens on {target} now is none.")
        if settings.simulated:
            wrong = _("Run {id} did not go to a simulator, and what listens on {target} now is one.")
        raise UsageError(wrong.format(id=run.id, target=run.target), _("{--new-run} starts another run."))
    ledger.check(run)
    return run


def same_work(ledger: Ledger, work: RunSpec, settings: Settings, now: float) -> RunRecord | None:
    """Return the newest unfinished run of the same work; None without one."""
    for run in ledger.unfinished(work.kind, settings.run_target, work.list_sha256, work.root_name):
        same_part = (run.selection, run.parent) == (work.selection, work.parent)
        if same_part and run.may_be_resumed(now) and run.id not in undone_uploads(ledger, settings):
            return run
    return None


def undone_uploads(ledger: LedgerReader, settings: Settings) -> set[str]:
    """Return the uploads that were undone or deleted: their rows no longer are what the ledger says."""
    runs = ledger.runs(settings.run_target, damaged=[])  # damage of another run keeps nobody from this one
    return {upload for run in runs if run.kind.takes_back for upload in run.settings.of}


def _refuse_another_root(ledger: Ledger, work: RunSpec, settings: Settings) -> None:
    """Raise UsageError if a process works on a run that differs only in its root."""
    for run in ledger.unfinished(
        work.kind, settings.run_target, work.list_sha256, work.root_name, elsewhere=True
    ):
        if run.finished_at is not None or (run.selection, run.parent) != (work.selection, work.parent):
            continue
        try:
            with taken(ledger, run):
                pass
        except UsageError as error:
            raise UsageError(
                error.text,
                _(
                    "It sends the same list, with the files below {root}. {--new-run} starts another run anyway.",
                    root=run.root,
                ),
            ) from None


def _named_run(run: RunRecord, work: RunSpec, settings: Settings) -> RunRecord:
    wrong: Text | None = None
    if run.kind != work.kind or run.target != settings.run_target:
        wrong = _("it is {kind} to {target}", kind=run.kind, target=target_name(run.target))
    elif run.root != work.root_name:
        wrong = _("its files are below {root}", root=run.root)
    check_resume(run, wrong, settings)
    if run.list_sha256 != work.list_sha256:
        raise _not_resumable(run, _("the list has changed since"))
    return run


def check_resume(run: RunRecord, wrong: Text | None, settings: Settings) -> None:
    """Raise UsageError if a run is finished, or if `wrong` says why another command has to resume it."""
    if run.finished_at is not None:
        raise _not_resumable(run, _("it is finished"))
    if wrong is not None:
        raise UsageError(
            _(
                "Run {id} cannot be resumed by this command: {wrong}. To resume it:\n{command}",
                id=run.id,
                wrong=wrong,
                command=quoted(resume_command(settings, run)),
            )
        )


def check_kept(run: RunRecord, settings: Settings) -> None:
    """Raise UsageError for a run that cannot be resumed from the ledger alone."""
    if run.settings.signed is not None and run.finished_at is None:
        raise UsageError(
            _(
                "Run {id} has URLs with a query, which may be a signature and is not kept, so it is resumed with its "
                "list: give {list_name} again.",
                id=run.id,
                list_name=run.list_name,
            ),
            _("To resume it:\n{command}", command=quoted(resume_command(settings, run))),
        )


def _not_resumable(run: RunRecord, wrong: Text) -> UsageError:
    return UsageError(
        _(
            "Run {id} cannot be resumed: {wrong}. Leave out {--resume} to start a new run.",
            id=run.id,
            wrong=wrong,
        )
    )


# --- which rows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunSpec:
    """The rows of a run to plan, and what distinguishes it from other runs."""

    kind: Kind
    list_name: str
    list_sha256: str
    list_bytes: int
    headers: tuple[str, ...]
    root: Path | None
    """Folder of the local files; None if none are sent."""
    rows: Callable[[], Iterator[Row]]
    environments: list[EnvRecord]
    selection: Selection = field(default_factory=Selection)
    """The part of the list or of the merchants: `--where`, `--limit`, `--column`, `--errcode`."""
    parent: str = ""
    warning: Text | None = None
    """Rows that are left out although they were asked for, or a list that looks like a correction and is none."""
    settings: RunSettings = field(default_factory=RunSettings)
    """What else the run keeps: which run it is about, where it saves files. Of its kind's class."""
    urls: Callable[[Row], Secret] | None = None
    """Returns a row's whole URL, where some have a query; only this process has them."""
    given: Given | None = None
    """The DataFrame that was the list; only this process has it."""
    changes: Callable[[], Iterator[PlannedChange]] | None = None
    """What the run will change; None: what its kind wants at the paths of its rows."""

    @property
    def root_name(self) -> str:
        """The root as recorded in the ledger."""
        return str(self.root.resolve()) if self.root is not None else ""


def planned_changes(
    work: RunSpec, ledger: LedgerReader | None, target: str, *, skip_unchanged: bool = False
) -> Iterator[PlannedChange]:
    """Return what a run would change, as far as the ledger knows: without one, nothing is known."""
    if work.changes is not None:
        return work.changes()
    valid = (row for row in work.rows() if not row.invalid)
    files = ((row, None) for row in valid) if ledger is None else ledger.known_files(valid, target)
    left = {(environment.env, environment.appid) for environment in work.environments if environment.left}
    if skip_unchanged and work.root is not None:
        return changes_of(work.kind, files, left, comparing(work.kind, work.root))
    return changes_of(work.kind, files, left)


def list_spec(batch: Batch, kind: Kind) -> RunSpec:
    """Return the spec of a run over a checked list."""
    if kind.writes_links:
        check_columns(batch.headers)
    return RunSpec(
        kind,
        batch.source.name,
        batch.sha256,
        batch.bytes,
        batch.headers,
        batch.root if kind.sends_files else None,
        batch.rows,
        environments_of_rows(batch.first_rows(), batch.merchants),
        batch.selection,
        settings=kind.settings(),
        given=batch.given,
    )


def upload_spec(batch: Batch, backup: Path | None = None) -> RunSpec:
    """Return the spec of an upload of a checked list."""
    spec = list_spec(batch, UPLOAD)
    spec = replace(spec, settings=replace(spec.settings, backup=str(backup) if backup is not None else None))
    sources = hooks(SourceHooks)
    urls = sources.urls(batch.staging.queries()) if sources is not None else None
    if urls is None:
        return spec
    source = str(batch.source.absolute()) if batch.source.is_file() else ""
    return replace(spec, settings=replace(spec.settings, signed=source), urls=urls)


def correction(spec: RunSpec, batch: Batch, ledger: LedgerReader, settings: Settings) -> RunSpec:
    """Return the spec of a corrected fix-me file or failed.csv with the rows' lines in their list, and the run that it corrects.

    The spec of any other list is returned unchanged, with a warning if it has the columns of such a file.
    """
    corrected = corrected_run(batch, spec.kind, ledger, settings) if batch.exported else None
    if not isinstance(corrected, RunRecord):
        return replace(spec, warning=corrected) if corrected is not None else spec
    return replace(
        spec,
        rows=lambda: (replace(row, line=row.of_line) for row in spec.rows()),
        urls=spec.urls and needed(SourceHooks).urls(batch.staging.queries("of_line")),
        settings=replace(spec.settings, corrects=corrected.id),
        given=spec.given and spec.given._replace(lines=_lines_of(spec.given, batch)),
    )


def _lines_of(given: Given, batch: Batch) -> list[int]:
    """Return the lines of a frame's rows in the list that they are of; -1 for those that are no rows of the batch."""
    of_line = {row.line: row.of_line for row in batch.rows()}
    return [of_line.get(line, -1) for line in given.lines]


def check_retry(parent: RunRecord, settings: Settings) -> None:
    """Raise UsageError for a run that cannot be retried: it is unfinished, or its rows went to another target."""
    command = quoted(retry_command(settings, parent))
    if parent.target != settings.run_target:
        text = _("Run {id} went to {target}, and now the target is {run_target}.")
        went, now = target_name(parent.target), target_name(settings.run_target)
        problem = text.format(id=parent.id, target=went, run_target=now)
        fix = _("To retry it there:\n{command}", command=command)
    elif parent.finished_at is None:
        text = _("Run {id} is unfinished, and a retry is for a finished run: resume it first.")
        problem = text.format(id=parent.id)
        fix = _("To resume it:\n{command}", command=quoted(resume_command(settings, parent)))
    elif parent.settings.signed is not None:
        text = _(
            "Run {id} has URLs with a query, which may be a signature and is not kept, so its list is needed: give "
            "{list_name} again."
        )
        problem = text.format(id=parent.id, list_name=parent.list_name)
        fix = _(
            "To send it again, without the rows whose bytes are stored already:\n{command}", command=command
        )
    else:
        return
    raise UsageError(problem, fix)


def rows_to_retry(ledger: LedgerReader, run: RunRecord, path: str = "") -> Iterator[RowRecord]:
    """Stream a run's rows that did not succeed, nor in an earlier retry, as they ended last; without those of newer corrections."""
    corrections = corrections_of(ledger, merged_runs(ledger, run)[0])
    numbers = [each.number for each in corrections if each.number > run.number]
    view = RunView(ledger, run, ledger.retries(run))
    return view.rows(run, outcomes=Outcome.retriable(), path=path, lines_not_of=numbers)


def tallies_to_retry(ledger: LedgerReader, run: RunRecord, path: str = "") -> list[Tally]:
    """Count the rows of `rows_to_retry`, as `Run.tallies` does."""
    rows: Counter[tuple[str, str, str, Outcome, Reason | None, int | None, str]] = Counter()
    for record in rows_to_retry(ledger, run, path):
        row, end = record.row, record.end
        rows[row.appid, row.merchant, row.env, end.outcome, end.reason, end.errcode, end.store_code] += 1
    return [Tally(*key, count) for key, count in rows.items()]


def retry_spec(
    ledger: Ledger,
    parent: RunRecord,
    merchants: Merchants,
    settings: Settings,
    codes: Collection[str] = (),
    path: str = "",
) -> RunSpec:
    """Return the spec of a retry: a finished run's refused, failed and not attempted rows of these merchants, codes and paths.

    Rows that succeeded in an earlier retry, or are corrected, are left out; if none are left, its newest correction that has
    some is retried. The sizes and times of local files are read again: they may have been fixed. Raises UsageError if no
    rows are left, or the run cannot be retried.
    """
    check_retry(parent, settings)
    root = Path(parent.root) if parent.root else None
    selected = {(merchant.env, merchant.appid) for merchant in merchants}

    codes_left = set[str]()

    def to_retry() -> Iterator[Row]:
        for record in rows_to_retry(ledger, parent, path):
            end = record.end
            codes_left.add(str(end.errcode or end.store_code or end.reason))
            if not codes or any(c in codes for c in (str(end.errcode), end.store_code, end.reason)):
                yield record.row

    inspect = source_check(lambda: settings)

    def rows() -> Iterator[Row]:
        of_merchants = (row for row in to_retry() if (row.env, row.appid) in selected)
        return of_merchants if root is None else as_they_are(of_merchants, root, inspect)

    of_rows = environments_of_rows(to_retry(), merchants)
    retried = [of for of in of_rows if (of.env, of.appid) in selected]
    environments = [replace(of, number=number) for number, of in enumerate(retried)]
    listed = {(merchant.env, merchant.appid) for merchant in merchants.whole}
    warning = None
    if missing := [of for of in of_rows if (of.env, of.appid) not in listed]:
        warning = _(
            "Run {id} has rows to retry, but {file} has no line for their merchants: {listed}.",
            id=parent.id,
            file=merchants.source or "merchants.csv",
            listed=as_list((f"{of.merchant} ({of.appid}, {of.env})" for of in missing), 5),
        )
    if not environments:
        if warning is not None:
            raise UsageError(
                warning, _("Add these merchants, or give the run's merchants file with {--merchants}.")
            )
        for failing in filter(lambda each: any(rows_to_retry(ledger, each)), corrections_of(ledger, parent)):
            return retry_spec(ledger, failing, merchants, settings, codes, path)
        text = _("Run {id} ({kind}) has nothing to retry: no row is left for it.")
        if codes_left and (merchants.where or codes or path):
            text = _(
                "Run {id} has no such rows to retry: the chosen codes, merchants and paths leave none. Its codes: {codes}."
            )
        raise UsageError(
            text.format(id=parent.id, kind=parent.kind, codes=as_list(sorted(codes_left), 5)),
            _("To list its rows:\n{listing}", listing=quoted(of_run(settings, parent, "errcodes"))),
        )
    return replace(
        resume_spec(parent),
        rows=rows,
        environments=environments,
        selection=Selection.of(
            *(("errcode", code) for code in sorted(codes)), *merchants.selection.options, ("path", path)
        ),
        parent=parent.id,
        # --where cannot match merchants that are missing.
        warning=warning if merchants.whole is merchants else None,
        settings=replace(parent.settings, corrects=None, cluster=None),
    )


def resume_spec(run: RunRecord) -> RunSpec:
    """Return the spec of a recorded run, for resuming it without its list."""
    return RunSpec(
        run.kind,
        run.list_name,
        run.list_sha256,
        run.list_bytes,
        run.headers,
        Path(run.root) if run.root else None,
        lambda: iter(()),  # the rows are in the ledger
        [],
        run.selection,
        run.parent,
        settings=run.kind.settings(),
    )


def environments_of_rows(rows: Iterable[Row], accounts: Iterable[EnvRecord | Merchant]) -> list[EnvRecord]:
    """Number the environments of some rows, in order of appearance; `accounts` say who owns them."""
    facts = {(account.env, account.appid): (account.owner, account.left) for account in accounts}
    environments: dict[tuple[str, str], EnvRecord] = {}
    for row in rows:
        key = (row.env, row.appid)
        if key not in environments:
            owner, has_left = facts.get(key, (Owner.MERCHANT, False))
            environments[key] = EnvRecord(len(environments), *key, row.merchant, owner, has_left)
    return list(environments.values())
