"""The benchmarks run with the package as it is: they are started by hand, so nothing else would notice a renamed module."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.slow


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
