"""What the workers of a run on a cluster did."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Text, _, as_list
from tcb_ops.model import Outcome
from tcb_ops.reports.summary import most_first

WORKERS = 20
"""Workers named, those with most rows; as many lost ones have a line."""


RELEASED = ""
"""Stands for a worker's name where the one before it ended its work on a partition."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a run on a cluster: whole merchants, on which one worker at a time works."""

    number: int
    workers: tuple[str, ...]
    """Who has claimed it, in order; RELEASED after one that ended its work. Any other one but the last was lost."""
    done: Mapping[str, Mapping[Outcome, int]]
    """Rows by worker and outcome."""


def read_partition(record: Any) -> Partition:
    """Return the partition of a record of the ledger. Raises ValueError, TypeError … for a damaged one."""
    workers = tuple(map(str, json.loads(record.workers or "[]")))
    return Partition(record.number, workers, read_done(record.done))


def read_done(text: str) -> dict[str, dict[Outcome, int]]:
    """Return the rows of a partition by worker and outcome."""
    return {
        worker: {Outcome(outcome): int(rows) for outcome, rows in counts.items()}
        for worker, counts in json.loads(text or "{}").items()
    }


def lost_workers(partitions: Sequence[Partition]) -> dict[str, list[str]]:
    """Return the workers that lost a partition, and those that continued it."""
    continued_by: dict[str, list[str]] = {}
    for partition in partitions:
        for lost, after in zip(partition.workers, partition.workers[1:], strict=False):
            if RELEASED not in {lost, after} and after not in continued_by.setdefault(lost, []):
                continued_by[lost].append(after)
    return continued_by


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """One worker's share of a run on a cluster."""

    worker: str
    """Host and process id."""
    rows: int
    continued_by: tuple[str, ...] = ()
    """Who continued its merchants after it was lost; empty if it was not."""


def worker_shares(partitions: Sequence[Partition]) -> list[WorkerShare]:
    """Sum up partitions by worker, most rows first, then by name.

    =================================================  =========================================
    partitions: who claimed them; rows by worker       shares
    =================================================  =========================================
    none                                               none
    a; a 3                                             a 3
    a, b; a 1, b 2                                     b 2; a 1, continued by b
    a, b; b 3                                          b 3; a 0, continued by b
    a; a 5 and c; c 2 and a, c; c 1                    a 5, continued by c; c 3
    a, released, b; a 1, b 2                           b 2; a 1
    =================================================  =========================================
    """
    rows: Counter[str] = Counter()
    for one in partitions:
        rows.update(dict.fromkeys((worker for worker in one.workers if worker != RELEASED), 0))
        rows.update({worker: sum(counts.values()) for worker, counts in one.done.items()})
    lost = lost_workers(partitions)
    return [WorkerShare(worker, count, tuple(lost.get(worker, ()))) for worker, count in most_first(rows)]


def worker_lines(workers: Sequence[WorkerShare]) -> list[Text]:
    """Say how many rows each worker of a cluster did, and which ones were lost; empty for a run without a cluster."""
    if not workers:
        return []
    done = as_list([f"{sanitize(share.worker)} ({share.rows:,})" for share in workers if share.rows], WORKERS)
    text = _("Worker {lost} lost; its merchants continued on {others}.")
    return [
        *([_("Rows by worker: {listed}.", listed=done)] if any(share.rows for share in workers) else []),
        *(
            text.format(lost=sanitize(share.worker), others=as_list(map(sanitize, share.continued_by), 3))
            for share in [share for share in workers if share.continued_by][:WORKERS]
        ),
    ]
