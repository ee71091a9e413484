"""report.xlsx: opens without a word, and every text in it is the text it was."""

import io
import random
import string
import zipfile
from dataclasses import replace
from datetime import datetime
from xml.etree import ElementTree as ET

import openpyxl
import pytest
import python_calamine
from openpyxl.utils import get_column_letter
from openpyxl.utils.escape import unescape  # which openpyxl leaves to its caller
from workspace import store_says

from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.formats import xlsx as workbook
from tcb_ops.reports.formats.csv import RESULT_COLUMNS
from tcb_ops.reports.formats.xlsx import CUT, LONGEST, write_workbook
from tcb_ops.reports.summary import RunSummary, next_actions

NOW = 1_764_036_000.0
SHEETS = {
    Lang.EN: ["summary", "causes", "errcodes", "did not succeed", "all rows"],
    Lang.ZH: ["概要", "原因", "错误码", "未成功", "全部行"],
}
PLANTED = {
    "formula": "=cmd|' /C calc'!A0",
    "at": "@SUM(1+1)*cmd|'x'!A0",
    "plus": "+cmd|' /C calc'!A0",
    "minus": "-2+3+cmd|' /C calc'!A0",
    "tab": "\t=1+1",
    "array formula": "{=1+1}",
    "hyperlink": "https://example.com/a&b",
    "mail": "mailto:a@example.com",
    "inner link": "internal:'all rows'!A1",
    "html": "<script>alert(1)</script><b onclick='x'>&amp;</b>",
    "runs of the library": "<r><t>x</t></r>",
    "broken runs of the library": "<r>&</r>",
    "leading zeros": "007",
    "long digits": "12345678901234567890",
    "exponent": "1E5",
    "date": "2026-01-02",
    "truth": "TRUE",
    "spaces": "  a  ",
    "line break": "a\nb",
    "escape": "_x0041_",
    "apostrophe": "'=1",
    "astral": "𠮷野家🎉",
    "cdata": "]]>",
}
"""Cells that a spreadsheet, or the library that writes it, would take for something else."""


def write(reported, file, settings, lang=Lang.EN):
    write_workbook(
        reported.ledger,
        RunSummary(reported.ledger, reported.run),
        file,
        replace(settings, lang=lang),
        now=NOW,
    )
    return openpyxl.load_workbook(file)


def lines(sheet, top=1):
    return list(sheet.iter_rows(min_row=top, values_only=True))


@pytest.mark.parametrize("lang", list(Lang))
def test_it_has_five_sheets_whose_heads_filter_and_stay_in_view(a_run, in_english, tmp_path, lang):
    book = write(a_run(), tmp_path / "report.xlsx", in_english, lang)
    assert book.sheetnames == SHEETS[lang]
    for sheet in book.worksheets[1:]:
        assert sheet.freeze_panes == "A2"
        assert sheet.auto_filter.ref == sheet.dimensions
        assert sheet["A1"].font.bold
        assert all(8 <= sheet.column_dimensions[name].width <= 62 for name in sheet.column_dimensions)


def test_rows_are_those_of_results_csv_with_numbers_as_numbers(a_run, every_end, in_english, tmp_path):
    reported = a_run()
    book = write(reported, tmp_path / "report.xlsx", in_english)
    head, *rows = lines(book["all rows"])
    assert head == ("货号", "path", *RESULT_COLUMNS)
    assert [row[2] for row in rows] == list(range(2, len(every_end) + 2))
    assert [row[6] for row in rows] == [str(end.outcome) for end in every_end]
    assert [row[9] for row in rows] == [end.errcode for end in every_end]
    assert {row[0] for row in rows} == {"007"}
    bad = lines(book["did not succeed"])[1:]
    assert [row[2] for row in bad] == [
        line for line, end in enumerate(every_end, 2) if not end.outcome.succeeded
    ]


def test_causes_come_in_the_order_of_what_to_do_next(a_run, in_english, tmp_path):
    reported = a_run()
    book = write(reported, tmp_path / "report.xlsx", in_english)
    wanted = next_actions(RunSummary(reported.ledger, reported.run).codes)
    rows = lines(book["causes"])[1:]
    assert [(row[0], row[3], row[4], row[5]) for row in rows] == [
        (one.group.code, one.group.rows, len(one.group.merchants), len(one.group.envs)) for one in wanted
    ]
    head, *listed = lines(book["errcodes"])
    assert head[:8] == ("appid", "merchant", "env", "code", "meaning", "what to do", "rows", "refused")
    assert sum(row[6] for row in listed) == sum(row[3] for row in rows)


def test_the_summary_adds_up_and_names_the_run(a_run, every_end, in_english, tmp_path):
    book = write(a_run(), tmp_path / "report.xlsx", in_english)
    result = {row[0]: row[1] for row in lines(book["summary"]) if row[0]}
    assert result["all rows"] == len(every_end)
    assert result["refused"] == sum(end.outcome is Outcome.REFUSED for end in every_end)
    assert result["run"] == "20251125-093000-k7q2"
    assert result["target"] == "https://api.weixin.qq.com"
    assert result["SHA-256 of the list"] == "ab" * 32
    assert result["as of"] == "2025-11-25 10:00:00+08:00 Asia/Shanghai"
    assert book.properties.title == "Upload report 20251125-093000-k7q2"
    assert book.properties.created == datetime(2025, 11, 25, 10, tzinfo=None)  # noqa: DTZ001  a workbook has no zone


