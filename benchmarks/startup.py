"""Measure what starting costs: CPU of a name of tcb_ops and of commands, divided by that of a bare `python -c pass`.

    python benchmarks/startup.py [--rounds 9]

Each round runs every command once, one after the other, and takes the ratios within it; printed are their medians. The
commands read a ledger of three runs. Exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

BARE = ("-c", "pass")
COMMANDS = {
    "import tcb_ops; tcb_ops.upload": ("-c", "import tcb_ops; tcb_ops.upload"),
    "tcb-ops --help": ("-m", "tcb_ops", "--help"),
    "tcb-ops runs": ("-m", "tcb_ops", "runs"),
    "tcb-ops show latest": ("-m", "tcb_ops", "show", "latest"),
    "tcb-ops explain 85088": ("-m", "tcb_ops", "explain", "85088"),
    "completion of a command": ("-m", "tcb_ops"),
    "tcb-ops upload of one 4 KB file": ("-m", "tcb_ops", "upload", "list.csv", "--yes", "--ledger", "one.db"),
    "tcb-ops demo": ("-m", "tcb_ops", "demo"),
}
TARGETS = {
    "tcb-ops --help": 9.0,
    "tcb-ops runs": 16.0,
    "tcb-ops show latest": 18.0,
    "tcb-ops upload of one 4 KB file": 60.0,
}
"""Times a bare start, at most."""


def cpu(words: tuple[str, ...], folder: Path, **variables: str) -> tuple[float, float]:
    """Return the CPU-seconds of a Python program, and the seconds that it takes."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TCB_OPS_", "PYTHON", "SSL_"))
    }
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    code = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env | variables, check=False, **quiet
    ).returncode
    assert code in {0, 1}, words  # 1: the run that is shown has rows that did not succeed
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, seconds


Figures = dict[str, tuple[float, float, float, float | None]]
"""By name: seconds, CPU-seconds, those ÷ a bare start's, and what that may be at most."""


ROUNDS = 9


def figures(rounds: int) -> Figures:
    import reports
    import run

    from tcb_ops.ledger.ledger import Ledger

    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="tcb-ops-startup-") as temporary, run.lean_server() as base:
        folder = Path(temporary)
        run.prepare(folder, replace(run.NOTHING, small=1, big_file=1))
        (folder / "small.csv").rename(folder / "list.csv")
        ledger = Ledger(str(folder / "tcb-ops.db"))
        for number in range(3):
            reports.build(ledger, f"run-{number}", 300, ill=number, begun=reports.BEGUN + number)
        ledger.close()
        words = {"_TCB_OPS_COMPLETE": "bash_complete", "COMP_WORDS": "tcb-ops\nupl", "COMP_CWORD": "1"}
        for turn in range(rounds + 1):
            bare, _seconds = cpu(BARE, folder)
            for name, command in COMMANDS.items():
                if name == "tcb-ops demo" and turn > 2:  # it takes seconds
                    continue
                to_server = ("--target", base, "--root", "files") if "--yes" in command else ()
                variables = words if name.startswith("completion") else {}
                used, seconds = cpu((*command, *to_server), folder, **variables)
                if turn:  # the first one compiles
                    found[name].append((seconds, used, used / bare))
    medians = {name: [*map(median, zip(*figures, strict=True))] for name, figures in found.items()}
    return {name: (*medians[name], TARGETS.get(name)) for name in COMMANDS}


def table(found: Figures) -> str:
    lines = [
        "## Start-up and whole commands",
        "",
        "| | seconds | CPU-seconds | ÷ `python -c pass` | target |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, (seconds, used, ratio, target) in found.items():
        most = "" if target is None else f"≤ {target:.0f}"
        lines.append(f"| {name} | {seconds:.2f} | {used:.2f} | {ratio:.1f} | {most} |")
    return "\n".join(lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=ROUNDS)
    found = figures(options.parse_args().rounds)
    print(table(found))
    return int(
        any(target is not None and ratio > target for _seconds, _used, ratio, target in found.values())
    )


if __name__ == "__main__":
    sys.exit(main())
