"""`--json`: one object on stdout whatever happens, with the same exit code, as the published schema has it."""

import inspect
import json
from importlib.resources import files
from itertools import product
from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator
from workspace import BOOKS, TEA, many

from tcb_ops import errors
from tcb_ops.cli.console import Console
from tcb_ops.cli.main import cli as commands
from tcb_ops.cli.main import end_with
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.i18n import CommandText, Lang, _
from tcb_ops.model import Problem
from tcb_ops.wechat.transport import _FAILURES

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA = json.loads(files("tcb_ops").joinpath("cli", "output.schema.json").read_text("utf-8"))


def valid(content, part=""):
    """Assert that an object is as the schema has it; give it."""
    schema = {**SCHEMA["$defs"][part], "$defs": SCHEMA["$defs"]} if part else SCHEMA
    problems = [error.message for error in Draft202012Validator(schema).iter_errors(content)]
    assert problems == []
    return content


def json_commands(group=commands, *words):
    """The words of each command that has --json."""
    for name in group.commands:
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from json_commands(command, *words, name)
        elif any(param.name == "json" for param in command.params):
            yield (*words, name)


def kinds(kind=errors.TcbOpsError):
    """A class of errors and all that are derived from it."""
    return [
        kind,
        *(each for sub in kind.__subclasses__() if sub.__module__ == errors.__name__ for each in kinds(sub)),
    ]


def made(kind):
    """An error of a class, with a fix and a command to copy."""
    text = _("It is broken: do this.\nTo go on:\n{command}", command=CommandText("tcb-ops runs"))
    match kind:
        case errors.ArgumentError:
            return kind("limits", 0, _("more"))
        case errors.InputError:
            return kind(text, "list.csv", [Problem(3, "path", _("bad"), _("good"), "a\ud800b")] * 60)
        case errors.TransportError:
            return kind(errors.TransportFault.RESET, text)
        case errors.RefusedError:
            return kind(text, 85088)
        case _:
            return kind(text)


EVENTS = [
    *map(made, kinds()),
    click.UsageError("no"),
    click.exceptions.NoSuchOption("--no"),
    KeyboardInterrupt(),
    click.Abort(),
    OSError(5, "Input/output error", "list.csv"),
    RuntimeError("access_token=hush"),
]


@pytest.mark.parametrize("words", list(json_commands()), ids=" ".join)
def test_each_error_of_each_command_is_one_object_with_its_exit_code(capsys, words):
    for event, lang in product(EVENTS, Lang):
        Console.has_printed_json = False
        code = end_with(event, [*words, "--json"], lang)
        out, err = capsys.readouterr()
        content = valid(json.loads(out), "failure")
        assert code == getattr(event, "exit_code", code)
        assert code in {1, 2, 3, 130}
        assert len(content["problems"]) == (60 if isinstance(event, errors.InputError) else 0)
        if content["error"]["command"]:
            assert content["error"]["command"] == "tcb-ops runs"
            assert "tcb-ops runs" not in content["error"]["message"] + content["error"]["fix"]
        assert "tcb-ops: " in err
        assert "hush" not in out + err


def test_an_error_after_the_object_prints_no_second_one(capsys):
    Console(Lang.EN).json({"run": "r"})
    assert end_with(made(errors.UsageError), ["show", "--json"], Lang.EN) == 2
    out, err = capsys.readouterr()
    assert (json.loads(out), "It is broken" in err) == ({"run": "r"}, True)


def test_codes_are_of_classes_and_never_two_the_same():
    codes = [made(kind).code for kind in kinds()]
    assert len(set(codes)) == len(codes)
    assert {
        "usage",
        "argument",
        "settings",
        "input",
        "run_not_found",
        "ledger",
        "ledger_damaged",
        "outage",
    } < set(codes)
    stated = (DOCS / "en" / "reference" / "files.md").read_text(encoding="utf-8")
    documented = {error for _code, error, _words in ANSWERS}
    documented |= {str(code) for _fault, code in _FAILURES.values()}
    assert {code for code in documented if f"`{code}`" not in stated} == set()
    described = inspect.getdoc(errors)
    assert all(kind.__name__ in described for kind in kinds())


