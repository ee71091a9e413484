"""init --practice: a folder that is a rehearsal, whose simulator keeps what was uploaded between commands."""

import csv
import io
import json
import os
import re
from pathlib import Path

import openpyxl
import pytest

import tcb_ops as tcb
from tcb_ops.cli.main import run
from tcb_ops.features.simulator.sample import MERCHANTS, PATHS, PRACTICE
from tcb_ops.features.simulator.sample import practice as practice_of_a_notebook

UPLOAD = ("upload", "paths.csv", "--root", "files", "--json")


@pytest.fixture
def practice(tmp_path, monkeypatch, capsys):
    """A command line in a practice folder, with a clean environment of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = run([*words, "--lang", "en"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    assert call("init", "--practice", ".")[0] == 0
    return call


def counts(run_name="latest", kind=None):
    opened = tcb.open_run(run_name, kind=kind)
    return {str(outcome): rows for outcome, rows in opened.outcomes.items()}


def test_a_practice_folder_has_everything_and_uploads_only_to_the_simulator(practice):
    files = {str(file) for file in Path().rglob("*") if file.is_file()}
    assert {"merchants.csv", "paths.csv", "paths.xlsx", "tokens.csv", "faults.toml", "tcb-ops.toml"} < files
    assert os.name == "nt" or Path("tokens.csv").stat().st_mode & 0o077 == 0
    sheet = openpyxl.load_workbook("paths.xlsx").active
    listed = list(csv.reader(io.StringIO(Path("paths.csv").read_text(encoding="utf-8"))))
    heads, *rows = [[cell.value for cell in row] for row in sheet]
    assert rows == listed[1:]
    assert heads == ["商户", "上传路径", "本地文件", "负责人"]
    code, out, err = practice(*UPLOAD)
    assert code == 1
    assert '"target": "simulator"' in out
    assert err.startswith("SIMULATED http://127.0.0.1:")
    assert counts() == {"uploaded": 3, "refused": 3}
    assert "upload · SIMULATED: " in repr(tcb.open_run())
    kept = [Path("store"), *Path("store").iterdir()]
    assert len(kept) == 1 + 1 + 3  # the index, and a file for each object
    assert os.name == "nt" or [str(file) for file in kept if file.stat().st_mode & 0o077] == []


def test_the_report_of_a_notebooks_practice_gives_no_command_that_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = practice_of_a_notebook("en")
    batch = tcb.read_paths(PATHS, on_bad="skip", settings=settings)
    run = tcb.links(
        batch, out="links.csv", settings=settings, limits=tcb.RunLimits(backoff=0.05, slow_wait=0.3)
    )
    page = (run.report() / "report.html").read_text(encoding="utf-8")
    assert "The practice ledger ends with the notebook." in page
    assert "tcb-ops retry" not in page


def test_the_practice_merchants_are_some_of_the_samples():
    some, every = (
        [line.rstrip() for line in (folder / "merchants.csv").read_text(encoding="utf-8").splitlines()]
        for folder in (PRACTICE, MERCHANTS.parent)
    )
    assert set(some) <= set(every)


@pytest.mark.integration
def test_a_merchant_is_opened_over_several_commands_until_its_rows_are_uploaded(practice):
    Path("faults.toml").write_text(
        '[[account]]\nappid = "wx2b6e8f10c4d75a93"\ncloud = false\nready_after = 0\n', "utf-8"
    )
    assert practice(*UPLOAD)[0] == 1
    assert counts() == {"uploaded": 4, "refused": 2}

    def call(interface, body="{}"):
        code, out, err = practice("call", "老城面馆", interface, body, "--json")
        return json.loads(out).get("answer") if code == 0 else re.search(r"errcode (\S+)", out + err)[1]

    assert [call("tcb/createclouduser") for _each in range(2)] == ["-601049", "-601026"]
    assert call("simulator/confirm")["confirmed"] == ["cloud"]
    assert call("tcb/createclouduser")["errcode"] == 0
    made = call("tcb/createenvandresource", '{"type": "CreatePostpayPackage", "alias": "noodle-prod"}')
    assert made["envid"] == "noodle-prod-18b8ff"
    assert practice("retry")[0] == 0


@pytest.mark.integration
def test_what_one_command_uploads_the_next_ones_find(practice):
    Path("faults.toml").write_text("", "utf-8")
    assert practice(*UPLOAD)[0] == 0
    assert practice("confirm", "--content")[0] == 0
    assert counts(kind="confirm") == {"present": 6}
    assert practice("undo")[0] == 0
    assert counts(kind="undo") == {"deleted": 6}
    assert practice("sync", "files", "--to", "all")[0] == 0
    assert practice("confirm", "latest")[0] == 0


def test_files_of_somebody_are_named_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("merchants.csv").write_text("mine\n", "utf-8")
    assert run(["init", "--practice", ".", "--lang", "en"]) == 2
    assert "merchants.csv: already there, and not overwritten" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["merchants.csv"]
