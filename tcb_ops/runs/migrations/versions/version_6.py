"""From schema version 5 to 6: the tables of runs on a cluster."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = "5"


def upgrade() -> None:
    """Upgrade a ledger of version 5."""
    op.create_table(
        "cluster_sessions",
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.number"), primary_key=True),
        sa.Column("session", sa.Integer, primary_key=True),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.Column("stopping", sa.Boolean, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "partitions",
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.number"), primary_key=True),
        sa.Column("session", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("envs", sa.Text, nullable=False, server_default=""),
        sa.Column("fence", sa.Integer, nullable=False),
        *(
            sa.Column(name, sa.Text, nullable=False, server_default="")
            for name in ("workers", "state", "done")
        ),
        sqlite_with_rowid=False,
    )
    op.execute("UPDATE tcb_ops SET version = 6")
