"""The message about an audit: what it says, how it is cut, and whether it really arrived."""

import json
import random
import re
import sys

import pytest
from workspace import BOOKS, QUICK

import tcb_ops as tcb
import tcb_ops.features.health.notifications as send
from tcb_ops.checks import Grade
from tcb_ops.features.health.notifications import (
    LIMITS,
    AuditMessage,
    entry_line,
    message_about,
    refusal,
    robot_request,
)
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.i18n import Lang, verbatim
from tcb_ops.reports.findings import FindingLine
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.transport import Timeouts

KEY = "5b2f6f0e-1d3c-4c56-9d0e-0f4d8f6a7c11"
BROKEN = (Fault(env=BOOKS.env, errcode=85088),)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(send, "RETRY_WAITS", (0.0,))
    monkeypatch.setattr(send, "TIMEOUTS", Timeouts(connect=2, answer=0.3))


def test_what_did_not_arrive_is_kept_for_each_receiver_of_the_same_name(open_workspace):
    entry = {"kind": "command", "command": ["true"]}
    settings = open_workspace([]).with_options(notify=[entry] * 4)
    assert len(set(send.receivers(settings))) == 4


@pytest.mark.integration
@pytest.mark.parametrize("kind", list(LIMITS))
def test_no_message_is_longer_than_its_robot_takes_and_no_character_is_cut(kind):
    chance = random.Random(16)
    letters = '商户环境已停服茶铺𠮷😀é"\\\n abc'
    for _ in range(1000 // len(LIMITS) + 1):
        names = [
            "".join(chance.choices(letters, k=chance.randint(1, 60))) for _ in range(chance.randint(0, 400))
        ]
        rows = tuple(f"- {name}".replace("\n", " ") for name in names)
        message = AuditMessage(
            "题", ("头" * chance.randint(1, 100),), rows, ("尾" * chance.randint(1, 100),), Lang.ZH
        )
        _request, body = robot_request(kind, "https://robot.example/", "secret", message, {}, 1_700_000_000)
        sent = json.loads(body)
        text = sent["content"]["text"] if kind == "feishu" else sent["text"]["content"]
        counted = len(text.encode()) if kind == "wecom" else len(body)
        assert counted <= LIMITS[kind]
        assert "\ufffd" not in text
        known = set(rows) | set(message.head) | set(message.tail)
        others = [line for line in text.split("\n") if line not in known]
        assert len(others) <= 1, "lines are whole, except the count of those left out"
        if others:
            left = len(rows) - sum(line in rows for line in text.split("\n"))
            assert str(left) in others[0].replace(",", "") or len(set(rows)) < len(rows)


@pytest.mark.parametrize(
    ("kind", "status", "body", "accepted"),
    [
        ("wecom", 200, b'{"errcode":0,"errmsg":"ok"}', True),
        ("wecom", 200, b'{"errcode":93000,"errmsg":"invalid webhook url"}', False),
        ("wecom", 200, b"<html>", False),
        ("wecom", 200, b"{}", False),
        ("wecom", 302, b'{"errcode":0}', False),
        ("wecom", 200, b'{"errcode":false}', False),
        ("wecom", 200, b'{"errcode":null,"code":0}', False),
        ("feishu", 200, b'{"code":0,"msg":"success"}', True),
        ("feishu", 200, b'{"StatusCode":0,"StatusMessage":"success"}', True),
        ("feishu", 200, b'{"code":19021}', False),
        ("dingtalk", 200, b'{"errcode":310000}', False),
        ("webhook", 204, b"", True),
        ("webhook", 200, b"ok", True),
        ("webhook", 200, b" <!DOCTYPE html>", False),
        ("webhook", 500, b"", False),
    ],
)
def test_what_counts_as_accepted(kind, status, body, accepted):
    assert (refusal(kind, HttpResponse(status, {}, body)) is None) is accepted


@pytest.mark.integration
@pytest.mark.parametrize(
    ("url", "page"), [("https://r.example.com/{run}/", "/report.html"), ("https://r/?{run}", "")]
)
def test_a_message_links_the_page_where_a_server_offers_it(open_workspace, tmp_path, url, page):
    settings = open_workspace([]).with_options(report={"url": url})
    run = tcb.audit(settings=settings, limits=QUICK)
    run.export(tmp_path / "report")
    message, payload = message_about(tcb.open_run(run.id, settings=settings).audit(), settings)
    assert payload["report"] == url.replace("{run}/", f"{run.id}{page}").replace("{run}", run.id)
    assert payload["report"] in message.fit(2048, len)


def told(workspace, monkeypatch, entries, **options):
    """Audit, and notify these."""
    listed = []
    for number, entry in enumerate(entries):
        robot = entry.pop("robot", None)
        if robot is not None:
            monkeypatch.setenv(f"ROBOT_{number}", f"{workspace.sim.base}/robot/{robot}?key={KEY}")
            entry |= {"kind": robot.partition("/")[0], "url_env": f"ROBOT_{number}"}
        listed.append(entry)
    settings = workspace.with_options(notify=listed)
    run = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    return tcb.notify(run, settings=settings, **options)


@pytest.mark.integration
def test_robots_that_refuse_hang_or_answer_with_a_page_are_never_reported_as_sent(
    open_workspace, monkeypatch
):
    workspace = open_workspace([], BROKEN, robot_secret="practice-secret")
    monkeypatch.setenv("SIGNED_WITH", "practice-secret")
    kinds = ("wecom", "feishu", "dingtalk", "webhook")
    signed = {"secret_env": "SIGNED_WITH"}
    good = [{"robot": f"{kind}/accept"} | (signed if kind != "wecom" else {}) for kind in kinds]
    robots = [f"{kind}/{how}" for kind in kinds for how in ("refuse", "html", "error")]
    bad = [{"robot": robot} for robot in robots]
    found = told(workspace, monkeypatch, [*good, *bad, {"robot": "wecom/hang"}, {"robot": "dingtalk/accept"}])
    refused_in_a_body = [robot == "webhook/refuse" for robot in robots]  # only its status counts
    assert [one.sent for one in found] == [True] * 4 + refused_in_a_body + [False] * 2
    assert len(workspace.sim.robots.messages) == 4
    assert "93000" in found[4].detail.en
    shown = json.dumps([one.to_json(Lang.EN) for one in found]) + repr(found)
    assert KEY[:12] not in shown
    assert "practice-secret" not in shown


def test_the_message_says_what_is_new_and_where_the_report_is(open_workspace, monkeypatch):
    workspace = open_workspace([], BROKEN)
    told(workspace, monkeypatch, [{"robot": "wecom/accept"}])
    (message,) = workspace.sim.robots.messages
    assert f"- {BOOKS.name} · {BOOKS.env} · 85088" in message.text
    assert "newly broken 1" in message.text
    assert "SIMULATED" in message.text


@pytest.mark.needs("evidence")
def test_nothing_new_sends_nothing(open_workspace, monkeypatch):
    workspace = open_workspace([], BROKEN)
    on = ("change", "failure", "always")
    entries = [{"robot": "wecom/accept", "on": one} for one in on]
    assert [one.sent for one in told(workspace, monkeypatch, entries, on_demand=False)] == [True, True, True]
    entries = [{"robot": "wecom/accept", "on": one} for one in on]
    again = told(workspace, monkeypatch, entries, on_demand=False)
    assert [(one.sent, one.due) for one in again] == [(False, False), (True, True), (True, True)]


def test_a_command_gets_json_and_an_address_comes_from_a_file(open_workspace, monkeypatch):
    workspace = open_workspace([], BROKEN)
    out, url = workspace.folder / "got.json", workspace.folder / "url"
    url.write_text(f"{workspace.sim.base}/robot/webhook/accept\n", encoding="utf-8")
    keep = f"import sys, pathlib; pathlib.Path({str(out)!r}).write_bytes(sys.stdin.buffer.read())"
    tries = workspace.folder / "tries"
    fail = f"open({str(tries)!r}, 'a').write('x'); raise SystemExit(3)"
    found = told(
        workspace,
        monkeypatch,
        [
            {"kind": "command", "command": [sys.executable, "-c", keep]},
            {"kind": "command", "command": [sys.executable, "-c", fail]},
            {"kind": "webhook", "url_file": url},
            {"kind": "webhook", "url_env": "NOT_SET_ANYWHERE"},
        ],
    )
    assert [one.sent for one in found] == [True, False, True, False]
    assert tries.read_text() == "x"  # a pager that fails pages once
    payload = json.loads(out.read_text(encoding="utf-8"))
    assert payload["new"][0]["env"] == BOOKS.env
    assert json.loads(workspace.sim.robots.messages[0].text)["counts"] == payload["counts"]


@pytest.mark.posix("scripts")
def test_a_command_is_looked_for_in_the_settings_files_folder_and_runs_there(tmp_path, monkeypatch):
    script = tmp_path / "conf" / "notify.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\ncat >got.json\n", encoding="utf-8")
    file = script.with_name("tcb-ops.toml")
    file.write_text('[[notify]]\nkind = "command"\ncommand = ["./notify.sh"]\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    settings = tcb.load_settings(file)
    assert send.receivers_check(settings).probe().grade is Grade.WARNING
    script.chmod(0o700)
    assert send.receivers_check(settings).probe().grade is Grade.OK
    assert [delivery.sent for delivery in tcb.notify(None, settings=settings)] == [True]
    assert json.loads(script.with_name("got.json").read_text("utf-8"))["test"]


def test_http_reaches_this_machine_alone_and_under_a_simulated_target_alone(open_workspace, monkeypatch):
    workspace = open_workspace([], BROKEN)
    monkeypatch.setenv("AWAY", "http://robots.example.com/send?key=x")
    monkeypatch.setenv("HERE", f"{workspace.sim.base}/robot/wecom/accept")
    entries = [{"kind": "wecom", "url_env": "AWAY"}, {"kind": "wecom", "url_env": "HERE"}]
    settings = workspace.with_options(notify=entries)
    assert [one.sent for one in tcb.notify(None, settings=settings)] == [False, True]
    live = workspace.with_options(notify=entries, api_base="https://api.weixin.qq.com")
    assert [one.sent for one in tcb.notify(None, settings=live)] == [False, False]
    assert len(workspace.sim.robots.messages) == 1


def test_a_remark_is_shown_whole_and_a_cut_text_says_so():
    remark = verbatim("also 45009, 61007, halted; was unavailable (1,024 MB)")
    line = FindingLine("云上茶铺", "tea-1a2b3c", "85088", remark, note="n" * 50)
    shown = entry_line(line, Lang.EN)
    assert "(1,024 MB)" in shown
    assert shown.endswith(f"{'n' * 39}…")


def test_a_merchants_name_mentions_nobody_and_is_no_link():
    name = '<at user_id="all">所有人</at>@all'
    address = "http://203.0.113.9/x www.例子.中国 pay.example.com"
    line = FindingLine(name, address[:24], "", verbatim(address), note=f"<b>@a</b>{address[24:]}")
    shown = entry_line(line, Lang.EN)
    assert not set("<>@") & set(shown)
    assert "所有人" in shown
    assert not re.search(r"://|www\.|\.com|\.中国|203\.0", shown)
    assert "1.5 MB" in entry_line(FindingLine("茶", "e", "", verbatim("1.5 MB")), Lang.EN)


@pytest.mark.integration
def test_what_was_not_delivered_is_news_again_for_that_receiver(open_workspace, monkeypatch):
    workspace = open_workspace([], BROKEN)

    def night(how):
        monkeypatch.setenv("ROBOT", f"{workspace.sim.base}/robot/wecom/{how}?key={KEY}")
        monkeypatch.setenv("OTHER", f"{workspace.sim.base}/robot/feishu/accept")
        to = [{"kind": "wecom", "url_env": "ROBOT"}, {"kind": "feishu", "url_env": "OTHER"}]
        settings = workspace.with_options(notify=to)
        run = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
        first, second = tcb.notify(run, on_demand=False, settings=settings)
        return run.id, first, second

    _run, first, second = night("refuse")
    assert (first.sent, second.sent) == (False, True)
    _again, first, second = night("error")
    assert (first.due, first.sent, second.due) == (True, False, False)
    told, first, second = night("accept")
    assert (first.sent, second.due) == (True, False)
    assert "newly broken 1" in workspace.sim.robots.messages[-1].text
    assert night("accept")[1].due is False
    workspace.sim.play([])
    assert night("accept")[1].sent is True
    message = workspace.sim.robots.messages[-1].text
    assert "recovered 1" in message
    assert told not in message  # compared with the audit before this one
    assert KEY.encode() not in (workspace.folder / "ledger.db").read_bytes()
