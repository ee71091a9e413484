"""A run's rows as text: results.csv, failed.csv, the digest over them; and errcodes.csv. In constant memory.

The CSVs are for spreadsheets: UTF-8 with BOM and CRLF; text cells that one would run as a formula are made inert.

A million rows are exported and verified without an object for each: a row is what the ledger has of it, a tuple. Each batch
of lines is searched once for what they must not contain (secrets, control characters).
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime, tzinfo
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from tcb_ops.details import Detail, DetailCode, read_detail, stored
from tcb_ops.formatting import RISKY, guard, picture_controls
from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.explanations import action_text, reason_text
from tcb_ops.reports.run_views import RunReader
from tcb_ops.reports.summary import Cause
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RowRecord, RunRecord, end_values, read_cells
from tcb_ops.secrets import masked, redact
from tcb_ops.settings import Settings

CONTENT_TYPE = "tcb_content_type"
RESULT_COLUMNS = (
    "tcb_line", "tcb_merchant", "tcb_appid", "tcb_env", "tcb_outcome", "tcb_reason", "tcb_action", "tcb_errcode",
    "tcb_errmsg", "tcb_rid", "tcb_http_status", "tcb_store_code", "tcb_attempts", "tcb_bytes", "tcb_md5", "tcb_file_id",
    CONTENT_TYPE, "tcb_started_at", "tcb_ended_at",
)  # fmt: skip
"""The columns of results.csv and failed.csv after the input's own; their order is part of the contract."""
WORDS = ("tcb_reason", "tcb_action")
"""Those of them that contain sentences; they are adjacent."""
NUMBERS = {"tcb_line", "tcb_errcode", "tcb_http_status", "tcb_attempts", "tcb_bytes"}
TIMES = {"tcb_started_at", "tcb_ended_at"}
_TEXTS = [number for number, name in enumerate(RESULT_COLUMNS) if name not in NUMBERS | TIMES]

