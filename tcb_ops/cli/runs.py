"""The commands that work on a list: check, links, upload, retry, audit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli.options import (
    CommonOptions,
    Duration,
    ListOptions,
    RunOptions,
    WholeNumber,
    cluster_option,
    common_options,
    limit_options,
    list_options,
    resume_options,
    run_options,
    share_option,
    target_line,
)
from tcb_ops.errors import InterruptedRunError, LedgerDamagedError, StoppedError, UsageError
from tcb_ops.formatting import format_duration, shown
from tcb_ops.i18n import Text, _, as_lines, as_sentences, ngettext
from tcb_ops.model import SUCCESSES, FailOn, Kind, Outcome, Reason

if TYPE_CHECKING:
    from tcb_ops.cli.console import Console
    from tcb_ops.lists.paths import Batch
    from tcb_ops.lists.share import Share
    from tcb_ops.notifications.send import Notification
    from tcb_ops.reports.summary import RunSummary
    from tcb_ops.run import Run, RunHandle
    from tcb_ops.runs.limits import RunLimits
    from tcb_ops.runs.stored_calls import IfExists
    from tcb_ops.settings import Settings

out_option = click.option("--out", metavar="DIR", help="The report folder. [default: reports/RUN]")
pdf_option = click.option(
    "--no-pdf", "pdf", is_flag=True, flag_value=False, default=True, help="Write no report.pdf."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask before uploading to a live target.")
ANY_RUN = "a-run"
"""Placeholder for the id of a run that has not started."""


@click.command()
@click.argument("paths", metavar="LIST")
@list_options
@share_option
@common_options
def check(paths: str, *, share: Share | None, common: CommonOptions, listing: ListOptions) -> int:
    """Check a path list; report all problems in one pass.

    Each with line, column and fix. Nothing is sent.

    With --root the local files are checked too, as upload does.
    """
    from tcb_ops.cli.confirm import read_list
    from tcb_ops.preflight import facts, facts_line

    settings, console = common.start()
    with read_list(
        console, paths, common, settings, listing, kind="check", root=listing.root, share=share
    ) as batch:
        if common.json:
            console.json(facts(batch))
        else:
            console.print(facts_line(batch))
            if batch.root is None:
                console.info(
                    _("Local files and URLs were not checked; --root DIR checks them as upload does.")
                )
        if console.fix_me is not None:
            console.suggest(*console.fix_me)
        return 1 if batch.valid < batch.count else 0


@click.command()
@click.argument("paths", metavar="[LIST]", required=False)
@click.option("--out", metavar="FILE", help="Where the links go (0600). [default: links.csv]")
@click.option(
    "--download",
    is_flag=True,
    help="Instead: download links of an upload's files; LIST is then its run. [default: latest]",
)
@click.option(
    "--max-age",
    type=WholeNumber(min=1),
    default=7200,
    show_default=True,
    metavar="SECONDS",
    help="How long download links are valid.",
)
@list_options
@limit_options
@share_option
@run_options
@common_options
def links(
    paths: str | None,
    out: str | None,
    max_age: int,
    *,
    download: bool,
    share: Share | None,
    common: CommonOptions,
    listing: ListOptions,
    limits: RunLimits,
    which: RunOptions,
) -> int:
    """Request an upload link per row; write links.csv.

    Links expire after about 15 minutes. An unfinished run of the same list is resumed; --resume RUN needs no list.
    """
    from tcb_ops import api
    from tcb_ops.cli.confirm import dry_run, read_list
    from tcb_ops.preflight import ran_out, short_life

    settings, console = common.start()
    with common.open_target(console, settings) as settings:
        if download:
            if share is not None:
                raise UsageError(_("--share is for a list; --download has links of one run."))
            return _download(console, paths or "latest", out or "downloads.csv", max_age, settings, common)
        if paths is None:
            handle = resume_run(
                console, Kind.LINKS, settings, common, limits, which, listing.root, share=share
            )
            run = follow_run(console, handle, common)
        else:
            with read_list(
                console,
                paths,
                common,
                settings,
                listing,
                kind="links",
                root=None,
                limit=which.limit,
                share=share,
            ) as batch:
                if which.dry_run:
                    return dry_run(console, batch, settings, limits, uploads=False, as_json=common.json)
                if (short := short_life(batch, limits)) is not None:
                    console.warn(short)
                handle = api.start_links(
                    batch,
                    out=Path(out or "links.csv").absolute(),
                    selection=listing.selection(common, which.limit),
                    settings=settings,
                    limits=limits,
                    note=common.note,
                    new_run=which.new_run,
                    resume=which.resume,
                    may_resume=ask_to_resume(console, settings),
                )
                run = follow_run(console, handle, common)
        if (late := ran_out(handle.links_run_out, out or run.record.report)) is not None:
            console.warn(late)
        return end_run(console, run, settings, common, Path(run.record.report))


def _download(
    console: Console, run: str, out: str, max_age: int, settings: Settings, common: CommonOptions
) -> int:
    """Write the download links of an upload's files."""
    from tcb_ops import api

    console.release()
    written = api.download_links(
        run, out=out, max_age=max_age, merchants=common.matching(settings), settings=settings
    )
    if common.json:
        console.json({"file": str(written.file), "rows": written.rows, "links": written.links})
    else:
        console.print(
            _(
                "{file}: {links:,} of {rows} have a download link, valid for {duration}. Keep the file secret.",
                file=written.file,
                links=written.links,
                rows=ngettext("{n:,} row", "{n:,} rows", written.rows),
                duration=format_duration(max_age),
            )
        )
        if written.links < written.rows:
            console.info(_("The column errcode says why the others have none."))
    console.info(target_line(settings))
    return 0 if written.links == written.rows else 1


