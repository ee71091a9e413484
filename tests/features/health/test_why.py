"""`why` as it is typed: what it is asked about, how much it asks, and what it must not do."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

import pytest
from token_server import BOOKS, SECRETS, TEA
from workspace import QUICK, write_csv

import tcb_ops as tcb
from tcb_ops.features.health import questions
from tcb_ops.features.health import why as api
from tcb_ops.features.health.verdicts import Facts, Issue
from tcb_ops.features.simulator.faults import (
    EnvStatus,
    Fault,
    FaultStep,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.model import Merchant

NO_SET = SimulatedAccount("wxtea", permissions=(18,))
REFUSES = {"source": "command", "command": (sys.executable, "-c", "raise SystemExit(1)")}


def failed_run(server, lines):
    server.list_merchants(*lines)
    rows = ((one.env, one.appid, "a.png") for one in lines)
    paths = write_csv(server.folder / "list.csv", ("env", "appid", "path"), rows)
    batch = tcb.read_paths(paths, server.file)
    limits = replace(QUICK, attempts=1)
    return tcb.links(batch, out=server.folder / "links.csv", settings=server.settings, limits=limits)


@pytest.mark.needs("evidence")
def test_a_run_is_asked_about_by_cause_and_its_report_shows_who_must_act(open_token_server, type_command):
    server = open_token_server([TEA, BOOKS], accounts=[NO_SET])
    run = failed_run(server, [TEA, BOOKS])
    before = run.export("before")
    code, out, err = type_command("why")
    assert code == 1
    assert err.splitlines()[0] == f"SIMULATED {server.sim.base} · tcb-ops.toml"
    assert "61007 · 1 row · 茶语小铺" in out
    assert "→ the merchant: Ask the merchant to authorize again" in out
    assert "api_get_authorizer_info: permission set 49 is not granted" in out
    assert "Text for the merchant: 茶语小铺: please authorize us again" in out
    assert out.endswith("1 cause. Who must act: the merchant.\n")
    page = (run.export("after") / "report.html").read_text(encoding="utf-8")
    assert "Who must act" in page
    assert "please authorize us again" in page
    assert tcb.verify(before, settings=server.settings).good
    assert list(run.why().frame()["who"]) == ["merchant"]


@pytest.mark.parametrize("subject", ["茶语小铺", "wxtea", "tea-1", "latest:2"])
def test_a_merchant_an_environment_or_a_row_is_asked_about(open_token_server, type_command, subject):
    server = open_token_server([TEA, BOOKS], accounts=[NO_SET])
    failed_run(server, [TEA, BOOKS])
    code, out, _ = type_command("why", subject, "--json")
    (cause,) = json.loads(out)["causes"]
    assert (code, cause["code"], cause["who"], cause["proven"]) == (1, "61007", "merchant", True)
    assert cause["message"].startswith("茶语小铺")


def test_rows_that_a_retry_has_completed_are_not_asked_about(open_token_server):
    server = open_token_server([TEA], [Fault(errcode=85088, calls=((1, 1),))])
    run = failed_run(server, [TEA])
    assert repr(run.why()).startswith("85088 · 1 row · ")
    assert run.retry(merchants=server.file, out=server.folder / "more.csv", limits=QUICK).succeeded
    assert str(run.why()) == "Nothing is wrong."


def test_where_nothing_is_wrong_it_is_said(open_token_server, type_command):
    server = open_token_server([TEA])
    failed_run(server, [TEA])
    assert type_command("why", "tea-1")[:2] == (0, "Nothing is wrong.\n")
    assert type_command("why")[:2] == (0, "Nothing is wrong.\n")


def test_two_hits_and_none_are_refused_and_nothing_is_asked(open_token_server, type_command):
    twin = Merchant("wxtwin", "茶语小铺", "twin-1")
    server = open_token_server([TEA, twin])
    failed_run(server, [TEA, twin])
    before = server.sim.stats
    code, _, err = type_command("why", "茶语小铺")
    assert (code, "茶语小铺 (wxtea)" in err, "茶语小铺 (wxtwin)" in err) == (2, True, True)
    code, _, err = type_command("why", "nobody")
    assert (code, "no run, environment, appid or merchant's name" in err) == (2, True)
    code, _, err = type_command("why", "latest:99")
    assert (code, "no line 99" in err) == (2, True)
    assert server.sim.stats == before


def test_a_run_of_a_simulator_is_not_asked_about_at_the_live_platform(open_token_server, type_command):
    server = open_token_server([TEA], accounts=[NO_SET])
    run = failed_run(server, [TEA])
    code, out, err = type_command("why", run.id, "--target", "https://api.weixin.qq.com")
    assert (code, out, f"--target {server.sim.base}" in err) == (2, "", True)
    live = replace(server.settings, api_base="https://api.weixin.qq.com")
    with pytest.raises(tcb.UsageError, match="was sent to"):
        run.with_settings(live).why()


def test_what_is_handed_on_has_no_names_tokens_or_links(open_token_server, type_command):
    server = open_token_server([TEA], [Fault(appid="*", errcode=-12345, errmsg="what is this")])
    failed_run(server, [TEA])
    assert type_command("why", "--record", "record.json")[0] == 1
    text = (server.folder / "record.json").read_text(encoding="utf-8")
    (cause,) = json.loads(text)["causes"]
    assert (cause["errcode"], cause["errmsg"], cause["who"]) == (-12345, "what is this", "wechat")
    assert cause["received"]["interface"] == "/tcb/uploadfile"
    assert cause["received"]["token"] is True
    assert cause["received"]["fields"] == ["env", "path"]
    assert cause["fault"] == {"env": "*", "errcode": -12345, "errmsg": "what is this"}
    assert not [secret for secret in (*SECRETS, "茶语小铺") if secret in text]
    code, _, err = type_command("why", "--record", "record.json")
    assert (code, "already exists" in err) == (2, True)


def test_a_rid_is_looked_up_once_and_a_row_leaves_the_verdicts_about_its_run(open_token_server, type_command):
    server = open_token_server([TEA, BOOKS], [Fault(appid="*", errcode=-12345)])
    run = failed_run(server, [TEA, BOOKS])
    (first,) = run.why()
    (again,) = run.why()
    assert (server.sim.stats["rid"], first.rows) == (1, 2)
    assert again.facts.answers.request == first.facts.answers.request
    before = run.kept_verdicts()
    assert type_command("why", f"{run.id}:3", "--quiet")[0] == 1
    assert run.kept_verdicts() == before


def test_a_diagnosis_has_its_time_and_goes_when_a_row_of_its_cause_is_answered_later(open_token_server):
    server = open_token_server([TEA, BOOKS], [Fault(appid="*", errcode=85088, calls=((1, 1), (3, 3)))])
    run = failed_run(server, [TEA, BOOKS])
    (first,) = run.why()
    assert first.verdict.cause == "passed"
    assert first.verdict.at > max(record.end.ended_at for record in run.rows())
    page = run.final().export("asked") / "report.html"
    asked = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(first.verdict.at + 8 * 3600))
    assert f"The simulator was asked at {asked}+08:00 Asia/Shanghai." in page.read_text(encoding="utf-8")
    again = run.retry(merchants=server.file, out=server.folder / "more.csv", limits=QUICK)
    assert again.counts == {"refused": 1, "linked": 1}
    page = run.final().export("asked") / "report.html"
    assert "The simulator was asked at" not in page.read_text(encoding="utf-8")
    assert run.kept_verdicts() == []
    (second,) = run.final().why()
    assert [each.at for each in run.kept_verdicts()] == [second.verdict.at]


def test_nothing_has_gone_that_a_link_call_does_not_tell(open_token_server):
    server = open_token_server([TEA], [Fault(appid="*", errcode=61003)])
    run = failed_run(server, [TEA])
    (still,) = run.why()
    assert (still.verdict.cause, server.sim.stats["link_calls"]) == ("revoked", 2)
    assert still.verdict.lines()[0].en.startswith("tcb/uploadfile: 61003, ")
    server.sim.play([])
    (gone,) = run.why()
    assert (gone.verdict.cause, gone.verdict.lines()[0].en) == ("passed", "tcb/uploadfile: a link was issued")


def sample_of(end):
    facts = Facts(merchant=TEA, code="-12345", rid=end.rid, ended_at=end.ended_at)
    return api.Sample(facts, (TEA.name,), 1)


RIDS = {
    "old": ({"ended_at": 1.0}, "old_rid", 0, "older than seven days"),
    "missing": ({"rid": ""}, "no_rid", 0, "the rows have no rid"),
    "unknown to the platform": ({"rid": "11111111-22222222-33333333"}, "76001", 1, "76001"),
}


@pytest.mark.parametrize(("change", "code", "calls", "says"), RIDS.values(), ids=RIDS)
def test_a_rid_that_cannot_be_looked_up_is_said(open_token_server, change, code, calls, says):
    server = open_token_server([TEA], [Fault(appid="*", errcode=-12345)])
    run = failed_run(server, [TEA])
    ((record,), _count) = run.page(code="-12345")
    end = replace(record.end, **change)
    (diagnosis,) = api.diagnose(None, [sample_of(end)], [TEA], server.settings, time.time())
    assert isinstance(diagnosis.facts.answers.request, Issue)
    assert (diagnosis.facts.answers.request.code, server.sim.stats["rid"]) == (code, calls)
    assert not diagnosis.verdict.proven
    assert says in diagnosis.verdict.lines()[-1].en


def test_a_rid_of_another_account_is_refused_by_the_platform(open_token_server):
    server = open_token_server([TEA, BOOKS], [Fault(appid="*", errcode=-12345)])
    run = failed_run(server, [TEA, BOOKS])
    records, _count = run.page(code="-12345")
    ends = {record.row.env: record.end for record in records}
    (diagnosis,) = api.diagnose(None, [sample_of(ends["books-1"])], [TEA], server.settings, time.time())
    assert diagnosis.facts.answers.request.code == "76003"


@pytest.mark.needs("tokens")
def test_a_token_source_that_refuses_is_ours(open_token_server, type_command):
    server = open_token_server([TEA])
    failed_run(server, [TEA])
    diagnoses = api.why("tea-1", settings=server.with_options(**REFUSES))
    assert [(each.verdict.cause, str(each.verdict.who)) for each in diagnoses] == [("no_token", "you")]


@pytest.mark.needs("tokens")
def test_a_token_source_that_refuses_hides_no_cause_of_a_run(open_token_server):
    server = open_token_server([TEA], [Fault(appid="*", errcode=-601012)])
    run = failed_run(server, [TEA])
    (diagnosis,) = run.with_settings(server.with_options(**REFUSES)).why()
    (line,) = diagnosis.verdict.lines()
    assert (diagnosis.verdict.code, diagnosis.verdict.cause) == ("-601012", "env_gone")
    assert line.en.startswith("Not proven: tcb/getenvinfo: ")
    assert "ended with exit code 1" in line.en


def fleet(open_token_server, **options):
    """400 merchants: five causes of 30 each, one of 20, the others are well."""
    lines = [Merchant(f"wx{n:03}", f"商户{n:03}号", f"env-{n:03}") for n in range(400)]
    appids = [line.appid for line in lines]
    accounts = [
        *(SimulatedAccount(appid, permissions=(18,)) for appid in appids[:30]),
        *(SimulatedAccount(appid, cloud=False) for appid in appids[30:60]),
        *(SimulatedAccount(appid, revoked=True) for appid in appids[60:90]),
        *(SimulatedAccount(appid, daily_limit=5, used=5) for appid in appids[90:120]),
    ]
    halted = [SimulatedEnvironment(f"env-{n:03}", EnvStatus.HALTED) for n in range(120, 150)]
    faults = [
        *(Fault(appid=appid, errcode=-12345) for appid in appids[150:170]),
        *(
            Fault(appid="*", step=step, delay=0.05)
            for step in (FaultStep.ENV_INFO, FaultStep.QUOTA, FaultStep.AUTHORIZER_INFO, FaultStep.RID)
        ),
    ]
    server = open_token_server(lines, faults, accounts=accounts, environments=halted, **options)
    return server, failed_run(server, lines)


@pytest.mark.slow
def test_400_merchants_with_six_causes_are_one_screen_in_a_few_calls(open_token_server, type_command):
    server, run = fleet(open_token_server)
    before = server.sim.stats
    code, out, _ = type_command("why")
    asked = server.sim.stats - before
    assert code == 1
    assert out.endswith("6 causes. Who must act: the merchant, nobody (it passes), WeChat.\n")
    assert "30 rows · 商户000号, 商户001号, 商户002号 and 27 more" in out
    assert len(out.splitlines()) <= 50
    assert sum(asked[step] for step in ("env_info", "quota", "authorizer_info", "rid")) <= 6 * 5
    assert asked["rid"] <= 6
    every = run.why(every=True)
    assert {(each.verdict.code, len(each.names)) for each in every} == {
        *((code, 30) for code in ("61007", "85088", "61003", "45009", "-501005")),
        ("-12345", 20),
    }


def test_what_wechat_received_is_asked_for_once_and_a_quota_each_time(open_token_server):
    server = open_token_server([TEA, BOOKS], accounts=[NO_SET])
    run = failed_run(server, [TEA, BOOKS])
    for _time in range(2):
        run.why()
    assert (server.sim.stats["quota"], server.sim.stats["rid"]) == (2, 1)
    assert questions.MOST_CALLS == 5
