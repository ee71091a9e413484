"""Runs, lists and other results in notebooks: as DataFrames, and as cards."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "table_html": "tcb_ops.features.frames.cards:table_html",
        "findings_html": "tcb_ops.features.frames.cards:findings_html",
        "sections_html": "tcb_ops.features.frames.cards:sections_html",
        "target_html": "tcb_ops.features.frames.cards:target_html",
        "run_html": "tcb_ops.features.frames.cards:run_html",
        "batch_html": "tcb_ops.features.frames.cards:batch_html",
        "report_html": "tcb_ops.features.frames.cards:report_html",
        "show_error": "tcb_ops.features.frames.cards:show_error",
        "Tabular.frame": "tcb_ops.features.frames.data_frames:table_frame",
        "frame_of": "tcb_ops.features.frames.data_frames:frame_of",
        "Run.results": "tcb_ops.features.frames.data_frames:results_frame",
        "Run.links": "tcb_ops.features.frames.data_frames:links_frame",
        "Run.errcodes": "tcb_ops.features.frames.data_frames:errcodes_frame",
        "Run.causes": "tcb_ops.features.frames.data_frames:causes_frame",
        "Run.by_merchant": "tcb_ops.features.frames.data_frames:merchants_frame",
        "Run.timeline": "tcb_ops.features.frames.data_frames:timeline_frame",
    },
)
