"""The command that compares two runs."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, reader_options, table_option
from tcb_ops.i18n import _


@click.command(cls=Command, usual="out target where json")
@click.argument("older", metavar="OLDER")
@click.argument("newer", metavar="NEWER")
@table_option("Write all lines.")
@reader_options
def diff(older: str, newer: str, out: Path | None, *, common: CommonOptions) -> int:
    """Compare two runs: newly broken, fixed, still broken.

    The older run first. Rows are matched by environment, appid and cloud path. Exit code 1 when rows
    failed in the newer run that succeeded in the older one, or were not in it; else 0.
    """
    from tcb_ops.features.comparison import diffs
    from tcb_ops.reports.formats.terminal import render_sections

    settings, console = common.start()
    comparison = diffs.diff(older, newer, merchants=common.matching(settings), settings=settings)
    if comparison.older.number > comparison.newer.number:
        text = _("{id} is the later run: give the older one first, else what broke reads as fixed.")
        console.warn(text.format(id=comparison.older.id))
    if out is not None:
        from tcb_ops.table_files import write_table

        write_table(out, diffs.DIFF_COLUMNS, map(attrgetter(*diffs.DIFF_COLUMNS), comparison.lines))
        console.info(_("All lines: {out}", out=out))
    if common.json:
        console.json(comparison.to_json())
    else:
        for part in render_sections(comparison.sections(), console.lang, "--out FILE.xlsx"):
            console.print(part)
        console.print(diffs.diff_verdict(comparison))
    for run in (comparison.older, comparison.newer):
        if run.finished_at is None:
            console.warn(_("Run {id} is unfinished: its pending rows are not compared.", id=run.id))
    return 1 if comparison.broken else 0
