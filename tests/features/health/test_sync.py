"""What a sync changes, all else staying byte for byte; asking who has authorized the platform: the list whole or not at all, and whose issue is whose."""

import asyncio
import json
import os
from dataclasses import replace

import pytest
from scripted import Server, always
from token_server import BOOKS, COMPONENT, TEA

from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import InputError, PlatformStopError, StoppedError
from tcb_ops.features.health.merchants_sync import (
    Authorized,
    Authorizer,
    Changes,
    ask_authorizers,
    decide,
    edited,
    read_for_sync,
    write_merchants,
)
from tcb_ops.features.health.questions import Issue
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.i18n import Bilingual
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Merchant, Owner

NO_CLOUD = Issue("85088", Bilingual("no", "无"), Bilingual("open it", "开通"))
NO_TOKEN = Issue("no_token", Bilingual("no", "无"), Bilingual("give one", "给一个"))


def here(*authorizers, appids=()):
    return Authorized(frozenset(appids) | {one.appid for one in authorizers}, authorizers)


def one(appid, *envs, name="茶语小铺"):
    return Authorizer(appid, name, dict.fromkeys(envs, "NORMAL"))


def line(appid="wx1", env="e-1", name="茶语小铺", **more):
    return Merchant(appid, name, env, **more)


def own(env, appid="wx1", name="平台素材", **more):
    return line(appid, env, name, owner=Owner.PLATFORM, **more)


SHOP, TWO, OTHER = one("wx1", "e-1"), one("wx1", "e-1", "e-2"), one("wx2", "x", name="别家")
OTHER_LINE, NO_ENV = line("wx2", "x", "别家"), one("wx2", name="别家")
HALTED = Authorizer("wx1", "茶语小铺", {"e-1": "HALTED"})
DECISIONS = {
    "a new merchant gets a line per environment": ([], [TWO], Changes(added=(line(), line(env="e-2")))),
    "one without a name has its appid": (
        [],
        [one("wx1", "e-1", name="")],
        Changes(added=(line(name="wx1"),)),
    ),
    "a new environment takes the name that the file has": (
        [line(name="我的茶铺", default=True)],
        [TWO],
        Changes(added=(line(env="e-2", name="我的茶铺"),)),
    ),
    "nothing new": ([line(), line(env="e-2", default=True)], [one("wx1", "e-2", "e-1")], Changes()),
    "stays": ([line(), OTHER_LINE], [SHOP, OTHER], Changes()),
    "gone": ([line(), OTHER_LINE], [OTHER], Changes(left=(line(),))),
    "back": ([line(left=True), OTHER_LINE], [SHOP, OTHER], Changes(returned=(line(left=True),))),
    "still gone": ([line(left=True), OTHER_LINE], [OTHER], Changes()),
    "lines of the platform's own appid never leave but those of a merchant do": (
        [own("p-1", "wxcomp"), own("p-2", "wxgone"), own("p-3"), line()],
        [SHOP],
        Changes(left=(own("p-2", "wxgone"),)),
    ),
    "environments that are gone are told and stay": (
        [line(), line(env="old")],
        [HALTED],
        Changes(env_gone=(line(env="old"),)),
    ),
    "one that another merchant shares is not gone": (
        [line(), line("wx2", "e-1", "别家")],
        [SHOP, NO_ENV],
        Changes(),
    ),
    "a merchant without an environment is told": (
        [line()],
        [SHOP, NO_ENV],
        Changes(without_env=(line("wx2", "", "别家"),)),
    ),
    "but where its line says so: gone": ([OTHER_LINE], [NO_ENV], Changes(env_gone=(OTHER_LINE,))),
    "the platform's environment keeps its name and gives it to nobody": (
        [own("p-1"), own("p-2", name="wx1")],
        [SHOP],
        Changes(added=(line(),)),
    ),
    "and returns": (
        [own("p-1", left=True), line()],
        [SHOP],
        Changes(returned=(own("p-1", left=True),)),
    ),
    **{
        f"{issue.code} keeps the merchant's lines": (
            [line(), OTHER_LINE],
            [Authorizer("wx1", "茶语小铺", issue), OTHER],
            Changes(issues=((line(env=""), issue),)),
        )
        for issue in (NO_CLOUD, NO_TOKEN)
    },
}


