"""With a terminal: a bar, questions, Ctrl-C as a key. Without: a line now and then."""

import json
import os
import pty
import re
import select
import shlex
import sqlite3
import sys
import time
from contextlib import closing, contextmanager

import pytest
from rich.cells import cell_len
from workspace import BOOKS, TEA, many

from tcb_ops.cli import console
from tcb_ops.cli.console import progress_line
from tcb_ops.engine.progress import Progress
from tcb_ops.features.health import HEALTHY
from tcb_ops.features.simulator.faults import Fault, Faults, SimulatedAccount
from tcb_ops.features.simulator.server import Simulator
from tcb_ops.features.simulator.state import Response
from tcb_ops.i18n import Bilingual, Lang, verbatim
from tcb_ops.model import Merchant, Outcome
from tcb_ops.wechat.client import HANDSHAKE

HELD = [Fault(delay=0.02)]
SIX = tuple(Merchant(f"wx{n}", f"商户{n}", f"env-{n}") for n in range(6))


class Typed:
    """A command on a terminal of its own; stdout is a pipe."""

    def __init__(self, process, terminal):
        self.process, self.terminal, self.seen = process, terminal, ""

    def wait_for(self, words):
        end = time.monotonic() + 240
        while words not in self.seen:
            assert time.monotonic() < end, self.seen
            if not self.read():
                raise AssertionError(self.seen)

    def read(self):
        """Read what is on the terminal by now; False once nobody writes to it."""
        if not select.select([self.terminal], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self.terminal, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def type(self, text):
        os.write(self.terminal, text.encode())

    def end(self):
        while self.read():
            pass
        out = self.process.stdout.read()
        return self.process.wait(timeout=240), out


@pytest.fixture
def on_terminal():
    @contextmanager
    def opened(cli, *words, columns=120):
        ours, theirs = pty.openpty()
        options = {"stdin": theirs, "stderr": theirs, "env": {"TERM": "xterm", "COLUMNS": str(columns)}}
        try:
            argv = [sys.executable, "-c", CONTROLLED, *words]
            with cli.spawn(argv, start_new_session=True, **options) as process:
                os.close(theirs)
                theirs = -1
                yield Typed(process, ours)
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)

    return opened


CONTROLLED = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from tcb_ops.cli.main import main
main()
"""
"""The terminal is the process's own, so that a Ctrl-C typed there reaches it."""


@pytest.mark.slow
def test_a_bar_shows_rows_rate_and_outcomes(open_cli, on_terminal):
    cli = open_cli(many(TEA, BOOKS, rows=60), HELD)
    with on_terminal(cli, "upload", "list.csv", "--root", "files", "--concurrency", "8", "--json") as typed:
        typed.wait_for("/120")
        typed.wait_for(" uploaded")
        code, out = typed.end()
    assert code == 0
    assert "rows/s" in typed.seen
    assert json.loads(out)["counts"] == {"uploaded": 120}


COUNTS = {Outcome.UPLOADED: 20_000, Outcome.REFUSED: 312, Outcome.NOT_ATTEMPTED: 45}


@pytest.mark.parametrize(
    ("total", "note", "line"),
    [
        (30_000, None, "20,357/30,000 · 被拒绝 312 · 未尝试 45 · 已上传 20,000 · 50 行/秒 · 剩余 3 分 20 秒"),
        (20_357, None, "20,357/20,357 · 被拒绝 312 · 未尝试 45 · 已上传 20,000"),
        (
            20_357,
            Bilingual("away", "不可达"),
            "20,357/20,357 · 不可达 · 被拒绝 312 · 未尝试 45 · 已上传 20,000",
        ),
    ],
)
def test_a_line_of_progress_has_last_what_matters_least(total, note, line):
    assert progress_line(Progress("run", total, COUNTS, 50.0, 200.0, note), Lang.ZH) == line


@pytest.mark.parametrize(
    ("away", "line"),
    [(False, "left 0:09 · 4/4 · 4 uploaded"), (True, "left 0:09 · 4/4 · why · 4 uploaded")],
)
def test_a_line_that_moves_begins_with_its_countdown(away, line):
    progress = Progress(
        "r", 4, {Outcome.UPLOADED: 4}, 1.0, None, verbatim("why"), verbatim("left 0:09"), away
    )
    assert progress_line(progress, Lang.EN, moves=True) == line
    assert progress_line(progress, Lang.EN) == "4/4 · why · 4 uploaded"


@pytest.mark.slow
def test_a_pause_and_an_outage_count_down(open_cli, on_terminal):
    cli = open_cli(many(TEA, rows=2), [Fault(path="banner/1.png", calls=((1, 1),), errcode=45011)])
    with on_terminal(cli, "upload", "list.csv", "--root", "files", "--slow-wait", "3") as typed:
        typed.wait_for(f"{TEA.env} paused, 2s · 1/2")
        typed.wait_for(f"{TEA.env} paused, 1s · 1/2")
        assert typed.end()[0] == 0
    words = ("upload", "list.csv", "--root", "files", "--target", "https://api.invalid", "--yes", "--new-run")
    with on_terminal(cli, *words, "--patience", "3") as typed:
        typed.wait_for("gives up in 2s · 0/2")
        assert typed.end()[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_sentences_break_between_words_at_the_terminals_width(open_cli, on_terminal, lang):
    cli = open_cli(many(TEA, rows=2))
    with on_terminal(cli, "verify", "reports", "--where", "env=x", "--lang", lang, columns=40) as typed:
        assert typed.end()[0] == 2
    lines = typed.seen.replace("\r\n", "\n").strip().split("\n")
    assert len(lines) > 1
    assert max(map(cell_len, lines)) <= 40
    told = cli("verify", "reports", "--where", "env=x", "--lang", lang).err
    assert "".join(lines).replace(" ", "") == "".join(told.split())
    assert lang == "zh" or {word for line in lines for word in line.split()} == set(told.split())


@pytest.mark.slow
def test_a_suggested_command_is_one_line_on_a_narrow_terminal(open_cli, on_terminal):
    """The terminal wraps it, so that it is copied as one line: tcb-ops prints no line end in it."""
    cli = open_cli(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    with on_terminal(cli, "upload", "list.csv", "--root", "files", columns=80) as typed:
        assert typed.end()[0] == 1
    (line,) = re.findall(r"^tcb-ops .*$", typed.seen.replace("\r\n", "\n"), re.MULTILINE)
    assert cell_len(line) > 80
    root, config = str(cli.folder / "files"), str(cli.folder / "tcb-ops.toml")
    assert shlex.split(line) == [
        *("tcb-ops", "upload", "failed-fixed.csv", "--root", root), *("--config", config)
    ]  # fmt: skip


@pytest.mark.kill
def test_ctrl_c_typed_ends_the_run_with_130_and_gives_the_terminal_back(open_cli, on_terminal):
    cli = open_cli(many(TEA, BOOKS, rows=150), HELD)
    with on_terminal(cli, "upload", "list.csv", "--root", "files", "--concurrency", "8", "--json") as typed:
        typed.wait_for(" uploaded")
        typed.type("\x03")
        code, out = typed.end()
    assert code == 130
    assert cli.assert_complete(json.loads(out), 300)["pending"] > 0
    assert "To resume run " in typed.seen
    assert "Traceback" not in typed.seen
    assert typed.seen.count("\x1b[?25l") == typed.seen.count("\x1b[?25h"), "the cursor is back"


@pytest.mark.slow
def test_quiet_shows_no_bar(open_cli, on_terminal):
    cli = open_cli(many(TEA, rows=20), HELD)
    with on_terminal(cli, "upload", "list.csv", "--root", "files", "--quiet") as typed:
        code, _ = typed.end()
    assert (code, typed.seen) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("merchants", "asked", "answer", "code"),
    [
        (SIX, "6 live environments", "n", 2),
        (SIX, "6 live environments", "y", 3),
        ((TEA,), "1 live environment", "n", 2),
        ((TEA,), "", "--yes", 3),
    ],
    ids=["many, no", "many, yes", "one, no", "told before"],
)
def test_live_environments_are_asked_about(open_cli, on_terminal, merchants, asked, answer, code):
    """api.example.invalid never resolves: a yes ends with exit 3."""
    cli = open_cli(many(*merchants, rows=2), merchants=merchants)
    words = ("--target", "https://api.example.invalid", "--patience", "0.1", *(() if asked else (answer,)))
    with on_terminal(cli, "upload", "list.csv", "--root", "files", *words) as typed:
        if asked:
            typed.wait_for(f"Upload to {asked} of https://api.example.invalid? [y/N]")
            typed.type(f"{answer}\n")
        assert typed.end()[0] == code
    assert typed.seen.startswith("LIVE https://api.example.invalid · tcb-ops.toml\r\n")
    assert ("Nothing was sent." in typed.seen) == (answer == "n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lang", "asked", "ended"),
    [
        ("en", "Send the merchants' tokens there? [y/N]: ", "Nothing was sent."),
        ("zh", "确定把商户的令牌发到那里吗？（输入 y 确认；直接回车取消）： ", "未发送任何内容。"),
    ],
)
def test_a_public_host_that_is_not_the_platforms_is_asked_about(open_cli, on_terminal, lang, asked, ended):
    cli = open_cli(many(TEA, rows=2))
    words = ("--target", "https://api.weixin.example")
    with on_terminal(cli, "links", "list.csv", "--lang", lang, *words) as typed:
        typed.wait_for(asked)
        typed.type("n\n")
        assert typed.end()[0] == 2
    assert ended in typed.seen
    refused = cli("audit", *words)
    assert (refused.code, "Without a terminal" in refused.err) == (2, True)


