"""The commands about the ledger and its runs: runs, show, errcodes, report, open."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console, show_causes, show_run
from tcb_ops.cli.options import (
    CommonOptions,
    kind_option,
    own_option,
    pdf_option,
    reader_options,
    settings_options,
    table_option,
)
from tcb_ops.errors import LedgerDamagedError, UsageError, needed
from tcb_ops.formatting import sanitize
from tcb_ops.hooks import ArrowHooks, AuditHooks, StoredHooks, WorkbookHooks, hooks
from tcb_ops.i18n import NOTHING, Lang, Text, _, as_list, as_sentences, pgettext
from tcb_ops.kinds import row_count
from tcb_ops.model import Secret, target_name
from tcb_ops.secrets import masked
from tcb_ops.settings import NO_SETTINGS_FILE, Settings

if TYPE_CHECKING:
    from tcb_ops.ledger.records import RowRecord
    from tcb_ops.model import Outcome
    from tcb_ops.run import Run

ROWS_SHOWN = 200
"""Maximum number of rows that `show` prints."""


@click.command(cls=Command, usual="line merchant path url out kind target where json")
@click.argument("run", default="latest")
@click.option("--line", type=click.IntRange(min=1), metavar="N", help="The row at this line of the list.")
@click.option("--merchant", default="", help="Rows of this merchant (name or appid).")
@click.option("--path", default="", help="Rows whose cloud path contains this.")
@own_option(
    "--url",
    "with_url",
    needs=StoredHooks,
    is_flag=True,
    help="Ask for links at which the rows' files can be looked at. They end after two hours, and open them for anyone.",
)
@table_option("Write these rows, or all, with the columns of results.csv.")
@kind_option
@reader_options
def show(
    run: str,
    line: int | None,
    merchant: str,
    path: str,
    with_url: bool,
    out: Path | None,
    kind: str | None,
    *,
    common: CommonOptions,
) -> int:
    """Show a run, or rows of it."""
    settings, console = common.start()
    chosen = _open(run, kind, settings, common)
    if out is not None:
        from tcb_ops.reports.formats.csv import RESULT_COLUMNS, row_values
        from tcb_ops.table_files import write_table

        names = (*chosen.record.headers, *RESULT_COLUMNS)
        write_table(out, names, row_values(chosen.rows(line=line, merchant=merchant, path=path), settings))
        console.info(_("All rows: {out}", out=out))
    if line is None and not merchant and not path and not with_url:
        if not common.json:
            console.print(_head(chosen, settings))
        show_run(console, chosen, as_json=common.json)
        folder = chosen.record.report or chosen.record.links
        if folder and not common.json:
            console.info(_("Run {id}: {folder}", id=chosen.id, folder=folder))
        return 0
    rows = chosen.rows(line=line, merchant=merchant, path=path)
    some = list(islice(rows, ROWS_SHOWN))
    if not some:
        text = _(
            "Run {id} has no such row; {--line} takes the line of the row in the list's file, {--merchant} a name or appid. Its "
            "merchants are: {names}."
        )
        raise UsageError(text.format(id=chosen.id, names=as_list(chosen.merchants_like(merchant), 5)))
    code = 0
    if with_url:
        code = _show_urls(console, chosen, some, settings, common)
    elif common.json:
        console.json({"run": chosen.id, "rows": [_row(record, settings, settings.lang) for record in some]})
    else:
        _print_rows(console, some, settings)
        _show_state(console, chosen, final=False)
    if next(rows, None) is not None:
        text = _("Only the first {rows_shown} are shown; results.csv of the report has all.")
        console.warn(text.format(rows_shown=ROWS_SHOWN))
    return code


def _show_urls(
    console: Console, run: Run, rows: list[RowRecord], settings: Settings, common: CommonOptions
) -> int:
    """Print a link for each row that stored a file; they are data, and for this screen alone."""
    with common.open_target(console, settings) as opened:
        console.release()
        until, links = run.row_urls(rows, opened)
    pairs = [(record.row, link) for record, link in zip(rows, links, strict=True) if link is not None]
    if common.json:
        console.json(
            {
                "run": run.id,
                "until": until.isoformat(),
                "rows": [
                    {"line": row.line, "env": row.env, "path": row.path}
                    | (
                        {"url": link.reveal()}
                        if isinstance(link, Secret)
                        else {"problem": link.of(settings.lang)}
                    )
                    for row, link in pairs
                ],
            }
        )
    for row, link in () if common.json else pairs:
        shown = link.reveal() if isinstance(link, Secret) else link.of(console.lang)
        console.print(f"{sanitize(row.env)}  {sanitize(row.path)}\n  {sanitize(shown)}")
    if not pairs:
        console.warn(_("None of these rows stored a file."))
    elif opened.api_base != settings.api_base:
        console.warn(
            _(
                "The embedded simulator has ended, and its links with it{tcb-ops simulate:: use `tcb-ops simulate`}."
            )
        )
    else:
        console.info(
            _(
                "The links end at {time}. Whoever has one can open its file: look, and do not keep it.",
                time=f"{until:%Y-%m-%d %H:%M}",
            )
        )
    return int(any(isinstance(link, Text) for _row, link in pairs))


def _print_rows(console: Console, rows: list[RowRecord], settings: Settings) -> None:
    from tcb_ops.reports.formats.terminal import render_rows

    if len(rows) > 1:
        for part in render_rows(rows, console.lang):
            console.print(part)
        return
    for name, value in _row(rows[0], settings, console.lang).items():
        if value not in {None, ""}:
            console.print(f"{name:>16}  {value}")


def _open(run: str, kind: str | None, settings: Settings, common: CommonOptions) -> Run:
    """Open a run, narrowed by `--where`. Raises UsageError if it has no rows of those merchants."""
    from tcb_ops import api

    return _selected(api.open_run(run, kind=kind, settings=settings), settings, common)


def _selected(run: Run, settings: Settings, common: CommonOptions) -> Run:
    """Narrow a run by `--where`. Raises UsageError if it has no rows of those merchants."""
    if (matching := common.matching(settings)) is None:
        return run
    narrowed = run.of_merchants(matching)
    if not narrowed.outcomes:
        names = as_list(run.merchants_like(""))
        text = _("Run {id} has no rows of the merchants selected by {--where}. Its merchants are: {names}.")
        raise UsageError(text.format(id=run.id, names=names))
    return narrowed


@click.command(cls=Command, usual="out kind target where json")
@click.argument("run", default="latest")
@table_option("Write all lines of errcodes.csv, with the texts for merchants.")
@kind_option
@reader_options
def errcodes(run: str, out: Path | None, kind: str | None, *, common: CommonOptions) -> int:
    """Tabulate a run's errcodes, with what to do.

    By merchant and environment, with a text for the merchant where it must act; `--json` gives the numbers, and each text.
    """
    from tcb_ops.engine.next_commands import of_run
    from tcb_ops.reports.explanations import named

    settings, console = common.start()
    chosen = _open(run, kind, settings, common)
    overview, record = chosen.overview(), chosen.record
    if out is not None:
        from tcb_ops.reports.formats.csv import errcode_table
        from tcb_ops.table_files import write_table

        write_table(out, *errcode_table(overview.causes, console.lang, texts=True))
        console.info(_("All lines: {out}", out=out))
    if common.json:
        summary = overview.to_json()
        of_codes = {key: summary[key] for key in ("run", "errcodes", "store_codes") if key in summary}
        texts = {"reasons": overview.reasons(), "messages": overview.messages(console.lang)}
        console.json(of_codes | texts)
        return 0
    bad = overview.not_succeeded
    head = _(
        "Run {id} · {kind} · {list_name}", id=named(record), kind=record.kind, list_name=record.list_name
    )
    if not bad:
        console.print(_("{head} · nothing is wrong", head=head))
        return 0
    rows = row_count(overview.total)
    console.info(_("{head} · {bad:,} of {rows} did not succeed", head=head, bad=bad, rows=rows))
    show_causes(console, chosen, overview, texts=True)
    if out is None and hooks(WorkbookHooks) and len(overview.messages(console.lang)) > 1:
        words = of_run(settings, record, "errcodes", "--out", "texts.xlsx")
        console.suggest(_("report.xlsx has the text for each merchant. To write them alone:"), words)
    return 0


@click.command(cls=Command, usual="out final into split-by kind target where")
@click.argument("run", default="latest")
@click.option(
    "--out",
    metavar="DIR",
    help="The report folder. [default: reports/RUN]",
)
@own_option("--final", is_flag=True, help="Merge the run with its retries: each row's last state.")
@own_option(
    "--into",
    needs=WorkbookHooks,
    metavar="ORIGINAL.xlsx",
    help="Write how rows ended into new columns, in a copy of the list's own workbook (--out, or beside it).",
)
@own_option(
    "--split-by",
    needs=WorkbookHooks,
    default="",
    metavar="COLUMN",
    help="With --into: a workbook per value of this column, with its rows only.",
)
@own_option(
    "--urls",
    needs=WorkbookHooks,
    hidden=hooks(StoredHooks) is None,
    is_flag=True,
    help="With --into: a column of links at which anyone can look at the files, for two hours.",
)
@pdf_option
@own_option(
    "--with-data",
    is_flag=True,
    help="Put results.csv and manifest.json into report.html, so that it can be sent alone.",
)
@own_option(
    "--parquet",
    needs=ArrowHooks,
    metavar="FILE",
    help="Also write every row to a Parquet file (needs pyarrow).",
)
@kind_option
@reader_options
def report(
    run: str,
    out: str | None,
    final: bool,
    into: str | None,
    split_by: str,
    urls: bool,
    parquet: str | None,
    kind: str | None,
    *,
    pdf: bool,
    with_data: bool,
    common: CommonOptions,
) -> int:
    """Write a run's report folder.

    results.csv, failed.csv, errcodes.csv, report.html, report.xlsx and manifest.json, with --where of the matching
    merchants' rows only.
    """
    from tcb_ops import api

    _check_into(into, split_by, common, urls=urls)
    settings, console = common.start()
    with common.open_target(console, settings) if urls else nullcontext(settings) as settings:
        chosen_run = api.open_run(run, kind=kind, settings=settings)
        record = chosen_run.record
        console.info(
            _("{kind} {id} ({list_name})", kind=record.kind, id=record.id, list_name=record.list_name)
        )
        final = final or bool(record.retries)
        if final:
            chosen_run = chosen_run.final()
        chosen_run = _selected(chosen_run, settings, common)
        _show_state(console, chosen_run, final=final)
        as_of = datetime.now(settings.zone).isoformat(" ", "seconds")

        def show(written: Path) -> None:
            if chosen_run.record.finished_at is None:
                text = _(
                    "Run {id} is unfinished: this shows it as of {as_of}. Write it again when the run has ended."
                )
                console.warn(text.format(id=chosen_run.id, as_of=as_of))
            if common.json:
                console.json(chosen_run.summary() | ({"into": str(written)} if into is not None else {}))
            else:
                console.print(str(written))

        if parquet is not None:
            chosen_run.to_parquet(parquet)
        if into is not None:
            if record.parent and not final:
                console.info(
                    _("This is a retry: {--final} writes all rows of {run} instead.", run=record.parent)
                )
            show(chosen_run.write_into(into, out, split_by=split_by, urls=urls, warn=console.warn))
            return 0
        name = f"{chosen_run.id}{'-final' * final}{'-selected' if common.where else ''}"
        folder = Path(out) if out else settings.reports / name
        show(chosen_run.export(folder, pdf=pdf, with_data=with_data))
        return 0


def _check_into(into: str | None, split_by: str, common: CommonOptions, *, urls: bool) -> None:
    """Refuse what does not fit together: a copy of the workbook has all rows, and its options need it. Raises UsageError."""
    if into is not None:
        text = _(
            "{--into} writes the whole list: omit {--where}. {--split-by} COLUMN writes a workbook per merchant."
        )
        common.refuse_where(text)
    elif split_by:
        raise UsageError(_("{--split-by} splits the workbook given with {--into}: give both."))
    elif urls:
        raise UsageError(_("{--urls} adds a column to the workbook given with {--into}: give both."))


def _show_state(console: Console, run: Run, *, final: bool) -> None:
    """Print the counts of a run with its retries, and which later runs changed its files."""
    from tcb_ops.reports.explanations import change_lines, counts_line, named

    if final:
        console.info(_("Run {id}: {counts}", id=named(run.record), counts=counts_line(run.outcomes)))
    if changes := run.changed_by():
        for line in change_lines(changes, run.settings.zone):
            console.warn(line)


@click.command("open", cls=Command, usual="print kind target")
@click.argument("run", default="latest")
@click.option("--print", "prints", is_flag=True, help="Print the path of the page; open nothing.")
@kind_option
@settings_options("target", "ledger")
def open_(run: str, kind: str | None, *, prints: bool, common: CommonOptions) -> int:
    """Open a run's report in the browser.

    RUN may be a report's folder.
    """
    import webbrowser

    from tcb_ops import api
    from tcb_ops.engine.next_commands import of_run, quoted
    from tcb_ops.reports.explanations import named
    from tcb_ops.reports.export import PAGE

    settings, console = common.start()
    chosen = api.open_run(run, kind=kind, settings=settings)
    record = chosen.record
    console.info(
        _("{kind} {id} ({list_name})", kind=record.kind, id=named(record), list_name=record.list_name)
    )
    folders = [Path(run), Path(record.report or run), settings.reports / record.id]
    if record.retries:  # no earlier report has their rows
        folders = [chosen.report()]
    page = next((folder / PAGE for folder in folders if os.access(folder / PAGE, os.R_OK)), None)
    if page is None:
        text = _("Run {id} has no report to open. To write it:\n{command}")
        raise UsageError(text.format(id=record.id, command=quoted(of_run(settings, record, "report"))))
    if prints or not webbrowser.open(page.absolute().as_uri()):
        console.print(str(page.absolute()))
    return 0


def _head(run: Run, settings: Settings) -> Text:
    from tcb_ops.engine.stop_errors import stop_text
    from tcb_ops.reports.explanations import named

    record = run.record
    begun = datetime.fromtimestamp(record.created_at, settings.zone).isoformat(" ", "seconds")
    state = pgettext("state", "finished") if record.finished_at is not None else _("unfinished")
    stopped_text, parent_text = NOTHING, NOTHING
    if record.parent:
        parent_text = _(", a retry of {parent}", parent=record.parent)
    if record.stopped is not None and not record.has_findings:  # which say it
        stopped_text = _(" ({stopped})", stopped=stop_text(record.stopped))
    return _(
        "Run {id}{of} · {kind} to {target} · {list_name}, {rows} · started {begun} by {operator}@{host} · "
        "{state}{why}",
        id=named(record),
        of=parent_text,
        kind=record.kind,
        target=target_name(record.target),
        list_name=record.list_name,
        rows=row_count(record.rows),
        begun=begun,
        operator=record.operator,
        host=record.host,
        state=state,
        why=stopped_text,
    )


def _row(record: RowRecord, settings: Settings, lang: Lang) -> dict[str, Any]:
    from tcb_ops.reports.formats.csv import RESULT_COLUMNS, TIMES, row_values

    (cells,) = row_values([record], replace(settings, lang=lang))
    values = dict(zip(RESULT_COLUMNS, cells[len(record.row.cells) :], strict=True))
    shown = {"path": record.row.path, "file": record.row.file} | values
    shown |= {name: None for name in TIMES if not values[name]}
    return {name: masked(value) if isinstance(value, str) else value for name, value in shown.items()}


@click.command(cls=Command, usual="stale target where json note")
@own_option(
    "--stale",
    needs=AuditHooks,
    metavar="TIME",
    help="List nothing: exit code 1 if no audit of the target has finished within this time (e.g. 26h).",
)
@settings_options("target", "merchants", "ledger", "where", "json", "note")
def runs(stale: str | None, *, common: CommonOptions) -> int:
    """List the runs, the newest first.

    --note TEXT: only runs whose note contains it. --target: only runs of that target. --where: only runs with rows of
    matching merchants, and only those rows are counted.
    """
    settings, console = common.start()
    if stale is not None:
        code: int = needed(AuditHooks).watch(console, settings, common, stale)
        return code
    if common.ledger and "://" not in settings.ledger and not Path(settings.ledger).exists():
        from tcb_ops import api

        api.open_run(settings=settings)  # raises the error of a ledger that does not exist: it may be a typo
    return _list_runs(console, settings, common)


def _list_runs(console: Console, settings: Settings, common: CommonOptions) -> int:
    from tcb_ops import api

    matching = common.matching(settings)
    damaged: list[LedgerDamagedError] = []
    of_target = settings.run_target if common.target or common.api_base else None
    runs = [
        run
        for run in api.runs(settings=settings, damaged=damaged)
        if common.note in run.record.note and of_target in {None, run.record.target}
    ]
    sound: list[tuple[Run, dict[Outcome, int], dict[str, Any]]] = []
    for each in runs:
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
    elif runs or any((common.where, common.target, common.api_base, common.note)):
        console.info(_("No run in {ledger_name} matches.", ledger_name=settings.ledger_name))
    else:
        text = _("No runs in {ledger_name} yet.", ledger_name=settings.ledger_name)
        console.info(text if settings.origin.file is not None else as_sentences((text, NO_SETTINGS_FILE)))
    for damage in damaged:
        console.warn(damage.text)
    return damaged[0].exit_code if damaged else 0


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
