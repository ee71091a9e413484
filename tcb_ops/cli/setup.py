"""The command that writes settings, a merchants file and a list template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, lang_option
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _
from tcb_ops.resources import system_reason
from tcb_ops.settings import SETTINGS_FILE


@click.command(cls=Command, usual="lang")
@click.argument("folder", metavar="[DIR]", default=".")
@lang_option
def init(folder: str, *, common: CommonOptions) -> int:
    """Write settings, a merchants file and a list template.

    tcb-ops.toml, merchants.csv and list-template.xlsx; existing files are not overwritten.
    """
    from importlib.resources import files

    from tcb_ops.lists.generate import list_template
    from tcb_ops.lists.merchants import EMPTY_FILE

    target = Path(folder)
    config = target / SETTINGS_FILE
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


def _write_new(console: Console, file: Path, content: bytes) -> None:
    if file.exists():
        console.info(_("{file} already exists: not overwritten", file=file))
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as out:
            out.write(content)
    except OSError as error:
        why = system_reason(error)
        raise UsageError(_("{file} cannot be written ({why})", file=file, why=why)) from None
    console.print(str(file))
