"""Tokens, signatures and links stand in links.csv and nowhere else; a token source that cannot work is one message."""

import csv
import json
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from workspace import BOOKS, TEA, TEA_TEST, many

from tcb_ops.features.simulator.faults import Component, Etag, Fault, FaultStep, Reset
from tcb_ops.model import Merchant, Owner

pytestmark = pytest.mark.integration

LOUD = (
    "import logging, sys; logging.basicConfig(level=0, stream=sys.stderr); "
    "from tcb_ops.cli.main import main; main(sys.argv[1:])"
)
TOKENS = {appid: f"token-of-{appid}" for appid in (TEA.appid, BOOKS.appid)}
TROUBLE = [
    Fault(env=TEA.env, path="banner/1.png", errcode=40001),
    Fault(env=TEA.env, path="banner/2.png", status=502),
    Fault(env=TEA.env, path="banner/3.png", reset=Reset.MIDDLE),
    Fault(env=TEA.env, path="banner/4.png", body="garbage"),
    Fault(env=TEA_TEST.env, path="banner/1.png", step=FaultStep.STORE, code="SignatureDoesNotMatch"),
    Fault(env=TEA_TEST.env, path="banner/2.png", step=FaultStep.STORE, etag=Etag.WRONG),
    Fault(env=TEA_TEST.env, path="banner/3.png", step=FaultStep.STORE, reset=Reset.BEFORE),
    Fault(env=BOOKS.env, errcode=85088),
]
PATTERNS = ("q-signature=", "q-sign-algorithm", "access_token=", "x-cos-security-token:")
"""What a secret looks like, for links that never reached a file."""


def secrets(cli):
    """The tokens, and every secret part of the links in links.csv."""
    found = set(TOKENS.values())
    for file in cli.folder.glob("links.csv*"):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                found |= {
                    row[name] for name in ("url", "token", "authorization", "cos_file_id") if row.get(name)
                }
    return found


def assert_kept(cli, *texts):
    """Nothing secret in what was said, nor in any file but the token file, links.csv and the uploads themselves."""
    mine = {"tokens.csv", "fresh.csv", "links.csv", "links.csv.part"}
    files = [
        file
        for file in cli.folder.rglob("*")
        if file.is_file() and file.name not in mine and "files" not in file.relative_to(cli.folder).parts
    ]
    assert any(file.name.startswith("ledger.db") for file in files)
    for secret in (*secrets(cli), *PATTERNS):
        assert [text for text in texts if secret in text] == [], secret
        assert [file.name for file in files if secret.encode() in file.read_bytes()] == [], secret


def loud(cli, *words, act=None):
    """Run a command with every logger at its loudest; `act` may do something to the process."""
    with cli.spawn([sys.executable, "-X", "dev", "-W", "ignore", "-c", LOUD, *words]) as process:
        arguments = Path(f"/proc/{process.pid}/cmdline")
        seen = arguments.read_text(encoding="utf-8") if arguments.exists() else ""
        if act is not None:
            act(process)
        out, err = process.communicate(timeout=240)
    assert [secret for secret in secrets(cli) if secret in seen] == []
    return process.returncode, out, err


SOON_VERBOSE = ("--backoff", "0.01", "--attempts", "2", "--verbose")


def upload(*more):
    return ("upload", "list.csv", "--root", "files", *SOON_VERBOSE, *more)


def links(*more):
    return ("links", "list.csv", *SOON_VERBOSE, *more)


def assert_trace_of(cli, defect):
    """Run `links` with a defect made on purpose, which --verbose shows the trace of; return stdout and stderr."""
    broken = LOUD.replace("from tcb_ops.cli", f"{defect}; from tcb_ops.cli")
    with cli.spawn([sys.executable, "-c", broken, *links()]) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 3
    assert "TypeError" in err
    return out, err


@pytest.fixture
def cli(open_cli):
    return open_cli(many(TEA, TEA_TEST, BOOKS, rows=6), TROUBLE)


def test_in_success_refusal_and_failure(cli):
    _, links_out, links_err = loud(cli, *links())
    assert "DEBUG" in links_err, "the loggers are loud"
    code, out, err = loud(cli, *upload("--json"))
    assert code == 1
    assert_kept(cli, links_out, links_err, out, err)
    for words in (
        ("show",),
        ("show", "--path", "banner"),
        ("errcodes",),
        ("report", "--json"),
        ("runs", "--json"),
    ):
        result = cli(*words)
        assert_kept(cli, result.out, result.err)
    assert len(secrets(cli)) > 10


