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
}
TARGETS = {"tcb-ops --help": 9.0, "tcb-ops runs": 16.0, "tcb-ops show latest": 18.0}
"""Times a bare start, at most."""


def cpu(words: tuple[str, ...], folder: Path, **variables: str) -> float:
    """Return the CPU-seconds of a Python program."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TCB_OPS_", "PYTHON"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    code = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env | variables, check=False, **quiet
    ).returncode
    assert code in {0, 1}, words  # 1: the run that is shown has rows that did not succeed
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def figures(rounds: int = 9) -> dict[str, tuple[float, float | None]]:
    """Return each figure: the ratio to a bare start, and its target."""
    import reports

    from tcb_ops.runs.ledger import Ledger

    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="tcb-ops-startup-") as temporary:
        folder = Path(temporary)
        ledger = Ledger(str(folder / "tcb-ops.db"))
        for number in range(3):
            reports.build(ledger, f"run-{number}", 300, ill=number, begun=reports.BEGUN + number)
        ledger.close()
        words = {"_TCB_OPS_COMPLETE": "bash_complete", "COMP_WORDS": "tcb-ops\nupl", "COMP_CWORD": "1"}
        for turn in range(rounds + 1):
            bare = cpu(BARE, folder)
            for name, command in COMMANDS.items():
                ratio = cpu(command, folder, **(words if name.startswith("completion") else {})) / bare
                if turn:  # the first one compiles
                    found[name].append(ratio)
    return {name: (median(ratios), TARGETS.get(name)) for name, ratios in found.items()}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=9)
    kept = True
    print("| | ÷ `python -c pass` | target |\n|---|---:|---:|")
    for name, (ratio, target) in figures(options.parse_args().rounds).items():
        kept = kept and (target is None or ratio <= target)
        print(f"| {name} | {ratio:.1f} | {'' if target is None else f'≤ {target:.0f}'} |")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
