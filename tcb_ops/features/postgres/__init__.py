"""A ledger in PostgreSQL, for several hosts and users."""

from tcb_ops.kinds import Feature

FEATURE = Feature(provides={"postgresql": "tcb_ops.features.postgres.database:PostgreSQL"})
