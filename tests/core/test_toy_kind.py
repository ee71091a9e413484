"""A new kind of run is a feature's folder (tests/toy/look): nothing else knows it, and everything takes it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import BOOKS, TEA, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import SimulatedEnvironment


@pytest.mark.slow
def test_a_kind_of_a_folder_runs_over_a_list_to_its_report(open_workspace, tmp_path):
    halted = SimulatedEnvironment(BOOKS.env, "HALTED")
    workspace = open_workspace(many(TEA, BOOKS, rows=2), merchants=[TEA, BOOKS], environments=[halted])
    settings = f'api_base = "{workspace.sim.base}"\nledger = "ledger.db"\n[tokens]\nfile = "tokens.csv"\n'
    (workspace.folder / "tcb-ops.toml").write_text(settings, encoding="utf-8")
    absent = shutil.ignore_patterns("__pycache__")
    copy = shutil.copytree(Path(tcb.__file__).parent, tmp_path / "copy" / "tcb_ops", ignore=absent)
    shutil.copytree(Path(__file__).parents[1] / "toy" / "look", copy / "features" / "look", ignore=absent)

    def execute(*words):
        return subprocess.run(
            [sys.executable, "-m", "tcb_ops", *words],
            cwd=workspace.folder,
            env=os.environ | {"PYTHONPATH": str(copy.parent), "TCB_OPS_LANG": "en"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    ended = execute("look", "list.csv", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["counts"]) == (1, {"open": 2, "shut": 2}), ended.stderr
    assert json.loads(ended.stdout)["look"] == {"Shut": [BOOKS.env] * 2}
    (folder,) = (workspace.folder / "reports").iterdir()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "What is open" in page
    assert "Shut" in page
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as results:
        assert [row["tcb_outcome"] for row in csv.DictReader(results)] == ["open"] * 2 + ["shut"] * 2
    assert "look" in execute("--help").stdout
    assert "2 shut" in execute("show").stdout + execute("show").stderr
    again = execute("retry", "latest", "--json")
    assert json.loads(again.stdout)["counts"] == {"shut": 2}, again.stderr