@pytest.mark.kill
def test_when_a_run_is_interrupted_or_killed(cli, wait_for):
    for number in (signal.SIGINT, signal.SIGKILL):
        before = cli.calls

        def end(process, number=number, before=before):
            wait_for(lambda: cli.calls >= before + 6)
            process.send_signal(number)

        _, out, err = loud(cli, *links("--new-run", "--concurrency", "2"), act=end)
        assert_kept(cli, out, err)
        for part in cli.folder.glob("links.csv.part"):
            assert part.stat().st_mode & 0o077 == 0
            part.unlink()


def test_when_the_token_is_refused_or_the_platform_is_away(cli):
    cli.workspace.keep_tokens({appid: f"{token}-gone" for appid, token in TOKENS.items()})
    code, out, err = loud(cli, *links("--json"))
    assert code == 1
    assert_kept(cli, out, err)
    code, out, err = loud(cli, *links("--json", "--api-base", "http://127.0.0.1:9", "--patience", "0.1"))
    assert code == 3
    assert_kept(cli, out, err)


@pytest.mark.slow
def test_when_the_program_itself_breaks(cli):
    """The defect is deep in a call, and its trace holds no secret."""
    out, err = assert_trace_of(cli, "import tcb_ops.wechat.responses as w; w.read_object = None")
    assert_kept(cli, out, err)


# --- secrets of the token sources -----------------------------------------------------------------------------------------

PLATFORM = Component("wxplatform", "PrAcTiCe-app-secret", "PrAcTiCe-ticket")
OWN = Merchant("wxplatform", "平台自有", "own-env-1", owner=Owner.PLATFORM)
KEY = "Bearer PrAcTiCe-auth-key"
REFRESH = f"practice-refresh-token-of-{BOOKS.appid}"


WHOLE = (
    'source = "component"',
    "sole_owner = true",
    'component_appid = "wxplatform"',
    'secret = "env:PRACTICE_SECRET"',
    'ticket = "file:ticket.txt"',
)
"""Settings with which a platform refreshes tokens by itself."""


@pytest.fixture
def open_platform(open_cli, monkeypatch):
    """A platform that refreshes by itself: its secret in the environment, its ticket in a file."""

    def opened(rows, faults=(), **options):
        cli = open_cli(rows, faults, component=replace(PLATFORM, rotate=True), tokens={}, **options)
        (cli.folder / "ticket.txt").write_text(PLATFORM.ticket)
        monkeypatch.setenv("PRACTICE_SECRET", PLATFORM.secret)
        settings(cli, *WHOLE)
        return cli

    return opened


@pytest.fixture
def platforms_desk(open_platform):
    faults = [
        *TROUBLE,
        Fault(appid=BOOKS.appid, step=FaultStep.AUTHORIZER_TOKEN, errcode=61003, errmsg=f"no {REFRESH}"),
    ]
    rows = many(TEA, TEA_TEST, BOOKS, rows=6)
    return open_platform(rows, faults, merchants=(TEA, TEA_TEST, BOOKS, OWN))


def settings(cli, *tokens):
    file = cli.folder / "tcb-ops.toml"
    head = file.read_text(encoding="utf-8").split("[tokens]")[0]
    file.write_text("\n".join([head, "[tokens]", *tokens]), encoding="utf-8")


def of_the_store(cli):
    """Every token that stands in the store by now."""
    found = [json.loads(file.read_text()) for file in (cli.folder / "tcb-ops.tokens").glob("*.json")]
    return {
        record[name] for record in found for name in ("access_token", "refresh_token") if record.get(name)
    }


def assert_planted_kept(cli, planted, *texts):
    assert_kept(cli, *texts)
    mine = {"ticket.txt", "links.csv", "links.csv.part"}
    for secret in planted:
        assert [text[:200] for text in texts if secret in text] == [], secret
        for file in cli.folder.rglob("*"):
            if file.is_file() and file.name not in mine and "tcb-ops.tokens" not in file.parts:
                assert secret.encode() not in file.read_bytes(), (secret, file.name)


