"""The command that says what a person should do now."""

from __future__ import annotations

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, reader_options
from tcb_ops.i18n import _


@click.command("next", cls=Command, usual="target where json")
@reader_options
def next_(*, common: CommonOptions) -> int:
    """Say what to do now, the most urgent first.

    Unfinished runs, merchants that were asked and are ready, rows whose cause has gone, newly broken environments, messages that
    were not delivered, and other rows that did not succeed; each with its command. The ledger tells it: nothing is called.
    """
    from tcb_ops.features.health.next_steps import next_steps

    settings, console = common.start()
    steps = next_steps(settings=settings, where=common.where)
    if common.json:
        console.json({"target": settings.run_target, "next": [each.as_dict(settings.lang) for each in steps]})
        return 0
    (console.info if steps else console.print)(steps.title)
    for each in steps:
        console.print(_("{text}\n{line}", text=each.text, line=each.command))
        console.print("")
    return 0
