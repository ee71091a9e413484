"""The commands that copy and join ledgers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from tcb_ops.cli.options import CommonOptions, Group, common_options
from tcb_ops.i18n import Text, _, ngettext

if TYPE_CHECKING:
    from tcb_ops.cli.console import Console

_WHOLE = _("Runs are copied whole: --where cannot leave merchants out.")


@click.group(cls=Group)
def ledger() -> None:
    """Copy runs to another ledger; join the shares of a list."""


@ledger.command()
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
    from tcb_ops.settings import shown_url

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
    if copied.there:
        console.print(_already_there(len(copied.there)))
    return 0


@ledger.command()
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
    joined run has each row of the list with its outcome; retries go along.
    """
    from tcb_ops import api
    from tcb_ops.reports.explanations import verdict
    from tcb_ops.reports.next_actions import next_command
    from tcb_ops.reports.summary import by_code
    from tcb_ops.runs.next_commands import of_run
    from tcb_ops.settings import holds_password, shown_url, without_password

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
    if copied.there:
        console.print(_already_there(len(copied.there)))
    if holds_password(dest):
        settings = replace(common, ledger=without_password(dest)).settings()
    console.suggest(_("Its report:"), of_run(settings, run.record, "report"))
    left = next_command(settings, run.record, by_code(run.final().cause_list()))
    if left is not None:
        console.suggest(*left)
    return 0


def _already_there(runs: int) -> Text:
    return ngettext("{n:,} run was there already.", "{n:,} runs were there already.", runs)


def _warn_of_passwords(console: Console, *ledgers: str) -> None:
    from tcb_ops.settings import holds_password, shown_url

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

    from tcb_ops.cli.console import LINE_EVERY

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
