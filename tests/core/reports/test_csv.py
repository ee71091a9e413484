"""results.csv, failed.csv, errcodes.csv: as the contract has them, and as a spreadsheet can open them safely."""

import csv
import re
from collections import Counter
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from workspace import store_says

from tcb_ops.details import DetailCode, detail
from tcb_ops.features.audit import UNHEALTHY
from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.formats.csv import (
    RESULT_COLUMNS,
    Clock,
    RowTexts,
    write_errcodes,
)
from tcb_ops.reports.run_views import RunView
from tcb_ops.reports.summary import RunSummary
from tcb_ops.runs.records import EnvRecord


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
    cells = ('a,"b"\r\nc', " lead")
    a_run([RowEnd(0, Outcome.UPLOADED)], cells=cells).export(tmp_path / "out")
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert tuple(list(csv.reader(stream))[1][:2]) == cells


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
    assert Clock(ZoneInfo(zone)).iso(at) == result


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
    return texts.head + rows, texts.head + bad, texts.hexdigest(), texts.hidden


def check(reported):
    """Return the texts, after comparing the two ways to make them."""
    run = reported.run
    for lang in Lang:
        found = together(RowTexts(reported.ledger, run, lang, ZONE))
        assert found == together(RowTexts(RunView(reported.ledger, run), run, lang, ZONE))
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
    place = EnvRecord(0, "env-1", "wx1", text, "merchant", left=False)
    check(a_run([OK], places=[place], id="merchants"))
