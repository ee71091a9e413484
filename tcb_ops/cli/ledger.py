"""The commands about the ledger: runs, runs prune, ledger copy, ledger join."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import LINE_EVERY, Console, suggest_next
from tcb_ops.cli.options import (
    DURATION,
    CommonOptions,
    common_options,
)
from tcb_ops.errors import LedgerDamagedError, UsageError
from tcb_ops.formatting import format_duration, shown
from tcb_ops.i18n import NOTHING, _, as_sentences, ngettext, verbatim
from tcb_ops.model import SIMULATOR, Kind
from tcb_ops.settings import Settings, holds_password, shown_url, without_password

if TYPE_CHECKING:
    from tcb_ops.model import Outcome
    from tcb_ops.run import Run
    from tcb_ops.runs.ledger_copy import CopiedRuns

_WHOLE = _("Runs are copied whole: --where cannot leave merchants out.")


@click.command(cls=Command)
@click.argument("action", metavar="[prune]", type=click.Choice(["prune"]), required=False)
@click.option("--operator", default="", metavar="NAME", help="Only runs of this operator.")
@click.option("--host", default="", metavar="NAME", help="Only runs on this machine.")
@click.option(
    "--stale",
    type=DURATION,
    metavar="TIME",
    help="List nothing: exit code 1 if no audit of the target has finished within this time (e.g. 26h).",
)
@click.option(
    "--older-than",
    metavar="DAYS",
    default="",
    help="With prune: how old a run must be, such as 180d. [default: keep_days under [lifecycle]]",
)
@click.option("--dry-run", is_flag=True, help="With prune: show what would be removed; remove nothing.")
@common_options
def runs(
    action: str | None,
    operator: str,
    host: str,
    stale: float | None,
    older_than: str,
    *,
    dry_run: bool,
    common: CommonOptions,
) -> int:
    """List the runs, the newest first.

    --note TEXT: only runs whose note contains it. --target: only runs of that target. --where: only runs with rows of
    matching merchants, and only those rows are counted.

    `runs prune` removes old runs from the ledger and gives the space back. Unfinished runs stay, and those that a later run retries,
    confirms, deletes or undoes; reports are not touched.
    """
    settings, console = common.start(reads_ledger=True)
    if action is not None:
        for option, given in (
            ("--where", common.where),
            ("--target", common.target or common.api_base),
            ("--note", common.note),
            ("--operator", operator),
            ("--host", host),
        ):
            if given:
                refused = _(
                    "`runs prune` is about the whole ledger: {option} cannot narrow it.", option=option
                )
                raise UsageError(refused, options=[option])
        return _prune(console, settings, older_than, dry_run=dry_run, as_json=common.json)
    if older_than or dry_run:
        raise UsageError(_("--older-than and --dry-run are for `tcb-ops runs prune`. Nothing was removed."))
    if stale is not None:
        return _watch_audits(console, settings, common, stale)
    if common.ledger and "://" not in settings.ledger and not Path(settings.ledger).exists():
        from tcb_ops import api

        api.open_run(settings=settings)  # raises the error of a ledger that does not exist: it may be a typo
    return _list_runs(console, settings, common, operator, host)


def _list_runs(console: Console, settings: Settings, common: CommonOptions, operator: str, host: str) -> int:
    from tcb_ops import api

    matching = common.matching(settings)
    damaged: list[LedgerDamagedError] = []
    of_target = settings.run_target if common.target or common.api_base else None
    found = [
        run
        for run in api.all_runs(settings=settings, damaged=damaged)
        if common.note in run.record.note
        and operator in {"", run.record.operator}
        and host in {"", run.record.host}
        and of_target in {None, run.record.target}
    ]
    sound: list[tuple[Run, dict[Outcome, int], dict[str, Any]]] = []
    for each in found:
        try:
            run = each if matching is None else each.of_merchants(matching)
            outcomes, summary = run.outcomes, run.summary() if common.json else {}
            if matching is None or outcomes:
                sound.append((run, outcomes, summary))
        except LedgerDamagedError as error:  # a damaged run must not hide the others
            damaged.append(error)
    if common.json:
        console.json({"runs": [summary | _about(run, settings) for run, _, summary in sound]})
    elif sound:
        from tcb_ops.reports.formats.terminal import render_runs, room

        shown = [(run.record, outcomes, run.mark) for run, outcomes, _ in sound]
        for line in render_runs(shown, settings, console.lang, room(console.out)):
            console.print(line)
    elif damaged:
        pass
    elif found or any((common.where, common.target, common.api_base, common.note, operator, host)):
        console.info(_("No run in {ledger_name} matches.", ledger_name=settings.ledger_name))
    else:
        console.info(_("No runs in {ledger_name} yet.", ledger_name=settings.ledger_name))
    for damage in damaged:
        console.warn(damage.text)
    return damaged[0].exit_code if damaged else 0


def _watch_audits(console: Console, settings: Settings, common: CommonOptions, seconds: float) -> int:
    """Print whether a complete audit of the target and --where finished recently; return the exit code."""
    from tcb_ops import api

    audits = [
        run.record
        for run in api.all_runs(settings=settings, damaged=[])
        if run.record.kind is Kind.AUDIT
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


def _prune(console: Console, settings: Settings, older_than: str, *, dry_run: bool, as_json: bool) -> int:
    """Remove old runs, or list them."""
    from tcb_ops import api

    days = older_than.removesuffix("d") or str(settings.lifecycle.keep_days)
    if not (days.isdecimal() and len(days) < 6 and int(days)):
        raise UsageError(
            _(
                "`runs prune` needs --older-than with a number of days, such as 180d, or keep_days under [lifecycle]."
            ),
            options=["--older-than"],
        )
    found = api.prune(int(days), dry_run=dry_run, settings=settings)
    if as_json:
        console.json(
            {"removed": [] if dry_run else [run.id for run in found], "runs": [run.id for run in found]}
        )
        return 0
    for run in found:
        console.print(verbatim(f"{run.id}  {run.kind}  {run.rows:,}"))
    counts = {
        "runs": ngettext("{n:,} run", "{n:,} runs", len(found)),
        "rows": ngettext("{n:,} row", "{n:,} rows", sum(run.rows for run in found)),
        "ledger": settings.ledger_name,
    }
    done = _("{runs} with {rows} removed from {ledger}.", **counts)
    planned = _("{runs} with {rows} would be removed from {ledger}.", **counts)
    console.info(planned if dry_run else done)
    return 0


def _about(run: Run, settings: Settings) -> dict[str, Any]:
    record = run.record
    return {
        "list": record.list_name,
        "begun": datetime.fromtimestamp(record.created_at, settings.zone).isoformat(timespec="seconds"),
        "finished": record.finished_at is not None,
        "parent": record.parent,
        "operator": record.operator,
        "host": record.host,
        "note": record.note,
    }


@click.command(cls=Command)
@click.argument("source", metavar="FROM")
@click.argument("dest", metavar="TO")
@click.argument("wanted", metavar="[RUN]...", nargs=-1)
@common_options
def copy(source: str, dest: str, wanted: tuple[str, ...], *, common: CommonOptions) -> int:
    """Copy runs to another ledger: from SQLite to PostgreSQL, or back.

    FROM and TO are files or URLs. Without RUN every run, with ids these and the runs that belong to them. Runs that TO has
    already are skipped; a copy that was interrupted is completed by the same command.
    """
    from tcb_ops import api

    common.refuse_where(_WHOLE)
    settings, console = common.start()
    _warn_of_passwords(console, source, dest)
    with _progress(console) as progress:
        copied = api.copy_runs(source, dest, wanted, settings=settings, progress=progress)
    names = {"from": shown_url(source), "to": shown_url(dest)}
    if common.json:
        console.json(names | {"copied": copied.runs, "there": copied.there, "rows": copied.rows})
        return 0
    console.print(
        _(
            "{runs} with {rows} copied from {source} to {dest}.",
            runs=ngettext("{n:,} run", "{n:,} runs", len(copied.runs)),
            rows=ngettext("{n:,} row", "{n:,} rows", copied.rows),
            source=names["from"],
            dest=names["to"],
        )
    )
    _show_already_there(console, copied)
    return 0


@click.command(cls=Command)
@click.argument("dest", metavar="OUT")
@click.argument("sources", metavar="IN...", nargs=-1, required=True)
@click.option(
    "--run",
    "wanted",
    multiple=True,
    metavar="RUN",
    help="Take this run of its ledger, by its whole id, instead of the newest share. Repeatable.",
)
@common_options
def join(dest: str, sources: tuple[str, ...], wanted: tuple[str, ...], *, common: CommonOptions) -> int:
    """Join the shares of a list into one run, in the ledger OUT.

    Each IN is the ledger of a share (--share), a file or a URL. All shares must be there, each once, and finished. The
    joined run has each row of the list with its outcome; retries are copied too.
    """
    from tcb_ops import api
    from tcb_ops.reports.explanations import verdict
    from tcb_ops.reports.summary import by_code
    from tcb_ops.runs.next_commands import of_run

    common.refuse_where(_WHOLE)
    _settings, console = common.start()
    _warn_of_passwords(console, dest, *sources)
    with _progress(console) as progress:
        run_id, copied = api.join_shares(dest, sources, runs=wanted, progress=progress)
    settings = replace(common, ledger=dest).settings()
    run = api.open_run(run_id, settings=settings)
    if common.json:
        console.json(run.summary() | {"copied": copied.runs, "there": copied.there})
        return 0
    console.print(
        _(
            "Run {id} in {dest} joins {shares}: {rows}.",
            id=run_id,
            dest=shown_url(dest),
            shares=ngettext("{n:,} share", "{n:,} shares", len(run.record.settings["joined"])),
            rows=ngettext("{n:,} row", "{n:,} rows", run.record.rows),
        )
    )
    console.print(verdict(run.record.kind, run.outcomes, finished=True))
    if retries := len({*copied.runs} - {run_id}):
        console.print(ngettext("{n:,} retry was added.", "{n:,} retries were added.", retries))
    _show_already_there(console, copied)
    if holds_password(dest):
        settings = replace(common, ledger=without_password(dest)).settings()
    console.suggest(_("Its report:"), of_run(settings, run.record, "report"))
    suggest_next(console, settings, run.record, by_code(run.final().cause_list()))
    return 0


def _show_already_there(console: Console, copied: CopiedRuns) -> None:
    if there := len(copied.there):
        console.print(ngettext("{n:,} run was there already.", "{n:,} runs were there already.", there))


def _warn_of_passwords(console: Console, *ledgers: str) -> None:
    for one in ledgers:
        if holds_password(one):
            console.warn(
                _(
                    "The password of {name} can be seen in this machine's process list: leave it out, and set PGPASSWORD "
                    "or write it into ~/.pgpass instead.",
                    name=shown_url(one),
                )
            )


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int, int], None]]:
    """Show how much is copied: a line that moves on a terminal, otherwise a line every few seconds."""
    from rich.status import Status

    last = time.monotonic()
    with console.waiting(_("Reading")) as status:

        def show(done: int, runs: int, rows: int) -> None:
            nonlocal last
            text = _(
                "{done:,} of {runs} copied · {rows}",
                done=done,
                runs=ngettext("{n:,} run", "{n:,} runs", runs),
                rows=ngettext("{n:,} row", "{n:,} rows", rows),
            )
            if isinstance(status, Status):
                status.update(text.of(console.lang))
            elif time.monotonic() - last >= LINE_EVERY:
                last = time.monotonic()
                console.info(text)

        yield show
