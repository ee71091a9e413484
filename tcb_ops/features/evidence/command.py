"""The commands that compare two runs, and verify a report."""

from __future__ import annotations

from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, reader_options, settings_options, table_option
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, _, as_list, as_sentences, ngettext, pgettext

if TYPE_CHECKING:
    from rich.table import Table

    from tcb_ops.features.evidence.verify import Verification


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
    from tcb_ops.features.evidence import diffs
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


@click.command(cls=Command, usual="signers ledger json")
@click.argument("folder", metavar="DIR")
@click.option(
    "--signers", metavar="FILE", help="One of these must have signed it (OpenSSH's allowed signers)."
)
@settings_options("ledger", "json")
def verify(folder: str, *, signers: str | None, common: CommonOptions) -> int:
    """Check that a report folder is what was exported.

    Every file against manifest.json, the manifest against the ledger and its signature, the list against its SHA-256. DIR can
    also be the run, or a report.html with data.
    Names each file that differs: exit code 1; 1 also if the ledger does not know the run. Nothing differs: 0, and what
    that proves. No report in DIR: 2. The ledger is damaged: 3.
    """
    from tcb_ops import api
    from tcb_ops.features.evidence.verify import verify as check

    settings, console = common.start()
    if not Path(folder).exists():
        run, folder = folder, ""
        with suppress(TcbOpsError):
            folder = api.open_run(run, settings=settings).record.report
        if not folder or not Path(folder).is_dir():
            fix = _("Give the folder that `tcb-ops report` wrote.")
            raise UsageError(_("There is no folder {folder}.", folder=run), fix)
    verification = check(folder, signers=signers, settings=settings)
    if common.json:
        console.json(verification.to_json(settings.lang))
    else:
        console.print(_checks_table(verification, console.lang))
        console.print(verification_verdict(verification))
    return 3 if verification.ledger_damaged else 0 if verification.good else 1


_MARKS = {"same": _("same"), "differs": _("DIFFERS"), "unknown": pgettext("check", "unknown")}


def _checks_table(verification: Verification, lang: Lang) -> Table:
    from rich.table import Column, Table
    from rich.text import Text as Styled

    columns = (Column(no_wrap=True), Column(no_wrap=True), Column(overflow="fold"))
    table = Table.grid(*columns, padding=(0, 2, 0, 0))
    for check in verification.checks:
        mark, style = _MARKS.get(check.state, _("not checked")), "bold" if check.state == "differs" else ""
        cells = (mark.of(lang), check.what, check.text.of(lang))
        table.add_row(*(Styled(sanitize(cell)) for cell in cells), style=style)
    return table


def verification_verdict(verification: Verification) -> Text:
    """Sum up the checks of a report folder."""
    states = [str(check.state) for check in verification.checks]
    if "differs" in states:
        checks = ngettext("{n:,} check", "{n:,} checks", len(states))
        text = _("The report of run {run} differs from what was exported: {count:,} of {checks} failed.")
        sums = [text.format(run=verification.run, count=states.count("differs"), checks=checks)]
    elif not verification.good:
        text = _(
            "The files are as manifest.json has them, but the ledger does not know run {run}, so nothing proves "
            "the report (exit code 1)."
        )
        if any(
            check.what == "manifest.json.sig" and check.state == "unknown" for check in verification.checks
        ):
            text = _(
                "The files are as manifest.json has them, but this machine cannot check the signature of run {run}, so "
                "nothing proves who made the report (exit code 1)."
            )
        sums = [text.format(run=verification.run)]
    else:
        sums = [_("Nothing differs in the report of run {run}.", run=verification.run), verification.proves]
    if names := [check.what for check in verification.checks if check.state == "not_checked"]:
        sums.append(_("Not checked: {names}.", names=as_list(names)))
    return as_sentences(sums)
