"""The commands about a folder and the files stored from it: list, sync, confirm, undo, delete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import show_problems
from tcb_ops.cli.options import (
    CommonOptions,
    Function,
    cluster_option,
    common_options,
    given,
    limit_options,
    list_options,
    new_run_options,
    options_of,
    rehearsed_options,
    report_options,
    resume_options,
    settings_options,
    table_option,
    yes_option,
)
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.errors import InputError, InterruptedRunError, StoppedError, UsageError
from tcb_ops.features.stored.kinds import CONFIRM, DELETE, UNDO
from tcb_ops.formatting import format_size, sanitize
from tcb_ops.hooks import WorkbookHooks, hooks
from tcb_ops.i18n import Text, _, as_lines, as_list, ngettext, pgettext
from tcb_ops.kinds import Kind, environment_count, merchant_count, row_count
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import SIMULATOR, file_problem
from tcb_ops.settings import Settings, settings_file, without_dots

if TYPE_CHECKING:
    from tcb_ops.cli.console import Console
    from tcb_ops.cli.steps import RunCommand
    from tcb_ops.features.stored.listing import FileLine
    from tcb_ops.features.stored.scan import ScannedFiles
    from tcb_ops.features.stored.sync import SyncPlan
    from tcb_ops.lists.batch import Batch
    from tcb_ops.preflight import SendScope
    from tcb_ops.run import Run, RunHandle


LINES_SHOWN = 200
"""Files that `files` prints at most."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ScanOptions:
    """Options that make a list of a folder: which files, for whom, and where to."""

    to: tuple[str, ...] = given(
        "An env, a merchant's name or appid; all: every merchant's default environment; all-envs: every "
        "environment. --where narrows the last two. Repeatable.",
        (),
        required=True,
        metavar="WHOM",
    )
    template: str = given("The cloud path.", "{rel}", name="path", show_default=True, metavar="TEMPLATE")
    include: tuple[str, ...] = given("Only such files, e.g. '*.png'. Repeatable.", (), metavar="GLOB")
    exclude: tuple[str, ...] = given("Exclude such files, e.g. '旧/*'. Repeatable.", (), metavar="GLOB")


def scan_options(path_help: str) -> Callable[[Function], Function]:
    """Return the options of a command that scans a folder; `path_help`: the help of --path."""
    return options_of(ScanOptions, template=path_help)


@click.command(cls=Command, usual="content out target where json")
@click.argument("what", metavar="[RUN|LIST]", default="latest")
@click.option(
    "--content", is_flag=True, help="Compare checksums, too: one request to each file's download link."
)
@report_options
@list_options
@limit_options
@cluster_option
@resume_options
@common_options
def confirm(command: RunCommand, what: str, *, content: bool) -> int:
    """Confirm that uploaded files are there.

    RUN is an upload, by default the latest one; a LIST is compared with what this ledger uploaded. Asks for the download links
    of up to 50 files in one call. Nothing is changed.
    """
    from tcb_ops.features.stored import api as stored

    with _opened(command):
        if command.which.resume is not None:
            return _finish(command, command.resume(CONFIRM))
        with _subject(command, what) as (subject, only):
            handle = stored.start_confirm(
                subject,
                content=content,
                merchants=only,
                out=command.reports,
                cluster=command.which.cluster,
                **command.options,
            )
            return _finish(command, handle)


@click.command(cls=Command, usual="foreign out dry-run yes target where json")
@click.argument("what", metavar="RUN|LIST", required=False)
@click.option("--foreign", is_flag=True, help="Delete also files that no run of this ledger uploaded.")
@report_options
@yes_option
@list_options
@limit_options
@rehearsed_options
@common_options
def delete(command: RunCommand, what: str | None, *, foreign: bool) -> int:
    """Delete uploaded files from the merchants' environments.

    RUN is an upload, whose files are deleted; --where narrows it. Files of a LIST that no run of this ledger uploaded are
    deleted only with --foreign. On a terminal a live target always asks first.
    """
    from tcb_ops.features.stored import api as stored
    from tcb_ops.features.stored.specs import delete_work
    from tcb_ops.start import ledger_with_runs

    with _opened(command):
        if command.which.resume is not None:
            return _finish(command, command.resume(DELETE))
        if what is None:
            needs = _("`delete` needs a run or a list. For example:")
            raise UsageError(as_lines((needs, "tcb-ops delete latest")))
        with _subject(command, what) as (subject, only):
            settings, options = command.settings, command.options
            if command.which.dry_run:
                batch = None if isinstance(subject, str) else subject
                what_files = stored.upload_of(subject, settings) if isinstance(subject, str) else subject
                ledger = ledger_with_runs(settings)
                work, others = delete_work(ledger, what_files, settings, options, only=only, foreign=foreign)
                if others is not None:
                    command.console.info(others)
                return command.dry_run([work], batch)
            handle = stored.start_delete_of(
                subject,
                settings,
                options,
                only=only,
                foreign=foreign,
                out=command.reports,
                ask=partial(_ask, command, DELETE),
            )
            return _finish(command, handle)


