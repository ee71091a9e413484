"""Charts of a run: its errcodes by merchant, and its rows over time; in report.html and in panels."""

from tcb_ops.kinds import Feature

FEATURE = Feature(provides={"charts": "tcb_ops.features.charts.charts:charts_of"})