def test_a_rehearsal_is_marked(a_run, in_english, tmp_path):
    book = write(a_run(target="http://127.0.0.1:8089"), tmp_path / "report.xlsx", in_english)
    assert str(book.worksheets[0]["A1"].value).startswith("SIMULATED 演练")
    assert str(book.properties.title).startswith("SIMULATED 演练")


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED.keys())
def test_whatever_stands_in_a_cell_is_inert_and_reads_back_as_it_was(a_run, in_english, tmp_path, text):
    end = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=40097, errmsg=text)
    reported = a_run([end], cells=(text, text), headers=(text, "path"), note=text)
    book = write(reported, tmp_path / "report.xlsx", in_english)
    for name in ("did not succeed", "all rows"):
        sheet = book[name]
        assert {unescape(sheet[cell].value) for cell in ("A1", "A2", "B2", "K2")} == {text}
    for sheet in book:
        assert {cell.data_type for row in sheet for cell in row} <= {"s", "n"}
        assert not sheet._hyperlinks
    judge = python_calamine.CalamineWorkbook.from_path(str(tmp_path / "report.xlsx"))
    judged = judge.get_sheet_by_name("all rows").to_python()
    assert judged[1][0] == text


def test_what_xml_cannot_hold_does_not_break_the_file(a_run, in_english, tmp_path):
    text = "a\x00\x01\x0b\x1f\r\x7f\ufffe\uffffb"
    book = write(a_run([RowEnd(0, Outcome.UPLOADED)], cells=(text, "x")), tmp_path / "r.xlsx", in_english)
    with zipfile.ZipFile(tmp_path / "r.xlsx") as parts:
        for name in parts.namelist():
            ET.fromstring(parts.read(name))
    found = str(book["all rows"]["A2"].value)
    assert found.startswith("a")
    assert found.endswith("\x7f\ufffd\ufffdb")


@pytest.mark.parametrize(
    ("text", "fits"),
    [("x" * LONGEST, True), ("x" * (LONGEST + 1), False), ("𠮷" * 16_383, True), ("𠮷" * 16_384, False)],
    ids=["full", "too long", "full of pairs", "too many pairs"],
)
def test_a_cell_longer_than_a_workbook_takes_is_cut_with_a_mark(a_run, in_english, tmp_path, text, fits):
    book = write(a_run([RowEnd(0, Outcome.UPLOADED)], cells=(text, "x")), tmp_path / "r.xlsx", in_english)
    found = str(book["all rows"]["A2"].value)
    assert len(found.encode("utf-16-le")) <= LONGEST * 2
    assert (found == text) is fits
    assert found.endswith(CUT) is not fits
    assert text.startswith(found.removesuffix(CUT))


def test_beyond_the_bound_a_sheet_says_where_the_rest_is(a_run, in_english, tmp_path, monkeypatch):
    monkeypatch.setattr(workbook, "MOST_ROWS", 3)
    ends = [RowEnd(0, Outcome.UPLOADED)] * 4 + [RowEnd(0, Outcome.FAILED, Reason.NO_ANSWER)] * 4
    book = write(a_run(ends), tmp_path / "report.xlsx", in_english)
    for sheet, rest, total in (
        (book.worksheets[3], "failed.csv", "4"),
        (book.worksheets[4], "results.csv", "8"),
    ):
        assert rest in str(sheet["A1"].value)
        assert total in str(sheet["A1"].value)
        assert sheet["A2"].value == "货号"
        assert sheet.max_row == 5
        assert (sheet.freeze_panes, sheet.auto_filter.ref) == (
            "A3",
            f"A2:{get_column_letter(sheet.max_column)}5",
        )


@pytest.mark.parametrize("ends", [[], [RowEnd(0, Outcome.UPLOADED)]], ids=["no rows", "all good"])
def test_sheets_without_rows_are_still_whole(a_run, in_english, tmp_path, ends):
    book = write(a_run(ends), tmp_path / "report.xlsx", in_english)
    assert [sheet.max_row for sheet in book.worksheets[1:]] == [1, 1, 1, 1 + len(ends)]


def test_no_secret_that_a_server_echoed_is_in_it(a_run, in_english, tmp_path):
    echo = "access_token=PLANTED&q-signature=PLANTED"
    ends = [
        RowEnd(0, Outcome.REFUSED, Reason.REFUSED, store_says(echo), 40097, echo, echo),
        RowEnd(
            0, Outcome.FAILED, Reason.STORE_REFUSED, store_says(echo), 0, echo, echo, 400, echo, file_id=echo
        ),
    ]
    write(a_run(ends, note=echo), tmp_path / "r.xlsx", in_english)
    with zipfile.ZipFile(tmp_path / "r.xlsx") as parts:
        assert [name for name in parts.namelist() if b"PLANTED" in parts.read(name)] == []


@pytest.mark.parametrize("most", [8_000, 90_000], ids=["a sheet", "the zip"])
def test_a_full_disk_is_an_oserror_and_leaves_nothing_open(a_run, in_english, tmp_path, most):
    resource = pytest.importorskip("resource")
    letters = random.Random(6)  # texts that hardly pack: two sheets in the zip are larger than one outside it
    noise = ["".join(letters.choices(string.ascii_letters + string.digits, k=2_000)) for _ in range(30)]
    reported = a_run([RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=1, errmsg=text) for text in noise])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            write_workbook(
                reported.ledger,
                RunSummary(reported.ledger, reported.run),
                tmp_path / "r.xlsx",
                in_english,
                now=NOW,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(failed.value, io.UnsupportedOperation)
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []
