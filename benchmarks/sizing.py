"""Calculate how long a large upload takes on a cluster: 10,000 merchants with 1,000 rows each over 20 workers.

It divides the merchants as tcb-ops does, then gives partitions to free workers. Nothing is sent. `python benchmarks/sizing.py`
"""

from __future__ import annotations

import argparse
import heapq
import random

from tcb_ops.features.cluster.coordinator import PER_WORKER, divide
from tcb_ops.formatting import format_duration
from tcb_ops.runs.ledger import HAND_OVER
from tcb_ops.runs.records import EnvRecord

FILES = 172
"""Files of 4 KB per second and process, as measured (RESULTS.md)."""
DAILY = 10_000
"""Link calls per appid and day that operators report; `openapi/quota/get` knows the merchant's own."""


def environments(merchants: int, mean: int, *, skewed: bool) -> list[EnvRecord]:
    chance, found = random.Random(0), []
    for n in range(merchants):
        rows = min(DAILY, max(1, int(chance.lognormvariate(0, 1) * mean / 1.65))) if skewed else mean
        found.append(EnvRecord(n, f"env-{n}", f"wx{n}", "", "merchant", left=False, rows=rows, pending=rows))
    return found


def seconds(groups: list[list[EnvRecord]], workers: int, rate: float | None, *, lost: bool) -> float:
    """Return when the last partition ends. `lost`: one worker is killed halfway through its first partition."""
    free = [0.0] * workers
    work = [
        max(sum(e.pending for e in g) / FILES, max(e.pending for e in g) / rate if rate else 0)
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
    return end


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--merchants", type=int, default=10_000)
    given.add_argument("--rows", type=int, default=1_000)
    given.add_argument("--workers", type=int, default=20)
    asked = given.parse_args()
    for skewed in (False, True):
        listed = environments(asked.merchants, asked.rows, skewed=skewed)
        groups = divide(listed, asked.workers * PER_WORKER)
        total = sum(one.pending for one in listed)
        sizes = "of very different sizes" if skewed else "of the same size"
        print(
            f"{asked.merchants:,} merchants {sizes}, {total:,} rows, {len(groups)} partitions, {asked.workers} workers"
        )
        for rate in (None, 5.0, 1.0):
            whole = seconds(groups, asked.workers, rate, lost=False)
            less = seconds(groups, asked.workers, rate, lost=True)
            limit = f"--rate {rate:g}" if rate else "no --rate"
            print(
                f"  {limit:10}  {format_duration(whole):>8}, with a worker killed {format_duration(less):>8}"
            )


if __name__ == "__main__":
    main()
