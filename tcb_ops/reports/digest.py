"""The digest over a run's rows: what binds a report to the ledger. Anybody can compute it again.

SHA-256 of a JSON text in UTF-8: one array that holds an array per row, in the order of the list's lines, without spaces
and with nothing escaped that JSON lets stand (Python: `json.dumps(rows, ensure_ascii=False, separators=(",", ":"))`).
A row is `line, env, appid, merchant, path, file, size, [cells], outcome, reason, detail, errcode, errmsg, rid,
http_status, store_code, attempts, bytes, md5, file_id, started, ended`: what there is not is null (no reason: an empty
text), times are whole milliseconds since 1970 (UTC). Where the object was given headers, `content_type, cache_control`
follow.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tcb_ops.runs.records import RowRecord

__all__ = ["RowsDigest"]

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
        """The digest over what has gone by: 64 hex digits."""
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
        end.detail,
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
