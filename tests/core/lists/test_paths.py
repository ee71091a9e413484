import hashlib

import pytest

from tcb_ops.errors import InputError, UsageError
from tcb_ops.i18n import Lang
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import not_advised, path_problem, read_paths
from tcb_ops.model import Row


def problems_of(source, merchants, **options):
    with pytest.raises(InputError) as raised:
        read_paths(source, merchants, **options)
    assert raised.value.source == str(source)
    for problem in raised.value.problems:
        assert problem.message.zh
        assert problem.fix.en
        assert problem.fix.zh
    return [(p.line, p.column, p.message.en) for p in raised.value.problems]


def test_rows_come_in_the_order_of_the_file_with_who_serves_them(write, merchants):
    text = "env,path,价格\ntea-1a2b3c,a/1.png,007\nbooks-77aa01,b/2.png,1E5\n"
    batch = read_paths(write(text), merchants)
    assert list(batch.rows()) == [
        Row(2, "tea-1a2b3c", "a/1.png", "wxtea", "茶语小铺", "a/1.png", ("tea-1a2b3c", "a/1.png", "007")),
        Row(
            3, "books-77aa01", "b/2.png", "wxbooks", "城南书店", "b/2.png", ("books-77aa01", "b/2.png", "1E5")
        ),
    ]
    assert (batch.count, batch.valid, batch.envs, batch.merchants_count) == (2, 2, 2, 2)
    assert batch.headers == ("env", "path", "价格")
    assert (batch.encoding, batch.bytes) == ("UTF-8", len(text.encode()))
    assert batch.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert not batch.problems
    assert batch.warnings == ()


def test_cells_stay_as_they_are_and_values_are_trimmed(write, merchants):
    text = "env,path,note\n\u00a0tea-1a2b3c,\u3000a.png ,  x \ntea-1a2b3c,b.png\u200b,y\ntea-1a2b3c,c.png\n"
    batch = read_paths(write(text), merchants)
    rows = list(batch.rows())
    assert [(r.env, r.path) for r in rows] == [("tea-1a2b3c", f"{p}.png") for p in "abc"]
    assert rows[0].cells == ("\u00a0tea-1a2b3c", "\u3000a.png ", "  x ")
    assert rows[2].cells == ("tea-1a2b3c", "c.png", "")


def test_the_local_file_is_its_column_or_else_the_path(write, merchants):
    text = "env,path,file\ntea-1a2b3c,a/b.png,\ntea-1a2b3c,c.png,图\\子\\c.png\n"
    assert [r.file for r in read_paths(write(text), merchants).rows()] == ["a/b.png", "图/子/c.png"]


def test_the_operator_says_which_column_is_which(write, merchants):
    path = write("哪里,去处,路径\ntea-1a2b3c,a.png,b.png\n")
    (row,) = read_paths(path, merchants, columns={"env": "哪里", "path": "去处", "file": "路径"}).rows()
    assert (row.env, row.path, row.file) == ("tea-1a2b3c", "a.png", "b.png")
    with pytest.raises(UsageError, match="must be one of env, merchant, path, file, appid"):
        read_paths(path, merchants, columns={"key": "去处"})


def test_our_own_export_is_read_back_without_our_columns_and_quotes(write, merchants):
    text = "\ufeffenv,path,备注,tcb_line,tcb_outcome\r\ntea-1a2b3c,'-a.png,'=1+1,7,refused\r\n"
    batch = read_paths(write(text), merchants)
    assert batch.headers == ("env", "path", "备注")
    assert [(r.path, r.cells) for r in batch.rows()] == [("-a.png", ("tea-1a2b3c", "-a.png", "=1+1"))]


def test_a_quote_in_a_list_that_is_not_ours_stays(write, merchants):
    (row,) = read_paths(write("env,path,备注\ntea-1a2b3c,'-a.png,'=1+1\n"), merchants).rows()
    assert (row.path, row.cells[2]) == ("'-a.png", "'=1+1")


