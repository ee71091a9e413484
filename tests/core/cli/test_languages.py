"""Everything that a command says, it says in the language that was asked for."""

import re

import pytest
from rich.cells import cell_len
from workspace import BOOKS, TEA, TEA_TEST, many, write_csv

from tcb_ops import i18n
from tcb_ops.cli.main import cli, run
from tcb_ops.features.simulator.faults import Fault, FaultStep

TROUBLE = [
    Fault(env=TEA.env, path="banner/1.png", errcode=40097),
    Fault(env=TEA_TEST.env, path="banner/1.png", step=FaultStep.STORE, code="PaymentRequired"),
    Fault(env=BOOKS.env, errcode=85088),
]
COMMANDS = {
    "check": ("check", "list.csv"),
    "check --root": ("check", "list.csv", "--root", "files"),
    "links": ("links", "list.csv"),
    "upload": ("upload", "list.csv", "--root", "files"),
    "dry run": ("upload", "list.csv", "--root", "files", "--dry-run", "--rate", "1"),
    "away": ("links", "list.csv", "--new-run", "--api-base", "http://127.0.0.1:9", "--patience", "0.1"),
    "runs": ("runs",),
    "show": ("show",),
    "row": ("show", "--line", "3"),
    "errcodes": ("errcodes",),
    "report": ("report",),
    "explain": ("explain", "61007"),
    "call refused": ("call", TEA.appid, "tcb/nothing"),
    "call of nobody": ("call", "nobody", "tcb/getenvinfo"),
    "one argument too many": ("check", "a.csv", "b.csv"),
    "no value": ("runs", "--note"),
    "bad choice": ("check", "list.csv", "--on-bad", "ignore"),
    "bad number": ("links", "list.csv", "--concurrency", "many"),
    "number out of range": ("links", "list.csv", "--attempts", "0"),
    "rate out of range": ("links", "list.csv", "--rate", "0"),
    "flag with a value": ("runs", "--json=1"),
    "bad where": ("links", "list.csv", "--where", "stage"),
    "bad column": ("links", "list.csv", "--column", "path"),
    "bad tokens": ("links", "list.csv", "--tokens", "list.csv"),
    "tokens that are a folder": ("links", "list.csv", "--tokens", "files"),
    "no tokens": ("simulate", "--merchants", "merchants.csv", "--tokens", "nope.csv", "--port", "0"),
    "no fault plan": (
        *("simulate", "--merchants", "merchants.csv", "--tokens", "tokens.csv"),
        *("--faults", "nope.toml"),
    ),
    "bad target": ("links", "list.csv", "--api-base", "http://example.com"),
    "unknown code": ("explain", "nonsense"),
    "bad list": ("check", "bad.csv"),
}


@pytest.fixture
def worked(open_cli):
    cli = open_cli(many(TEA, TEA_TEST, BOOKS, rows=6), TROUBLE, lang="zh")
    wrong = [
        ("nope", "/a//b/../c\x1b.png"),
        (TEA.env, ""),
        (TEA.env, "字" * 300),
        ("", "x"),
        (TEA.env, "y"),
        (TEA.env, "y"),
    ]
    write_csv(cli.folder / "bad.csv", ("env", "path"), wrong)
    assert cli.upload().code == 1
    return cli


@pytest.mark.slow
def test_asked_for_chinese_no_english_sentence_is_left(worked):
    english = {}
    for name, (command, *more) in COMMANDS.items():
        result = worked(command, "--lang", "zh", *more)
        assert result.out + result.err, name
        english[name] = worked.in_english(result.out + result.err)
    assert {name: sentences for name, sentences in english.items() if sentences} == {}


@pytest.mark.parametrize("words", [("--lang", "zh"), ("--lang=zh",)])
def test_the_language_asked_for_holds_for_errors_before_the_settings_are_read(open_cli, words):
    cli = open_cli(many(TEA, rows=1))
    assert "没有这个设置文件" in cli("runs", "--config", "nope.toml", *words).err
    assert "没有选项“--colour”" in cli("runs", "--colour", *words).err


