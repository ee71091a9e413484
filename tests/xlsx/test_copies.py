"""Split workbooks: values, dates and colours are kept, whatever the original's texts look like."""

from __future__ import annotations

import zipfile
from datetime import datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import openpyxl
import pytest
import xlsxwriter
from openpyxl.utils.escape import unescape
from xlsxwriter.color import Color

from tcb_ops.xlsx import copies
from tcb_ops.xlsx.copies import AppendColumns, as_text, replaced, write_split
from tcb_ops.xlsx.workbook import open_book

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openpyxl.worksheet.worksheet import Worksheet

ADDED = AppendColumns(1, 3, ("result",), (24,), like=2)
DAY = datetime(2026, 1, 2)  # noqa: DTZ001  a cell has no time zone


def split_up(file: Path, groups: list[int], texts: tuple[str, ...] = ()) -> list[Worksheet]:
    """The first sheet of each copy; `groups` are those of the rows from line 2 on."""
    files = [file.with_name(f"{group}.xlsx") for group in sorted(set(groups))]

    def values() -> Iterator[tuple[int, tuple[str, ...]]]:
        yield from ((line, (text,)) for line, text in enumerate(texts, 2))

    with file.open("rb") as raw:
        book = open_book(raw)
        write_split(book, book.sheets[0], ADDED, values, dict(enumerate(groups, 2)), files)
    for copy in files:
        with zipfile.ZipFile(copy) as package:
            for name in package.namelist():
                ET.fromstring(package.read(name))
    return [openpyxl.load_workbook(copy).worksheets[0] for copy in files]


def original(file: Path, *rows: tuple[Any, ...], **options: Any) -> Path:
    with xlsxwriter.Workbook(str(file), options) as book:
        sheet = book.add_worksheet("list")
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        for line, cells in enumerate([("env", "path"), *rows]):
            for column, cell in enumerate(cells):
                if isinstance(cell, datetime):
                    sheet.write_datetime(line, column, cell, day)
                else:
                    sheet.write(line, column, cell)
    return file


@pytest.mark.parametrize("since_1904", [False, True])
def test_values_keep_their_types_and_dates_their_days(tmp_path: Path, since_1904: bool) -> None:
    file = original(tmp_path / "a.xlsx", (DAY, 0.1), (True, "007"), date_1904=since_1904)
    (sheet,) = split_up(file, [0, 0], ("uploaded", "refused"))
    assert list(sheet.iter_rows(values_only=True)) == [
        ("env", "path", "result"),
        (DAY, 0.1, "uploaded"),
        (True, "007", "refused"),
    ]
    assert sheet["A2"].number_format == "yyyy-mm-dd"


@pytest.mark.parametrize("text", ["<r><t>a</t></r>", "=1+1", "_x0041_", "a\x01b", "http://a.example", " a "])
def test_a_text_stays_that_text(tmp_path: Path, text: str) -> None:
    file = original(tmp_path / "a.xlsx", ("tea", "a.png"))
    (sheet,) = split_up(file, [0], (text,))
    assert (sheet["C2"].data_type, unescape(sheet["C2"].value)) == ("s", text)


def test_colours_of_the_theme_and_their_tints_become_the_same_colours(tmp_path: Path) -> None:
    with xlsxwriter.Workbook(str(tmp_path / "a.xlsx")) as book:
        sheet = book.add_worksheet()
        accent = {"bg_color": Color.theme(4, 0), "font_color": Color.theme(0, 0), "bold": True}
        sheet.write_row(0, 0, ("env", "path"), book.add_format(accent))
        sheet.write_row(1, 0, ("tea", "a.png"), book.add_format({"bg_color": Color.theme(1, 5)}))
    (copy,) = split_up(tmp_path / "a.xlsx", [0])
    head, tinted = copy["A1"], copy["A2"]
    assert (head.fill.fgColor.rgb, head.font.color.rgb, head.font.bold) == ("FF4F81BD", "FFFFFFFF", True)
    assert tinted.fill.fgColor.rgb == "FF0D0D0D"


def test_more_groups_than_are_open_at_once_each_get_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_OPEN_AT_ONCE", 2)
    file = original(tmp_path / "a.xlsx", *((f"env-{n}", f"{n}.png") for n in range(10)))
    made = split_up(file, [n % 5 for n in range(10)], tuple(f"text {n}" for n in range(10)))
    assert [[row[1:] for row in copy.iter_rows(min_row=2, values_only=True)] for copy in made] == [
        [(f"{n}.png", f"text {n}"), (f"{n + 5}.png", f"text {n + 5}")] for n in range(5)
    ]
    assert sorted(one.name for one in tmp_path.iterdir()) == [*(f"{n}.xlsx" for n in range(5)), "a.xlsx"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a<b>&c", "a&lt;b&gt;&amp;c"),
        ("a\x00\x1f\rb\n\t", "a_x0000__x001F__x000D_b\n\t"),
        ("_x0041_", "_x005F_x0041_"),
        ("_x00_ _xZZZZ_", "_x00_ _xZZZZ_"),
        ("\ud800\ufffe𠮷", "\ufffd\ufffd𠮷"),
    ],
    ids=["marks", "control", "an escape", "no escapes", "no characters"],
)
def test_a_text_is_written_so_that_xml_can_hold_it(text: str, written: str) -> None:
    assert as_text(text) == written
    ET.fromstring(f"<t>{as_text(text)}</t>")


@pytest.mark.parametrize(
    ("tag", "after"),
    [
        (b'<row r="1" spans="1:4">', b'<row r="1" spans="1:8">'),
        (b"<row spans = '1:4'/>", b'<row spans = "1:8"/>'),
        (b'<row x:spans="1:4">', b'<row x:spans="1:4">'),
        (b"<row>", b"<row>"),
    ],
    ids=["usual", "other quotes", "another's", "none"],
)
def test_an_attribute_gets_another_value(tag: bytes, after: bytes) -> None:
    assert replaced(tag, "spans", "1:8") == after
