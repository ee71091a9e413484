"""The notebooks of runs, executed without anybody at them: `tcb-ops notebook`."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path

import nbformat
import pytest

from tcb_ops.cli.main import run as run_command

pytestmark = [pytest.mark.notebook]
EXIT_CODES = {"01_generate_links": 1, "02_run_uploads": 1, "03_errcode_audit": 1}
"""With the sample, whose rows do not all succeed."""
ADDRESS = re.compile(
    r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import|<script""", re.IGNORECASE
)
CPU_SECONDS = 60
"""For all, this process and the kernels: of the two minutes that two cores have in one."""


def cpu_seconds() -> float:
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def test_each_runs_with_a_page_and_a_report_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = cpu_seconds()
    for name, exit_code in EXIT_CODES.items():
        capsys.readouterr()
        code = run_command(["notebook", name, "--out", "out", "--json", "--lang", "en"])
        done = capsys.readouterr()
        result = json.loads(done.out)
        assert (code, result["exit_code"]) == (exit_code, exit_code), done.err
        assert "Traceback" not in done.err
        target = "SIMULATED: the sample's 12 merchants, not yours. For your own: -p target=live"
        assert [done.err.splitlines()[at] for at in (0, -1)] == [target, target]
        report = tmp_path / "out" / result["run"]
        assert (tmp_path / result["report"]).samefile(report)
        assert json.loads((report / "manifest.json").read_text(encoding="utf-8"))["simulated"]
        page = (tmp_path / result["page"]).read_text(encoding="utf-8")
        assert ADDRESS.findall(page) == []
        assert "from tcb_ops" not in page
        assert "<table" in page
        executed = nbformat.read(tmp_path / result["notebook"], 4)
        assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
        assert "widget" not in json.dumps(executed.metadata)
        assert "widget-view" not in (tmp_path / result["notebook"]).read_text(encoding="utf-8")
    assert cpu_seconds() - before < CPU_SECONDS
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
