"""The four notebooks, executed by other programs than ours: what they tabulate is what they keep."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tcb_ops.cli.main import run as run_command
from tcb_ops.notebooks.workspace import NOTEBOOKS, notebook_names

pytestmark = [pytest.mark.timeout(300), pytest.mark.notebook]


def code_cells(content):
    return [cell for cell in content.cells if cell.cell_type == "code"]


def run_program(*words, folder, **options):
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_a_headless_run_takes_parameters_and_speaks_chinese(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        "notebook",
        "03",
        "--out",
        "out",
        "--lang",
        "zh",
        "-p",
        "where=appid=wx7a1c0d3e5f902b41",
    ]
    assert run_command(words) in {0, 1}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("全部成功：")
    notebook, page, report = map(Path, printed[-3:])
    executed = nbformat.read(notebook, 4)
    injected = next(cell for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", ()))
    assert 'where = "appid=wx7a1c0d3e5f902b41"' in injected.source
    assert 'lang = "zh"' in injected.source
    shown = page.read_text(encoding="utf-8")
    assert 'lang="zh-CN"' in shown
    assert "<h1>错误码巡检</h1>" in shown
    assert f'href="{report.name}/report.html"' in shown
    assert "op-by-merchant" in shown
    assert "点 " not in shown  # what is addressed to those who sit before the notebook
    assert "dataframe" not in shown
    results = (report / "results.csv").read_text(encoding="utf-8-sig").splitlines()
    assert 1 < len(results) < 28


PROGRAMS = {
    "papermill": ["papermill", "{notebook}", "{out}", "-p", "lang", "en", "-k", "python3"],
    "nbconvert": ["nbconvert", "--to", "notebook", "--execute", "--output", "{out}", "{notebook}"],
}


def kept(content):
    """What a notebook tabulates, by its cells: of all outputs, those that are kept in the repository."""
    return {
        cell.source: [output.get("data", output.get("text")) for output in cell.outputs]
        for cell in code_cells(content)
        if cell.outputs
    }


@pytest.mark.parametrize(
    ("name", "program"), list(zip(notebook_names(), ["papermill", "nbconvert"] * 2, strict=True))
)
def test_it_runs_and_tabulates_what_it_keeps(tmp_path, name, program):
    file, out = NOTEBOOKS / f"{name}.ipynb", tmp_path / "out.ipynb"
    done = run_program(*(word.format(notebook=file, out=out) for word in PROGRAMS[program]), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    executed, wanted = nbformat.read(out, 4), kept(nbformat.read(file, 4))
    assert all(cell.execution_count for cell in code_cells(executed))
    assert wanted
    assert {cell: kept(executed).get(cell) for cell in wanted} == wanted
