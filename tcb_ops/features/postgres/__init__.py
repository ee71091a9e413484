"""A ledger in PostgreSQL, for several hosts and users."""

from typing import TYPE_CHECKING

from tcb_ops.hooks import Feature, PostgresHooks, lazily

if TYPE_CHECKING:
    from tcb_ops.features.postgres import database as _database
else:
    (_database,) = lazily(__name__, "database")

FEATURE = Feature(
    hooks=[PostgresHooks(open=_database.PostgreSQL)],
)
