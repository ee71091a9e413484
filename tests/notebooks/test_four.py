"""The four notebooks: trusted headlessly too. What they tabulate is compared, and runs by three other programs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tcb_ops.cli.main import run as run_command
from tcb_ops.notebooks.workspace import NOTEBOOKS, notebook_names

pytestmark = [pytest.mark.timeout(300), pytest.mark.notebook]
ROOT = Path(__file__).parents[2]


def code_cells(content):
    return [cell for cell in content.cells if cell.cell_type == "code"]


def program(*words, folder, **options):
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


def some(*here):
    """A test for each notebook: `make test` runs those of these numbers, `make soak` the others."""
    marks = {True: (), False: pytest.mark.soak}
    names = enumerate(notebook_names(), 1)
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks[no in here]) for no, name in names]
    )


@some(1, 3)
def test_plain_papermill_runs_it(tmp_path, name):
    done = program(
        "papermill",
        str(NOTEBOOKS / f"{name}.ipynb"),
        "out.ipynb",
        "-p",
        "lang",
        "zh",
        "-k",
        "python3",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(cell.execution_count for cell in code_cells(nbformat.read(tmp_path / "out.ipynb", 4)))


@some(2, 4)
def test_nbconvert_runs_it(tmp_path, name):
    words = ("--to", "notebook", "--execute", "--output-dir", str(tmp_path))
    done = program("nbconvert", *words, str(NOTEBOOKS / f"{name}.ipynb"), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / f"{name}.ipynb").is_file()


def change_one_number(content):
    """Alter the last number in the first table that is kept."""
    for cell in code_cells(content):
        for output in cell.get("outputs", ()):
            table = output.get("data", {}).get("text/html", "")
            found = list(re.finditer(r"<td>(\d+)</td>", table))
            if found:
                at = found[-1]
                output.data["text/html"] = f"{table[: at.start(1)]}{int(at[1]) + 1}{table[at.end(1) :]}"
                return
    pytest.fail("no table is kept")


@some(1)
def test_a_changed_number_in_a_kept_table_fails(tmp_path, name):
    content = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    change_one_number(content)
    nbformat.write(content, tmp_path / f"{name}.ipynb")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # compared as the suite does
    done = program("pytest", "-p", "no:cacheprovider", f"{name}.ipynb", folder=tmp_path)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert re.findall(r"^FAILED (\w+)\.ipynb", done.stdout, re.MULTILINE) == [name], done.stdout[-2000:]
