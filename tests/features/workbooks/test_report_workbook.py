"""results.csv, failed.csv, errcodes.csv and report.xlsx: as the contract has them, safe to open, every text as it was."""

import csv
import io
import random
import re
import string
import zipfile
from collections import Counter
from dataclasses import replace
from datetime import datetime
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import openpyxl
import pytest
import python_calamine
from file_limit import files_of_at_most
from openpyxl.utils import get_column_letter
from workspace import store_says

from tcb_ops.details import DetailCode, detail
from tcb_ops.features.health import UNHEALTHY
from tcb_ops.features.workbooks import report as workbook
from tcb_ops.features.workbooks.report import write_workbook
from tcb_ops.features.workbooks.tables import CUT, LONGEST, Tables, new_workbook
from tcb_ops.i18n import Lang
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.ledger.run_view import RunView
from tcb_ops.model import Outcome, Owner, Reason, RowEnd
from tcb_ops.reports.formats.csv import (
    RESULT_COLUMNS,
    RowLines,
    iso_clock,
    write_errcodes,
)
from tcb_ops.reports.summary import RunSummary


def table(file):
    return list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))


def test_a_row_is_written_whole_and_numbers_plain(a_run, tmp_path):
    end = RowEnd(
        0,
        Outcome.UPLOADED,
        None,
        None,
        0,
        "ok",
        "",
        204,
        "",
        2,
        5,
        "ab" * 16,
        "cloud://x/1",
        1764034000.0,
        1764034001.25,
    )
    a_run([end]).export(tmp_path / "out")
    lines = (tmp_path / "out" / "results.csv").read_bytes().decode("utf-8-sig").split("\r\n")
    assert lines[1:] == [
        f"007,活动/2.png,2,晨光文具,wxaaaa,prod-1a2b,uploaded,,,0,ok,,204,,2,5,{'ab' * 16},cloud://x/1,image/png,2025-11-25T09:26:40.000+08:00,2025-11-25T09:26:41.250+08:00",
        "",
    ]


def test_every_row_is_in_results_and_those_not_good_in_failed(a_run, every_end, tmp_path):
    reported = a_run(every_end * 2, finished=False)
    reported.export(tmp_path / "out")
    at = 2 + RESULT_COLUMNS.index("tcb_outcome")
    results, failed = (table(tmp_path / "out" / name)[1:] for name in ("results.csv", "failed.csv"))
    counts = reported.ledger.counts(reported.run)
    assert Counter(row[at] for row in results) == counts
    assert Counter(row[at] for row in failed) == {o: rows for o, rows in counts.items() if not o.succeeded}
    assert failed == [row for row in results if not Outcome(row[at]).succeeded]
    assert [int(row[2]) for row in results] == list(range(2, 2 + 2 * len(every_end)))