@click.command(cls=Command, usual="out dry-run yes target where json")
@click.argument("run", default="latest")
@report_options
@yes_option
@limit_options
@rehearsed_options
@common_options
def undo(command: RunCommand, run: str) -> int:
    """Undo an upload: restore what it overwrote, delete what it added.

    By default the latest upload. What was overwritten is restored from the folder given with --backup at the upload. A file
    that somebody else has changed since is not touched. On a terminal a live target always asks first.
    """
    from tcb_ops.features.stored import api as stored
    from tcb_ops.features.stored.specs import scope_of_undo, undo_spec
    from tcb_ops.start import ledger_with_runs

    with _opened(command):
        if command.which.resume is not None:
            return _finish(command, command.resume(UNDO))
        upload = _upload(command, run)
        if command.which.dry_run:
            subject, ledger = stored.upload_of(upload, command.settings), ledger_with_runs(command.settings)
            work = undo_spec(ledger, subject, command.common.matching(command.settings))
            command.console.info(scope_of_undo(work).text)
            return command.dry_run([work])
        handle = stored.start_undo_of(
            upload,
            command.settings,
            command.options,
            only=command.common.matching(command.settings),
            out=command.reports,
            ask=partial(_ask, command, UNDO),
        )
        return _finish(command, handle)


@click.command("list", cls=Command, usual="to path include exclude out where json")
@click.argument("source")
@scan_options(
    "The cloud path, e.g. 'banner/{date}/{name}'. Fields: {name} {stem} {ext} {dir} {rel} {date} {merchant} "
    "{appid} {env}."
)
@click.option(
    "--out",
    default="list.csv",
    show_default=True,
    metavar="FILE.csv|.xlsx" if hooks(WorkbookHooks) else "FILE.csv",
    help="The list; never overwritten.",
)
@settings_options("target", "merchants", "tokens", "ledger", "where", "json")
def list_(source: str, out: str, *, scanning: ScanOptions, common: CommonOptions) -> int:
    """Make a path list of a file or a folder.

    A row per file and environment. Nothing is sent: check the list, then run check and upload with it.

    Hidden and temporary files (.DS_Store, Thumbs.db, ~$…) and tcb-ops's own are left out, and counted.
    """
    from tcb_ops.engine.next_commands import command
    from tcb_ops.features.stored.scan import PathTemplate, default_root, scan, select_targets, write_list
    from tcb_ops.lists.paths import read_paths
    from tcb_ops.table_files import table_file

    settings, console = common.start()
    dest = table_file(out)
    today = datetime.now(settings.zone).date().isoformat()
    fields = PathTemplate(scanning.template, today)
    merchants = common.read_merchants(settings)
    targets = select_targets(merchants, scanning.to)
    scanned = scan(
        Path(source), include=scanning.include, exclude=scanning.exclude, own=own_files(common, settings)
    )
    base = default_root(scanned.folder, dest)
    write_list(scanned, targets, fields, dest, base)
    try:
        batch = read_paths(dest, merchants, base)
    except InputError as error:
        dest.unlink()
        unique = {(problem.value, problem.message.en): problem for problem in error.problems}
        problems = [
            file_problem(_("{name}: {message}", name=problem.value, message=problem.message), problem.fix)
            for problem in unique.values()
        ]
        show_problems(console, str(scanned.folder), problems)
        text = _("No list was written: rename these files, or change {--path}; {{rel}} keeps all apart.")
        console.warn(text)
        refused = InputError(text, str(scanned.folder), problems)
        refused.shown = True
        raise refused from None
    print_left_out(console, scanned)
    files = len(scanned.files)
    if common.json:
        left_out = {"junk": scanned.junk, "own": scanned.own, "excluded": scanned.excluded}
        counts = {"rows": batch.valid, "files": files, "envs": batch.envs, "merchants": batch.merchants_count}
        about = {"list": str(dest), "root": str(base)} | counts
        console.json(about | {"bytes": batch.total_bytes, "left_out": left_out})
        return 0
    console.print(
        _(
            "{dest}: {rows}, {files} for {environments} of {merchants}, {size}",
            dest=dest,
            rows=row_count(batch.valid),
            files=ngettext("{n:,} file", "{n:,} files", files),
            environments=environment_count(batch.envs),
            merchants=merchant_count(batch.merchants_count),
            size=format_size(batch.total_bytes),
        )
    )
    purpose = _("Check it, then upload it (LIVE; to rehearse, add {--target:simulator}):")
    purpose = _("Check it, then run:") if settings.on_loopback else purpose
    words = ("upload", without_dots(dest), "--root", without_dots(base))
    console.suggest(purpose, command(settings, *words))
    return 0


