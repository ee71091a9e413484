"""The merchants file: reading, and editing, where all but the changes stays byte for byte."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tcb_ops.errors import InputError, StoppedError, UsageError
from tcb_ops.lists.merchants import Merchants, edit_merchants, read_merchants, write_merchants
from tcb_ops.model import Merchant, Owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


FULL = (
    "appid,name,env,default,owner,status,region\n"
    "wxtea,茶语小铺,tea-1,yes,,,华东\n"
    "wxtea,茶语小铺,tea-2,,merchant,,华东\n"
    "wxbooks,城南书店,books-1,,platform,left,华北\n"
)


def test_a_merchants_file_is_read_with_all_its_columns(write: Callable[..., Path]) -> None:
    merchants = read_merchants(write(FULL, "m.csv"))
    assert len(merchants) == 3
    assert merchants[2] == Merchant(
        "wxbooks",
        "城南书店",
        "books-1",
        default=False,
        owner=Owner.PLATFORM,
        left=True,
        columns=(
            ("appid", "wxbooks"),
            ("name", "城南书店"),
            ("env", "books-1"),
            ("default", ""),
            ("owner", "platform"),
            ("status", "left"),
            ("region", "华北"),
        ),
    )
    assert [m.default for m in merchants] == [True, False, False]
    assert merchants.envs == ("tea-1", "tea-2", "books-1")
    assert merchants.source.endswith("m.csv")


def test_headers_and_words_may_be_chinese_and_the_encoding_gb18030(write: Callable[..., Path]) -> None:
    text = (
        "小程序ID；商户名称；环境ID；默认；负责方；状态\nwxtea；茶语；tea-1；是；平台；已取消授权\n".replace(
            "；", ";"
        )
    )
    (merchant,) = read_merchants(write(text, "m.csv", "gb18030"))
    assert (merchant.appid, merchant.name, merchant.env) == ("wxtea", "茶语", "tea-1")
    assert (merchant.default, merchant.owner, merchant.left) == (True, Owner.PLATFORM, True)


def test_short_blank_and_spaced_lines_are_taken_as_they_are_meant(write: Callable[..., Path]) -> None:
    merchants = read_merchants(write("appid,name,env,note\n\n wxtea ,茶语\u3000,tea-1\n,,,\n", "m.csv"))
    assert [(m.appid, m.name, m.env) for m in merchants] == [("wxtea", "茶语", "tea-1")]


def test_a_merchant_is_found_by_name_or_appid_whatever_width_and_case(write: Callable[..., Path]) -> None:
    merchants = read_merchants(write(FULL, "m.csv"))
    for name in ("茶语小铺", " ＷＸＴＥＡ\u3000", "wxtea"):
        assert [m.env for m in merchants.resolve(name)] == ["tea-1", "tea-2"]
    assert merchants.resolve("nobody") == ()
    assert [m.appid for m in merchants.for_env("books-1")] == ["wxbooks"]
    assert merchants.for_env("nowhere") == ()


def test_an_environment_may_belong_to_several_appids() -> None:
    merchants = Merchants([Merchant("a", "甲", "e"), Merchant("b", "乙", "e")])
    assert [m.appid for m in merchants.for_env("e")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("appid,name\nwxtea,茶语\n", [(1, "", "no column for env")], id="a missing column"),
        pytest.param(
            "a,b\n1,2\n", [(1, "", "for appid"), (1, "", "for name"), (1, "", "for env")], id="all missing"
        ),
        pytest.param("appid,name,env\n", [(0, "", "no merchant below")], id="header only"),
        pytest.param(
            "appid,name,env\n,茶语,\nwxtea,,e\n",
            [(2, "appid", "empty"), (2, "env", "empty"), (3, "name", "empty")],
            id="empty cells",
        ),
        pytest.param(
            "appid,name,env\nwxtea,茶语,e\nwxtea,茶,e\n",
            [(3, "env", "is already in line 2")],
            id="the same line twice",
        ),
        pytest.param(
            "appid,name,env,default,owner,status\nwxtea,茶语,e,maybe,nobody,ill\n",
            [(2, "default", "'maybe'"), (2, "owner", "'nobody'"), (2, "status", "'ill'")],
            id="unknown words",
        ),
        pytest.param(
            "appid,name,env,default\nwxtea,茶语,e,yes\nwxtea,茶语,f,yes\n",
            [(3, "default", "is already set in line 2")],
            id="two defaults",
        ),
        pytest.param("appid,name,env\na,b,c,d\n", [(2, "", "4 cells")], id="too many cells"),
        pytest.param(
            'appid,name,env\n,b,c\n"a,b\n',
            [(2, "appid", "empty"), (3, "", "never closes")],
            id="a broken quote",
        ),
    ],
)
def test_all_problems_of_a_merchants_file_are_reported_in_one_pass(
    write: Callable[..., Path], text: str, says: list[tuple[int, str, str]]
) -> None:
    with pytest.raises(InputError) as raised:
        read_merchants(write(text, "m.csv"))
    problems = raised.value.problems
    assert [(p.line, p.column) for p in problems] == [(line, column) for line, column, _ in says]
    for problem, (_, _, part) in zip(problems, says, strict=True):
        assert part in problem.message.en
        assert not problem.skippable
    assert raised.value.source.endswith("m.csv")


@pytest.mark.parametrize(
    ("where", "envs"),
    [
        pytest.param(["region=华东"], ["tea-1", "tea-2"], id="a column of their own"),
        pytest.param(["Region = 华东 "], ["tea-1", "tea-2"], id="case and spaces"),
        pytest.param(["region=华东", "env=tea-2"], ["tea-2"], id="both must fit"),
        pytest.param(["env=tea-1", "env=books-1"], ["tea-1", "books-1"], id="one column twice: either"),
        pytest.param(["default="], ["tea-2", "books-1"], id="an empty value"),
    ],
)
def test_where_narrows_and_the_whole_file_stays_at_hand(
    write: Callable[..., Path], where: list[str], envs: list[str]
) -> None:
    merchants = read_merchants(write(FULL, "m.csv"), where)
    assert [m.env for m in merchants] == envs
    assert len(merchants.whole) == 3
    assert [m in merchants for m in merchants.whole] == [m.env in envs for m in merchants.whole]


def test_where_knows_our_names_of_chinese_columns(write: Callable[..., Path]) -> None:
    path = write("小程序ID,商户,环境ID\nwxtea,茶语,tea-1\nwxb,书店,b-1\n", "m.csv")
    assert [m.env for m in read_merchants(path, ["name=茶语"])] == ["tea-1"]
    assert [m.env for m in read_merchants(path, ["商户=茶语"])] == ["tea-1"]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        pytest.param(
            "stage=beta", "it has appid, name, env, default, owner, status, region", id="unknown column"
        ),
        pytest.param("region=火星", "no merchant of .* matches", id="nobody left"),
        pytest.param("region", "column=value", id="no equals sign"),
    ],
)
def test_a_where_that_cannot_be_meant_is_refused(write: Callable[..., Path], where: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_merchants(write(FULL, "m.csv"), [where])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param('"appid,name,env\nwxtea,茶语,tea-1\n', 1, id="the header"),
        pytest.param('appid,name,env\n"wxtea,茶语,tea-1\nwxb,书店,b-1\n', 2, id="the first row"),
        pytest.param('商户表\nappid,name,env\nwxb,书店,b-1\nwxtea,"茶语,tea-1\n', 4, id="the last row"),
        pytest.param('appid,name,env\nwxtea,"茶语,tea-1' + "x" * 140_000, 2, id="more than a cell takes"),
        pytest.param('appid,name,env\nwxtea,"茶"语,tea-1\n', 2, id="a quote that closes too early"),
    ],
)
@pytest.mark.parametrize("read", [read_merchants, edit_merchants])
def test_an_open_quote_is_reported_with_file_and_line(
    write: Callable[..., Path], read: Callable[[Path], object], text: str, line: int
) -> None:
    with pytest.raises(InputError) as raised:
        read(write(text, "m.csv"))
    assert raised.value.source.endswith("m.csv")
    (problem,) = raised.value.problems
    assert problem.line == line
    assert "quote" in problem.message.en
    assert "引号" in problem.message.zh
    assert raised.value.__cause__ is None


NEW = Merchant("wx9", "新茶铺", "new-1a2b3c")
FILES = {
    "plain": ("appid,name,env,status\nwx1,茶语小铺,tea-1,\nwx2,城南书店,books-1,left\n", "utf-8", "\n"),
    "gb18030, CRLF, Chinese headers": (
        "小程序ID,商户名称,环境ID,区域,授权状态\r\nwx1,茶语小铺,tea-1,华东,正常\r\nwx2,城南书店,books-1,华北,已离开\r\n",
        "gb18030",
        "\r\n",
    ),
    "BOM, tabs": (
        "appid\tname\tenv\tstatus\r\nwx1\t茶语,小铺\ttea-1\t\r\nwx2\t书店\tbooks-1\tleft\r\n",
        "utf-8-sig",
        "\r\n",
    ),
    "utf-16": (
        "appid\tname\tenv\tstatus\r\nwx1\t茶语小铺\ttea-1\t\r\nwx2\t书店\tbooks-1\tleft\r\n",
        "utf-16",
        "\r\n",
    ),
    "titles, blank lines, quotes": (
        (
            '2026 年商户表\n\nappid,"name",env,备注,status\n"wx1","茶语 ""老店"" 小铺","tea-1","两行\n备注, 带逗号",\n\n'
            'wx2,书店,books-1,"007","left"\n,,,,\n'
        ),
        "utf-8",
        "\n",
    ),
    "old Mac, no line end at the end": (
        "appid;name;env;status\rwx1;茶语小铺;tea-1;\rwx2;书店;books-1;left",
        "utf-8",
        "\r",
    ),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "merchants.csv"


def written(file, text, codec="utf-8"):
    file.write_bytes(text.encode(codec))
    return edit_merchants(file)


@pytest.mark.parametrize(("text", "codec", "end"), FILES.values(), ids=FILES)
def test_nothing_changed_is_the_same_bytes(file, text, codec, end):
    roster = written(file, text, codec)
    assert roster.edited({}, {}, ()) == file.read_bytes()
    assert [m.left for m in roster.merchants] == [False, True]


@pytest.mark.parametrize(("text", "codec", "end"), FILES.values(), ids=FILES)
def test_a_line_more_is_all_that_is_added(file, text, codec, end):
    roster = written(file, text, codec)
    more = roster.edited({}, {}, (NEW,))
    before = text if text.endswith(end) else text + end
    assert more.startswith(before.encode(codec))
    assert (
        more.removeprefix(before.encode(codec))
        .decode(codec.replace("-sig", "").replace("utf-16", "utf-16-le"))
        .endswith(end)
    )
    file.write_bytes(more)
    assert [(m.appid, m.name, m.env) for m in read_merchants(file)][2:] == [(NEW.appid, NEW.name, NEW.env)]


@pytest.mark.parametrize(("text", "codec", "end"), FILES.values(), ids=FILES)
def test_only_the_status_of_the_lines_named_changes(file, text, codec, end):
    roster = written(file, text, codec)
    file.write_bytes(roster.edited({0: True, 1: False}, {}, ()))
    after = read_merchants(file)
    assert [m.left for m in after] == [True, False]
    status = len(roster.merchants[0].columns) - 1
    for before, now in zip(roster.merchants, after, strict=True):
        assert before.columns[:status] == now.columns[:status]
        assert before.columns[status][0] == now.columns[status][0]


def test_a_status_column_comes_with_the_first_line_that_needs_one(file):
    roster = written(file, "appid,name,env,区域\r\nwx1,茶语小铺,tea-1,华东\r\n\r\nwx2,书店,books-1\r\n")
    assert roster.edited({1: True}, {}, (NEW,)).decode() == (
        "appid,name,env,区域,status\r\nwx1,茶语小铺,tea-1,华东,\r\n\r\nwx2,书店,books-1,,left\r\nwx9,新茶铺,new-1a2b3c,,\r\n"
    )


def test_a_status_column_takes_the_place_of_an_empty_header(file):
    roster = written(file, "小程序ID,名称,环境ID,,\nwx1,茶语小铺,tea-1,,\n")
    assert (
        roster.edited({0: True}, {}, ()).decode() == "小程序ID,名称,环境ID,状态,\nwx1,茶语小铺,tea-1,left,\n"
    )


def test_a_name_is_put_in_where_the_appid_stood(file):
    roster = written(file, "appid,name,env\nwx1,wx1,tea-1\nwx2,书店,books-1\n")
    assert roster.edited({}, {0: '茶,"语"'}, ()).decode() == (
        'appid,name,env\nwx1,"茶,""语""",tea-1\nwx2,书店,books-1\n'
    )


