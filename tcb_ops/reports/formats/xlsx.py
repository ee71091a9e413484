"""report.xlsx: the report for Excel or WPS. Limited in size, so that it opens quickly after a large run.

Every text is a text cell: nothing runs or becomes a link or a number, and it reads back unchanged.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.i18n import Joined, Lang, Text, _, pgettext, verbatim
from tcb_ops.kinds import row_count
from tcb_ops.model import Outcome, is_simulated
from tcb_ops.reports.explanations import MARK, change_lines
from tcb_ops.reports.formats.csv import RESULT_COLUMNS, Clock, errcode_table, result_batches
from tcb_ops.reports.run_views import RunReader
from tcb_ops.reports.summary import RunSummary
from tcb_ops.runs.records import RunRecord
from tcb_ops.secrets import masked, redact
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

MOST_ROWS = 2_000
"""Maximum rows of a sheet, for which nobody has to wait. results.csv and failed.csv have every row."""
LONGEST = 32_767
"""Characters that a cell can hold (ECMA-376 part 1, 18.3.1.40; counted in UTF-16 units)."""
CUT = "…(cut 已截断)"
NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
"""Characters that are invalid in XML."""
_MEASURED = 200
"""Rows that determine a column's width."""
_NARROW, _WIDE, _WIDEST = 9, 44, 96

_SHEETS = {
    "summary": _("summary"),
    "errcodes": _("errcodes"),
    "bad": _("did not succeed"),
    "rows": _("all rows"),
}


def write_workbook(
    reader: RunReader, summary: RunSummary, file: Path, settings: Settings, *, now: float
) -> None:
    """Write report.xlsx: summary, errcodes, the rows that did not succeed, all rows.

    `now` is Unix seconds. Raises OSError; `file` must not exist yet.
    """
    from xlsxwriter import Workbook

    title = _title(summary.run).of(settings.lang)
    packed = BytesIO()  # after an error, XlsxWriter would write to a file again and print a trace
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".xlsx-") as scratch:
        book = Workbook(packed, {"constant_memory": True, "tmpdir": scratch})
        moment = datetime.fromtimestamp(now, settings.zone)
        book.set_properties({"title": f"{title} {summary.run.id}", "created": moment.replace(tzinfo=None)})
        try:
            _Report(book, reader, summary, settings, now).write(title)
            book.close()
        finally:
            for sheet in book.worksheets():  # they would stay open after a full disk
                with suppress(OSError):
                    sheet.row_data_fh.close()
    with file.open("xb") as stream:
        stream.write(packed.getbuffer())


