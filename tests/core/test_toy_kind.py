"""A new kind of run is a feature's folder (tests/toy/look): nothing else knows it, and everything takes it."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import BOOKS, TEA, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, FaultStep, SimulatedEnvironment


@pytest.fixture
def installed(tmp_path):
    """A copy of the package with the toy."""
    absent = shutil.ignore_patterns("__pycache__")
    copy = shutil.copytree(Path(tcb.__file__).parent, tmp_path / "copy" / "tcb_ops", ignore=absent)
    shutil.copytree(Path(__file__).parents[1] / "toy" / "look", copy / "features" / "look", ignore=absent)
    return copy


@pytest.fixture
def look(open_workspace, installed):
    """Run commands of the copy over a list of which two of four rows have an environment that is open."""
    halted = SimulatedEnvironment(BOOKS.env, "HALTED")
    workspace = open_workspace(many(TEA, BOOKS, rows=2), merchants=[TEA, BOOKS], environments=[halted])
    settings = f'api_base = "{workspace.sim.base}"\nledger = "ledger.db"\n[tokens]\nfile = "tokens.csv"\n'
    (workspace.folder / "tcb-ops.toml").write_text(settings, encoding="utf-8")

    def execute(*words):
        return subprocess.run(
            [sys.executable, *words] if words[0] == "-c" else [sys.executable, "-m", "tcb_ops", *words],
            cwd=workspace.folder,
            env=os.environ | {"PYTHONPATH": str(installed.parent), "TCB_OPS_LANG": "en"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    execute.folder, execute.sim = workspace.folder, workspace.sim
    return execute


@pytest.mark.slow
def test_a_kind_of_a_folder_runs_over_a_list_to_its_report(look):
    ended = look("look", "list.csv", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["counts"]) == (1, {"open": 2, "shut": 2}), ended.stderr
    assert json.loads(ended.stdout)["look"] == {"shut": [BOOKS.env] * 2}
    (folder,) = (look.folder / "reports").iterdir()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "What is open" in page
    assert "Shut" in page
    assert "Then run these rows again:" in page
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as results:
        assert [row["tcb_outcome"] for row in csv.DictReader(results)] == ["open"] * 2 + ["shut"] * 2
    assert "look" in look("--help").stdout
    shown = look("show", "--kind", "look")
    assert "2 shut" in shown.stdout + shown.stderr
    again = look("retry", json.loads(ended.stdout)["run"], "--json")
    assert json.loads(again.stdout)["counts"] == {"shut": 2}, again.stderr


@pytest.mark.slow
def test_it_ends_with_1_if_no_row_succeeded_although_it_found_nothing(look):
    look.sim.play([Fault(step=FaultStep.ENV_INFO, body="garbage")])
    ended = look("look", "list.csv", "--attempts", "1", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["look"]) == (1, {"shut": []}), ended.stderr


@pytest.mark.slow
def test_the_command_suggested_when_it_stops_resumes_it(look):
    look.sim.play([Fault(step=FaultStep.ENV_INFO, errcode=61004)])
    stopped = look("look", "list.csv", "--rate", "50", "--backoff", "2")
    assert stopped.returncode == 3
    suggested = next(line for line in stopped.stderr.splitlines() if line.startswith("tcb-ops look --resume"))
    look.sim.play([])
    resumed = look(*shlex.split(suggested)[1:], "--json")
    assert json.loads(resumed.stdout)["counts"] == {"open": 2, "shut": 2}, resumed.stderr


@pytest.mark.slow
def test_latest_remains_the_upload_after_it(look):
    sent = json.loads(look("upload", "list.csv", "--root", "files", "--yes", "--json").stdout)
    look("look", "list.csv")
    assert json.loads(look("show", "--json").stdout)["run"] == sent["run"]
    assert json.loads(look("show", "--kind", "look", "--json").stdout)["kind"] == "look"


@pytest.mark.slow
def test_its_function_refuses_what_it_would_ignore(look):
    code = (
        "import tcb_ops as tcb; batch = tcb.read_paths('list.csv'); "
        "tcb.start_look({argument}, target='simulator'{option})"
    )
    for argument, option, says in (
        ("batch", ", where='name=x'", "where cannot be"),
        ("'list.csv'", "", "batch cannot be"),
    ):
        refused = look("-c", code.format(argument=argument, option=option))
        assert f"ArgumentError: {says}" in refused.stderr


PANEL = """
from tcb_ops.panels import notebook_panels
from tcb_ops.panels.context import open_context, use_context

context = use_context(open_context("live", "", "en"))
panel = notebook_panels.RunPanel(context, notebook_panels.PanelOptions(run="latest"))
panel.worker.settle()
grid, retry = panel.monitor.grid, panel.monitor.retry
print(grid.findings.title, "data-retry" in grid.causes, [label for label, _ in retry.choice.options])
"""


@pytest.mark.slow
def test_a_panel_shows_its_findings_and_offers_its_rows_for_a_retry(look):
    look("look", "list.csv")
    shown = look("-c", PANEL)
    expected = "Environments True ['all that did not succeed', 'code refused: 2 rows']"
    assert shown.stdout.strip() == expected, shown.stderr


@pytest.mark.slow
def test_its_function_is_public_and_a_list_of_runs_loads_no_http_for_it(look):
    look("look", "list.csv")
    named = look("-c", "import tcb_ops as tcb; print('start_look' in dir(tcb), tcb.start_look.__module__)")
    assert named.stdout.split() == ["True", "tcb_ops.features.look.command"], named.stderr
    code = "import sys; from tcb_ops.cli.main import run; run(['runs']); print('aiohttp' in sys.modules)"
    listed = look("-c", code)
    assert "look" in listed.stdout
    assert listed.stdout.splitlines()[-1] == "False", listed.stderr


@pytest.mark.slow
def test_its_runs_are_compared_with_that_before_of_the_same_list(look):
    for _ in range(2):
        assert look("look", "list.csv").returncode == 1
    code = "import tcb_ops as tcb; print({**tcb.open_run('latest', kind='look').changes().counts})"
    compared = look("-c", code)
    assert "'still_broken'>: 2" in compared.stdout, compared.stderr
    assert "'still_good'>: 2" in compared.stdout


@pytest.mark.slow
def test_an_upload_is_undone_when_the_folder_of_a_kind_that_only_looks_is_gone(look, installed):
    sent = look("upload", "list.csv", "--root", "files", "--yes", "--json")
    assert json.loads(sent.stdout)["counts"]["uploaded"] == 2
    look("look", "list.csv")
    shutil.rmtree(installed / "features" / "look")
    undone = look("undo", "--yes", "--json")
    assert json.loads(undone.stdout)["counts"] == {"deleted": 2}, undone.stderr
    named = look("-c", "import tcb_ops; tcb_ops.start_look")
    assert "no attribute 'start_look'; its features are cluster, " in named.stderr
