"""From schema version 4 to 5: the index by path finds deleted, restored and confirmed files, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"

_STORED = sa.text(
    "outcome IN ('uploaded', 'unchanged', 'failed', 'restored', 'deleted', 'already_gone', 'absent', 'different', 'foreign')"
)


def upgrade() -> None:
    """Upgrade a ledger of version 4."""
    op.drop_index("rows_by_path", "rows")
    op.create_index("rows_by_path", "rows", ["path"], sqlite_where=_STORED, postgresql_where=_STORED)
    op.execute("UPDATE tcb_ops SET version = 5")
