"""A workbook's cell that holds no text of its own: what it shows, what it is, and what to do about it.

A number has lost its leading zeros and its digits beyond the fifteenth before anybody reads it, a date is what
somebody's `1-2` became, and what a formula stands for may change with the next opening. In env, path and file that
would send a file to a place nobody wrote down.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Self

from tcb_ops.lists.cells import shown
from tcb_ops.model import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Kind", "NotText", "not_computed", "odd_problem"]


class Kind(StrEnum):
    """What a cell holds instead of text."""

    NUMBER = "number"
    DATE = "date"
    BOOLEAN = "boolean"
    ERROR = "error"
    """#N/A and its like."""
    FORMULA = "formula"
    NOT_COMPUTED = "not_computed"
    """A formula whose value the file does not hold: a program wrote it and no spreadsheet has opened it since."""
    MERGED = "merged"
    """Covered by a merged cell whose value stands elsewhere."""


class NotText(str):
    """A cell's text as a spreadsheet shows it, with what the cell really is."""

    __slots__ = ("kind", "ref")

    kind: Kind
    ref: str
    """The cell's name, such as B7; for MERGED the name of the cell that has the value."""

    def __new__(cls, text: str, kind: Kind, ref: str) -> Self:
        """Make one; a str takes its text here."""
        self = super().__new__(cls, text)
        self.kind, self.ref = kind, ref
        return self


def not_computed(cells: Iterable[str]) -> bool:
    """Whether a row that looks blank is not: it has a formula whose value nobody knows."""
    return any(isinstance(cell, NotText) and cell.kind is Kind.NOT_COMPUTED for cell in cells)


def odd_problem(cell: NotText) -> tuple[Text, Text]:
    """What is wrong with such a cell in a column that must be text, and how to mend it."""
    seen = shown(cell, 40)
    message, mend = _SENTENCES[cell.kind]
    return (
        Text(message.en.format(ref=cell.ref, seen=seen), message.zh.format(ref=cell.ref, seen=seen)),
        mend,
    )


_AS_TEXT = Text(
    "format the column as Text, then type the value again (or begin it with ')",
    "请把这一列设为“文本”格式后重新输入（或在开头加 '）",
)
_AS_VALUE = Text(
    "copy the column and paste it over itself as values", "请复制这一列，再用“选择性粘贴 → 数值”粘贴回原处"
)
_SENTENCES = {
    Kind.NUMBER: (
        Text("cell {ref} is a number ({seen}), not text", "单元格 {ref} 是数字（{seen}），不是文本"),
        _AS_TEXT,
    ),
    Kind.DATE: (
        Text(
            "cell {ref} is a date or time ({seen}), not text", "单元格 {ref} 是日期或时间（{seen}），不是文本"
        ),
        _AS_TEXT,
    ),
    Kind.BOOLEAN: (
        Text("cell {ref} is a truth value ({seen}), not text", "单元格 {ref} 是逻辑值（{seen}），不是文本"),
        _AS_TEXT,
    ),
    Kind.ERROR: (
        Text("cell {ref} holds the error {seen}", "单元格 {ref} 是错误值 {seen}"),
        Text("write the value itself", "请直接填写内容"),
    ),
    Kind.FORMULA: (
        Text("cell {ref} holds a formula (it shows '{seen}')", "单元格 {ref} 是公式（显示为“{seen}”）"),
        _AS_VALUE,
    ),
    Kind.NOT_COMPUTED: (
        Text(
            "cell {ref} holds a formula whose value is not in the file",
            "单元格 {ref} 是公式，文件里没有它的计算结果",
        ),
        Text(
            "open the workbook, copy the column and paste it over itself as values",
            "请打开工作簿，复制这一列，再用“选择性粘贴 → 数值”粘贴回原处",
        ),
    ),
    Kind.MERGED: (
        Text(
            "the cell is merged with {ref}, so it has no value of its own",
            "这个单元格与 {ref} 合并，没有自己的值",
        ),
        Text("unmerge the cells and fill in every row", "请取消合并单元格，并逐行填写"),
    ),
}
