"""Tables in workbooks: every text is a text cell, whatever it looks like, in a column of texts.

So it is no formula, link or number, and it reads back unchanged.
"""

from __future__ import annotations

import re
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.errors import UsageError
from tcb_ops.i18n import _
from tcb_ops.secrets import masked

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

LONGEST = 32_767
"""Characters that a cell can hold (ECMA-376 part 1, 18.3.1.40; counted in UTF-16 units)."""
CUT = "…(cut 已截断)"
NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
"""Characters that are invalid in XML."""
_LAST_ROW = 1_048_575
_MEASURED = 200
"""Rows that determine a column's width."""
_NARROW, _WIDE, _WIDEST = 9, 44, 96


def write_book(
    file: Path, dest: Path, heads: Sequence[str], lines: Iterable[Sequence[Any]], mask: Callable[[str], str]
) -> None:
    """Write a workbook with one table; `dest`: the name that it will have. Raises UsageError if a sheet has too few rows."""
    with new_workbook(file) as book:
        rest = iter(lines)
        Tables(book, mask).write(book.add_worksheet(), heads, islice(rest, _LAST_ROW))
        if next(rest, None) is not None:
            raise UsageError(_("{dest}: a sheet has too few rows for this; write a .csv", dest=dest))


@contextmanager
def new_workbook(file: Path, *, in_memory: bool = False) -> Iterator[Any]:
    """Yield a workbook of XlsxWriter; it is in the file at the end. Raises OSError.

    `in_memory`: quicker for a few thousand rows; else their number does not matter, and they are written in order.
    """
    mode = "in_memory" if in_memory else "constant_memory"
    options = {mode: True, "default_date_format": "yyyy-mm-dd hh:mm"}
    from xlsxwriter import Workbook
    from xlsxwriter.exceptions import FileCreateError

    packed = BytesIO()  # after an error, XlsxWriter would write to a file again and print a trace
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".xlsx-") as scratch:
        book = Workbook(packed, {**options, "tmpdir": scratch})
        try:
            yield book
            book.close()
        except FileCreateError as error:  # in which XlsxWriter wraps the system's
            cause = error.args[0]
            traceback.clear_frames(cause.__traceback__)  # ends the ZIP archive in them while `packed` is open
            raise cause from None
        finally:
            for sheet in () if in_memory else book.worksheets():  # they would stay open after a full disk
                with suppress(OSError):
                    sheet.row_data_fh.close()
    file.write_bytes(packed.getbuffer())


class Tables:
    """Writes tables into the sheets of a workbook. `mask` is applied to each text."""

    def __init__(self, book: Any, mask: Callable[[str], str] = masked) -> None:
        self._mask = mask
        head = {
            "bold": True,
            "bg_color": "#E8EEF4",
            "bottom": 1,
            "border_color": "#8A9BAE",
            "valign": "vcenter",
        }
        self.head = book.add_format(head)
        self.number_head = book.add_format(head | {"align": "right"})
        self.plain = book.add_format({"valign": "top"})
        self._text = book.add_format({"valign": "top", "num_format": "@"})
        self._long_text = book.add_format({"valign": "top", "num_format": "@", "text_wrap": True})
        self._font = book.add_format()

    def write(
        self,
        sheet: Worksheet,
        heads: Sequence[str],
        lines: Iterable[Sequence[Any]],
        *,
        top: int = 0,
        wrapped: Collection[int] = (),
    ) -> None:
        """Write a table with a frozen head, a filter and fitting widths, from row `top` (0: the first)."""
        from rich.cells import cell_len

        rest = iter(lines)
        measured = list(islice(rest, _MEASURED))
        widths = [cell_len(str(head)[:_WIDEST]) + 4 for head in heads]  # room for the filter's button
        numbers = set[int]()
        for values in measured:
            for column, value in enumerate(values):
                shown = str("" if value is None else value)[:_WIDEST]
                widths[column] = max(widths[column], cell_len(shown) + 1)
                if not (value is None or isinstance(value, str)):
                    numbers.add(column)
        for column, head in enumerate(heads):
            self.put(sheet, top, column, head, self.number_head if column in numbers else self.head)
        texts = [self._long_text if column in wrapped else self._text for column in range(len(heads))]
        line = top
        for line, values in enumerate(chain(measured, rest), top + 1):
            for column, value in enumerate(values):
                if value is None or value == "":
                    continue
                style = texts[column] if isinstance(value, str) else self.plain
                # A time without a style gets that of the workbook.
                self.put(sheet, line, column, value, style if isinstance(value, str | int | float) else None)
        for column, width in enumerate(widths):
            most = _WIDE if column not in wrapped else _WIDE + 16
            style = None if column in numbers else texts[column]
            sheet.set_column(column, column, min(max(width, _NARROW), most), style)
        sheet.autofilter(top, 0, line, len(heads) - 1)
        sheet.freeze_panes(top + 1, 0)
        sheet.repeat_rows(top)  # on every printed page
        # No warning marks at texts such as 007.
        sheet.ignore_errors({"number_stored_as_text": f"A1:XFD{line + 1}"})

    def put(self, sheet: Worksheet, line: int, column: int, value: Any, style: Format | None = None) -> None:
        """Write a number or a time as such, and a text as exactly that text."""
        if not isinstance(value, str):
            sheet.write(line, column, value, style)
            return
        text = self._mask(value)
        text = text if text.isascii() else NOT_XML.sub("\ufffd", text)
        text = _fitting(text) if len(text) * 2 > LONGEST else text
        if text.startswith("<r>") and text.endswith("</r>"):
            # XlsxWriter would interpret this text as its rich string markup, unless it is split into two runs.
            font = self._font
            sheet.write_rich_string(line, column, font, "<", font, text[1:], style or font)
        else:
            sheet.write_string(line, column, text, style)


def _fitting(text: str) -> str:
    """Return the text; one too long for a cell is cut and marked."""
    units = text.encode("utf-16-le")
    if len(units) <= LONGEST * 2:
        return text
    return units[: (LONGEST - len(CUT)) * 2].decode("utf-16-le", "ignore") + CUT
