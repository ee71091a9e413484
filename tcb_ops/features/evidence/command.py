"""Commands that compare two runs and verify a report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console, suggest_next
from tcb_ops.cli.options import (
    CommonOptions,
    reader_options,
    settings_options,
)
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _, as_lines, as_sentences
from tcb_ops.settings import SETTINGS_FILE, Settings

if TYPE_CHECKING:
    pass


@click.command(cls=Command, usual="target where json")
@click.argument("older", metavar="OLDER", required=False)
@click.argument("newer", metavar="NEWER", required=False)
@reader_options
def diff(older: str | None, newer: str | None, *, common: CommonOptions) -> int:
    """Compare two runs: newly broken, fixed, still broken.

    The older run first. Rows are matched by environment, appid and cloud path. Exit code 1 when rows
    failed in the newer run that succeeded in the older one, or were not in it; else 0.
    """
    from tcb_ops import api
    from tcb_ops.reports.formats.terminal import render_diff

    settings, console = common.start(reads_ledger=True)
    if older is None or newer is None:
        raise _needs_two_runs(older, settings, common)
    found = api.diff(older, newer, merchants=common.matching(settings), settings=settings)
    if common.json:
        console.json(found.to_json())
    else:
        console.print(render_diff(found, console.lang))
    for run in (found.older, found.newer):
        if run.finished_at is None:
            console.warn(_("Run {id} is unfinished: its pending rows are not compared.", id=run.id))
    if found.newer.finished_at is not None and any(line.after for line in found.lines):
        _suggest_next(console, found.newer.id, settings, common)
    return 1 if found.broken else 0


def _needs_two_runs(run: str | None, settings: Settings, common: CommonOptions) -> UsageError:
    """Return the error for a diff of one run or none, with the command that compares it with the run before it."""
    from tcb_ops import api
    from tcb_ops.runs.next_commands import command, quoted

    name, newer = "OLDER" if run is None else "NEWER", api.open_run(run or "latest", settings=settings)
    changes = newer.changes()
    if changes is None:
        return UsageError(
            _(
                "{name} is missing: diff compares two runs, and there is none before {id} that it can be compared with. "
                "`runs` lists all.",
                name=name,
                id=newer.id,
            )
        )
    runs = (changes.older.id, newer.id)
    line = command(settings, "diff", *runs, *common.where_words(), target=newer.record.target)
    needs = _("{name} is missing. To compare {id} with the run before it:", name=name, id=newer.id)
    return UsageError(as_lines((needs, quoted(line))))


def _suggest_next(console: Console, run_id: str, settings: Settings, common: CommonOptions) -> None:
    """Suggest the command for the rows of a run that neither it nor its retries completed, narrowed by `--where`."""
    from tcb_ops import api
    from tcb_ops.reports.summary import by_code

    run = api.open_run(run_id, settings=settings)
    if not run.record.parent and (final := run.final()).record.retries:
        run = final
    if (matching := common.matching(settings)) is not None:
        run = run.of_merchants(matching)
    suggest_next(console, settings, run.record, by_code(run.cause_list()), common.where_words())


@click.command(cls=Command, usual="ledger json")
@click.argument("folder", metavar="DIR")
@settings_options("ledger", "json")
def verify(folder: str, *, common: CommonOptions) -> int:
    """Check that a report folder is what was exported.

    Every file against manifest.json, the manifest and every row of the CSVs against the ledger, the list against its
    SHA-256. Names the file or the row that differs: exit code 1; 1 also if the ledger does not know the run. Nothing differs:
    0, and what that proves. No report in DIR: 2. The ledger is damaged: 3.
    """
    from tcb_ops import api
    from tcb_ops.reports.formats.terminal import render_verification, verification_verdict

    settings, console = common.start(reads_ledger=True)
    if not Path(folder).exists():
        raise _no_such_folder(folder, settings)
    found = api.verify(folder, settings=settings)
    if common.json:
        console.json(found.to_json(settings.lang))
    else:
        console.print(render_verification(found, console.lang))
        console.print(verification_verdict(found))
        if (
            beside := _settings_beside(Path(folder).absolute(), settings)
        ) is not None and not found.rows_agree:
            console.suggest(
                _("To check it with the settings and the ledger that it belongs to:"),
                ["tcb-ops", "verify", str(Path(folder).absolute()), "--config", str(beside)],
            )
    return 3 if found.ledger_damaged else 0 if found.good else 1


def _no_such_folder(folder: str, settings: Settings) -> UsageError:
    """Return the error for a folder that does not exist; for a run, it says how its report is verified."""
    from tcb_ops import api
    from tcb_ops.errors import TcbOpsError
    from tcb_ops.runs.next_commands import command, of_run, quoted

    none = _("There is no folder {folder}.", folder=folder)
    try:
        run = api.open_run(folder, settings=settings).record
    except TcbOpsError:
        return UsageError(none, _("Give the folder that `tcb-ops report` wrote."))
    if run.report and Path(run.report).is_dir():
        there = _("To verify the report of run {id}:", id=run.id)
        words = command(settings, "verify", str(Path(run.report).absolute()), target=run.target)
    else:
        there = _("Run {id} has no report. To write one:", id=run.id)
        words = of_run(settings, run, "report")
    return UsageError(as_lines((as_sentences((none, there)), quoted(words))))


def _settings_beside(folder: Path, settings: Settings) -> Path | None:
    """Return the settings file that a report was written with, unless it is in use: in the demo's report, or above others."""
    from tcb_ops.reports.export import DEMO_LEDGER

    for place in (folder / DEMO_LEDGER, folder.parent, folder.parent.parent):
        file = place / SETTINGS_FILE
        if file.is_file() and Path(os.path.realpath(file)) != settings.origin.file:
            return file
    return None
