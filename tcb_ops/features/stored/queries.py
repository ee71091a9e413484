"""What the ledger knows of the uploads of a list."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from tcb_ops.model import Outcome
from tcb_ops.runs.histories import OF_ENV
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.schema import envs, rows


def paths_stored(
    ledger: LedgerReader, uploads: Sequence[RunRecord], env: str, appid: str
) -> list[tuple[str, str]]:
    """Return the paths to which uploads sent files of a merchant's environment, each with its local file, sorted."""
    query = (
        sa.select(rows.c.path, rows.c.file)
        .distinct()
        .join(envs, OF_ENV)
        .where(
            envs.c.env == env,
            envs.c.appid == appid,
            rows.c.run.in_([run.number for run in uploads]),
            rows.c.outcome == Outcome.UPLOADED,
        )
        .order_by(rows.c.path)
    )
    return [(path, file) for path, file in ledger.query(query)]