@pytest.mark.parametrize("formula", ["=cmd|'/c calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "＝1", "\t=1"])
def test_no_cell_can_run_as_a_formula(a_run, formula, tmp_path):
    end = RowEnd(
        0,
        Outcome.FAILED,
        Reason.STORE_REFUSED,
        store_says(formula),
        0,
        formula,
        formula,
        400,
        formula,
        file_id=formula,
    )
    reported = a_run([end], headers=(formula, "path"), cells=(formula, "-5"), path=formula)
    reported.export(tmp_path / "out")
    for name in ("results.csv", "failed.csv", "errcodes.csv"):
        for row in table(tmp_path / "out" / name):
            assert not [cell for cell in row if re.match("[=+@＝\t-]", cell) and cell != "-5"]
    row = table(tmp_path / "out" / "results.csv")[1]
    assert row[:2] == [f"'{formula}", "-5"], "plain numbers stay numbers"
    assert row[2 + RESULT_COLUMNS.index("tcb_errmsg")] == f"'{formula}"


def test_line_breaks_commas_and_quotes_of_the_input_come_through(a_run, tmp_path):
    cells = ("a,b", 'a"b"', "a\r", "a\nb", ' "', " lead", "")
    headers = (*map(str, range(len(cells) - 1)), "path")
    a_run([RowEnd(0, Outcome.UPLOADED)], headers=headers, cells=cells).export(tmp_path / "out")
    written = (tmp_path / "out" / "results.csv").read_bytes().decode("utf-8-sig")
    rows = [*csv.reader(io.StringIO(written, newline=""))]
    assert tuple(rows[1][: len(cells)]) == cells
    csv.writer(again := io.StringIO(newline="")).writerows(rows)
    assert written == again.getvalue()


def test_errcodes_csv_has_each_cause_once_with_its_texts(a_run, every_end, tmp_path):
    reported = a_run(every_end, finished=False)
    listed = RunSummary(reported.ledger, reported.run).causes
    write_errcodes(listed, tmp_path / "errcodes.csv", Lang.ZH)
    head, *lines = table(tmp_path / "errcodes.csv")
    assert head == [
        "appid", "merchant", "env", "code", "meaning", "action", "rows",
        "refused", "failed", "not_attempted", "invalid", "pending",
    ]  # fmt: skip
    assert [(line[2], line[3], int(line[6])) for line in lines] == [(c.env, c.code, c.rows) for c in listed]
    assert all(sum(map(int, line[7:])) == int(line[6]) for line in lines)
    assert lines[0][4] == listed[0].meaning.zh


def test_errcodes_csv_counts_an_audits_outcomes_beside_those_of_uploads(a_run, tmp_path):
    reported = a_run([RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)])
    (refused,) = RunSummary(reported.ledger, reported.run).causes
    write_errcodes([replace(refused, outcomes={UNHEALTHY: 1})], tmp_path / "errcodes.csv", Lang.EN)
    head, line = table(tmp_path / "errcodes.csv")
    assert head[7:] == ["refused", "failed", "not_attempted", "invalid", "pending", "unhealthy"]
    assert line[7:] == ["0", "0", "0", "0", "0", "1"]


@pytest.mark.parametrize(
    ("at", "zone", "result"),
    [
        (None, "Asia/Shanghai", ""),
        (0.0, "UTC", "1970-01-01T00:00:00.000+00:00"),
        (1764034000.25, "Asia/Shanghai", "2025-11-25T09:26:40.250+08:00"),
        (1764034000.9996, "Asia/Shanghai", "2025-11-25T09:26:41.000+08:00"),
        (1764034000.25, "America/St_Johns", "2025-11-24T21:56:40.250-03:30"),
        (1761440399.5, "Europe/Berlin", "2025-10-26T02:59:59.500+02:00"),
        (1761440400.5, "Europe/Berlin", "2025-10-26T02:00:00.500+01:00"),
    ],
)
def test_times_are_iso_with_offset_in_the_settings_zone(at, zone, result):
    assert iso_clock(ZoneInfo(zone))(None if at is None else round(at * 1000)) == result


ZONE = ZoneInfo("Asia/Shanghai")
STRANGE = {
    "plain": "横幅",
    "empty": "",
    "comma": "a,b",
    "quote": 'the "b"',
    "between quotes": 'a","b',
    "backslash": r"D:\new",
    "formula": "=1+1",
    "number": "-1.5",
    "wide formula": "＝1",
    "apostrophe": "'=1",
    "line end": "a\nb",
    "tab": "\ta",
    "control": "a\x01b",
    "delete": "a\x7f",
    "wide space": "a\u3000b",
    "line separator": "a\u2028b",
    "secret": "access_token=AbCdEf123456",
    "quoted secret": '"access_token":"AbCdEf123456"',
    "surrogate pair": "🍵",
}
OK = RowEnd(
    0,
    Outcome.UPLOADED,
    errcode=0,
    errmsg="ok",
    http_status=204,
    attempts=2,
    bytes=5,
    md5="ab" * 16,
    file_id="cloud://a.b/c.png",
    started_at=1_764_036_000.25,
    ended_at=1_764_036_001.9996,
)


def together(texts):
    batches = list(texts)
    rows, bad = ("".join(each) for each in zip(*batches, strict=True))
    return texts.head + rows, texts.head + bad, texts.digest.hexdigest(), texts.hidden


def check(reported):
    """Return the texts, after comparing the two ways to make them."""
    run = reported.run
    for lang in Lang:
        found = together(RowLines(reported.ledger, run, lang, ZONE))
        assert found == together(RowLines(RunView(reported.ledger, run), run, lang, ZONE))
    return found


def test_every_end_is_written_alike(a_run):
    check(a_run())


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_a_text_is_written_alike_whether_a_list_a_server_or_the_merchants_file_has_it(a_run, text):
    found = check(a_run([OK, OK], cells=("007", text)))
    assert found[3] == (2 if "secret" in text or "access_token" in text else 0)
    refused = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=-501001, errmsg=text, rid=text, attempts=1)
    store = detail(DetailCode.STORE_MESSAGE, message=text)
    failed = RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, store, store_code=text, http_status=403)
    check(a_run([OK, refused, failed, replace(OK, file_id=text, md5=text)], id="server"))
    place = EnvRecord(0, "env-1", "wx1", text, Owner.MERCHANT, left=False)
    check(a_run([OK], places=[place], id="merchants"))


