"""The command that removes old runs from the ledger, or old report folders."""

from __future__ import annotations

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, settings_options
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _, ngettext, verbatim


@click.command(cls=Command, usual="older-than reports dry-run ledger json")
@click.option(
    "--older-than", required=True, metavar="DAYS", help="How old what is removed must be, such as 180d."
)
@click.option("--reports", is_flag=True, help="Remove report folders of this age, and no runs.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@settings_options("ledger", "json")
def prune(older_than: str, *, reports: bool, dry_run: bool, common: CommonOptions) -> int:
    """Remove old runs from the ledger, and give the space back.

    Unfinished runs stay, and those that belong to a run that stays: a retry, confirmation, deletion or undo, or its upload.
    What a removed run last stored at each path is kept, so that undo and delete still know it. Reports are not touched.

    --reports removes report folders instead, as long as this ledger can write them again: what somebody has changed stays,
    and so does the report of a run that was removed.
    """
    from tcb_ops import api

    settings, console = common.start()
    days = older_than.removesuffix("d")
    if not (days.isdecimal() and len(days) < 6 and int(days)):
        raise UsageError(_("`prune` needs {--older-than} with a number of days, such as 180d."))
    listed: list[str]
    if reports:
        listed = [str(folder) for folder in api.prune_reports(int(days), dry_run=dry_run, settings=settings)]
        lines, place = listed, str(settings.reports)
        what = ngettext("{n:,} report", "{n:,} reports", len(listed))
    else:
        runs = api.prune(int(days), dry_run=dry_run, settings=settings)
        listed, place = [run.id for run in runs], settings.ledger_name
        lines = [f"{run.id}  {run.kind}  {run.rows:,}" for run in runs]
        what = _(
            "{runs} with {rows}",
            runs=ngettext("{n:,} run", "{n:,} runs", len(runs)),
            rows=ngettext("{n:,} row", "{n:,} rows", sum(run.rows for run in runs)),
        )
    if common.json:
        console.json({"removed": [] if dry_run else listed, "reports" if reports else "runs": listed})
        return 0
    for line in lines:
        console.print(verbatim(line))
    done = _("{what} removed from {place}.", what=what, place=place)
    planned = _("{what} would be removed from {place}.", what=what, place=place)
    console.info(planned if dry_run else done)
    return 0