ROW_PROBLEMS = [
    pytest.param("tea-1a2b3c", "path", "is empty", id="a short row"),
    pytest.param(",a.png", "env", "is empty", id="no env"),
    pytest.param("shared-5e6f,a.png", "env", "several merchants share", id="shared env"),
    pytest.param("tea-1a2b3c, good.png ", "path", "as in line 2", id="the same again but for spaces"),
    pytest.param("nope,/a.png,x,y,z", "", "5 cells, the header 3; beyond it: y, z", id="too many cells"),
]


@pytest.mark.parametrize(("row", "column", "says"), ROW_PROBLEMS)
def test_a_bad_row_is_refused_or_skipped_as_invalid(write, merchants, row, column, says):
    path = write(f"env,path,note\ntea-1a2b3c,good.png,x\n{row}\nbooks-77aa01,good.png,x\n")
    ((line, where, message),) = problems_of(path, merchants)
    assert (line, where) == (3, column)
    assert says in message
    batch = read_paths(path, merchants, on_bad="skip")
    rows = list(batch.rows())
    assert [bool(r.invalid) for r in rows] == [False, True, False]
    assert says in rows[1].invalid.en
    assert [problem.column for problem in batch.problems] == [column]
    assert (batch.count, batch.valid, batch.envs, batch.merchants_count) == (3, 2, 2, 2)


