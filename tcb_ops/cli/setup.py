"""The command that prepares a folder: init."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import (
    CommonOptions,
    lang_option,
)
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _
from tcb_ops.resources import system_reason
from tcb_ops.settings import SETTINGS_FILE


@click.command(cls=Command, usual="lang")
@click.argument("folder", metavar="[DIR]", default=".")
@lang_option
def init(folder: str, *, common: CommonOptions) -> int:
    """Write settings, a merchants file and a list template.

    tcb-ops.toml, merchants.csv and list-template.xlsx; existing files are not overwritten. The template's drop-down has
    the names of merchants.csv: when there are new ones, delete it and run init again.
    """
    from importlib.resources import files

    from tcb_ops.features.merchants.sync import EMPTY_FILE, edit_merchants
    from tcb_ops.lists.generate import list_template

    target = Path(folder)
    config, merchants = target / SETTINGS_FILE, target / "merchants.csv"
    settings, console = replace(common, config=str(config) if config.exists() else None).start()
    names = list(dict.fromkeys(m.name for m in edit_merchants(merchants).merchants if not m.left))
    for file, content in (
        (config, (files("tcb_ops") / "starter.toml").read_bytes()),
        (merchants, EMPTY_FILE),
        (target / "list-template.xlsx", list_template(names, settings.lang)),
    ):
        if file.exists():
            console.info(_("{file} already exists: not overwritten", file=file))
            continue
        try:
            target.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as out:
                out.write(content)
        except OSError as error:
            why = system_reason(error)
            raise UsageError(_("{file} cannot be written ({why})", file=file, why=why)) from None
        console.print(str(file))
    console.info(
        _(
            "Next: fill in merchants.csv (a line per merchant and environment) and a list in a copy of "
            "list-template.xlsx; then run tcb-ops check LIST. For live runs, tcb-ops.toml says where tokens come from."
        )
    )
    return 0
