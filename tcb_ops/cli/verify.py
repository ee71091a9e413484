"""The commands that compare and prove: diff, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text as Styled

from tcb_ops.cli.options import common_options, shared_options
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text
from tcb_ops.reports.verify import Verification


@click.command()
@click.argument("older", metavar="RUN")
@click.argument("newer", metavar="RUN")
@shared_options
def diff(older: str, newer: str, **values: Any) -> int:
    """Compare two runs: newly broken, mended, still broken.

    The older run first. Rows are matched by environment, appid and cloud path. Exit code 1 when something is not good in
    the newer run that was good in the older one, or was not in it; else 0.
    """
    import tcb_ops as tcb
    from tcb_ops.reports.formats.terminal import render_diff

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    given.say_ledger(screen, settings)
    found = tcb.diff(older, newer, settings=settings)
    if given.json:
        screen.json(found.to_json())
    else:
        screen.data(render_diff(found, settings.lang))
    for run in (found.older, found.newer):
        if run.finished_at is None:
            screen.warn(
                Text(
                    f"Run {run.id} is unfinished: its pending rows are not compared.",
                    f"任务 {run.id} 尚未完成：其中待处理的行未参与比较。",
                )
            )
    return 1 if found.broken else 0


@click.command()
@click.argument("folder", metavar="DIR")
@shared_options
def verify(folder: str, **values: Any) -> int:
    """Check that a report folder is what was exported.

    Every file against manifest.json, the manifest and every row of the CSVs against the ledger, the list against its
    SHA-256. Names the file or the row that differs: exit code 1. Nothing differs: 0, and what that proves. No report in
    DIR: 2.
    """
    import tcb_ops as tcb

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    given.say_ledger(screen, settings)
    found = tcb.verify(Path(folder), settings=settings)
    if given.json:
        screen.json(found.to_json(settings.lang))
    else:
        screen.data(_render(found, settings.lang))
        screen.data(_verdict(found).of(settings.lang))
    return 0 if found.good else 1


def _render(found: Verification, lang: Lang) -> Table:
    marks = {"same": Text("same", "一致"), "differs": Text("DIFFERS", "不一致")}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found.checks:
        mark = marks.get(check.state, Text("not checked", "未检查")).of(lang)
        style = "bold" if check.state == "differs" else ""
        table.add_row(
            Styled(mark, style=style),
            Styled(sanitize(check.what), style=style),
            sanitize(check.text.of(lang)),
        )
    return table


def _verdict(found: Verification) -> Text:
    differs = [check for check in found.checks if check.state == "differs"]
    open_ = [check for check in found.checks if check.state == "not_checked"]
    left = Text(
        f" Not checked: {', '.join(check.what for check in open_)}.",
        f"未检查：{'、'.join(check.what for check in open_)}。",
    )
    if not open_:
        left = Text("", "")
    if differs:
        return Text(
            f"The report of run {found.run} is not what it was: {len(differs)} of {len(found.checks)} checks differ.{left.en}",
            f"任务 {found.run} 的报告与原来不一致：{len(found.checks)} 项检查中有 {len(differs)} 项不同。{left.zh}",
        )
    return Text(
        f"Nothing differs in the report of run {found.run}. {found.proves.en}{left.en}",
        f"任务 {found.run} 的报告没有不一致之处。{found.proves.zh}{left.zh}",
    )
