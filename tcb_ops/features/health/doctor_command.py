"""The command that finds out what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import click

from tcb_ops.checks import DoctorCheck, DoctorFinding, Grade
from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, settings_options
from tcb_ops.errors import SettingsError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import NOTHING, _, ngettext, without_commands
from tcb_ops.settings import Settings, chosen_lang

_GRADES = {
    Grade.OK: (_("✓ ok"), "green"),
    Grade.WARNING: (_("! warning"), "yellow"),
    Grade.BAD: (_("✗ FAILED"), "bold red"),
    Grade.SKIPPED: (_("– not checked"), "dim"),
}


@click.command(cls=Command, usual="target where json")
@settings_options("target", "merchants", "tokens", "ledger", "where", "json")
def doctor(*, common: CommonOptions) -> int:
    """Check machine, files, tokens and target; suggest fixes.

    Checks settings, merchants file, ledger, the modes of token files, the target, its clock against this machine's, the
    token source, and whether the platform accepts calls from this address (61004). Nothing is uploaded, and no link is
    requested.

    Exit codes: 0 all checks passed (warnings allowed) · 1 a check failed · 2 usage.
    """
    settings: Settings | SettingsError
    from tcb_ops.features.health.doctor import all_checks, run_checks  # loads the HTTP client

    try:
        settings = common.settings()
    except SettingsError as error:
        settings = error
    lang = chosen_lang(common.config, common.lang)
    console = Console(lang, quiet=common.quiet)
    with ExitStack() as stack:
        if isinstance(settings, Settings):
            settings = stack.enter_context(common.open_target(console, settings, looks_at_tokens=False))
            console.release()
        stack.enter_context(console.waiting(_("checking")))
        results = list(run_checks(all_checks(settings, common.config, common.where)))
    grades = Counter(finding.grade for _check, finding in results)
    bad, warnings = grades[Grade.BAD], grades[Grade.WARNING]
    if common.json:
        target = settings.run_target if isinstance(settings, Settings) else None
        checks = [
            {
                "check": check.name,
                "grade": str(finding.grade),
                "seen": finding.seen.of(lang),
                "fix": finding.fix.of(lang) if finding.fix is not None else None,
            }
            for check, finding in results
        ]
        console.json({"target": target, "ok": not bad, "bad": bad, "warnings": warnings, "checks": checks})
    else:
        _print_results(console, results)
        noted = ngettext("{n:,} warning", "{n:,} warnings", warnings)
        text = _("Checks failed: {bad}, {noted}. Fix them from the top.")
        console.print((text if bad else _("All checks passed, {noted}.")).format(bad=bad, noted=noted))
    return 1 if bad else 0


def _print_results(console: Console, results: Sequence[tuple[DoctorCheck, DoctorFinding]]) -> None:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text as Styled

    lang = console.lang
    labels = [(_GRADES[finding.grade][0].of(lang), check.label.of(lang)) for check, finding in results]
    widths = [max(map(cell_len, column)) for column in zip(*labels, strict=True)]
    for (word, label), (_check, finding) in zip(labels, results, strict=True):
        table = Table(box=None, pad_edge=False, show_header=False)
        for width in widths:
            table.add_column(no_wrap=True, width=width)
        table.add_column(overflow="fold")
        table.add_row(Styled(word, _GRADES[finding.grade][1]), label, sanitize(finding.seen.of(lang)))
        fix = finding.fix or NOTHING
        if fix is not NOTHING:
            # A no-break space follows the arrow: Chinese text has no spaces, so all of it would move to the next line.
            table.add_row("", "", f"→\u00a0{sanitize(without_commands(fix, lang))}")
        console.print(table)
        for command in fix.commands():  # on lines of their own, to be copied
            console.print(command)
    console.print("")
