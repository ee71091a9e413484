"""The commands about the ledger: runs, prune."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import (
    DURATION,
    CommonOptions,
    settings_options,
)
from tcb_ops.errors import LedgerDamagedError, UsageError
from tcb_ops.i18n import _, ngettext, verbatim
from tcb_ops.kinds import is_provided, provided
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from tcb_ops.model import Outcome
    from tcb_ops.run import Run


@click.command(cls=Command, usual="stale target where json note")
@click.option(
    "--stale",
    type=DURATION,
    metavar="TIME",
    hidden=not is_provided("runs --stale"),
    help="List nothing: exit code 1 if no audit of the target has finished within this time (e.g. 26h).",
)
@settings_options("target", "merchants", "ledger", "where", "json", "note")
def runs(stale: float | None, *, common: CommonOptions) -> int:
    """List the runs, the newest first.

    --note TEXT: only runs whose note contains it. --target: only runs of that target. --where: only runs with rows of
    matching merchants, and only those rows are counted.
    """
    settings, console = common.start()
    if stale is not None:
        code: int = provided("runs --stale")(console, settings, common, stale)
        return code
    if common.ledger and "://" not in settings.ledger and not Path(settings.ledger).exists():
        from tcb_ops import api

        api.open_run(settings=settings)  # raises the error of a ledger that does not exist: it may be a typo
    return _list_runs(console, settings, common)


def _list_runs(console: Console, settings: Settings, common: CommonOptions) -> int:
    from tcb_ops import api

    matching = common.matching(settings)
    damaged: list[LedgerDamagedError] = []
    of_target = settings.run_target if common.target or common.api_base else None
    found = [
        run
        for run in api.all_runs(settings=settings, damaged=damaged)
        if common.note in run.record.note and of_target in {None, run.record.target}
    ]
    sound: list[tuple[Run, dict[Outcome, int], dict[str, Any]]] = []
    for each in found:
        try:
            run = each if matching is None else each.of_merchants(matching)
            outcomes, summary = run.outcomes, run.summary() if common.json else {}
            if matching is None or outcomes:
                sound.append((run, outcomes, summary))
        except LedgerDamagedError as error:  # a damaged run must not hide the others
            damaged.append(error)
    if common.json:
        console.json({"runs": [summary | _about(run, settings) for run, _, summary in sound]})
    elif sound:
        from tcb_ops.reports.formats.terminal import render_runs, room

        shown = [(run.record, outcomes, run.mark) for run, outcomes, _ in sound]
        for line in render_runs(shown, settings, console.lang, room(console.out)):
            console.print(line)
    elif damaged:
        pass
    elif found or any((common.where, common.target, common.api_base, common.note)):
        console.info(_("No run in {ledger_name} matches.", ledger_name=settings.ledger_name))
    else:
        console.info(_("No runs in {ledger_name} yet.", ledger_name=settings.ledger_name))
    for damage in damaged:
        console.warn(damage.text)
    return damaged[0].exit_code if damaged else 0


@click.command(cls=Command, usual="older-than dry-run ledger json")
@click.option(
    "--older-than",
    metavar="DAYS",
    default="",
    help="How old a run must be, such as 180d. [default: keep_days under [lifecycle]]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@settings_options("ledger", "json")
def prune(older_than: str, *, dry_run: bool, common: CommonOptions) -> int:
    """Remove old runs from the ledger, and give the space back.

    Unfinished runs stay, and those that belong to a run that stays: a retry, confirmation, deletion or undo, or its upload.
    What a removed run last stored at each path is kept, so that undo and delete still know it. Reports are not touched.
    """
    from tcb_ops import api

    settings, console = common.start()
    days = older_than.removesuffix("d") or str(settings.lifecycle.keep_days)
    if not (days.isdecimal() and len(days) < 6 and int(days)):
        raise UsageError(
            _(
                "`prune` needs --older-than with a number of days, such as 180d, or keep_days under [lifecycle]."
            ),
        )
    found = api.prune(int(days), dry_run=dry_run, settings=settings)
    if common.json:
        console.json(
            {"removed": [] if dry_run else [run.id for run in found], "runs": [run.id for run in found]}
        )
        return 0
    for run in found:
        console.print(verbatim(f"{run.id}  {run.kind}  {run.rows:,}"))
    counts = {
        "runs": ngettext("{n:,} run", "{n:,} runs", len(found)),
        "rows": ngettext("{n:,} row", "{n:,} rows", sum(run.rows for run in found)),
        "ledger": settings.ledger_name,
    }
    done = _("{runs} with {rows} removed from {ledger}.", **counts)
    planned = _("{runs} with {rows} would be removed from {ledger}.", **counts)
    console.info(planned if dry_run else done)
    return 0


def _about(run: Run, settings: Settings) -> dict[str, Any]:
    record = run.record
    return {
        "list": record.list_name,
        "begun": datetime.fromtimestamp(record.created_at, settings.zone).isoformat(timespec="seconds"),
        "finished": record.finished_at is not None,
        "parent": record.parent,
        "operator": record.operator,
        "host": record.host,
        "note": record.note,
    }