@click.command()
@click.argument("paths", metavar="[LIST]", required=False)
@out_option
@pdf_option
@click.option(
    "--skip-unchanged",
    is_flag=True,
    help="Leave out rows whose bytes an earlier run put there (not checked again).",
)
@click.option(
    "--canary",
    type=WholeNumber(min=1),
    metavar="N",
    help="The first N environments first; stop there if a row does not succeed.",
)
@click.option(
    "--if-exists",
    type=click.Choice(["overwrite", "skip", "fail"]),
    default="overwrite",
    show_default=True,
    help="What to do where a file is there already; skip and fail ask the store first.",
)
@click.option(
    "--backup",
    metavar="DIR",
    help="Save what is overwritten below this folder first, so that undo can restore it.",
)
@click.option(
    "--confirm",
    "confirms",
    is_flag=True,
    help="Afterwards confirm that the files are there, with their checksums.",
)
@yes_option
@list_options
@limit_options
@cluster_option
@share_option
@run_options
@common_options
def upload(
    paths: str | None,
    out: str | None,
    canary: int | None,
    *,
    pdf: bool,
    skip_unchanged: bool,
    if_exists: IfExists,
    backup: str | None,
    confirms: bool,
    yes: bool,
    share: Share | None,
    common: CommonOptions,
    listing: ListOptions,
    limits: RunLimits,
    which: RunOptions,
) -> int:
    """Upload the list's files; write a report folder.

    Every file gets a link of its own. An unfinished run of the same list is resumed; --resume RUN needs no list. On a
    terminal an upload to a live target asks first.
    """
    from tcb_ops import api
    from tcb_ops.cli.confirm import confirm_live, dry_run, read_list
    from tcb_ops.preflight import done_before, facts_line, scope_of_list
    from tcb_ops.reports.export import check_destination
    from tcb_ops.runs.backup import check_folder

    settings, console = common.start()
    with common.open_target(console, settings) as settings:
        if paths is None:
            _refuse_at_resume(backup, if_exists)
            check_destination(report_folder(settings, out, ANY_RUN))
            handle = resume_run(
                console,
                Kind.UPLOAD,
                settings,
                common,
                limits,
                which,
                listing.root,
                yes=yes,
                skip_unchanged=skip_unchanged,
                canary=canary or 0,
                share=share,
            )
            run = follow_run(console, handle, common)
            if confirms:
                confirm_afterwards(console, run, settings, common, limits, pdf=pdf)
            return report_run(console, run, settings, common, out, pdf=pdf)
        root = listing.root or str(Path(paths).parent)
        others = ["--backup", str(Path(backup).absolute())] if backup is not None else []
        others += ["--if-exists", if_exists] if if_exists != "overwrite" else []
        others += ["--confirm"] if confirms else []
        with read_list(
            console,
            paths,
            common,
            settings,
            listing,
            kind="upload",
            root=root,
            limit=which.limit,
            share=share,
            others=others,
        ) as batch:
            if which.dry_run:
                if backup is not None:
                    check_folder(Path(backup), make=False)
                return dry_run(console, batch, settings, limits, uploads=True, as_json=common.json)
            check_destination(report_folder(settings, out, ANY_RUN))
            selection = listing.selection(common, which.limit)
            if not skip_unchanged and which.resume is None:
                try:
                    runs = api.all_runs(settings=settings)
                    again = done_before(batch, settings, selection, runs, new_run=which.new_run)
                except LedgerDamagedError as error:  # of an earlier run, on which this one does not depend
                    console.info(error.text)
                    again = None
                if again is not None:
                    console.announce(
                        _("{again} --skip-unchanged skips those that are already stored.", again=again)
                    )
            if not skip_unchanged:
                _announce_overwritten(console, batch, settings, if_exists)
            confirm_live(console, Kind.UPLOAD, scope_of_list(batch), facts_line(batch), settings, yes=yes)
            handle = api.start_upload(
                batch,
                report=out or settings.reports,
                skip_unchanged=skip_unchanged,
                if_exists=if_exists,
                backup=backup,
                canary=canary or 0,
                selection=selection,
                settings=settings,
                limits=limits,
                note=common.note,
                new_run=which.new_run,
                resume=which.resume,
                cluster=which.cluster,
                may_resume=ask_to_resume(console, settings),
            )
            run = follow_run(console, handle, common)
        if confirms:
            confirm_afterwards(console, run, settings, common, limits, pdf=pdf)
        return report_run(console, run, settings, common, out, pdf=pdf)