ANSWERS = [
    (2, "no_such_option", ("upload", "list.csv", "--no-such-option")),
    (2, "no_such_command", ("uplaod", "list.csv")),
    (2, "no_such_option", ("merchants", "check", "--rot", "files")),
    (2, "missing_parameter", ("check",)),
    (2, "bad_parameter", ("upload", "list.csv", "--concurrency", "0")),
    (2, "usage", ("upload",)),
    (2, "input", ("check", "no-such.csv")),
    (2, "settings", ("runs", "--config", "list.csv")),
    (2, "settings", ("show", "--config", "nowhere.toml")),
    (2, "run_not_found", ("show", "nope")),
    (2, "usage", ("errcodes", "--ledger", "list.csv")),
    (3, "not_listening", ("links", "list.csv", "--target", "http://127.0.0.1:9")),
]


@pytest.mark.needs("health")
@pytest.mark.parametrize(
    ("code", "error", "words"),
    ANSWERS,
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_an_error_has_a_code_instead_of_a_sentence(open_cli, code, error, words):
    cli = open_cli(many(TEA, rows=2))
    cli.links()
    result = cli(*words, "--json", *(("--new-run",) if words[0] == "links" else ()))
    assert (result.code, valid(result.json)["error"]["code"]) == (code, error)
    text = cli(*words, *(("--new-run",) if words[0] == "links" else ()))
    assert (text.code, text.out) == (code, ""), "the words are the screen's, and stdout is data"
    assert result.json["error"]["message"] in text.err


def test_a_list_with_problems_is_told_row_by_row(open_cli):
    cli = open_cli(many(TEA, rows=2))
    (cli.folder / "list.csv").write_text(f"env,path\n{TEA.env},a/../b.png\nnope-1,c.png\n", "utf-8")
    refused = cli("check", "list.csv", "--json")
    content = valid(refused.json, "failure")
    assert [(each["line"], each["column"], each["value"]) for each in content["problems"]] == [
        (2, "path", "a/../b.png"),
        (3, "env", "nope-1"),
    ]
    assert content["error"]["command"].startswith("tcb-ops check ")
    assert refused.err.count("list.csv:2:") == 1, "it is shown once"


@pytest.mark.needs("evidence")
@pytest.mark.needs("stored")
@pytest.mark.needs("health")
def test_what_commands_print_is_as_the_schema_has_it(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2), [Fault(errcode=85088, env=TEA.env)])
    run = valid(cli.upload("--json").json, "run")["run"]
    for part, words in {
        "check": ("check", "list.csv"),
        "dry-run": ("upload", "list.csv", "--root", "files", "--dry-run"),
        "run": ("show", run),
        "rows": ("show", run, "--line", "2"),
        "errcodes": ("errcodes", run),
        "runs": ("runs",),
        "stale": ("runs", "--stale", "1h"),
        "explain": ("explain", "85088"),
        "call": ("call", TEA.appid, "tcb/getenvinfo"),
        "diff": ("diff", run, run),
        "verify": ("verify", f"reports/{run}"),
        "prune": ("prune", "--older-than", "99d"),
        "list": ("list", "files", "--to", TEA.env, "--out", "new.csv"),
        "doctor": ("doctor",),
        "why": ("why", run),
        "next": ("next",),
        "merchants check": ("merchants", "check"),
    }.items():
        valid(valid(cli(*words, "--json").json), part)
    valid(cli("prune", "--reports", "--older-than", "99d", "--json").json, "prune")
    for words in (("links", "list.csv"), ("audit",), ("retry", run), ("undo", run), ("delete", run)):
        valid(valid(cli(*words, "--dry-run", "--json").json), "dry-run")
    for words in (
        ("links", "list.csv"),
        ("audit",),
        ("confirm",),
        ("retry", run),
        ("undo", "--yes"),
        ("report", run),
    ):
        valid(valid(cli(*words, "--json").json), "run")


def test_progress_comes_as_lines_of_json_with_verbose(open_cli):
    result = open_cli(many(TEA, rows=3)).upload("--json", "--verbose")
    assert valid(result.json, "run")["counts"] == {"uploaded": 3}
    lines = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    assert [valid(line, "progress")["progress"]["rows"] for line in lines] == [3] * len(lines)
    assert lines[-1]["progress"]["counts"] == {"uploaded": 3}
