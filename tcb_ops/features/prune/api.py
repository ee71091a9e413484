"""Old runs leave the ledger: the public function, which they may, and what stays of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from tcb_ops.arguments import checked
from tcb_ops.errors import check_count
from tcb_ops.kinds import MissingKind
from tcb_ops.model import Outcome
from tcb_ops.runs.histories import FILE
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.locks import planning
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.schema import stored
from tcb_ops.settings import Settings
from tcb_ops.start import ledger_with_runs, settings_for

SECONDS_PER_DAY = 86_400
KEY = ("target", "env", "path")
COLUMNS = ("target", "env", *FILE)
"""The columns of `pruned_files`."""


@checked
def prune(older_than: int, *, dry_run: bool = False, settings: Settings | None = None) -> list[RunRecord]:
    """Remove runs that finished more than `older_than` days ago from the ledger; return them, the newest first.

    Runs that belong to a remaining one stay: its upload, its retries, and what confirmed, deleted or undid it. What a removed
    run last stored at each path is kept for `undo` and `delete`. Reports are not touched. `dry_run`: nothing is removed.
    """
    check_count("older_than", older_than, least=1)
    ledger = ledger_with_runs(settings_for({"settings": settings}))
    with planning(ledger):
        removable = prunable(ledger.runs(), time.time() - older_than * SECONDS_PER_DAY)
        if not dry_run and removable:
            for run in reversed(removable):  # of what was stored at a path, the newest is kept
                remove(ledger, run)
            ledger.compact()
    return removable


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
        for other in {run.parent, run.corrects, *run.settings.get("of", ())} - {""}:
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
    """Remove an old run with all that belongs to it, except what it last stored or found at each path.

    That stays unless something newer is kept there already.
    """
    kind = run.kind
    with ledger.writing() as connection:
        if kind.changes_store or kind.looks_at_store or isinstance(kind, MissingKind):
            replaced = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEY)
            connection.execute(f"""
                INSERT INTO pruned_files ({", ".join(COLUMNS)}) {_last_of_paths(run)}
                ON CONFLICT ({", ".join(KEY)}) DO UPDATE SET {replaced} WHERE excluded.ended_at >= pruned_files.ended_at""")
        ledger.remove(connection, run)


def _last_of_paths(run: RunRecord) -> str:
    """Compose the SELECT of what a run last stored or found at each path, as `pruned_files` has it."""
    # What a confirmation found, and what a failed row may have left, is not known.
    not_known = run.kind.looks_at_store or isinstance(run.kind, MissingKind)
    outcome = (
        f"CASE WHEN rows.outcome = 'failed' OR {not_known} THEN '{Outcome.UNKNOWN}' ELSE rows.outcome END"
    )
    values = {"target": "runs.target", "env": "envs.env", **FILE, "outcome": outcome}
    sends = run.kind.sends_files
    doubtful = "rows.attempts > 1" if sends and run.upload_calls else not sends  # a link is the first call
    return f"""
        SELECT {", ".join(COLUMNS)} FROM (
            SELECT {", ".join(f"{values[name]} AS {name}" for name in COLUMNS)}, ROW_NUMBER() OVER (
                PARTITION BY envs.env, rows.path ORDER BY rows.ended_at DESC, rows.line DESC) AS nth
            FROM rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place JOIN runs ON runs.number = rows.run
            WHERE rows.run = {run.number} AND {stored("rows.")} AND (rows.outcome <> 'failed' OR {doubtful})
        ) AS entries WHERE nth = 1"""
