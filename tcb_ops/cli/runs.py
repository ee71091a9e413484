"""The commands that work on a list: check, links, upload; and retry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli import Command, options
from tcb_ops.engine.list_kinds import LINKS, UPLOAD
from tcb_ops.errors import UsageError
from tcb_ops.hooks import BackupHooks, WorkbookHooks
from tcb_ops.i18n import _, as_lines, as_list, as_sentences
from tcb_ops.settings import without_dots

if TYPE_CHECKING:
    from tcb_ops.cli.steps import RunCommand


@click.command(cls=Command, usual="mark column rows on-bad root target where json")
@click.argument("paths", metavar="LIST")
@options.own_option(
    "--mark",
    is_flag=True,
    needs=WorkbookHooks,
    help="Also write a copy of the workbook, its problems coloured and explained.",
)
@options.list_options
@options.settings_options("target", "merchants", "where", "json")
def check(command: RunCommand, paths: str, *, mark: bool) -> int:
    """Check a path list; report all problems in one pass.

    Each with line, column and fix. Nothing is sent.

    Local files are checked as upload does, unless there is no --root and none of the first is in the list's folder.
    """
    from tcb_ops.lists.batch import facts_line
    from tcb_ops.preflight import facts, long_cached

    console = command.console
    root = command.listing.root or str(Path(paths).parent)
    with command.read_list(paths, root, guessed=command.listing.root is None, mark=mark) as batch:
        if command.common.json:
            console.json(facts(batch))
        else:
            console.print(facts_line(batch))
        command.show_correction(batch)
        if (cached := long_cached(batch, command.settings)) is not None:
            console.warn(cached)
        if batch.unused:
            console.info(
                _("Columns that are only carried through: {columns}.", columns=as_list(batch.unused))
            )
        if batch.root is None:
            text = _(
                "None of the first files is in {folder}, so files were not checked; {--root} DIR checks them as upload does."
            )
            console.info(text.format(folder=Path(root).absolute()))
        console.suggest_one()
        return 1 if batch.valid < batch.count else 0


@click.command(cls=Command, usual="out on-bad rate dry-run resume target where json")
@click.argument("paths", metavar="[LIST]", required=False)
@click.option("--out", metavar="FILE", help="Where the links go (0600). [default: links.csv]")
@options.list_options
@options.limit_options
@options.run_options
@options.common_options
def links(command: RunCommand, paths: str | None) -> int:
    """Request an upload link per row; write links.csv.

    Links expire after about 15 minutes. An unfinished run of the same list is resumed; --resume RUN needs no list.
    """
    from tcb_ops import api
    from tcb_ops.engine.plan import list_spec
    from tcb_ops.preflight import ran_out

    console = command.console
    with command.opened():
        if paths is None:
            handle = command.resume(LINKS, command.listing.root)
            run = command.follow(handle)
        else:
            with command.read_list(paths, root=None) as batch:
                if command.which.dry_run:
                    return command.dry_run([list_spec(batch, LINKS)], batch)
                command.show_correction(batch, LINKS)
                handle = api.start_links(
                    batch,
                    out=Path(command.which.out or "links.csv").absolute(),
                    **command.options,
                )
                run = command.follow(handle)
        if (late := ran_out(handle.expired_links, run.record.links)) is not None:
            console.warn(late)
        return command.end(run, Path(run.record.links))


@click.command(cls=Command, usual="root backup skip-unchanged canary on-bad dry-run resume yes target")
@click.argument("paths", metavar="[LIST]", required=False)
@options.report_options
@click.option(
    "--skip-unchanged",
    is_flag=True,
    help="Leave out rows whose bytes an earlier run put there (not checked again).",
)
@click.option(
    "--canary",
    type=click.IntRange(min=1),
    metavar="N",
    help="The first N environments first; stop there if a row does not succeed.",
)
@options.own_option(
    "--backup",
    needs=BackupHooks,
    metavar="DIR",
    help="Save what is overwritten below this folder first, so that undo can restore it.",
)
@options.upload_yes_option
@options.list_options
@options.limit_options
@options.cluster_option
@options.run_options
@options.common_options
def upload(
    command: RunCommand,
    paths: str | None,
    canary: int | None,
    *,
    skip_unchanged: bool,
    backup: str | None,
) -> int:
    """Upload the list's files; write a report folder.

    Every file gets a link of its own. An unfinished run of the same list is resumed; --resume RUN needs no list.

    On a terminal an upload to a live target asks first.
    """
    from tcb_ops import api
    from tcb_ops.engine.plan import upload_spec
    from tcb_ops.lists.batch import facts_line
    from tcb_ops.preflight import replaced, scope_of_list

    console = command.console
    with command.opened():
        if paths is None:
            if backup is not None:
                raise UsageError(
                    _("{--resume} without a list resumes an upload as it was started: leave out {--backup}.")
                )
            command.check_folder()
            handle = command.resume(
                UPLOAD, command.listing.root, skip_unchanged=skip_unchanged, canary=canary or 0
            )
            return command.report(handle)
        settings = command.settings
        root = command.listing.root or str(Path(paths).parent)
        others = ["--backup", without_dots(backup)] if backup is not None else []
        with command.read_list(paths, root, others) as batch:
            if command.which.dry_run:
                work = upload_spec(batch)
                return command.dry_run([work], batch, skip_unchanged=skip_unchanged)
            command.check_folder()
            command.show_correction(batch, UPLOAD)
            fresh = not skip_unchanged and command.which.resume is None
            if fresh and (stored := replaced(batch, settings)) is not None:
                hint = _("{--skip-unchanged} leaves out files with the same bytes.")
                console.info(as_sentences((stored, hint)))
            command.ask_confirmation(UPLOAD, scope_of_list(batch), facts_line(batch))
            handle = api.start_upload(
                batch,
                out=command.reports,
                skip_unchanged=skip_unchanged,
                backup=backup,
                canary=canary or 0,
                cluster=command.which.cluster,
                **command.options,
            )
            return command.report(handle)


@click.command(cls=Command, usual="errcode out dry-run yes resume target where json")
@click.argument("run", default="latest")
@click.option(
    "--errcode",
    "codes",
    multiple=True,
    metavar="CODE",
    help="Only rows with this errcode or store code. Repeatable.",
)
@click.option("--out", metavar="PATH", help="The report folder, or links.retry.csv. [default: reports/RUN]")
@options.pdf_option
@options.kind_option
@options.upload_yes_option
@options.limit_options
@options.cluster_option
@options.rehearsed_options
@options.common_options
def retry(command: RunCommand, run: str, codes: tuple[str, ...], kind: str | None) -> int:
    """Run again the rows of a finished run that did not succeed.

    Runs its refused, failed and not attempted rows as a run of their own; --errcode and --where narrow it.
    """
    from tcb_ops import api
    from tcb_ops.engine.plan import check_retry, retry_spec
    from tcb_ops.model import Outcome
    from tcb_ops.preflight import scope_of_rows
    from tcb_ops.reports.explanations import named
    from tcb_ops.start import find_run, ledger_with_runs

    parent = find_run(run, command.settings, kind=kind)
    record = parent.record
    check_retry(record, command.settings)
    is_links = record.kind.writes_links
    if not is_links:
        command.check_folder()
    with command.opened():
        retrying = _(
            "Retrying {kind} {id} ({list_name})",
            kind=record.kind,
            id=named(record),
            list_name=record.list_name,
        )
        command.console.lead(retrying)
        merchants = command.common.read_merchants(command.settings)
        if command.which.dry_run:
            ledger = ledger_with_runs(command.settings)
            work = retry_spec(ledger, record, merchants, command.settings, codes)
            return command.dry_run([work])
        if record.kind.changes_store:
            scope = scope_of_rows(parent.tallies(), Outcome.retriable())
            command.ask_confirmation(record.kind, scope, _("At most {text}", text=scope.text))
        handle = api.start_retry(
            parent.id,
            merchants,
            codes=codes,
            out=(command.which.out or "links.retry.csv") if is_links else command.reports,
            cluster=command.which.cluster,
            **command.options,
        )
        if handle.warning is not None:
            from tcb_ops.engine.next_commands import quoted
            from tcb_ops.engine.next_commands import retry as retry_command

            later = _("The other rows are retried now. When the file has these merchants:")
            again = quoted(retry_command(command.settings, record))
            command.console.warn(as_lines((as_sentences((handle.warning, later)), again)))
        if handle.record.parent != record.id:
            text = _("No row of its own is left: these are those of its correction {id}.")
            command.console.info(text.format(id=handle.record.parent))
        if not is_links:
            return command.report(handle)
        done = command.follow(handle)
        return command.end(done, Path(done.record.links))
