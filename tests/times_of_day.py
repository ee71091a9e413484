"""Run the whole suite at six times of day in Beijing, each time in another random order: `make clocks`.

Linux only: tests/clock.c moves the clock of the tests and of every program that they start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from datetime import datetime, timedelta, timezone
from pathlib import Path

TIMES = ("23:55", "03:30", "07:55", "11:45", "15:38", "20:00")
"""Before midnight and at other times, in Beijing and in UTC."""
BEIJING = timezone(timedelta(hours=8))
LIBRARY, CACHE = Path(sys.prefix, "clock.so"), Path(sys.prefix, "clock-cache")


def seconds_until(time: str, now: datetime) -> int:
    """Return the seconds by which to shift the clock from `now` to the next `time`."""
    hour, minute = map(int, time.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return int((then - now).total_seconds()) % 86_400


def main(arguments: list[str]) -> int:
    """Run pytest with `arguments` at each time, with the time's digits as the seed of its order."""
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", LIBRARY, source, "-ldl"], check=True)
    # Compiled modules are checked by their source's time, which moves: without this, each program compiles all of them.
    cached = os.environ | {"PYTHONPYCACHEPREFIX": str(CACHE)}
    ours = (source.parent, source.parent.parent / "tcb_ops")
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), *ours]
    compiling = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*compiling, *paths], env=cached, check=False, stdout=subprocess.DEVNULL)
    failed = 0
    for time in TIMES:
        moved = {
            "CLOCK_SHIFT": str(seconds_until(time, datetime.now(BEIJING))),
            "LD_PRELOAD": str(LIBRARY),
        }
        seed = int(time.replace(":", ""))
        print(f"{time} in Beijing, order {seed}:", flush=True)  # noqa: T201  announces the next run
        command = [sys.executable, "-m", "pytest", "-p", "randomly", f"--randomly-seed={seed}", *arguments]
        failed += subprocess.run(command, env=cached | moved, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