class Platform(Simulator):
    """One that does not say that it is a simulator."""

    async def handle(self, request):
        return Response(404) if request.target == HANDSHAKE else await super().handle(request)


@pytest.mark.slow
def test_a_question_warns_of_too_few_link_calls(open_cli, on_terminal):
    cli, faults = open_cli(many(TEA, rows=3)), Faults(accounts=(SimulatedAccount(TEA.appid, daily_limit=1),))
    with Platform([TEA], {TEA.appid: "token-of-wxtea"}, faults=faults) as server:
        words = ("upload", "list.csv", "--root", "files", "--target", server.base)
        with on_terminal(cli, *words) as typed:
            typed.wait_for(f"too few for {TEA.name} (1 left, 3 needed)")
            typed.wait_for("[y/N]: ")
            typed.type("n\n")
            assert typed.end()[0] == 2
        assert (server.stats["quota"], server.stats["link_calls"]) == (1, 0), "nothing was sent"


@pytest.mark.slow
def test_the_text_for_a_merchant_is_shown_on_the_terminal_and_not_in_the_data(open_cli, on_terminal):
    cli = open_cli(many(TEA, rows=1))
    faults = Faults(accounts=(SimulatedAccount(TEA.appid, permissions=(18,)),))
    with Simulator([TEA], {TEA.appid: "token-of-wxtea"}, faults=faults) as server:
        target = ("--target", server.base)
        assert cli("links", "list.csv", *target).code == 1
        with on_terminal(cli, "fix", "--json", *target) as typed:
            typed.wait_for("Have you sent the text to the merchant?")
            typed.type("y\n")
            code, out = typed.end()
    assert (code, json.loads(out)["causes"][0]["state"]) == (1, "waiting")
    assert "please authorize us again" in typed.seen


@pytest.mark.kill
def test_ctrl_c_at_a_question_is_130_and_nothing_was_sent(open_cli, on_terminal):
    cli = open_cli(many(*SIX, rows=2), merchants=SIX)
    with on_terminal(
        cli, "upload", "list.csv", "--root", "files", "--api-base", "https://api.example.invalid"
    ) as typed:
        typed.wait_for("[y/N]: ")
        # Python may be just about to read: a signal that comes in that instant is seen at the next key.
        pressed = time.monotonic()
        typed.type("\x03")
        while typed.read():
            if time.monotonic() - pressed > 2:
                pressed = time.monotonic()
                typed.type("\x03")
        assert typed.end()[0] == 130
    assert cli("runs", "--json").json == {"runs": []}


