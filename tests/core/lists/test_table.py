"""From bytes to a table: encodings, delimiters, quoting, and the columns by their headers."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from tables import table

from tcb_ops.errors import BrokenTableError, InputError
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.lists.input_files import decode, format_problem, open_bytes
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.table import LIST_COLUMNS, MERCHANT_COLUMNS, Rating, read_table
from tcb_ops.model import Problem


@contextmanager
def open_text(source):
    with open_bytes(source) as raw:
        decoded = decode(raw, str(source))
        yield decoded


CHINESE = "环境ID,上传路径\r\ntea-1a2b3c,海报/春季.png\r\n"


@table(
    "data, encoding, text",
    {
        "gb18030 four bytes": ("環境\U00020000".encode("gb18030"), "GB18030", "環境\U00020000"),
        "gb18030 with bom": (b"\x84\x31\x95\x33" + "环境".encode("gb18030"), "GB18030 (BOM)", "环境"),
        "utf-16 big endian": (b"\xfe\xff" + CHINESE.encode("utf-16-be"), "UTF-16", CHINESE),
        "shorter than any magic number": (b"\xef\xbb\xbfa", "UTF-8 (BOM)", "a"),
    },
)
def test_the_encoding_is_bom_then_utf8_then_gb18030(write, data, encoding, text):
    with open_text(write(data)) as (decoded, *facts):
        assert decoded.read() == text
    assert facts == [encoding, len(data), hashlib.sha256(data).hexdigest()]


def test_a_character_cut_by_the_reading_chunk_is_whole(write):
    for shift in range(4):
        text = "x" * ((1 << 20) - shift) + "环境\n"
        for encoding in ("utf-8", "gb18030"):
            with open_text(write(text, encoding=encoding)) as (decoded, *_facts):
                assert decoded.read() == text


@table(
    "data, line, says",
    {
        "only a bom": (b"\xef\xbb\xbf", 0, "empty"),
        "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", 0, "workbook"),
        "utf-16 without bom": ("env\npath".encode("utf-16-le"), 1, "NUL"),
        "the bom lies": (b"\xef\xbb\xbfenv\n" + "环境".encode("gbk"), 2, "UTF-8 (BOM)"),
        "cut in the middle of a character": (b"env\n\xe7", 2, "UTF-8, GB18030"),
        "utf-16 cut in half": (b"\xff\xfee\x00n", 1, "UTF-16"),
        "a NUL character in utf-16": ("\ufeffenv\na\0b".encode("utf-16-le"), 2, "NUL"),
        "one endless line": (b"x" * (17 << 20), 0, "16 MiB"),
    },
)
def test_what_is_no_text_is_refused_naming_the_line(write, data, line, says):
    with pytest.raises(InputError) as raised, open_text(write(data)):
        pass
    (problem,) = raised.value.problems
    assert (problem.line, problem.skippable) == (line, False)
    assert says in problem.message.en


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    errors: list[InputError] = []

    def read():
        try:
            with open_text(tmp_path / "pipe"):
                pass
        except InputError as error:
            errors.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(240)
    assert [p.message.en for e in errors for p in e.problems] == [
        "this is not a regular file but a pipe or a device"
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(write):
    path = write("env,path\n")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"), open_text(path):
        pass


def test_a_file_written_to_while_it_is_read_is_refused(write):
    path = write("env,path\n")
    reading = open_text(path)
    reading.__enter__()[0].read()
    with path.open("a") as file:
        file.write("tea,a\n")
    with pytest.raises(InputError, match="changed while"):
        reading.__exit__(None, None, None)


PROBLEM = Problem(7, "路径", Bilingual("is wrong", "不对"), Bilingual("fix it", "请改正"))
WHOLE = Problem(0, "", Bilingual("is wrong", "不对"), Bilingual("fix it", "请改正"))


@pytest.mark.parametrize(
    ("problem", "lang", "line"),
    [
        (PROBLEM, Lang.EN, "p.csv:7: column '路径': is wrong — fix it"),
        (PROBLEM, Lang.ZH, "p.csv:7: “路径”列：不对。请改正"),
        (WHOLE, Lang.EN, "p.csv: is wrong — fix it"),
        (WHOLE, Lang.ZH, "p.csv: 不对。请改正"),
    ],
)
def test_a_problem_is_one_line_that_names_file_line_and_column(problem, lang, line):
    assert format_problem("p.csv", problem).of(lang) == line


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
    pytest.param(
        "wx7a1c0d3e5f902b41,token-of-the-tea-shop,tea",
        {},
        {},
        [
            "no column for env / merchant; the header has 'wx7a1c0d3e5f902b41', •••, 'tea'",
            "no column for path",
        ],
        id="a row of a token file",
    ),
    pytest.param(
        "48_AbCdEfGhIjKl,banner_names,image_2026",
        {"path": "x"},
        {},
        ["there is no such column; the header has •••, 'banner_names', 'image_2026'", "no column for env"],
        id="a token and names",
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


def test_without_known_names_a_title_is_no_header(tmp_path):
    (tmp_path / "m.csv").write_text("appid,name,env\nwxtea,茶语,tea-prod\n", encoding="utf-8")
    (tmp_path / "p.csv").write_text("十一月,,\n客户名,位置,图\n茶语,a.png,a.png\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_paths(tmp_path / "p.csv", read_merchants(tmp_path / "m.csv"))
    assert [problem.line for problem in caught.value.problems] == [2, 2]
    assert "--header-row" in caught.value.problems[0].fix.en


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


@table(
    "text, delimiter, headers",
    {
        "comma": ("env,path\n", ",", ("env", "path")),
        "semicolon beside a comma": ("env;path;a,b\n", ";", ("env", "path", "a,b")),
        "tab": ("env\tpath\n", "\t", ("env", "path")),
        "bar": ("env|path\n", "|", ("env", "path")),
        "delimiters inside quotes do not count": ('"env";"pa,th,x"\n', ";", ("env", "pa,th,x")),
        "no name known: the one that parts most": ("x;y;z\n", ";", ("x", "y", "z")),
        "the full-width comma parts nothing": ("env，path\n", ",", ("env，path",)),
        "blank lines above": ("\n\n,,\nenv,path\n", ",", ("env", "path")),
        "empty headers at the end": ("env,path,,\n", ",", ("env", "path")),
        "a line break in a header": ('env,"two\nlines"\n', ",", ("env", "two\nlines")),
        "blank": ("\n \n", ",", ()),
    },
)
def test_the_delimiter_is_the_one_whose_header_is_known(text, delimiter, headers):
    table = table_of(text)
    assert (table.delimiter, table.headers) == (delimiter, headers)


@table(
    "body, rows",
    {
        "LF": ("a,b\nc,d\n", [(2, ["a", "b"]), (3, ["c", "d"])]),
        "CRLF": ("a,b\r\nc,d\r\n", [(2, ["a", "b"]), (3, ["c", "d"])]),
        "CR": ("a,b\rc,d\r", [(2, ["a", "b"]), (3, ["c", "d"])]),
        "no line end at the end": ("a,b", [(2, ["a", "b"])]),
        "blank lines count": ("\n\na,b\n\n", [(4, ["a", "b"])]),
        "breaks in quotes count once": ('"a\nb\r\nc",d\ne,f\n', [(2, ["a\nb\r\nc", "d"]), (3, ["e", "f"])]),
        "doubled quotes": ('"a ""b"" c",d\n', [(2, ['a "b" c', "d"])]),
        "a quote within a plain cell": ('5" screen,d\n', [(2, ['5" screen', "d"])]),
        "numbers are text": ("007,1E5\n", [(2, ["007", "1E5"])]),
    },
)
def test_lines_are_numbered_as_a_spreadsheet_numbers_them(body, rows):
    assert list(table_of("env,path\n" + body).rows) == rows


@table(
    "body, line, says",
    {
        "never closed": ('a,b\n"c,d\ne,f\n', 3, "never closes"),
        "never closed, behind a quoted break": ('"a\nb",c\nd,"e\n', 3, "never closes"),
        "closed too early": ('a,"b" c\n', 2, "middle of a cell"),
        "too long": ("a," + "x" * 200_000 + "\n", 2, "never closes"),
    },
)
def test_broken_quoting_is_a_problem_of_the_file_naming_the_line(body, line, says):
    with pytest.raises(BrokenTableError) as raised:
        list(table_of("env,path\n" + body).rows)
    problem = raised.value.problem
    assert (problem.line, problem.skippable) == (line, False)
    assert says in problem.message.en
    assert raised.value.__context__ is None
