"""The commands about merchants: sync the merchants file with the platform, and see who can work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tcb_ops.cli.console import LINE_EVERY, Console
from tcb_ops.cli.options import common_options, shared_options
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text

Found = TypeVar("Found")


@click.group()
def merchants() -> None:
    """Keep the merchants file; see who can work.

    sync and check: who has authorized the platform, and what stands in a merchant's way before a run.
    """


@merchants.command()
@click.option(
    "--out", metavar="FILE", help="Write here, to a new file, and leave the merchants file as it is."
)
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@shared_options
def sync(out: str | None, dry_run: bool, **values: Any) -> int:
    """Bring the merchants file up to date with the platform.

    New merchants and environments are added at the end, those that are gone get status=left. Your own columns, rows,
    names, order, encoding and line ends stay as they are. Needs the component token. With --where, only what concerns
    matching merchants changes.

    Exit codes: 0 done · 1 some merchants could not be asked · 3 the platform or the disk refused: nothing was written.
    """
    from tcb_ops.lists.merchants_editor import edit_merchants, write_merchants
    from tcb_ops.merchants.sync import begin_sync, draw_changes, facts_of, total
    from tcb_ops.merchants.sync_plan import decide

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    dest = Path(out) if out else settings.merchants
    if out and dest.exists():
        raise UsageError(Text(f"{out} is there already: give another name", f"{out} 已存在：请换一个文件名"))
    roster = edit_merchants(settings.merchants)
    lines = roster.merchants
    for warning in roster.warnings:
        screen.warn(Text(f"{settings.merchants}: {warning.en}", f"{settings.merchants}：{warning.zh}"))
    only = {m.appid for m in given.read_merchants(settings)} if given.where else None
    given.warn_of_open_tokens(screen, settings)
    with given.reach(screen, settings) as settings:
        screen.release()
        found = _wait(screen, partial(begin_sync, settings, only=only, notify=screen.say))
    changes = decide(lines, found, settings.tokens.component_appid, only)
    writes = not dry_run and (changes.writes or bool(out) or not roster.exists)
    if writes:
        left = dict.fromkeys(changes.left, True) | dict.fromkeys(changes.returned, False)
        content = roster.edited(left, dict(changes.names), changes.added)
        write_merchants(dest, content, roster.content if roster.exists and not out else None)
    if given.json:
        about = {"merchants": str(dest), "written": writes, "authorized": len(found.appids)}
        screen.json(about | facts_of(lines, changes, settings.lang))
    else:
        for part in draw_changes(lines, changes, settings.lang):
            screen.data(part)
        screen.data(total(str(dest), len(lines), changes, written=not dry_run).of(settings.lang))
    return 1 if changes.unread else 0


@merchants.command("check")
@click.option("--out", metavar="FILE.csv", help="Write a line per merchant and environment, for Excel.")
@shared_options
def check_merchants(out: str | None, **values: Any) -> int:
    """See which merchants can work, and what to do about the others.

    Per merchant and environment: whether its token works, permission set 49 or 64 is granted, 云开发 is open, the
    environment is NORMAL, and how many link calls are left today. Nothing is uploaded, no link is asked for. Permission
    sets need the component token. --where narrows it.

    Exit codes: 0 all can work · 1 some cannot · 3 the platform refuses everybody, or nobody is reached.
    """
    from tcb_ops.merchants.check import begin_check
    from tcb_ops.merchants.status import draw_states, verdict, write_states

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    lines = given.read_merchants(settings)
    given.warn_of_open_tokens(screen, settings)
    with given.reach(screen, settings) as settings:
        screen.release()
        checked = _wait(screen, partial(begin_check, settings, lines, notify=screen.say))
    states = checked.states
    if out:
        write_states(states, Path(out), settings.lang)
    works = sum(state.works for state in states)
    cannot = sum(bool(state.issues) for state in states)
    if given.json:
        screen.json(
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
        for part in draw_states(states, settings.lang):
            screen.data(part)
        screen.data(verdict(states).of(settings.lang))
    if checked.note:
        screen.say(checked.note)
    if out:
        screen.say(Text(f"All lines: {out}", f"全部各行：{out}"))
    return 1 if cannot else 0


def _wait(screen: Console, begin: Callable[..., Future[Found]]) -> Found:
    """Show how far it is until it is done; Ctrl-C ends the calls, and nothing has been written."""
    seen = [0, 0]

    def progress(done: int, all_of_them: int) -> None:
        seen[:] = done, all_of_them

    work = begin(progress=progress)
    watched = screen.err.is_terminal and not screen.quiet
    bar = Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(Text("merchants", "个商户").of(screen.lang)),
        console=screen.err,
        transient=True,
        disable=not watched,
    )
    try:
        with bar:
            task = bar.add_task("", total=None)
            while True:
                try:
                    return work.result(timeout=0.1 if watched else LINE_EVERY)
                except TimeoutError:
                    if work.done():
                        raise
                if watched:
                    bar.update(task, completed=seen[0], total=seen[1] or None)
                elif seen[1]:
                    screen.say(Text(f"{seen[0]:,}/{seen[1]:,} merchants", f"{seen[0]:,}/{seen[1]:,} 个商户"))
    finally:
        work.cancel()
