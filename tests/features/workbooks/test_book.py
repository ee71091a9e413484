from __future__ import annotations

import csv
import hashlib
import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter
from python_calamine import CalamineWorkbook
from tables import table

from tcb_ops.errors import BrokenTableError, InputError
from tcb_ops.features.workbooks import CellCode
from tcb_ops.features.workbooks.book import Book, SheetCell, _reading, displayed
from tcb_ops.i18n import Lang
from tcb_ops.lists.fix_me import write_fixme
from tcb_ops.lists.paths import read_paths

CORPUS = Path(__file__).parents[2] / "core" / "lists" / "corpus"
KINDS = {
    "n": {CellCode.CELL_NUMBER},
    "d": {CellCode.CELL_DATE},
    "b": {CellCode.CELL_BOOLEAN},
    "f": {CellCode.CELL_FORMULA, CellCode.CELL_NOT_COMPUTED},
}


def made(file, rows):
    with xlsxwriter.Workbook(file) as book:
        sheet = book.add_worksheet("清单")
        for line, cells in enumerate(rows):
            sheet.write_row(line, 0, cells)
    return file


def parts(file, sheet, strings=b"<sst/>", *, main="xl/workbook.xml", sheets=1, more=()):
    """A workbook with this sheet, as small as can be read, so often, and `more` parts."""
    kinds = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    relations = '<Relationships><Relationship Id="a" Type="' + kinds + '/{}" Target="{}"/></Relationships>'
    each = '<sheet name="清单" sheetId="1" r:id="a"/>'
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        out.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns:r="{kinds}"><sheets>{each * sheets}</sheets></workbook>',
        )
        out.writestr("xl/_rels/workbook.xml.rels", relations.format("worksheet", "s.xml"))
        out.writestr("[Content_Types].xml", "<Types/>")
        out.writestr("_rels/.rels", relations.format("officeDocument", main))
        out.writestr("xl/s.xml", sheet)
        out.writestr("xl/sharedStrings.xml", strings)
        for name in more:
            out.writestr(name, BOMB)
    return file


BOMB = b'<sst uniqueCount="2000000000"><si><t>a</t></si></sst>'
"""The reader takes memory for so many strings before it reads the first; without it, the process is aborted."""


def refused(file, merchants):
    with pytest.raises(InputError) as raised:
        read_paths(file, merchants)
    (problem,) = raised.value.problems
    assert not problem.skippable
    return problem.message.en


AGREED = ("plain", "inline-strings", "titles-merged", "odd-cells", "other-columns", "hidden-rows", "filtered")


@pytest.mark.parametrize("name", AGREED)
def test_another_reader_sees_the_same_cells(name):
    file = CORPUS / f"{name}.xlsx"
    with file.open("rb") as raw:
        book = Book(raw)
        rows = list(book.rows(book.sheets[0]))
    sheet = openpyxl.load_workbook(file).worksheets[0]
    filled = sheet.iter_rows(values_only=True)
    assert [row.line for row in rows] == [line for line, cells in enumerate(filled, 1) if any(cells)]
    for row in rows:
        assert row.hidden == sheet.row_dimensions[row.line].hidden
        for column, value in enumerate(row.cells, 1):
            cell = sheet.cell(row.line, column)
            if isinstance(value, SheetCell):
                assert value.kind in KINDS[cell.data_type]
                assert value.ref == cell.coordinate
            else:
                assert value == (cell.value or "")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.0, "12"),
        (0.1 + 0.2, "0.3"),
        (123456789012345678.0, "123456789012345680"),
        (1.5e-7, "1.5E-07"),
        (1e300, "1E+300"),
        (True, "TRUE"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2), "2026-01-02"),  # noqa: DTZ001  a cell has no time zone
        (datetime(2026, 1, 2, 8, 29, 59, 999_999), "2026-01-02 08:30:00"),  # noqa: DTZ001  as above
        (time(8, 30), "08:30:00"),
        (timedelta(hours=26, minutes=3), "26:03:00"),
    ],
)
def test_a_value_that_is_no_text_is_what_its_cell_shows(value, text):
    assert displayed(value)[0] == text


