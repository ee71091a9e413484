"""Cells of a workbook that are not text, and what is wrong with them in a list."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from tcb_ops.details import detail
from tcb_ops.features.workbooks import CellCode
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, _
from tcb_ops.lists.table import NonTextCell


class CellKind(StrEnum):
    """The kind of a cell that is not text.

    None is allowed in env, path and file: a number has lost leading zeros and digits beyond the fifteenth, a date may
    have been typed as `1-2`, and a formula's value may change when the workbook is opened.
    """

    NUMBER = "number"
    DATE = "date"
    BOOLEAN = "boolean"
    ERROR = "error"
    """#N/A and similar."""
    FORMULA = "formula"
    NOT_COMPUTED = "not_computed"
    """A formula without a stored value: a program wrote it, and no spreadsheet has opened it since."""
    MERGED = "merged"
    """Covered by a merged cell, which has the value."""


class SheetCell(NonTextCell):
    """A cell of a sheet that is not text."""

    __slots__ = ("kind", "ref")

    kind: CellKind
    ref: str
    """The cell's reference, such as B7; for MERGED that of the cell with the value."""

    def __new__(cls, text: str, kind: CellKind, ref: str) -> Self:
        """Create the text with its kind and reference."""
        self = super().__new__(cls, text)
        self.kind, self.ref = kind, ref
        return self

    @property
    def is_clear(self) -> bool:
        """Whether the displayed text is the value."""
        return self.kind in {CellKind.NUMBER, CellKind.DATE, CellKind.BOOLEAN}

    @property
    def is_computed(self) -> bool:
        """Whether the file has the cell's value."""
        return self.kind is not CellKind.NOT_COMPUTED

    @property
    def problem(self) -> tuple[Text, Text]:
        """The (message, fix) of the cell in a text-only column."""
        code, fix = _PROBLEMS[self.kind]
        return detail(code, ref=self.ref, value=shown(self, 40)), fix


_AS_TEXT = _("format the column as Text, then type the value again (or begin it with ')")
_PROBLEMS = {
    CellKind.NUMBER: (CellCode.CELL_NUMBER, _AS_TEXT),
    CellKind.DATE: (CellCode.CELL_DATE, _AS_TEXT),
    CellKind.BOOLEAN: (CellCode.CELL_BOOLEAN, _AS_TEXT),
    CellKind.ERROR: (CellCode.CELL_ERROR, _("write the value itself")),
    CellKind.FORMULA: (CellCode.CELL_FORMULA, _("copy the column and paste it over itself as values")),
    CellKind.NOT_COMPUTED: (
        CellCode.CELL_NOT_COMPUTED,
        _("open the workbook, copy the column and paste it over itself as values"),
    ),
    CellKind.MERGED: (CellCode.CELL_MERGED, _("unmerge the cells and fill in every row")),
}
