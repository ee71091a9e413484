"""Results in a colleague's own workbook, or in a workbook per person."""

from tcb_ops.kinds import Feature

FEATURE = Feature()