def _refuse_at_resume(backup: str | None, if_exists: IfExists) -> None:
    if backup is not None or if_exists != "overwrite":
        raise UsageError(
            _(
                "--resume without a list resumes an upload as it was started: leave out --backup and --if-exists."
            ),
            options=["--backup", "--if-exists"],
        )


def _announce_overwritten(console: Console, batch: Batch, settings: Settings, if_exists: IfExists) -> None:
    """Print how many paths an earlier run of the ledger wrote."""
    from tcb_ops import api

    if not (known := api.overwritten(batch, settings=settings)):
        return
    console.announce(
        ngettext(
            "{n:,} path holds a file that an earlier run of this ledger uploaded; it is replaced.",
            "{n:,} paths hold files that earlier runs of this ledger uploaded; they are replaced.",
            known,
        )
        if if_exists == "overwrite"
        else ngettext(
            "{n:,} path holds a file that an earlier run of this ledger uploaded.",
            "{n:,} paths hold files that earlier runs of this ledger uploaded.",
            known,
        )
    )


@click.command()
@click.argument("run", default="latest")
@click.option("--test", is_flag=True, help="Send a test message instead.")
@common_options
def notify(run: str, *, test: bool, common: CommonOptions) -> int:
    """Send the message about an audit to every [[notify]] of the settings.

    Exit code 0 when every receiver accepted it, 1 when one did not.
    """
    from tcb_ops import api

    common.refuse_where(_("A message is about a whole audit: --where cannot narrow it."))
    settings, console = common.start()
    found = api.notify(None if test else run, settings=settings)
    if common.json:
        console.json({"notifications": [one.to_json(console.lang) for one in found]})
    show_notifications(console, found)
    return 0 if all(one.sent for one in found) else 1


