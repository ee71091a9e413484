"""The contract's tests: only `tcb_ops`, `tcb_ops.panels` and the command line, in an operator's folder.

They may not depend on wording: a message is looked at for the ids, paths, codes and addresses in it. The simulator runs
as a user starts it, once per session; what it plays follows from the path alone:

====================  =========================================================
path or environment   what happens
====================  =========================================================
`refused/…`           the platform answers errcode 40097
`failed/…`            the store refuses the file
`slow/…`              each link takes a third of a second
`halt/…`              the platform refuses everybody (61004)
noodle-prod           the merchant has no 云开发: 85088, three rows stop it
shore-prod            the operator has no token for the merchant
anything else         works
====================  =========================================================
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tcb_ops.cli.main import run as run_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

APPIDS = {"wxtea": "茶语小铺", "wxbooks": "城南书店", "wxnoodle": "老城面馆", "wxshore": "北岸书屋"}
TOKENS = {appid: f"{appid}-SECRET-{number:032x}" for number, appid in enumerate(APPIDS, start=2**120)}
MERCHANTS = """appid,name,env,default
wxtea,茶语小铺,tea-prod,yes
wxtea,茶语小铺,tea-test,
wxbooks,城南书店,books-prod,yes
wxnoodle,老城面馆,noodle-prod,yes
wxshore,北岸书屋,shore-prod,yes
"""
FAULTS = """
fault = [
    { env = "*", path = "refused/*", errcode = 40097 },
    { env = "*", path = "failed/*", step = "store", code = "InvalidArgument" },
    { env = "*", path = "slow/*", delay = 0.3 },
    { env = "*", path = "halt/*", errcode = 61004 },
    { env = "noodle-prod", errcode = 85088 },
]
"""
QUICK = ("--backoff", "0.01", "--slow-wait", "0.05", "--patience", "5")
GOOD = [("tea-prod", f"a/{n}.png") for n in range(4)]
MIXED = [
    *GOOD,
    ("tea-test", "refused/1.png"),
    ("books-prod", "failed/1.png"),
    *[("noodle-prod", f"b/{n}.png") for n in range(8)],
    ("shore-prod", "c/1.png"),
]
"""Every outcome but `invalid`, with `--per-env 1`: noodle-prod has 3 refused rows, 5 are not attempted."""
MIXED_COUNTS = {"uploaded": 4, "refused": 4, "failed": 1, "not_attempted": 6}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Operator:
    """An operator's folder: settings, merchants, tokens, a list and its files."""

    folder: Path
    base: str
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Ended:
        """Run a command in this process."""
        self.capsys.readouterr()
        ended = Ended(run_command(words), *self.capsys.readouterr())
        assert "Traceback" not in ended.err
        assert not any(token in ended.out + ended.err for token in TOKENS.values())
        return ended

    def upload(self, *words: str) -> Ended:
        return self("upload", "list.csv", "--root", "files", "--per-env", "1", *QUICK, *words)

    def links(self, *words: str) -> Ended:
        return self("links", "list.csv", "--per-env", "1", *QUICK, *words)

    @contextmanager
    def process(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command as a user does; it has ended after the block."""
        with started(*words, cwd=self.folder) as process:
            yield process

    def list(self, rows: Iterable[tuple[str, str]], name: str = "list.csv") -> Path:
        """Write a list, with a file for each row."""
        (self.folder / "files").mkdir(exist_ok=True)
        lines = []
        for number, (env, path) in enumerate(rows, start=1):
            (self.folder / "files" / f"{number}.bin").write_text(f"{env}/{path}", encoding="utf-8")
            lines.append((env, path, f"{number}.bin", f"第 {number} 行"))
        return write_csv(self.folder / name, ("env", "path", "file", "备注"), lines)


@contextmanager
def started(*words: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    env |= {"PYTHONUTF8": "1", "TCB_OPS_CHROMIUM": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "tcb_ops", *words],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=240)
    return Ended(process.returncode, out, err)


def write_csv(file: Path, header: Iterable[str], lines: Iterable[Iterable[Any]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([header, *lines])
    return file


def read_csv(file: Path) -> list[dict[str, str]]:
    """The lines of a CSV file, whatever its BOM."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`tcb-ops simulate` with the faults above; gives its address."""
    folder = tmp_path_factory.mktemp("simulator")
    (folder / "merchants.csv").write_text(MERCHANTS, encoding="utf-8")
    (folder / "faults.toml").write_text(FAULTS, encoding="utf-8")
    write_csv(folder / "tokens.csv", ("appid", "access_token"), TOKENS.items())
    words = ("simulate", "--merchants", "merchants.csv", "--tokens", "tokens.csv", "--faults", "faults.toml")
    with started(*words, "--port", "0", cwd=folder) as process:
        base = process.stdout.readline().strip()
        assert base.startswith("http://"), ended(process)
        yield base
        process.terminate()
        process.wait(timeout=240)


@pytest.fixture
def operator(
    simulator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    """A folder with everything that the commands need; the list has good rows only."""
    (tmp_path / "merchants.csv").write_text(MERCHANTS, encoding="utf-8")
    write_csv(
        tmp_path / "tokens.csv",
        ("appid", "access_token"),
        [(appid, token) for appid, token in TOKENS.items() if appid != "wxshore"],
    )
    settings = f'api_base = "{simulator}"\nlang = "en"\n[tokens]\nsource = "file"\nfile = "tokens.csv"\n'
    (tmp_path / "tcb-ops.toml").write_text(settings, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = Operator(tmp_path, simulator, capsys)
    found.list(GOOD)
    return found


@pytest.fixture
def mixed(operator: Operator) -> Operator:
    """The same with a list whose rows end in every way."""
    operator.list(MIXED)
    return operator
