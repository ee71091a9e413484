"""Commands of audits."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
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
from tcb_ops.formatting import format_duration, shown
from tcb_ops.i18n import NOTHING, _, as_sentences, ngettext
from tcb_ops.model import SIMULATOR
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from tcb_ops.cli.steps import RunCommand
    from tcb_ops.features.audit.notifications import Notification
    from tcb_ops.run import Run


def _show(console: Console, found: Iterable[Notification]) -> None:
    """Print the result of each delivery; a failure of one that was due is printed even with --quiet."""
    for one in found:
        what = _("{receiver}: {detail}", receiver=one.receiver, detail=one.detail)
        if one.sent or not one.due:
            console.info(what)
        else:
            console.warn(_("Not delivered to {what}", what=what))


def announce(run: Run, console: Console) -> list[dict[str, Any]]:
    """Send the message about a finished audit to receivers whose `on` applies; return the deliveries for `--json`."""
    from tcb_ops.features.audit import api

    if not (run.settings.section("notify") and run.record.has_findings):
        return []
    with console.waiting(_("Sending the message about this audit")):
        found = api.notify(run.id, on_demand=False, settings=run.settings)
    _show(console, found)
    return [one.to_json(console.lang) for one in found]


@click.command(cls=Command, usual="test target json")
@click.argument("run", default="latest")
@click.option("--test", is_flag=True, help="Send a test message instead.")
@settings_options("target", "merchants", "ledger", "json")
def notify(run: str, *, test: bool, common: CommonOptions) -> int:
    """Send an audit's message to every [[notify]] of the settings.

    Exit code 0 when every receiver accepted it, 1 when one did not.
    """
    from tcb_ops.features.audit import api

    settings, console = common.start()
    found = api.notify(None if test else run, settings=settings)
    if common.json:
        console.json({"notifications": [one.to_json(console.lang) for one in found]})
    _show(console, found)
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
    from tcb_ops.features.audit import api
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
            cluster=command.which.cluster,
            **command.options,
        )
        del merchants  # of a large fleet, some MiB less while the report is written
        run = command.follow(handle)
        if metrics is not None and (failed := write_metrics(run.audit(), Path(metrics))) is not None:
            command.console.warn(failed)
        return command.report(run, fail_on)


def _warn_of_known(console: Console, file: str | None, settings: Settings) -> None:
    """Warn of lines of known.csv whose merchant is not in the merchants file (any more), or whose cause is not catalogued."""
    from tcb_ops.features.audit import api
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


def watch_audits(console: Console, settings: Settings, common: CommonOptions, seconds: float) -> int:
    """Print whether a complete audit of the target and --where finished recently; return the exit code."""
    from tcb_ops import api
    from tcb_ops.features.audit.kind import AUDIT

    audits = [
        run.record
        for run in api.all_runs(settings=settings, damaged=[])
        if run.record.kind is AUDIT
        and run.record.target == settings.run_target
        and run.record.finished_at is not None
        and not run.record.parent  # a retry asks about a part only
    ]
    finished = [record for record in audits if record.selection == common.selection()]
    latest = max(finished, key=lambda record: record.number, default=None)
    ended = latest.finished_at if latest is not None else None
    stopped = latest is not None and latest.stopped is not None
    fresh = is_fresh(ended, time.time(), seconds) and not stopped
    if common.json:
        console.json({"stale": not fresh, "run": latest.id if latest is not None else None})
    which = _("of all merchants")  # the audits looked at are those narrowed by the same --where
    if common.where:
        given = " ".join(f"--where {shown(item)}" for item in sorted(common.where))
        which = _("with {options}", options=given)
    if latest is None or ended is None:
        of = _("the simulator") if settings.run_target == SIMULATOR else settings.run_target
        none = _("No audit of {target} ({which}) has finished yet.", target=of, which=which)
        others = _("Audits of other merchants ({n:,}) do not count.", n=len(audits)) if audits else NOTHING
        console.warn(as_sentences(filter(None, (none, others))))
        return 1
    named = {"id": latest.id, "when": datetime.fromtimestamp(ended, settings.zone).isoformat(" ", "minutes")}
    if ended > time.time() + CLOCK_TOLERANCE:
        ends = _(
            "Audit {id} finished at {when}, which is in the future: check this machine's clock.", **named
        )
    elif stopped:
        ends = _("The latest audit, {id}, was stopped at {when} before it was complete.", **named)
    elif fresh:
        ends = _("Audit {id} ({which}) finished at {when}.", which=which, **named)
    else:
        ends = _(
            "No audit ({which}) has finished within {duration}: the latest, {id}, finished at {when}.",
            which=which,
            duration=format_duration(seconds),
            **named,
        )
    (console.info if fresh else console.warn)(ends)
    return 0 if fresh else 1


CLOCK_TOLERANCE = 300.0
"""Maximum difference between the clocks of machines, in seconds."""


def is_fresh(ended: float | None, now: float, seconds: float) -> bool:
    """Return whether the latest audit is recent enough.

    ====================================  =====
    the latest audit finished             fresh
    ====================================  =====
    never                                 no
    within `seconds`                      yes
    earlier                               no
    more than five minutes in the future  no
    ====================================  =====
    """
    return ended is not None and -CLOCK_TOLERANCE <= now - ended <= seconds
