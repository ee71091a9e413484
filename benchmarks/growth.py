"""Measure what grows with the list: checking it, planning a run, and the errcode table, up to 3,000,000 rows.

    python benchmarks/growth.py

Nothing is sent. Each size is measured in a process of its own. `run.py` prints the same table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (10_000, 100_000, 1_000_000, 3_000_000)
ENVS = 200


def measure(folder: Path, rows: int) -> None:
    """Print the seconds of each step, and the peak memory in MiB."""
    import resource

    import reports
    import run

    import tcb_ops as tcb
    from tcb_ops.ledger.ledger import Ledger

    merchants_file, paths = folder / "merchants.csv", folder / f"{rows}.csv"
    run.write_csv(
        merchants_file, "appid,name,env", ((run.appid(n), f"商户{n}", run.env(n)) for n in range(ENVS))
    )
    named = ((run.env(n * ENVS // rows), f"assets/{n:07}.png") for n in range(rows))
    run.write_csv(paths, "env,path", named)
    merchants = tcb.read_merchants(merchants_file)
    begun = time.perf_counter()
    with tcb.read_paths(paths, merchants):
        checked = time.perf_counter() - begun
    ledger = Ledger(str(folder / f"{rows}.db"))
    begun = time.perf_counter()
    planned = reports.plan(ledger, "run-a", rows, begun=reports.BEGUN)
    took = time.perf_counter() - begun
    reports.end(ledger, planned, rows, ill=0, begun=reports.BEGUN)
    ledger.close()
    settings = tcb.load_settings(options={"ledger": str(folder / f"{rows}.db")})
    begun = time.perf_counter()
    tcb.open_run("run-a", settings=settings).causes()
    listed = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([checked, took, listed, peak]))


def table(folder: Path, sizes: tuple[int, ...] = SIZES) -> str:
    """Measure the sizes in a folder; return the table."""
    lines = [
        "## Growth",
        "",
        "| rows | check, rows/s | plan, rows/s | errcode table, s | peak MiB |",
        "|---:|---:|---:|---:|---:|",
    ]
    for rows in sizes:
        own = folder / f"growth-{rows}"
        own.mkdir()
        command = [sys.executable, __file__, str(own), str(rows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        checked, took, listed, peak = json.loads(done.stdout)
        line = f"| {rows:,} | {rows / checked:,.0f} | {rows / took:,.0f} | {listed:.3f} | {peak:.0f} |"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory(prefix="tcb-ops-growth-") as temporary:
            print(table(Path(temporary)))
