"""Ugly lists, kept as files, each ending as corpus/expected.toml says: through the command, as an operator meets it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tcb_ops.cli.main import run
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.lists.paths import read_paths

CORPUS = Path(__file__).parent / "corpus"
OURS = {"merchants.csv", "expected.toml"}
LISTS: list[dict[str, Any]] = tomllib.loads((CORPUS / "expected.toml").read_text(encoding="utf-8"))["list"]
PROBLEM = re.compile(r"(?:(\d+): )?(?:column '([^']*)': )?(.*?) — .+")


@pytest.fixture
def merchants():
    return read_merchants(CORPUS / "merchants.csv")


def check(name, tmp_path, *options):
    shared = ("--merchants", str(CORPUS / "merchants.csv"), "--fix-me", str(tmp_path / "fix-me.csv"))
    return run(["check", str(CORPUS / name), *shared, "--lang", "en", "--json", *options])


def problems_in(name, stderr):
    """(line, column, message) of every problem line on stderr."""
    begin = str(CORPUS / name) + ":"
    lines = [line.removeprefix(begin).strip() for line in stderr.splitlines() if line.startswith(begin)]
    found = [m for m in map(PROBLEM.fullmatch, lines) if m is not None]
    return [(int(m[1] or 0), m[2] or "", m[3]) for m in found]


@pytest.mark.needs("workbooks")
@pytest.mark.parametrize("wanted", LISTS, ids=[" ".join([w["file"], *w.get("options", [])]) for w in LISTS])
def test_a_list_ends_as_the_table_beside_it_says(wanted, tmp_path, capsys):
    code = check(wanted["file"], tmp_path, *wanted.get("options", []))
    out, err = capsys.readouterr()
    found = problems_in(wanted["file"], err)
    problems = wanted.get("problems", [])
    assert [(line, column) for line, column, _ in found] == [(line, column) for line, column, _ in problems]
    for (_, _, message), (_, _, part) in zip(found, problems, strict=True):
        assert part in message
    for part in wanted.get("says", []):
        assert part in err
    assert "defect" not in err
    assert code == wanted.get("exit", 0)
    if code == 2:
        assert json.loads(out)["error"]["code"] in {"input", "usage"}
        return
    facts = json.loads(out)
    good = wanted.get("good", wanted["rows"])
    assert (facts["encoding"], facts["rows"], facts["valid"]) == (wanted["encoding"], wanted["rows"], good)


def test_every_list_of_the_corpus_is_in_the_table_and_small():
    files = {file.name: file.stat().st_size for file in CORPUS.iterdir() if file.is_file()}
    assert files.keys() - OURS == {wanted["file"] for wanted in LISTS}
    assert len(files.keys() - OURS) >= 40
    assert max(files.values()) < 20_000


@pytest.mark.needs("workbooks")
def test_a_workbook_s_cells_are_taken_as_they_show(merchants):
    (row,) = read_paths(CORPUS / "other-columns.xlsx", merchants).rows()
    assert row.cells == (
        "1984", "a.png", "12", "0.1", "2026-01-02", "2026-01-02 08:30:00", "TRUE", "007", "7", "24", "123456789012",
    )  # fmt: skip
    assert (row.merchant, row.env) == ("1984", "old-1984")
    (row,) = read_paths(CORPUS / "days-since-1904.xlsx", merchants).rows()
    assert row.cells == ("tea-1a2b3c", "a.png", "2026-01-02")


@pytest.mark.needs("workbooks")
@pytest.mark.parametrize("name", ["no-cell-names.xlsx", "strict.xlsx", "prefixed.xlsx"])
def test_runs_are_joined_sounds_left_out_and_escapes_read(name, merchants):
    rows = list(read_paths(CORPUS / name, merchants).rows())
    assert [row.path for row in rows] == ["東京.png", "a"]
    assert rows[1].cells[1] == " a\r"


@pytest.mark.parametrize("name", ["utf-8.csv", "gb18030.csv", "utf-16-tabs.txt", "cr.csv", "bars.csv"])
def test_however_a_list_was_saved_its_values_are_the_same(name, merchants):
    assert [row.cells for row in read_paths(CORPUS / name, merchants).rows()] == [
        ("tea-1a2b3c", "banner/春.png", "007"),
        ("books-77aa01", "banner/书.png", "008"),
    ]


def test_numbers_in_a_csv_stay_the_text_they_are(merchants):
    rows = read_paths(CORPUS / "numbers-are-text.csv", merchants).rows()
    assert [(r.path, r.file) for r in rows] == [("1E5", "007"), ("2026/1/2", "0.10"), ("００７", "-1")]
