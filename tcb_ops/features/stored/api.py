"""The public functions about stored files; they take what those of `tcb_ops.api` take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, Unpack

from tcb_ops.arguments import checked
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.engine.plan import RunSpec, list_spec
from tcb_ops.errors import UsageError
from tcb_ops.features.stored.kinds import CONFIRM
from tcb_ops.features.stored.run_settings import StoredRunSettings
from tcb_ops.features.stored.specs import (
    UndoScope,
    confirm_spec,
    delete_work,
    scope_of_undo,
    undo_spec,
)
from tcb_ops.i18n import Text, _, as_lines
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import RunRecord
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import target_name
from tcb_ops.preflight import SendScope
from tcb_ops.run import Run, RunHandle
from tcb_ops.settings import Settings
from tcb_ops.start import (
    StartOptions,
    blocking,
    check_not_narrowed,
    find_run,
    ledger_with_runs,
    selected_merchants,
    settings_for,
    start_run,
)

AskFirst: TypeAlias = Callable[[SendScope, Text], None]
"""Is called with what would be changed, in figures and in words; raises where the answer is no."""


@checked
def start_confirm(
    what: str | Run | Batch = "latest",
    *,
    content: bool = False,
    merchants: Merchants | str | Path | None = None,
    out: str | Path | None = None,
    cluster: str | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start to confirm that stored files are there, or resume the unfinished run.

    `what`: an upload run (`latest`: that of the latest upload or retry), its retries included, or a list from `read_paths`. `content`: compare
    each file's checksum with that of the bytes that were uploaded, with one request to its download link. `merchants`: only
    their rows.
    `out`: the folder of the report. `confirm` writes it at the end; after `start_confirm` export the run there: until then the same
    call resumes it.
    """
    settings = settings_for(options, what)
    only = _narrowing(what, merchants, settings, options)
    subject = what if isinstance(what, Batch) else upload_of(what, settings, "what")

    def work_of(ledger: Ledger) -> RunSpec:
        if isinstance(subject, Batch):
            return replace(list_spec(subject, CONFIRM), settings=StoredRunSettings(content=content))
        return confirm_spec(ledger, subject, only, settings.zone, content=content)

    return start_run(work_of, settings, options, out=out, cluster=cluster)


@checked
def start_delete(
    what: str | Run | Batch,
    *,
    foreign: bool = False,
    merchants: Merchants | str | Path | None = None,
    out: str | Path | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start to delete stored files, or resume the unfinished run. It does not ask.

    `what`: an upload run, whose files are deleted, or a list from `read_paths`. `foreign`: delete also files that no run of
    this ledger uploaded; without it they are a UsageError. `merchants`: only their rows.
    `out`: the folder of the report. `delete` writes it at the end; after `start_delete` export the run there: until then the same
    call resumes it.
    """
    settings = settings_for(options, what)
    only = _narrowing(what, merchants, settings, options)
    return start_delete_of(what, settings, options, only=only, foreign=foreign, out=out)


def start_delete_of(
    what: str | Run | Batch,
    settings: Settings,
    options: StartOptions,
    *,
    only: Merchants | None = None,
    foreign: bool = False,
    of_list: str = "",
    out: str | Path | None = None,
    ask: AskFirst | None = None,
) -> RunHandle:
    """Start a delete, as `start_delete` does, or resume the unfinished run.

    `of_list`: delete of a list only what uploads of lists of this name uploaded last: the row of any other file ends as failed.
    `ask`: called with what would be deleted, before anything is planned; it raises where the answer is no.
    """
    subject = what if isinstance(what, Batch) else upload_of(what, settings, "what")

    def work_of(ledger: Ledger) -> RunSpec:
        spec, foreign_files = delete_work(
            ledger, subject, settings, options, only=only, foreign=foreign, of_list=of_list
        )
        if ask is not None:
            scope = _scope_of(spec)
            ask(scope, as_lines(filter(None, (foreign_files, _("To be deleted: {text}", text=scope.text)))))
        return spec

    return start_run(work_of, settings, options, out=out)


@checked
def start_undo(
    run: str | Run = "latest",
    *,
    merchants: Merchants | str | Path | None = None,
    out: str | Path | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start to undo an upload, or resume the unfinished run: restore what it overwrote, delete what it added. It does not ask.

    A file that somebody else has changed since is not touched (`conflict`). `run`: an upload run (`latest`: that of the
    latest upload or retry), its retries included. `merchants`: only their rows.
    `out`: the folder of the report. `undo` writes it at the end; after `start_undo` export the run there: until then the same
    call resumes it.
    """
    settings = settings_for(options, run)
    only = _narrowing(run, merchants, settings, options)
    return start_undo_of(run, settings, options, only=only, out=out)


def start_undo_of(
    run: str | Run,
    settings: Settings,
    options: StartOptions,
    *,
    only: Merchants | None = None,
    out: str | Path | None = None,
    ask: AskFirst | None = None,
) -> RunHandle:
    """Start an undo, as `start_undo` does. `ask`: as in `start_delete_of`."""
    subject = upload_of(run, settings)

    def work_of(ledger: Ledger) -> RunSpec:
        spec = undo_spec(ledger, subject, only)
        if ask is not None:
            ask(_scope_of(spec), scope_of_undo(spec).text)
        return spec

    return start_run(work_of, settings, options, out=out)


def undo_scope(
    run: str | Run = "latest", *, merchants: Merchants | None = None, settings: Settings
) -> UndoScope:
    """Count what an undo would restore and delete, and what cannot be undone. Nothing is sent."""
    return scope_of_undo(undo_spec(ledger_with_runs(settings), upload_of(run, settings), merchants))


def _narrowing(
    what: str | Run | Batch,
    merchants: Merchants | str | Path | None,
    settings: Settings,
    options: StartOptions,
) -> Merchants | None:
    where = options.get("where", "")
    if isinstance(what, Batch):
        check_not_narrowed(merchants, where)
    return selected_merchants(merchants, {"settings": settings}, where)


def upload_of(run: str | Run, settings: Settings, parameter: str = "run") -> RunRecord:
    """Return the upload that is meant; for `latest` without its retries and corrections. Raises UsageError."""
    target = settings.run_target
    subject = find_run(run, settings, parameter, UPLOAD).record
    if subject.kind is not UPLOAD:
        text = _("Run {id} is a run of {kind}: only an upload has stored files.")
        raise UsageError(text.format(id=subject.id, kind=subject.kind))
    if subject.target != target:
        text = _("Run {id} went to {target}, and now the target is {run_target}.")
        text = text.format(id=subject.id, target=target_name(subject.target), run_target=target_name(target))
        raise UsageError(text, _("Give its target with {--target}."))
    return subject


confirm = blocking(start_confirm)
delete = blocking(start_delete)
undo = blocking(start_undo)


def _scope_of(work: RunSpec) -> SendScope:
    appids = {environment.appid for environment in work.environments}
    rows = sum(not row.invalid for row in work.rows())
    return SendScope(rows, len(appids), len(work.environments))
