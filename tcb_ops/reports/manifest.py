"""The digest over a run's rows: what binds a report to the ledger. Anybody can compute it again.

SHA-256 of a JSON text in UTF-8: one array that holds an array per row, in the order of the list's lines, without spaces
and with nothing escaped that JSON lets stand (Python: `json.dumps(rows, ensure_ascii=False, separators=(",", ":"))`).
A row is `line, env, appid, merchant, path, file, size, [cells], outcome, reason, detail, errcode, errmsg, rid,
http_status, store_code, attempts, bytes, md5, file_id, started, ended`: what there is not is null (no reason: an empty
text), times are whole milliseconds since 1970 (UTC). Where the object was given headers, `content_type, cache_control`
follow. `detail` is the ledger's value, a JSON object as a text; of the code `store_message` the message alone, of `text`
with one sentence for both languages that sentence.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tcb_ops.details import Detail, DetailCode, stored
from tcb_ops.model import is_simulated
from tcb_ops.reports.summary import RunSummary
from tcb_ops.runs.records import RowRecord
from tcb_ops.secrets import masked
from tcb_ops.settings import Settings

BATCH = 1_000
"""Rows encoded at a time: one at a time costs three times as much."""
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class RowsDigest:
    """Takes the digest while rows go by."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._between = b"["

    def passing(self, records: Iterable[RowRecord]) -> Iterator[RowRecord]:
        """Give the rows on, each taken into the digest; once."""
        batch: list[tuple[Any, ...]] = []
        for record in records:
            batch.append(fields(record))
            if len(batch) == BATCH:
                self._take(batch)
                batch = []
            yield record
        self._take(batch)
        self._sha256.update(b"]" if self._between == b"," else b"[]")

    def hexdigest(self) -> str:
        """Return the digest over what has gone by: 64 hex digits."""
        return self._sha256.hexdigest()

    def _take(self, batch: list[tuple[Any, ...]]) -> None:
        if batch:
            self._sha256.update(self._between + _encode(batch)[1:-1].encode())
            self._between = b","


def fields(record: RowRecord) -> tuple[Any, ...]:
    """Everything that the ledger keeps of a row, in the order that the digest is over."""
    row, end = record.row, record.end
    started, ended = end.started_at, end.ended_at
    # Runs of before headers were sent have none, and keep the digest of their reports.
    headers = (row.content_type, row.cache_control) if row.content_type or row.cache_control else ()
    return (
        row.line,
        row.env,
        row.appid,
        row.merchant,
        row.path,
        row.file,
        row.size,
        row.cells,
        end.outcome,
        end.reason or "",
        _said(end.detail),
        end.errcode,
        end.errmsg,
        end.rid,
        end.http_status,
        end.store_code,
        end.attempts,
        end.bytes,
        end.md5,
        end.file_id,
        None if started is None else round(started * 1000),
        None if ended is None else round(ended * 1000),
        *headers,
    )


def _said(why: Detail | None) -> str:
    """Return a row's detail as the digest has it.

    What was kept as a text before schema version 3 as it was then.
    """
    if why is None:
        return ""
    if why.code is DetailCode.STORE_MESSAGE:
        return str(why.params["message"])
    if why.code is DetailCode.TEXT and why.params["en"] == why.params["zh"]:
        return str(why.params["en"])
    return stored(why)


MANIFEST = "manifest.json"
SCHEMA = 1
"""The version of manifest.json's form; new keys do not change it."""
MARK = "SIMULATED 演练"
SIMULATED = "SIMULATED-演练.txt"
"""The file whose name marks the folder of a loopback run: the other names are fixed."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of manifest.json."""

    run: str
    files: Mapping[str, Mapping[str, Any]]
    """`sha256` and `bytes` of every file but manifest.json."""
    list_name: str
    list_sha256: str
    root: str
    """The folder of the local files, where the list lies as a rule."""
    rows: int
    rows_digest: str
    zone: tzinfo
    """The time zone that its times are written in."""
    finished: bool
    exported_at: str
    retries: tuple[str, ...]
    environments: frozenset[tuple[str, str]]
    """The environments selected with --where, as (appid, env); empty for all."""
    simulated: bool
    """Whether the target is on this machine, whatever the manifest's other fields say."""
    content: Mapping[str, Any]
    """All of it."""


def manifest(
    summary: RunSummary,
    files: Mapping[str, Mapping[str, Any]],
    rows_digest: str,
    settings: Settings,
    *,
    now: float,
) -> dict[str, Any]:
    """Say what manifest.json says; what looks like a secret in the operator's texts is masked."""
    content = {
        "schema": SCHEMA,
        **about(summary, settings.zone),
        "rows_digest": rows_digest,
        "files": files,
        "exported_at": _moment(now, settings.zone),
        "lang": str(settings.lang),
        "timezone": settings.timezone,
        "versions": versions(),
    }
    return {name: clean(value) for name, value in content.items()}


def about(summary: RunSummary, zone: tzinfo) -> dict[str, Any]:
    """Return what a manifest says that the ledger knows too."""
    run = summary.run
    return {
        "run": run.id,
        "parent": run.parent or None,
        "retries": list(run.retries),
        **({"environments": [list(one) for one in run.environments]} if run.environments else {}),
        "kind": str(run.kind),
        "target": run.target,
        "simulated": is_simulated(run.target),
        **({"mark": MARK} if is_simulated(run.target) else {}),
        "rows": summary.total,
        "counts": {str(outcome): rows for outcome, rows in summary.counts.items()},
        "input": {"name": run.list_name, "sha256": run.list_sha256, "bytes": run.list_bytes},
        "operator": run.operator,
        "host": run.host,
        "note": run.note,
        "root": run.root,
        "created_at": _moment(run.created_at, zone),
        "finished_at": _moment(run.finished_at, zone),
        "settings": run.settings,
    }


def _moment(at: float | None, zone: tzinfo) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, zone).isoformat(timespec="milliseconds")


def clean(value: Any) -> Any:
    """Return a value of the manifest, its texts masked however deep they stand."""
    match value:
        case str():
            return masked(value)
        case dict():
            return {name: clean(inner) for name, inner in value.items()}
        case list() | tuple():
            return [*map(clean, value)]
    return value


def read_manifest(folder: Path) -> Manifest | None:
    """Read a folder's manifest; None where there is none, or it is no manifest of ours. Never raises OSError."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if any(name in {"", ".", ".."} or re.search(r"[/\\\0]", name) for name in found["files"]):
            return None  # a name that leads out of the folder
        return Manifest(
            run=str(found["run"]),
            files={str(name): dict(about) for name, about in found["files"].items()},
            list_name=str(found["input"]["name"]),
            list_sha256=str(found["input"]["sha256"]),
            root=str(found["root"]),
            rows=int(found["rows"]),
            rows_digest=str(found["rows_digest"]),
            zone=ZoneInfo(found["timezone"]),
            finished=found["finished_at"] is not None,
            exported_at=str(found["exported_at"]),
            retries=tuple(map(str, found["retries"])),
            environments=frozenset((str(appid), str(env)) for appid, env in found.get("environments", ())),
            simulated=is_simulated(str(found["target"])),
            content=found,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def fingerprint(file: Path) -> dict[str, str | int]:
    """SHA-256 and bytes of a file. Raises OSError."""
    with file.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": file.stat().st_size}


def versions() -> dict[str, str]:
    """Return what this report was made with."""
    return {
        "tcb-ops": version("tcb-ops"),
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
