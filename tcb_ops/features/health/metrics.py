"""What an audit found, as a file for monitoring: in the text format of Prometheus, as its node exporter collects it."""

from __future__ import annotations

import json
from pathlib import Path

from tcb_ops.disk import replacing
from tcb_ops.features.health.audit_result import AuditResult


def metrics(result: AuditResult, undelivered: int) -> str:
    """Return the metrics of a finished audit; `undelivered`: how many receivers did not get its message."""
    target = f"target={json.dumps(result.run.target, ensure_ascii=False)}"  # the format escapes as JSON does
    by_state = {f'{target},state="{state}"': count for state, count in result.counts().items()}
    lines = list[str]()
    for name, about, values in (
        (
            "finished_timestamp_seconds",
            "When the latest audit of all merchants ended.",
            {target: result.run.finished_at},
        ),
        (
            "stopped",
            "1 if a problem that affects every merchant stopped it, else 0.",
            {target: int(result.stopped is not None)},
        ),
        ("environments", "Its environments by state: new is newly broken, still is still broken.", by_state),
        ("undelivered_messages", "How many receivers did not get its message.", {target: undelivered}),
    ):
        lines += [f"# HELP tcb_ops_audit_{name} {about}", f"# TYPE tcb_ops_audit_{name} gauge"]
        lines += [f"tcb_ops_audit_{name}{{{labels}}} {value}" for labels, value in values.items()]
    return "\n".join([*lines, ""])


def write_metrics(file: Path, result: AuditResult, undelivered: int) -> None:
    """Replace the file by the metrics of an audit, at once. Raises OSError."""
    with replacing(file) as part:
        part.write_text(metrics(result, undelivered), encoding="utf-8", newline="\n")