@pytest.mark.parametrize(("lines", "authorizers", "changes"), DECISIONS.values(), ids=DECISIONS)
def test_what_a_sync_changes(lines, authorizers, changes):
    assert decide(lines, here(*authorizers), "wxcomp") == changes


def test_narrowed_only_whom_it_concerns_changes():
    lines = [line(), OTHER_LINE, line("wx3", "y", "三家")]
    changes = decide(lines, here(one("wx1", "e-1", "e-9"), appids=["wx9"]), only={"wx1", "wx2"})
    assert ([m.env for m in changes.added], changes.left) == (["e-9"], (OTHER_LINE,))


def test_what_writes_and_what_could_not_be_read():
    assert [Changes(issues=((line(), issue),)).unread for issue in (NO_CLOUD, NO_TOKEN)] == [False, True]
    assert (Changes(env_gone=(line(),)).writes, Changes(left=(line(),)).writes) == (False, True)


QUICK = RunLimits(attempts=2, backoff=0.01, slow_wait=0.01)


def test_who_is_looked_at_may_be_narrowed_but_who_is_there_is_known(open_token_server):
    token_server = open_token_server([TEA, BOOKS])
    found = ask_authorizers(token_server.settings, only={"wxtea"})
    assert found.appids == {"wxtea", "wxbooks"}
    assert [(one.appid, one.name, [*one.environments]) for one in found.authorizers] == [
        ("wxtea", "茶语小铺", ["tea-1"])
    ]
    assert token_server.sim.stats["env_info"] == 1


@pytest.mark.parametrize(
    "listed", [[], [{"authorizer_appid": "wxtea"}]], ids=["no page", "the same page again and again"]
)
def test_a_list_that_is_short_of_its_own_total_is_no_list(open_token_server, listed):
    token_server = open_token_server([TEA])

    async def sync():
        answer = json.dumps({"total_count": 3, "list": listed}).encode()
        async with Server(always(answer)) as server:
            settings = replace(token_server.settings, api_base=server.base)
            return await asyncio.to_thread(ask_authorizers, settings, limits=QUICK)

    with pytest.raises(StoppedError, match="3 merchants have authorized it, but listed"):
        asyncio.run(sync())


def test_a_component_token_that_dies_on_the_way_stops_the_sync(open_token_server):
    token_server = open_token_server([TEA, BOOKS], [Fault(step=FaultStep.AUTHORIZER_INFO, errcode=42001)])
    with pytest.raises(PlatformStopError, match=COMPONENT.appid):
        ask_authorizers(token_server.settings, limits=QUICK)


def test_a_code_that_nobody_knows_stops_the_sync_with_the_platform_s_own_words(open_token_server):
    token_server = open_token_server(
        [TEA], [Fault(step=FaultStep.AUTHORIZER_LIST, errcode=12345, errmsg="no such thing")]
    )
    with pytest.raises(PlatformStopError) as caught:
        ask_authorizers(token_server.settings, limits=QUICK)
    assert f"(component_appid {COMPONENT.appid}): 12345, " in caught.value.text.en
    assert "no such thing" in caught.value.text.en


def test_a_merchant_that_is_revoked_meanwhile_is_its_own_trouble(open_token_server):
    faults = [
        Fault(appid="wxtea", step=step, errcode=61003)
        for step in (FaultStep.AUTHORIZER_INFO, FaultStep.ENV_INFO)
    ]
    token_server = open_token_server([TEA, BOOKS], faults)
    books, tea = ask_authorizers(token_server.settings, limits=QUICK).authorizers
    assert (books.name, len(books.environments)) == ("城南书店", 1)
    assert isinstance(tea.environments, Issue)
    assert (tea.name, tea.environments.code) == ("", "61003")


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
            '2026 年商户表\n\nappid,name,env,备注,status\nwx1,"茶语 ""老店"" 小铺",tea-1,"两行\n备注, 带逗号",\n\n'
            "wx2,书店,books-1,007,left\n,,,,\n"
        ),
        "utf-8",
        "\n",
    ),
    "old Mac": ("appid;name;env;status\rwx1;茶语小铺;tea-1;\rwx2;书店;books-1;left\r", "utf-8", "\r"),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "merchants.csv"


