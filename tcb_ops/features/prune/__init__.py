"""Old runs leave the ledger."""

from tcb_ops.kinds import Feature

FEATURE = Feature(commands={"inspect": ["tcb_ops.features.prune.command:prune"]})
