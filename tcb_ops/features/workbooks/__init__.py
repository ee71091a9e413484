"""Workbooks: lists in them, report.xlsx, results or problems in a colleague's own one, results in one per person. And rows as Parquet and Arrow."""

from enum import unique
from typing import TYPE_CHECKING

from tcb_ops.details import DetailCodes
from tcb_ops.hooks import ArrowHooks, Feature, WorkbookHooks, lazily
from tcb_ops.i18n import _


@unique
class CellCode(DetailCodes):
    """The codes of cells that are not text."""

    CELL_NUMBER = _("cell {ref} is a number ({value}), not text")
    CELL_DATE = _("cell {ref} is a date or time ({value}), not text")
    CELL_BOOLEAN = _("cell {ref} is a Boolean ({value}), not text")
    CELL_ERROR = _("cell {ref} contains the error {value}")
    CELL_FORMULA = _("cell {ref} contains a formula (it shows '{value}')")
    CELL_NOT_COMPUTED = _("cell {ref} contains a formula whose value is not in the file")
    """A program wrote it, and no spreadsheet has opened it since."""
    CELL_MERGED = _("the cell is merged with {ref}, so it has no value of its own")


if TYPE_CHECKING:
    from tcb_ops.features.workbooks import annotate as _annotate
    from tcb_ops.features.workbooks import book as _book
    from tcb_ops.features.workbooks import parquet as _parquet
    from tcb_ops.features.workbooks import report as _report
    from tcb_ops.features.workbooks import tables as _tables
else:
    _annotate, _book, _parquet, _report, _tables = lazily(
        __name__, "annotate", "book", "parquet", "report", "tables"
    )

FEATURE = Feature(
    hooks=[
        ArrowHooks(stream=_parquet.arrow_stream, texts=_parquet.arrow_texts, write=_parquet.write_parquet),
        WorkbookHooks(
            mark=_annotate.mark_workbook,
            read=_book.read_workbook,
            split=_annotate.split_workbook,
            write_into=_annotate.write_into,
            write_report=_report.write_workbook,
            write_table=_tables.write_book,
        ),
    ],
)
