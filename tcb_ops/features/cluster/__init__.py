"""Workers of Dask that share a run."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "cluster": "tcb_ops.features.cluster.coordinator:check_cluster",
        "cluster_runner": "tcb_ops.features.cluster.coordinator:opened_runner",
        "stop_workers": "tcb_ops.features.cluster.task:stop_workers",
    },
)
