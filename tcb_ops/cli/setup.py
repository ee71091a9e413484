"""The commands that prepare runs: init, merchants sync, merchants check, doctor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import LINE_EVERY, Console, show_problems
from tcb_ops.cli.options import (
    CommonOptions,
    lang_option,
    settings_options,
)
from tcb_ops.doctor import CheckResult, Grade
from tcb_ops.errors import InputError, UsageError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, _, as_list, ngettext, pgettext, verbatim
from tcb_ops.model import Merchant
from tcb_ops.resources import system_reason
from tcb_ops.settings import SETTINGS_FILE, Settings

if TYPE_CHECKING:
    from concurrent.futures import Future


Found = TypeVar("Found")


@click.command(cls=Command, usual="lang")
@click.argument("folder", metavar="[DIR]", default=".")
@lang_option
def init(folder: str, *, common: CommonOptions) -> int:
    """Write settings, a merchants file and a list template.

    tcb-ops.toml, merchants.csv and list-template.xlsx; existing files are not overwritten. The template's drop-down has
    the names of merchants.csv: run init again when there are new ones.
    """
    from importlib.resources import files

    from tcb_ops.lists.generate import list_template
    from tcb_ops.merchants.sync import EMPTY_FILE, edit_merchants

    target = Path(folder)
    config, template = target / SETTINGS_FILE, target / "list-template.xlsx"
    settings, console = replace(common, config=str(config) if config.exists() else None).start()
    merchants, broken, names = target / "merchants.csv", None, list[str]()
    try:
        names = list(dict.fromkeys(m.name for m in edit_merchants(merchants).merchants if not m.left))
    except InputError as error:
        broken = error
    _write_new(console, config, (files("tcb_ops") / "starter.toml").read_bytes())
    _write_new(console, merchants, EMPTY_FILE)
    if template.exists() and names:
        _refill(console, template, names)
    else:
        _write_new(console, template, list_template(names, settings.lang))
    if broken is not None:
        show_problems(console, broken.source, broken.problems)
        console.warn(
            _(
                "The names of {merchants} are not in the drop-down: correct the file, then run tcb-ops "
                "init again.",
                merchants=merchants,
            )
        )
        return broken.exit_code
    console.info(
        _(
            "Next: fill in merchants.csv (a line per merchant and environment) and a list in a copy of "
            "list-template.xlsx; then run tcb-ops check LIST. For live runs, tcb-ops.toml says where tokens come from."
        )
    )
    return 0


def _refill(console: Console, template: Path, names: list[str]) -> None:
    """Update the template's drop-down, or print what to add if the template was changed by hand."""
    from tcb_ops.lists.generate import refill_template

    content, missing = refill_template(template.read_bytes(), names)
    if content is not None and missing:
        _write(console, template, content, "wb")
        console.info(
            _("The drop-down now has {names}.", names=ngettext("{n:,} name", "{n:,} names", len(names)))
        )
        return
    console.info(_not_overwritten(template))
    if missing:
        shown = as_list(missing)
        console.info(
            _(
                "It was changed after init wrote it, so its drop-down was not updated. Add these at the end of its "
                "second sheet: {shown}.",
                shown=shown,
            )
        )


def _not_overwritten(file: Path) -> Text:
    return _("{file} already exists: not overwritten", file=file)


def _write_new(console: Console, file: Path, content: bytes) -> None:
    if file.exists():
        console.info(_not_overwritten(file))
    else:
        _write(console, file, content, "xb")


