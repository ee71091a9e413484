"""The notebooks, executed by other programs than ours: nbval compares the tables that the analysis keeps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tcb_ops.cli.main import run as run_command
from tcb_ops.features.notebooks.parameters import NOTEBOOKS, notebook_names

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.notebook]


def run_program(*words, folder, **options):
    """Run a program with kernels. Another process may take a TCP port between its choice and the kernel's start: run it again."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        if "Kernel died before replying to kernel_info" not in done.stdout + done.stderr:
            break
    return done


def test_a_headless_run_takes_parameters_and_speaks_chinese(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["notebook", "03", "--out", "out", "--lang", "zh", "-p", "where=appid=wx7a1c0d3e5f902b41"]
    assert run_command(words) in {0, 1}
    printed = capsys.readouterr().out.splitlines()
    notebook, page, report = map(Path, printed[-3:])
    executed = nbformat.read(notebook, 4)
    injected = next(cell for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", ()))
    assert "where = 'appid=wx7a1c0d3e5f902b41'\nlang = 'zh'" in injected.source
    shown = page.read_text(encoding="utf-8")
    assert 'lang="zh-CN"' in shown
    assert "<h1>错误码巡检</h1>" in shown
    assert f'href="{report.name}/report.html"' in shown
    assert "op-by-merchant" in shown
    assert "点 " not in shown  # what is addressed to those who sit before the notebook
    assert "dataframe" not in shown
    results = (report / "results.csv").read_text(encoding="utf-8-sig").splitlines()
    assert 1 < len(results) < 28


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "04_analysis" else pytest.mark.soak)
        for name in notebook_names()
    ],
)
def test_nbval_finds_the_tables_that_are_kept(name, tmp_path):
    file = shutil.copy(NOTEBOOKS / f"{name}.ipynb", tmp_path)
    nbval = (
        "-c",
        str(ROOT / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        "-p",
        "nbval.plugin",
        "--nbval",
        "--nbval-current-env",
    )
    done = run_program("pytest", *nbval, str(file), folder=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


PROGRAMS = {
    "papermill": ["papermill", "{notebook}", "{out}", "-p", "lang", "en", "-k", "python3"],
    "nbconvert": ["nbconvert", "--to", "notebook", "--execute", "--output", "{out}", "{notebook}"],
}


@pytest.mark.soak
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_other_programs_run_it_and_the_headless_cell_shows_the_run(tmp_path, program):
    file, out = NOTEBOOKS / f"{notebook_names()[0]}.ipynb", tmp_path / "out.ipynb"
    done = run_program(*(word.format(notebook=file, out=out) for word in program), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = [cell for cell in nbformat.read(out, 4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    (shown,) = [output.data["text/html"] for output in cells[-1].outputs if "data" in output]
    assert "云上茶铺" in shown
