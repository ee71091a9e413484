"""The commands that make files to begin with: init, and list, which makes a list of a folder."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console, show_problems
from tcb_ops.cli.options import CommonOptions, ScanOptions, lang_option, scan_options, settings_options
from tcb_ops.errors import InputError, UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import _, ngettext
from tcb_ops.kinds import provided
from tcb_ops.model import file_problem
from tcb_ops.resources import system_reason
from tcb_ops.settings import SETTINGS_FILE, Settings, settings_file

if TYPE_CHECKING:
    from tcb_ops.lists.generate import ScannedFiles


@click.command("list", cls=Command, usual="to path include exclude out root where json")
@click.argument("source")
@scan_options(
    "The cloud path, e.g. 'banner/{date}/{name}'. Fields: {name} {stem} {ext} {dir} {rel} {date} {merchant} "
    "{appid} {env}."
)
@click.option(
    "--out",
    default="list.csv",
    show_default=True,
    metavar="FILE.csv|.xlsx",
    help="The list; never overwritten.",
)
@click.option(
    "--root",
    metavar="DIR",
    help="Where the list's file column starts from. [default: the list's folder, else SOURCE]",
)
@settings_options("target", "merchants", "tokens", "ledger", "where", "json")
def list_(
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
    from tcb_ops.lists.generate import PathTemplate, default_root, scan, select_targets, write_list
    from tcb_ops.lists.paths import read_paths
    from tcb_ops.runs.next_commands import command
    from tcb_ops.table_files import table_file

    settings, console = common.start()
    dest = table_file(out)
    today = datetime.now(settings.zone).date().isoformat()
    fields = PathTemplate(scanning.template, today)
    merchants = common.read_merchants(settings)
    targets = select_targets(merchants, scanning.to)
    scanned = scan(
        Path(source), include=scanning.include, exclude=scanning.exclude, own=own_files(common, settings)
    )
    base = default_root(scanned.folder, dest, Path(root) if root is not None else None)
    write_list(scanned, targets, fields, dest, base)
    try:
        batch = read_paths(dest, merchants, base)
    except InputError as error:
        dest.unlink()
        unique = {(problem.value, problem.message.en): problem for problem in error.problems}
        problems = [
            file_problem(_("{name}: {message}", name=problem.value, message=problem.message), problem.fix)
            for problem in unique.values()
        ]
        show_problems(console, str(scanned.folder), problems)
        text = _("No list was written: rename these files, or change --path; {{rel}} keeps all apart.")
        console.warn(text)
        refused = InputError(text, str(scanned.folder), problems)
        refused.shown = True
        raise refused from None
    print_left_out(console, scanned)
    counts = {
        "rows": batch.valid,
        "files": len(scanned.files),
        "envs": batch.envs,
        "merchants": batch.merchants_count,
        "bytes": batch.total_bytes,
    }
    if common.json:
        left_out = {"junk": scanned.junk, "own": scanned.own, "excluded": scanned.excluded}
        console.json({"list": str(dest), "root": str(base)} | counts | {"left_out": left_out})
        return 0
    console.print(
        _(
            "{dest}: {rows}, {files} for {environments} of {merchants}, {size}",
            dest=dest,
            rows=ngettext("{n:,} row", "{n:,} rows", counts["rows"]),
            files=ngettext("{n:,} file", "{n:,} files", counts["files"]),
            environments=ngettext("{n:,} environment", "{n:,} environments", counts["envs"]),
            merchants=ngettext("{n:,} merchant", "{n:,} merchants", counts["merchants"]),
            size=format_size(counts["bytes"]),
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
        value.removeprefix("file:") for value in (tokens.secret, tokens.ticket) if value.startswith("file:")
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


@click.command(cls=Command, usual="practice fresh lang")
@click.argument("folder", metavar="[DIR]", default=".")
@click.option(
    "--practice",
    is_flag=True,
    help="A rehearsal instead: sample merchants, a list, its files; the target is the simulator.",
)
@click.option(
    "--fresh", is_flag=True, help="With --practice: begin the rehearsal in DIR again; its ledger stays."
)
@lang_option
def init(folder: str, *, practice: bool, fresh: bool, common: CommonOptions) -> int:
    """Write settings, a merchants file and a list template.

    tcb-ops.toml, merchants.csv and list-template.xlsx; existing files are not overwritten.
    """
    from importlib.resources import files

    from tcb_ops.lists.generate import list_template
    from tcb_ops.lists.merchants import EMPTY_FILE

    target = Path(folder)
    config = target / SETTINGS_FILE
    if practice:
        return _practise(target, common, fresh=fresh)
    if fresh:
        raise UsageError(_("--fresh begins a rehearsal again: give --practice, too."))
    settings, console = replace(common, config=str(config) if config.exists() else None).start()
    _write_new(console, config, (files("tcb_ops") / "starter.toml").read_bytes())
    _write_new(console, target / "merchants.csv", EMPTY_FILE)
    _write_new(console, target / "list-template.xlsx", list_template(settings.lang))
    console.info(
        _(
            "Next: fill in merchants.csv (a line per merchant and environment) and a list in a copy of "
            "list-template.xlsx; then run tcb-ops check LIST. For live runs, tcb-ops.toml says where tokens come from."
        )
    )
    return 0


def _practise(folder: Path, common: CommonOptions, *, fresh: bool) -> int:
    """Write what a rehearsal needs into a folder, and suggest its first upload."""
    from tcb_ops.runs.next_commands import command

    try:
        written = provided("init --practice")(folder, fresh=fresh)
    except OSError as error:
        file, reason = error.filename or folder, system_reason(error)
        raise UsageError(_("{file} cannot be written ({why})", file=file, why=reason)) from None
    settings, console = replace(common, config=str(folder / SETTINGS_FILE)).start()
    for file in written:
        console.print(str(file))
    console.info(
        _('A rehearsal: as long as tcb-ops.toml has target = "simulator", nothing leaves this machine.')
    )
    words = (str((folder / "paths.csv").absolute()), "--root", str((folder / "files").absolute()))
    console.suggest(_("Upload its list to the simulator:"), command(settings, "upload", *words))
    return 0


def _write_new(console: Console, file: Path, content: bytes) -> None:
    if file.exists():
        console.info(_("{file} already exists: not overwritten", file=file))
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as out:
            out.write(content)
    except OSError as error:
        reason = system_reason(error)
        raise UsageError(_("{file} cannot be written ({why})", file=file, why=reason)) from None
    console.print(str(file))
