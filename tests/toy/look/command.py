"""`tcb-ops look`, and the public function behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tcb_ops.api import _absolute, _Options, _settings, _start
from tcb_ops.cli import Command
from tcb_ops.cli.options import common_options, list_options, report_options
from tcb_ops.runs.plan import list_spec

from .kind import LOOK

if TYPE_CHECKING:
    from tcb_ops.cli.steps import RunCommand


def start_look(batch, report=None, *, settings=None, target=None, selection="", **options):
    """Start to look; takes what `tcb_ops.start_links` takes."""
    spec, chosen = list_spec(batch, LOOK, selection), _Options(**{"limits": None, **options})
    return _start(lambda _: spec, _absolute(report), _settings(settings, target), chosen)


@click.command(cls=Command, usual="out target json")
@click.argument("paths", metavar="LIST")
@list_options
@report_options
@common_options
def look(command: RunCommand, paths: str) -> int:
    """Look whether the environments of a list are open."""
    with command.opened(), command.read_list(paths, root=None) as batch:
        run = command.follow(start_look(batch, command.reports, **command.options))
        return command.report(run)
