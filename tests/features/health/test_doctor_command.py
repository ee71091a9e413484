"""doctor, as an operator types it, against the simulator."""

import functools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from postgres import pooled
from token_server import BOOKS, TEA

import tcb_ops as tcb
from tcb_ops.features.health.notifications import note_undelivered
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.settings import load_settings


@pytest.fixture
def open_token_server(open_token_server):
    def token_server(merchants=(TEA, BOOKS), faults=(), **options):
        found = open_token_server(merchants, faults, **options)
        found.list_merchants(*merchants)
        return found

    return token_server


@pytest.fixture
def doctor(type_command):
    """Type `doctor …`: exit code, stdout, stderr."""
    return functools.partial(type_command, "doctor")


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
    *("python", "settings", "merchants", "ledger", "secrets"),
    *("target", "tokens", "pdf"),
)


@pytest.mark.needs("notebooks")
@pytest.mark.posix("Windows has a further check")
def test_all_checks_pass_and_nothing_is_uploaded_or_made(open_token_server, checks, doctor, tmp_path):
    token_server = open_token_server()
    before = sorted(file.name for file in tmp_path.iterdir())
    code, found = checks()
    assert code == 0
    assert tuple(found) == ORDER
    assert {found[name]["grade"] for name in ORDER[:-1]} == {"ok"}
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert token_server.sim.stats["link_calls"] == token_server.sim.stats["store_calls"] == 0
    assert token_server.sim.stats["quota"] == 1
    assert "asked about 茶语小铺 (wxtea) only" in found["tokens"]["seen"]
    code, out, err = doctor()
    assert (code, err) == (0, f"SIMULATED {token_server.sim.base} · tcb-ops.toml\n")
    assert "All checks passed" in out
    assert "茶语小铺" in out


def test_an_address_that_is_not_on_the_list_is_told_from_a_real_call(open_token_server, checks, doctor):
    open_token_server().sim.refuse_ip()
    code, found = checks()
    assert (code, found["tokens"]["grade"], found["target"]["grade"]) == (1, "bad", "ok")
    assert "61004" in found["tokens"]["seen"]
    assert "IP" in found["tokens"]["fix"]
    code, out, _ = doctor()
    assert (code, "61004" in out, "→" in out) == (1, True, True)


@pytest.mark.parametrize(
    ("ahead", "code", "grade"),
    [(30, 0, "ok"), (-120, 0, "warning"), (1000, 1, "bad")],
    ids=["30 s", "2 min", "17 min"],
)
def test_a_clock_is_held_against_the_targets(open_token_server, checks, ahead, code, grade):
    open_token_server(clock=lambda: time.time() + ahead)
    ended, found = checks()
    assert (ended, found["target"]["grade"]) == (code, grade)
    if grade != "ok":
        assert ("behind" if ahead > 0 else "ahead of") in found["target"]["seen"]
        assert "time server" in found["target"]["fix"]


@pytest.mark.parametrize(
    ("base", "seen"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:1"),
        ("https://no-such-host.invalid", "no-such-host.invalid:443 cannot be resolved"),
    ],
    ids=["nobody there", "an unknown name"],
)
def test_a_dead_target_is_bad_and_what_needs_it_is_not_looked_at(open_token_server, checks, base, seen):
    open_token_server()
    began = time.monotonic()
    code, found = checks("--api-base", base)
    assert time.monotonic() - began < 60
    assert code == 1
    assert [found[name]["grade"] for name in ("target", "tokens")] == ["bad", "skipped"]
    assert seen in found["target"]["seen"]


class Wifi(BaseHTTPRequestHandler):
    """A hotel's page, whatever is asked."""

    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hotel wifi</html>")

    def log_message(self, *words):
        pass


@pytest.mark.integration
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
    "a wrong variable": ("", "TCB_OPS_LANG"),
}


