from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from tcb_ops.errors import BrokenTableError
from tcb_ops.lists.source import read_table
from tcb_ops.lists.table import Rating, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

KNOWN = {"env", "path", "环境"}


def known(headers: Sequence[str]) -> Rating:
    count = sum(h.strip() in KNOWN for h in headers)
    return Rating(count > 1, count)


def table_of(text: str) -> Table:
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
def test_the_delimiter_is_the_one_whose_header_is_known(
    text: str, delimiter: str, headers: tuple[str, ...]
) -> None:
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
def test_lines_are_numbered_as_a_spreadsheet_numbers_them(
    body: str, rows: list[tuple[int, list[str]]]
) -> None:
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
def test_broken_quoting_is_a_problem_of_the_file_naming_the_line(body: str, line: int, says: str) -> None:
    with pytest.raises(BrokenTableError) as raised:
        list(table_of("env,path\n" + body).rows)
    problem = raised.value.problem
    assert (problem.line, problem.skippable) == (line, False)
    assert says in problem.message.en
    assert raised.value.__context__ is None
