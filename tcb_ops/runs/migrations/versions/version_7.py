"""From schema version 6 to 7: the ETag of a file that is sent from a URL."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "7"
down_revision = "6"


def upgrade() -> None:
    """Upgrade a ledger of version 6."""
    op.add_column("rows", sa.Column("etag", sa.Text))
    op.execute("UPDATE tcb_ops SET version = 7")
