"""Tokens, signatures and links stand in links.csv and nowhere else, however a command ends and however much is logged."""

import csv
import signal
import sys
from pathlib import Path

import pytest
from shop import BOOKS, TEA, TEA_TEST, many

from tcb_ops.simulator import Fault
from tcb_ops.simulator.faults import Etag, Reset, Step

LOUD = (
    "import logging, sys; logging.basicConfig(level=0, stream=sys.stderr); "
    "from tcb_ops.doors.cli import main; main(sys.argv[1:])"
)
TOKENS = {appid: f"token-of-{appid}" for appid in (TEA.appid, BOOKS.appid)}
TROUBLE = [
    Fault(env=TEA.env, path="banner/1.png", errcode=40001),
    Fault(env=TEA.env, path="banner/2.png", status=502),
    Fault(env=TEA.env, path="banner/3.png", reset=Reset.MIDDLE),
    Fault(env=TEA.env, path="banner/4.png", garbage=True),
    Fault(env=TEA_TEST.env, path="banner/1.png", step=Step.STORE, code="SignatureDoesNotMatch"),
    Fault(env=TEA_TEST.env, path="banner/2.png", step=Step.STORE, etag=Etag.WRONG),
    Fault(env=TEA_TEST.env, path="banner/3.png", step=Step.STORE, reset=Reset.BEFORE),
    Fault(env=BOOKS.env, errcode=85088),
]
PATTERNS = ("q-signature=", "q-sign-algorithm", "access_token=", "x-cos-security-token:")
"""What a secret looks like, for links that never reached a file."""


def secrets(desk):
    """The tokens, and every secret part of the links in links.csv."""
    found = set(TOKENS.values())
    for file in desk.folder.glob("links.csv*"):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                found |= {
                    row[name] for name in ("url", "token", "authorization", "cos_file_id") if row.get(name)
                }
    return found


def assert_kept(desk, *texts):
    """Nothing secret in what was said, nor in any file but the token file, links.csv and the uploads themselves."""
    mine = {"tokens.csv", "fresh.csv", "links.csv", "links.csv.part"}
    files = [
        file
        for file in desk.folder.rglob("*")
        if file.is_file() and file.name not in mine and "files" not in file.relative_to(desk.folder).parts
    ]
    assert any(file.name.startswith("ledger.db") for file in files)
    for secret in (*secrets(desk), *PATTERNS):
        assert [text for text in texts if secret in text] == [], secret
        assert [file.name for file in files if secret.encode() in file.read_bytes()] == [], secret


def loud(desk, *words, act=None):
    """Run a command with every logger at its loudest; `act` may do something to the process."""
    with desk.spawn([sys.executable, "-X", "dev", "-W", "ignore", "-c", LOUD, *words]) as process:
        arguments = Path(f"/proc/{process.pid}/cmdline")
        seen = arguments.read_text(encoding="utf-8") if arguments.exists() else ""
        if act is not None:
            act(process)
        out, err = process.communicate(timeout=60)
    assert [secret for secret in secrets(desk) if secret in seen] == []
    return process.returncode, out, err


def upload(*more):
    return (
        "upload",
        "list.csv",
        "--root",
        "files",
        "--backoff",
        "0.01",
        "--attempts",
        "2",
        "--verbose",
        *more,
    )


def links(*more):
    return ("links", "list.csv", "--backoff", "0.01", "--attempts", "2", "--verbose", *more)


@pytest.fixture
def desk(open_desk):
    return open_desk(many(TEA, TEA_TEST, BOOKS, rows=6), TROUBLE)


def test_in_success_refusal_and_failure(desk):
    _, links_out, links_err = loud(desk, *links())
    assert "DEBUG" in links_err, "the loggers are loud"
    code, out, err = loud(desk, *upload("--json"))
    assert code == 1
    assert_kept(desk, links_out, links_err, out, err)
    for words in (
        ("show",),
        ("show", "--path", "banner"),
        ("errcodes",),
        ("report", "--json"),
        ("runs", "--json"),
    ):
        said = desk(*words)
        assert_kept(desk, said.out, said.err)
    assert len(secrets(desk)) > 10


def test_when_a_run_is_interrupted_or_killed(desk, until):
    for number in (signal.SIGINT, signal.SIGKILL):
        before = desk.calls

        def end(process, number=number, before=before):
            until(lambda: desk.calls >= before + 6)
            process.send_signal(number)

        _, out, err = loud(desk, *links("--new-run", "--concurrency", "2"), act=end)
        assert_kept(desk, out, err)
        for part in desk.folder.glob("links.csv.part"):
            assert part.stat().st_mode & 0o077 == 0
            part.unlink()


def test_when_the_token_is_refused_or_the_platform_is_away(desk):
    desk.shop.keep_tokens({appid: f"{token}-gone" for appid, token in TOKENS.items()})
    code, out, err = loud(desk, *links("--json"))
    assert code == 1
    assert_kept(desk, out, err)
    code, out, err = loud(desk, *links("--json", "--api-base", "http://127.0.0.1:9", "--patience", "0.1"))
    assert code == 3
    assert_kept(desk, out, err)


def test_when_the_program_itself_breaks(desk):
    """A defect made on purpose, deep in a call: --verbose shows its trace, and that holds no secret."""
    broken = LOUD.replace(
        "from tcb_ops.doors",
        "import tcb_ops.platform.wechat as w; w.json.loads = None; from tcb_ops.doors",
    )
    with desk.spawn([sys.executable, "-c", broken, *links()]) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "TypeError" in err
    assert_kept(desk, out, err)
