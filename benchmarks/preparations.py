"""CPU before the first call of each kind of run: by the order of the list, and by the number of earlier runs.

    python benchmarks/preparations.py [--rounds 5]

Rows in the order of files against the order of environments, and 100 against 10 earlier uploads of the same paths. Prints two
tables; exits 1 where a ratio is above its target.
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
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.engine.plan import environments_of_rows, planned_changes, upload_spec
from tcb_ops.features.stored.specs import (
    confirm_spec,
    delete_work,
    scope_of_undo,
    undo_spec,
)
from tcb_ops.features.stored.sync import SyncPlan, plan_sync
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import NewRun, RunRecord, Usage
from tcb_ops.model import Outcome, RowEnd, RunSettings
from tcb_ops.preflight import replaced

TARGET = "http://127.0.0.1:1"
MOST = 1.5
"""CPU in the order of files ÷ in that of environments."""
FEW_RUNS, MANY_RUNS = 10, 100
MOST_OF_PAST = 1.2
"""CPU after MANY_RUNS earlier runs of the same paths ÷ after FEW_RUNS."""
OF_PAST = ("upload", "delete", "undo", "skip_unchanged")
"""The steps that are held to it."""
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
            "", RunSettings(), "", "", "", "", 1.8e9 + number,
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
        work = upload_spec(plan.batch, None)
        for _change in planned_changes(work, self.ledger, TARGET, skip_unchanged=True):
            pass

    def plan(self) -> None:
        """Write the rows of a new run, as links and uploads begin."""
        new = NewRun(
            f"20261102-{next(self._numbers):06}-bbbb", UPLOAD, TARGET, self.list_name, self.batch.sha256, 1,
            self.batch.headers, "", RunSettings(), "", "", "", "", 1.9e9,
        )  # fmt: skip
        environments = environments_of_rows(self.batch.first_rows(), self.batch.merchants)
        self.planned = self.ledger.plan(new, self.batch.rows(), environments)

    def upload(self) -> None:
        """Count the paths that hold a file."""
        replaced(self.batch, self.settings)

    def skip_unchanged(self) -> None:
        """Read the rows of that run, and what earlier runs stored at their paths."""
        for environment in self.ledger.envs(self.planned):
            start = environment, 0
            for rows in self.ledger.pending(self.planned, [start], BATCH):
                self.ledger.certain_files(self.planned, rows)

    def confirm(self) -> None:
        """Find the rows of a confirm."""
        for _row in confirm_spec(self.ledger, self.newest, None, UTC, content=False).rows():
            pass

    def delete(self) -> None:
        """Find the rows of a delete."""
        work, _others = delete_work(self.ledger, self.newest, self.settings, {})
        for _row in work.rows():
            pass

    def undo(self) -> None:
        """Say what an undo would do, and find its rows."""
        spec = undo_spec(self.ledger, self.newest, None)
        scope_of_undo(spec)
        for _row in spec.rows():
            pass


def _write(file: Path, lines: list[tuple[str, ...]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(lines)


def _cpu(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


Compared = dict[str, tuple[float, float]]
"""By step: the CPU-seconds with one ledger, and with another."""


def by_order(rows: int, environments: int, runs: int, rounds: int) -> Compared:
    """Return the CPU of each preparation: with a list in the order of files, and of environments."""
    with tempfile.TemporaryDirectory(prefix="tcb-ops-preparations-") as folder:
        by_file, by_env = (
            Prepared(Path(folder, name), rows, environments, runs, by_file=name == "files")
            for name in ("files", "environments")
        )
        return _compared(by_file, by_env, rounds)


def by_past(rows: int, environments: int, rounds: int) -> Compared:
    """Return the CPU of each preparation: after MANY_RUNS earlier runs of the same paths, and after FEW_RUNS."""
    with tempfile.TemporaryDirectory(prefix="tcb-ops-preparations-") as folder:
        many, few = (
            Prepared(Path(folder, f"{runs}"), rows, environments, runs, by_file=False)
            for runs in (MANY_RUNS, FEW_RUNS)
        )
        return _compared(many, few, rounds)


def _compared(one: Prepared, other: Prepared, rounds: int) -> Compared:
    found = {}
    for name in STEPS:
        pairs = [(_cpu(getattr(one, name)), _cpu(getattr(other, name))) for _ in range(rounds)]
        first, second = (statistics.median(figures) for figures in zip(*pairs, strict=True))
        found[name] = first, second
    return found


def order_table(found: Compared, rows: int, environments: int, runs: int) -> str:
    lines = [
        "## CPU before the first call",
        "",
        f"{rows:,} rows over {environments:,} environments; {runs} earlier uploads of the same paths.",
        "",
        "| CPU-seconds | in order of files | of environments | ratio |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join([*lines, *_lines(found)])


def past_table(found: Compared, rows: int, environments: int) -> str:
    lines = [
        "## CPU before the first call, by earlier runs",
        "",
        f"{rows:,} rows over {environments:,} environments, each uploaded so many times before.",
        "",
        f"| CPU-seconds | {MANY_RUNS} earlier runs | {FEW_RUNS} | ratio |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join([*lines, *_lines(found)])


def _lines(found: Compared) -> list[str]:
    return [
        f"| {name} | {first:.3f} | {second:.3f} | {first / second:.2f} |"
        for name, (first, second) in found.items()
    ]


def main() -> int:
    """Print the tables; return 1 where a promise is missed."""
    import run

    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--rounds", type=int, default=5)
    given.add_argument("--quick", action="store_true", help="small lists")
    asked = given.parse_args()
    ordered, past = run.PREPARED[asked.quick], run.PASTS[asked.quick]
    in_order, after = by_order(*ordered, rounds=asked.rounds), by_past(*past, rounds=asked.rounds)
    print(order_table(in_order, *ordered), past_table(after, *past), sep="\n\n")
    figures = [*run.preparation_figures(in_order), *run.past_figures(after)]
    print("", run.target_table(figures), sep="\n")
    return int(any(one.judged() == "missed" for one in figures))


if __name__ == "__main__":
    sys.exit(main())
