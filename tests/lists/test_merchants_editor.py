"""The merchants file written again: what changes goes in, all else stays byte for byte."""

import os

import pytest

from tcb_ops.errors import InputError, StoppedError
from tcb_ops.lists.merchants import edit_merchants, read_merchants, write_merchants
from tcb_ops.model import Merchant

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