@pytest.mark.integration
def test_without_a_terminal_progress_is_a_line_every_few_seconds(open_cli, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    cli = open_cli(many(TEA, rows=8), [Fault(delay=0.1)])
    result = cli.links("--concurrency", "4", "--per-env", "4")
    target, listed, *lines = result.err.splitlines()
    assert target == f"SIMULATED {cli.workspace.sim.base} · tcb-ops.toml"
    assert "list.csv" in listed
    assert any("/8 · " in line and " linked" in line for line in lines)
    assert "\x1b" not in result.err


def test_a_short_run_without_a_terminal_says_no_progress(open_cli):
    cli = open_cli(many(TEA, rows=5))
    result = cli.upload()
    assert "rows/s" not in result.err
    assert "\x1b" not in result.err + result.out


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_run_over_a_day_old_is_asked_about(open_cli, on_terminal, answer):
    cli = open_cli(many(TEA, rows=3))
    run = cli.upload("--json", "--limit", "2").json["run"]
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET created_at = created_at - 90000, finished_at = NULL")
    before = cli.calls
    words = ("upload", "list.csv", "--root", "files", "--limit", "2", "--json")
    with on_terminal(cli, *words) as typed:
        typed.wait_for(f"Run {run} of this list, started ")
        typed.wait_for("[y/N]: ")
        typed.type(f"{answer}\n")
        code, out = typed.end()
    if answer == "y":
        assert (code, json.loads(out)["run"]) == (0, run)
    else:
        assert (code, json.loads(out)["error"]["code"], cli.calls) == (2, "usage", before)
        assert f"--resume {run}" in typed.seen


def test_without_a_terminal_an_outage_is_reported_once_and_when_it_ends(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    away = Bilingual("the target is away", "目标不可达")

    def progress(done, note=None):
        return Progress("r", 9, {HEALTHY: done}, 1.0, None, note, away=note is not None)

    seen = [progress(1), *[progress(1, away)] * 40, progress(1), *[progress(2, away)] * 40, progress(9)]
    console.Console(Lang.EN).follow(iter(seen), 9)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["1/9", "1/9", "1/9", "2/9", "9/9"]
    assert ["away" in line for line in lines] == [False, True, False, True, False]


@pytest.mark.integration
@pytest.mark.parametrize("columns", [80, 100])
def test_runs_fit_the_terminal_whatever_they_are(open_cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    cli = open_cli(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    name = "十一月第二批门店横幅和弹窗素材清单-final-v2.csv"
    (cli.folder / "list.csv").rename(cli.folder / name)
    run = cli("upload", name, "--root", "files", "--json", "--note", "双十一 第二批 " * 9).json["run"]
    cli("retry", run)
    cli("upload", name, "--root", "files", "--api-base", "https://api.example.invalid", "--patience", "0")
    for lang in ("en", "zh"):
        shown = cli("runs", "--lang", lang).out
        assert max(map(cell_len, shown.splitlines())) <= columns, shown
        assert shown.count(f"{run[:8]}-") == 3
        assert shown.count("SIMULATED") == 2
        assert ("list, note" if lang == "en" else "清单、备注") in shown.splitlines()[1]
        # Below a run's figures there is room for its list's whole name.
        assert shown.count("十一月") == 3
        assert shown.count("-v2.csv") == 3
        assert not any(line.strip() == "→" for line in shown.splitlines())


def test_rows_and_a_dry_run_fit_the_terminal_a_line_each(open_cli, monkeypatch):
    long = Merchant("wxlong", "晨光茶饮旗舰店（华东区第一分公司）与合作伙伴", "prod-tea-1a2b3c")
    rows = [(long.env, f"banner/2026/双十一/a-name-that-is-very-long-{n}.png") for n in range(3)]
    cli = open_cli(rows, merchants=(long,))
    cli.upload()
    everything = cli("show", "--path", "banner").out
    assert all(path in everything for _, path in rows), "a pipe gets texts whole"
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("show", "--path", "banner"), ("upload", "list.csv", "--root", "files", "--dry-run")):
        lines = cli(*words).out.splitlines()
        assert max(map(cell_len, lines)) <= 80
        assert sum("晨光茶饮" in line for line in lines) == (3 if words[0] == "show" else 1)
