"""Workers of Dask that share a run."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "worker_shares": "tcb_ops.features.cluster.workers:worker_shares",
        "worker_lines": "tcb_ops.features.cluster.workers:worker_lines",
    },
)