def _write(console: Console, file: Path, content: bytes, mode: Literal["xb", "wb"]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open(mode) as out:
            out.write(content)
    except OSError as error:
        why = system_reason(error)
        raise UsageError(_("{file} cannot be written ({why})", file=file, why=why)) from None
    console.print(str(file))


@click.command(cls=Command, usual="out dry-run target where json")
@click.option("--out", metavar="FILE", help="Write to this new file instead of the merchants file.")
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@settings_options("target", "merchants", "tokens", "where", "json")
def sync(out: str | None, dry_run: bool, *, common: CommonOptions) -> int:
    """Bring the merchants file up to date with the platform.

    New merchants and environments are added at the end, those that are gone get status=left. Your own columns, rows,
    names, order, encoding and line ends stay as they are. Needs the component token. With --where, only what concerns
    matching merchants changes.

    Exit codes: 0 done · 1 some merchants could not be asked · 3 the platform refuses all calls, or the disk failed:
    nothing was written.
    """
    from tcb_ops.merchants.queries import begin_sync
    from tcb_ops.merchants.sync import decide, draw_changes, edit_merchants, facts_of, total, write_merchants

    settings, console = common.start()
    dest = Path(out) if out else settings.merchants
    if out and dest.exists():
        raise UsageError(_("{out} already exists: choose another name", out=out))
    editor = edit_merchants(settings.merchants)
    lines = editor.merchants
    for warning in editor.warnings:
        console.warn(_("{merchants}: {warning}", merchants=settings.merchants, warning=warning))
    only = {m.appid for m in common.read_merchants(settings)} if common.where else None
    with common.open_target(console, settings) as settings:
        console.release()
        found = _wait(console, partial(begin_sync, settings, only=only, notify=console.info))
    changes = decide(lines, found, settings.tokens.component_appid, only)
    writes = not dry_run and (changes.writes or bool(out) or not editor.exists)
    if writes:
        write_merchants(dest, editor.edited(changes), editor.content if editor.exists and not out else None)
    if common.json:
        about = {"merchants": str(dest), "written": writes, "authorized": len(found.appids)}
        console.json(about | facts_of(lines, changes, settings.lang))
    else:
        for part in draw_changes(lines, changes, console.lang):
            console.print(part)
        console.print(total(str(dest), len(lines), changes, written=not dry_run))
    return 1 if changes.unread else 0


@click.command(cls=Command, usual="out target where json")
@click.option("--out", metavar="FILE.csv", help="Write a line per merchant and environment, for Excel.")
@settings_options("target", "merchants", "tokens", "where", "json")
def check(out: str | None, *, common: CommonOptions) -> int:
    """Check which merchants are ready, and what to do about the others.

    Per merchant and environment: whether its token works, permission set 49 is granted, 云开发 is open, the
    environment is NORMAL, and how many link calls are left today. Nothing is uploaded, no link is requested. Permission
    sets need the component token. --where narrows it.

    Exit codes: 0 all are ready · 1 some are not · 3 the platform refuses all calls, or no host could be reached.
    """
    from tcb_ops.merchants import draw_states, verdict, write_states
    from tcb_ops.merchants.queries import begin_check

    settings, console = common.start()
    lines = common.read_merchants(settings)
    with common.open_target(console, settings) as settings:
        console.release()
        checked = _wait(console, partial(begin_check, settings, lines, notify=console.info))
    states = checked.states
    if out:
        write_states(states, Path(out), settings.lang)
    works = sum(state.works for state in states)
    cannot = sum(bool(state.issues) for state in states)
    if common.json:
        console.json(
            {
                "target": settings.run_target,
                "lines": len(states),
                "works": works,
                "cannot": cannot,
                "left": len(states) - works - cannot,
                "note": checked.note.of(settings.lang) if checked.note else None,
                "states": [state.as_dict(settings.lang) for state in states],
            }
        )
    else:
        for part in draw_states(states, console.lang):
            console.print(part)
        console.print(verdict(states))
    if checked.note:
        console.info(checked.note)
    if out:
        console.info(_("All lines: {out}", out=out))
    return 1 if cannot else 0


def _wait(console: Console, begin: Callable[..., Future[Found]]) -> Found:
    """Show progress until the work is done. Ctrl-C cancels the calls; nothing has been written by then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    seen = [0, 0]

    def progress(done: int, all_of_them: int) -> None:
        seen[:] = done, all_of_them

    work = begin(progress=progress)
    bar = Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(pgettext("counted", "merchants").of(console.lang)),
        console=console.err,
        transient=True,
        disable=not console.is_watched,
    )
    try:
        with bar:
            task = bar.add_task("", total=None)
            while True:
                try:
                    return work.result(timeout=0.1 if console.is_watched else LINE_EVERY)
                except TimeoutError:
                    if work.done():
                        raise
                if console.is_watched:
                    bar.update(task, completed=seen[0], total=seen[1] or None)
                elif seen[1]:
                    console.info(_("merchants: {seen:,}/{seen2:,}", seen=seen[0], seen2=seen[1]))
    finally:
        work.cancel()


_CHECKS = {
    "python": verbatim("Python"),
    "packages": _("packages"),
    "lab": verbatim("JupyterLab"),
    "browser": _("PDF browser"),
    "fonts": _("Chinese font"),
    "settings": _("settings"),
    "merchants": pgettext("check", "merchants"),
    "ledger": _("ledger"),
    "disk": _("disk"),
    "secrets": _("secrets"),
    "target": pgettext("check", "target"),
    "clock": _("clock"),
    "tokens": _("token source"),
    "address": _("this address"),
    "link": _("link"),
    "upload": _("upload"),
    "confirm": _("fetch back"),
    "content_type": verbatim("Content-Type"),
    "delete": _("delete"),
    "quota": _("quota"),
}
_GRADES = {
    Grade.OK: (_("✓ ok"), "green"),
    Grade.WARNING: (_("! warning"), "yellow"),
    Grade.BAD: (_("✗ FAILED"), "bold red"),
    Grade.SKIPPED: (_("– not checked"), "dim"),
}


_SIMULATED = _("SIMULATED 演练: these are the simulator's answers, not the platform's.")


@click.command(cls=Command, usual="live yes target where json")
@click.option(
    "--live", metavar="ENV", help="Upload one tiny file into ENV for real, fetch it back, delete it."
)
@click.option("--yes", is_flag=True, help="With --live: do not ask.")
@settings_options("target", "merchants", "tokens", "ledger", "where", "json")
def doctor(live: str | None, yes: bool, *, common: CommonOptions) -> int:
    """Check machine, files, tokens and target; suggest fixes.

    Checks Python, packages, JupyterLab, fonts, settings, merchants file, ledger, disk, the modes of token files, the
    target, its clock against this machine's, the token source, and whether the platform accepts calls from this address
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
    from tcb_ops.doctor.checks import DoctorContext, run_checks

    context = DoctorContext.of(common.settings, common.overrides(), common.config, common.where)
    lang = context.settings.lang if context.settings is not None else Lang(common.lang or "en")
    console = Console(lang, quiet=common.quiet, verbose=common.verbose)
    with ExitStack() as stack:
        if context.settings is not None and context.error is None:
            opened = stack.enter_context(common.open_target(console, context.settings, looks_at_tokens=False))
            console.release()
            context = replace(context, settings=opened)
        stack.enter_context(console.waiting(_("checking")))
        results = list(run_checks(context))
    grades = Counter(result.grade for result in results)
    bad, warnings = grades[Grade.BAD], grades[Grade.WARNING]
    if common.json:
        known = context.settings if "api_base" in context.known else None
        target = known.run_target if known is not None else None
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
        table.add_row(
            Styled(word.of(lang), style), _CHECKS[result.name].of(lang), sanitize(result.seen.of(lang))
        )
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
    from tcb_ops.doctor.target import start_live_check

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