class _Report:
    """Writer of the sheets, one after the other."""

    def __init__(
        self, book: Any, reader: RunReader, summary: RunSummary, settings: Settings, now: float
    ) -> None:
        self._book, self._reader, self._settings = book, reader, settings
        self._summary, self._run = summary, summary.run
        self._lang: Lang = settings.lang
        self._now = now
        self._head = book.add_format(
            {"bold": True, "bg_color": "#E8EEF4", "bottom": 1, "border_color": "#8A9BAE", "valign": "vcenter"}
        )
        self._plain = book.add_format({"valign": "top"})
        self._wrapped = book.add_format({"valign": "top", "text_wrap": True})
        self._font = book.add_format()
        self._note = book.add_format({"italic": True, "font_color": "#555555"})

    def write(self, title: str) -> None:
        self._write_summary(title)
        heads, lines = errcode_table(self._summary.causes, self._lang)
        self._table("errcodes", heads, lines, "errcodes.csv", wrapped={4, 5}, total=len(self._summary.causes))
        names = (*self._run.headers, *RESULT_COLUMNS)
        total, bad = self._summary.total, self._summary.not_succeeded
        # Queried only if there are any: in a large run without failures, the query would read every row.
        not_good = self._rows(frozenset(Outcome.all()) - Outcome.successes()) if bad else iter(())
        self._table("bad", names, not_good, "failed.csv", total=bad)
        self._table("rows", names, self._rows(), "results.csv", total=total)

    def _write_summary(self, title: str) -> None:
        counts, total, run, lang = self._summary.counts, self._summary.total, self._run, self._lang
        sheet = self._sheet("summary")
        large = self._book.add_format({"bold": True, "font_size": 16})
        share = self._book.add_format({"num_format": "0.0%", "valign": "top"})
        number = self._book.add_format({"num_format": "#,##0", "valign": "top", "align": "left"})
        sheet.set_column(0, 0, 26)
        sheet.set_column(1, 1, 70)
        sheet.set_column(2, 2, 12)
        self._put(sheet, 0, 0, title, large)
        self._put(sheet, 1, 0, run.kind.verdict(counts, finished=run.finished_at is not None).of(lang))
        for column, head in enumerate((_("outcome"), _("rows"), _("share"))):
            self._put(sheet, 3, column, head.of(lang), self._head)
        for line, (outcome, rows) in enumerate(counts.items(), 4):
            self._put(sheet, line, 0, outcome.label.of(lang), self._plain)
            self._put(sheet, line, 1, rows, number)
            self._put(sheet, line, 2, rows / total, share)
        line = 4 + len(counts)
        self._put(sheet, line, 0, pgettext("sum", "all rows").of(lang), self._head)
        self._put(sheet, line, 1, total, number)
        for line, (name, value) in enumerate(self._particulars(), line + 2):  # noqa: B020
            self._put(sheet, line, 0, name.of(lang), self._head)
            self._put(sheet, line, 1, redact(value), self._wrapped)

    def _particulars(self) -> Iterator[tuple[Text, str]]:
        run = self._run
        yield _("run"), run.id
        if run.retries:
            yield _("merged with its retries"), ", ".join(run.retries)
        if run.parent:
            yield _("retries run"), run.parent
        if run.environments:
            yield _("environments selected with --where"), f"{len(run.environments):,}"
        yield _("target"), run.target
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

    def _rows(self, outcomes: frozenset[Outcome] | None = None) -> Iterator[Sequence[Any]]:
        iso = Clock(self._settings.zone).iso
        for batch in result_batches(self._reader, self._run, self._lang, outcomes):
            for cells, (*values, started, ended) in zip(
                batch.cells, zip(*batch.results, strict=True), strict=True
            ):
                yield (*cells, *values, iso(started), iso(ended))

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
        """Write a sheet with a frozen head and a filter; a line above them reports what is left out."""
        from rich.cells import cell_len

        sheet = self._sheet(name)
        top = 0
        if total > MOST_ROWS:
            left_out = _(
                "The first {most_rows:,} of {rows}. All of them are in {elsewhere}.",
                most_rows=MOST_ROWS,
                rows=row_count(total),
                elsewhere=elsewhere,
            )
            self._put(sheet, 0, 0, left_out.of(self._lang), self._note)
            top = 1
        for column, head in enumerate(heads):
            self._put(sheet, top, column, head, self._head)
        widths = [cell_len(head[:_WIDEST]) + 4 for head in heads]  # room for the filter's button
        formats = [self._wrapped if column in wrapped else self._plain for column in range(len(heads))]
        line = top
        for line, values in enumerate(islice(lines, MOST_ROWS), top + 1):
            for column, value in enumerate(values):
                if value is not None and value != "":
                    self._put(sheet, line, column, value, formats[column])
            if line - top <= _MEASURED:
                for column, value in enumerate(values):
                    if value is not None:
                        widths[column] = max(widths[column], cell_len(str(value)[:_WIDEST]) + 1)
        for column, width in enumerate(widths):
            most = _WIDE if column not in wrapped else _WIDE + 16
            sheet.set_column(column, column, min(max(width, _NARROW), most))
        sheet.autofilter(top, 0, line, len(heads) - 1)
        sheet.freeze_panes(top + 1, 0)
        sheet.ignore_errors(
            {"number_stored_as_text": f"A1:XFD{line + 1}"}
        )  # no warning marks at texts such as 007

    def _sheet(self, name: str) -> Worksheet:
        sheet = self._book.add_worksheet(_SHEETS[name].of(self._lang))
        sheet.set_landscape()
        sheet.fit_to_pages(1, 0)
        return sheet

    def _put(
        self, sheet: Worksheet, line: int, column: int, value: str | float, style: Format | None = None
    ) -> None:
        """Write a number as a number, and a text as exactly that text, whatever it looks like."""
        if not isinstance(value, str):
            sheet.write_number(line, column, value, style)
            return
        text = masked(value)
        if len(text) * 2 > LONGEST:
            text = _fitting(text)
        write_text(sheet, line, column, text, style, self._font)

    def _moment(self, moment: float) -> str:
        return f"{datetime.fromtimestamp(moment, self._settings.zone).isoformat(' ', 'seconds')} {self._settings.timezone}"


def _title(run: RunRecord) -> Text:
    kind = run.kind.report_title
    return Joined((MARK, kind), verbatim(" · ")) if is_simulated(run.target) else kind


def _fitting(text: str) -> str:
    """Return the text; one too long for a cell is cut and marked."""
    units = NOT_XML.sub("\ufffd", text).encode("utf-16-le")
    if len(units) <= LONGEST * 2:
        return text
    return units[: (LONGEST - len(CUT)) * 2].decode("utf-16-le", "ignore") + CUT


def write_text(
    sheet: Worksheet, line: int, column: int, text: str, style: Format | None, plain: Format
) -> None:
    """Write a text literally. `plain` is a format without properties."""
    text = text if text.isascii() else NOT_XML.sub("\ufffd", text)
    if text.startswith("<r>") and text.endswith("</r>"):
        # XlsxWriter would interpret this text as its rich string markup, unless it is split into two runs.
        sheet.write_rich_string(line, column, plain, "<", plain, text[1:], style or plain)
    else:
        sheet.write_string(line, column, text, style)
