"""Workers of Dask that share a run."""

from typing import TYPE_CHECKING

from tcb_ops.hooks import ClusterHooks, Feature, lazily

if TYPE_CHECKING:
    from tcb_ops.features.cluster import coordinator as _coordinator
    from tcb_ops.features.cluster import task as _task
else:
    _coordinator, _task = lazily(__name__, "coordinator", "task")

FEATURE = Feature(
    hooks=[
        ClusterHooks(
            check=_coordinator.check_cluster,
            runner=_coordinator.opened_runner,
            stop_workers=_task.stop_workers,
        )
    ],
)
