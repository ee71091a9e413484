"""doctor and doctor --live, as an operator types them, against the simulator."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from token_server import SECRETS, token_server_opener

from tcb_ops.cli.main import run as run_command
from tcb_ops.features.doctor import live
from tcb_ops.features.simulator import (
    EnvStatus,
    Etag,
    Fault,
    FaultStep,
    Reset,
    SimulatedEnvironment,
)
from tcb_ops.model import Merchant, Owner
from tcb_ops.wechat.call_policy import CallLimits

TEA = Merchant("wxtea", "茶语小铺", "tea-1")
BOOKS = Merchant("wxbooks", "城南书店", "books-1")
OWN = Merchant("wxtea", "茶语小铺", "own-1", owner=Owner.PLATFORM)


@pytest.fixture
def open_token_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        opened = token_server_opener(stack, tmp_path)

        def token_server(merchants=(TEA, BOOKS), faults=(), **options):
            found = opened(merchants, faults, **options)
            lines = [f"{m.appid},{m.name},{m.env},{m.owner}" for m in merchants]
            found.file.write_text("\n".join(["appid,name,env,owner", *lines, ""]), encoding="utf-8")
            return found

        yield token_server


@pytest.fixture
def doctor(capsys, tmp_path, monkeypatch):
    """Type `doctor …`: exit code, stdout, stderr; no secret on either, nor in what it left behind."""
    monkeypatch.setattr(live, "DELETE_WAITS", (0, 0, 0))
    monkeypatch.setattr(live, "_LIMITS", CallLimits(attempts=3, backoff=0.01, slow_wait=0.05, patience=10))

    def typed(*words):
        capsys.readouterr()
        code = run_command(["doctor", *words])
        result = capsys.readouterr()
        assert "Traceback" not in result.out + result.err
        assert "defect" not in result.out + result.err, result.err
        assert not [secret for secret in SECRETS if secret in result.out + result.err]
        assert list(tmp_path.glob("doctor-live-*")) == []
        return code, result.out, result.err

    return typed


@pytest.fixture
def checks(doctor):
    """Type `doctor --json`: exit code, and the checks by name."""

    def typed(*words):
        code, out, _ = doctor("--json", *words)
        found = json.loads(out)
        assert found["ok"] == (code == 0)
        assert found["bad"] == sum(one["grade"] == "bad" for one in found["checks"])
        assert all(one["fix"] for one in found["checks"] if one["grade"] in {"bad", "warning"})
        return code, {one["check"]: one for one in found["checks"]}

    return typed


ORDER = (
    *("python", "browser", "settings", "merchants", "ledger", "disk", "secrets"),
    *("target", "clock", "tokens", "address"),
)


def test_all_checks_pass_and_nothing_is_uploaded_or_made(open_token_server, checks, doctor, tmp_path):
    token_server = open_token_server()
    before = sorted(file.name for file in tmp_path.iterdir())
    code, found = checks()
    assert code == 0
    assert tuple(found) == ORDER
    assert {found[name]["grade"] for name in ORDER if name != "browser"} == {"ok"}
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert token_server.sim.stats["link_calls"] == token_server.sim.stats["store_calls"] == 0
    assert token_server.sim.stats["quota"] == 1
    code, out, err = doctor()
    assert (code, err) == (0, f"SIMULATED {token_server.sim.base} · tcb-ops.toml\n")
    assert "All checks passed" in out
    assert "茶语小铺" in out


def test_in_chinese_it_is_all_chinese(open_token_server, doctor, find_english):
    open_token_server().sim.refuse_ip()
    code, out, _ = doctor("--lang", "zh")
    assert code == 1
    assert "未通过检查" in out
    assert "✗ 有误" in out
    result = " ".join(line.split("  ")[-1] for line in out.splitlines() if "Python" not in line)
    result = result.replace("access clientip is not registered", "")  # the platform's own words
    assert find_english(result) == []


def test_an_address_that_is_not_on_the_list_is_told_from_a_real_call(open_token_server, checks):
    open_token_server().sim.refuse_ip()
    code, found = checks()
    assert (code, found["address"]["grade"], found["target"]["grade"]) == (1, "bad", "ok")
    assert "61004" in found["address"]["seen"]
    assert "IP" in found["address"]["fix"]


@pytest.mark.parametrize(
    ("ahead", "code", "grade"),
    [(30, 0, "ok"), (-120, 0, "warning"), (1000, 1, "bad")],
    ids=["30 s", "2 min", "17 min"],
)
def test_a_clock_is_held_against_the_targets(open_token_server, checks, ahead, code, grade):
    open_token_server(clock=lambda: time.time() + ahead)
    ended, found = checks()
    assert (ended, found["clock"]["grade"]) == (code, grade)
    if grade != "ok":
        assert ("behind" if ahead > 0 else "ahead of") in found["clock"]["seen"]
        assert "time server" in found["clock"]["fix"]


def test_a_dead_target_is_bad_and_what_needs_it_is_not_looked_at(open_token_server, checks):
    open_token_server()
    began = time.monotonic()
    code, found = checks("--api-base", "http://127.0.0.1:1")
    assert time.monotonic() - began < 20
    assert code == 1
    assert [found[n]["grade"] for n in ("target", "clock", "tokens", "address")] == [
        "bad",
        "skipped",
        "ok",
        "skipped",
    ]


def test_a_name_that_nobody_knows_is_said(open_token_server, checks):
    open_token_server()
    code, found = checks("--api-base", "https://no-such-host.invalid")
    assert (code, found["target"]["grade"]) == (1, "bad")
    assert "no-such-host.invalid:443 cannot be resolved" in found["target"]["seen"]


class Wifi(BaseHTTPRequestHandler):
    """A hotel's page, whatever is asked."""

    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hotel wifi</html>")

    def log_message(self, *words):
        pass


