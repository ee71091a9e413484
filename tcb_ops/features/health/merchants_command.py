"""Commands that keep the merchants file and check the merchants."""

from __future__ import annotations

from pathlib import Path

import click

from tcb_ops.cli import Command, Commands, Group
from tcb_ops.cli.options import CommonOptions, settings_options, table_option
from tcb_ops.i18n import _


@click.command(cls=Command, usual="dry-run target where json")
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@settings_options("target", "merchants", "tokens", "where", "json")
def sync(*, dry_run: bool, common: CommonOptions) -> int:
    """Bring the merchants file up to date with the platform.

    New merchants and environments are added at the end, those that are gone get status=left. Your own columns, rows,
    names, order, encoding and line ends stay as they are. Needs the component token. With --where, only what concerns
    matching merchants changes.

    Exit codes: 0 done · 1 some merchants could not be asked · 3 the platform refuses all calls, or the disk failed:
    nothing was written.
    """
    from tcb_ops.features.health import merchants_sync as steps

    settings, console = common.start()
    file = settings.merchants
    exists = file.exists()
    content, lines = steps.read_for_sync(file)
    only = {m.appid for m in common.read_merchants(settings)} if common.where else None
    with common.open_target(console, settings) as settings:
        console.release()
        with console.waiting(_("asking the platform")):
            authorized = steps.ask_authorizers(settings, only=only, notify=console.info)
    changes = steps.decide(lines, authorized, settings.tokens.component_appid, only)
    writes = not dry_run and (changes.writes or not exists)
    if writes:
        steps.write_merchants(file, steps.edited(content, lines, changes), content if exists else None)
    if common.json:
        about = {"merchants": str(file), "written": writes, "authorized": len(authorized.appids)}
        console.json(about | steps.facts_of(lines, changes, settings.lang))
    else:
        for part in steps.draw_changes(changes, console.lang):
            console.print(part)
        console.print(steps.total(str(file), lines, changes, written=not dry_run))
    return 1 if changes.unread else 0


@click.command(cls=Command, usual="out target where json")
@table_option("Write a line per merchant and environment.")
@settings_options("target", "merchants", "tokens", "where", "json")
def check(out: Path | None, *, common: CommonOptions) -> int:
    """Check which merchants are ready, and what to do about the others.

    Per merchant and environment: whether its token works, permission set 49 is granted, 云开发 is open, the
    environment is NORMAL, and how many link calls are left today. Nothing is uploaded, no link is requested. Permission
    sets need the component token. --where narrows it.

    Exit codes: 0 all are ready · 1 some are not · 3 the platform refuses all calls, or no host could be reached.
    """
    from tcb_ops.features.health.merchants import check_lines, verdict
    from tcb_ops.features.health.verdicts import grouped, render_verdicts
    from tcb_ops.table_files import table_file

    settings, console = common.start()
    if out:
        table_file(out)  # refuses another ending before anything is asked
    lines = common.read_merchants(settings)
    with common.open_target(console, settings) as settings:
        console.release()
        with console.waiting(_("asking the platform")):
            states = check_lines(settings, lines, notify=console.info)
    if out:
        states.write(out, settings.lang)
    works = sum(state.works for state in states)
    cannot = sum(state.verdict is not None for state in states)
    if common.json:
        left, note = len(states) - works - cannot, states.note.of(settings.lang) if states.note else None
        counts = {"lines": len(states), "works": works, "cannot": cannot, "left": left}
        listed = [state.as_dict(settings.lang) for state in states]
        console.json({"target": settings.run_target, **counts, "note": note, "states": listed})
    else:
        groups = grouped((each.verdict, each.merchant.name) for each in states if each.verdict is not None)
        for part in render_verdicts([(cause, names, 0) for cause, names in groups], console.lang):
            console.print(part)
        console.print(verdict(states))
    if states.note:
        console.info(states.note)
    if out:
        console.info(_("All lines: {out}", out=out))
    return 1 if cannot else 0


@click.group(cls=Group, commands=Commands([f"{__name__}:check", f"{__name__}:sync"]))
def merchants() -> None:
    """Keep the merchants file; check which merchants are ready.

    sync and check: who has authorized the platform, and what keeps a merchant from being served.
    """
