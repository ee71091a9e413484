"""Runs as DataFrames."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "Run.results": "tcb_ops.features.frames.run_frames:results_frame",
        "Run.links": "tcb_ops.features.frames.run_frames:links_frame",
        "Run.errcodes": "tcb_ops.features.frames.run_frames:errcodes_frame",
        "Run.causes": "tcb_ops.features.frames.run_frames:causes_frame",
        "Run.by_merchant": "tcb_ops.features.frames.run_frames:merchants_frame",
        "Run.timeline": "tcb_ops.features.frames.run_frames:timeline_frame",
    },
)
