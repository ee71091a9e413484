"""The commands that prepare a run: init, list, merchants sync, merchants check, tokens serve."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from tcb_ops.cli.options import (
    CommonOptions,
    Group,
    ScanOptions,
    common_options,
    lang_option,
    port_option,
    scan_options,
    target_line,
)
from tcb_ops.errors import InputError, UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import Text, _, as_list, ngettext, pgettext, verbatim
from tcb_ops.model import SIMULATOR

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tcb_ops.cli.console import Console
    from tcb_ops.lists.generate import ScannedFiles
    from tcb_ops.settings import Settings
    from tcb_ops.wechat.tokens.server import Access


Found = TypeVar("Found")


@click.command()
@click.option("--dir", "folder", default=".", metavar="DIR", help="Where to. [default: the working folder]")
@lang_option
def init(folder: str, lang: str | None) -> int:
    """Write settings, a merchants file and a list template.

    tcb-ops.toml, merchants.csv and list-template.xlsx; existing files are not overwritten. The template's drop-down has
    the names of merchants.csv: run init again when there are new ones.
    """
    from importlib.resources import files

    from tcb_ops.cli.console import Console, show_problems
    from tcb_ops.lists.generate import list_template
    from tcb_ops.merchants.sync import EMPTY_FILE, edit_merchants
    from tcb_ops.settings import SETTINGS_FILE, load_settings

    target = Path(folder)
    config, template = target / SETTINGS_FILE, target / "list-template.xlsx"
    settings = load_settings(config if config.exists() else None, {"lang": lang})
    console = Console(settings.lang)
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
    from tcb_ops.resources import system_reason

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open(mode) as out:
            out.write(content)
    except OSError as error:
        why = system_reason(error)
        raise UsageError(_("{file} cannot be written ({why})", file=file, why=why)) from None
    console.print(str(file))


@click.command("list")
@click.argument("source")
@scan_options(
    "The cloud path, e.g. 'banner/{date}/{name}'. Fields: {name} {stem} {ext} {dir} {rel} {date} {merchant} "
    "{appid} {env}."
)
@click.option(
    "--out", default="list.csv", show_default=True, metavar="FILE", help="The list; never overwritten."
)
@click.option(
    "--root",
    metavar="DIR",
    help="Where the list's file column starts from. [default: the list's folder, else SOURCE]",
)
@common_options
def make_list(
    source: str,
    out: str,
    root: str | None,
    *,
    scanning: ScanOptions,
    common: CommonOptions,
) -> int:
    """Make a path list of a file or a folder.

    A row per file and environment. Nothing is sent: check the list, then run check and upload with it.

    Hidden and temporary files (.DS_Store, Thumbs.db, ~$…) and tcb-ops's own are left out, and counted.
    """
    from tcb_ops.cli.console import show_problems
    from tcb_ops.lists.generate import PathTemplate, default_root, scan, select_targets, write_list
    from tcb_ops.runs.next_commands import command

    settings, console = common.start()
    dest = Path(out)
    today = datetime.now(settings.zone).date().isoformat()
    fields = PathTemplate(scanning.template, today)
    targets = select_targets(common.read_merchants(settings), scanning.to)
    scanned = scan(
        Path(source), include=scanning.include, exclude=scanning.exclude, own=own_files(common, settings)
    )
    base = default_root(scanned.folder, dest, Path(root) if root is not None else None)
    try:
        made = write_list(scanned, targets, fields, dest, base)
    except InputError as error:
        show_problems(console, error.source, error.problems)
        console.warn(_("No list was written."))
        raise click.exceptions.Exit(error.exit_code) from None
    print_left_out(console, scanned)
    if common.json:
        left_out = {"junk": scanned.junk, "own": scanned.own, "excluded": scanned.excluded}
        console.json({"list": str(dest), "root": str(base)} | asdict(made) | {"left_out": left_out})
        return 0
    console.print(
        _(
            "{dest}: {rows}, {files} for {environments} of {merchants}, {size}",
            dest=dest,
            rows=ngettext("{n:,} row", "{n:,} rows", made.rows),
            files=ngettext("{n:,} file", "{n:,} files", made.files),
            environments=ngettext("{n:,} environment", "{n:,} environments", made.envs),
            merchants=ngettext("{n:,} merchant", "{n:,} merchants", made.merchants),
            size=format_size(made.bytes),
        )
    )
    console.suggest(
        _("Check it, then run:")
        if settings.on_loopback
        else _("Check it, then upload it (LIVE; to rehearse, add --target simulator):"),
        command(settings, "upload", str(dest.absolute()), "--root", str(base.absolute())),
    )
    return 0


def own_files(common: CommonOptions, settings: Settings) -> frozenset[str]:
    """Return the real paths of tcb-ops's own files, which must never be uploaded."""
    from tcb_ops.settings import settings_file

    links = ("links.csv", "links.csv.part", "links.retry.csv", "links.retry.csv.part")
    tokens = settings.tokens
    named: list[str | Path] = [
        settings_file(common.config),
        settings.merchants,
        settings.reports,
        tokens.file,
        tokens.store,
        *links,
    ]
    named += [
        value.removeprefix("file:")
        for value in (tokens.secret, tokens.ticket, tokens.serve_key)
        if value.startswith("file:")
    ]
    if "://" not in settings.ledger:
        real = os.path.realpath(settings.ledger)
        named += [real + tail for tail in ("", "-wal", "-shm", "-journal", "-locks")]
    return frozenset(os.path.realpath(name) for name in named)


