"""Contract §2: what a list may look like, and how its problems are reported."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

import pytest
from contract.conftest import GOOD, read_csv, write_csv
from openpyxl import Workbook

import tcb_ops as tcb

if TYPE_CHECKING:
    from contract.conftest import Operator

CHINESE = "环境ID,上传路径,本地文件,编号\ntea-prod,图片/甲.png,1.bin,007\n"
BAD = [
    ("tea-prod", "a/0.png"),
    ("tea-prod", "a//b.png"),
    ("nowhere", "a/2.png"),
    ("tea-prod", "../c.png"),
    ("", "a/4.png"),
    ("tea-prod", "a/0.png"),
]
BAD_LINES = [3, 4, 5, 6, 7]
"""All but the first: an empty segment, an unknown environment, `..`, no environment, the first row's path again."""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_the_encoding_is_found_and_values_stay_text(operator: Operator, encoding: str) -> None:
    (operator.folder / "list.csv").write_text(CHINESE, encoding=encoding)
    (row,) = tcb.read_paths("list.csv", "merchants.csv", "files").rows()
    assert (row.line, row.env, row.path, row.file) == (2, "tea-prod", "图片/甲.png", "1.bin")
    assert row.cells[3] == "007"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found(operator: Operator, delimiter: str) -> None:
    (operator.folder / "list.csv").write_text(CHINESE.replace(",", delimiter), encoding="utf-8")
    assert operator("check", "list.csv").code == 0


def test_a_merchant_stands_for_its_default_environment(operator: Operator) -> None:
    write_csv(operator.folder / "list.csv", ("商户", "path"), [("茶语小铺", "a.png"), ("wxbooks", "b.png")])
    assert [row.env for row in tcb.read_paths("list.csv", "merchants.csv").rows()] == [
        "tea-prod",
        "books-prod",
    ]


def test_other_headers_are_mapped(operator: Operator) -> None:
    write_csv(operator.folder / "list.csv", ("去向", "云端"), [("tea-prod", "a.png")])
    assert operator("check", "list.csv").code == 2
    assert operator("check", "list.csv", "--column", "env=去向", "--column", "path=云端").code == 0


def test_all_problems_are_reported_in_one_pass_and_nothing_is_sent(operator: Operator) -> None:
    operator.list(BAD)
    done = operator.upload("--json")
    assert (done.code, [problem["line"] for problem in done.json["problems"]]) == (2, BAD_LINES)
    assert [int(line) for line in re.findall(r"^list\.csv:(\d+): ", done.err, re.MULTILINE)] == BAD_LINES
    assert operator("runs", "--json").json == {"runs": []}
    fixme = read_csv(operator.folder / "list.fix-me.csv")
    assert [int(line["tcb_line"]) for line in fixme] == BAD_LINES
    assert [(line["env"], line["path"]) for line in fixme] == BAD[1:]
    assert all(line["tcb_problem"] for line in fixme)


def test_only_fifty_problems_are_shown_and_all_are_in_the_file(operator: Operator) -> None:
    operator.list([("nowhere", f"{n}.png") for n in range(60)])
    done = operator("check", "list.csv")
    assert (done.code, len(re.findall(r"^list\.csv:\d+: ", done.err, re.MULTILINE))) == (2, 50)
    assert len(read_csv(operator.folder / "list.fix-me.csv")) == 60


def test_rows_with_problems_can_be_skipped_and_end_as_invalid(operator: Operator) -> None:
    operator.list(BAD)
    done = operator.upload("--on-bad", "skip", "--json")
    assert (done.code, done.json["counts"]) == (1, {"uploaded": 1, "invalid": 5})
    lines = {
        line["tcb_line"]: line["tcb_outcome"]
        for line in read_csv(operator.folder / done.json["report"] / "failed.csv")
    }
    assert lines == {str(line): "invalid" for line in BAD_LINES}


def test_files_that_cannot_be_sent_are_problems_of_uploads_alone(operator: Operator) -> None:
    operator.list(GOOD)
    (operator.folder / "files" / "2.bin").unlink()
    done = operator.upload()
    assert (done.code, re.findall(r"^list\.csv:(\d+): ", done.err, re.MULTILINE)) == (2, ["3"])
    assert operator.links("--json").json["counts"] == {"linked": 4}


def test_content_types_come_from_the_list_or_the_extension(operator: Operator) -> None:
    lines = [("tea-prod", "a.png", "1.bin", ""), ("tea-prod", "b.png", "2.bin", "text/x-own")]
    write_csv(
        operator.folder / "list.csv",
        ("env", "path", "file", "content_type"),
        [*lines, ("tea-prod", "c", "3", "")],
    )
    (operator.folder / "files" / "3").touch()
    report = operator.folder / operator.upload("--json").json["report"]
    types = [line["tcb_content_type"] for line in read_csv(report / "results.csv")]
    assert types == ["image/png", "text/x-own", "application/octet-stream"]


def test_where_restricts_a_command_to_merchants(operator: Operator) -> None:
    operator.list([*GOOD, ("books-prod", "b.png")])
    assert operator.upload("--where", "name=城南书店", "--json").json["counts"] == {"uploaded": 1}
    assert operator.upload("--where", "name=nobody").code == 2


@pytest.mark.needs("health")
@pytest.mark.needs("workbooks")
def test_a_workbook_can_be_the_merchants_file(operator: Operator) -> None:
    book = Workbook()
    with (operator.folder / "merchants.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            book.active.append(row)
    book.save(operator.folder / "merchants.xlsx")
    assert [*tcb.read_merchants("merchants.xlsx").frame()["env"]] == [
        *tcb.read_merchants("merchants.csv").envs
    ]
    assert operator("upload", "list.csv", "--root", "files", "--merchants", "merchants.xlsx").code == 0
    assert operator("audit", "--merchants", "merchants.xlsx", "--json").json["rows"] == 5
    book.active["C2"] = 7
    book.save(operator.folder / "merchants.xlsx")
    done = operator("check", "list.csv", "--merchants", "merchants.xlsx")
    assert done.code == 2
    assert "C2" in done.err


def test_check_looks_for_files_as_upload_does(operator: Operator) -> None:
    write_csv(
        operator.folder / "list.csv",
        ("env", "path", "picture", "owner"),
        [("tea-prod", "x/a.png", "files/1.bin", "li"), ("tea-prod", "x/b.png", "files/2.bin", "li")],
    )
    done = operator("check", "list.csv")
    assert done.code == 0
    assert "picture, owner" in done.err
    assert "--column file=picture" in done.err
    assert operator("check", "list.csv", "--root", ".").code == 2
    assert operator("check", "list.csv", "--column", "file=picture").code == 0
    (operator.folder / "files" / "2.bin").unlink()
    done = operator("check", "list.csv", "--column", "file=picture")
    assert (done.code, "list.csv:3" in done.err) == (2, True)