@click.command()
@click.argument("run", default="latest")
@click.option(
    "--errcode",
    "codes",
    multiple=True,
    metavar="CODE",
    help="Only rows with this errcode or store code. Repeatable.",
)
@click.option("--out", metavar="PATH", help="The report folder, or links.retry.csv. [default: reports/RUN]")
@pdf_option
@yes_option
@limit_options
@cluster_option
@resume_options
@common_options
def retry(
    run: str,
    codes: tuple[str, ...],
    out: str | None,
    *,
    pdf: bool,
    yes: bool,
    common: CommonOptions,
    limits: RunLimits,
    which: RunOptions,
) -> int:
    """Run again the rows of a finished run that did not succeed.

    Runs its refused, failed and not attempted rows as a run of their own; --errcode and --where narrow it.
    """
    from tcb_ops import api
    from tcb_ops.cli.confirm import confirm_live
    from tcb_ops.preflight import RETRIED, scope_of_rows
    from tcb_ops.reports.export import check_destination
    from tcb_ops.runs.plan import check_retry

    settings, console = common.start()
    parent = api.run_to_retry(run, settings)
    record = parent.record
    check_retry(record, settings)
    is_links = record.kind is Kind.LINKS
    if not is_links:
        check_destination(report_folder(settings, out, ANY_RUN))
    with common.open_target(console, settings) as settings:
        retrying = _(
            "Retrying {kind} {id} ({list_name}).", kind=record.kind, id=record.id, list_name=record.list_name
        )
        if record.kind in {Kind.UPLOAD, Kind.DELETE, Kind.UNDO}:
            scope = scope_of_rows(parent.tallies(), RETRIED)
            what = _("At most {text}", text=scope.text)
            confirm_live(console, record.kind, scope, as_sentences((retrying, what)), settings, yes=yes)
        handle = api.start_retry(
            parent.id,
            common.read_merchants(settings),
            codes=codes,
            out=(out or "links.retry.csv") if is_links else (out or settings.reports),
            selection="; ".join(
                filter(None, [*(f"errcode {code}" for code in sorted(codes)), common.selection()])
            ),
            settings=settings,
            limits=limits,
            note=common.note,
            new_run=which.new_run,
            resume=which.resume,
            cluster=which.cluster,
            may_resume=ask_to_resume(console, settings),
        )
        console.info(retrying)
        if handle.warning is not None:
            from tcb_ops.runs.next_commands import quoted
            from tcb_ops.runs.next_commands import retry as retry_command

            later = _("The other rows are retried now. When the file has these merchants:")
            again = quoted(retry_command(settings, record))
            console.warn(as_lines((as_sentences((handle.warning, later)), again)))
        done = follow_run(console, handle, common)
        if is_links:
            return end_run(console, done, settings, common, Path(done.record.report))
        return report_run(console, done, settings, common, out, pdf=pdf)


@click.command()
@out_option
@pdf_option
@click.option(
    "--write-probe", is_flag=True, help="Also upload a tiny file to each environment and delete it again."
)
@click.option(
    "--fail-on",
    type=click.Choice(["any", "new", "none"]),
    default="any",
    show_default=True,
    help="Exit code 1 for any failure, only for what the previous audit did not have, or never.",
)
@click.option(
    "--confirm-after",
    type=Duration(),
    default="0",
    show_default=True,
    metavar="TIME",
    help="Ask again about new failures after this time (90s, 10m, 1h) before they count.",
)
@click.option(
    "--known",
    metavar="FILE",
    help="Known failures: appid or env, cause, until, note. [default: known.csv beside the settings file, if there]",
)
@click.option("--metrics", metavar="FILE", help="Write the result as a Prometheus textfile.")
@limit_options
@cluster_option
@share_option
@resume_options
@common_options
def audit(
    out: str | None,
    metrics: str | None,
    fail_on: str,
    confirm_after: float,
    known: str | None,
    *,
    pdf: bool,
    write_probe: bool,
    share: Share | None,
    common: CommonOptions,
    limits: RunLimits,
    which: RunOptions,
) -> int:
    """Check whether each environment is healthy, and say why where it is not.

    Asks for its status, the quota left, the permission sets and one upload link; uploads nothing without --write-probe.
    --where narrows it.
    """
    from tcb_ops import api
    from tcb_ops.reports.audit import check_metrics, write_metrics
    from tcb_ops.reports.export import check_destination

    settings, console = common.start()
    check_destination(report_folder(settings, out, ANY_RUN))
    if metrics is not None:
        check_metrics(Path(metrics))
    with common.open_target(console, settings) as settings:
        merchants = common.read_merchants(settings)
        warn_of_known(console, known, settings)
        handle = api.start_audit(
            merchants,
            write_probe=write_probe,
            confirm_after=confirm_after,
            known=known,
            report=out or settings.reports,
            selection=common.selection(),
            share=share,
            settings=settings,
            limits=limits,
            note=common.note,
            new_run=which.new_run,
            resume=which.resume,
            cluster=which.cluster,
            may_resume=ask_to_resume(console, settings),
        )
        del merchants  # of a large fleet, some MiB less while the report is written
        run = follow_run(console, handle, common)
        if metrics is not None and (failed := write_metrics(run.audit(), Path(metrics))) is not None:
            console.warn(failed)
        return report_run(console, run, settings, common, out, pdf=pdf, fail_on=FailOn(fail_on))


