"""Workers of Dask that share a run."""

from tcb_ops.kinds import Feature

FEATURE = Feature()
