"""The commands that work on a list: check, links, upload."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops.doors.options import (
    Given,
    list_options,
    pace_options,
    read_list,
    run_options,
    selection_of,
    shared_options,
    take_given,
    take_pace,
)
from tcb_ops.doors.screen import Screen, span
from tcb_ops.errors import InputError, InterruptedRunError, StoppedError, UsageError
from tcb_ops.model import Lang, Text

if TYPE_CHECKING:
    from tcb_ops.doors.python import Working
    from tcb_ops.lists.paths import Batch
    from tcb_ops.run import Run
    from tcb_ops.runs.pacing import Pace
    from tcb_ops.settings import Settings

__all__ = ["check", "links", "show_run", "upload"]

PROBLEMS_SHOWN = 50


@click.command()
@click.argument("paths")
@list_options
@shared_options
def check(paths: str, **values: Any) -> int:
    """Check a path list; say every problem and its mend.

    Each stands with line and column. Nothing is sent.

    With --root the local files are looked at too, as upload does.
    """
    given = take_given(values)
    settings = given.settings()
    screen = given.screen(settings)
    with _read(screen, paths, given, settings, values, root=values["root"]) as batch:
        invalid = batch.count - batch.valid
        if given.json:
            screen.json(_facts(batch))
        else:
            screen.data(_facts_line(batch).of(settings.lang))
            if batch.root is None:
                screen.say(
                    Text(
                        "Local files were not looked at; --root DIR looks at them as upload does.",
                        "未检查本地文件；加 --root DIR 可像 upload 一样检查。",
                    )
                )
    return 1 if invalid else 0


@click.command()
@click.argument("paths")
@click.option(
    "--out", default="links.csv", show_default=True, metavar="FILE", help="Where the links go (0600)."
)
@list_options
@pace_options
@run_options
@shared_options
def links(paths: str, out: str, **values: Any) -> int:
    """Ask for an upload link per row; write links.csv.

    Links live about 15 minutes. An unfinished run of the same list is gone on with.
    """
    from tcb_ops.doors.python import start_links

    given, pace = take_given(values), take_pace(values)
    settings = given.settings()
    screen = given.screen(settings)
    dest = Path(out).absolute()
    if dest.is_dir() or not dest.parent.is_dir():
        raise UsageError(
            Text(
                f"--out {out}: it must be a file in a folder that is there.",
                f"--out {out}：应为已有文件夹中的文件。",
            )
        )
    with _read(screen, paths, given, settings, values, root=None) as batch:
        if values["dry_run"]:
            return _dry_run(screen, batch, settings, pace, uploads=False)
        _warn_of_short_life(screen, batch, pace)
        going = start_links(batch, out=dest, **_run_arguments(given, settings, pace, values, screen))
        run = _follow(screen, going, given)
    if going.links_run_out:
        screen.warn(
            Text(
                f"{going.links_run_out:,} links had run out when {out} was finished. Run again for new ones.",
                f"{out} 写完时已有 {going.links_run_out:,} 个链接过期。请再次运行以取得新链接。",
            )
        )
    return show_run(screen, run, as_json=given.json, where=Path(run.record.report))


@click.command()
@click.argument("paths")
@click.option("--out", default=None, metavar="DIR", help="The report folder. [default: reports/RUN]")
@click.option("--yes", is_flag=True, help="Do not ask before uploading to many live environments.")
@list_options
@pace_options
@run_options
@shared_options
def upload(paths: str, out: str | None, yes: bool, **values: Any) -> int:
    """Upload the list's files; write a report folder.

    Every file gets a fresh link of its own. An unfinished run of the same list is gone on with.
    """
    from tcb_ops.doors.python import start_upload
    from tcb_ops.reports.export import check_destination

    given, pace = take_given(values), take_pace(values)
    settings = given.settings()
    screen = given.screen(settings)
    root = values["root"] or str(Path(paths).parent)
    with _read(screen, paths, given, settings, values, root=root) as batch:
        if values["dry_run"]:
            return _dry_run(screen, batch, settings, pace, uploads=True)
        if out is not None:
            check_destination(Path(out))
        _brake(screen, batch, settings, yes=yes)
        going = start_upload(batch, **_run_arguments(given, settings, pace, values, screen))
        run = _follow(screen, going, given)
    folder = run.export(out or Path("reports") / run.id)
    return show_run(screen, run, as_json=given.json, where=folder)


def show_run(screen: Screen, run: Run, *, as_json: bool, where: Path | None = None) -> int:
    """Print how a run ended; gives the exit code."""
    from tcb_ops.reports.table import render_errcodes
    from tcb_ops.reports.wording import verdict

    if as_json:
        screen.json(run.summary())
    else:
        causes = run.causes()
        if causes:
            screen.data(render_errcodes(causes, screen.lang))
        counts = run.outcomes
        screen.data(
            verdict(run.record.kind, counts, finished=run.record.finished_at is not None).of(screen.lang)
        )
        if where is not None:
            screen.say(Text(f"Run {run.id}: {where}", f"任务 {run.id}：{where}"))
    return 0 if run.good else 1


def _read(
    screen: Screen, source: str, given: Given, settings: Settings, values: dict[str, Any], *, root: str | None
) -> Batch:
    """Read the list, or show its problems; say what was decided."""
    from tcb_ops.lists.fixme import write_fixme
    from tcb_ops.lists.problems import format_problem

    def show(error_or_batch: InputError | Batch) -> None:
        problems = error_or_batch.problems
        for problem in problems[:PROBLEMS_SHOWN]:
            screen.warn(Text(*(format_problem(source, problem, lang) for lang in (Lang.EN, Lang.ZH))))
        if len(problems) > PROBLEMS_SHOWN:
            rest = len(problems) - PROBLEMS_SHOWN
            screen.warn(Text(f"… and {rest:,} more problems", f"……另有 {rest:,} 个问题"))
        dest = Path(values["fix_me"] or f"{Path(source).with_suffix('')}.fix-me.csv")
        if write_fixme(problems, dest, settings.lang):
            screen.warn(
                Text(
                    f"All of them, to mend and feed back in: {dest}",
                    f"全部问题见 {dest}，修正后可直接再次使用",
                )
            )

    try:
        batch = read_list(source, given, settings, values, root=root)
    except InputError as error:
        if error.source != source:
            raise
        show(error)
        raise
    screen.say(batch.decided)
    for warning in batch.warnings:
        screen.warn(warning)
    if batch.problems:
        show(batch)
    if batch.left_out:
        screen.say(
            Text(f"{batch.left_out:,} rows left out by --where", f"--where 排除了 {batch.left_out:,} 行")
        )
    return batch.limited(values["limit"]) if values.get("limit") else batch


def _run_arguments(
    given: Given, settings: Settings, pace: Pace, values: dict[str, Any], screen: Screen
) -> dict[str, Any]:
    return {
        "settings": settings,
        "pace": pace,
        "note": given.note,
        "selection": selection_of(given, values["column"], values["limit"]),
        "new_run": values["new_run"],
        "resume": values["resume"],
        "may_go_on": lambda run_id, begun: _ask_to_go_on(screen, run_id, begun, settings),
    }


def _ask_to_go_on(screen: Screen, run_id: str, begun: float, settings: Settings) -> bool:
    """Ask about an unfinished run that is over a day old; nobody to ask means no."""
    if not sys.stdin.isatty():
        return False
    when = datetime.fromtimestamp(begun, settings.zone).isoformat(" ", "minutes")
    question = Text(
        f"Run {run_id} of this list, begun {when}, is unfinished. Go on with it?",
        f"此清单的任务 {run_id}（开始于 {when}）尚未完成。继续它吗？",
    )
    return click.confirm(question.of(screen.lang), err=True)


def _follow(screen: Screen, going: Working, given: Given) -> Run:
    """Show a run's progress until its end; on an early end the JSON object is printed all the same."""
    if going.resumed:
        done = sum(rows for outcome, rows in going.so_far().counts.items() if outcome != "pending")
        screen.warn(
            Text(
                f"Going on with run {going.id}: {done:,} of {going.record.rows:,} rows are done. (--new-run begins anew.)",
                f"继续任务 {going.id}：{going.record.rows:,} 行中已完成 {done:,} 行。（--new-run 可重新开始。）",
            )
        )
    try:
        going.follow(lambda looks: screen.follow(looks, going.record.rows))
        return going.wait()
    except (StoppedError, InterruptedRunError):
        if given.json:
            screen.json(going.so_far().summary())
        raise


