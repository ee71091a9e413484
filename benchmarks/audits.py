"""Measure `tcb-ops audit` of large fleets: peak memory, seconds, and the most calls for one appid.

    python benchmarks/audits.py [--environments 500 10000] [--rounds 5]

Each fleet is audited twice, the second time compared with the first; a fleet of 400 is audited with an answer time of
50 ms. Every command is a process of its own, which writes its whole report, except for report.pdf. Prints a table, writes
it into RESULTS.md, and exits with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import run
from results import ROUNDS, Figure, about, target_table, write

FEW, SLOW = 400, 50.0
"""Environments of the fleet behind a slow network, and its milliseconds."""
SECONDS = 15.0
"""Most seconds for them."""
CALLS = 3
"""Most calls for an appid with one environment: its environments, its quota, a link."""
GROWTH = 1.15
"""Peak of the largest fleet ÷ peak of the smallest, at most."""


@dataclass(frozen=True)
class Audit:
    seconds: float
    peak: float
    """MiB."""
    calls: int
    """The most for one appid."""


def audited(base: str, folder: Path, environments: int) -> Audit:
    """Audit a fleet with the command, in a process of its own."""
    command = [
        sys.executable, "-m", "tcb_ops", "audit", "--target", base, "--merchants", "merchants.csv",
        "--tokens", "tokens.csv", "--ledger", "ledger.db", "--fail-on", "none", "--json",
    ]  # fmt: skip
    began = time.perf_counter()
    with (folder / "out.json").open("w+") as out:
        started = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(started.pid, 0)
        seconds = time.perf_counter() - began
        started.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        counts = json.load(out)["counts"]
    halted = -(-environments // 20)
    if started.returncode or counts != {"healthy": environments - halted, "unhealthy": halted}:
        sys.exit(f"exit code {started.returncode}, {counts}: the measurement is not valid")
    with urllib.request.urlopen(f"{base}/calls") as answer:
        calls = max(json.load(answer).values())
    scale = 1024**2 if sys.platform == "darwin" else 1024  # KiB on Linux, bytes on macOS
    return Audit(seconds, used.ru_maxrss / scale, calls)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--environments", type=int, nargs="+", default=[500, 10_000])
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--no-write", action="store_true", help="Leave RESULTS.md as it is.")
    given = options.parse_args()
    first: dict[int, list[Audit]] = {}
    second: dict[int, list[Audit]] = {}
    slow: list[Audit] = []
    loads = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(prefix="tcb-ops-audits-") as name, run.lean_server() as base:
            for count in given.environments:
                folder = run.prepare_fleet(Path(name), count).parent
                first.setdefault(count, []).append(audited(base, folder, count))
                second.setdefault(count, []).append(audited(base, folder, count))
        with tempfile.TemporaryDirectory(prefix="tcb-ops-audits-") as name, run.lean_server(SLOW) as base:
            slow.append(audited(base, run.prepare_fleet(Path(name), FEW).parent, FEW))
        loads.append(os.getloadavg()[0])
    lines = [
        "One environment in twenty is HALTED.",
        "",
        "| environments | seconds | peak MiB, first audit | peak MiB, compared with the one before | most calls for an appid |",
        "|---|---:|---:|---:|---:|",
    ]
    rows = [(f"{count:,}", first[count], second[count]) for count in first]
    rows.append((f"{FEW} at {SLOW:.0f} ms", slow, []))
    for title, ones, twos in rows:
        seconds, peak = median(one.seconds for one in ones), median(one.peak for one in ones)
        again = f"{median(one.peak for one in twos):.0f}" if twos else ""
        calls = max(one.calls for one in (*ones, *twos))
        lines.append(f"| {title} | {seconds:.1f} | {peak:.0f} | {again} | {calls} |")
    most, least = max(first), min(first)
    growth = median(large.peak / small.peak for large, small in zip(second[most], second[least], strict=True))
    every = [one.calls for ones in (*first.values(), *second.values(), slow) for one in ones]
    figures = (
        Figure(f"audit: peak memory at {most:,} ÷ at {least:,} environments", growth, "≤", GROWTH),
        Figure(
            f"audit of {FEW} environments at {SLOW:.0f} ms, seconds",
            median(one.seconds for one in slow),
            "≤",
            SECONDS,
        ),
        Figure("audit: most calls for an appid", max(every), "≤", CALLS),
    )
    table = "\n\n".join(["\n".join(lines), target_table(figures), about(given.rounds, loads)])
    print(table)
    if not given.no_write:
        write(f"## Audits of large fleets\n\n{table}")
    return int(any(one.judged() == "missed" for one in figures))


if __name__ == "__main__":
    sys.exit(main())
