"""From schema version 3 to 4: the sums of a finished run's rows are stored. Those of earlier runs are computed on demand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Upgrade a ledger of version 3."""
    op.create_table(
        "tallies",
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.number"), primary_key=True),
        sa.Column("no", sa.Integer, primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("errcode", sa.Integer),
        sa.Column("store_code", sa.Text, nullable=False, server_default=""),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
        sqlite_with_rowid=False,
    )
    op.execute("UPDATE tcb_ops SET version = 4")