@pytest.mark.parametrize(("text", "result"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_settings_are_shown_with_what_needs_none(
    open_token_server, checks, tmp_path, monkeypatch, text, result
):
    open_token_server()
    if text:
        (tmp_path / "tcb-ops.toml").write_text(text, encoding="utf-8")
    else:
        monkeypatch.setenv("TCB_OPS_LANG", "klingon")
    code, found = checks()
    assert (code, found["settings"]["grade"], result in found["settings"]["seen"]) == (1, "bad", True)
    assert found["python"]["grade"] == "ok"
    assert list(found) == ["python", "settings"]


def test_with_bad_settings_doctor_and_other_commands_speak_the_language_of_the_settings(
    open_token_server, doctor, type_command, tmp_path, monkeypatch
):
    open_token_server()
    monkeypatch.delenv("TCB_OPS_LANG", raising=False)
    (tmp_path / "tcb-ops.toml").write_text('lang = "zh"\nfoo = 1\n', encoding="utf-8")
    assert "没有这个设置" in doctor()[1]
    assert "没有这个设置" in type_command("runs")[2]


def notify_by(server, file):
    with (server.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write(f'\n[[notify]]\nkind = "wecom"\nurl_file = "{file}"\n')


FAILED = {
    "modes": (lambda server: (server.folder / "tokens.csv").chmod(0o644), "secrets", "warning", "tokens.csv"),
    "no tokens": (lambda server: (server.folder / "tokens.csv").unlink(), "tokens", "bad", "tokens.csv"),
    "no CSV": (
        lambda server: (server.folder / "tokens.csv").write_text("x"),
        "tokens",
        "bad",
        "access_token",
    ),
    "none with one": (lambda server: server.keep_tokens("wxother"), "tokens", "bad", "wxtea"),
    "no merchants": (lambda server: server.file.unlink(), "merchants", "bad", "does not exist"),
    "no env": (lambda server: server.file.write_text("appid,name\n"), "merchants", "bad", "1 problem"),
    "ledger": (lambda server: (server.folder / "ledger.db").write_text("-" * 99), "ledger", "bad", "SQLite"),
    "revoked": (lambda server: server.sim.revoke("wxtea"), "tokens", "warning", "61003"),
    "robot": (lambda server: notify_by(server, "robot.txt"), "notify", "warning", "robot.txt cannot be read"),
    "expired": (lambda server: server.sim.expire("wxtea"), "tokens", "bad", "does not accept"),
}


@pytest.mark.parametrize(("ail", "check", "grade", "seen"), FAILED.values(), ids=FAILED)
def test_each_failed_check_has_its_fix(open_token_server, checks, ail, check, grade, seen):
    ail(open_token_server())
    code, found = checks()
    assert (code, found[check]["grade"]) == (int(grade == "bad"), grade), found[check]
    assert seen in str(found[check])
    others = {name for name, one in found.items() if one["grade"] == "bad"} - {check}
    assert others == set()


@pytest.mark.posix("file modes")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_command_is_on_a_line_of_its_own_however_narrow_the_screen(
    open_token_server, doctor, monkeypatch, lang
):
    monkeypatch.setenv("COLUMNS", "50")
    server = open_token_server()
    (server.folder / "tokens.csv").chmod(0o644)
    notify_by(server, "robot.txt")
    lines = doctor("--lang", lang)[1].splitlines()
    assert f"chmod 600 {server.folder / 'tokens.csv'}" in lines
    assert [line for line in lines if line.startswith("tcb-ops notify --test --config ")]


def test_a_robot_that_did_not_get_the_last_message_is_named(open_token_server, checks):
    server = open_token_server()
    (server.folder / "robot.txt").write_text("https://robot.invalid/send?key=k", encoding="utf-8")
    notify_by(server, "robot.txt")
    assert checks()[1]["notify"]["grade"] == "ok"
    run = tcb.audit(settings=load_settings())
    ledger = Ledger(str(server.folder / "ledger.db"))
    note_undelivered(ledger, run.record, ["wecom robot.txt"])
    ledger.close()
    notified = checks()[1]["notify"]
    assert (notified["grade"], run.id in notified["seen"]) == ("warning", True)


@pytest.mark.integration
@pytest.mark.needs("postgres")
def test_a_pooler_that_takes_locks_away_is_no_place_for_the_ledger(
    open_token_server, checks, postgres, database
):
    open_token_server()
    for mode, grade in ("transaction", "bad"), ("session", "ok"):
        with pooled(postgres, mode) as pooler:
            _code, found = checks("--ledger", pooler.url(database))
        assert found["ledger"]["grade"] == grade
    assert postgres.run("SELECT count(*) FROM runs", database) == [(0,)]
