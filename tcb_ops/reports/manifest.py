"""manifest.json, and the digest over a run's rows that binds a report to the ledger. Anyone can recompute it.

SHA-256 of a JSON text in UTF-8: an array with one array per row, in the order of the list's lines, without spaces and
with only the escapes that JSON requires (Python: `json.dumps(rows, ensure_ascii=False, separators=(",", ":"))`).
A row is `line, env, appid, merchant, path, file, size, [cells], outcome, reason, detail, errcode, errmsg, rid,
http_status, store_code, attempts, bytes, md5, file_id, started, ended`: missing values are null (a missing reason: an
empty text), times are whole milliseconds since 1970 (UTC). If the object was given headers, they follow:
`content_type, cache_control`. `detail` is the ledger's value, a JSON object as a text; for the code `store_message`
only the message, for `text` with the same sentence in both languages only that sentence.
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
from tcb_ops.runs.records import UNDELIVERED, RowRecord
from tcb_ops.secrets import masked
from tcb_ops.settings import Settings

BATCH = 1_000
"""Rows encoded at a time: one at a time takes three times as long."""
encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class RowsDigest:
    """The digest over rows, computed while they are streamed."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._between = b"["

    def passing(self, records: Iterable[RowRecord]) -> Iterator[RowRecord]:
        """Yield the rows, and add each to the digest. Call it once."""
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
        """Return the digest over the streamed rows: 64 hex digits."""
        return self._sha256.hexdigest()

    def _take(self, batch: list[tuple[Any, ...]]) -> None:
        if batch:
            self._sha256.update(self._between + encode(batch)[1:-1].encode())
            self._between = b","


def fields(record: RowRecord) -> tuple[Any, ...]:
    """Return everything that the ledger holds of a row, in the order of the digest."""
    row, end = record.row, record.end
    started, ended = end.started_at, end.ended_at
    # Runs from before headers were sent have none, and keep the digest of their reports.
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
        detail_text(end.detail),
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


def detail_text(why: Detail | None) -> str:
    """Return a row's detail for the digest: what was a plain text before schema version 3, as that text."""
    if why is None:
        return ""
    if why.code is DetailCode.STORE_MESSAGE:
        return str(why.params["message"])
    if why.code is DetailCode.TEXT and why.params["en"] == why.params["zh"]:
        return str(why.params["en"])
    return stored(why)


MANIFEST = "manifest.json"
SCHEMA = 1
"""The version of manifest.json's format; new keys do not change it."""
MARK = "SIMULATED 演练"
SIMULATED = "SIMULATED-演练.txt"
"""The file that marks the folder of a loopback run; the names of the others are fixed."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of manifest.json."""

    run: str
    files: Mapping[str, Mapping[str, Any]]
    """`sha256` and `bytes` of every file except manifest.json."""
    list_name: str
    list_sha256: str
    root: str
    """Folder of the local files, which usually contains the list."""
    rows: int
    rows_digest: str
    zone: tzinfo
    """Time zone of its times."""
    finished: bool
    exported_at: str
    retries: tuple[str, ...]
    environments: frozenset[tuple[str, str]]
    """The environments selected with --where, as (appid, env); empty for all."""
    simulated: bool
    """Whether the target is on this machine, whatever the manifest's other fields say."""
    content: Mapping[str, Any]
    """The whole JSON object."""


def manifest(
    summary: RunSummary,
    files: Mapping[str, Mapping[str, Any]],
    rows_digest: str,
    settings: Settings,
    *,
    now: float,
) -> dict[str, Any]:
    """Return the contents of manifest.json, with secrets in the operator's texts masked."""
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
    """Return the part of a manifest that can be compared with the ledger."""
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
        "settings": {name: value for name, value in run.settings.items() if name != UNDELIVERED},
    }


def _moment(at: float | None, zone: tzinfo) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, zone).isoformat(timespec="milliseconds")


def clean(value: Any) -> Any:
    """Return a value of the manifest with secrets masked in all its texts, nested ones included."""
    match value:
        case str():
            return masked(value)
        case dict():
            return {name: clean(inner) for name, inner in value.items()}
        case list() | tuple():
            return [*map(clean, value)]
    return value


def read_manifest(folder: Path) -> Manifest | None:
    """Read a folder's manifest; None if it is missing or invalid. Never raises OSError."""
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
    """Return the SHA-256 and size of a file. Raises OSError."""
    with file.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": file.stat().st_size}


def versions() -> dict[str, str]:
    """Return the versions that a report is written with."""
    return {
        "tcb-ops": version("tcb-ops"),
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