def _dry_run(screen: Screen, batch: Batch, settings: Settings, pace: Pace, *, uploads: bool) -> int:
    screen.data(_facts_line(batch).of(settings.lang))
    seconds = _seconds_at_rate(batch, pace)
    if seconds:
        screen.data(
            Text(
                f"at least {span(seconds)} at {pace.rate:g} calls/s per appid",
                f"按每 appid 每秒 {pace.rate:g} 次，至少需 {span(seconds)}",
            ).of(settings.lang)
        )
    calls = batch.valid * (2 if uploads else 1)
    screen.data(
        Text(
            f"{calls:,} calls to {settings.api_base} or its store. Nothing was sent.",
            f"将向 {settings.api_base} 及其存储发出 {calls:,} 次调用。未发送任何内容。",
        ).of(settings.lang)
    )
    return 0


def _seconds_at_rate(batch: Batch, pace: Pace) -> float:
    """The least time that the busiest appid needs at the rate allowed."""
    return batch.most_rows_of_an_appid / pace.rate if pace.rate else 0.0


def _warn_of_short_life(screen: Screen, batch: Batch, pace: Pace) -> None:
    """Where the rate makes it certain that the first links run out before the last is issued, say so."""
    seconds = _seconds_at_rate(batch, pace)
    if seconds > LINK_LIFE:
        screen.warn(
            Text(
                f"At {pace.rate:g} calls/s this takes {span(seconds)}, but a link lives about 15 minutes: the first "
                "links will have run out before the last is issued.",
                f"按每秒 {pace.rate:g} 次需要 {span(seconds)}，而链接约 15 分钟过期：最后的链接取得时，最早的已过期。",
            )
        )


