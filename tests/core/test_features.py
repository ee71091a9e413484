"""A feature can be deleted with its folder: the main job works without it, and nothing names it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Result
from workspace import BOOKS, TEA, many, write_settings

import tcb_ops as tcb
from tcb_ops.cli.main import run
from tcb_ops.features.health.doctor import all_checks
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.hooks import FOR_RESULTS, LazyFunction, features

PACKAGE = Path(tcb.__file__).parent
COMMANDS = {
    name: [
        reference.partition(":")[2].rstrip("_")
        for section in feature.commands.values()
        for reference in section
    ]
    for name, feature in features().items()
}
"""The commands of each feature."""
REFUSED = {
    "evidence": ("diff latest latest", "verify again"),
    "health": ("runs --stale 1h", "merchants check", "why latest", "explain 85088"),
    "postgres": ("runs --ledger postgresql+psycopg://x@127.0.0.1/t",),
    "simulator": ("upload list.csv --root files --target simulator",),
    "workbooks": ("check list.xlsx", "errcodes --out errcodes.xlsx"),
}
"""What else is refused where a feature is missing."""
OPTIONS = {
    "check --mark": "Workbooks are not installed.",
    "check --rows all": "Workbooks are not installed.",
    "check --sheet Sheet1": "Workbooks are not installed.",
    "upload --backup saved": "Backups are not installed.",
    "upload --cluster local:2": "Clusters are not installed.",
    "upload --map D:=files": "Maps of folders are not installed.",
    "upload --pdf": "PDF reports are not installed.",
    "report --into list.xlsx": "Workbooks are not installed.",
    "report --split-by env": "Workbooks are not installed.",
    "report --urls": "Workbooks are not installed.",
    "report --parquet rows.parquet": "Parquet files are not installed.",
    "runs --stale 1h": "Audits are not installed.",
}
"""Options, and what a user who gives one is told where its feature is missing."""
IP_NOT_REGISTERED, NO_PERMISSION, NOT_OPENED = 61004, 48001, 85088
"""An errcode that stops the run, one that ends the row, and one about which the merchant gets a text."""


RUN_EACH = """
import contextlib, io, json, sys
from tcb_ops.cli.main import run
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    print(json.dumps((code, out.getvalue(), err.getvalue())))
"""
"""One process for all commands: starting one takes longer than most of them."""


@pytest.fixture
def open_without(tmp_path):
    """Copy the package without some features; return a function that runs commands of the copy, and returns how they ended."""

    def copied(*missing):
        copy = shutil.copytree(PACKAGE, tmp_path / "copy" / "tcb_ops")
        for feature in missing:
            shutil.rmtree(copy / "features" / feature)
        own = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
        variables = own | {"PYTHONPATH": str(copy.parent), "TCB_OPS_CHROMIUM": "", "TCB_OPS_LANG": "en"}

        def execute(*commands):
            done = subprocess.run(
                [sys.executable, "-c", RUN_EACH],
                input=json.dumps([command.split() for command in commands]),
                cwd=tmp_path,
                env=variables,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            results = [Result(*json.loads(line)) for line in done.stdout.splitlines()]
            for result in results:
                assert "Traceback" not in result.err, result.err
                assert "Internal error" not in result.err, result.err
            return results

        return execute

    return copied


@pytest.mark.slow
@pytest.mark.parametrize("feature", COMMANDS)
def test_the_main_job_works_without_a_feature(feature, open_without, open_workspace):
    rows = many(TEA, BOOKS, rows=4)
    (first_env, first), (last_env, last) = rows[0], rows[-1]
    faults = [
        Fault(env=last_env, path=last, calls=((2, 2),), errcode=IP_NOT_REGISTERED),
        Fault(env=first_env, path=first, calls=((2, 2),), errcode=NO_PERMISSION),
    ]
    workspace = open_workspace(rows, faults, merchants=[TEA, BOOKS])
    write_settings(workspace.folder, workspace.sim.base)
    (workspace.folder / "bad.csv").write_text("env,path\nnowhere,/a.png\n", encoding="utf-8")
    job = {
        "check list.csv --root files": 0,
        "links list.csv --root files": 0,
        "upload list.csv --root files": 3,
        "upload list.csv --root files --json": 1,
        "retry": 0,
        "report latest --out again": 0,
        "--help": 0,
    }
    refused = [*COMMANDS[feature], *REFUSED.get(feature, ())]
    results = open_without(feature)(*job, *refused)
    assert [result.code for result in results] == [*job.values(), *(2 for _ in refused)]
    assert (workspace.folder / "links.csv").read_text(encoding="utf-8").count("\n") == 1 + len(rows)
    assert '"refused": 1' in results[3].out
    workbook = set() if feature == "workbooks" else {"report.xlsx"}
    assert {"report.html", "results.csv", "errcodes.csv", *workbook} <= {
        file.name for file in (workspace.folder / "again").iterdir()
    }
    assert len(workspace.sim.objects) == len(rows)
    listed = {line.split(maxsplit=1)[0] for line in results[len(job) - 1].out.splitlines() if line}
    assert "upload" in listed
    assert not set(COMMANDS[feature]) & listed


@pytest.mark.slow
def test_an_option_whose_feature_is_missing_is_refused_before_the_first_call_and_is_not_in_the_help(
    open_without, open_workspace
):
    rows = many(TEA, BOOKS, rows=4)
    faults = [Fault(env=env, path=path, errcode=NOT_OPENED) for env, path in rows]
    workspace = open_workspace(rows, faults, merchants=[TEA, BOOKS])
    write_settings(workspace.folder, workspace.sim.base)
    execute = open_without(
        *(
            "cluster",
            "health",
            "notebooks",
            "sources",
            "stored",
            "workbooks",
        )
    )
    commands = [
        option.replace(" --", " list.csv --root files --")
        if option.startswith(("check", "upload"))
        else option
        for option in OPTIONS
    ]
    for (option, text), result in zip(OPTIONS.items(), execute(*commands), strict=True):
        name = option.split()[1]
        assert (result.code, result.err) == (
            2,
            f"tcb-ops: {text} Leave out {name}, or install all of tcb-ops.\n",
        )
    assert workspace.sim.calls == []
    helps = execute(*(f"{command} --help-all" for command in ("check", "upload", "report", "runs")))
    shown = "".join(result.out for result in helps)
    assert [option for option in OPTIONS if option.split()[1] in shown] == []
    sent, told = execute("upload list.csv --root files", "errcodes")
    assert (sent.code, told.code) == (1, 0)
    assert "report" in sent.err
    assert "xlsx" not in sent.err + told.out + told.err
    with (workspace.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write("[report]\npdf = true\n")
    (result,) = execute("upload list.csv --root files")
    assert (result.code, "report.pdf: PDF reports are not installed" in result.err) == (2, True)


@pytest.mark.slow
def test_a_run_of_a_missing_feature_is_listed_with_its_counts_and_nothing_else_is_done_with_it(
    open_without, open_workspace, monkeypatch
):
    workspace = open_workspace([], merchants=[TEA, BOOKS])
    write_settings(workspace.folder, workspace.sim.base)
    monkeypatch.chdir(workspace.folder)
    assert run(["audit"]) == 0
    name = tcb.open_run(kind="audit", settings=workspace.settings).id
    execute = open_without("health")
    refused = [f"{command} {name}" for command in ("show", "report", "errcodes", "retry")]
    shown, table, listed, *results = execute("runs --help", "runs", "runs --json", *refused)
    assert "--stale" not in shown.out
    assert name in table.out
    (only,) = listed.json["runs"]
    assert (only["run"], only["kind"], only["counts"]) == (name, "audit", {"healthy": 2})
    for command, result in zip(refused, results, strict=True):
        assert result.code == 2, command
        assert result.err.count("tcb-ops: ") == 1
        assert f"Run {name} is of the kind audit, which is not installed here. Install all of" in result.err
    with (workspace.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write('[audit]\nknown = "known.csv"\n')
    (result,) = execute("runs")
    assert (result.code, "audit" in result.err) == (2, True)


@pytest.mark.slow
def test_no_advice_names_the_command_of_a_missing_feature(open_without, open_workspace):
    workspace = open_workspace([], merchants=[TEA])
    (workspace.folder / "empty.csv").write_text("env,path\n", encoding="utf-8")
    execute = open_without("health", "simulator")
    (refused,) = execute("check empty.csv --merchants nowhere.csv")
    assert refused.err.endswith("give it with --merchants FILE.\n")
    write_settings(workspace.folder, workspace.sim.base)
    (refused,) = execute("check empty.csv --merchants nowhere.csv")
    assert "`tcb-ops init` writes one to fill in. To use another" in refused.err


@pytest.mark.slow
def test_doctor_makes_a_features_check_while_the_feature_is_there(open_without, tmp_path, monkeypatch):
    (tmp_path / "tcb-ops.toml").write_text('api_base = "http://127.0.0.1:9"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    brought = {each.name for each in all_checks(tcb.load_settings(), None, ())}
    (result,) = open_without("notebooks")("doctor --json")
    left = {each["check"] for each in result.json["checks"]}
    assert (brought - left, left - brought) == ({"pdf"}, set())


@pytest.mark.posix("ipywidgets is not installed there")
def test_each_hook_is_a_function_that_exists():
    given = [hook for feature in features().values() for hook in (*feature.hooks, *feature.checks)]
    given.append(FOR_RESULTS)
    lazy = [
        value for hook in given for value in (hook, *functions_of(hook)) if isinstance(value, LazyFunction)
    ]
    assert len(lazy) > 30
    assert all(callable(each.found()) for each in lazy)


def functions_of(hook):
    values = [getattr(hook, each.name) for each in dataclasses.fields(hook)]
    return [each for value in values for each in (value.values() if isinstance(value, dict) else [value])]