@click.command("files", cls=Command, usual="path out target json")
@click.argument("what", metavar="[ENV|MERCHANT]", default="")
@click.option("--path", default="", help="Only paths that contain this.")
@table_option("Write all lines.")
@click.option("--repair", is_flag=True, help="Make the ledger's table of stored files again from its runs.")
@settings_options("target", "ledger", "json")
def files_(what: str, path: str, out: Path | None, *, repair: bool, common: CommonOptions) -> int:
    """Show what runs stored in an environment, and what became of it.

    By which run, when, and what the last confirmation found. The ledger knows nothing of what others write there: `confirm` looks.
    Without ENV or MERCHANT, everything of the target.
    """
    from tcb_ops.features.stored import listing
    from tcb_ops.reports.formats.terminal import AlignedTable
    from tcb_ops.table_files import write_table

    settings, console = common.start()
    if repair:
        listing.repair_files(settings)
        console.info(
            _(
                "The table of stored files was made again from the runs of {ledger}.",
                ledger=settings.ledger_name,
            )
        )
    stored = listing.files(what, path=path, settings=settings)
    if out is not None:
        write_table(out, listing.COLUMNS, (line.values(settings) for line in stored))
        console.info(_("All lines: {out}", out=out))
    first = list(islice(stored, LINES_SHOWN))
    if common.json:
        named = [dict(zip(listing.COLUMNS, line.values(settings), strict=True)) for line in first]
        console.json({"target": settings.run_target, "counts": dict(stored.counts), "files": named})
    else:
        console.print(stored.text)
        if first:
            console.print(AlignedTable(_file_cells(first, settings)))
    if len(stored) > len(first):
        console.warn(_("Only the first {n:,} are shown. {--out} FILE.csv writes all.", n=len(first)))
    return 0


def _file_cells(lines: Sequence[FileLine], settings: Settings) -> list[list[str]]:
    """Return the head and the cells of a table of files, without columns that are empty."""
    lang = settings.lang
    heads = (
        _("merchant"), _("environment"), _("path"), pgettext("heading", "there"), _("by run"), _("since"), _("last look"),
        _("in doubt by"),
    )  # fmt: skip
    table = [[head.of(lang) for head in heads]]
    for line in lines:
        file = line.file
        at = datetime.fromtimestamp(file.changed_at, settings.zone).isoformat(" ", "minutes")[:16]
        look = (
            _("{outcome} ({run})", outcome=file.found.label, run=file.looked).of(lang) if file.found else ""
        )
        doubt = file.doubt or next(iter(file.pending), "")
        cells = (line.merchant, line.env, line.path, line.state.label.of(lang), file.changed, at, look, doubt)
        table.append([sanitize(cell) for cell in cells])
    filled = [column for column in range(len(heads)) if any(cells[column] for cells in table[1:])]
    return [[cells[column] for column in filled] for cells in table]


def own_files(common: CommonOptions, settings: Settings) -> frozenset[str]:
    """Return the real paths of tcb-ops's own files, which must never be uploaded."""
    tokens = settings.tokens
    links = ("links.csv", "links.retry.csv", "links.fixed.csv")
    named = [name + tail for name in links for tail in ("", ".part")]
    named += [
        value.removeprefix("file:") for value in (tokens.secret, tokens.ticket) if value.startswith("file:")
    ]
    files = (settings_file(common.config), settings.merchants, settings.reports, tokens.file, tokens.store)
    if "://" not in settings.ledger:
        real = os.path.realpath(settings.ledger)
        named += [real + tail for tail in ("", "-wal", "-shm", "-journal", "-locks")]
    return frozenset(os.path.realpath(name) for name in (*named, *map(str, files)))


