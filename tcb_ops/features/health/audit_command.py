"""Commands of audits."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import (
    CommonOptions,
    cluster_option,
    common_options,
    limit_options,
    rehearsed_options,
    report_options,
    settings_options,
)
from tcb_ops.errors import UsageError
from tcb_ops.formatting import shown
from tcb_ops.i18n import _
from tcb_ops.model import target_name
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from tcb_ops.cli.steps import RunCommand
    from tcb_ops.features.health.notifications import Notification
    from tcb_ops.run import Run


def _show(console: Console, deliveries: Iterable[Notification]) -> None:
    """Print the result of each delivery; a failure of one that was due is printed even with --quiet."""
    for delivery in deliveries:
        what = _("{receiver}: {detail}", receiver=delivery.receiver, detail=delivery.detail)
        if delivery.sent or not delivery.due:
            console.info(what)
        else:
            console.warn(_("Not delivered to {what}", what=what))


def announce(run: Run, console: Console) -> list[dict[str, Any]]:
    """Send the message about a finished audit to receivers whose `on` applies; return the deliveries for `--json`.

    Then write its metrics, of an audit of all merchants.
    """
    from tcb_ops.features.health import notifications
    from tcb_ops.features.health.audit_kind import AUDIT

    if run.record.kind != AUDIT:
        return []
    deliveries: list[Notification] = []
    try:
        if run.settings.section("notify"):
            with console.waiting(_("Sending the message about this audit")):
                deliveries = notifications.notify(run.id, on_demand=False, settings=run.settings)
            _show(console, deliveries)
    finally:
        _write_metrics(run, console)
    return [delivery.to_json(console.lang) for delivery in deliveries]


def _write_metrics(run: Run, console: Console) -> None:
    from tcb_ops.features.health.audit import audited
    from tcb_ops.features.health.metrics import write_metrics
    from tcb_ops.system_errors import system_reason

    file: Path | None = run.settings.section("audit").metrics
    if file is None or run.record.selection.options:
        return
    run.refresh()  # to whom the message was not delivered
    try:
        write_metrics(file, audited(run), len(run.record.undelivered))
    except OSError as error:
        console.warn(
            _("The metrics could not be written to {file}: {why}.", file=file, why=system_reason(error))
        )


@click.command(cls=Command, usual="test target json")
@click.argument("run", default="latest")
@click.option("--test", is_flag=True, help="Send a test message instead.")
@settings_options("target", "merchants", "ledger", "json")
def notify(run: str, *, test: bool, common: CommonOptions) -> int:
    """Send an audit's message to every [[notify]] of the settings.

    Exit code 0 when every receiver accepted it, 1 when one did not.
    """
    from tcb_ops.features.health import notifications

    settings, console = common.start()
    deliveries = notifications.notify(None if test else run, settings=settings)
    if common.json:
        console.json({"notifications": [delivery.to_json(console.lang) for delivery in deliveries]})
    _show(console, deliveries)
    return 0 if all(delivery.sent for delivery in deliveries) else 1


@click.command(cls=Command, usual="out fail-on known dry-run target where json")
@report_options
@click.option(
    "--fail-on",
    type=click.Choice(["any", "new", "none"]),
    default="any",
    show_default=True,
    help="Exit code 1 for any failure, only for what the previous audit did not have, or never.",
)
@click.option(
    "--known",
    metavar="FILE",
    help="Known failures: appid or env, cause, until, note. [default: known.csv beside the settings file, if there]",
)
@limit_options
@cluster_option
@rehearsed_options
@common_options
def audit(command: RunCommand, fail_on: str, known: str | None) -> int:
    """Check whether each environment is healthy, and if not, why.

    Asks for its status, the quota left, the permission sets and one upload link; uploads nothing.
    --where narrows it.
    """
    from tcb_ops.features.health import audit as api
    from tcb_ops.features.health.audit_kind import audit_spec

    command.check_folder()
    with command.opened():
        merchants, reports = command.common.read_merchants(command.settings), command.reports
        cluster, options = command.which.cluster, command.options
        if command.which.dry_run:
            return command.dry_run([audit_spec(merchants)])
        handle = api.start_audit(merchants, known=known, out=reports, cluster=cluster, **options)
        del merchants  # of a large fleet, some MiB less while the report is written
        return command.report(handle, fail_on)


def watch_audits(console: Console, settings: Settings, common: CommonOptions, within: str) -> int:
    """Print whether a complete audit of the target and --where finished `within` a time; return the exit code.

    A retry asks about a part only, and does not count.
    """
    from tcb_ops.features.health.audit import newest_audit

    parts = re.fullmatch("([0-9]+)([smh])", within.strip().lower())
    if parts is None:
        text = _("'{value}' is not a time. Write a number and s, m or h: 90s, 10m, 26h.")
        raise UsageError(text.format(value=within))
    seconds = float(parts[1]) * {"s": 1, "m": 60, "h": 3600}[parts[2]]
    latest = newest_audit(settings, common.selection())
    run, ended, stopped = (latest.id, latest.finished_at, latest.stopped) if latest else (None, None, None)
    # One of the future is not recent, as after the clock was set back.
    fresh = ended is not None and abs(time.time() - ended) <= seconds and stopped is None
    moment = datetime.fromtimestamp(ended or 0, settings.zone)
    if common.json:
        finished_at = moment.isoformat(timespec="seconds") if ended is not None else None
        undelivered = list(latest.undelivered) if latest else []
        console.json({"stale": not fresh, "run": run, "finished_at": finished_at, "undelivered": undelivered})
    given = " ".join(f"--where {shown(item)}" for item in sorted(common.where))
    # The audits looked at are those narrowed by the same --where.
    which = _("with {options}", options=given) if given else _("of all merchants")
    text = _("The latest audit ({which}), {id}, finished at {when}.")
    if ended is None:
        text = _("No audit of {target} ({which}) has finished yet.")
    elif stopped is not None:
        text = _("The latest audit ({which}), {id}, was stopped at {when} before it was complete.")
    when = moment.isoformat(" ", "minutes")
    told = text.format(id=run, which=which, when=when, target=target_name(settings.run_target))
    (console.info if fresh else console.warn)(told)
    return 0 if fresh else 1
