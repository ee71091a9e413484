"""Prometheus metrics of an audit: a text file for the node exporter's collector, replaced atomically."""

from __future__ import annotations

import os
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text, _
from tcb_ops.reports.audit import AuditResult
from tcb_ops.resources import system_reason
from tcb_ops.runs.next_commands import install


def check_metrics(file: Path) -> None:
    """Raise UsageError if metrics cannot be written. Also for use before an audit."""
    try:
        import prometheus_client  # noqa: F401  only whether it is installed
    except ImportError:
        command = install("metrics")
        raise UsageError(
            _("--metrics needs the package prometheus-client. To install it:\n{command}", command=command)
        ) from None
    real = _real(file)
    if (os.path.lexists(real) and not real.is_file()) or not real.parent.is_dir():
        raise UsageError(_("--metrics {file}: this must be a file in an existing folder.", file=file))


def _real(file: Path) -> Path:
    return Path(os.path.realpath(file))  # Path.resolve raises RuntimeError for a loop of links


def write_metrics(result: AuditResult, file: Path) -> Text | None:
    """Write an audit's metrics; return None, or why that failed."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"tcb_ops_audit_{name}", text, ["target", *labels], registry=registry)

    target = result.run.target
    by_state = gauge("environments", "Environments of the latest audit, by state.", "state")
    for state, count in result.counts().items():
        if state not in {"expired", "forecasts"}:
            by_state.labels(target, state).set(count)
    gauge("stopped", "1 where a problem that affects every merchant stopped it.").labels(target).set(
        result.run.stopped is not None
    )
    gauge("finished_timestamp_seconds", "When it finished.").labels(target).set(result.run.finished_at or 0)
    broken = gauge(
        "environment_broken",
        "An environment that is unhealthy or unknown, and not silenced.",
        "appid",
        "env",
        "cause",
    )
    if result.run.stopped is None:
        for finding in (*result.new, *result.still, *result.unknown):
            cause = finding.cause
            broken.labels(target, cause.appid, cause.env, cause.code).set(1)
    try:
        write_to_textfile(str(_real(file)), registry)  # a link stays, its target is replaced
    except OSError as error:
        return _("{file}: the metrics cannot be written ({why}).", file=file, why=system_reason(error))
    return None