def print_left_out(console: Console, scanned: ScannedFiles) -> None:
    """Print how many files a scan left out, and why."""
    for count, what in (
        (scanned.junk, _("hidden or temporary")),
        (scanned.own, _("tcb-ops's own")),
        (scanned.excluded, _("by {--include} and {--exclude}")),
    ):
        if count:
            console.info(_("Skipped, {what}: {count:,}", what=what, count=count))


@click.command(cls=Command, usual="to delete dry-run yes target where json")
@click.argument("folder", metavar="DIR")
@scan_options(
    "The cloud path, e.g. 'banner/{name}'. Fields: {name} {stem} {ext} {dir} {rel} {merchant} {appid} {env}."
)
@click.option("--delete", "deletes", is_flag=True, help="Delete files that are no longer in DIR.")
@new_run_options
@report_options
@yes_option
@limit_options
@common_options
def sync(command: RunCommand, folder: str, *, deletes: bool, scanning: ScanOptions) -> int:
    """Upload what is new or changed in a folder.

    Files are compared with what the ledger last uploaded and confirmed. Files that are no longer in DIR are listed. --delete
    deletes them, but only those that sync itself uploaded from DIR; a deletion cannot be undone. On a terminal a live target
    always asks first.
    """
    from tcb_ops import api
    from tcb_ops.features.stored.sync import plan_sync
    from tcb_ops.lists.batch import facts_line
    from tcb_ops.preflight import scope_of_list

    with _opened(command):
        plan = plan_sync(
            folder,
            scanning.to,
            merchants=command.common.read_merchants(command.settings),
            path=scanning.template,
            include=scanning.include,
            exclude=scanning.exclude,
            own=own_files(command.common, command.settings),
            settings=command.settings,
        )
        print_left_out(command.console, plan.scanned)
        if plan.gone_text is not None:
            command.console.info(plan.gone_text)
        if command.which.dry_run:
            return _rehearse(command, plan, deletes=deletes)
        command.ask_confirmation(UPLOAD, scope_of_list(plan.batch), facts_line(plan.batch))
        if deletes and plan.gone is not None:
            if plan.gone.count > plan.batch.count and not command.which.yes:
                text = _("More files are gone from {folder} than are left. Is it the right folder?")
                text = text.format(folder=folder)
                raise UsageError(text, _("Nothing was sent. To delete them anyway: {--yes}"))
            scope = scope_of_list(plan.gone)
            _ask(command, DELETE, scope, _("To be deleted: {text}", text=scope.text))
        with _suggested_again(command, _words_again(command, plan, scanning, deletes=deletes)):
            run = command.follow(
                api.start_upload(plan.batch, skip_unchanged=True, out=command.reports, **command.options),
                command.export,
            )
            deleted, complete = None, True
            if deletes and plan.gone is not None:
                deleted, complete = _delete_gone(command, plan, run)
        command.console.json_extra = _gone_in_json(plan, deleted)
        return max(not complete, command.end_reported(run))


@contextmanager
def _suggested_again(command: RunCommand, words: list[str]) -> Iterator[None]:
    """Suggest these words, the whole synchronization, instead of the run in which it was interrupted or stopped."""
    from tcb_ops.engine.next_commands import command as composed
    from tcb_ops.engine.next_commands import quoted

    try:
        yield
    except (InterruptedRunError, StoppedError) as error:
        again = quoted(composed(command.settings, *words))
        error.text = as_lines(filter(None, (error.problem, error.fix, _("To continue:"), again)))
        raise


def _words_again(command: RunCommand, plan: SyncPlan, scanning: ScanOptions, *, deletes: bool) -> list[str]:
    from tcb_ops.engine.next_commands import pace

    repeated = {
        "to": scanning.to,
        "path": [scanning.template],
        "include": scanning.include,
        "exclude": scanning.exclude,
        "where": command.common.where,
        "out": [without_dots(command.which.out)] if command.which.out is not None else [],
    }
    words = [word for name, values in repeated.items() for value in values for word in (f"--{name}", value)]
    flags = ["--delete"] if deletes else []
    return ["sync", without_dots(plan.scanned.folder), *words, *flags, *pace(command.limits)]