ERRCODE_COLUMNS = ("appid", "merchant", "env", "code", "meaning", "action", "rows")
"""The first columns of errcodes.csv; a count per outcome follows."""
_OF_UPLOADS = (
    Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED, Outcome.INVALID, Outcome.PENDING,
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SHARED = 1_000
"""Maximum number of cached texts that many rows share, such as the sentence for an errcode."""
_BATCH = 1_000


class Clock:
    """Formatter of Unix seconds as ISO 8601 with milliseconds and offset, in one time zone."""

    def __init__(self, zone: tzinfo) -> None:
        # Cached by second, in which thousands of rows may end: only the milliseconds differ.
        @lru_cache(maxsize=256)
        def second(seconds: int) -> tuple[str, str]:
            moment = datetime.fromtimestamp(seconds, zone).isoformat()
            return moment[:19], moment[19:]

        self._second = second

    def iso(self, moment: float | None) -> str:
        """Return the time, such as 2025-03-01T09:30:00.250+08:00; empty for None."""
        return "" if moment is None else self.of_milliseconds(round(moment * 1000))

    def of_milliseconds(self, time: int | None) -> str:
        """Return the same for whole milliseconds."""
        if time is None:
            return ""
        seconds, milliseconds = divmod(time, 1000)
        moment, offset = self._second(seconds)
        return f"{moment}.{milliseconds:03d}{offset}"


def own_values(record: RowRecord, lang: Lang) -> tuple[Any, ...]:
    """Return the values of RESULT_COLUMNS: text, int or None, and Unix seconds for the two times.

    Text from outside is redacted.
    """
    row = record.row
    return _values(_as_stored(record), (row.merchant, row.appid, row.env), lang)


def row_values(records: Iterable[RowRecord], settings: Settings) -> Iterator[Sequence[Any]]:
    """Yield the cells of rows as in results.csv, unguarded: numbers as numbers, times as ISO 8601."""
    iso = Clock(settings.zone).iso
    for record in records:
        *values, started, ended = own_values(record, settings.lang)
        yield (*record.row.cells, *values, iso(started), iso(ended))


def _as_stored(record: RowRecord) -> tuple[Any, ...]:
    """Return a row as the ledger stores it, with its environment in place of its number."""
    row, cells = record.row, msgspec.json.encode(record.row.cells).decode()
    return (
        None, row.line, (row.merchant, row.appid, row.env), row.path, row.file, row.size, row.mtime_ns, cells,
        *end_values(record.end), row.content_type, row.cache_control, row.etag,
    )  # fmt: skip


def _values(record: Any, environment: tuple[str, str, str], lang: Lang) -> tuple[Any, ...]:
    (
        outcome, reason, detail, errcode, errmsg, rid, http_status, store_code, attempts, sent, md5, file_id, started, ended,
        content_type,
    ) = record[8:23]  # fmt: skip
    words, _detail = _end_texts(lang, outcome, reason, detail, errcode, http_status, store_code)
    return (
        record[1],
        *environment,
        outcome,
        *words,
        errcode,
        redact(errmsg) if errmsg else "",
        redact(rid) if rid else "",
        http_status,
        redact(store_code) if store_code else "",
        attempts,
        sent,
        md5,
        redact(file_id) if "=" in file_id else file_id,
        content_type or "",
        started,
        ended,
    )


@lru_cache(maxsize=_SHARED)
def _end_texts(
    lang: Lang,
    outcome: str,
    reason: str,
    detail: str,
    errcode: int | None,
    http_status: int | None,
    store_code: str,
) -> tuple[tuple[str, str], str]:
    """Return the values of WORDS, and the detail for the digest."""
    end = RowEnd(
        0,
        Outcome(outcome),
        Reason(reason) if reason else None,
        read_detail(detail),
        errcode,
        http_status=http_status,
        store_code=store_code,
    )
    words = reason_text(end).of(lang), action_text(end).of(lang)
    if end.reason is None and end.outcome.succeeded and end.outcome is not Outcome.UNCHANGED:
        words = "", ""
    return words, _detail_text(end.detail)


def _detail_text(detail: Detail | None) -> str:
    """Return a row's detail for the digest: the store's message, and a text that is the same in both languages, as it is."""
    if detail is None:
        return ""
    if detail.code is DetailCode.STORE_MESSAGE:
        return str(detail.params["message"])
    if detail.code is DetailCode.TEXT and detail.params["en"] == detail.params["zh"]:
        return str(detail.params["en"])
    return stored(detail)


class RowTexts:
    """The lines of a run's rows, in the order of the list, and the digest over them.

    The digest binds a report to the ledger, and anyone can recompute it: SHA-256 of a JSON text in UTF-8, an array with one
    array per row, in the order of the list's lines, without spaces and with only the escapes that JSON requires (Python:
    `json.dumps(rows, ensure_ascii=False, separators=(",", ":"))`).
    A row is `line, env, appid, merchant, path, file, size, [cells], outcome, reason, detail, errcode, errmsg, rid,
    http_status, store_code, attempts, bytes, md5, file_id, started, ended`: missing values are null (a missing reason:
    an empty text), times are whole milliseconds since 1970 (UTC). If the object was given headers, they follow:
    `content_type, cache_control`. `detail` is the ledger's value, a JSON object as a text; for the code `store_message`
    only the message, for `text` with the same sentence in both languages only that sentence.
    """

    def __init__(self, reader: RunReader, run: RunRecord, lang: Lang, zone: tzinfo) -> None:
        self._reader, self._run, self._lang, self._iso = reader, run, lang, Clock(zone).of_milliseconds
        self._sha256, self._between = hashlib.sha256(), b"["
        self._written: list[str] = []
        self._write = csv.writer(_Lines(self._written)).writerow
        self.names = [guard(masked(name)) for name in (*run.headers, *RESULT_COLUMNS)]
        self.head = self._lines([self.names])[0]
        """The first line of results.csv and failed.csv."""
        self.hidden = 0
        """Number of rows so far in which a possible secret was masked."""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the next rows, and of those that did not succeed; only once. Raises LedgerDamagedError."""
        ledger = self._reader if isinstance(self._reader, LedgerReader) else None
        environments = {
            environment.number: (environment.merchant, environment.appid, environment.env)
            for environment in (ledger.envs(self._run) if ledger else ())
        }
        successes = Outcome.successes()
        for records in ledger.records(self._run) if ledger else self._of_view():
            with ledger.reading(self._run) if ledger else nullcontext():
                rows = [self._row(record, environments.get(record[2]) or record[2]) for record in records]
                lines = self._lines([cells for cells, _ in rows])
                self._sha256.update(self._between + msgspec.json.encode([part for _, part in rows])[1:-1])
            self._between = b","
            bad = [line for line, record in zip(lines, records, strict=True) if record[8] not in successes]
            yield "".join(lines), "".join(bad)

    def _of_view(self) -> Iterator[list[tuple[Any, ...]]]:
        rows = map(_as_stored, self._reader.rows(self._run))
        while batch := list(islice(rows, _BATCH)):
            yield batch

    def hexdigest(self) -> str:
        """Return the digest over the rows so far: 64 hex digits."""
        complete = self._sha256.copy()
        complete.update(b"]" if self._between == b"," else b"[]")
        return complete.hexdigest()

    def cells(self, record: RowRecord) -> tuple[list[str], list[str]]:
        """Return a row's cells as they are written, and before possible secrets in them were masked."""
        row = _as_stored(record)
        plain = _as_texts(self._row(row, row[2])[0])
        return self._mask(plain), plain

    def _row(self, record: Any, environment: tuple[str, str, str]) -> tuple[list[Any], tuple[Any, ...]]:
        """Return a row's cells, and its part of the digest's input."""
        (
            _run, line, _number, path, file, size, _mtime, cells, outcome, reason, detail, errcode, errmsg, rid, http_status,
            store_code, attempts, sent, md5, file_id, started, ended, content_type, cache_control, _etag,
        ) = record  # fmt: skip
        texts, values = read_cells(cells), [*_values(record, environment, self._lang)]
        begun = None if started is None else round(started * 1000)
        done = None if ended is None else round(ended * 1000)
        for column in _TEXTS:
            if values[column][:1] in RISKY:
                values[column] = guard(values[column])
        values[-2:] = self._iso(begun), self._iso(done)
        merchant, appid, env = environment
        _words, detail = _end_texts(self._lang, outcome, reason, detail, errcode, http_status, store_code)
        headers = (content_type or "", cache_control or "") if content_type or cache_control else ()
        digested = (
            line, env, appid, merchant, path, file, size, texts, outcome, reason, detail, errcode, errmsg, rid, http_status,
            store_code, attempts, sent, md5, file_id, begun, done, *headers,
        )  # fmt: skip
        return [*[guard(text) if text[:1] in RISKY else text for text in texts], *values], digested

    def _lines(self, rows: Sequence[Sequence[Any]]) -> list[str]:
        """Return rows as lines of CSV, without secrets and control characters."""
        self._written.clear()
        for cells in rows:
            self._write(cells)
        lines = self._written.copy()
        text = "".join(lines)
        special = _is_special(text)
        if special or '"' in text:
            for number, line in enumerate(lines):
                if '"' in line or (special and _is_special(line)):  # once quoted, a secret might not be found
                    self._write(self._mask(_as_texts(rows[number])))
                    lines[number] = self._written[-1]
        return lines

    def _mask(self, cells: list[str]) -> list[str]:
        line = ",".join(cells)
        if masked(line) == line:
            return cells
        self.hidden += 1
        return [*map(masked, cells)]


def _as_texts(cells: Iterable[Any]) -> list[str]:
    """Return cells as texts, without control characters."""
    return ["" if cell is None else picture_controls(str(cell)) for cell in cells]


class _Lines:
    """A stream that keeps each line that is written."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def _is_special(text: str) -> bool:
    """Return whether lines contain a control character, or what looks like a secret."""
    printable = text.replace("\r\n", "").isprintable()
    return (not printable and _CONTROL.search(text) is not None) or masked(text) != text


def write_lines(head: str, batches: Iterable[tuple[str, str]], results: Path, failed: Path) -> None:
    """Write results.csv and failed.csv from batches: the lines of all rows, and of those that did not succeed.

    Raises OSError; the files must not exist yet.
    """
    with _new(results) as every_row, _new(failed) as bad_rows:
        every_row.write(head)
        bad_rows.write(head)
        for lines, bad in batches:
            every_row.write(lines)
            bad_rows.write(bad)


def write_errcodes(causes: Sequence[Cause], file: Path, lang: Lang) -> None:
    """Write errcodes.csv. Raises OSError."""
    columns, lines = errcode_table(causes, lang)
    with _new(file) as stream:
        write = csv.writer(stream).writerow
        write(columns)
        for line in lines:
            write([*map(errcode_cell, line)])


def errcode_table(causes: Sequence[Cause], lang: Lang) -> tuple[list[str], Iterator[Sequence[str | int]]]:
    """Return the columns and lines of errcodes.csv: a line per merchant, environment and code, with its rows by outcome.

    The outcomes are always those of uploads, others where a cause has them.
    """
    other_outcomes = {outcome for cause in causes for outcome in cause.outcomes}.difference(_OF_UPLOADS)
    outcomes = (*_OF_UPLOADS, *(outcome for outcome in Outcome.all() if outcome in other_outcomes))

    def line(cause: Cause) -> list[str | int]:
        texts = (cause.meaning.of(lang), cause.action.of(lang))
        counts = (cause.outcomes.get(outcome, 0) for outcome in outcomes)
        return [cause.appid, cause.merchant, cause.env, cause.code, *texts, cause.rows, *counts]

    return [*ERRCODE_COLUMNS, *map(str, outcomes)], map(line, causes)


def errcode_cell(value: str | int) -> str:
    """Return a value of errcodes.csv as its cell."""
    return guard(masked(value)) if isinstance(value, str) else str(value)


def _new(file: Path) -> Any:
    stream = file.open("x", encoding="utf-8", newline="", buffering=1 << 18)
    stream.write("\ufeff")  # the codec utf-8-sig would run Python code for each row
    return stream
