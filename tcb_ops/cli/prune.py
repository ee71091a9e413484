"""The command that removes old runs from the ledger."""

from __future__ import annotations

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, settings_options
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _, ngettext, verbatim


@click.command(cls=Command, usual="older-than dry-run ledger json")
@click.option("--older-than", required=True, metavar="DAYS", help="How old a run must be, such as 180d.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@settings_options("ledger", "json")
def prune(older_than: str, *, dry_run: bool, common: CommonOptions) -> int:
    """Remove old runs from the ledger, and give the space back.

    Unfinished runs stay, and those that belong to a run that stays: a retry, confirmation, deletion or undo, or its upload.
    What a removed run last stored at each path is kept, so that undo and delete still know it. Reports are not touched.
    """
    from tcb_ops import api

    settings, console = common.start()
    days = older_than.removesuffix("d")
    if not (days.isdecimal() and len(days) < 6 and int(days)):
        raise UsageError(_("`prune` needs {--older-than} with a number of days, such as 180d."))
    removed = api.prune(int(days), dry_run=dry_run, settings=settings)
    if common.json:
        console.json(
            {"removed": [] if dry_run else [run.id for run in removed], "runs": [run.id for run in removed]}
        )
        return 0
    for run in removed:
        console.print(verbatim(f"{run.id}  {run.kind}  {run.rows:,}"))
    counts = {
        "runs": ngettext("{n:,} run", "{n:,} runs", len(removed)),
        "rows": ngettext("{n:,} row", "{n:,} rows", sum(run.rows for run in removed)),
        "ledger": settings.ledger_name,
    }
    done = _("{runs} with {rows} removed from {ledger}.", **counts)
    planned = _("{runs} with {rows} would be removed from {ledger}.", **counts)
    console.info(planned if dry_run else done)
    return 0
