"""What the ledger knows of the uploads of a list."""

from __future__ import annotations

from collections.abc import Sequence

from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.schema import sql_list


def paths_stored(
    ledger: LedgerReader, uploads: Sequence[RunRecord], env: str, appid: str
) -> list[tuple[str, str]]:
    """Return the paths to which uploads sent files of a merchant's environment, each with its local file, sorted."""
    numbers = sql_list(run.number for run in uploads)
    query = f"""
        SELECT DISTINCT rows.path, rows.file FROM rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place
        WHERE envs.env = ? AND envs.appid = ? AND rows.run IN ({numbers}) AND rows.outcome = 'uploaded'
        ORDER BY rows.path"""
    return ledger.fetch(query, (env, appid))