def test_a_name_that_a_spreadsheet_would_run_is_made_inert(file):
    roster = written(file, "appid,name,env\nwx2,wx2,books-1\n")
    changed = roster.edited({}, {0: "@书店"}, (Merchant("wx1", "=cmd|' /C calc'!A0", "e-1"),))
    assert changed.decode() == "appid,name,env\nwx2,'@书店,books-1\nwx1,'=cmd|' /C calc'!A0,e-1\n"


def test_a_quote_within_a_cell_quotes_nothing(file):
    roster = written(file, 'appid,name,env,备注,status\nwx1,5" 屏店,tea-1,6" 屏,\n')
    assert roster.edited({0: True}, {}, ()).decode().endswith('wx1,5" 屏店,tea-1,6" 屏,left\n')
    roster = written(file, 'appid,name,env,备注,status\nwx1,5" 屏店,tea-1,6,\n')
    assert roster.edited({0: True}, {}, ()).decode().endswith('wx1,5" 屏店,tea-1,6,left\n')


def test_a_file_that_is_not_there_begins_as_init_makes_it(file):
    roster = edit_merchants(file)
    assert not roster.exists
    made = roster.edited({}, {}, (NEW,))
    assert made == "appid,name,env,default,owner,status\r\nwx9,新茶铺,new-1a2b3c,,,\r\n".encode("utf-8-sig")


