"""Removing an old run from the ledger."""

from __future__ import annotations

from tcb_ops.kinds import MissingKind
from tcb_ops.model import Outcome
from tcb_ops.runs.histories import FILE
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.schema import stored

KEY = ("target", "env", "path")
COLUMNS = ("target", "env", *FILE)
"""The columns of `pruned_files`."""


def prune(ledger: Ledger, run: RunRecord) -> None:
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
