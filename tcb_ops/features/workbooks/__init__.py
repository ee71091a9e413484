"""Workbooks: lists in them, report.xlsx, results or problems in a colleague's own one, results in one per person. And rows as Parquet and Arrow."""

from enum import unique

from tcb_ops.details import DetailCodes
from tcb_ops.i18n import _
from tcb_ops.kinds import Feature


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


FEATURE = Feature(
    provides={
        "Run.__arrow_c_stream__": "tcb_ops.features.workbooks.parquet:arrow_stream",
        "Run.to_parquet": "tcb_ops.features.workbooks.parquet:write_parquet",
        "arrow_texts": "tcb_ops.features.workbooks.parquet:arrow_texts",
        "read_workbook": "tcb_ops.features.workbooks.book:read_workbook",
        "mark_workbook": "tcb_ops.features.workbooks.annotate:mark_workbook",
        "table.xlsx": "tcb_ops.features.workbooks.tables:write_book",
        "report.xlsx": "tcb_ops.features.workbooks.report:write_workbook",
        "split_workbook": "tcb_ops.features.workbooks.annotate:split_workbook",
        "write_into": "tcb_ops.features.workbooks.annotate:write_into",
    },
)
