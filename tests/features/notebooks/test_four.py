"""The notebooks, executed by other programs than ours: nbval compares the outputs that they keep, in both languages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import papermill
import pytest

from notebooks import RULES
from tcb_ops.cli.main import run as run_command
from tcb_ops.features.notebooks.parameters import NOTEBOOKS, in_language, notebook_names, open_notebook
from tcb_ops.i18n import Lang

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
    assert "<h1>03 · 错误码巡检</h1>" in shown
    assert f'href="{report.name}/report.html"' in shown
    links = re.findall(r'href="([^"]+)"', shown)
    assert len(links) > 5
    assert all((page.parent / unquote(link)).is_file() for link in links), links
    assert "点击" not in shown  # what is addressed to those who sit before the notebook
    assert "dataframe" in shown
    assert "这些是示例数据中的商户" in shown
    main = shown.partition("<main>")[2]
    places = [main.index(words) for words in ("个环境：", "与上次巡检", "哪里有问题")]
    assert places == sorted(places)  # what changed stands before what is
    results = (report / "results.csv").read_text(encoding="utf-8-sig").splitlines()
    assert 1 < len(results) < 28


@pytest.mark.parametrize("lang", list(Lang))
@pytest.mark.parametrize("name", notebook_names())
def test_nbval_finds_the_outputs_that_are_kept(name, lang, tmp_path):
    file = shutil.copy(in_language(NOTEBOOKS / f"{name}.ipynb", lang), tmp_path)
    words = ("-p", "no:cacheprovider", "-p", "nbval.plugin", "--nbval", "--nbval-current-env")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # not ours
    rules = ("--nbval-sanitize-with", str(RULES))
    done = run_program("pytest", *words, *rules, str(file), folder=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("lang", list(Lang))
@pytest.mark.parametrize("name", notebook_names())
def test_papermill_knows_every_parameter(name, lang):
    file = in_language(NOTEBOOKS / f"{name}.ipynb", lang)
    assert {*papermill.inspect_notebook(file)} == {*open_notebook(file).parameters}


PROGRAMS = {
    "papermill": ["papermill", "{notebook}", "{out}", "-p", "lang", "en", "-k", "python3"],
    "nbconvert": ["nbconvert", "--to", "notebook", "--execute", "--output", "{out}", "{notebook}"],
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_what_other_programs_leave_is_the_report_without_widgets(tmp_path, program):
    file, out = NOTEBOOKS / "03_errcode_audit.ipynb", tmp_path / "out.ipynb"
    done = run_program(*(word.format(notebook=file, out=out) for word in program), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = [cell for cell in nbformat.read(out, 4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    shown, *_causes = [
        output.data["text/html"]
        for cell in cells
        if "verdict" in cell.metadata.get("tags", ())
        for output in cell.outputs
    ]
    for word in ("SIMULATED", "28 environments: 21 healthy, 7 unhealthy."):
        assert word in shown
    text = out.read_text(encoding="utf-8")
    assert "widget" not in text
    assert len(text.encode()) < 60_000
