"""A workbook's cell that holds no text of its own: what it shows, what it is, and what to do about it.

A number has lost its leading zeros and its digits beyond the fifteenth before anybody reads it, a date is what
somebody's `1-2` became, and what a formula stands for may change with the next opening. In env, path and file that
would send a file to a place nobody wrote down.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from tcb_ops.cell_text import shown
from tcb_ops.errors import BrokenTableError
from tcb_ops.i18n import Text
from tcb_ops.xlsx.package import Package, damaged, local, new_parser


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


class NonTextCell(str):
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
    return any(isinstance(cell, NonTextCell) and cell.kind is Kind.NOT_COMPUTED for cell in cells)


def odd_problem(cell: NonTextCell) -> tuple[Text, Text]:
    """What is wrong with such a cell in a column that must be text, and how to fix it."""
    seen = shown(cell, 40)
    message, fix = _SENTENCES[cell.kind]
    return (
        Text(message.en.format(ref=cell.ref, seen=seen), message.zh.format(ref=cell.ref, seen=seen)),
        fix,
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


LONGEST_CELL = 131_072
"""Characters, as in a CSV; a spreadsheet's own limit is 32,767."""
_LARGEST_STRINGS = 256 << 20
"""Bytes of the strings that cells share: they are held in memory."""
_MOST_FORMATS, _MOST_STYLES = 10_000, 100_000
"""A spreadsheet's own limits are some 250 and 65,490."""
_LONGEST_FORMAT = 1024
"""Characters; a spreadsheet's own limit is 255."""


class Strings:
    """The strings that cells share, packed: a million paths are some 40 MB."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def read(self, package: Package, part: str) -> None:
        """Read them from their part."""
        reader = _StringReader(self._add)
        for _ in package.feed(part, new_parser(reader.start, reader.end, reader.text)):
            pass

    def _add(self, text: str) -> None:
        if len(self._bytes) + self._ends.itemsize * len(self._ends) > _LARGEST_STRINGS:
            raise ValueError
        self._bytes.extend(text.encode("utf-8", "replace"))
        self._ends.append(len(self._bytes))


class _StringReader:
    """Handlers that put a string's runs together. What stands above characters to say how they sound is no text."""

    def __init__(self, add: Callable[[str], None]) -> None:
        self._add = add
        self._takes = self._sounds = False
        self._said: list[str] = []
        self._length = 0
        """Characters in it."""

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        match local(name):
            case "t":
                self._takes = not self._sounds
            case "rPh":
                self._sounds = True
            case "si":
                self._said.clear()
                self._length = 0

    def end(self, name: str) -> None:
        match local(name):
            case "t":
                self._takes = False
            case "rPh":
                self._sounds = False
            case "si":
                self._add(unescape("".join(self._said)))

    def text(self, characters: str) -> None:
        if self._takes:
            self._length += len(characters)
            if self._length > LONGEST_CELL:
                raise ValueError
            self._said.append(characters)


_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


def unescape(text: str) -> str:
    """Characters that XML cannot hold stand as _x000D_; a NUL stays so, since no list has one."""
    if "_x" not in text:
        return text
    plain = _ESCAPED.sub(lambda m: chr(int(m[1], 16)) if int(m[1], 16) else m[0], text)
    # Two halves of a pair may have been written apart; half of one is no character.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_DATE_IDS = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
"""The built-in number formats that are dates or times, those of Chinese systems among them."""
_NOT_LETTERS = re.compile(r'"[^"]*"|\[(?!h+\]|m+\]|s+\])[^\]]*\]|[\\_*].', re.IGNORECASE)
_DATE_LETTERS = re.compile("[dmyhs]", re.IGNORECASE)
_ZEROS = re.compile("0{2,}")


class Formats:
    """How numbers show: by a cell's style."""

    def __init__(self) -> None:
        self._codes: dict[int, str] = {}
        self._styles: list[int] = []

    def read(self, package: Package, part: str) -> None:
        """Read them from their part."""
        within = False
        for name, attributes in package.elements(part):
            match name:
                case "numFmt":
                    code = attributes.get("formatCode", "")
                    if len(self._codes) >= _MOST_FORMATS or len(code) > _LONGEST_FORMAT:
                        raise BrokenTableError(damaged(part))
                    self._codes[_number(attributes, "numFmtId")] = code
                case "cellXfs" | "/cellXfs":
                    within = name == "cellXfs"
                case "xf" if within:
                    if len(self._styles) >= _MOST_STYLES:
                        raise BrokenTableError(damaged(part))
                    self._styles.append(_number(attributes, "numFmtId"))

    def show(self, raw: str, style: str, *, since_1904: bool) -> tuple[str, Kind]:
        """A number as text, and whether it is one or a date. ValueError where it is neither."""
        at = int(style or 0)
        format_id = self._styles[at] if at < len(self._styles) else 0
        code = self._codes.get(format_id, "")
        if format_id in _DATE_IDS or _DATE_LETTERS.search(_NOT_LETTERS.sub("", code)):
            return date_text(float(raw), since_1904=since_1904), Kind.DATE
        text = number_text(raw)
        return (text.zfill(len(code)) if _ZEROS.fullmatch(code) else text), Kind.NUMBER


def _number(attributes: dict[str, str], name: str) -> int:
    value = attributes.get(name, "0")
    return int(value) if value.isdecimal() else 0


def number_text(raw: str) -> str:
    """A number as a cell shows it: 12 for 12.0, 0.1 for 0.10000000000000001 (a spreadsheet has 15 digits)."""
    if raw.isascii() and raw.isdigit() and len(raw) < 16:
        return str(int(raw))
    number = float(raw)
    if number.is_integer() and abs(number) < 1e21:
        return str(int(number))
    return format(number, ".15g").upper()


def date_text(serial: float, *, since_1904: bool) -> str:
    """A day number as ISO date, time, or both. ValueError where there is no such day.

    Day 60 of the usual count is 29 February 1900, which never was; the days before it are one less.
    """
    day_zero = datetime(1904, 1, 1) if since_1904 else datetime(1899, 12, 30)  # noqa: DTZ001  a cell has no time zone
    if not since_1904 and 1 <= serial < 60:
        day_zero += timedelta(days=1)
    try:
        moment = day_zero + timedelta(seconds=round(serial * 86_400))
    except OverflowError:
        raise ValueError(serial) from None
    if 0 <= serial < 1:
        return moment.time().isoformat()
    return moment.date().isoformat() if moment.time() == datetime.min.time() else moment.isoformat(" ")
