"""`tcb-ops look`, and the public function behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import common_options, list_options, report_options
from tcb_ops.engine.plan import list_spec
from tcb_ops.start import StartOptions, settings_for, start_run

from .kind import LOOK

if TYPE_CHECKING:
    from pathlib import Path

    from tcb_ops.cli.steps import RunCommand
    from tcb_ops.lists.batch import Batch
    from tcb_ops.run import RunHandle


def start_look(batch: Batch, out: Path | str | None = None, **options: Unpack[StartOptions]) -> RunHandle:
    """Start to look whether the environments of a list are open."""
    spec = list_spec(batch, LOOK)
    return start_run(lambda _: spec, settings_for(options), options, out=out)


@click.command(cls=Command, usual="out target json")
@click.argument("paths", metavar="LIST")
@list_options
@report_options
@common_options
def look(command: RunCommand, paths: str) -> int:
    """Look whether the environments of a list are open."""
    with command.opened(), command.read_list(paths, root=None) as batch:
        return command.report(start_look(batch, command.reports, **command.options))