def warn_of_known(console: Console, file: str | None, settings: Settings) -> None:
    """Warn of lines of known.csv whose merchant is not in the merchants file (any more), or whose cause is not catalogued."""
    from tcb_ops import api
    from tcb_ops.lists.known import uncatalogued, unmatched
    from tcb_ops.lists.merchants import read_merchants
    from tcb_ops.lists.problems import PROBLEMS_SHOWN

    lines = api.known_failures(file, settings)
    for one in uncatalogued(lines)[:PROBLEMS_SHOWN]:
        console.warn(
            _(
                "{file}:{line}: {cause} is not in the catalogue of the store's codes: check its spelling.",
                file=file or settings.audit.known,
                line=one.line,
                cause=shown(one.cause),
            )
        )
    found = unmatched(lines, read_merchants(settings.merchants)) if lines else []
    for one in found[:PROBLEMS_SHOWN]:
        console.warn(
            _(
                "{file}:{line}: {who} is not in {merchants}: the line silences nothing.",
                file=file or settings.audit.known,
                line=one.line,
                who=" · ".join(filter(None, (shown(one.appid), shown(one.env)))),
                merchants=settings.merchants.name,
            )
        )
    if (rest := len(found) - PROBLEMS_SHOWN) > 0:
        console.warn(
            ngettext(
                "and {n:,} more line that silences nothing", "and {n:,} more lines that silence nothing", rest
            )
        )


def resume_run(
    console: Console,
    kind: Kind,
    settings: Settings,
    common: CommonOptions,
    limits: RunLimits,
    which: RunOptions,
    root: str | None,
    *,
    yes: bool = False,
    skip_unchanged: bool = False,
    canary: int = 0,
    share: Share | None = None,
) -> RunHandle:
    """Resume the run that --resume names, without its list. Raises UsageError if this command cannot resume it."""
    from tcb_ops import api
    from tcb_ops.cli.confirm import confirm_live
    from tcb_ops.preflight import scope_of_rows
    from tcb_ops.runs.plan import check_kept, check_resume, other_share

    if not which.resume or which.dry_run:
        name = click.get_current_context().command.name
        needs = _("`{name}` needs a list, or --resume with a run. For example:", name=name)
        raise UsageError(as_lines((needs, f"tcb-ops {name} list.csv")))
    common.refuse_where(_("A run is resumed with the merchants that it was started with: omit --where."))
    run = api.run_to_resume(which.resume, kind, settings)
    record = run.record
    wrong: Text | None = None
    if record.kind is not kind or record.parent:
        kind_there = "retry" if record.parent else record.kind
        wrong = _("it is a run of {kind_there}", kind_there=kind_there)
    elif record.target != settings.run_target:
        wrong = _("its target is {target}", target=record.target)
    elif root and str(Path(root).resolve()) != record.root:
        wrong = _("its files are below {root}", root=record.root)
    elif share is not None and str(share) != record.share:
        wrong = other_share(record)
    check_resume(record, wrong, settings)
    check_kept(record, settings)
    if kind in {Kind.UPLOAD, Kind.DELETE, Kind.UNDO}:
        scope = scope_of_rows(run.tallies(), frozenset({Outcome.PENDING}))
        what = _("Remaining: {text}", text=scope.text)
        confirm_live(console, kind, scope, what, settings, yes=yes)
    if kind is Kind.UPLOAD:
        return api.start_resume(
            record.id,
            settings=settings,
            limits=limits,
            skip_unchanged=skip_unchanged,
            canary=canary,
            cluster=which.cluster,
        )
    return api.start_resume(record.id, settings=settings, limits=limits, cluster=which.cluster)


def ask_to_resume(console: Console, settings: Settings) -> Callable[[str, float], bool]:
    """Return a function that asks whether to resume an unfinished run over a day old; without a terminal the answer is no."""

    def ask(run_id: str, started: float) -> bool:
        if not sys.stdin.isatty():
            return False
        when = datetime.fromtimestamp(started, settings.zone).isoformat(" ", "minutes")
        question = _(
            "Run {run_id} of this list, started {when}, is unfinished. Resume it?", run_id=run_id, when=when
        )
        console.release()
        return click.confirm(question.of(console.lang), err=True)

    return ask


def follow_run(console: Console, handle: RunHandle, common: CommonOptions) -> Run:
    """Show a run's progress until its end and return it; with --json, print its summary even if it ends early."""
    resumed = None
    if handle.resumed:
        of = handle.record.rows
        resumed = _(
            "Resuming run {id}: {done:,} of {rows} done. (--new-run starts a new run.)",
            id=handle.id,
            done=handle.done_before,
            rows=ngettext("{n:,} row", "{n:,} rows", of),
        )
    console.release(first=resumed)
    try:
        handle.follow(lambda progress: console.follow(progress, handle.record.rows))
        return handle.wait()
    except (StoppedError, InterruptedRunError):
        if common.json:
            console.json(handle.so_far().summary())
        raise


def confirm_afterwards(
    console: Console, run: Run, settings: Settings, common: CommonOptions, limits: RunLimits, *, pdf: bool
) -> None:
    """Confirm a finished upload, and write the report of the confirmation."""
    from tcb_ops import api
    from tcb_ops.reports.explanations import verdict
    from tcb_ops.reports.next_actions import next_command
    from tcb_ops.reports.summary import by_code

    if not any(run.counts.get(outcome) for outcome in (Outcome.UPLOADED, Outcome.UNCHANGED)):
        return
    handle = api.start_confirm(
        run.id, content=True, report=settings.reports, settings=settings, limits=limits, note=common.note
    )
    confirmed = follow_run(console, handle, common)
    folder = confirmed.export(report_folder(settings, None, confirmed.id), pdf=pdf)
    found = confirmed.overview()
    if not common.json and found.causes:
        show_causes(console, confirmed, found)
        ended = verdict(Kind.CONFIRM, found.counts, finished=True)
        console.print(_("Confirmation {run}: {ended}", run=confirmed.id, ended=ended))
    left = next_command(settings, confirmed.record, by_code(found.causes))
    if left is not None:
        console.suggest(*left)
    console.info(_("The confirmation: {folder}", folder=folder))


def report_folder(settings: Settings, out: str | None, run_id: str) -> Path:
    """Return where a run's report goes."""
    return Path(out) if out is not None else settings.reports / run_id


def report_run(
    console: Console,
    run: Run,
    settings: Settings,
    common: CommonOptions,
    out: str | None,
    *,
    pdf: bool,
    fail_on: FailOn = FailOn.ANY,
) -> int:
    """Write a finished run's report folder and print how the run ended, before report.pdf is made; return the exit code."""
    from tcb_ops.reports.export import PAGE
    from tcb_ops.settings import without_dots

    folder, code = report_folder(settings, out, run.id), 0

    def show() -> None:
        nonlocal code
        page = Path(without_dots(folder / PAGE))
        code = end_run(console, run, settings, common, folder, page=page, pdf=pdf, fail_on=fail_on)

    try:
        run.export(folder, pdf=pdf, when_written=show)
    except StoppedError:
        if common.json:
            console.json(run.summary())
        if run.record.kind is Kind.AUDIT and not run.record.parent:  # notify even without a report
            notify_due(console, run)
        raise
    return code


def end_run(
    console: Console,
    run: Run,
    settings: Settings,
    common: CommonOptions,
    where: Path,
    *,
    page: Path | None = None,
    pdf: bool = False,
    fail_on: FailOn = FailOn.ANY,
) -> int:
    """Print how a run ended, the next command or the report's page, and the target; return the exit code."""
    from tcb_ops.reports.next_actions import next_command
    from tcb_ops.reports.summary import by_code

    run.refresh()
    notifies = run.record.kind is Kind.AUDIT and not run.record.parent
    sent = None
    try:
        if notifies and common.json:  # the object contains what became of the messages
            sent = notify_due(console, run)
    finally:
        code, found = show_run(console, run, as_json=common.json, fail_on=fail_on, notifications=sent)
    groups = by_code(found.causes)
    if console.fix_me is not None:
        console.suggest(*console.fix_me)
        groups = [group for group in groups if group.code != Reason.INVALID]
    left = next_command(settings, run.record, groups)
    if left is not None:
        console.suggest(*left)
    elif page is not None and console.fix_me is None:
        console.info(_("The report: {page}", page=page))
    if pdf:
        announce_pdf(console)
    at = target_line(settings)
    console.info(_("{at} · run {id}: {where}", at=at, id=run.id, where=where))
    if notifies and not common.json:  # last: an interrupt here loses a message, nothing else
        notify_due(console, run)
    return code


def notify_due(console: Console, run: Run) -> list[Notification] | None:
    """Send the message about an audit to receivers whose `on` applies; None without any in the settings."""
    from tcb_ops import api

    if not run.settings.notify:
        return None
    with console.waiting(_("Sending the message about this audit")):
        found = api.notify(run.id, on_demand=False, settings=run.settings)
    show_notifications(console, found)
    return found


def show_notifications(console: Console, found: Iterable[Notification]) -> None:
    """Print the result of each delivery; a failure of one that was due is printed even with --quiet."""
    for one in found:
        what = _("{receiver}: {detail}", receiver=one.receiver, detail=one.detail)
        if one.sent or not one.due:
            console.info(what)
        else:
            console.warn(_("Not delivered to {what}", what=what))


def announce_pdf(console: Console) -> None:
    """Print that report.pdf is yet to be written, if a Chromium is found: all other files are there."""
    from tcb_ops.reports.formats.pdf import find_chromium

    if find_chromium() is not None:
        console.info(_("report.pdf follows in a few seconds; --no-pdf leaves it out."))


def show_run(
    console: Console,
    run: Run,
    *,
    as_json: bool,
    fail_on: FailOn = FailOn.ANY,
    notifications: Sequence[Notification] | None = None,
) -> tuple[int, RunSummary]:
    """Print how a run ended; return the exit code and the run's summary."""
    from tcb_ops.reports.explanations import confirmation_text, verdict
    from tcb_ops.reports.formats.terminal import Wrapped, render_audit
    from tcb_ops.reports.summary import worker_lines

    finished = run.record.finished_at is not None
    audited = run.record.kind is Kind.AUDIT and finished
    # A retry is only a part of an audit and is not compared.
    result = run.audit() if audited and not run.record.parent else None
    found = run.overview()  # after the audit's result, which takes as much memory meanwhile
    if as_json:
        summary = found.to_json()
        if result is not None:
            summary["audit"] = result.to_json(console.lang)
            summary["notifications"] = [one.to_json(console.lang) for one in notifications or ()]
        console.json(summary)
    else:
        if result is None:
            show_causes(console, run, found)
        elif result.stopped is not None:
            console.print(Wrapped(result.stopped.of(console.lang)))
        else:
            for part in render_audit(result, console.lang):
                console.print(part)
        console.print(verdict(run.record.kind, found.counts, finished=finished))
        if found.confirmed is not None:
            console.print(confirmation_text(*found.confirmed))
        for line in worker_lines(found.workers):
            console.print(line)
    if result is not None:
        return result.exit_code(fail_on), found
    if audited and run.stopped is not None:
        return 3, found
    confirmed = found.confirmed[1] if found.confirmed is not None else {}
    return 0 if SUCCESSES.issuperset(found.counts) and SUCCESSES.issuperset(confirmed) else 1, found


def show_causes(console: Console, run: Run, found: RunSummary) -> None:
    """Print what did not succeed, by errcode, merchant and environment."""
    from tcb_ops.reports.formats.terminal import render_errcodes
    from tcb_ops.reports.summary import by_code

    causes = found.causes
    if causes:
        in_full = f"tcb-ops report {run.id}" if run.record.kind is Kind.LINKS else "errcodes.csv"
        console.print(render_errcodes(by_code(causes), console.lang, in_full))
