"""Old runs leave the ledger: which they may, and what stays of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tcb_ops.ledger.files import keep_file_ids
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import RunRecord


def prunable(runs: Sequence[RunRecord], before: float) -> list[RunRecord]:
    """Return the runs that may be removed from a ledger, in their order; `before` is in Unix seconds.

    =====================================================================  ========
    the run                                                                prunable
    =====================================================================  ========
    is unfinished, or finished at `before` or later                        no
    is retried, corrected, confirmed, deleted or undone by one that stays  no
    retries, corrects, confirms, deletes or undoes one that stays          no
    any other                                                              yes
    =====================================================================  ========
    """
    beside = defaultdict[str, set[str]](set)
    for run in runs:
        for other in {run.parent, run.corrects, *run.settings.of} - {""}:
            beside[run.id].add(other)
            beside[other].add(run.id)
    waiting = {run.id for run in runs if run.finished_at is None or run.finished_at >= before}
    staying = set[str]()
    while waiting:
        run_id = waiting.pop()
        staying.add(run_id)
        waiting |= beside[run_id] - staying
    return [run for run in runs if run.id not in staying]


def remove(ledger: Ledger, run: RunRecord) -> None:
    """Remove an old run with all that belongs to it. What it has stored stays in the table of stored files, with its id."""
    with ledger.writing() as connection:
        if run.changes_store or run.kind.findings_of_files:
            keep_file_ids(connection, run)
            connection.execute("INSERT INTO pruned_runs (number, id) VALUES (?, ?)", (run.number, run.id))
        ledger.remove(connection, run)