def test_all_problems_are_reported_in_one_pass_in_the_order_of_the_file(write, merchants, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.png").write_bytes(b"x")
    text = "环境ID,path\ntea-1a2b3c,a.png\nnope,/b.png\ntea-1a2b3c,a.png\n,\nbooks-77aa01,c.png\n"
    problems = problems_of(write(text), merchants, root=tmp_path / "root")
    assert [(line, column) for line, column, _ in problems] == [
        (3, "环境ID"),
        (3, "path"),
        (4, "path"),
        (6, "path"),
    ]
    assert "no file c.png" in problems[-1][2]


def test_a_later_duplicate_is_the_bad_one_and_a_bad_row_is_nobodys_first(write, merchants):
    text = "merchant,env,path\n,tea-1a2b3c,c,too,many\n,tea-1a2b3c,c\n,tea-1a2b3c,a\n茶语小铺,,a\n,tea-1a2b3c,a\n,nope,b\n,nope,b\n"
    problems = problems_of(write(text), merchants)
    assert [(line, message) for line, _, message in problems if "same" in message] == [
        (5, "the same environment and path as in line 4"),
        (6, "the same environment and path as in line 4"),
    ]
    assert [line for line, _, _ in problems] == [2, 5, 6, 7, 8]


FILE_PROBLEMS = [
    pytest.param("env,path\n,\n\n", "no row below", id="header and blank rows"),
    pytest.param('env,path\ntea-1a2b3c,a\ntea-1a2b3c,"b\n', "never closes", id="an open quote"),
    pytest.param(b"env,path\ntea-1a2b3c,\xff\xff\n", "not text in", id="undecodable"),
]


@pytest.mark.parametrize(("text", "says"), FILE_PROBLEMS)
def test_a_problem_of_the_file_itself_cannot_be_skipped(write, merchants, text, says):
    assert says in problems_of(write(text), merchants, on_bad="skip")[-1][2]


def test_an_error_says_the_first_problem_and_how_many_there_are(write, merchants):
    path = write("env,path\nnope,a\nnope,b\n")
    with pytest.raises(InputError) as raised:
        read_paths(path, merchants)
    assert "2 problems, so nothing was sent" in str(raised.value)
    assert f"{path}:2: column 'env': the merchants file has no environment 'nope'" in str(raised.value)
    assert "2 处问题" in raised.value.text.of(Lang.ZH)


def test_rows_that_where_leaves_out_are_counted_and_not_judged(write, merchants):
    books = Merchants([m for m in merchants if m.appid == "wxbooks"], "merchants.csv", merchants)
    text = "env,path\ntea-1a2b3c,/bad\nbooks-77aa01,a\ntea-1a2b3c,b\ntea-1a2b3c,b\n"
    batch = read_paths(write(text), books)
    assert [r.line for r in batch.rows()] == [3]
    assert (batch.count, batch.left_out) == (1, 3)
    assert "3 more excluded by --where" in batch.decided.en
    assert [m for _, _, m in problems_of(write("env,path\nnope,a\n"), books)] == [
        "the merchants file has no environment 'nope'"
    ]
    with pytest.raises(UsageError, match="where excludes every row \\(1 row\\)"):
        read_paths(write("env,path\ntea-1a2b3c,b\n"), books)


def test_what_was_decided_is_one_line_in_both_languages(write, merchants):
    batch = read_paths(write("环境ID;path\ntea-1a2b3c;a\n", encoding="gb18030"), merchants)
    assert batch.decided.en.endswith("paths.csv: GB18030, semicolon; columns 环境ID (env), path; 1 row")
    assert batch.decided.zh.endswith("paths.csv：GB18030，分号分隔；列 环境ID（env）、path；1 行")


def test_paths_that_are_not_advised_are_warned_about_once(write, merchants):
    text = "env,path\ntea-1a2b3c,a#1.png\ntea-1a2b3c,b%20.png\n"
    (unadvised,) = read_paths(write(text), merchants).warnings
    assert unadvised.en.startswith("Paths with characters that the storage advises against: 2;")
    assert "first: line 2, #" in unadvised.en


GOOD = [
    "a.png",
    "a/b/c.png",
    "目录/图 1.png",
    ".hidden",
    "a/.well-known/x",
    "a..b/c...png",
    "a/...",
    "a,b:c;d=e&f$g@h+i?j.png",
    "-!_.*",
    "a" * 850,
    "中" * 283,
    "😀.png",
]
BAD = [
    pytest.param("", "is empty", id="empty"),
    pytest.param("/a.png", "begins with /", id="leading slash"),
    pytest.param("//a.png", "begins with /", id="two leading slashes"),
    pytest.param("\\a.png", "begins with \\", id="leading backslash"),
    pytest.param("a/access_token=•••", "contains •••", id="hidden in a report"),
    pytest.param("a//b.png", "contains //", id="double slash"),
    pytest.param("banner/", "ends with /", id="folder"),
    pytest.param("a//", "contains //", id="double slash at the end"),
    pytest.param(".", "a . segment", id="dot"),
    pytest.param("./a", "a . segment", id="dot first"),
    pytest.param("a/./b", "a . segment", id="dot within"),
    pytest.param("a/..", "a .. segment", id="dots last"),
    pytest.param("a/../b", "a .. segment", id="dots within"),
    pytest.param("../b", "a .. segment", id="dots first"),
    *(
        pytest.param(f"a{chr(c)}b", f"U+{c:04X}", id=f"control {c}")
        for c in (0, 9, 10, 13, 24, 25, 26, 27, 31, 127)
    ),
    pytest.param("a" * 851, "851 bytes", id="851 bytes"),
    pytest.param("中" * 284, "852 bytes", id="852 bytes of Chinese"),
]


@pytest.mark.parametrize("path", GOOD)
def test_a_path_within_the_naming_rules_passes(path):
    assert path_problem(path) is None
    assert not_advised(path) == ""


@pytest.mark.parametrize(("path", "says"), BAD)
def test_a_path_that_breaks_a_naming_rule_is_reported_with_a_fix(path, says):
    problem = path_problem(path)
    message, fix = problem
    assert says in message.en
    assert message.zh
    assert fix.en
    assert fix.zh


@pytest.mark.parametrize("character", [*'`^"\\{}[]~%#><', "é", "ж", "\u00a0", "\u200b"])
def test_characters_that_the_storage_advises_against_are_noticed(character):
    assert path_problem(f"a{character}b") is None
    assert not_advised(f"a{character}b") == character
