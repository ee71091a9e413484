"""Confirm 10,000 and 100,000 uploaded files with their checksums: calls, bytes on the network, memory, and whether it is true.

    python benchmarks/stored.py [--rows 100000] [--environments 100]

One file in a hundred is removed, replaced, or written in parts by another tool before the confirmation. Run as root on Linux, it
counts the bytes in a network namespace of its own. Writes its table into RESULTS.md; exits 1 where a promise is missed.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from results import Figure, about, target_table, write
from rigged_simulator import Simulator

from tcb_ops import Merchant, load_settings, open_run

ROWS_PER_CALL = 50
BYTES_PER_ROW = 1024
GROWTH = 1.3
"""Peak memory at ten times the rows ÷ before."""
KINDS = ("absent", "different", "foreign")
SEPARATE = "BENCH_NETWORK"
"""Set in the process that has a network of its own."""
HEADING = "## Confirm"


def lo_bytes() -> int:
    """Return the bytes that went over loopback so far."""
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("lo:"))


def confirm(rows: int, environments: int, folder: Path) -> dict[str, float]:
    """Upload, spoil some files, confirm; return the figures."""
    merchants = [Merchant(f"wx{n:05}", f"商户 {n}", f"env-{n:05}-1a2b3c") for n in range(environments)]
    tokens = {m.appid: f"token-of-{m.appid}" for m in merchants}
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "a.txt").write_text("content", encoding="utf-8")
    for name, lines in (
        ("merchants.csv", [("appid", "name", "env"), *((m.appid, m.name, m.env) for m in merchants)]),
        ("tokens.csv", [("appid", "access_token"), *tokens.items()]),
        (
            "list.csv",
            [
                ("env", "path", "file"),
                *((merchants[n % environments].env, f"p/{n}.txt", "a.txt") for n in range(rows)),
            ],
        ),
    ):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines)
    with Simulator(merchants, tokens) as sim:
        options = {
            "target": sim.base,
            "ledger": str(folder / "ledger.db"),
            "merchants": str(folder / "merchants.csv"),
            "tokens": str(folder / "tokens.csv"),
        }
        shared = [word for name, value in options.items() for word in (f"--{name}", value)]
        run(folder, "upload", "list.csv", "--root", "files", "--quiet", *shared)
        truth = {"present": rows}
        for n in range(0, rows, 100):
            env, path, kind = merchants[n % environments].env, f"p/{n}.txt", KINDS[n // 100 % len(KINDS)]
            truth = {**truth, "present": truth["present"] - 1, kind: truth.get(kind, 0) + 1}
            if kind == "absent":
                sim.remove(env, path)
            else:
                sim.put(env, path, b"other", etag="0" * 32 + "-2" if kind == "foreign" else None)
        before, calls, began = lo_bytes(), Counter(sim.stats), time.perf_counter()
        peak = run(folder, "confirm", "--content", "--quiet", *shared)
        seconds = time.perf_counter() - began
        made = Counter(sim.stats) - calls
        read = {name: value for name, value in options.items() if name != "tokens"}
        found = open_run("latest", settings=load_settings(options=read)).counts
        return {
            "rows": rows,
            "rows/s": rows / seconds,
            "calls": made["download"],
            "bytes per row": (lo_bytes() - before) / rows if SEPARATE in os.environ else float("nan"),
            "peak MiB": peak,
            "as it is": float(found == truth),
        }


def run(folder: Path, *words: str) -> float:
    """Run a command; return its peak memory in MiB. A confirmation that finds something exits with 1."""
    with subprocess.Popen(
        [sys.executable, "-m", "tcb_ops", *words], cwd=folder, stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in {0, 1}:
        sys.exit(f"{words[0]} ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def main() -> int:
    """Print the table and write it into RESULTS.md; return 1 where a promise is missed."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--rows", type=int, default=100_000)
    given.add_argument("--environments", type=int, default=100)
    asked = given.parse_args()
    if SEPARATE not in os.environ and sys.platform == "linux" and os.geteuid() == 0:
        inside = 'ip link set lo up 2>/dev/null || ifconfig lo up; exec "$@"'
        command = ["unshare", "--net", "sh", "-c", inside, "sh", sys.executable, *sys.argv]
        return subprocess.run(command, env=os.environ | {SEPARATE: "1"}, check=False).returncode
    found = []
    for rows in (asked.rows // 10, asked.rows):
        with tempfile.TemporaryDirectory() as folder:
            found.append(confirm(rows, asked.environments, Path(folder)))
    lines = ["| | " + " | ".join(f"{int(one['rows']):,} rows" for one in found) + " |", "|---|" + "---:|" * 2]
    lines += [
        f"| {name} | " + " | ".join(f"{one[name]:,.0f}" for one in found) + " |"
        for name in list(found[0])[1:]
    ]
    small, large = found
    figures = (
        Figure(
            "confirm: rows end as the simulator holds them", min(one["as it is"] for one in found), "≥", 1
        ),
        Figure("confirm: rows per call", large["rows"] / large["calls"], "≥", ROWS_PER_CALL),
        Figure(
            "confirm: bytes on the network per row",
            None if math.isnan(large["bytes per row"]) else large["bytes per row"],
            "≤",
            BYTES_PER_ROW,
        ),
        Figure(
            "confirm: peak memory at ten times the rows ÷ before",
            large["peak MiB"] / small["peak MiB"],
            "≤",
            GROWTH,
        ),
    )
    table = "\n\n".join(["\n".join(lines), target_table(figures), about(1)])
    print(table)
    write(f"{HEADING}\n\n{table}")
    return int(any(one.judged() == "missed" for one in figures))


if __name__ == "__main__":
    sys.exit(main())
