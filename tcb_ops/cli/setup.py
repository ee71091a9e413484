"""The commands that prepare runs: init, merchants sync, merchants check, doctor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console, show_problems
from tcb_ops.cli.options import (
    CommonOptions,
    lang_option,
)
from tcb_ops.errors import InputError, UsageError
from tcb_ops.i18n import Text, _, as_list, ngettext
from tcb_ops.resources import system_reason
from tcb_ops.settings import SETTINGS_FILE

if TYPE_CHECKING:
    pass


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

    from tcb_ops.features.merchants.sync import EMPTY_FILE, edit_merchants
    from tcb_ops.lists.generate import list_template

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