NOW = 1_764_036_000.0
SHEETS = {
    Lang.EN: ["summary", "errcodes", "did not succeed", "all rows"],
    Lang.ZH: ["概要", "错误码", "未成功", "全部行"],
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
def test_it_has_four_sheets_whose_heads_filter_and_stay_in_view(a_run, in_english, tmp_path, lang):
    book = write(a_run(), tmp_path / "report.xlsx", in_english, lang)
    assert book.sheetnames == SHEETS[lang]
    for sheet in book.worksheets[1:]:
        assert sheet.freeze_panes == "A2"
        assert sheet.auto_filter.ref == sheet.dimensions
        assert sheet["A1"].font.bold
        assert sheet.print_title_rows == "$1:$1"
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


def test_the_errcodes_count_every_row_that_did_not_succeed(a_run, every_end, in_english, tmp_path):
    head, *listed = lines(write(a_run(), tmp_path / "report.xlsx", in_english)["errcodes"])
    assert head[:8] == (
        "appid",
        "merchant",
        "environment",
        "code",
        "meaning",
        "what to do",
        "rows",
        "refused",
    )
    assert sum(row[6] for row in listed) == sum(not end.outcome.succeeded for end in every_end)
    texts = [row[-1] for row in listed if row[3] == "85088"]
    assert (head[-1], all(texts), len(texts) > 1) == ("text for the merchant", True, True)


def test_the_summary_adds_up_and_names_the_run(a_run, every_end, in_english, tmp_path):
    book = write(a_run(), tmp_path / "report.xlsx", in_english)
    result = {row[0]: row[1] for row in lines(book["summary"]) if row[0]}
    assert result["all rows"] == len(every_end)
    assert result["refused"] == sum(end.outcome is Outcome.REFUSED for end in every_end)
    assert result["run"] == "20251125-093000-k7q2"
    assert result["target"] == "https://api.weixin.qq.com"
    assert result["SHA-256 of the list"] == "ab" * 32
    assert book["summary"]["B4"].alignment.horizontal == "right"
    (chart,) = book["summary"]._charts
    assert chart.series[0].val.numRef.f == f"summary!$B$5:$B${4 + len({end.outcome for end in every_end})}"
    assert result["as of"] == "2025-11-25 10:00:00+08:00 Asia/Shanghai"
    assert book.properties.title == "Upload report 20251125-093000-k7q2"
    assert book.properties.created == datetime(2025, 11, 25, 10, tzinfo=None)  # noqa: DTZ001  a workbook has no zone


def test_a_rehearsal_is_marked(a_run, in_english, tmp_path):
    book = write(a_run(target="simulator"), tmp_path / "report.xlsx", in_english)
    assert str(book.worksheets[0]["A1"].value).startswith("SIMULATED 演练")
    assert str(book.properties.title).startswith("SIMULATED 演练")


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED.keys())
def test_whatever_stands_in_a_cell_is_inert_and_reads_back_as_it_was(a_run, in_english, tmp_path, text):
    end = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=40097, errmsg=text)
    reported = a_run([end], cells=(text, text), headers=(text, "path"), note=text)
    book = write(reported, tmp_path / "report.xlsx", in_english)
    judge = python_calamine.CalamineWorkbook.from_path(str(tmp_path / "report.xlsx"))
    for name in ("did not succeed", "all rows"):
        head, cells = judge.get_sheet_by_name(name).to_python()
        assert {head[0], *cells[:2], cells[10]} == {text}
    for sheet in book:
        assert {cell.data_type for row in sheet for cell in row} <= {"s", "n"}
        assert not sheet._hyperlinks


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
        (book.worksheets[2], "failed.csv", "4"),
        (book.worksheets[3], "results.csv", "8"),
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
    assert [sheet.max_row for sheet in book.worksheets[1:]] == [1, 1, 1 + len(ends)]


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
def test_a_full_disk_is_an_oserror_and_leaves_nothing_open(tmp_path, most):
    letters = random.Random(6)  # texts that hardly pack: two sheets in the zip are larger than one outside it
    noise = ["".join(letters.choices(string.ascii_letters + string.digits, k=2_000)) for _ in range(30)]

    def write_two_sheets():
        with new_workbook(tmp_path / "r.xlsx") as book:
            for _sheet in range(2):
                Tables(book).write(book.add_worksheet(), ["text"], [[text] for text in noise])

    with files_of_at_most(most), pytest.raises(OSError, match="File too large") as failed:
        write_two_sheets()
    assert not isinstance(failed.value, io.UnsupportedOperation)
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []
