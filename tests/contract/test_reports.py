"""Contract §4 and §5: outcomes, report folders, links.csv, retries, verification, earlier ledgers."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract.conftest import GOOD, MIXED, MIXED_COUNTS, TOKENS, read_csv
from openpyxl import load_workbook

import tcb_ops as tcb

if TYPE_CHECKING:
    from contract.conftest import Operator

INPUT = ["env", "path", "file", "备注"]
RESULTS = [
    "tcb_line", "tcb_merchant", "tcb_appid", "tcb_env", "tcb_outcome", "tcb_reason", "tcb_action", "tcb_errcode",
    "tcb_errmsg", "tcb_rid", "tcb_http_status", "tcb_store_code", "tcb_attempts", "tcb_bytes", "tcb_md5", "tcb_file_id",
    "tcb_content_type", "tcb_started_at", "tcb_ended_at",
]  # fmt: skip
LINKS = ["errcode", "errmsg", "url", "token", "authorization", "file_id", "cos_file_id", "expires_at"]
FILES = {"results.csv", "failed.csv", "errcodes.csv", "report.html", "report.xlsx", "manifest.json"}


def header(file: Path, bom: bytes = b"\xef\xbb\xbf") -> list[str]:
    content = file.read_bytes()
    assert content.startswith(bom)
    return next(csv.reader(io.StringIO(content[len(bom) :].decode())))


def report_of(operator: Operator, *words: str) -> Path:
    return operator.folder / str(operator.upload("--json", *words).json["report"])


@pytest.mark.needs("workbooks")
def test_a_report_has_the_files_and_columns_of_the_contract(mixed: Operator) -> None:
    report = report_of(mixed)
    assert {file.name for file in report.iterdir()} - FILES <= {
        "SIMULATED-演练.txt",
        "actions.py",
        "actions.sh",
    }
    assert all((report / name).is_file() for name in FILES)
    assert header(report / "results.csv") == INPUT + RESULTS
    assert header(report / "failed.csv") == INPUT + RESULTS
    assert header(report / "errcodes.csv")
    lines = read_csv(report / "results.csv")
    assert [(line["env"], line["path"]) for line in lines] == MIXED, "the list's order"
    assert [line["tcb_line"] for line in lines] == [str(number) for number in range(2, 17)]
    counts = {outcome: sum(line["tcb_outcome"] == outcome for line in lines) for outcome in MIXED_COUNTS}
    assert counts == MIXED_COUNTS
    assert read_csv(report / "failed.csv") == [line for line in lines if line["tcb_outcome"] != "uploaded"]


def test_each_row_says_how_it_ended(mixed: Operator) -> None:
    by_path = {line["path"]: line for line in read_csv(report_of(mixed) / "results.csv")}
    good, refused, failed = (by_path[path] for path in ("a/0.png", "refused/1.png", "failed/1.png"))
    assert (good["tcb_outcome"], good["tcb_http_status"], good["tcb_attempts"]) == ("uploaded", "204", "2")
    assert (good["tcb_bytes"], len(good["tcb_md5"]), good["tcb_content_type"]) == ("16", 32, "image/png")
    assert (refused["tcb_errcode"], refused["tcb_bytes"]) == ("40097", "")
    assert (failed["tcb_store_code"], failed["tcb_outcome"]) == ("InvalidArgument", "failed")
    assert all(line["tcb_reason"] and line["tcb_action"] for line in (refused, failed, by_path["c/1.png"]))
    assert good["tcb_started_at"] < good["tcb_ended_at"]
    assert good["tcb_started_at"].endswith("+08:00")


def test_failed_rows_are_accepted_as_a_list(mixed: Operator) -> None:
    report = report_of(mixed)
    batch = tcb.read_paths(report / "failed.csv", "merchants.csv", "files")
    assert (list(batch.headers), batch.count) == (INPUT, 11)


def test_cells_that_a_spreadsheet_would_run_get_an_apostrophe_which_reading_removes(
    operator: Operator,
) -> None:
    operator.list([("tea-prod", "=1+1.png"), ("tea-prod", "refused/1.png")])
    report = report_of(operator)
    assert [line["path"] for line in read_csv(report / "results.csv")] == ["'=1+1.png", "refused/1.png"]
    assert [row.path for row in tcb.read_paths(report / "results.csv", "merchants.csv").rows()] == [
        "=1+1.png",
        "refused/1.png",
    ]


def test_two_exports_at_the_same_time_are_equal_marked_as_simulated_and_without_secrets(
    mixed: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed.upload()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    run = tcb.open_run()
    one, two = (run.export(mixed.folder / name) for name in ("one", "two"))
    for name in sorted(FILES - {"report.xlsx"}):  # a workbook is a ZIP file, which has dates of its own
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
        assert not any(token.encode() in (one / name).read_bytes() for token in TOKENS.values())
    page = (one / "report.html").read_text(encoding="utf-8")
    assert "SIMULATED 演练" in page
    assert "https://" not in page.replace("https://api.weixin.qq.com", "")
    manifest = json.loads((one / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["simulated"] is True


@pytest.mark.needs("evidence")
def test_verify_finds_a_report_as_it_was_written_and_each_change(mixed: Operator) -> None:
    report = report_of(mixed)
    assert mixed("verify", str(report)).code == 0
    with (report / "results.csv").open("a", encoding="utf-8") as file:
        file.write("one,more,line\r\n")
    assert mixed("verify", str(report)).code == 1
    assert mixed("verify", str(mixed.folder)).code == 2


@pytest.mark.posix("file modes")
def test_links_are_in_one_file_that_nobody_else_can_read(mixed: Operator) -> None:
    done = mixed.links("--out", "mine.csv", "--json")
    assert (done.code, done.json["counts"]) == (1, {"linked": 5, "refused": 4, "not_attempted": 6})
    file = mixed.folder / "mine.csv"
    assert file.stat().st_mode & 0o777 == 0o600
    assert header(file, bom=b"") == INPUT + LINKS
    lines = read_csv(file)
    assert [(line["env"], line["path"]) for line in lines] == MIXED
    for line in lines:
        assert bool(line["url"]) is (line["errcode"] == "0"), line["path"]
    assert all(
        mark not in done.out + done.err for line in lines for mark in (line["token"], line["url"]) if mark
    )


def test_a_retry_runs_the_failed_rows_and_the_final_report_has_every_original_row(mixed: Operator) -> None:
    first = mixed.upload("--json").json
    (mixed.folder / "tokens.csv").write_text(
        "appid,access_token\n" + "".join(f"{pair[0]},{pair[1]}\n" for pair in TOKENS.items()),
        encoding="utf-8",
    )
    again = mixed("retry", first["run"], "--json", "--per-env", "1", "--backoff", "0.01")
    assert (again.code, again.json["rows"], again.json["counts"]["uploaded"]) == (1, 11, 1)
    assert mixed("report", "--final", "--out", "final", first["run"]).code == 0
    lines = read_csv(mixed.folder / "final" / "results.csv")
    assert [(line["env"], line["path"]) for line in lines] == MIXED
    assert sum(line["tcb_outcome"] == "uploaded" for line in lines) == 5
    assert sum(line["tcb_outcome"] == "uploaded" for line in lines) == first["counts"]["uploaded"] + 1


def test_unchanged_files_are_not_sent_again(operator: Operator) -> None:
    operator.upload()
    again = operator.upload("--skip-unchanged", "--json")
    assert (again.code, again.json["counts"]) == (0, {"unchanged": len(GOOD)})
    assert again.json["calls"] == {"link": 0, "upload": 0}


def test_a_canary_that_does_not_succeed_stops_the_run(operator: Operator) -> None:
    operator.list([("tea-test", "refused/1.png"), *GOOD])
    done = operator.upload("--canary", "1", "--json")
    assert (done.code, done.json["counts"]) == (3, {"refused": 1, "pending": 4})


@pytest.mark.needs("evidence")
def test_diff_compares_two_runs(operator: Operator) -> None:
    operator.list([*GOOD, ("tea-test", "refused/1.png")])
    first = operator.upload("--json").json["run"]
    second = operator.upload("--json").json["run"]
    assert operator("diff", first, second).code == 0


def sheet(file: Path) -> list[tuple[object, ...]]:
    book = load_workbook(file)
    assert book.active.freeze_panes == "A2"
    return [*book.active.iter_rows(values_only=True)]


@pytest.mark.needs("evidence")
@pytest.mark.needs("health")
@pytest.mark.needs("workbooks")
@pytest.mark.parametrize(
    "words",
    [("errcodes",), ("show", "--path", "/"), ("diff", "latest", "latest"), ("merchants", "check")],
    ids=str,
)
def test_a_table_is_written_as_csv_or_as_a_workbook(mixed: Operator, words: tuple[str, ...]) -> None:
    mixed.upload()
    if words[0] == "diff":
        mixed.upload("--new-run")
        ids = [run["run"] for run in mixed("runs", "--json").json["runs"]]
        words = ("diff", ids[1], ids[0])
    assert mixed(*words, "--out", "table.csv").code in {0, 1}
    assert mixed(*words, "--out", "TABLE.XLSX").code in {0, 1}
    head, *rows = sheet(mixed.folder / "TABLE.XLSX")
    lines = read_csv(mixed.folder / "table.csv")
    assert rows
    assert tuple(lines[0]) == head
    assert [[cell or "" for cell in line.values()] for line in lines] == [
        ["" if cell is None else str(cell) for cell in row] for row in rows
    ]
    before = (mixed.folder / "list.csv").read_bytes()
    assert mixed(*words, "--out", "table.txt").code == 2
    assert not (mixed.folder / "table.txt").exists()
    assert words[0] == "merchants" or mixed(*words, "--out", "list.csv").code == 2
    assert (mixed.folder / "list.csv").read_bytes() == before


@pytest.mark.needs("stored")
@pytest.mark.needs("workbooks")
def test_a_list_can_be_a_workbook_and_links_cannot(operator: Operator) -> None:
    (operator.folder / "files" / "007").write_bytes(b"7")
    made = operator("list", "files", "--to", "tea-prod", "--out", "made.xlsx", "--json")
    assert made.code == 0
    assert ("tea-prod", "茶语小铺", "007", "files/007") in sheet(operator.folder / "made.xlsx")
    assert operator("check", "made.xlsx", "--json").json["valid"] == made.json["rows"]
    assert operator("list", "files", "--to", "tea-prod", "--out", "made.xls").code == 2
    assert operator.links("--out", "links.xlsx").code == 2
    assert operator("runs", "--json").json == {"runs": []}
    with pytest.raises(tcb.UsageError, match="secrets"):
        tcb.links(tcb.read_paths("list.csv"), out="links.xlsx")