@pytest.mark.parametrize(
    ("option", "value", "en", "zh"),
    [
        ("--rate", "0", "a number above 0", "大于 0 的数"),
        ("--backoff", "x", "a number, 0 or more", "不小于 0 的数"),
        ("--limit", "2.5", "a whole number, 1 or more", "不小于 1 的整数"),
        ("--attempts", "0", "a whole number from 1 to 100", "1 到 100 的整数"),
        ("--on-bad", "ask", "one of refuse, skip", "refuse、skip 之一"),
    ],
)
def test_an_option_says_which_values_it_takes(capsys, option, value, en, zh):
    for lang, says in (("en", f"{option} must be {en}."), ("zh", f"{option} 的值须为：{zh}。")):
        assert run(["upload", option, value, "--lang", lang]) == 2
        assert f"tcb-ops: {says}\n" in capsys.readouterr().err


def test_the_language_of_the_environment_holds_where_none_is_asked_for(open_cli, monkeypatch):
    cli = open_cli(many(TEA, rows=1))
    (cli.folder / "tcb-ops.toml").unlink()
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "没有这个设置文件" in cli("runs", "--config", "nope.toml").err
    monkeypatch.setenv("TCB_OPS_LANG", "en")
    assert "no such settings file" in cli("runs", "--config", "nope.toml").err


def names(command, *before):
    yield list(before)
    for name, each in getattr(command, "commands", {}).items():
        yield from names(each, *before, name)


@pytest.mark.parametrize("words", list(names(cli)), ids=" ".join)
def test_help_is_in_the_language_asked_for(words, capsys, find_english, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TCB_OPS_LANG", "zh")
    assert run([*words, "--help"]) == 0
    usage, *chinese = capsys.readouterr().out.splitlines()
    assert usage.startswith("用法：tcb-ops")
    assert find_english(re.sub("eval.*|tcb-ops completion.*", "", "\n".join(chinese))) == []
    assert [line for line in chinese if cell_len(line) > 80 or line.endswith(":")] == []
    monkeypatch.setenv("TCB_OPS_LANG", "en")
    assert run([*words, "--help"]) == 0
    assert not re.search("用法|选项", capsys.readouterr().out)


@pytest.mark.needs("health")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["runs", "--colour"], 2, "tcb-ops: No such option '--colour'."),
        (["runs", "--config", "没有.toml"], 2, r"tcb-ops: \u6ca1\u6709.toml: no such settings file."),
        (["check", "list.csv", "--colour✗"], 2, "--colour"),
        (["explain", "85088"], 0, "85088 no_cloudbase: This mini program has not opened CloudBase."),
    ],
)
def test_a_terminal_without_chinese_gets_english_in_ascii(open_cli, words, code, says):
    cli = open_cli(many(TEA, rows=1), lang="zh")
    result = cli.in_process(*words, env={"PYTHONIOENCODING": "ascii"})
    assert result.code == code
    assert says in result.out + result.err
    assert (result.out + result.err).isascii()


@pytest.mark.slow
def test_a_shell_whose_locale_has_no_chinese_loses_nothing(open_cli):
    cli = open_cli(many(TEA, rows=1), lang="zh")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = cli.in_process(
        "upload", "list.csv", "--root", "files", env=env
    )  # 演练 is in the report's file names
    assert (result.code, result.err.isascii()) == (3, True)
    assert "Internal error in tcb-ops (UnicodeEncodeError)" in result.err
    table = cli.in_process("runs", env=env)
    assert table.out.startswith("run ")
    assert table.out.isascii()
    assert cli.upload().code == 0, "resumed"
    assert cli.calls == 2


@pytest.mark.parametrize("left", [None, 0, 100, 100_000, "not one"])
def test_without_the_catalogue_everything_is_in_english(open_cli, monkeypatch, tmp_path, left):
    cli = open_cli(many(TEA, rows=1), lang="zh")
    if left is not None:  # damaged
        found = (i18n.LOCALE / "zh/LC_MESSAGES/tcb_ops.mo").read_bytes()
        damaged = tmp_path / "zh/LC_MESSAGES/tcb_ops.mo"
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(found[:left] if isinstance(left, int) else b"\xff" * 4_000)
    monkeypatch.setattr("tcb_ops.i18n.LOCALE", tmp_path)
    i18n._catalogue.cache_clear()
    try:
        assert "no such file" in cli("check", "nope.csv").err
        assert "No such option '--colour'" in cli("runs", "--colour").err
        assert "Upload the list's files" in cli("--help").out
    finally:
        i18n._catalogue.cache_clear()
