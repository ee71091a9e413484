"""The command that makes files to begin with: init."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, lang_option
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Lang, _, pgettext
from tcb_ops.kinds import provided
from tcb_ops.resources import system_reason
from tcb_ops.settings import SETTINGS_FILE


@click.command(cls=Command, usual="practice lang")
@click.argument("folder", metavar="[DIR]", default=".")
@click.option(
    "--practice",
    is_flag=True,
    help="A rehearsal instead: sample merchants, a list, its files; the target is the simulator.",
)
@lang_option
def init(folder: str, *, practice: bool, common: CommonOptions) -> int:
    """Write settings, a merchants file and a list template.

    tcb-ops.toml, merchants.csv and list-template.xlsx; existing files are not overwritten.
    """
    from importlib.resources import files

    from tcb_ops.lists.merchants import EMPTY_FILE

    target = Path(folder)
    config = target / SETTINGS_FILE
    if practice:
        return _practise(target, common)
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


def _practise(folder: Path, common: CommonOptions) -> int:
    from tcb_ops.runs.next_commands import command

    try:
        written = provided("init --practice")(folder)
    except OSError as error:
        text = _("{file} cannot be written ({why})", file=error.filename or folder, why=system_reason(error))
        raise UsageError(text) from None
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


def list_template(lang: Lang) -> bytes:
    """Return a workbook for a path list whose columns are text: 007 and 1E5 stay as typed."""
    import xlsxwriter

    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True}) as book:
        text = book.add_format({"num_format": "@"})
        bold = book.add_format({"num_format": "@", "bold": True, "bottom": 1})
        sheet = book.add_worksheet(_("list").of(lang))
        sheet.set_column("A:A", 24, text)
        sheet.set_column("B:C", 44, text)
        heads = [_("merchant"), pgettext("column", "path"), pgettext("column", "file")]
        sheet.write_row(0, 0, [head.of(lang) for head in heads], bold)
        sheet.freeze_panes(1, 0)
    return out.getvalue()
