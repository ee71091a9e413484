"""The public functions about stored files; they take what those of `tcb_ops.api` take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tcb_ops.arguments import checked
from tcb_ops.errors import RunNotFoundError, check_count
from tcb_ops.features.stored.kinds import DELETE
from tcb_ops.i18n import Text, _
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.list_kinds import UPLOAD
from tcb_ops.settings import Settings
from tcb_ops.start import (
    StartOptions,
    blocking,
    existing_ledger,
    find_run,
    ledger_with_runs,
    merchants_of,
    opened_target,
    selected_merchants,
    settings_for,
    start_run,
)

if TYPE_CHECKING:
    from tcb_ops.features.cluster.client import Cluster
    from tcb_ops.features.stored.download_links import DownloadLinks
    from tcb_ops.features.stored.specs import UndoScope
    from tcb_ops.lists.batch import Batch
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.plan import RunSpec
    from tcb_ops.runs.records import RunRecord


@checked
def start_confirm(
    what: str | Run | Batch = "latest",
    *,
    content: bool = False,
    merchants: Merchants | str | Path | None = None,
    report: str | Path | None = None,
    cluster: Cluster | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start to confirm that stored files are there, or resume the unfinished run.

    `what`: an upload run (`latest`: the latest upload, its retries included), or a list from `read_paths`. `content`: compare
    each file's checksum with that of the bytes that were uploaded, with one request to its download link. `merchants`: only
    their rows.
    """
    from tcb_ops.features.stored.specs import confirm_list_spec, confirm_spec
    from tcb_ops.lists.batch import Batch

    settings, only = settings_for(options, what), selected_merchants(merchants)
    subject = what if isinstance(what, Batch) else upload_of(what, settings, "what")
    selection = options.get("selection", "")

    def work_of(ledger: Ledger) -> RunSpec:
        if isinstance(subject, Batch):
            return confirm_list_spec(subject, selection, content=content)
        return confirm_spec(ledger, subject, only, selection, content=content, zone=settings.zone)

    return start_run(work_of, settings, options, out=report, cluster=cluster)


