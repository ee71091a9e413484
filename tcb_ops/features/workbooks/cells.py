"""Cells of a workbook that are not text, and what is wrong with them in a list."""

from __future__ import annotations

from typing import Self

from tcb_ops.details import detail
from tcb_ops.features.workbooks import CellCode
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, _
from tcb_ops.lists.table import NonTextCell


class SheetCell(NonTextCell):
    """A cell of a sheet that is not text."""

    __slots__ = ("kind", "ref")

    kind: CellCode
    ref: str
    """The cell's reference, such as B7; for CELL_MERGED that of the cell with the value."""

    def __new__(cls, text: str, kind: CellCode, ref: str) -> Self:
        """Create the text with its kind and reference."""
        self = super().__new__(cls, text)
        self.kind, self.ref = kind, ref
        return self

    @property
    def is_clear(self) -> bool:
        """Whether the displayed text is the value."""
        return self.kind in {CellCode.CELL_NUMBER, CellCode.CELL_DATE, CellCode.CELL_BOOLEAN}

    @property
    def is_computed(self) -> bool:
        """Whether the file has the cell's value."""
        return self.kind is not CellCode.CELL_NOT_COMPUTED

    @property
    def problem(self) -> tuple[Text, Text]:
        """The (message, fix) of the cell in a text-only column."""
        return detail(self.kind, ref=self.ref, value=shown(self, 40)), _FIXES.get(self.kind, _AS_TEXT)


_AS_TEXT = _("format the column as Text, then type the value again (or begin it with ')")
_FIXES = {
    CellCode.CELL_ERROR: _("write the value itself"),
    CellCode.CELL_FORMULA: _("copy the column and paste it over itself as values"),
    CellCode.CELL_NOT_COMPUTED: _("open the workbook, copy the column and paste it over itself as values"),
    CellCode.CELL_MERGED: _("unmerge the cells and fill in every row"),
}