def test_a_list_in_a_workbook_is_a_list(tmp_path, merchants):
    file = made(
        tmp_path / "l.xlsx",
        [["env", "path", "编号"], ["tea-1a2b3c", "a.png", "007"], [], ["books-77aa01", "b"]],
    )
    batch = read_paths(file, merchants)
    assert [(r.line, r.env, r.path, r.cells) for r in batch.rows()] == [
        (2, "tea-1a2b3c", "a.png", ("tea-1a2b3c", "a.png", "007")),
        (4, "books-77aa01", "b", ("books-77aa01", "b", "")),
    ]
    data = file.read_bytes()
    assert (batch.bytes, batch.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert batch.encoding == "XLSX, sheet '清单'"
    assert "工作表“清单”" in batch.decided.zh


def test_three_bad_rows_among_five_thousand_are_found_and_can_be_fixed(tmp_path, merchants):
    rows: list[list[Any]] = [["env", "path", "说明"]] + [["tea-1a2b3c", f"a/{n}.png", n] for n in range(5000)]
    rows[17][1], rows[2500][0], rows[5000][1] = 20260101, "nope", "a/0.png"
    batch = read_paths(made(tmp_path / "l.xlsx", rows), merchants, on_bad="skip")
    assert [p.line for p in batch.problems] == [18, 2501, 5001]
    assert write_fixme(batch.problems, batch.source, Lang.EN, tmp_path / "fix-me.csv")[1] == 3
    with (tmp_path / "fix-me.csv").open(encoding="utf-8-sig", newline="") as file:
        first = next(iter(csv.DictReader(file)))
    assert (first["path"], first["tcb_line"], first["说明"]) == ("20260101", "18", "16")
    assert "cell B18 is a number" in first["tcb_problem"]


def test_what_was_hidden_in_a_merged_cell_does_not_count(tmp_path, merchants):
    file = made(tmp_path / "l.xlsx", [["env", "path"], ["tea-1a2b3c", "a"], ["books-77aa01", "b"]])
    book = openpyxl.load_workbook(file)
    book.worksheets[0].merged_cells.add("A2:A3")
    book.save(file)
    with pytest.raises(InputError, match="merged with A2"):
        read_paths(file, merchants)


@pytest.mark.parametrize("inflated", ["xl/s.xml", "xl/sharedStrings.xml"])
def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path, merchants, inflated):
    zeros = b"<a>" + b" " * (70 << 20)
    file = parts(tmp_path / "b.xlsx", *((zeros,) if inflated == "xl/s.xml" else (b"<worksheet/>", zeros)))
    assert file.stat().st_size < 1 << 20
    assert (
        refused(file, merchants)
        == f"the workbook unpacks to far more data than a list can have (in {inflated})"
    )


def test_an_entity_within_an_entity_is_not_expanded(tmp_path, merchants):
    strings = b'<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><sst><si><t>&b;</t></si></sst>'
    assert "damaged" in refused(parts(tmp_path / "b.xlsx", b"<worksheet/>", strings), merchants)


def test_a_bomb_that_says_it_is_small_is_read_no_further_than_it_says(tmp_path, merchants):
    size = 70 << 20
    file = parts(tmp_path / "b.xlsx", b"<a>" + b" " * size)
    data = file.read_bytes()
    stated = (size + 3).to_bytes(4, "little")
    assert data.count(stated) == 2
    file.write_bytes(data.replace(stated, (1000).to_bytes(4, "little")))
    assert "damaged (in xl/s.xml)" in refused(file, merchants)


@pytest.mark.parametrize("count", ["2000000000", "18446744073709551615", "11", "9" * 5000])
def test_a_count_of_strings_that_the_part_cannot_hold_is_damage(tmp_path, merchants, count):
    strings = f'<x:sst xmlns:x="a" uniqueCount="{count}"></x:sst>'.encode()
    file = parts(tmp_path / "b.xlsx", b"<worksheet/>", strings)
    assert "damaged (in xl/sharedStrings.xml)" in refused(file, merchants)


