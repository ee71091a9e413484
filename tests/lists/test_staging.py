from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from tcb_ops.errors import InputError, UsageError
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.staging import format_problem, write_fixme
from tcb_ops.model import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tcb_ops.lists.merchants import Merchants

LIST = "环境ID,上传路径,备注\r\ntea-1a2b3c,好.png,x\r\nnope,/b.png,=1+1\r\ntea-1a2b3c,好.png,007\r\n"


def read(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.count(b"\r\n") == data.count(b"\n")
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("lang", list(Lang))
def test_the_rows_with_problems_stand_once_each_with_what_and_how(
    write: Callable[..., Path], merchants: Merchants, tmp_path: Path, lang: Lang
) -> None:
    with pytest.raises(InputError) as raised:
        read_paths(write(LIST), merchants)
    problems = raised.value.problems
    assert write_fixme(problems, tmp_path / "fix-me.csv", lang) == 2
    header, first, second = read(tmp_path / "fix-me.csv")
    assert header == [
        "环境ID",
        "上传路径",
        "备注",
        "tcb_line",
        "tcb_column",
        "tcb_problem",
        "tcb_fix",
        "tcb_digest",
    ]
    assert first[:5] == ["nope", "/b.png", "'=1+1", "3", "环境ID; 上传路径"]
    assert first[5] == "; ".join(p.message.of(lang) for p in problems[:2])
    assert second[:5] == ["tea-1a2b3c", "好.png", "007", "4", "上传路径"]
    assert second[6] == problems[2].fix.of(lang)


def test_a_fixed_file_can_be_read_back_in(
    write: Callable[..., Path], merchants: Merchants, tmp_path: Path
) -> None:
    batch = read_paths(write(LIST), merchants, on_bad="skip")
    write_fixme(batch.problems, tmp_path / "fix-me.csv")
    text = (tmp_path / "fix-me.csv").read_text("utf-8-sig").replace("nope,/b", "books-77aa01,b")
    again = read_paths(write(text, "fixed.csv"), merchants)
    assert again.headers == batch.headers
    assert [r.cells for r in again.rows()] == [
        ("books-77aa01", "b.png", "=1+1"),
        ("tea-1a2b3c", "好.png", "007"),
    ]


@pytest.mark.parametrize("text", ["env,path\n", "", "a,b\nc,d\n"], ids=["header only", "empty", "no column"])
def test_problems_of_the_file_as_a_whole_give_no_fix_me_file(
    write: Callable[..., Path], merchants: Merchants, tmp_path: Path, text: str
) -> None:
    with pytest.raises(InputError) as raised:
        read_paths(write(text), merchants)
    assert write_fixme(raised.value.problems, tmp_path / "fix-me.csv") == 0
    assert not (tmp_path / "fix-me.csv").exists()


def test_a_file_that_cannot_be_written_is_reported(
    write: Callable[..., Path], merchants: Merchants, tmp_path: Path
) -> None:
    problems = read_paths(write(LIST), merchants, on_bad="skip").problems
    with pytest.raises(UsageError, match="cannot be written"):
        write_fixme(problems, tmp_path / "nowhere/fix-me.csv")


PROBLEM = Problem(7, "路径", Bilingual("is wrong", "不对"), Bilingual("fix it", "请改正"))
WHOLE = Problem(0, "", Bilingual("is wrong", "不对"), Bilingual("fix it", "请改正"))


@pytest.mark.parametrize(
    ("problem", "lang", "line"),
    [
        (PROBLEM, Lang.EN, "p.csv:7: column '路径': is wrong — fix it"),
        (PROBLEM, Lang.ZH, "p.csv:7: “路径”列：不对 —— 请改正"),
        (WHOLE, Lang.EN, "p.csv: is wrong — fix it"),
        (WHOLE, Lang.ZH, "p.csv: 不对 —— 请改正"),
    ],
)
def test_a_problem_is_one_line_that_names_file_line_and_column(
    problem: Problem, lang: Lang, line: str
) -> None:
    assert format_problem("p.csv", problem).of(lang) == line
