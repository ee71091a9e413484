"""The benchmarks run with the package as it is: they are started by hand, so nothing else would notice a renamed module."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.needs("cluster")
@pytest.mark.needs("notebooks")
@pytest.mark.needs("stored")
@pytest.mark.parametrize("program", sorted(BENCHMARKS.glob("*.py")), ids=lambda program: program.stem)
def test_what_a_benchmark_imports_of_the_package_is_there(program: Path) -> None:
    lines = ast.walk(ast.parse(program.read_text(encoding="utf-8")))
    imported = [line for line in lines if isinstance(line, ast.ImportFrom) and line.module]
    for module, names in ((line.module or "", line.names) for line in imported):
        if module.split(".")[0] == "tcb_ops":
            missing = [name.name for name in names if not hasattr(import_module(module), name.name)]
            assert [name for name in missing if find_spec(f"{module}.{name}") is None] == []


@pytest.mark.needs("stored")
def test_each_preparation_that_is_measured_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import preparations

    prepared = preparations.Prepared(tmp_path / "small", 4, 2, 1, by_file=True)
    for name in preparations.STEPS:
        getattr(prepared, name)()


@pytest.mark.needs("cluster")
def test_the_sizing_of_a_cluster_reckons_with_what_one_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import sizing

    results = (BENCHMARKS / "RESULTS.md").read_text(encoding="utf-8")
    small = results[results.index("## Uploads of 4 KB") :]
    measured = re.search(r"^\| tcb_ops\.upload: list, ledger \| ([\d,]+)", small, re.MULTILINE)
    assert measured is not None
    assert 0.5 < sizing.FILES / int(measured[1].replace(",", "")) < 1.5


def test_the_results_begin_with_the_targets_that_are_missed_in_any_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import results

    monkeypatch.setattr(results, "FILE", tmp_path / "RESULTS.md")

    def written(heading: str, *values: float | None, dropped: tuple[str, ...] = ()) -> str:
        figures = [results.Figure(f"{heading} {value}", value, "≤", 1.15) for value in values]
        results.write(f"## {heading}\n\n{results.target_table(figures)}", dropped=dropped)
        return results.FILE.read_text(encoding="utf-8")

    assert "No target of 1 is missed." in written("Audits", 1.1)
    text = written("Links", 1.16, None)
    assert "Missed: 1 of 3 targets.\n\n| figure" in text
    line = "| Links 1.16 | 1.16 | ≤ 1.15 | MISSED |"
    assert text.index(line) < text.index("## Audits") < text.index("## Links")
    assert text.count(line) == 2
    text = written("Links", 1.15)
    assert "No target of 2 is missed." in text
    assert text.index("## Audits") < text.index("## Links"), "a section is replaced where it is"
    assert "## Audits" not in written("Links", 1.0, dropped=("## Audits",))


@pytest.mark.slow
@pytest.mark.parametrize("contender", ["tcb-links", "tcb-calls", "tcb-upload", "aiohttp-links"])
def test_a_contender_does_every_row(contender: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import run

    run.prepare(tmp_path, replace(run.NOTHING, small=40, big_file=1))
    with run.lean_server() as base:
        done = subprocess.run(
            [sys.executable, BENCHMARKS / "clients.py", contender, base, tmp_path, tmp_path / "small.csv"],
            check=True,
            capture_output=True,
            timeout=240,
        )
    assert json.loads(done.stdout)["rows"] == 40
