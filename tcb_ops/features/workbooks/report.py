"""report.xlsx: the report for Excel or WPS. Limited in size, so that it opens quickly after a large run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.features.workbooks.tables import Tables, new_workbook
from tcb_ops.i18n import Lang, Text, _, pgettext
from tcb_ops.kinds import row_count
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RowRecord
from tcb_ops.model import Outcome, target_name
from tcb_ops.reports.cards import heads_of
from tcb_ops.reports.explanations import MARK, change_lines
from tcb_ops.reports.formats.csv import RESULT_COLUMNS, errcode_table, row_values
from tcb_ops.reports.rendering import outcome_class
from tcb_ops.reports.summary import RunSummary
from tcb_ops.secrets import redact
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from xlsxwriter.worksheet import Worksheet

MOST_ROWS = 1_000
"""Maximum rows of a sheet, for which nobody has to wait. results.csv and failed.csv have every row."""

_CHART_ROWS = 12
"""Rows of the sheet that the chart is high."""
_FILLS = {"good": "#4A9A70", "bad": "#C8503A", "failed": "#7F3B5C", "skip": "#D0A04A", "pending": "#A9B3AD"}
"""Colours by the class of an outcome, as report.css has them."""

_SHEETS = {
    "summary": _("summary"),
    "errcodes": _("errcodes"),
    "bad": _("did not succeed"),
    "rows": _("all rows"),
}


def write_workbook(
    reader: LedgerReader, summary: RunSummary, file: Path, settings: Settings, now: float
) -> None:
    """Write report.xlsx: summary, errcodes, the rows that did not succeed, all rows.

    `now` is Unix seconds. Raises OSError; `file` must not exist yet.
    """
    title = summary.run.kind.report_title.of(settings.lang)
    title = f"{MARK} · {title}" if summary.run.simulated else title
    with new_workbook(file, in_memory=True) as book:
        moment = datetime.fromtimestamp(now, settings.zone)
        book.set_properties({"title": f"{title} {summary.run.id}", "created": moment.replace(tzinfo=None)})
        _Report(book, reader, summary, settings, now).write(title)


class _Report:
    def __init__(
        self, book: Any, reader: LedgerReader, summary: RunSummary, settings: Settings, now: float
    ) -> None:
        self._book, self._reader, self._settings = book, reader, settings
        self._summary, self._run = summary, summary.run
        self._lang: Lang = settings.lang
        self._now = now
        self._tables = Tables(book)
        self._head, self._plain = self._tables.head, self._tables.plain
        self._put = self._tables.put
        self._note = book.add_format({"italic": True, "font_color": "#555555"})

    def write(self, title: str) -> None:
        self._write_summary(title)
        causes, bad = self._summary.causes, self._summary.not_succeeded
        heads, lines = errcode_table(causes, self._lang, texts=True)
        heads = heads_of(heads, self._lang)
        wrapped = {4, 5, len(heads) - 1}
        self._table("errcodes", heads, lines, "errcodes.csv", wrapped=wrapped, total=len(causes))
        names = (*self._run.headers, *RESULT_COLUMNS)
        not_good: Iterator[RowRecord] = iter(())
        if bad:  # in a large run without failures, the query would read every row
            outcomes = frozenset(Outcome.all()) - Outcome.successes()
            not_good = self._reader.rows(self._run, outcomes=outcomes)
        self._table("bad", names, row_values(not_good, self._settings), "failed.csv", total=bad)
        rows = row_values(self._reader.rows(self._run), self._settings)
        self._table("rows", names, rows, "results.csv", total=self._summary.total)

    def _write_summary(self, title: str) -> None:
        counts, total, lang = self._summary.counts, self._summary.total, self._lang
        sheet = self._sheet("summary")
        large = self._book.add_format({"bold": True, "font_size": 16})
        share = self._book.add_format({"num_format": "0.0%", "valign": "top"})
        number = self._book.add_format({"num_format": "#,##0", "valign": "top"})
        sheet.set_column(0, 0, 26)
        sheet.set_column(1, 2, 12)
        self._put(sheet, 0, 0, title, large)
        self._put(sheet, 1, 0, self._summary.verdict.of(lang))
        for column, head in enumerate((_("outcome"), _("rows"), _("share"))):
            self._put(sheet, 3, column, head.of(lang), self._tables.number_head if column else self._head)
        for line, (outcome, rows) in enumerate(counts.items(), 4):
            self._put(sheet, line, 0, outcome.label.of(lang), self._plain)
            self._put(sheet, line, 1, rows, number)
            self._put(sheet, line, 2, rows / total, share)
        line = 4 + len(counts)
        self._put(sheet, line, 0, pgettext("sum", "all rows").of(lang), self._head)
        self._put(sheet, line, 1, total, number)
        if total:
            self._draw_outcomes(sheet)
        for line, (name, value) in enumerate(self._particulars(), max(line + 2, 4 + _CHART_ROWS)):  # noqa: B020
            self._put(sheet, line, 0, name.of(lang), self._head)
            self._put(sheet, line, 1, redact(value), self._plain)

    def _draw_outcomes(self, sheet: Worksheet) -> None:
        counts, name = self._summary.counts, sheet.get_name()
        chart = self._book.add_chart({"type": "bar"})
        chart.add_series(
            {
                "categories": [name, 4, 0, 3 + len(counts), 0],
                "values": [name, 4, 1, 3 + len(counts), 1],
                "points": [{"fill": {"color": _FILLS[outcome_class(outcome)]}} for outcome in counts],
                "data_labels": {"value": True},
                "gap": 40,
            }
        )
        title = _("How the rows ended").of(self._lang)
        chart.set_title({"name": title, "name_font": {"size": 11}})
        chart.set_legend({"none": True})
        chart.set_x_axis({"visible": False, "major_gridlines": {"visible": False}})
        chart.set_y_axis({"reverse": True, "line": {"none": True}, "major_tick_mark": "none"})
        chart.set_size({"width": 560, "height": 20 * _CHART_ROWS})
        sheet.insert_chart(3, 4, chart, {"description": title})

    def _particulars(self) -> Iterator[tuple[Text, str]]:
        run = self._run
        yield _("run"), run.id
        if run.retries:
            yield _("merged with its retries"), ", ".join(run.retries)
        if run.parent:
            yield _("retries run"), run.parent
        if run.environments:
            yield _("environments selected with {--where}"), f"{len(run.environments):,}"
        yield _("target"), target_name(run.target).of(self._lang)
        yield _("list"), run.list_name
        yield _("SHA-256 of the list"), run.list_sha256
        yield _("operator"), f"{run.operator}@{run.host}"
        if run.note:
            yield _("note"), run.note
        yield _("started"), self._moment(run.created_at)
        done = run.finished_at
        yield _("finished"), _("not finished").of(self._lang) if done is None else self._moment(done)
        for line in change_lines(self._summary.changed_by, self._settings.zone):
            yield _("since then"), line.of(self._lang)
        yield _("as of"), self._moment(self._now)

    def _table(
        self,
        name: str,
        heads: Sequence[str],
        lines: Iterable[Sequence[Any]],
        elsewhere: str,
        *,
        wrapped: frozenset[int] | set[int] = frozenset(),
        total: int = 0,
    ) -> None:
        """Write a sheet; a line above its head reports what is left out."""
        sheet = self._sheet(name)
        top = 0
        if total > MOST_ROWS:
            left_out = _("The first {most_rows:,} of {rows}. All of them are in {elsewhere}.")
            left_out = left_out.format(most_rows=MOST_ROWS, rows=row_count(total), elsewhere=elsewhere)
            self._put(sheet, 0, 0, left_out.of(self._lang), self._note)
            top = 1
        self._tables.write(sheet, heads, islice(lines, MOST_ROWS), top=top, wrapped=wrapped)

    def _sheet(self, name: str) -> Worksheet:
        sheet = self._book.add_worksheet(_SHEETS[name].of(self._lang))
        sheet.set_landscape()
        sheet.fit_to_pages(1, 0)
        return sheet

    def _moment(self, moment: float) -> str:
        return f"{datetime.fromtimestamp(moment, self._settings.zone).isoformat(' ', 'seconds')} {self._settings.timezone}"