def print_left_out(console: Console, scanned: ScannedFiles) -> None:
    """Print how many files a scan left out, and why."""
    for count, what in (
        (scanned.junk, _("hidden or temporary")),
        (scanned.own, _("tcb-ops's own")),
        (scanned.excluded, _("by --include and --exclude")),
    ):
        if count:
            console.info(_("Skipped, {what}: {count:,}", what=what, count=count))


@click.group(cls=Group)
def merchants() -> None:
    """Keep the merchants file; check which merchants are ready.

    sync and check: who has authorized the platform, and what keeps a merchant from being served.
    """


@merchants.command()
@click.option("--out", metavar="FILE", help="Write to this new file instead of the merchants file.")
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@common_options
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
    roster = edit_merchants(settings.merchants)
    lines = roster.merchants
    for warning in roster.warnings:
        console.warn(_("{merchants}: {warning}", merchants=settings.merchants, warning=warning))
    only = {m.appid for m in common.read_merchants(settings)} if common.where else None
    with common.open_target(console, settings) as settings:
        console.release()
        found = _wait(console, partial(begin_sync, settings, only=only, notify=console.info))
    changes = decide(lines, found, settings.tokens.component_appid, only)
    writes = not dry_run and (changes.writes or bool(out) or not roster.exists)
    if writes:
        write_merchants(dest, roster.edited(changes), roster.content if roster.exists and not out else None)
    if common.json:
        about = {"merchants": str(dest), "written": writes, "authorized": len(found.appids)}
        console.json(about | facts_of(lines, changes, settings.lang))
    else:
        for part in draw_changes(lines, changes, console.lang):
            console.print(part)
        console.print(total(str(dest), len(lines), changes, written=not dry_run))
    return 1 if changes.unread else 0


@merchants.command("check")
@click.option("--out", metavar="FILE.csv", help="Write a line per merchant and environment, for Excel.")
@common_options
def check_merchants(out: str | None, *, common: CommonOptions) -> int:
    """Check which merchants are ready, and what to do about the others.

    Per merchant and environment: whether its token works, permission set 49 or 64 is granted, 云开发 is open, the
    environment is NORMAL, and how many link calls are left today. Nothing is uploaded, no link is requested. Permission
    sets need the component token. --where narrows it.

    Exit codes: 0 all are ready · 1 some are not · 3 the platform refuses all calls, or no host could be reached.
    """
    from tcb_ops.merchants.queries import begin_check
    from tcb_ops.merchants.status import draw_states, verdict, write_states

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

    from tcb_ops.cli.console import LINE_EVERY

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


@click.group(cls=Group)
def tokens() -> None:
    """Serve tokens to other machines.

    serve: a token server for their source `service`.
    """


@tokens.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="HOST", help="The address to listen on."
)
@port_option(8766)
@click.option("--cert", metavar="FILE", help="TLS certificate with its chain (PEM). Needed off this machine.")
@click.option("--key", metavar="FILE", help="Its private key (PEM, mode 0600).")
@common_options
def serve(host: str, port: int, cert: str | None, key: str | None, *, common: CommonOptions) -> int:
    """Serve the tokens of this machine's source to other machines.

    They use the source `service`, with the key that tokens.serve_key names. Press Ctrl-C to stop it; --verbose prints a line
    per request.
    """
    import asyncio

    from tcb_ops.formatting import sanitize
    from tcb_ops.signals import Ended
    from tcb_ops.wechat import open_source
    from tcb_ops.wechat.tokens.server import serve as serve_tokens
    from tcb_ops.wechat.tokens.server import serve_key, tls_context

    common.refuse_where(_("Tokens are served for every merchant: --where cannot narrow them."))
    settings, console = common.start()
    if settings.target == SIMULATOR:
        raise UsageError(
            _("The embedded simulator ends with its command: give --target the URL of a running one."),
            options=["--target"],
        )
    tls = tls_context(host, cert, key)
    secret = asyncio.run(serve_key(settings.tokens))

    def ready(url: str) -> None:
        if common.json:
            console.json({"url": url})
        else:
            console.print(url)
        console.info(target_line(settings))
        console.info(
            _(
                "Tokens of the source `{source}` are served. Press Ctrl-C to stop.",
                source=settings.tokens.source,
            )
        )

    def log(access: Access) -> None:
        when = datetime.fromtimestamp(access.at, settings.zone).isoformat(" ", "seconds")
        why = sanitize(access.why.of(console.lang))
        console.info(verbatim(f"{when} {access.appid} {access.status} {why}".rstrip()))

    raise Ended(
        serve_tokens(
            open_source(settings),
            secret,
            host=host,
            port=port,
            tls=tls,
            ready=ready,
            log=log if common.verbose else None,
        )
    )