LINK_LIFE = 900
"""Seconds a link is known to live (domain.md §1.1: the sample's q-sign-time)."""


def _brake(screen: Screen, batch: Batch, settings: Settings, *, yes: bool) -> None:
    """Before many live environments are written to: show what will happen, and ask."""
    if settings.on_loopback or batch.envs <= settings.confirm_over:
        return
    screen.warn(_facts_line(batch))
    if yes:
        return
    question = Text(
        f"Upload to {batch.envs:,} live environments of {settings.api_base}?",
        f"要上传到 {settings.api_base} 的 {batch.envs:,} 个线上环境吗？",
    )
    if not sys.stdin.isatty():
        raise UsageError(
            Text(
                f"{question.en} Without a terminal this needs --yes.", f"{question.zh} 没有终端时需要 --yes。"
            )
        )
    if not click.confirm(question.of(screen.lang), err=True):
        raise UsageError(Text("Nothing was sent.", "未发送任何内容。"))


def _facts(batch: Batch) -> dict[str, Any]:
    return {
        "list": str(batch.source),
        "sha256": batch.sha256,
        "encoding": batch.encoding,
        "rows": batch.count,
        "valid": batch.valid,
        "invalid": batch.count - batch.valid,
        "left_out": batch.left_out,
        "merchants": batch.merchants_count,
        "envs": batch.envs,
        "bytes": batch.total_bytes if batch.root is not None else None,
    }


def _facts_line(batch: Batch) -> Text:
    size = batch.total_bytes
    of_size = (Text(f", {_bytes(size)}", f"，{_bytes(size)}")) if batch.root is not None else Text("", "")
    return Text(
        f"{batch.valid:,} of {batch.count:,} rows good: {batch.merchants_count:,} merchants, {batch.envs:,} environments{of_size.en}",
        f"{batch.count:,} 行中 {batch.valid:,} 行有效：{batch.merchants_count:,} 个商户，{batch.envs:,} 个环境{of_size.zh}",
    )


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.3g} TB"
