from __future__ import annotations

from dataclasses import replace

import pytest

from tcb_ops.lists.table import LIST_COLUMNS, MERCHANT_COLUMNS

TABLE = [
    pytest.param("环境ID,上传路径", {}, {"env": 0, "path": 1}, [], id="chinese"),
    pytest.param("ENV,Path", {}, {"env": 0, "path": 1}, [], id="case"),
    pytest.param("ｅｎｖ,\u3000path ", {}, {"env": 0, "path": 1}, [], id="full-width and spaces"),
    pytest.param("Env ID,cloud_path,App-Id", {}, {"env": 0, "path": 1, "appid": 2}, [], id="spaces, _ and -"),
    pytest.param(
        "商户名称,云端路径,本地文件,小程序ID",
        {},
        {"merchant": 0, "path": 1, "file": 2, "appid": 3},
        [],
        id="all of them",
    ),
    pytest.param("env,路径,目标", {"path": "目标"}, {"env": 0, "path": 2}, [], id="given wins"),
    pytest.param(
        "env,路径",
        {"file": "路径"},
        {"env": 0, "file": 1},
        ["no column for path"],
        id="a given header means nothing else",
    ),
    pytest.param(
        "env,路径,path",
        {},
        {"env": 0, "path": 1},
        ["several columns match path: '路径', 'path'"],
        id="ambiguous",
    ),
    pytest.param("env,path,a,a", {}, {"env": 0, "path": 1}, ["twice"], id="the same header twice"),
    pytest.param("env,path,path", {}, {"env": 0, "path": 1}, ["twice"], id="a duplicate is reported once"),
    pytest.param(
        "env,path",
        {"path": "目标"},
        {"env": 0},
        ["--column path=目标: there is no such column; the header has 'env', 'path'"],
        id="given is not there",
    ),
    pytest.param("env,path,,", {}, {"env": 0, "path": 1}, [], id="columns without a name"),
]


@pytest.mark.parametrize(("headers", "given", "found", "says"), TABLE)
def test_columns_are_found_by_known_and_given_names(
    headers: str, given: dict[str, str], found: dict[str, int], says: list[str]
) -> None:
    columns, problems = replace(LIST_COLUMNS, given=given).find(headers.split(","), 1)
    assert columns == found
    assert [(p.line, p.skippable) for p in problems] == [(1, False)] * len(says)
    for problem, part in zip(problems, says, strict=True):
        assert part in problem.message.en


def test_a_merchants_file_in_chinese_is_understood() -> None:
    headers = ["小程序ID", "商户名称", "环境ID", "默认", "负责方", "状态"]
    columns, problems = MERCHANT_COLUMNS.find(headers, 1)
    assert columns == {"appid": 0, "name": 1, "env": 2, "default": 3, "owner": 4, "status": 5}
    assert not problems


def test_a_header_means_one_thing_only() -> None:
    for columns in (LIST_COLUMNS, MERCHANT_COLUMNS):
        names = [n for theirs in columns.known.values() for n in theirs]
        assert len(names) == len(set(names))


def test_a_missing_column_says_what_is_there_and_how_to_map_it() -> None:
    (problem,) = LIST_COLUMNS.find(["env", "备注"], 1)[1]
    assert "'env', '备注'" in problem.message.en
    assert "--column path=HEADER" in problem.fix.en
    (problem,) = LIST_COLUMNS.find(["env", "备注", "目标"], 1)[1]
    assert "did you mean --column path=目标?" in problem.fix.en
    assert "full-width" in LIST_COLUMNS.find(["env，path"], 1)[1][-1].fix.en
