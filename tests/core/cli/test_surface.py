"""What the command line shows and takes: helps, options, the names of runs."""

import re
from dataclasses import asdict
from pathlib import Path

import click
import pytest
from workspace import TEA, many

from tcb_ops.cli import paragraphs
from tcb_ops.cli.main import _SECTIONS, _references, cli, run
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.next_commands import _NOT_TAKEN
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.hooks import load
from tcb_ops.kinds import all_kinds

DOCS = Path(__file__).parents[3] / "docs"
MOST_LINES = 24
MOST_OPTIONS = 75
MOST_COMMANDS = 9
"""In a group of the help: what can be seen at once."""
REPEATED = {"--target", "--ledger", "--merchants", "--tokens", "--config", "--lang"}
"""The shared options that a suggested command repeats."""


def commands(group, before=""):
    found = {}
    for name, command in group.commands.items():
        found[before + name] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{before}{name} ")
    return found


def options(command):
    shown = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    return [option for option in shown if option.name != "help_all"]


COMMANDS = commands(cli)
SINGLE = {name: command for name, command in COMMANDS.items() if not isinstance(command, click.Group)}


def test_a_command_is_listed_with_the_first_sentence_of_its_help():
    listed = {name: text for section in _SECTIONS for name, text in _references(section).items()}
    assert {name: paragraphs(load(name).help)[0] for name in listed} == listed


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_help_fits_a_terminal_and_the_complete_one_has_every_option(capsys, monkeypatch, lang):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help", "--lang", lang]) == 0
    top = capsys.readouterr().out
    groups = re.split(r"^\S.*[:：]\n", top, flags=re.MULTILINE)[1:]
    assert [name for group in groups for name in re.findall(r"^  (\S+)", group, re.MULTILINE)] == [
        *cli.commands
    ]
    assert all(1 < group.count("\n  ") + 1 <= MOST_COMMANDS for group in groups)
    for name, command in COMMANDS.items():
        assert run([*name.split(), "--help", "--lang", lang]) == 0
        short = capsys.readouterr().out
        assert len(short.splitlines()) <= MOST_LINES, name
        assert short.rstrip().endswith("--help-all")
        listed = re.findall(r"^  (-[-a-z]+)", short, re.MULTILINE)
        assert len(listed) <= 14
        assert run([*name.split(), "--help-all", "--lang", lang]) == 0
        spelled = set(re.findall(r"^  (-[-a-z]+)", capsys.readouterr().out, re.MULTILINE))
        assert {option.opts[0] for option in options(command)} <= spelled
        assert "--api-base" not in spelled


@pytest.mark.needs("stored")
@pytest.mark.needs("health")
@pytest.mark.needs("workbooks")
def test_usual_options_exist():
    for name, command in SINGLE.items():
        spelled = {option.opts[-1].lstrip("-") for option in options(command)}
        assert set(command.usual) <= spelled, name


def test_there_are_few_options():
    assert len({option.opts[0] for command in SINGLE.values() for option in options(command)}) <= MOST_OPTIONS