def test_the_platforms_own_secrets_in_runs_that_succeed_and_fail(platforms_desk):
    cli = platforms_desk
    planted = {PLATFORM.secret, PLATFORM.ticket, REFRESH}
    _, links_out, links_err = loud(cli, *links())
    assert "DEBUG" in links_err, "the loggers are loud"
    planted |= of_the_store(cli)
    assert len(planted) > 4
    assert_planted_kept(cli, planted, links_out, links_err)
    cli.workspace.sim.expire(TEA.appid)
    _, out, err = loud(cli, *upload("--json", "--new-run"))
    planted |= of_the_store(cli)
    assert_planted_kept(cli, planted, out, err)
    cli.workspace.sim.refuse_ip()
    cli.workspace.sim.expire(TEA.appid)
    code, out, err = loud(cli, *links("--new-run"))
    assert code == 3
    assert "61004" in err
    assert_planted_kept(cli, planted, out, err)


@pytest.mark.kill
def test_the_platforms_own_secrets_when_refused_or_killed(platforms_desk, wait_for):
    cli = platforms_desk
    (cli.folder / "ticket.txt").write_text("PrAcTiCe-other-ticket")
    code, out, err = loud(cli, *links())
    assert code == 3
    assert "61006" in err
    assert_planted_kept(cli, {PLATFORM.secret, "PrAcTiCe-other-ticket"}, out, err)
    (cli.folder / "ticket.txt").write_text(PLATFORM.ticket)
    before = cli.workspace.sim.stats["authorizer_token"]

    def kill(process):
        wait_for(lambda: cli.workspace.sim.stats["authorizer_token"] > before)
        process.send_signal(signal.SIGKILL)

    _, out, err = loud(cli, *links(), act=kill)
    assert_planted_kept(cli, {PLATFORM.secret, PLATFORM.ticket} | of_the_store(cli), out, err)


@pytest.mark.slow
def test_the_platforms_own_secrets_when_the_program_breaks_in_a_refresh(platforms_desk):
    """The defect is beneath the refresh, and its trace holds no secret."""
    defect = "import tcb_ops.features.tokens.component as i; i.is_token = None"
    out, err = assert_trace_of(platforms_desk, defect)
    assert_planted_kept(platforms_desk, {PLATFORM.secret, PLATFORM.ticket}, out, err)


@pytest.mark.parametrize("port", ["closed", "open"])
def test_the_token_servers_key(open_cli, monkeypatch, port):
    cli = open_cli(many(TEA, rows=2))
    monkeypatch.setenv("PRACTICE_KEY", KEY)
    base = (
        "http://127.0.0.1:9" if port == "closed" else cli.workspace.sim.base
    )  # no token server: it answers 403
    settings(
        cli,
        'source = "service"',
        f'url = "{base}/{{appid}}?key=PrAcTiCe-query"',
        'auth_env = "PRACTICE_KEY"',
    )
    code, out, err = loud(cli, *links("--patience", "1"))
    assert code == 3
    assert ("cannot be reached" if port == "closed" else "HTTP 403") in err
    assert_planted_kept(cli, {KEY, "PrAcTiCe-auth-key"}, out, err)
    assert "PrAcTiCe-query" not in out + err


def test_the_ticket_the_store_and_the_settings_are_never_listed_for_upload(open_platform):
    cli = open_platform(many(TEA, BOOKS, rows=2))
    assert cli.links().code == 0
    (cli.folder / "mine.png").touch()
    result = cli("list", ".", "--to", TEA.env, "--out", "all.csv", "--include", "*")
    assert result.code == 0, result.err
    listed = (cli.folder / "all.csv").read_text(encoding="utf-8-sig")
    assert "mine.png" in listed
    assert not re.search(r"ticket\.txt|tcb-ops\.tokens|tcb-ops\.toml", listed)


@pytest.mark.kill
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(
    "words",
    [
        ("merchants", "check"),
        ("merchants", "sync"),
        ("doctor",),
    ],
    ids="-".join,
)
def test_a_command_that_is_interrupted_keeps_the_refresh_that_is_on_its_way(open_platform, wait_for, words):
    slow = Fault(appid=TEA.appid, step=FaultStep.AUTHORIZER_TOKEN, delay=1)
    cli = open_platform(many(TEA, BOOKS, rows=2), [slow])
    sim = cli.workspace.sim
    with cli.process(*words) as process:
        wait_for(lambda: sim.stats[f"authorizer_token:{TEA.appid}"])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Traceback" not in err
    kept = json.loads((cli.folder / "tcb-ops.tokens" / f"{TEA.appid}.json").read_text())
    assert kept["refresh_token"] == sim.refresh_token(TEA.appid)