def _delete_gone(command: RunCommand, plan: SyncPlan, run: Run) -> tuple[Run | None, bool]:
    from tcb_ops.features.stored import api as stored

    # A file that was renamed is not deleted before it is there under its new name.
    failed = {(tally.env, tally.appid) for tally in run.tallies() if not tally.outcome.succeeded}
    deleted, complete, gone = None, not failed, plan.gone_from(failed)
    if gone is not None:
        try:
            # What is gone is determined each time: an interrupted run about it is not resumed.
            options = command.options | {"new_run": True}
            of_list, reports = plan.batch.source.name, command.settings.reports
            deleted = command.follow(
                stored.start_delete_of(gone, command.settings, options, of_list=of_list, out=reports)
            )
        except UsageError as error:  # beside an unfinished upload; this one's result is shown all the same
            command.console.warn(error.text)
            return None, False
        deleted.export(command.settings.reports / deleted.id)
        complete &= all(outcome.succeeded for outcome in deleted.outcomes)
        ended = deleted.verdict
        text = _("Files no longer in the folder, run {run}: {ended}", run=deleted.id, ended=ended)
        (command.console.info if command.common.json else command.console.print)(text)
    if failed:
        text = _(
            "Where an upload did not succeed, nothing was deleted. Correct it, then run the same command again."
        )
        command.console.warn(text)
    return deleted, complete


def _rehearse(command: RunCommand, plan: SyncPlan, *, deletes: bool) -> int:
    from tcb_ops.engine.plan import list_spec, upload_spec

    works = [upload_spec(plan.batch)]
    if deletes and plan.gone is not None:
        works.append(list_spec(plan.gone, DELETE))
    command.console.json_extra = _gone_in_json(plan, None)
    return command.dry_run(works, plan.batch, skip_unchanged=True)


def _gone_in_json(plan: SyncPlan, deleted: Run | None) -> dict[str, object]:
    rows = plan.gone.count if plan.gone is not None else 0
    ended = (None, {}) if deleted is None else (deleted.id, dict(deleted.counts))
    return {"gone": {"rows": rows, "run": ended[0], "counts": ended[1]}}


@contextmanager
def _opened(command: RunCommand) -> Iterator[None]:
    """Open the target; refuse a report folder that cannot be had before anything is sent."""
    command.check_folder()
    with command.opened():
        keeps_files = getattr(command.settings.sections.get(SIMULATOR), "store", None) is not None
        if command.settings.run_target == SIMULATOR and not keeps_files:
            text = _(
                "The embedded simulator starts without files each time. To find those of an earlier command, give it a "
                "store under [simulator] in tcb-ops.toml, as `tcb-ops init --practice` does."
            )
            command.console.info(text)
        yield


def _finish(command: RunCommand, handle: RunHandle) -> int:
    if handle.warning is not None:
        command.console.warn(handle.warning)
    return command.report(handle)


@contextmanager
def _subject(command: RunCommand, what: str) -> Iterator[tuple[str | Batch, Merchants | None]]:
    """Yield the upload or the list that is meant, and the merchants that --where narrows an upload to; a list has its own."""
    if Path(what).suffix.lower() not in {".csv", ".tsv", ".txt", ".xlsx"} and not os.path.isfile(what):  # noqa: PTH113  as in `find_run`
        yield _upload(command, what), command.common.matching(command.settings)
        return
    with command.read_list(what, root=None) as batch:
        yield batch, None


def _upload(command: RunCommand, run: str) -> str:
    """Return the id of the upload that is meant; the first line names it."""
    from tcb_ops.features.stored.api import upload_of
    from tcb_ops.ledger.histories import corrections_of
    from tcb_ops.start import ledger_with_runs

    upload, ledger = upload_of(run, command.settings), ledger_with_runs(command.settings)
    retries = [retry.id for retry in ledger.retries(upload)]
    corrections = [correction.id for correction in corrections_of(ledger, upload)]
    lead = _("{kind} {id} ({list_name})", kind=upload.kind, id=upload.id, list_name=upload.list_name)
    if retries:
        lead = _("{upload} with its retries: {ids}", upload=lead, ids=as_list(retries, 5))
    command.console.lead(lead)
    if corrections:
        text = _("Its corrected rows are in uploads of their own, which this command leaves out: {ids}.")
        command.console.warn(text.format(ids=as_list(corrections, 5)))
    return upload.id


def _ask(command: RunCommand, kind: Kind, scope: SendScope, what: Text) -> None:
    if command.settings.simulated:
        command.console.info(what)
    command.ask_confirmation(kind, scope, what)
