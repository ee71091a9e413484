"""Old runs leave the ledger."""

from tcb_ops.kinds import Feature

FEATURE = Feature(commands={"setup": ["tcb_ops.features.prune.command:prune"]})
