"""Shared options stand before or after the command's name."""

from __future__ import annotations

import pytest
from workspace import TEA, many

from tcb_ops.cli import command_first

OPTIONS = {"--json": False, "--config": True}


@pytest.mark.parametrize(
    ("words", "en", "zh"),
    [
        (("runs", "--note"), "Option '--note' requires an argument.", "选项 '--note' 需要 1 个值。"),
        (("show", "--json=x"), "Option '--json' does not take a value.", "选项 '--json' 不带值。"),
        (("--config", "tcb-ops.toml"), "Missing command.", "缺少命令。"),
    ],
)
def test_an_option_without_its_value_is_named(open_cli, monkeypatch, words, en, zh):
    cli = open_cli(many(TEA, rows=1))
    for lang, expected in (("en_GB.UTF-8", en), ("zh_CN.UTF-8", zh)):
        (cli.folder / "tcb-ops.toml").unlink(missing_ok=True)
        monkeypatch.setenv("LC_ALL", lang)
        result = cli(*words)
        assert (result.code, result.out) == (2, "")
        assert expected in result.err


def test_a_shared_option_stands_between_a_group_and_its_command_too(open_cli):
    cli = open_cli(many(TEA, rows=1))
    for words in (("--lang", "zh", "merchants", "check"), ("merchants", "--lang", "zh", "check")):
        result = cli(*words)
        assert (result.code, "可以工作" in result.out) == (0, True)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["show", "--json"], ["show", "--json"]),
        (["--json", "show", "x"], ["show", "--json", "x"]),
        (["--config", "a.toml", "--json", "show"], ["show", "--config", "a.toml", "--json"]),
        (["--config=a.toml", "show"], ["show", "--config=a.toml"]),
        (["--config", "show"], ["--config", "show"]),
        (["--config", "a.toml", "--help"], ["--help"]),
        (["--help", "--config", "a.toml"], ["--help"]),
        (["--help", "--config", "a.toml", "--nope"], ["--help", "--nope"]),
        (["--version", "--json"], ["--version"]),
        (["--nope", "show"], ["--nope", "show"]),
        (["--json"], ["--json"]),
        ([], []),
    ],
)
def test_shared_options_go_behind_the_command(typed, read):
    assert command_first(typed, OPTIONS) == read


def test_a_command_takes_them_on_either_side(open_cli):
    cli = open_cli(rows=[("tea-1a2b3c", "a.png")])
    assert cli.upload().code == 0
    before = cli("--json", "--config", "tcb-ops.toml", "show")
    assert before.code == 0, before.err
    assert before.json == cli("show", "--json", "--config", "tcb-ops.toml").json
    assert cli("--merchants", "nowhere.csv", "merchants", "check").code == 2
    assert cli("--help").out == cli("--lang", "en", "--help").out == cli("help", "--lang", "en").out
    assert cli("help", "show").out == cli("show", "--help").out


@pytest.mark.parametrize("words", [(), ("completion",), ("merchants",), ("upload",)])
def test_help_is_in_the_language_named_before_or_after_it(open_cli, words):
    cli = open_cli(many(TEA, rows=1))
    chinese = cli("--lang", "zh", *words, "--help")
    assert (chinese.code, "用法" in chinese.out) == (0, True)
    assert cli(*words, "--help", "--lang", "zh") == chinese
    assert cli(*words, "--help", "--lang=zh") == chinese
