"""Calculate how long a large upload takes on a cluster: 10,000 merchants with 1,000 rows each over 20 workers.

It divides the merchants as tcb-ops does, then gives partitions to free workers. Nothing is sent. `python benchmarks/sizing.py`
"""

from __future__ import annotations

import argparse
import heapq
import random

from tcb_ops.features.cluster.coordinator import PER_WORKER, divide
from tcb_ops.features.cluster.task import HAND_OVER
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.model import Owner

FILES = 2_400
"""Files of 4 KB per second and process, as measured on loopback (RESULTS.md): a test compares."""
DAILY = 10_000
"""Link calls per appid and day that operators report; `openapi/quota/get` knows the merchant's own."""


def environments(merchants: int, mean: int, *, skewed: bool) -> list[EnvRecord]:
    chance, found = random.Random(0), []
    for n in range(merchants):
        rows = min(DAILY, max(1, int(chance.lognormvariate(0, 1) * mean / 1.65))) if skewed else mean
        found.append(
            EnvRecord(n, f"env-{n}", f"wx{n}", "", Owner.MERCHANT, left=False, rows=rows, pending=rows)
        )
    return found


def minutes(
    groups: list[list[EnvRecord]], workers: int, files: int, rate: float | None, *, lost: bool
) -> float:
    """Return when the last partition ends. `lost`: one worker is killed halfway through its first partition."""
    free = [0.0] * workers
    work = [
        max(sum(e.pending for e in g) / files, max(e.pending for e in g) / rate if rate else 0)
        for g in groups
    ]
    end = 0.0
    if lost:
        begun = work.pop(0)
        heapq.heappop(free)
        work.append(begun / 2 + HAND_OVER)
    for one in work:
        at = heapq.heappop(free) + one
        heapq.heappush(free, at)
        end = max(end, at)
    return end / 60


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--merchants", type=int, default=10_000)
    given.add_argument("--rows", type=int, default=1_000)
    given.add_argument("--workers", type=int, default=20)
    given.add_argument("--files", type=int, default=FILES, help="a worker's files per second")
    asked = given.parse_args()
    print(
        f"{asked.merchants:,} merchants, {asked.workers} workers, {asked.files:,} files per second each."
        "\nMinutes, and those with a worker killed:\n"
    )
    rates = (None, 5.0, 1.0)
    print(f"{'merchants':23}", *(f"{f'--rate {rate:g}' if rate else 'no --rate':>16}" for rate in rates))
    for skewed in (False, True):
        listed = environments(asked.merchants, asked.rows, skewed=skewed)
        groups = divide(listed, asked.workers * PER_WORKER)
        cells = [
            " / ".join(
                f"{minutes(groups, asked.workers, asked.files, rate, lost=lost):,.1f}"
                for lost in (False, True)
            )
            for rate in rates
        ]
        print(
            f"{'of very different sizes' if skewed else 'of the same size':23}",
            *(f"{cell:>16}" for cell in cells),
        )


if __name__ == "__main__":
    main()