def test_a_header_without_merchants_is_begun_with(file):
    assert (
        written(file, "appid,name,env,区域\n").edited({}, {}, (NEW,)).decode().splitlines()[1]
        == "wx9,新茶铺,new-1a2b3c,"
    )


@pytest.mark.parametrize(
    "text",
    [
        "name,env\n茶,e-1\n",
        "appid,name,env\nwx1,,e-1\n",
        "appid,name,env\nwx1,茶,e-1\nwx1,茶,e-1\n",
        'appid,name,env\nwx1,"茶,e-1\n',
        "",
    ],
    ids=["a column missing", "a name missing", "a line twice", "an open quote", "empty"],
)
def test_a_file_with_problems_is_refused_with_them(file, text):
    with pytest.raises(InputError) as refused:
        written(file, text)
    assert refused.value.problems


def test_a_file_is_replaced_whole_and_keeps_its_mode_and_its_link(tmp_path, file):
    real = tmp_path / "real.csv"
    real.write_bytes(b"old")
    real.chmod(0o640)
    file.symlink_to(real)
    write_merchants(file, b"new", b"old")
    assert file.is_symlink()
    assert (real.read_bytes(), real.stat().st_mode & 0o777) == (b"new", 0o640)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merchants.csv", "real.csv"]


@pytest.mark.parametrize("before", [b"old", None], ids=["edited meanwhile", "made meanwhile"])
def test_what_somebody_wrote_meanwhile_is_not_lost(tmp_path, file, before):
    file.write_bytes(b"theirs")
    with pytest.raises(StoppedError, match="changed while"):
        write_merchants(file, b"new", before)
    assert file.read_bytes() == b"theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["merchants.csv"]


def test_a_file_that_cannot_be_written_is_reported_and_nothing_is_left_behind(tmp_path):
    with pytest.raises(StoppedError, match=r"no/merchants\.csv cannot be written"):
        write_merchants(tmp_path / "no" / "merchants.csv", b"new", None)


def test_a_new_file_has_the_mode_that_the_system_gives(file):
    write_merchants(file, b"new", None)
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask
