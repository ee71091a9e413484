"""Measure what `--cluster local:2` gains over one process, for uploads of different 4 KB files to 200 merchants.

    python benchmarks/cluster.py [--rows 8000] [--rounds 5]

One process and two workers take turns. With 100 ms of latency, a row waits for its link and its store: the network is the limit,
and a worker has its own `--concurrency`. At 0 ms the processors are the limit, which the server shares. Prints a table, writes it into
RESULTS.md, and exits with 1 if the gain at 100 ms is below the target.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import run
from results import ROUNDS, Figure, about, target_table, write

HEADING = "## Two workers on one machine"
MERCHANTS = 200
LATENCIES = (100, 0)
"""Milliseconds."""
TARGET = 1.6
"""Rate of local:2 ÷ rate of one process, at the first of the latencies."""


def prepare(folder: Path, rows: int) -> None:
    """Write merchants, tokens, a list, and a file of 4 KB for each row."""
    (folder / "files").mkdir()
    md5s = []
    for n in range(rows):
        content = os.urandom(4096)
        (folder / "files" / f"{n}.bin").write_bytes(content)
        md5s.append(hashlib.md5(content, usedforsecurity=False).hexdigest())
    names = range(MERCHANTS)
    tables = {
        "merchants.csv": [("appid", "name", "env"), *((f"wx{n:04}", f"商户 {n}", f"bench-{n:03}") for n in names)],
        "tokens.csv": [("appid", "access_token"), *((f"wx{n:04}", f"{n:05}{'a' * 130}") for n in names)],
        "list.csv": [
            ("env", "path", "file"),
            *((f"bench-{n % MERCHANTS:03}", f"assets/{n:06}/{md5}.png", f"{n}.bin") for n, md5 in enumerate(md5s)),
        ],
    }  # fmt: skip
    for name, lines in tables.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines)


def upload(base: str, folder: Path, rows: int, *words: str) -> tuple[float, float]:
    """Upload the list; return rows per second from the first call to the last answer, and the command's seconds."""
    ledger = folder / "ledger.db"
    ledger.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "tcb_ops", "upload", "list.csv", "--root", "files", "--target", base, "--merchants",
        "merchants.csv", "--tokens", "tokens.csv", "--ledger", "ledger.db", "--quiet", "--yes", *words,
    ]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = time.perf_counter() - began
    with closing(sqlite3.connect(ledger)) as db:
        found = db.execute(
            "SELECT count(*), max(ended_at) - min(started_at) FROM rows WHERE outcome = 'uploaded'"
        )
        uploaded, working = found.fetchone()
    if done.returncode or uploaded != rows:
        sys.exit(f"{uploaded} of {rows} rows uploaded: the measurement is not valid\n{done.stderr.decode()}")
    return rows / working, seconds


def main() -> int:
    """Print the table and add it to RESULTS.md; return 1 if the target is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=8000)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    given = options.parse_args()
    lines = [
        f"{given.rows:,} files of 4 KB, {MERCHANTS} merchants.",
        "",
        "| latency | one process, rows/s | `local:2`, rows/s | ratio | whole command, s | with `local:2`, s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    gains, loads = [], []
    for latency in LATENCIES:
        ones, twos = [], []
        with tempfile.TemporaryDirectory(prefix="tcb-ops-cluster-") as name, run.lean_server(latency) as base:
            folder = Path(name)
            prepare(folder, given.rows)
            for _round in range(given.rounds):
                ones.append(upload(base, folder, given.rows))
                twos.append(upload(base, folder, given.rows, "--cluster", "local:2"))
                loads.append(os.getloadavg()[0])
        gains.append(median(two[0] / one[0] for one, two in zip(ones, twos, strict=True)))
        figures = [
            *(f"{median(one[0] for one in some):,.0f}" for some in (ones, twos)),
            f"{gains[-1]:.2f}",
            *(f"{median(one[1] for one in some):.1f}" for some in (ones, twos)),
        ]
        lines.append(f"| {latency} ms | {' | '.join(figures)} |")
    figure = Figure(
        f"local:2 ÷ one process, files/s with {LATENCIES[0]} ms of latency", gains[0], "≥", TARGET
    )
    table = "\n\n".join(["\n".join(lines), target_table([figure]), about(given.rounds, loads)])
    print(table)
    write(f"{HEADING}\n\n{table}")
    return int(figure.judged() == "missed")


if __name__ == "__main__":
    sys.exit(main())
