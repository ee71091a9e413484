"""What the workers of a run on a cluster did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Text, _, as_list
from tcb_ops.reports.summary import most_first
from tcb_ops.runs.records import RELEASED, Partition, lost_workers

WORKERS = 20
"""Workers named, those with most rows; as many lost ones have a line."""


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
