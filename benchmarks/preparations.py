"""CPU before the first call of each kind of run: rows in the order of files against the order of environments.

    python benchmarks/preparations.py [--rows 20000] [--environments 400] [--runs 10] [--rounds 3]

The ledger has so many earlier uploads of the same paths. Prints a table; exits 1 where the order of files costs more than
1.5 times that of environments.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC
from itertools import count
from pathlib import Path

from tcb_ops import load_settings, read_merchants, read_paths
from tcb_ops.features.stored.specs import (
    confirm_spec,
    delete_spec,
    overwritten,
    scope_of_undo,
    undo_spec,
)
from tcb_ops.features.stored.sync import SyncPlan, plan_sync
from tcb_ops.model import Outcome, RowEnd
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.list_kinds import UPLOAD
from tcb_ops.runs.plan import environments_of_rows
from tcb_ops.runs.records import NewRun, RunRecord, Usage

TARGET = "http://127.0.0.1:1"
MOST = 1.5
"""CPU in the order of files ÷ in that of environments."""
BATCH = 1_000
STEPS = ("upload", "confirm", "sync", "delete", "undo", "plan", "skip_unchanged")
"""In this order: what is planned last keeps the others from being deleted."""


class Prepared:
    """A list in one order, and a ledger with earlier uploads of it."""

    def __init__(self, folder: Path, rows: int, environments: int, runs: int, *, by_file: bool) -> None:
        folder.mkdir()
        names = [f"env-{n:05}-1a2b3c" for n in range(environments)]
        merchants = folder / "merchants.csv"
        _write(
            merchants,
            [("appid", "name", "env"), *((f"wx{n:05}", f"商户 {n}", env) for n, env in enumerate(names))],
        )
        self.folder = folder / "files"
        self.folder.mkdir()
        for n in range(rows // environments):
            (self.folder / f"{n}.txt").write_text("content", encoding="utf-8")
        lines = [(env, f"p/{n}.txt", f"{n}.txt") for n in range(rows // environments) for env in names]
        _write(folder / "list.csv", [("env", "path", "file"), *(lines if by_file else sorted(lines))])
        self.batch = read_paths(folder / "list.csv", read_merchants(merchants), root=self.folder)
        places = {"ledger": str(folder / "ledger.db"), "reports": str(folder), "target": TARGET}
        self.settings = load_settings(options=places)
        self.list_name = self._synced().batch.source.name
        (self.folder / "0.txt").unlink()  # gone for `sync`
        self.ledger = Ledger(str(folder / "ledger.db"))
        self._numbers = count()
        for number in range(runs + 1):
            self.newest = self._upload(number)

    def _upload(self, number: int) -> RunRecord:
        new = NewRun(
            f"20261101-{number:06}-aaaa", UPLOAD, TARGET, self.list_name, self.batch.sha256, 1, self.batch.headers,
            "", {}, "", "", "", "", 1.8e9 + number,
        )  # fmt: skip
        environments = environments_of_rows(self.batch.first_rows(), self.batch.merchants)
        run = self.ledger.plan(new, self.batch.rows(), environments)
        at = 1.8e9 + number
        ends = [
            RowEnd(
                row.line, Outcome.UPLOADED, md5=f"{number:032x}", bytes=7, started_at=at, ended_at=at,
                file_id=f"cloud://{row.env}.bucket/{row.path}", attempts=2,
            )
            for row in self.batch.rows()
        ]  # fmt: skip
        for first in range(0, len(ends), BATCH):
            self.ledger.record(run, ends[first : first + BATCH], Usage(1, BATCH, BATCH))
        self.ledger.finish(run, at + 1)
        return self.ledger.run(run.id)

    def _synced(self) -> SyncPlan:
        return plan_sync(
            str(self.folder), ["all"], merchants=self.batch.merchants, path="p/{name}", include=(), exclude=(),
            own=frozenset(), settings=self.settings,
        )  # fmt: skip

    def sync(self) -> None:
        """Scan the folder, find the files that are gone from it, and those that differ from what is stored."""
        plan = self._synced()
        assert plan.gone is not None
        plan.changed(self.settings)

    def plan(self) -> None:
        """Write the rows of a new run, as links and uploads begin."""
        new = NewRun(
            f"20261102-{next(self._numbers):06}-bbbb", UPLOAD, TARGET, self.list_name, self.batch.sha256, 1,
            self.batch.headers, "", {}, "", "", "", "", 1.9e9,
        )  # fmt: skip
        environments = environments_of_rows(self.batch.first_rows(), self.batch.merchants)
        self.planned = self.ledger.plan(new, self.batch.rows(), environments)

    def upload(self) -> None:
        """Count the paths that hold a file."""
        overwritten(self.batch, settings=self.settings)

    def skip_unchanged(self) -> None:
        """Read the rows of that run, and what earlier runs stored at their paths."""
        for environment in self.ledger.envs(self.planned):
            start = environment, 0
            for rows in self.ledger.pending(self.planned, [start], BATCH):
                self.ledger.certain_files(self.planned, rows)

    def confirm(self) -> None:
        """Find the rows of a confirm."""
        for _row in confirm_spec(self.ledger, self.newest, None, "", UTC, content=False).rows():
            pass

    def delete(self) -> None:
        """Find the rows of a delete."""
        for _row in delete_spec(self.ledger, self.newest, None, {}).rows():
            pass

    def undo(self) -> None:
        """Say what an undo would do, and find its rows."""
        spec, files = undo_spec(self.ledger, self.newest, None, "")
        scope_of_undo(spec, files)
        for _row in spec.rows():
            pass


def _write(file: Path, lines: list[tuple[str, ...]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(lines)


def _cpu(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measured(rows: int, environments: int, runs: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the CPU-seconds of each preparation: in the order of files, and of environments."""
    with tempfile.TemporaryDirectory(prefix="tcb-ops-preparations-") as folder:
        by_file, by_env = (
            Prepared(Path(folder, name), rows, environments, runs, by_file=name == "files")
            for name in ("files", "environments")
        )
        found = {}
        for name in STEPS:
            pairs = [(_cpu(getattr(by_file, name)), _cpu(getattr(by_env, name))) for _ in range(rounds)]
            first, second = (statistics.median(figures) for figures in zip(*pairs, strict=True))
            found[name] = first, second
    return found


def table(found: dict[str, tuple[float, float]], rows: int, environments: int, runs: int) -> str:
    lines = [
        "## CPU before the first call",
        "",
        f"{rows:,} rows over {environments:,} environments; {runs} earlier uploads of the same paths.",
        "",
        "| CPU-seconds | in order of files | of environments | ratio |",
        "|---|---:|---:|---:|",
    ]
    for name, (first, second) in found.items():
        lines.append(f"| {name} | {first:.2f} | {second:.2f} | {first / second:.2f} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table; return 1 where the promise is missed."""
    given = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 20_000), ("environments", 400), ("runs", 10), ("rounds", 3)):
        given.add_argument(f"--{name}", type=int, default=default)
    asked = given.parse_args()
    found = measured(asked.rows, asked.environments, asked.runs, asked.rounds)
    print(table(found, asked.rows, asked.environments, asked.runs))
    worst = max(first / second for first, second in found.values())
    if worst > MOST:
        print(f"more than {MOST} times the CPU in order of files", file=sys.stderr)
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
