"""The commands about files that are stored: sync, confirm, undo, delete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops.cli.options import (
    CommonOptions,
    ListOptions,
    RunOptions,
    ScanOptions,
    cluster_option,
    common_options,
    limit_options,
    list_options,
    resume_options,
    scan_options,
    target_line,
)
from tcb_ops.cli.runs import (
    ANY_RUN,
    ask_to_resume,
    follow_run,
    out_option,
    pdf_option,
    report_folder,
    report_run,
    resume_run,
)
from tcb_ops.errors import InputError, UsageError
from tcb_ops.i18n import Text, _, as_lines, as_sentences, ngettext
from tcb_ops.model import SIMULATOR, SUCCESSES, Kind, Outcome, Reason

if TYPE_CHECKING:
    from tcb_ops.cli.console import Console
    from tcb_ops.lists.paths import Batch
    from tcb_ops.preflight import Scope
    from tcb_ops.run import Run
    from tcb_ops.runs.limits import RunLimits
    from tcb_ops.runs.sync import SyncPlan
    from tcb_ops.settings import Settings

_LISTS = {".csv", ".tsv", ".txt", ".xlsx"}
yes_option = click.option("--yes", is_flag=True, help="Do not ask before files on a live target are changed.")


@click.command()
@click.argument("what", metavar="[RUN|LIST]", default="latest")
@click.option(
    "--content", is_flag=True, help="Compare checksums, too: one request to each file's download link."
)
@out_option
@pdf_option
@list_options
@limit_options
@cluster_option
@resume_options
@common_options
def confirm(
    what: str,
    out: str | None,
    *,
    pdf: bool,
    content: bool,
    common: CommonOptions,
    listing: ListOptions,
    limits: RunLimits,
    which: RunOptions,
) -> int:
    """Confirm that uploaded files are there.

    RUN is an upload, by default the latest one; a LIST is compared with what this ledger uploaded. Asks for the download links
    of up to 50 files in one call. Nothing is changed.
    """
    from tcb_ops import api

    with _opened(common, out) as (console, settings):
        if which.resume is not None:
            handle = resume_run(console, Kind.CONFIRM, settings, common, limits, which, None)
            return report_run(console, follow_run(console, handle, common), settings, common, out, pdf=pdf)
        with _subject(console, what, common, settings, listing, "confirm") as subject:
            handle = api.start_confirm(
                subject,
                content=content,
                merchants=common.matching(settings),
                report=out or settings.reports,
                selection=_selection(subject, common, listing),
                settings=settings,
                limits=limits,
                note=common.note,
                new_run=which.new_run,
                cluster=which.cluster,
                may_resume=ask_to_resume(console, settings),
            )
            if handle.warning is not None:
                console.warn(handle.warning)
            return report_run(console, follow_run(console, handle, common), settings, common, out, pdf=pdf)


@click.command()
@click.argument("what", metavar="RUN|LIST", required=False)
@click.option("--foreign", is_flag=True, help="Delete also files that no run of this ledger uploaded.")
@out_option
@pdf_option
@yes_option
@list_options
@limit_options
@resume_options
@common_options
def delete(
    what: str | None,
    out: str | None,
    *,
    pdf: bool,
    foreign: bool,
    yes: bool,
    common: CommonOptions,
    listing: ListOptions,
    limits: RunLimits,
    which: RunOptions,
) -> int:
    """Delete uploaded files from the merchants' environments.

    RUN is an upload, whose files are deleted; --where narrows it. Files of a LIST that no run of this ledger uploaded are
    deleted only with --foreign. On a terminal a live target always asks first.
    """
    from tcb_ops import api
    from tcb_ops.preflight import Scope, scope_of_list

    with _opened(common, out) as (console, settings):
        if which.resume is not None:
            handle = resume_run(console, Kind.DELETE, settings, common, limits, which, None, yes=yes)
            return report_run(console, follow_run(console, handle, common), settings, common, out, pdf=pdf)
        if what is None:
            needs = _("`delete` needs a run or a list. For example:")
            raise UsageError(as_lines((needs, "tcb-ops delete latest")))
        with _subject(console, what, common, settings, listing, "delete") as subject:
            named: list[Text] = []
            refused = False
            if isinstance(subject, str):
                found = api.delete_scope(
                    subject,
                    merchants=common.matching(settings),
                    selection=_selection(subject, common, listing),
                    new_run=which.new_run,
                    settings=settings,
                )
                scope = Scope(*found)
            else:
                scope = scope_of_list(subject)
                listed = api.foreign(
                    subject,
                    selection=_selection(subject, common, listing),
                    new_run=which.new_run,
                    settings=settings,
                )
                refused = listed is not None and not foreign
                if listed is not None:
                    named = [listed]
            preview = as_lines((*named, _("To be deleted: {text}", text=scope.text)))
            if not refused:  # start_delete refuses without a question
                _ask(console, Kind.DELETE, scope, preview, settings, yes=yes)
            handle = api.start_delete(
                subject,
                foreign=foreign,
                merchants=common.matching(settings),
                report=out or settings.reports,
                selection=_selection(subject, common, listing),
                settings=settings,
                limits=limits,
                note=common.note,
                new_run=which.new_run,
                may_resume=ask_to_resume(console, settings),
            )
            if handle.warning is not None:
                console.warn(handle.warning)
            return report_run(console, follow_run(console, handle, common), settings, common, out, pdf=pdf)


@click.command()
@click.argument("run", default="latest")
@out_option
@pdf_option
@yes_option
@limit_options
@resume_options
@common_options
def undo(
    run: str,
    out: str | None,
    *,
    pdf: bool,
    yes: bool,
    common: CommonOptions,
    limits: RunLimits,
    which: RunOptions,
) -> int:
    """Undo an upload: restore what it overwrote, delete what it added.

    By default the latest upload. What was overwritten is restored from the folder given with --backup at the upload. A file
    that somebody else has changed since is not touched. On a terminal a live target always asks first.
    """
    from tcb_ops import api
    from tcb_ops.preflight import scope_of_stored

    with _opened(common, out) as (console, settings):
        if which.resume is not None:
            handle = resume_run(console, Kind.UNDO, settings, common, limits, which, None, yes=yes)
            return report_run(console, follow_run(console, handle, common), settings, common, out, pdf=pdf)
        subject = api.open_run(api.upload_of(run, settings).id, settings=settings)
        merchants = common.matching(settings)
        what = api.undo_scope(subject, merchants=merchants, settings=settings).text
        _ask(console, Kind.UNDO, scope_of_stored(subject, merchants), what, settings, yes=yes)
        handle = api.start_undo(
            subject,
            merchants=merchants,
            report=out or settings.reports,
            selection=common.selection(),
            settings=settings,
            limits=limits,
            note=common.note,
            new_run=which.new_run,
            may_resume=ask_to_resume(console, settings),
        )
        if handle.warning is not None:
            console.warn(handle.warning)
        return report_run(console, follow_run(console, handle, common), settings, common, out, pdf=pdf)


@click.command()
@click.argument("folder", metavar="DIR")
@scan_options(
    "The cloud path, e.g. 'banner/{name}'. Fields: {name} {stem} {ext} {dir} {rel} {merchant} {appid} {env}."
)
@click.option("--delete", "deletes", is_flag=True, help="Delete files that are no longer in DIR.")
@click.option(
    "--confirm", "confirms", is_flag=True, help="Ask the store first what it has; send what differs."
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent; send nothing.")
@click.option("--new-run", is_flag=True, help="Start a new run even if there is one to resume.")
@out_option
@pdf_option
@yes_option
@limit_options
@common_options
def sync(
    folder: str,
    out: str | None,
    *,
    deletes: bool,
    confirms: bool,
    dry_run: bool,
    new_run: bool,
    pdf: bool,
    yes: bool,
    scanning: ScanOptions,
    common: CommonOptions,
    limits: RunLimits,
) -> int:
    """Upload what is new or changed in a folder.

    Files are compared with what the ledger last uploaded, with --confirm also with the store. Files that are no longer in DIR are
    listed. --delete deletes them, but only those that sync itself uploaded from DIR; a deletion cannot be undone. On a terminal a
    live target always asks first.
    """
    from tcb_ops import api
    from tcb_ops.cli import confirm as steps
    from tcb_ops.preflight import facts_line, scope_of_list
    from tcb_ops.reports.explanations import verdict

    with _opened(common, out) as (console, settings):
        plan = _planned(console, folder, scanning, common, settings)
        shared: dict[str, Any] = {
            "report": settings.reports,
            "selection": common.selection(),
            "settings": settings,
            "limits": limits,
            "note": common.note,
            "new_run": new_run,
            "may_resume": ask_to_resume(console, settings),
        }
        code = 0
        # What is there, and what is gone, is determined each time: an interrupted run about it is not resumed.
        fresh = shared | {"new_run": True}
        if confirms and api.overwritten(plan.batch, settings=settings):
            compared = follow_run(console, api.start_confirm(plan.batch, content=True, **fresh), common)
            where = compared.export(report_folder(settings, None, compared.id), pdf=False)
            console.info(_("Compared with the store: {folder}", folder=where))
            unseen = sum(
                one.rows
                for one in compared.tallies()
                if one.outcome is Outcome.UNKNOWN and one.reason is not Reason.NO_CHECKSUM
            )
            if unseen:
                code = 1
                console.warn(
                    ngettext(
                        "{n:,} file could not be compared with the store. It is judged by the ledger.",
                        "{n:,} files could not be compared with the store. They are judged by the ledger.",
                        unseen,
                    )
                )
        if dry_run:
            return max(code, _rehearse(console, plan, settings, limits, common, deletes=deletes))
        facts = facts_line(plan.batch)
        steps.confirm_live(console, Kind.UPLOAD, scope_of_list(plan.batch), facts, settings, yes=yes)
        if deletes and plan.loses_most and not yes:
            raise UsageError(
                _("More files are gone from {folder} than are left. Is it the right folder?", folder=folder),
                _("Nothing was sent. To delete them all the same: --yes"),
                options=["--yes"],
            )
        if deletes and plan.gone is not None:
            doomed = _("To be deleted: {text}", text=scope_of_list(plan.gone).text)
            _ask(console, Kind.DELETE, scope_of_list(plan.gone), doomed, settings, yes=yes)
        report = out or settings.reports
        handle = api.start_upload(plan.batch, skip_unchanged=True, **shared | {"report": report})
        run = follow_run(console, handle, common)
        deleted = None
        if deletes and plan.gone is not None:
            # A file that was renamed is not deleted before it is there under its new name.
            failed = {(one.env, one.appid) for one in run.tallies() if one.outcome not in SUCCESSES}
            gone = plan.gone_from(failed)
            code |= bool(failed)
            if gone is not None:
                deleted = follow_run(console, api.start_delete(gone, **fresh), common)
                deleted.export(report_folder(settings, None, deleted.id), pdf=False)
                code |= not SUCCESSES.issuperset(deleted.counts)
                ended = verdict(Kind.DELETE, deleted.overview().counts, finished=True)
                text = _("Files no longer in the folder, run {run}: {ended}", run=deleted.id, ended=ended)
                (console.info if common.json else console.print)(text)
            if failed:
                console.warn(
                    _(
                        "Where an upload did not succeed, nothing was deleted. Correct it, then run the same command again."
                    )
                )
        console.json_extra = _gone_in_json(plan, deleted)
        return max(code, report_run(console, run, settings, common, out, pdf=pdf))


def _rehearse(
    console: Console,
    plan: SyncPlan,
    settings: Settings,
    limits: RunLimits,
    common: CommonOptions,
    *,
    deletes: bool,
) -> int:
    """Print what a synchronization would send and delete; return the exit code."""
    from tcb_ops import api
    from tcb_ops.cli.confirm import dry_run

    if deletes and plan.gone is not None:
        console.info(_("--delete would delete them."))
    console.json_extra = _gone_in_json(plan, None)
    changed = api.changed(plan, settings=settings)
    if changed is not None:
        return dry_run(console, changed, settings, limits, uploads=True, as_json=common.json)
    if common.json:
        console.json({"rows": 0, "calls": 0})
    else:
        rows = ngettext("{n:,} row", "{n:,} rows", plan.batch.valid)
        console.print(_("Nothing would be sent: {rows}, all unchanged.", rows=rows))
    console.info(target_line(settings))
    return 0


def _planned(
    console: Console, folder: str, scanning: ScanOptions, common: CommonOptions, settings: Settings
) -> SyncPlan:
    """Plan a synchronization. If the folder holds files that cannot be listed, print the problems and exit 2."""
    from tcb_ops import api
    from tcb_ops.cli.confirm import show_problems
    from tcb_ops.cli.setup import own_files, print_left_out

    try:
        plan = api.plan_sync(
            folder,
            scanning.to,
            merchants=common.read_merchants(settings),
            path=scanning.template,
            include=scanning.include,
            exclude=scanning.exclude,
            own=own_files(common, settings),
            settings=settings,
        )
    except InputError as error:
        show_problems(console, error.source, error.problems)
        console.warn(_("Nothing was sent."))
        raise click.exceptions.Exit(error.exit_code) from None
    print_left_out(console, plan.scanned)
    if plan.gone_text is not None:
        console.info(plan.gone_text)
    return plan


def _gone_in_json(plan: SyncPlan, deleted: Run | None) -> dict[str, object]:
    """Return the count of files that are gone from the folder, and the run that deleted them."""
    return {
        "gone": {
            "rows": plan.gone.count if plan.gone is not None else 0,
            "run": deleted.id if deleted is not None else None,
            "counts": dict(deleted.counts) if deleted is not None else {},
        }
    }


@contextmanager
def _opened(common: CommonOptions, out: str | None) -> Iterator[tuple[Console, Settings]]:
    """Open the console and the target; refuse a report folder that cannot be had before anything is sent."""
    from tcb_ops.reports.export import check_destination

    settings, console = common.start()
    check_destination(report_folder(settings, out, ANY_RUN))
    with common.open_target(console, settings) as opened:
        if opened.run_target == SIMULATOR:
            console.info(
                _(
                    "The embedded simulator starts without files each time. To find those of an earlier command, upload to a "
                    "running `tcb-ops simulate`: give its address with --target."
                )
            )
        yield console, opened


@contextmanager
def _subject(
    console: Console, what: str, common: CommonOptions, settings: Settings, listing: ListOptions, kind: str
) -> Iterator[str | Batch]:
    """Return the run that is named, or read the list."""
    from tcb_ops.cli.confirm import read_list

    if Path(what).suffix.lower() not in _LISTS and not Path(what).is_file():
        yield what
        return
    with read_list(console, what, common, settings, listing, kind=kind, root=None) as batch:
        yield batch


def _selection(subject: str | Batch, common: CommonOptions, listing: ListOptions) -> str:
    return common.selection() if isinstance(subject, str) else listing.selection(common, None)


def _ask(console: Console, kind: Kind, scope: Scope, what: Text, settings: Settings, *, yes: bool) -> None:
    """Show what is about to change, and ask where the target is live."""
    from tcb_ops.cli.confirm import confirm_live

    if settings.on_loopback:
        console.info(what)
    confirm_live(console, kind, scope, as_sentences((what,)), settings, yes=yes)
