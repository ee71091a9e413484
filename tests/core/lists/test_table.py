import io
from dataclasses import replace

import pytest

from tcb_ops.errors import BrokenTableError
from tcb_ops.lists.table import LIST_COLUMNS, MERCHANT_COLUMNS, Rating, read_table

TABLE = [
    pytest.param("环境ID,上传路径", {}, {"env": 0, "path": 1}, [], id="chinese"),
    pytest.param("ENV,Path", {}, {"env": 0, "path": 1}, [], id="case"),
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
def test_columns_are_found_by_known_and_given_names(headers, given, found, says):
    columns, problems = replace(LIST_COLUMNS, given=given).find(headers.split(","), 1)
    assert columns == found
    assert [(p.line, p.skippable) for p in problems] == [(1, False)] * len(says)
    for problem, part in zip(problems, says, strict=True):
        assert part in problem.message.en


def test_a_header_means_one_thing_only():
    for columns in (LIST_COLUMNS, MERCHANT_COLUMNS):
        names = [n for theirs in columns.known.values() for n in theirs]
        assert len(names) == len(set(names))


def test_a_missing_column_says_what_is_there_and_how_to_map_it():
    (problem,) = LIST_COLUMNS.find(["env", "备注"], 1)[1]
    assert "'env', '备注'" in problem.message.en
    assert "--column path=HEADER" in problem.fix.en
    assert "full-width" in LIST_COLUMNS.find(["env，path"], 1)[1][-1].fix.en


KNOWN = {"env", "path", "环境"}


def known(headers):
    count = sum(h.strip() in KNOWN for h in headers)
    return Rating(count > 1, count)


def table_of(text):
    return read_table(io.StringIO(text, newline=""), known)


@pytest.mark.parametrize(
    ("text", "delimiter", "headers"),
    [
        pytest.param("env,path\n", ",", ("env", "path"), id="comma"),
        pytest.param("env;path;a,b\n", ";", ("env", "path", "a,b"), id="semicolon beside a comma"),
        pytest.param("env\tpath\n", "\t", ("env", "path"), id="tab"),
        pytest.param("env|path\n", "|", ("env", "path"), id="bar"),
        pytest.param(
            '"env";"pa,th,x"\n', ";", ("env", "pa,th,x"), id="delimiters inside quotes do not count"
        ),
        pytest.param("x;y;z\n", ";", ("x", "y", "z"), id="no name known: the one that parts most"),
        pytest.param("env，path\n", ",", ("env，path",), id="the full-width comma parts nothing"),
        pytest.param("\n\n,,\nenv,path\n", ",", ("env", "path"), id="blank lines above"),
        pytest.param("env,path,,\n", ",", ("env", "path"), id="empty headers at the end"),
        pytest.param('env,"two\nlines"\n', ",", ("env", "two\nlines"), id="a line break in a header"),
        pytest.param("\n \n", ",", (), id="blank"),
    ],
)
def test_the_delimiter_is_the_one_whose_header_is_known(text, delimiter, headers):
    table = table_of(text)
    assert (table.delimiter, table.headers) == (delimiter, headers)


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        pytest.param("a,b\nc,d\n", [(2, ["a", "b"]), (3, ["c", "d"])], id="LF"),
        pytest.param("a,b\r\nc,d\r\n", [(2, ["a", "b"]), (3, ["c", "d"])], id="CRLF"),
        pytest.param("a,b\rc,d\r", [(2, ["a", "b"]), (3, ["c", "d"])], id="CR"),
        pytest.param("a,b", [(2, ["a", "b"])], id="no line end at the end"),
        pytest.param("\n\na,b\n\n", [(4, ["a", "b"])], id="blank lines count"),
        pytest.param(
            '"a\nb\r\nc",d\ne,f\n',
            [(2, ["a\nb\r\nc", "d"]), (3, ["e", "f"])],
            id="breaks in quotes count once",
        ),
        pytest.param('"a ""b"" c",d\n', [(2, ['a "b" c', "d"])], id="doubled quotes"),
        pytest.param('5" screen,d\n', [(2, ['5" screen', "d"])], id="a quote within a plain cell"),
        pytest.param("007,1E5\n", [(2, ["007", "1E5"])], id="numbers are text"),
    ],
)
def test_lines_are_numbered_as_a_spreadsheet_numbers_them(body, rows):
    assert list(table_of("env,path\n" + body).rows) == rows


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        pytest.param('a,b\n"c,d\ne,f\n', 3, "opens in this line", id="never closed"),
        pytest.param('"a\nb",c\nd,"e\n', 3, "opens in this line", id="never closed, behind a quoted break"),
        pytest.param('a,"b" c\n', 2, "middle of a cell", id="closed too early"),
        pytest.param("a," + "x" * 200_000 + "\n", 2, "131,072", id="too long"),
    ],
)
def test_broken_quoting_is_a_problem_of_the_file_naming_the_line(body, line, says):
    with pytest.raises(BrokenTableError) as raised:
        list(table_of("env,path\n" + body).rows)
    problem = raised.value.problem
    assert (problem.line, problem.skippable) == (line, False)
    assert says in problem.message.en
    assert raised.value.__context__ is None
