"""Every call to the disk and the network fails once: the command names the error or tries again, and a resume loses nothing."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import crash_states
import pytest
from rigged_simulator import Simulator
from workspace import BOOKS, TEA, write_csv

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, crash_states.NEEDS_PRELOADING]

ROWS = [
    (TEA.env, "a.png"),
    (TEA.env, "b.png"),
    (BOOKS.env, "a.png"),
    (BOOKS.env, "b.png"),
    (BOOKS.env, "c.png"),
]
TOKENS = {merchant.appid: f"token-of-{merchant.appid}" for merchant in (TEA, BOOKS)}
FAILURES = {
    "open": (errno.EMFILE, errno.ENOSPC, errno.EIO),
    "write": (errno.ENOSPC, errno.EIO),
    "fsync": (errno.EIO,),
    "rename": (errno.ENOSPC, errno.EIO),
    "socket": (errno.EMFILE,),
    "connect": (errno.ECONNRESET,),
    "recv": (errno.ECONNRESET,),
}
QUICK = ("--concurrency", "2", "--backoff", "0.01", "--patience", "5")
SOME = 1
"""Calls of each kind and errno that fail in `make test`."""


class Commands:
    """Commands on a list of five rows, in which calls can fail."""

    def __init__(self, kind: str, folder: Path, sim: Simulator) -> None:
        self.kind, self.sim = kind, sim
        self.inputs, self.work = folder / "inputs", folder / "work"
        for each in (self.inputs, self.inputs / "files", self.work):
            each.mkdir()
        write_csv(self.inputs / "list.csv", ("env", "path"), ROWS)
        for _env, path in ROWS:
            (self.inputs / "files" / path).write_bytes(path.encode())
        write_csv(
            self.inputs / "merchants.csv",
            ("appid", "name", "env"),
            ((m.appid, m.name, m.env) for m in (TEA, BOOKS)),
        )
        write_csv(self.inputs / "tokens.csv", ("appid", "access_token"), TOKENS.items())
        (self.inputs / "tcb-ops.toml").write_text(
            f'target = "{sim.base}"\nledger = "{self.work}/ledger.db"\nmerchants = "merchants.csv"\nlang = "en"\n'
            '[tokens]\nsource = "file"\nfile = "tokens.csv"\n'
        )
        preloaded = {
            "LD_PRELOAD": str(crash_states.build(folder)),
            "CRASH_LOG": os.devnull,
            "CRASH_FOLDER": str(folder),
        }
        self.worker = subprocess.Popen(
            [sys.executable, Path(crash_states.__file__).with_name("io_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | preloaded,
        )

    def run(self, *words: str, call: str = "", number: int = 0, error: int = 0) -> dict[str, Any]:
        """Run a command in which one call may fail; it never ends with a trace, or by a signal."""
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        words = (words[0], "--config", str(self.inputs / "tcb-ops.toml"), *words[1:])
        print(
            json.dumps({"words": words, "call": call, "number": number, "errno": error}),
            file=self.worker.stdin,
            flush=True,
        )
        ended: dict[str, Any] = json.loads(self.worker.stdout.readline())
        assert "Traceback" not in ended["stderr"], ended["stderr"]
        assert "defect" not in ended["stderr"], ended["stderr"]
        assert ended["code"] in {0, 1, 2, 3}, ended
        return ended

    def send(self, **failing: Any) -> dict[str, Any]:
        """Run the list, or resume its run."""
        source, report = str(self.inputs / "list.csv"), str(self.work / "report")
        if self.kind == "links":
            return self.run("links", source, "--out", str(self.work / "links.csv"), *QUICK, **failing)
        return self.run(
            "upload", source, "--root", str(self.inputs / "files"), "--out", report, *QUICK, **failing
        )

    def begin(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.work)
        self.work.mkdir()
        self.sim._state.objects.clear()
        self.sim.calls.clear()

    def recorded(self) -> set[tuple[str, str]]:
        """Return the rows that an unfinished run has recorded as done."""
        query = """SELECT env, path FROM rows JOIN runs ON runs.number = rows.run AND finished_at IS NULL
            JOIN envs ON envs.run = rows.run AND envs.no = rows.place WHERE outcome <> 'pending'"""
        try:
            with closing(sqlite3.connect(f"file:{self.work}/ledger.db?mode=rw", uri=True)) as ledger:
                return set(ledger.execute(query))
        except sqlite3.OperationalError:  # there is none yet
            assert not self.sent(), "something was sent, and there is no ledger"
            return set()

    def sent(self) -> list[tuple[str, str]]:
        return [(call.env, call.path) for call in self.sim.calls]

    def check(self, call: str, number: int, error: int) -> None:
        """Let a call fail; check what is left, and that it goes on."""
        self.begin()
        ended = self.send(call=call, number=number, error=error)
        if ended["made"][call] < number:  # the order of calls differs from run to run
            return
        to_export = "\ntcb-ops report " in ended["stderr"]  # all is done, but for the report
        if ended["code"] or to_export:
            assert ended["stderr"].strip(), "it ends without a message"
            assert ended["code"] != 2 or not self.sent(), (
                "something was sent, and the exit code says otherwise"
            )
            recorded, before = self.recorded(), len(self.sent())
            if to_export:
                again = self.run("report", "latest", "--out", str(self.work / "report"))
            elif ended["code"] == 1 and self.kind == "upload":  # finished: its rows are retried
                again = self.run("retry", "latest", "--out", str(self.work / "retried"), *QUICK)
            else:
                again = self.send()
            assert again["code"] == 0, again["stderr"]
            assert not recorded & set(self.sent()[before:]), "recorded, and sent again"
        self.check_result()

    def check_result(self) -> None:
        """Check that every row has succeeded, and that the report is genuine."""
        if self.kind == "links":
            with (self.work / "links.csv").open(encoding="utf-8", newline="") as file:
                listed = list(csv.DictReader(file))
            assert [(row["env"], row["path"]) for row in listed] == ROWS
            assert all(row["url"].startswith("http") for row in listed)
            assert self.run("report", "latest", "--out", str(self.work / "report"))["code"] == 0
        else:
            assert all(self.sim.content(env, path) == path.encode() for env, path in ROWS)
        verified = self.run("verify", str(self.work / "report"))
        assert verified["code"] == 0, verified["stderr"]


@pytest.fixture(params=["links", "upload"])
def commands(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Commands]:
    with Simulator((TEA, BOOKS), TOKENS, record=True) as sim:
        commands = Commands(request.param, tmp_path.resolve(), sim)
        with commands.worker:
            yield commands


@pytest.mark.parametrize(
    "most",
    [SOME, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
    ids=["some", "every"],
)
def test_a_call_that_fails_is_named_or_tried_again_and_nothing_is_lost(commands: Commands, most: int):
    failed, tried, made = [], 0, commands.send()["made"]
    assert all(made.values())
    for call, errors in FAILURES.items():
        calls = made[call]
        for error in errors:
            numbers = range(1, calls + 1)
            for number in sorted(Random(f"{call}/{error}").sample(numbers, min(most, calls))):
                tried += 1
                try:
                    commands.check(call, number, error)
                except AssertionError as violated:
                    what = [line for line in str(violated).splitlines() if not line.startswith("assert ")]
                    failed.append(f"{call} {number} of {calls}, {errno.errorcode[error]}: {what[-1:]}")
    print(f"{tried} failures")  # noqa: T201  shown with -rP
    assert not failed, f"{len(failed)} of {tried}:\n" + "\n".join(failed)