@checked
def start_delete(
    what: str | Run | Batch,
    *,
    foreign: bool = False,
    content: bool = False,
    merchants: Merchants | str | Path | None = None,
    report: str | Path | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start to delete stored files, or resume the unfinished run. It does not ask.

    `what`: an upload run, whose files are deleted, or a list from `read_paths`. `foreign`: delete also files that no run of
    this ledger uploaded; without it they are a UsageError. `content`: of a list, compare each file's checksum with that of the
    bytes that were uploaded first, and leave what differs: its row ends as failed. `merchants`: only their rows.
    """
    from tcb_ops.features.stored.specs import delete_list_spec, delete_spec
    from tcb_ops.lists.batch import Batch

    settings, only = settings_for(options, what), selected_merchants(merchants)
    subject = what if isinstance(what, Batch) else upload_of(what, settings, "what")
    selection, new_run = options.get("selection", ""), options.get("new_run", False)

    def work_of(ledger: Ledger) -> RunSpec:
        if isinstance(subject, Batch):
            how = {"foreign": foreign, "content": content, "new_run": new_run}
            return delete_list_spec(ledger, subject, settings.run_target, selection, of_list="", **how)
        return delete_spec(ledger, subject, only, selection, new_run=new_run)

    return start_run(work_of, settings, options, out=report)


def start_delete_gone(
    gone: Batch, of_list: str, settings: Settings, options: StartOptions, *, content: bool
) -> RunHandle:
    """Start to delete what is gone from the folder of a synchronization; `content`: as of `start_delete`.

    `of_list`: the name of its list; what an upload of another list, or another tool's file restored by an undo, has put
    there since is left: its row ends as failed.
    """
    from tcb_ops.features.stored.specs import delete_list_spec

    target, selection = settings.run_target, options.get("selection", "")
    how = {"foreign": False, "content": content, "new_run": options.get("new_run", False)}
    return start_run(
        lambda ledger: delete_list_spec(ledger, gone, target, selection, of_list=of_list, **how),
        settings,
        options,
        out=settings.reports,
    )


@checked
def start_undo(
    run: str | Run = "latest",
    *,
    merchants: Merchants | str | Path | None = None,
    report: str | Path | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start to undo an upload, or resume the unfinished run: restore what it overwrote, delete what it added. It does not ask.

    A file that somebody else has changed since is not touched (`conflict`). `run`: an upload run (`latest`: the latest upload,
    its retries included). `merchants`: only their rows.
    """
    from tcb_ops.features.stored.specs import undo_spec

    only = selected_merchants(merchants)
    settings = settings_for(options, run)
    subject, selection = upload_of(run, settings), options.get("selection", "")
    return start_run(
        lambda ledger: undo_spec(ledger, subject, only, selection), settings, options, out=report
    )


@checked
def download_links(
    run: str | Run = "latest",
    *,
    out: str | Path = "downloads.csv",
    max_age: int = 7200,
    merchants: Merchants | str | Path | None = None,
    settings: Settings | None = None,
) -> DownloadLinks:
    """Write download links of an upload's files to `out` (0600), in the order of its list, after the list's columns.

    They are secrets, valid for `max_age` seconds. `merchants`: only their rows. A row without a link has the errcode instead.
    """
    from tcb_ops.features.stored.download_links import DOWNLOAD_COLUMNS, LinkRequests, write_download_links
    from tcb_ops.features.stored.specs import confirm_spec, file_ids
    from tcb_ops.runs.links_file import check_destination
    from tcb_ops.runs.loop import submit_coroutine
    from tcb_ops.wechat import open_client

    check_count("max_age", max_age, least=1)
    only = selected_merchants(merchants)
    check_destination(Path(out), DOWNLOAD_COLUMNS)
    settings = settings_for({"settings": settings}, run)
    subject = upload_of(run, settings)
    ledger = ledger_with_runs(settings)
    spec = confirm_spec(ledger, subject, only, "", content=False, zone=settings.zone)
    with opened_target(settings, lambda: merchants_of(ledger, subject)) as opened:
        rows = file_ids(ledger, spec, settings.run_target)
        owners = {
            (environment.env, environment.appid): environment.owner for environment in spec.environments
        }
        component, dest = settings.tokens.component_appid, Path(out).absolute()

        async def write() -> DownloadLinks:
            async with open_client(opened, connections=16) as (client, caller):
                requests = LinkRequests(client.locate, caller, owners, component, max_age)
                return await write_download_links(rows, subject.headers, dest, requests, settings.zone)

        return submit_coroutine(write()).result()


def undo_scope(
    run: str | Run = "latest", *, merchants: Merchants | None = None, settings: Settings
) -> UndoScope:
    """Count what an undo would restore and delete, and what cannot be undone. Nothing is sent."""
    from tcb_ops.features.stored.specs import scope_of_undo

    return scope_of_undo(ledger_with_runs(settings), upload_of(run, settings), merchants)


def delete_scope(
    run: str | Run, merchants: Merchants | None, settings: Settings, options: StartOptions
) -> tuple[int, int, int]:
    """Count the files of an upload that a delete with these options would remove, their merchants and environments.

    Nothing is sent. Raises UsageError if there are none.
    """
    from tcb_ops.features.stored.specs import delete_spec

    ledger = ledger_with_runs(settings)
    selection, new_run = options.get("selection", ""), options.get("new_run", False)
    spec = delete_spec(ledger, upload_of(run, settings), merchants, selection, new_run=new_run)
    appids = {environment.appid for environment in spec.environments}
    return sum(1 for _row in spec.rows()), len(appids), len(spec.environments)


def overwritten(batch: Batch, *, settings: Settings) -> int:
    """Count the rows whose path an earlier run of the ledger wrote: an upload replaces their files."""
    from tcb_ops.features.stored.specs import overwritten_rows

    ledger = existing_ledger(settings)
    return 0 if ledger is None else overwritten_rows(ledger, batch, settings.run_target)


def foreign(batch: Batch, settings: Settings, options: StartOptions) -> Text | None:
    """List the files of a list that no run of the ledger uploaded; None where there are none.

    `options` are those of the delete, which may resume an unfinished one.
    """
    from tcb_ops.features.stored.specs import foreign_text
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.plan import list_spec

    spec = list_spec(batch, DELETE, options.get("selection", ""))
    new_run = options.get("new_run", False)
    return foreign_text(Ledger(settings.ledger), spec, settings.run_target, new_run=new_run)


def upload_of(run: str | Run, settings: Settings, parameter: str = "run") -> RunRecord:
    """Return the upload that is meant: of `latest` the newest one, of its retries their original. Raises UsageError."""
    from tcb_ops.features.stored.specs import check_subject

    if not (isinstance(run, str) and run == "latest"):
        subject = find_run(run, settings, parameter).record
        check_subject(subject, settings.run_target)
        return subject
    ledger = ledger_with_runs(settings)
    newest = ledger.newest(UPLOAD, settings.run_target)
    if newest is None:
        raise RunNotFoundError(
            _("{name} has no upload to {target} yet.", name=ledger.name, target=settings.run_target)
        )
    return newest


confirm = blocking(start_confirm)
delete = blocking(start_delete)
undo = blocking(start_undo)
