"""One upload link for ad-hoc work, outside of runs."""

from tcb_ops.kinds import Feature

FEATURE = Feature()
