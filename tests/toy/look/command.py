"""`tcb-ops look`, and the public function behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from tcb_ops.arguments import checked
from tcb_ops.cli import Command
from tcb_ops.cli.options import (
    common_options,
    limit_options,
    list_options,
    report_options,
    resume_options,
)
from tcb_ops.engine.plan import list_spec
from tcb_ops.start import StartOptions, check_not_narrowed, settings_for, start_run

from .kind import LOOK

if TYPE_CHECKING:
    from pathlib import Path

    from tcb_ops.cli.steps import RunCommand
    from tcb_ops.lists.batch import Batch
    from tcb_ops.run import RunHandle


@checked
def start_look(batch: Batch, *, out: Path | str | None = None, **options: Unpack[StartOptions]) -> RunHandle:
    """Start to look whether the environments of a list are open, or resume the unfinished run of the same list."""
    check_not_narrowed("", options.get("where", ""))
    spec = list_spec(batch, LOOK)
    return start_run(lambda _: spec, settings_for(options), options, out=out)


@click.command(cls=Command, usual="out rate resume target json")
@click.argument("paths", metavar="[LIST]", required=False)
@list_options
@limit_options
@resume_options
@report_options
@common_options
def look(command: RunCommand, paths: str | None) -> int:
    """Look whether the environments of a list are open.

    An unfinished run of the same list is resumed; --resume RUN needs no list.
    """
    with command.opened():
        if paths is None:
            return command.report(command.resume(LOOK))
        with command.read_list(paths, root=None) as batch:
            return command.report(start_look(batch, out=command.reports, **command.options))