def written(file, text, codec="utf-8"):
    file.write_bytes(text.encode(codec))
    return read_for_sync(file)


@pytest.mark.parametrize(("text", "codec", "end"), FILES.values(), ids=FILES)
def test_nothing_changed_is_the_same_bytes(file, text, codec, end):
    content, lines = written(file, text, codec)
    assert edited(content, lines, Changes()) == file.read_bytes()
    assert [m.left for m in lines] == [False, True]


@pytest.mark.parametrize(("text", "codec", "end"), FILES.values(), ids=FILES)
def test_a_line_more_is_all_that_is_added(file, text, codec, end):
    content, lines = written(file, text, codec)
    more = edited(content, lines, Changes(added=(NEW,)))
    assert more.startswith(text.encode(codec))
    assert more.decode(codec).endswith(end)
    file.write_bytes(more)
    assert [(m.appid, m.name, m.env) for m in read_merchants(file)][2:] == [(NEW.appid, NEW.name, NEW.env)]


@pytest.mark.parametrize(("text", "codec", "end"), FILES.values(), ids=FILES)
def test_only_the_status_of_the_lines_named_changes(file, text, codec, end):
    content, lines = written(file, text, codec)
    file.write_bytes(edited(content, lines, Changes(left=lines[:1], returned=lines[1:])))
    after = read_merchants(file)
    assert [m.left for m in after] == [True, False]
    status = len(lines[0].columns) - 1
    for before, now in zip(lines, after, strict=True):
        assert before.columns[:status] == now.columns[:status]
        assert before.columns[status][0] == now.columns[status][0]


OF_TEA = Merchant("wx1", "茶语小铺", "tea-1")
EDITS = {
    "a status column comes with the first line that needs one": (
        "appid,name,env,区域\r\nwx1,茶语小铺,tea-1,华东\r\n\r\nwx2,书店,books-1\r\n",
        Changes(left=(Merchant("wx2", "书店", "books-1"),), added=(NEW,)),
        "appid,name,env,区域,status\r\nwx1,茶语小铺,tea-1,华东,\r\n\r\nwx2,书店,books-1,,left\r\nwx9,新茶铺,new-1a2b3c,,\r\n",
    ),
    "it takes the place of an empty header": (
        "小程序ID,名称,环境ID,,\nwx1,茶语小铺,tea-1,,\n",
        Changes(left=(OF_TEA,)),
        "小程序ID,名称,环境ID,状态,\nwx1,茶语小铺,tea-1,left,\n",
    ),
    "a name that a spreadsheet would run is made inert": (
        "appid,name,env\nwx2,书店,books-1\n",
        Changes(added=(Merchant("wx1", "=cmd|' /C calc'!A0", "e-1"),)),
        "appid,name,env\nwx2,书店,books-1\nwx1,'=cmd|' /C calc'!A0,e-1\n",
    ),
    "a cell is quoted where CSV needs it": (
        'appid,name,env,备注,status\nwx1,5" 屏店,tea-1,"007",',
        Changes(left=(OF_TEA,)),
        'appid,name,env,备注,status\nwx1,"5"" 屏店",tea-1,007,left\n',
    ),
}


@pytest.mark.parametrize(("text", "changes", "result"), EDITS.values(), ids=EDITS)
def test_what_changes_in_a_file(file, text, changes, result):
    assert edited(*written(file, text), changes).decode() == result


def test_a_file_that_is_not_there_begins_as_init_makes_it(file):
    content, lines = read_for_sync(file)
    made = edited(content, lines, Changes(added=(NEW,)))
    assert made == "appid,name,env,default,owner,status\r\nwx9,新茶铺,new-1a2b3c,,,\r\n".encode("utf-8-sig")


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


@pytest.mark.posix("links")
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
    with pytest.raises(StoppedError, match=r"no.merchants\.csv cannot be written"):
        write_merchants(tmp_path / "no" / "merchants.csv", b"new", None)


@pytest.mark.posix("file modes")
def test_a_new_file_has_the_mode_that_the_system_gives(file):
    write_merchants(file, b"new", None)
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask
