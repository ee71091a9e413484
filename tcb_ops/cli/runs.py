"""The commands that work on a list: check, links, upload."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from tcb_ops.cli.confirm import brake, brake_rest, confirm_retry, dry_run, warn_of_again
from tcb_ops.cli.console import Console
from tcb_ops.cli.lists import read_shown
from tcb_ops.cli.options import (
    CommonOptions,
    common_options,
    list_options,
    pace_options,
    run_options,
    selection_of,
    shared_options,
    take_pace,
    target_line,
)
from tcb_ops.errors import InterruptedRunError, StoppedError, UsageError
from tcb_ops.i18n import Text
from tcb_ops.model import Kind
from tcb_ops.preflight import facts, facts_line, ran_out, short_life
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.limits import RunLimits
from tcb_ops.settings import Settings


@click.command()
@click.argument("paths")
@list_options
@shared_options
def check(paths: str, **values: Any) -> int:
    """Check a path list; say every problem and its mend.

    Each stands with line and column. Nothing is sent.

    With --root the local files are looked at too, as upload does.
    """
    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    with read_shown(screen, paths, given, settings, values, root=values["root"]) as batch:
        invalid = batch.count - batch.valid
        if given.json:
            screen.json(facts(batch))
        else:
            screen.data(facts_line(batch).of(settings.lang))
            if batch.root is None:
                screen.say(
                    Text(
                        "Local files were not looked at; --root DIR looks at them as upload does.",
                        "未检查本地文件；加 --root DIR 可像 upload 一样检查。",
                    )
                )
    return 1 if invalid else 0


@click.command()
@click.argument("paths", required=False)
@click.option("--out", metavar="FILE", help="Where the links go (0600). [default: links.csv]")
@list_options
@pace_options
@run_options
@shared_options
def links(paths: str | None, out: str | None, **values: Any) -> int:
    """Ask for an upload link per row; write links.csv.

    Links live about 15 minutes. An unfinished run of the same list is gone on with; --resume RUN needs no list.
    """
    from tcb_ops.api import start_links

    given, pace = common_options(values), take_pace(values)
    settings = given.settings()
    screen = given.screen(settings)
    with given.reach(screen, settings) as settings:
        if paths is None:
            going = _resumed(screen, Kind.LINKS, given, settings, pace, values)
            run = _follow(screen, going, given)
        else:
            with read_shown(screen, paths, given, settings, values, root=None) as batch:
                if values["dry_run"]:
                    return dry_run(screen, batch, settings, pace, uploads=False, as_json=given.json)
                if (short := short_life(batch, pace)) is not None:
                    screen.warn(short)
                dest = Path(out or "links.csv").absolute()
                going = start_links(batch, out=dest, **_run_arguments(given, settings, pace, values, screen))
                run = _follow(screen, going, given)
        if (late := ran_out(going.links_run_out, out or run.record.report)) is not None:
            screen.warn(late)
        return _end(screen, run, settings, given, Path(run.record.report))


@click.command()
@click.argument("paths", required=False)
@click.option("--out", default=None, metavar="DIR", help="The report folder. [default: reports/RUN]")
@click.option(
    "--skip-unchanged",
    is_flag=True,
    help="Leave out rows whose bytes an earlier run put there (not re-checked).",
)
@click.option(
    "--canary",
    type=click.IntRange(min=1),
    metavar="N",
    help="The first N environments first; stop there if a row is not good.",
)
@click.option("--yes", is_flag=True, help="Do not ask before uploading to a live target.")
@list_options
@pace_options
@run_options
@shared_options
def upload(
    paths: str | None, out: str | None, yes: bool, skip_unchanged: bool, canary: int | None, **values: Any
) -> int:
    """Upload the list's files; write a report folder.

    Every file gets a fresh link of its own. An unfinished run of the same list is gone on with; --resume RUN needs no
    list. On a terminal an upload to a live target asks first.
    """
    from tcb_ops.api import start_upload
    from tcb_ops.reports.export import check_destination

    given, pace = common_options(values), take_pace(values)
    settings = given.settings()
    screen = given.screen(settings)
    manner: dict[str, Any] = {"skip_unchanged": skip_unchanged, "canary": canary or 0}
    with given.reach(screen, settings) as settings:
        if paths is None:
            check_destination(_report_folder(settings, out, ANY_RUN))
            going = _resumed(screen, Kind.UPLOAD, given, settings, pace, values, yes=yes, **manner)
            return _report(screen, _follow(screen, going, given), settings, given, out)
        root = values["root"] or str(Path(paths).parent)
        with read_shown(screen, paths, given, settings, values, root=root) as batch:
            if values["dry_run"]:
                return dry_run(screen, batch, settings, pace, uploads=True, as_json=given.json)
            check_destination(_report_folder(settings, out, ANY_RUN))
            if not skip_unchanged:
                warn_of_again(screen, batch, settings, selection_of(given, values))
            brake(screen, batch, settings, yes=yes)
            going = start_upload(
                batch,
                report=out or settings.reports,
                **manner,
                **_run_arguments(given, settings, pace, values, screen),
            )
            run = _follow(screen, going, given)
        return _report(screen, run, settings, given, out)


@click.command()
@click.argument("run", default="latest")
@click.option(
    "--errcode",
    "codes",
    multiple=True,
    metavar="CODE",
    help="Only rows with this errcode or store code. Repeatable.",
)
@click.option(
    "--out",
    default=None,
    metavar="PATH",
    help="The report folder, or links.retry.csv. [default: reports/RUN]",
)
@click.option("--yes", is_flag=True, help="Do not ask before uploading to a live target.")
@pace_options
@click.option("--new-run", is_flag=True, help="Begin anew even if a retry of the run is unfinished.")
@click.option("--resume", default="", metavar="RUN", help="Go on with this unfinished retry.")
@shared_options
def retry(run: str, codes: tuple[str, ...], out: str | None, yes: bool, **values: Any) -> int:
    """Run a finished run's bad rows again.

    Its refused, failed and not attempted rows, as a run whose parent it is; --errcode and --where narrow it.
    """
    import tcb_ops as tcb
    from tcb_ops.reports.export import check_destination
    from tcb_ops.runs.plan import check_retry

    given, pace = common_options(values), take_pace(values)
    settings = given.settings()
    screen = given.screen(settings)
    parent = tcb.open_run(run, settings=settings)
    check_retry(parent.record, settings)
    is_links = parent.record.kind is Kind.LINKS
    if not is_links:
        check_destination(_report_folder(settings, out, ANY_RUN))
    selection = "; ".join(
        [*(f"errcode {c}" for c in sorted(codes)), *(f"where {w}" for w in sorted(given.where))]
    )
    with given.reach(screen, settings) as settings:
        screen.say(_retried(parent))
        if parent.record.kind is Kind.UPLOAD:
            confirm_retry(screen, parent, settings, yes=yes)
        going = tcb.start_retry(
            parent.id,
            given.read_merchants(settings),
            codes=codes,
            out=(out or "links.retry.csv") if is_links else (out or settings.reports),
            selection=selection,
            settings=settings,
            limits=pace,
            note=given.note,
            new_run=values["new_run"],
            resume=values["resume"],
            may_resume=lambda run_id, begun: _ask_to_go_on(screen, run_id, begun, settings),
        )
        done = _follow(screen, going, given)
        if is_links:
            return _end(screen, done, settings, given, Path(done.record.report))
        return _report(screen, done, settings, given, out)


@click.command()
@click.option("--out", default=None, metavar="DIR", help="The report folder. [default: reports/RUN]")
@pace_options
@click.option("--new-run", is_flag=True, help="Begin anew even if an audit is unfinished.")
@click.option("--resume", default="", metavar="RUN", help="Go on with this unfinished audit.")
@shared_options
def audit(out: str | None, **values: Any) -> int:
    """Ask one link per environment; upload nothing.

    Shows which merchants and environments cannot work, and why. --where narrows it.
    """
    import tcb_ops as tcb
    from tcb_ops.reports.export import check_destination

    given, pace = common_options(values), take_pace(values)
    settings = given.settings()
    screen = given.screen(settings)
    check_destination(_report_folder(settings, out, ANY_RUN))
    with given.reach(screen, settings) as settings:
        going = tcb.start_audit(
            given.read_merchants(settings),
            report=out or settings.reports,
            selection="; ".join(f"where {w}" for w in sorted(given.where)),
            settings=settings,
            limits=pace,
            note=given.note,
            new_run=values["new_run"],
            resume=values["resume"],
            may_resume=lambda run_id, begun: _ask_to_go_on(screen, run_id, begun, settings),
        )
        return _report(screen, _follow(screen, going, given), settings, given, out)


ANY_RUN = "a-run"
"""Stands for the id of a run that has none yet."""


def _report_folder(settings: Settings, out: str | None, run_id: str) -> Path:
    return Path(out) if out is not None else settings.reports / run_id


def _report(screen: Console, run: Run, settings: Settings, given: CommonOptions, out: str | None) -> int:
    """Write a finished run's report folder and show how it ended."""
    try:
        folder = run.export(_report_folder(settings, out, run.id))
    except StoppedError:
        if given.json:
            screen.json(run.summary())
        raise
    return _end(screen, run, settings, given, folder)