@pytest.mark.slow
def test_something_else_at_the_target_is_not_the_platform(open_token_server, checks):
    open_token_server()
    with HTTPServer(("127.0.0.1", 0), Wifi) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        code, found = checks("--api-base", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert (code, found["target"]["grade"]) == (1, "bad")
    assert "hotel" not in str(found)


BROKEN = {
    "no TOML": ("lang = \n", "is not TOML"),
    "a wrong value": ('timezone = "Mars/Base"\n', "timezone"),
    "an unknown setting": ("foo = 1\n", "foo"),
}


@pytest.mark.parametrize(("text", "result"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_settings_are_shown_with_what_needs_none(open_token_server, checks, tmp_path, text, result):
    open_token_server()
    (tmp_path / "tcb-ops.toml").write_text(text, encoding="utf-8")
    code, found = checks()
    assert (code, found["settings"]["grade"], result in found["settings"]["seen"]) == (1, "bad", True)
    assert found["python"]["grade"] == "ok"
    assert list(found) == ["python", "browser", "settings"]


def test_with_a_broken_variable_too(open_token_server, checks, monkeypatch):
    open_token_server()
    monkeypatch.setenv("TCB_OPS_LANG", "klingon")
    code, found = checks()
    assert (code, found["settings"]["grade"]) == (1, "bad")


@pytest.mark.parametrize(
    ("ail", "check", "grade", "seen"),
    [
        (
            lambda token_server: (token_server.folder / "tokens.csv").chmod(0o644),
            "secrets",
            "warning",
            "tokens.csv",
        ),
        (lambda token_server: (token_server.folder / "tokens.csv").unlink(), "tokens", "bad", "tokens.csv"),
        (
            lambda token_server: (token_server.folder / "tokens.csv").write_text("x"),
            "tokens",
            "bad",
            "access_token",
        ),
        (lambda token_server: token_server.keep_tokens("wxbooks"), "tokens", "warning", "wxtea"),
        (lambda token_server: token_server.keep_tokens("wxother"), "tokens", "bad", "wxtea"),
        (lambda token_server: token_server.file.unlink(), "merchants", "bad", "does not exist"),
        (lambda token_server: token_server.file.write_text("appid,name\n"), "merchants", "bad", "1 problem"),
        (
            lambda token_server: (token_server.folder / "ledger.db").write_text("text " * 99),
            "ledger",
            "bad",
            "SQLite",
        ),
        (lambda token_server: token_server.sim.revoke("wxtea"), "address", "warning", "61003"),
        (lambda token_server: token_server.sim.expire("wxtea"), "address", "bad", "refused"),
    ],
    ids=[
        "modes",
        "no tokens",
        "no CSV",
        "one without",
        "none with one",
        "no merchants",
        "no env",
        "ledger",
        "revoked",
        "expired",
    ],
)
def test_each_failed_check_has_its_fix(open_token_server, checks, ail, check, grade, seen):
    ail(open_token_server())
    code, found = checks()
    assert (code, found[check]["grade"]) == (int(grade == "bad"), grade), found[check]
    assert seen in found[check]["seen"]
    others = {name for name, one in found.items() if one["grade"] == "bad"} - {check}
    assert others == set()


def test_an_unfinished_run_is_pointed_at(open_token_server, checks):
    token_server = open_token_server()
    (token_server.folder / "list.csv").write_text("env,path\ntea-1,a\nbooks-1,a\n", encoding="utf-8")
    token_server.sim.refuse_ip()
    assert run_command(["links", "list.csv", "--patience", "1"]) == 3
    token_server.sim.refuse_ip(refused=False)
    code, found = checks()
    assert (code, found["ledger"]["grade"]) == (0, "warning")
    assert "1 unfinished" in found["ledger"]["seen"]
    run = found["ledger"]["seen"].rpartition(" ")[2]
    show, again = found["ledger"]["fix"].split("`")[1::2]
    assert show.startswith(f"tcb-ops show {run} ")
    assert run_command([*shlex.split(again)[1:], "--quiet"]) == 0
    assert checks()[1]["ledger"]["grade"] == "ok"


# --- --live ----------------------------------------------------------------------------------------------------


def steps(out):
    return {step["check"]: step["grade"] == "ok" for step in json.loads(out)["checks"]}


def seen(out, name):
    return next(step["seen"] for step in json.loads(out)["checks"] if step["check"] == name)


ALL_GOOD = {"link": True, "upload": True, "confirm": True, "delete": True}


def test_live_puts_a_file_up_fetches_it_back_and_deletes_it(open_token_server, doctor, tmp_path):
    token_server = open_token_server()
    before = sorted(file.name for file in tmp_path.iterdir())
    code, out, _ = doctor("--live", "tea-1", "--json")
    assert (code, steps(out)) == (0, ALL_GOOD)
    result = json.loads(out)
    assert (result["ok"], result["left_behind"], result["env"]) == (True, None, "tea-1")
    assert token_server.sim.objects == {}
    assert (token_server.sim.stats["link_calls"], token_server.sim.stats["store_calls"]) == (1, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert seen(out, "link") == "valid for 900 s"
    assert seen(out, "upload") == "HTTP 204, its ETag is the file's MD5"


def test_live_shows_its_steps(open_token_server, doctor):
    open_token_server()
    code, out, _ = doctor("--live", "tea-1", "--lang", "zh")
    assert code == 0
    for result in ("取链接", "没有遗留", "检查全部通过", "SIMULATED 演练"):
        assert result in out


def test_live_in_an_environment_of_the_platforms_own_goes_through_componenttcb(open_token_server, doctor):
    token_server = open_token_server([TEA, OWN])
    code, out, _ = doctor("--live", "own-1", "--json")
    assert (code, steps(out), token_server.sim.objects) == (0, ALL_GOOD, {})
    stats = token_server.sim.stats
    assert (stats["component_links"], stats["download:wxcomponent"], stats["delete:wxcomponent"]) == (1, 1, 1)


ECHO = "no such thing for token-of-wxtea, access_token=token-of-wxtea"
FAILS = {
    "no download": (Fault(step=FaultStep.DOWNLOAD, errcode=-503001, errmsg=ECHO), {"confirm"}),
    "download reset": (Fault(step=FaultStep.DOWNLOAD, reset=Reset.BEFORE), {"confirm"}),
    "etag": (Fault(step=FaultStep.STORE, etag=Etag.WRONG), {"upload"}),
    "answer of the upload lost": (
        Fault(step=FaultStep.STORE, calls=((1, 1),), reset=Reset.MIDDLE),
        {"upload"},
    ),
    "first delete lost": (Fault(step=FaultStep.DELETE, calls=((1, 1),), reset=Reset.BEFORE), set()),
}


@pytest.mark.parametrize(("fault", "bad"), FAILS.values(), ids=FAILS.keys())
def test_live_leaves_nothing_behind_even_when_a_step_fails(open_token_server, doctor, fault, bad):
    token_server = open_token_server(faults=[fault])
    code, out, _ = doctor("--live", "tea-1", "--json")
    assert {name for name, good in steps(out).items() if not good} == bad
    assert code == int(bool(bad))
    assert steps(out)["delete"]
    assert token_server.sim.objects == {}
    assert json.loads(out)["left_behind"] is None


def test_live_takes_an_etag_that_is_no_md5_for_what_it_is(open_token_server, doctor):
    open_token_server(faults=[Fault(step=FaultStep.STORE, etag=Etag.OPAQUE)])
    code, out, _ = doctor("--live", "tea-1", "--json")
    assert (code, steps(out)) == (0, ALL_GOOD)
    assert "not an MD5" in seen(out, "upload")


def test_live_says_what_it_could_not_delete_and_where(open_token_server, doctor):
    token_server = open_token_server(faults=[Fault(step=FaultStep.DELETE, errcode=-503002)])
    code, out, _ = doctor("--live", "tea-1", "--json")
    assert code == 1
    (stored,) = token_server.sim.objects
    result = json.loads(out)
    assert result["left_behind"] == f"cloud://tea-1.{stored[0]}/{stored[1]}"
    assert not result["ok"]
    last = next(step for step in result["checks"] if step["check"] == "delete")
    assert "Could not be deleted" in last["seen"]
    assert last["fix"] == f"Delete it in the console of environment tea-1: {result['path']}"


def test_live_deletes_what_a_gateway_may_have_let_through(open_token_server, doctor):
    token_server = open_token_server(faults=[Fault(step=FaultStep.STORE, status=504)])
    code, out, _ = doctor("--live", "tea-1", "--json")
    assert (code, steps(out)) == (1, {"link": True, "upload": False, "delete": True})
    assert token_server.sim.stats["delete:wxtea"] == 1


def test_live_has_nothing_to_delete_where_the_store_refused_the_file(open_token_server, doctor):
    faults = [Fault(step=FaultStep.STORE, code="NoSuchBucket"), Fault(step=FaultStep.DELETE, errcode=-503002)]
    open_token_server(faults=faults)
    code, out, _ = doctor("--live", "tea-1", "--json")
    assert (code, steps(out)) == (1, {"link": True, "upload": False})
    assert "NoSuchBucket" in seen(out, "upload")


def test_live_ends_early_where_there_is_no_link(open_token_server, doctor):
    token_server = open_token_server(environments=[SimulatedEnvironment("tea-1", EnvStatus.HALTED)])
    code, out, _ = doctor("--live", "tea-1")
    assert (code, token_server.sim.stats["store_calls"], token_server.sim.objects) == (1, 0, {})
    assert "-501005" in out


def test_live_says_the_platforms_own_quota_is_the_platforms(open_token_server, doctor):
    open_token_server([TEA, OWN], faults=[Fault(env=OWN.env, errcode=45009)])
    code, out, _ = doctor("--live", "own-1", "--lang", "en")
    assert (code, "The platform's own calls for today" in " ".join(out.split())) == (1, True)
    assert "/componenttcb/uploadfile" in out


def test_live_is_stopped_by_what_stops_everybody(open_token_server, doctor):
    token_server = open_token_server()
    token_server.sim.refuse_ip()
    code, out, err = doctor("--live", "tea-1")
    assert (code, out, "61004" in err) == (3, "", True)


def test_live_renews_a_refused_token_as_a_run_does(open_token_server, doctor, tmp_path):
    token_server = open_token_server()
    fresh = token_server.sim.rotate("wxtea")
    tokens = tmp_path / "tokens.csv"
    tokens.write_text(tokens.read_text().replace("token-of-wxtea", fresh))
    code, out, _ = doctor("--live", "tea-1", "--json")
    assert (code, steps(out)) == (0, ALL_GOOD)
    assert fresh not in out


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (("--live", "nowhere"), "nowhere"),
        (("--live", "tea-1", "--where", "appid=wxbooks"), "--where"),
        (("--live", "gone-1"), "has left"),
        (("--live", "tea-1", "--where", "name=城南书店"), "--where"),
        (("--yes",), "--live"),
        (("--live", "own-1"), "component_appid"),
        (("--live", "tea-1", "--api-base", "https://api.weixin.qq.com"), "--yes"),
    ],
    ids=[
        "unknown env",
        "other appid",
        "left",
        "narrowed",
        "yes alone",
        "no component",
        "not asked",
    ],
)
def test_live_refuses_before_anything_is_sent(open_token_server, doctor, monkeypatch, words, result):
    token_server = open_token_server([TEA, BOOKS])
    with token_server.file.open("a", encoding="utf-8") as file:
        file.write("wxtea,茶语小铺,own-1,platform\n")
    text = token_server.file.read_text("utf-8").splitlines()
    lines = [text[0] + ",status", *(f"{line}," for line in text[1:]), "wxgone,旧店,gone-1,,left", ""]
    token_server.file.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("TCB_OPS_TOKENS__COMPONENT_APPID", "")
    code, out, err = doctor(*words)
    assert (code, out) == (2, "")
    assert result in err
    assert token_server.sim.stats["link_calls"] == 0


@pytest.mark.slow
def test_live_without_a_terminal_needs_yes_and_with_one_the_word(open_token_server, tmp_path):
    open_token_server()
    words = [
        sys.executable,
        "-m",
        "tcb_ops",
        "doctor",
        "--live",
        "tea-1",
        "--api-base",
        "https://127.0.0.2.invalid",
    ]
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(words, cwd=tmp_path, stdin=theirs, stderr=subprocess.PIPE, text=True) as asked:
            os.write(ours, b"n\n")
            _, result = asked.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (asked.returncode, "Nothing was sent" in result, "茶语小铺" in result) == (2, True, True)


@pytest.mark.kill
def test_live_deletes_before_it_ends_at_ctrl_c(open_token_server, tmp_path, wait_for):
    token_server = open_token_server(faults=[Fault(step=FaultStep.DOWNLOAD, delay=1.5)])
    words = [sys.executable, "-m", "tcb_ops", "doctor", "--live", "tea-1"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: token_server.sim.stats["download"] or token_server.sim.stats["store_calls"] >= 2)
        process.send_signal(signal.SIGINT)
        _, result = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "deleted first" in result
    assert "Traceback" not in result
    assert token_server.sim.objects == {}
