"""Workers of Dask that share a run."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "cluster": "tcb_ops.features.cluster.client:check_cluster",
        "cluster_runner": "tcb_ops.features.cluster.coordinator:opened_runner",
        "read_partition": "tcb_ops.features.cluster.workers:read_partition",
        "stop_workers": "tcb_ops.features.cluster.task:stop_workers",
        "worker_shares": "tcb_ops.features.cluster.workers:worker_shares",
        "worker_lines": "tcb_ops.features.cluster.workers:worker_lines",
    },
)
