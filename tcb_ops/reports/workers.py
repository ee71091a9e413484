"""The workers of a run on a cluster: how many rows each did, and which ones were lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Text, _, as_list, ngettext
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
    return [
        WorkerShare(worker, count, tuple(lost.get(worker, ())))
        for worker, count in sorted(rows.items(), key=lambda found: (-found[1], found[0]))
    ]


def worker_lines(workers: Sequence[WorkerShare]) -> list[Text]:
    """Say how many rows each worker of a cluster did, and which ones were lost; empty for a run without a cluster."""
    if not workers:
        return []
    busy = [one for one in workers if one.rows]
    listed = as_list(f"{sanitize(one.worker)} ({one.rows:,})" for one in busy[:WORKERS])
    if rest := busy[WORKERS:]:
        listed = _(
            "{listed} and {workers} ({rows:,})",
            listed=listed,
            workers=ngettext("{n:,} more worker", "{n:,} more workers", len(rest)),
            rows=sum(one.rows for one in rest),
        )
    lines = [_("Rows by worker: {listed}.", listed=listed)] if busy else []
    lost = [one for one in workers if one.continued_by]
    lines += [
        _(
            "Worker {lost} lost; its merchants continued on {others}.",
            lost=sanitize(one.worker),
            others=as_list(map(sanitize, one.continued_by), 3),
        )
        for one in lost[:WORKERS]
    ]
    if more := lost[WORKERS:]:
        lines.append(ngettext("{n:,} more worker was lost.", "{n:,} more workers were lost.", len(more)))
    return lines
