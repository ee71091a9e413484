"""Calls outside of runs: what makes them for other features, and one upload link for ad-hoc work."""

from tcb_ops.kinds import Feature

FEATURE = Feature()
