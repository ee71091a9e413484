"""merchants sync and merchants check, as an operator types them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from token_server import BOOKS, COMPONENT, TEA, TEA_TEST

from tcb_ops.features.simulator.faults import (
    EnvStatus,
    Fault,
    FaultStep,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Merchant, Owner

OWN = Merchant(COMPONENT.appid, "平台", "own-1", owner=Owner.PLATFORM)


def test_a_first_sync_makes_the_file_and_a_second_changes_nothing(open_token_server, type_command):
    token_server = open_token_server([TEA, TEA_TEST, BOOKS])
    code, out, _ = type_command("merchants", "sync")
    assert code == 0
    assert [(m.appid, m.name, m.env, m.default) for m in read_merchants(token_server.file)] == [
        (m.appid, m.name, m.env, False) for m in (BOOKS, TEA, TEA_TEST)
    ]
    assert "added · 3" in out
    assert "merchants.csv: 3 lines, 3 added." in out
    made = token_server.file.read_bytes()
    assert type_command("merchants", "sync")[:2] == (0, "merchants.csv: 3 lines, nothing to change.\n")
    assert token_server.file.read_bytes() == made


def test_what_is_the_operators_own_stays_and_what_is_the_platforms_comes(open_token_server, type_command):
    gone = Merchant("wxgone", "旧店", "gone-1")
    back = Merchant("wxback", "回来的店", "back-1")
    new = Merchant("wxnew", "新店", "new-1")
    token_server = open_token_server(
        [TEA, TEA_TEST, BOOKS, back, new, Merchant("wxnocloud", "无云", "x")],
        accounts=[
            SimulatedAccount("wxbooks", name="城南书店旗舰店"),
            SimulatedAccount("wxnocloud", cloud=False),
        ],
        environments=[SimulatedEnvironment("tea-1", EnvStatus.HALTED)],
    )
    token_server.keep_tokens("wxtea", "wxbooks", "wxback", "wxnew", "wxnocloud", COMPONENT.appid)
    head = "小程序ID,名称,环境ID,区域,默认,状态,备注"
    own = [
        'wxbooks,城南书店,books-1,华北,,,"第一行\r\n第二行"',
        "wxgone,旧店,gone-1,华东,,,007",
        "wxtea,我的茶铺,tea-1,华东,是,,",
        "wxback,回来的店,back-1,华南,,已取消授权,",
        "wxtea,我的茶铺,tea-old,华东,,,",
        f"{COMPONENT.appid},平台,own-1,,,,",
    ]
    token_server.file.write_bytes("\r\n".join([head, *own, ""]).encode("gb18030"))
    code, out, _ = type_command("merchants", "sync")
    assert code == 0
    own[1], own[3] = "wxgone,旧店,gone-1,华东,,left,007", "wxback,回来的店,back-1,华南,,,"
    new_lines = ["wxnew,新店,new-1,,,,", "wxtea,我的茶铺,tea-2,,,,"]
    assert token_server.file.read_bytes().decode("gb18030") == "\r\n".join([head, *own, *new_lines, ""])
    for result in (
        "added · 2",
        "authorized again (status cleared) · 1",
        "no longer authorized (status=left) · 1",
        "environments that the platform does not list any more · 1",
        "85088",
    ):
        assert result in out
    assert token_server.sim.stats["link_calls"] == 0
    assert gone.env in token_server.file.read_text("gb18030")


def test_a_merchant_leaves_and_returns(open_token_server, type_command):
    token_server = open_token_server([TEA, BOOKS])
    assert type_command("merchants", "sync")[0] == 0
    token_server.sim.revoke("wxtea")
    assert json.loads(type_command("merchants", "sync", "--json")[1])["left"] == [
        {"appid": "wxtea", "merchant": "茶语小铺", "env": "tea-1"}
    ]
    assert {m.appid: m.left for m in read_merchants(token_server.file)} == {"wxtea": True, "wxbooks": False}
    token_server.sim.authorize("wxtea")
    found = json.loads(type_command("merchants", "sync", "--json")[1])
    assert ([one["appid"] for one in found["returned"]], found["left"]) == (["wxtea"], [])
    assert [m.left for m in read_merchants(token_server.file)] == [False, False]


@pytest.mark.slow
def test_300_merchants_are_synced_and_checked_in_seconds_and_summed_up(open_token_server, type_command):
    many = [Merchant(f"wx{n:03}", f"商户{n:03}号", f"env-{n:03}") for n in range(300)]
    ill = [SimulatedAccount(f"wx{n:03}", permissions=(18,)) for n in range(50)]
    token_server = open_token_server(
        many, accounts=[*ill, SimulatedAccount("wx299", daily_limit=100, used=93)]
    )
    code, out, _ = type_command("merchants", "sync")
    assert (code, len(token_server.lines())) == (0, 250)
    assert out.count("\n") < 40
    assert re.search("… and 240 more +--json", out)
    with token_server.file.open("a", encoding="utf-8") as file:
        file.writelines(f"wx{n:03},商户{n:03}号,env-{n:03},,,\r\n" for n in range(50))
    code, out, err = type_command("merchants", "check", "--out", "all.csv")
    assert code == 1
    assert "61007 · 50 lines" in out
    assert "250 of 300 lines ready, 50 not ready. Fewest calls left today: 7 (商户299号)." in out
    assert "All lines: all.csv" in err
    with (token_server.folder / "all.csv").open(encoding="utf-8-sig", newline="") as file:
        listed = list(csv.DictReader(file))
    assert (len(listed), sum(line["works"] == "yes" for line in listed)) == (300, 250)
    assert {line["code"] for line in listed} == {"", "61007"}
    assert token_server.sim.stats["env_info"] == 600


def test_a_dry_run_leaves_the_merchants_file(open_token_server, type_command):
    token_server = open_token_server([TEA])
    token_server.file.write_bytes(b"appid,name,env\nwxgone,x,e-1\n")
    code, out, _ = type_command("merchants", "sync", "--dry-run")
    assert (
        code,
        "would have 2 lines: 1 added, 1 no longer authorized (status=left). Nothing was written." in out,
    ) == (0, True)
    assert token_server.file.read_bytes() == b"appid,name,env\nwxgone,x,e-1\n"


def test_narrowed_by_where_only_those_merchants_change(open_token_server, type_command):
    token_server = open_token_server([TEA, TEA_TEST, BOOKS])
    token_server.file.write_text(
        "appid,name,env,region\nwxtea,茶语小铺,tea-1,华东\nwxgone,旧店,gone-1,华北\n", encoding="utf-8"
    )
    assert type_command("merchants", "sync", "--where", "region=华东")[0] == 0
    assert [(m.appid, m.env, m.left) for m in read_merchants(token_server.file)] == [
        ("wxtea", "tea-1", False),
        ("wxgone", "gone-1", False),
        ("wxtea", "tea-2", False),
    ]


def test_one_merchants_trouble_does_not_stop_the_others(open_token_server, type_command):
    token_server = open_token_server(
        [TEA, BOOKS, Merchant("wxset", "无权限", "set-1"), Merchant("wxno", "无令牌", "no-1")],
        [Fault(appid="wxtea", step=FaultStep.AUTHORIZER_INFO, errcode=61003)],
        accounts=[SimulatedAccount("wxset", permissions=(18,))],
    )
    token_server.keep_tokens("wxtea", "wxbooks", "wxset", COMPONENT.appid)
    code, out, _ = type_command("merchants", "sync", "--json")
    found = json.loads(out)
    assert (code, found["authorized"]) == (1, 4)
    assert [(one["merchant"], one["env"]) for one in found["added"]] == [
        ("城南书店", "books-1"),
        ("wxtea", "tea-1"),
    ]
    assert {one["appid"]: one["code"] for one in found["not_read"]} == {"wxset": "61007", "wxno": "no_token"}
    token_server.keep_tokens("wxtea", "wxbooks", "wxset", "wxno", COMPONENT.appid)
    assert type_command("merchants", "sync")[0] == 0


def test_what_is_missing_or_stops_everybody_is_one_message(open_token_server, type_command, monkeypatch):
    token_server = open_token_server([TEA])
    token_server.file.write_bytes(b"appid,name,env\nwxtea,x,tea-1\n")
    token_server.keep_tokens("wxtea")
    code, _, err = type_command("merchants", "sync")
    assert (code, "component_appid wxcomponent" in err) == (3, True)
    token_server.keep_tokens("wxtea", COMPONENT.appid)
    token_server.sim.refuse_ip()
    for command in ("sync", "check"):
        code, out, err = type_command("merchants", command)
        target, message = err.splitlines()
        assert (code, out, target.split()[0], "61004" in message) == (3, "", "SIMULATED", True)
    monkeypatch.setenv("TCB_OPS_TOKENS__COMPONENT_APPID", "")
    code, _, err = type_command("merchants", "sync")
    assert (code, "component_appid" in err) == (2, True)
    assert token_server.file.read_bytes() == b"appid,name,env\nwxtea,x,tea-1\n"


def test_a_list_that_is_not_whole_changes_nothing(open_token_server, type_command):
    token_server = open_token_server([], accounts=[])
    token_server.file.write_bytes(b"appid,name,env\nwxtea,x,tea-1\n")
    code, _, err = type_command("merchants", "sync")
    assert (code, "0 merchants have authorized it" in err) == (3, True)
    assert token_server.file.read_bytes() == b"appid,name,env\nwxtea,x,tea-1\n"


def test_check_shows_every_line_and_sums_up_in_json(open_token_server, type_command):
    token_server = open_token_server(
        [TEA, BOOKS, OWN], accounts=[SimulatedAccount("wxtea", daily_limit=10, used=4)]
    )
    token_server.file.write_text(
        f"appid,name,env,owner,status\nwxtea,茶语小铺,tea-1,,\nwxbooks,城南书店,books-1,,left\n{COMPONENT.appid},平台,own-1,platform,\n",
        encoding="utf-8",
    )
    code, out, err = type_command("merchants", "check")
    assert (code, err) == (0, f"SIMULATED {token_server.sim.base} · tcb-ops.toml\n")
    assert (
        "2 of 3 lines ready, 0 not ready, 1 of merchants that have left. Fewest calls left today: 6 (茶语小铺)."
        in out
    )
    found = json.loads(type_command("merchants", "check", "--json")[1])
    assert [found[name] for name in ("lines", "works", "cannot", "left", "note")] == [3, 2, 0, 1, None]
    tea, books, own = found["states"]
    assert tea["quota"] == {"daily_limit": 10, "used": 4, "remain": 6}
    assert (books["left"], books["works"]) == (True, False)
    assert (own["owner"], own["works"]) == ("platform", True)


def test_check_narrowed_to_one(open_token_server, type_command):
    token_server = open_token_server([TEA, BOOKS], accounts=[SimulatedAccount("wxtea", cloud=False)])
    token_server.list_merchants(TEA, BOOKS)
    code, out, _ = type_command("merchants", "check", "--where", "appid=wxtea")
    assert (code, "0 of 1 line" in out, "85088" in out) == (1, True, True)
    assert token_server.sim.stats["env_info:wxbooks"] == 0


def test_troubles_that_differ_but_in_the_merchant_stand_once(open_token_server, type_command):
    token_server = open_token_server([TEA, BOOKS])
    token_server.list_merchants(TEA, BOOKS)
    token_server.keep_tokens(COMPONENT.appid)
    _, out, _ = type_command("merchants", "check")
    assert "no_token · 2 lines" in out
    assert "has no token for wxtea: it needs a line per appid." in out


@pytest.mark.kill
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_the_file_as_it_was(open_token_server):
    token_server = open_token_server([TEA], [Fault(appid="wxtea", step=FaultStep.ENV_INFO, delay=30)])
    token_server.file.write_bytes(b"appid,name,env\n")
    argv = [sys.executable, "-m", "tcb_ops", "merchants", "sync"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("TCB_OPS_")} | {"PYTHONUTF8": "1"}
    with subprocess.Popen(
        argv, cwd=token_server.folder, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        while token_server.sim.stats["env_info"] == 0:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
    assert (process.returncode, "Traceback" in err, "Interrupted" in err) == (130, False, True)
    assert token_server.file.read_bytes() == b"appid,name,env\n"
    assert sorted(p.name for p in token_server.folder.iterdir()) == [
        "merchants.csv",
        "tcb-ops.toml",
        "tokens.csv",
    ]