def _end(screen: Console, run: Run, settings: Settings, given: CommonOptions, where: Path) -> int:
    """Show how a run ended, and name the target once more; gives the exit code."""
    code = show_run(screen, run, as_json=given.json)
    at = target_line(settings)
    screen.say(Text(f"{at.en} · run {run.id}: {where}", f"{at.zh} · 任务 {run.id}：{where}"))
    return code


def _resumed(
    screen: Console,
    kind: Kind,
    given: CommonOptions,
    settings: Settings,
    pace: RunLimits,
    values: dict[str, Any],
    *,
    yes: bool = False,
    **manner: Any,
) -> RunHandle:
    """Resume the run that --resume names, without its list. Raises UsageError where it is none of this command's."""
    import tcb_ops as tcb

    if not values["resume"] or values["dry_run"]:
        context = click.get_current_context()
        argument = next(one for one in context.command.params if one.name == "paths")
        raise click.MissingParameter(ctx=context, param=argument)
    run = tcb.open_run(values["resume"], settings=settings)
    record = run.record
    wrong = None
    if record.kind is not kind or record.parent:
        wrong = Text(
            f"it is a run of {'retry' if record.parent else record.kind}", f"它是 {record.kind} 任务"
        )
    elif record.target != settings.run_target:
        wrong = Text(f"its target is {record.target}", f"它的目标是 {record.target}")
    elif values["root"] and str(Path(values["root"]).resolve()) != record.root:
        wrong = Text(f"its files are below {record.root}", f"它的文件位于 {record.root}")
    if wrong is not None:
        raise UsageError(
            Text(
                f"run {record.id} cannot be resumed here: {wrong.en}.",
                f"无法在此继续任务 {record.id}：{wrong.zh}。",
            )
        )
    if kind is Kind.UPLOAD:
        brake_rest(screen, run, settings, yes=yes)
    given.warn_of_open_tokens(screen, settings)
    return tcb.start_resume(record.id, settings=settings, limits=pace, **manner)


def _retried(parent: Run) -> Text:
    """Say which run is retried: `latest` may be the nightly audit."""
    record = parent.record
    return Text(
        f"Retrying {record.kind} {record.id} ({record.list_name}).",
        f"重试任务 {record.id}（{record.kind}，{record.list_name}）。",
    )


def show_run(screen: Console, run: Run, *, as_json: bool, where: Path | None = None) -> int:
    """Print how a run ended; gives the exit code."""
    from tcb_ops.cli.console import rest_of
    from tcb_ops.reports.explanations import verdict
    from tcb_ops.reports.formats.terminal import render_errcodes
    from tcb_ops.reports.summary import by_code

    if as_json:
        screen.json(run.summary())
    else:
        causes = run.cause_list()
        if causes:
            screen.data(render_errcodes(by_code(causes), screen.lang, rest_of(run)))
        counts = run.outcomes
        screen.data(
            verdict(run.record.kind, counts, finished=run.record.finished_at is not None).of(screen.lang)
        )
        if where is not None:
            screen.say(Text(f"Run {run.id}: {where}", f"任务 {run.id}：{where}"))
    return 0 if run.good else 1


def _run_arguments(
    given: CommonOptions, settings: Settings, pace: RunLimits, values: dict[str, Any], screen: Console
) -> dict[str, Any]:
    given.warn_of_open_tokens(screen, settings)
    return {
        "settings": settings,
        "limits": pace,
        "note": given.note,
        "selection": selection_of(given, values),
        "new_run": values["new_run"],
        "resume": values["resume"],
        "may_resume": lambda run_id, begun: _ask_to_go_on(screen, run_id, begun, settings),
    }


def _ask_to_go_on(screen: Console, run_id: str, begun: float, settings: Settings) -> bool:
    """Ask about an unfinished run that is over a day old; nobody to ask means no."""
    if not sys.stdin.isatty():
        return False
    when = datetime.fromtimestamp(begun, settings.zone).isoformat(" ", "minutes")
    question = Text(
        f"Run {run_id} of this list, begun {when}, is unfinished. Go on with it?",
        f"此清单的任务 {run_id}（开始于 {when}）尚未完成。继续它吗？",
    )
    screen.release()
    return click.confirm(question.of(screen.lang), err=True)


def _follow(screen: Console, going: RunHandle, given: CommonOptions) -> Run:
    """Show a run's progress until its end; on an early end the JSON object is printed all the same."""
    going_on = None
    if going.resumed:
        done = sum(rows for outcome, rows in going.so_far().counts.items() if outcome != "pending")
        going_on = Text(
            f"Going on with run {going.id}: {done:,} of {going.record.rows:,} rows are done. (--new-run begins anew.)",
            f"继续任务 {going.id}：{going.record.rows:,} 行中已完成 {done:,} 行。（--new-run 可重新开始。）",
        )
    screen.release(first=going_on)
    try:
        going.follow(lambda looks: screen.follow(looks, going.record.rows))
        return going.wait()
    except (StoppedError, InterruptedRunError):
        if given.json:
            screen.json(going.so_far().summary())
        raise
