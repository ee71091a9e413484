"""Suggested commands: each works as it stands, from another folder."""

import html
import json
import os
import re
import shlex
import signal
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
from workspace import BOOKS, TEA, TEA_TEST, many

from tcb_ops.cli.main import run as run_command
from tcb_ops.runs.next_commands import command, quoted
from tcb_ops.settings import load_settings
from tcb_ops.simulator import Fault, FaultStep


def suggested(text):
    """The commands that stand alone on a line."""
    return [line for line in text.splitlines() if line.startswith("tcb-ops ")]


def on_page(report):
    """The commands of a report page, each in an element of its own."""
    return [
        html.unescape(one)
        for one in re.findall(r"<kbd[^>]*>(.*?)</kbd>", (report / "report.html").read_text("utf-8"))
    ]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def stopped(process, number):
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out, err)


@pytest.fixture
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture
def execute(elsewhere, capsys):
    """Execute a suggested command from another folder."""

    def done(line, *more):
        words = shlex.split(line)
        assert words[0] == "tcb-ops"
        capsys.readouterr()
        with chdir(elsewhere):
            code = run_command([*words[1:], *more])
        return Ended(code, *capsys.readouterr())

    return done


@pytest.mark.kill
def test_an_interrupted_upload_is_resumed(open_desk, until, execute, elsewhere):
    desk = open_desk(many(TEA, BOOKS, rows=40), [Fault(delay=0.02)])
    words = ("upload", "list.csv", "--root", "files", "--concurrency", "4", "--rate", "900", "--json")
    with desk.process(*words) as process:
        until(lambda: desk.shop.sim.stats["stored"] >= 5)
        said = stopped(process, signal.SIGINT)
    assert said.code == 130
    (line,) = suggested(said.err)
    assert f"--root {desk.folder / 'files'}" in line
    assert "--concurrency 4 --rate 900" in line
    (desk.folder / "list.csv").unlink()
    again = execute(line, "--json")
    assert (again.code, again.json["run"]) == (0, said.json["run"])
    assert desk.whole(again.json, 80) == {"uploaded": 80}
    assert again.json["report"] == str(desk.folder / "reports" / said.json["run"])
    assert list(elsewhere.iterdir()) == []


@pytest.mark.kill
def test_interrupted_links_are_resumed_into_their_own_file(open_desk, until, execute):
    desk = open_desk(many(TEA, rows=40), [Fault(delay=0.02)])
    with desk.process("links", "list.csv", "--concurrency", "4", "--json") as process:
        until(lambda: desk.shop.sim.stats["link:0"] >= 5)
        said = stopped(process, signal.SIGTERM)
    (line,) = suggested(said.err)
    again = execute(line, "--json")
    assert (again.code, again.json["report"]) == (0, str(desk.folder / "links.csv"))


@pytest.mark.parametrize("options", [False, True])
def test_failed_rows_are_retried_as_the_page_says(open_desk, execute, options):
    desk = open_desk(many(TEA, BOOKS, rows=3), [Fault(env=TEA.env, errcode=85088, calls=((1, 1),))])
    words = ()
    if options:  # no settings file: every path is an option, and one of them has a space in it
        (desk.folder / "tcb-ops.toml").unlink()
        (desk.folder / "my tokens.csv").write_bytes((desk.folder / "tokens.csv").read_bytes())
        words = (
            "--ledger",
            "mine.db",
            "--tokens",
            "my tokens.csv",
            "--target",
            desk.shop.sim.base,
            "--lang",
            "en",
        )
    said = desk.upload("--json", *words)
    assert said.code == 1
    retry, *_ = on_page(Path(said.json["report"]))
    assert retry.startswith(f"tcb-ops retry {said.json['run']} ")
    again = execute(retry, "--json")
    assert (again.code, again.json["counts"]) == (0, {"uploaded": 3})
    for name in ("show", "errcodes"):
        settings = (
            load_settings(options={"ledger": "mine.db", "api_base": desk.shop.sim.base}) if options else None
        )
        line = quoted(command(settings or load_settings(), name, said.json["run"]))
        assert execute(line).code in {0, 1}


def test_a_corrected_list_goes_to_the_same_root_and_target(open_desk, execute, elsewhere):
    desk = open_desk(many(TEA, BOOKS, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    said = desk.upload("--json")
    report = Path(said.json["report"])
    (line,) = [one for one in on_page(report) if "failed-fixed.csv" in one]
    text = (report / "failed.csv").read_text("utf-8-sig").replace("banner/1.png", "banner/one.png")
    (elsewhere / "failed-fixed.csv").write_text(text, "utf-8")
    again = execute(line, "--json")
    assert (again.code, again.json["counts"]) == (0, {"uploaded": 2})


def test_an_audit_with_failures_is_retried_as_its_page_says(open_desk, execute):
    desk = open_desk(many(TEA, rows=1), [Fault(env=BOOKS.env, errcode=85088, calls=((1, 1),))])
    said = desk("audit", "--json")
    assert said.code == 1
    (line,) = on_page(Path(said.json["report"]))
    assert execute(line, "--json").json["counts"] == {"healthy": 1}


def test_a_canary_stop_says_how_to_see_why_and_how_to_go_on(open_desk, execute):
    desk = open_desk(
        many(TEA, TEA_TEST, BOOKS, rows=2), [Fault(env=TEA.env, path="banner/1.png", errcode=40097)]
    )
    said = desk.upload("--canary", "1", "--json")
    assert said.code == 3
    why, rest = suggested(said.err)
    assert "40097" in execute(why).out
    done = execute(rest, "--json")
    assert (done.code, done.json["run"]) == (1, said.json["run"])
    assert done.json["counts"] == {"uploaded": 5, "refused": 1}


def test_a_retry_of_another_target_or_of_an_unfinished_run_says_what_works(open_desk, execute):
    desk = open_desk(many(TEA, rows=2), [Fault(errcode=85088, calls=((1, 1),))])
    run = desk.upload("--json").json["run"]
    (line,) = suggested(desk("retry", run, "--target", "simulator").err)
    assert execute(line).code == 0
    away = desk.upload("--json", "--new-run", "--target", "http://127.0.0.1:9", "--patience", "0.1")
    (line,) = suggested(desk("retry", away.json["run"], "--target", "http://127.0.0.1:9").err)
    assert f"--resume {away.json['run']}" in line
    assert execute(line).code == 3


@pytest.mark.parametrize("words", [("upload",), ("upload", "list.csv", "--root", "files"), ("audit",)])
def test_a_run_of_another_kind_is_refused_with_the_command_that_resumes_it(open_desk, execute, words):
    desk = open_desk(many(TEA, rows=2))
    target = ("--target", "http://127.0.0.1:9")
    run = desk.links("--json", *target, "--patience", "0.1").json["run"]
    refused = desk(*words, "--resume", run, *target)
    assert refused.code == 2
    (line,) = suggested(refused.err)
    assert line.startswith(f"tcb-ops links --resume {run} ")
    assert execute(line, "--json").json["run"] == run


def test_a_diff_ends_with_the_command_for_what_the_newer_run_and_its_retries_left(open_desk, execute):
    faults = [
        Fault(env=TEA.env, path="banner/0.png", errcode=85088, calls=((2, 2),)),
        Fault(env=BOOKS.env, path="banner/0.png", errcode=85088, calls=((2, 3),)),
    ]
    desk = open_desk(many(TEA, BOOKS, rows=2), faults)
    older, newer = (desk.upload("--json", "--new-run").json["run"] for _ in range(2))
    compared = desk("diff", older, newer)
    assert compared.code == 1
    assert "run 2 rows again" in compared.err
    (line,) = suggested(desk("diff", older, newer, "--where", f"env={BOOKS.env}").err)
    assert shlex.split(line)[:3] == ["tcb-ops", "retry", newer]
    assert execute(line, "--json").json["counts"] == {"refused": 1}
    assert suggested(compared.err) == [line.partition(" --where")[0]]
    assert execute(*suggested(compared.err), "--json").json["counts"] == {"uploaded": 2}
    assert suggested(desk("diff", older, newer).err) == []
    assert suggested(desk("diff", newer, older).err) == []


def test_a_diff_of_one_run_suggests_the_run_before_it(open_desk, execute):
    desk = open_desk(many(TEA, rows=1))
    first = desk.upload("--json", "--new-run").json["run"]
    alone = desk("diff", "latest")
    assert (alone.code, suggested(alone.err)) == (2, [])
    assert first in alone.err
    second = desk.upload("--json", "--new-run").json["run"]
    for words in (("diff", "latest"), ("diff",), ("diff", second)):
        said = desk(*words)
        assert said.code == 2
        (line,) = suggested(said.err)
        assert shlex.split(line)[:4] == ["tcb-ops", "diff", first, second]
        assert execute(line).code == 0


def test_a_stopped_audit_suggests_another_with_its_options(open_desk, execute):
    desk = open_desk([], [Fault(env="*", step=FaultStep.ENV_INFO, errcode=61004, calls=((1, 1),))])
    (desk.folder / "mine.csv").write_text("env,cause,until\n", encoding="utf-8")
    words = ("--where", f"env={BOOKS.env}", "--confirm-after", "90s", "--known", "mine.csv", "--no-pdf")
    said = desk("audit", *words)
    assert said.code == 3
    (line,) = suggested(said.err)
    mine = str(desk.folder / "mine.csv")
    expected = ["audit", "--where", f"env={BOOKS.env}", "--confirm-after", "90s", "--known", mine]
    assert shlex.split(line)[1 : len(expected) + 1] == expected
    again = execute(line, "--json")
    assert (again.code, again.json["kind"], again.json["counts"]) == (0, "audit", {"healthy": 1})


@pytest.mark.kill
def test_a_simulated_run_is_found_and_resumed_by_what_it_suggests(open_desk, execute, until):
    desk = open_desk(many(TEA, rows=100))
    (desk.folder / "tcb-ops.toml").unlink()
    words = (
        "upload",
        "list.csv",
        "--root",
        "files",
        "--target",
        "simulator",
        "--concurrency",
        "1",
        "--rate",
        "60",
    )
    with desk.process(*words) as process:
        until(lambda: '"uploaded"' in desk("show", "--target", "simulator", "--json").out)
        said = stopped(process, signal.SIGINT)
    assert said.code == 130
    (line,) = suggested(said.err)
    assert "--target simulator" in line
    again = execute(line.replace("--rate 60", "--rate 100000"), "--json")
    assert (again.code, again.json["counts"], again.json["target"]) == (0, {"uploaded": 100}, "simulator")


@pytest.mark.slow
def test_the_demos_suggestions_work(tmp_path, monkeypatch, capsys, execute):
    monkeypatch.chdir(tmp_path)
    assert run_command(["demo", "--lang", "en"]) == 0
    said = capsys.readouterr()
    (line,) = suggested(said.out)
    again = execute(line, "--json")
    assert again.code in {0, 1}
    assert again.json["counts"].get("uploaded", 0) > 0
    assert {"retry", "upload"} <= {one.split()[1] for one in on_page(tmp_path / "demo-report")}
    settings = tmp_path / "demo-report" / "ledger" / "tcb-ops.toml"
    verified = execute(
        quoted(["tcb-ops", "verify", str(tmp_path / "demo-report"), "--config", str(settings)])
    )
    assert verified.code == 0, verified.out


def test_a_list_that_was_made_is_uploaded_as_it_says(open_desk, execute):
    desk = open_desk(many(TEA, rows=1))
    said = desk("list", "files", "--to", TEA.env, "--out", "made.csv")
    (line,) = suggested(said.err)
    assert execute(line, "--json").json["counts"] == {"uploaded": 1}


def test_a_variable_is_repeated_as_an_option(open_desk, monkeypatch):
    desk = open_desk(many(TEA, rows=1))
    monkeypatch.setenv("TCB_OPS_LEDGER", "other.db")
    line = quoted(command(load_settings(), "runs"))
    assert f"--ledger {desk.folder / 'other.db'}" in line
    assert f"--config {os.path.realpath('tcb-ops.toml')}" in line


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_language_is_repeated_where_it_was_an_option(open_desk, monkeypatch, execute, lang):
    desk = open_desk(many(TEA, rows=1))
    assert desk.upload().code == 0
    (line,) = suggested(desk("show", "nope", "--lang", lang).err)
    assert line.endswith(f" --lang {lang}")
    assert ("日期" in execute(line).out) is (lang == "zh")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "--lang" not in desk("show", "nope").err


def test_a_run_that_is_not_there_says_how_to_list_the_runs(open_desk, execute):
    desk = open_desk(many(TEA, rows=1))
    run = desk.upload("--json").json["run"]
    (line,) = suggested(desk("show", "nope").err)
    assert [one["run"] for one in execute(line, "--json").json["runs"]] == [run]
