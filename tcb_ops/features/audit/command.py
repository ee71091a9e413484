"""Commands of audits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console, show_notifications
from tcb_ops.cli.options import (
    DURATION,
    CommonOptions,
    cluster_option,
    common_options,
    limit_options,
    report_options,
    resume_options,
    settings_options,
)
from tcb_ops.formatting import shown
from tcb_ops.i18n import _, ngettext
from tcb_ops.model import FailOn
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from tcb_ops.cli.steps import RunCommand


@click.command(cls=Command, usual="test target json")
@click.argument("run", default="latest")
@click.option("--test", is_flag=True, help="Send a test message instead.")
@settings_options("target", "merchants", "ledger", "json")
def notify(run: str, *, test: bool, common: CommonOptions) -> int:
    """Send an audit's message to every [[notify]] of the settings.

    Exit code 0 when every receiver accepted it, 1 when one did not.
    """
    from tcb_ops import api

    settings, console = common.start()
    found = api.notify(None if test else run, settings=settings)
    if common.json:
        console.json({"notifications": [one.to_json(console.lang) for one in found]})
    show_notifications(console, found)
    return 0 if all(one.sent for one in found) else 1


@click.command(cls=Command, usual="out fail-on known target where json")
@report_options
@click.option(
    "--write-probe", is_flag=True, help="Also upload a tiny file to each environment and delete it again."
)
@click.option(
    "--fail-on",
    type=click.Choice(["any", "new", "none"]),
    default="any",
    show_default=True,
    help="Exit code 1 for any failure, only for what the previous audit did not have, or never.",
)
@click.option(
    "--confirm-after",
    type=DURATION,
    default="0",
    show_default=True,
    metavar="TIME",
    help="Ask again about new failures after this time (90s, 10m, 1h) before they count.",
)
@click.option(
    "--known",
    metavar="FILE",
    help="Known failures: appid or env, cause, until, note. [default: known.csv beside the settings file, if there]",
)
@click.option("--metrics", metavar="FILE", help="Write the result as a Prometheus textfile.")
@limit_options
@cluster_option
@resume_options
@common_options
def audit(
    command: RunCommand,
    metrics: str | None,
    fail_on: str,
    confirm_after: float,
    known: str | None,
    *,
    write_probe: bool,
) -> int:
    """Check whether each environment is healthy, and if not, why.

    Asks for its status, the quota left, the permission sets and one upload link; uploads nothing without --write-probe.
    --where narrows it.
    """
    from tcb_ops import api
    from tcb_ops.features.audit.result import check_metrics, write_metrics

    command.check_folder()
    if metrics is not None:
        check_metrics(Path(metrics))
    with command.opened():
        merchants = command.common.read_merchants(command.settings)
        _warn_of_known(command.console, known, command.settings)
        handle = api.start_audit(
            merchants,
            write_probe=write_probe,
            confirm_after=confirm_after,
            known=known,
            report=command.reports,
            **command.options,
        )
        del merchants  # of a large fleet, some MiB less while the report is written
        run = command.follow(handle)
        if metrics is not None and (failed := write_metrics(run.audit(), Path(metrics))) is not None:
            command.console.warn(failed)
        return command.report(run, FailOn(fail_on))


def _warn_of_known(console: Console, file: str | None, settings: Settings) -> None:
    """Warn of lines of known.csv whose merchant is not in the merchants file (any more), or whose cause is not catalogued."""
    from tcb_ops import api
    from tcb_ops.features.audit.known import uncatalogued, unmatched
    from tcb_ops.lists.input_files import PROBLEMS_SHOWN
    from tcb_ops.lists.merchants import read_merchants

    lines = api.known_failures(file, settings)
    for one in uncatalogued(lines)[:PROBLEMS_SHOWN]:
        console.warn(
            _(
                "{file}:{line}: {cause} is not in the catalogue of the store's codes: check its spelling.",
                file=file or settings.section("audit").known,
                line=one.line,
                cause=shown(one.cause),
            )
        )
    found = unmatched(lines, read_merchants(settings.merchants)) if lines else []
    for one in found[:PROBLEMS_SHOWN]:
        console.warn(
            _(
                "{file}:{line}: {who} is not in {merchants}: the line silences nothing.",
                file=file or settings.section("audit").known,
                line=one.line,
                who=" · ".join(filter(None, (shown(one.appid), shown(one.env)))),
                merchants=settings.merchants.name,
            )
        )
    if (rest := len(found) - PROBLEMS_SHOWN) > 0:
        console.warn(
            ngettext(
                "and {n:,} more line that silences nothing", "and {n:,} more lines that silence nothing", rest
            )
        )
