"""The command line as a user types it, in the folder of a workspace with a settings file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from workspace import write_settings

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workspace import OpenWorkspace, Workspace

QUICK = ("--backoff", "0.01", "--slow-wait", "0.05", "--patience", "10")
ENGLISH = re.compile(r"\b[A-Za-z][a-z]+(?: [a-z]+){2,}")
SUMMARY = {
    "run": str,
    "kind": str,
    "target": str,
    "rows": int,
    "counts": dict,
    "errcodes": list,
    "calls": dict,
    "seconds": float,
}
"""The keys that the contract names, but `report`, which may be null."""


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, and nothing beside it."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class CommandLine:
    workspace: Workspace
    capsys: pytest.CaptureFixture[str]

    @property
    def folder(self) -> Path:
        return self.workspace.folder

    @property
    def calls(self) -> int:
        """Calls that the simulator got, of whatever kind."""
        return self.workspace.sim.stats["link_calls"] + self.workspace.sim.stats["store_calls"]

    def __call__(self, *words: str) -> Result:
        """Run a command in this process."""
        self.capsys.readouterr()
        code = run_command(words)
        result = Result(code, *self.capsys.readouterr())
        assert "Traceback" not in result.err, result.err
        assert "defect" not in result.err, result.err
        return result

    def upload(self, *words: str) -> Result:
        return self("upload", "list.csv", "--root", "files", *QUICK, *words)

    def links(self, *words: str) -> Result:
        return self("links", "list.csv", *QUICK, *words)

    @staticmethod
    def assert_complete(found: dict[str, Any], rows: int) -> dict[str, int]:
        """Assert that a run's JSON object has the contract's keys, types and sums; give its counts."""
        assert {name: type(found[name]) for name in SUMMARY} == SUMMARY
        assert found["report"] is None or isinstance(found["report"], str)
        assert set(found["calls"]) == {"link", "upload"}
        assert all(set(line) == {"appid", "merchant", "env", "errcode", "rows"} for line in found["errcodes"])
        assert all(line["errcode"] != 0 for line in found["errcodes"])
        assert 0 not in found["counts"].values()
        assert sum(found["counts"].values()) == found["rows"] == rows
        counts: dict[str, int] = found["counts"]
        return counts

    @staticmethod
    def in_english(text: str) -> list[str]:
        """Runs of English words in a text: a sentence that was not translated."""
        lines = (line for line in text.splitlines() if not line.startswith("tcb-ops "))  # commands to copy
        return ENGLISH.findall("\n".join(lines))

    def latest(self) -> tcb.Run:
        return tcb.open_run(kind="any", settings=self.workspace.settings)

    @contextmanager
    def process(self, *words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Run a command as a process of its own; it is gone after the block."""
        argv = [sys.executable, "-m", "tcb_ops", *words]
        with spawned(argv, self.folder, **options) as process:
            yield process

    @contextmanager
    def spawn(self, argv: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Run any program in the folder; it is gone after the block."""
        with spawned(argv, self.folder, **options) as process:
            yield process

    def in_process(self, *words: str, **options: Any) -> Result:
        with self.process(*words, **options) as process:
            return ended(process)


@contextmanager
def spawned(argv: list[str], folder: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    env |= {"PYTHONUTF8": "1", "TCB_OPS_CHROMIUM": ""} | options.pop("env", {})
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    with subprocess.Popen(argv, cwd=folder, env=env, text=True, encoding="utf-8", **given) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ended(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=240)
    result = Result(process.returncode, out or "", err or "")
    assert "Traceback" not in result.err, result.err
    return result


@pytest.fixture
def open_cli(
    open_workspace: OpenWorkspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CommandLine]:
    """Open a workspace and change to its folder; takes what `open_workspace` takes."""

    def opened(*rows: Any, lang: str = "en", **options: Any) -> CommandLine:
        workspace = open_workspace(*rows, **options)
        write_settings(workspace.folder, workspace.sim.base, lang=lang)
        monkeypatch.chdir(workspace.folder)
        return CommandLine(workspace, capsys)

    return opened


@pytest.fixture
def find_english() -> Callable[[str], list[str]]:
    """Find English sentences in a text."""
    return CommandLine.in_english