@pytest.mark.parametrize(
    "strings", [b"<a><sst uniqueCount='2000000000'/></a>", b"<!--" + b" " * 100_000 + b"-->" + BOMB]
)
def test_a_count_is_found_wherever_it_stands(tmp_path, merchants, strings):
    file = parts(tmp_path / "b.xlsx", b"<worksheet/>", strings)
    assert "damaged (in xl/sharedStrings.xml)" in refused(file, merchants)


@table(
    "options, result",
    {
        "in another folder": ({"main": "other/workbook.xml", "more": ["other/sharedStrings.xml"]}, "damaged"),
        "in a part of nearly that name": ({"more": ["xl/SharedStrings.xml"]}, "damaged"),
        "with another slash": ({"more": ["xl\\sharedStrings.xml"]}, "damaged"),
        "two sheets of one name": ({"sheets": 2}, "damaged"),
        "an .xlsb beside it": ({"more": ["xl/workbook.bin"]}, "not an .xlsx workbook"),
        "an .ods beside it": ({"more": ["content.xml"]}, "not an .xlsx workbook"),
    },
)
def test_nothing_is_read_that_was_not_looked_at(tmp_path, merchants, options, result):
    assert result in refused(parts(tmp_path / "b.xlsx", b"<worksheet/>", **options), merchants)


def test_a_panic_of_the_reader_is_damage(tmp_path):
    strings = BOMB.replace(b"2000000000", b"18446744073709551615")
    file = parts(tmp_path / "b.xlsx", b"<worksheet/>", strings)
    with pytest.raises(BrokenTableError, match="damaged"), _reading("xl"):
        CalamineWorkbook.from_path(file)
    with pytest.raises(KeyboardInterrupt), _reading("xl"):
        raise KeyboardInterrupt


ROW = '<row r="{0}"><c r="A{0}" t="str"><v>env</v></c><c r="B{0}" t="str"><v>path</v></c></row>'


@pytest.mark.parametrize(
    ("last", "result"),
    [
        pytest.param(300_000, "no environment 'env'", marks=pytest.mark.slow),
        (300_001, "too large"),
        (400_000, "too large"),
    ],
)
def test_a_sheet_of_more_than_300_000_rows_is_sent_to_csv(tmp_path, merchants, last, result):
    sheet = f"<worksheet><sheetData>{ROW.format(1)}{ROW.format(2)}{ROW.format(last)}</sheetData></worksheet>"
    with pytest.raises(InputError) as raised:
        read_paths(parts(tmp_path / "b.xlsx", sheet.encode()), merchants)
    problem = raised.value.problems[0]
    assert result in problem.message.en
    assert ("CSV UTF-8" in problem.fix.en) is (last > 300_000)


def test_a_cell_far_away_is_refused_before_memory_is_taken_for_what_lies_between(tmp_path, merchants):
    far = '<row r="300000"><c r="XFD300000"><v>1</v></c></row>'
    sheet = f"<worksheet><sheetData>{ROW.format(1)}{far}</sheetData></worksheet>"
    assert "too large" in refused(parts(tmp_path / "b.xlsx", sheet.encode()), merchants)


@pytest.mark.parametrize("ref", ["A300000", "XFE1", "a1", "A1A1", "$A$1"])
def test_a_cell_that_is_not_in_its_row_is_damage(tmp_path, merchants, ref):
    sheet = f'<worksheet><sheetData><row r="1"><c r="{ref}"><v>1</v></c></row></sheetData></worksheet>'
    assert "damaged (in xl/s.xml)" in refused(parts(tmp_path / "b.xlsx", sheet.encode()), merchants)


def test_a_workbook_cut_anywhere_is_refused_in_words(tmp_path, merchants):
    whole = (CORPUS / "plain.xlsx").read_bytes()
    for cut in range(4, len(whole), 97):
        (tmp_path / "c.xlsx").write_bytes(whole[:cut])
        assert "is incomplete" in refused(tmp_path / "c.xlsx", merchants)


def test_a_workbook_with_any_byte_changed_is_read_or_refused_in_words(tmp_path, merchants):
    whole = (CORPUS / "odd-cells.xlsx").read_bytes()
    for at in range(0, len(whole), 53):
        (tmp_path / "c.xlsx").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(InputError):
            read_paths(tmp_path / "c.xlsx", merchants)
