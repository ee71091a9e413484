"""The command that finds out what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import click

from tcb_ops.checks import Grade
from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import (
    CommonOptions,
    settings_options,
)
from tcb_ops.errors import SettingsError, UsageError
from tcb_ops.features.doctor.report import CheckResult
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, _, ngettext
from tcb_ops.model import Merchant
from tcb_ops.settings import Settings

_SIMULATED = _("SIMULATED 演练: these are the simulator's answers, not the platform's.")
_GRADES = {
    Grade.OK: (_("✓ ok"), "green"),
    Grade.WARNING: (_("! warning"), "yellow"),
    Grade.BAD: (_("✗ FAILED"), "bold red"),
    Grade.SKIPPED: (_("– not checked"), "dim"),
}


@click.command(cls=Command, usual="live yes target where json")
@click.option(
    "--live", metavar="ENV", help="Upload one tiny file into ENV for real, fetch it back, delete it."
)
@click.option("--yes", is_flag=True, help="With --live: do not ask.")
@settings_options("target", "merchants", "tokens", "ledger", "where", "json")
def doctor(live: str | None, yes: bool, *, common: CommonOptions) -> int:
    """Check machine, files, tokens and target; suggest fixes.

    Checks settings, merchants file, ledger, disk, the modes of token files, the browser for PDFs, the target, its clock against this machine's, the token source, and whether the platform accepts calls from this address
    (61004). Nothing is uploaded, and no link is requested.

    --live ENV uploads one tiny file for real, fetches it back, compares it and deletes it.

    Exit codes: 0 all checks passed (warnings allowed) · 1 a check failed · 2 usage · 3 --live was stopped before it
    began.
    """
    if live is None:
        if yes:
            raise UsageError(_("--yes goes with --live ENV."))
        return _check_all(common)
    return _check_live(common, live, yes=yes)


def _check_all(common: CommonOptions) -> int:
    from tcb_ops.features.doctor.checks import all_checks
    from tcb_ops.features.doctor.report import run_checks

    settings: Settings | SettingsError
    try:
        settings = common.settings()
    except SettingsError as error:
        settings, lang = error, Lang(common.lang or "en")
    else:
        lang = settings.lang
    console = Console(lang, quiet=common.quiet, verbose=common.verbose)
    with ExitStack() as stack:
        if isinstance(settings, Settings):
            settings = stack.enter_context(common.open_target(console, settings, looks_at_tokens=False))
            console.release()
        stack.enter_context(console.waiting(_("checking")))
        results = list(run_checks(all_checks(settings, common.config, common.where)))
    grades = Counter(result.grade for result in results)
    bad, warnings = grades[Grade.BAD], grades[Grade.WARNING]
    if common.json:
        target = settings.run_target if isinstance(settings, Settings) else None
        counts = {"target": target, "ok": not bad, "bad": bad, "warnings": warnings}
        console.json(counts | {"checks": [result.as_dict(lang) for result in results]})
    else:
        _print_results(console, results)
    return 1 if bad else 0


def _print_results(console: Console, results: Sequence[CheckResult]) -> None:
    """Print a table with a line per check, each fix below what was found; and whether all passed."""
    from rich.table import Table
    from rich.text import Text as Styled

    lang, table = console.lang, Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in results:
        word, style = _GRADES[result.grade]
        table.add_row(Styled(word.of(lang), style), result.label.of(lang), sanitize(result.seen.of(lang)))
        if result.fix is not None:
            # A no-break space follows the arrow: Chinese text has no spaces, so all of it would move to the next line.
            table.add_row("", "", f"→\u00a0{sanitize(result.fix.of(lang))}")
    console.print(table)
    console.print("")
    grades = Counter(result.grade for result in results)
    bad, warnings = grades[Grade.BAD], grades[Grade.WARNING]
    noted = ngettext("{n:,} warning", "{n:,} warnings", warnings)
    if bad and warnings:
        console.print(_("Checks failed: {bad}, {noted}. Fix them from the top.", bad=bad, noted=noted))
    elif bad:
        console.print(_("Checks failed: {bad}. Fix them from the top.", bad=bad))
    elif warnings:
        console.print(_("All checks passed, {noted}.", noted=noted))
    else:
        console.print(_("All checks passed."))


def _check_live(common: CommonOptions, env: str, *, yes: bool) -> int:
    from tcb_ops.cli.steps import confirm_or_abort
    from tcb_ops.features.doctor.live import start_live_check

    settings, console = common.start()
    merchant = _merchant_of(common, settings, env)
    with common.open_target(console, settings) as settings:
        console.release()
        if not settings.on_loopback and not yes:
            question = _(
                "Upload one tiny file into {env} of {name} ({appid}) on {api_base}, and delete it?",
                env=merchant.env,
                name=merchant.name,
                appid=merchant.appid,
                api_base=settings.api_base,
            )
            confirm_or_abort(console, question)
        work = start_live_check(settings, merchant)
        try:
            with console.waiting(_("uploading one tiny file")):
                result = work.result()
        except KeyboardInterrupt:
            console.warn(_("Stopping: the file is deleted first."))
            work.result()
            raise
    lang = settings.lang
    if common.json:
        console.json(
            {
                "target": settings.run_target,
                "env": result.env,
                "path": result.path,
                "ok": result.ok,
                "left_behind": result.left_behind or None,
                "checks": [step.as_dict(lang) for step in result.steps],
            }
        )
    else:
        _print_results(console, result.steps)
        if settings.on_loopback:
            console.print(_SIMULATED)
    return 0 if result.ok else 1


def _merchant_of(common: CommonOptions, settings: Settings, env: str) -> Merchant:
    """Return the merchants file's line for an environment, resolved as for a list's row. Raises UsageError without one."""
    from tcb_ops.lists.merchants import Unresolved, resolve

    merchants = common.read_merchants(settings)
    found = resolve(merchants, env.strip(), "", "")
    if isinstance(found, Unresolved):
        fix = found.fix
        if merchants.for_env(env.strip()):
            fix = _("choose one with --where appid=APPID")
        why = _("{message} — {fix}", message=found.message, fix=fix)
    elif found is None:
        why = _("It is excluded by --where.")
    elif found.left:
        why = _("{name} has left (status = left), so nothing can be sent there.", name=found.name)
    else:
        return found
    raise UsageError(_("--live {env}: {why}", env=env, why=why))