@pytest.mark.needs("evidence")
@pytest.mark.needs("health")
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("explain", "85088"), ("--where", "name=x")),
        (("errcodes",), ("--tokens", "tokens.csv")),
        (("verify", "reports"), ("--where=name=x",)),
        (("check", "list.csv"), ("--ledger", "ledger.db")),
        (("prune",), ("--note", "x")),
        (("show",), ("--note", "x")),
    ],
)
def test_an_option_that_a_command_does_not_use_is_refused_on_either_side(capsys, command, option):
    for words in ((*option, *command), (*command, *option)):
        assert run([*words, "--lang", "en"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"tcb-ops {command[0]} does not use {option[0].partition('=')[0]}." in err


@pytest.mark.needs("evidence")
def test_suggested_commands_repeat_only_options_that_they_take():
    for name in ("retry", *_NOT_TAKEN, *all_kinds()):
        taken = {option.opts[0] for option in options(COMMANDS[name])}
        assert REPEATED - taken == set(_NOT_TAKEN.get(name, ())), name


def test_the_command_of_each_kind_takes_what_resumes_its_runs():
    limits = {f"--{name.replace('_', '-')}" for name in asdict(RunLimits())}
    for name in all_kinds():
        assert {"--resume", *limits} <= {option.opts[0] for option in options(COMMANDS[name])}, name


@pytest.mark.needs("stored")
@pytest.mark.needs("health")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_documentation_names_the_commands_whose_load_can_be_limited(lang):
    page = (DOCS / lang / "reference" / "outcomes.md").read_text(encoding="utf-8")
    table = page.index("| `--concurrency` |")
    sentence = page[:table].rstrip().rpartition("\n\n")[0].rpartition("\n\n")[2]
    limited = {name for name, command in SINGLE.items() if "--rate" in {o.opts[0] for o in options(command)}}
    assert {*re.findall(r"`([a-z]+)`", sentence)} == limited


def test_names_that_newcomers_try_are_answered(capsys):
    assert run(["upload", "list.csv", "--merchant", "x", "--lang", "en"]) == 2
    assert "--where name=NAME" in capsys.readouterr().err
    assert run(["help", "upload", "--lang", "en"]) == 0
    assert capsys.readouterr().out.startswith("Usage: tcb-ops upload")


@pytest.mark.needs("stored")
@pytest.mark.needs("health")
def test_latest_is_of_the_kinds_that_a_command_is_about(open_cli):
    cli = open_cli(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    upload = cli.upload("--json").json["run"]
    confirm = cli("confirm", "--json").json["run"]
    assert cli("show", "--json").json["run"] == upload
    assert cli("errcodes", "--json").json["run"] == upload
    assert cli("show", "--kind", "confirm", "--json").json["run"] == confirm
    assert cli("show", "--kind", "any", "--json").json["run"] == confirm
    nothing = cli("show", "--kind", "audit")
    assert (nothing.code, confirm in nothing.err) == (2, True)
    for words, screen in ((("show",), "out"), (("errcodes",), "err"), (("report", "--out", "r"), "err")):
        first = getattr(cli(*words), screen).splitlines()[0]
        assert f"upload {upload}" in first or f"{upload} · upload" in first
        assert "list.csv" in first
    for command in ("confirm", "retry", "undo"):
        first = cli(command).err.splitlines()[0]
        assert first.startswith(f"SIMULATED {cli.workspace.sim.base}")
        assert f"upload {upload} (list.csv)" in first


def test_a_run_is_named_by_its_ending_or_its_report(open_cli):
    cli = open_cli(many(TEA, rows=1))
    first, second = (cli.upload("--json", "--new-run").json["run"] for _ in range(2))
    for run_id in (first, second):
        for name in (run_id[-4:], run_id[-6:], f"reports/{run_id}", str(cli.folder / "reports" / run_id)):
            assert cli("show", name, "--json").json["run"] == run_id
    several = cli("show", first[:4])
    assert (several.code, first in several.err, second in several.err) == (2, True, True)
    assert cli("show", second[-3:]).code == 2
    assert cli("show", "reports").code == 2


@pytest.mark.needs("health")
def test_a_shared_option_stands_between_a_group_and_its_command_too(open_cli):
    shell = open_cli(many(TEA, rows=1))
    for words in (("--lang", "zh", "merchants", "check"), ("merchants", "--lang", "zh", "check")):
        result = shell(*words)
        assert (result.code, "已就绪" in result.out) == (0, True)


@pytest.mark.needs("health")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--json", "explain", "85088"), 0),
        (("--config=tcb-ops.toml", "--json", "explain", "85088"), 0),
        (("--config", "a.toml", "--help"), 0),
        (("--help", "--config", "a.toml"), 0),
        (("--version", "--json"), 0),
        (("--json",), 2),
        (("--config", "show"), 2),
    ],
)
def test_shared_options_stand_before_a_commands_name(open_cli, words, code):
    result = open_cli(many(TEA, rows=1))(*words)
    assert (result.code, bool(result.out)) == (code, code == 0 or "--json" in words)


def test_a_command_takes_them_on_either_side(open_cli):
    shell = open_cli(rows=[("tea-1a2b3c", "a.png")])
    assert shell.upload().code == 0
    before = shell("--json", "--config", "tcb-ops.toml", "show")
    assert before.code == 0, before.err
    assert before.json == shell("show", "--json", "--config", "tcb-ops.toml").json
    assert shell("--merchants", "nowhere.csv", "merchants", "check").code == 2
    assert shell("--help").out == shell("--lang", "en", "--help").out == shell("help", "--lang", "en").out
    assert shell("help", "show").out == shell("show", "--help").out


@pytest.mark.needs("health")
@pytest.mark.parametrize("words", [(), ("completion",), ("merchants",), ("upload",)])
def test_help_is_in_the_language_named_before_or_after_it(open_cli, words):
    shell = open_cli(many(TEA, rows=1))
    chinese = shell("--lang", "zh", *words, "--help")
    assert (chinese.code, "用法" in chinese.out) == (0, True)
    assert shell(*words, "--help", "--lang", "zh") == chinese
    assert shell(*words, "--help", "--lang=zh") == chinese


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("retry --errcod 85088", "--errcode"),
        ("upload --con tcb-ops.toml", "--config"),
        ("uplod list.csv", "upload"),
        ("audit --errcode 85088", None),
        ("show --retry", None),
    ],
)
def test_what_was_probably_meant_is_named_and_nothing_else(capsys, typed, meant):
    assert run([*typed.split(), "--lang", "en"]) == 2
    assert re.findall(r"Did you mean (\S+)\?", capsys.readouterr().err) == [meant] * (meant is not None)
