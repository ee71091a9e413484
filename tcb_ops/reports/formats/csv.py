"""A run's rows as text: results.csv, failed.csv, the digest over them; and errcodes.csv. In constant memory.

The CSVs are for spreadsheets: UTF-8 with BOM and CRLF; text cells that one would run as a formula are made inert.

A million rows are exported and verified without an object for each. A row's text is composed from its record, and each
batch is searched once for what its lines must not contain: secrets, control characters. A row with something to quote,
guard or mask is written cell by cell (`RowLines`), which also defines what the texts must be.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring
from operator import attrgetter
from pathlib import Path
from typing import Any

from tcb_ops.details import Detail, DetailCode, read_detail, stored
from tcb_ops.formatting import RISKY, guard, picture_controls
from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.explanations import action_text, reason_text
from tcb_ops.reports.run_views import RunReader
from tcb_ops.reports.summary import Cause
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import EnvRecord, RowRecord, RunRecord, read_end, read_row
from tcb_ops.secrets import masked, redact

CONTENT_TYPE = "tcb_content_type"
RESULT_COLUMNS = (
    "tcb_line", "tcb_merchant", "tcb_appid", "tcb_env", "tcb_outcome", "tcb_reason", "tcb_action", "tcb_errcode",
    "tcb_errmsg", "tcb_rid", "tcb_http_status", "tcb_store_code", "tcb_attempts", "tcb_bytes", "tcb_md5", "tcb_file_id",
    CONTENT_TYPE, "tcb_started_at", "tcb_ended_at",
)  # fmt: skip
"""The columns of results.csv and failed.csv after the input's own; their order is part of the contract."""
WORDS = ("tcb_reason", "tcb_action")
"""Those of them that contain sentences; they are adjacent."""

ERRCODE_COLUMNS = ("appid", "merchant", "env", "code", "meaning", "action", "rows")
"""The first columns of errcodes.csv; a count per outcome follows."""
_OF_UPLOADS = (
    Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED, Outcome.INVALID, Outcome.PENDING,
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHARED = 1_000
"""Maximum number of cached texts that many rows share, such as the sentence for an errcode."""
_BATCH = 1_000
"""Rows read or encoded at a time: one at a time takes three times as long."""
encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class Clock:
    """Formatter of Unix seconds as ISO 8601 with milliseconds and offset, in one time zone."""

    def __init__(self, zone: tzinfo) -> None:
        # Cached by second, in which thousands of rows may end: only the milliseconds differ.
        @lru_cache(maxsize=256)
        def second(at: int) -> tuple[str, str]:
            moment = datetime.fromtimestamp(at, zone).isoformat()
            return moment[:19], moment[19:]

        self._second = second

    def iso(self, at: float | None) -> str:
        """Return the time, such as 2025-03-01T09:30:00.250+08:00; empty for None."""
        return "" if at is None else self.of_milliseconds(round(at * 1000))

    def of_milliseconds(self, at: int) -> str:
        """Return the same for whole milliseconds."""
        whole, milliseconds = divmod(at, 1000)
        moment, offset = self._second(whole)
        return f"{moment}.{milliseconds:03d}{offset}"


def own_values(record: RowRecord, lang: Lang) -> tuple[Any, ...]:
    """Return the values of RESULT_COLUMNS: text, int or None, and Unix seconds for the two times.

    Text from outside is redacted.
    """
    row, end = record.row, record.end
    return (
        row.line,
        row.merchant,
        row.appid,
        row.env,
        str(end.outcome),
        *explanation(end, lang),
        end.errcode,
        redact(end.errmsg) if end.errmsg else "",
        redact(end.rid) if end.rid else "",
        end.http_status,
        redact(end.store_code) if end.store_code else "",
        end.attempts,
        end.bytes,
        end.md5,
        redact(end.file_id) if "=" in end.file_id else end.file_id,
        row.content_type,
        end.started_at,
        end.ended_at,
    )


def explanation(end: RowEnd, lang: Lang) -> tuple[str, str]:
    """Return the values of WORDS."""
    if end.reason is None and end.outcome.succeeded and end.outcome is not Outcome.UNCHANGED:
        return "", ""
    return reason_text(end).of(lang), action_text(end).of(lang)


class RowLines:
    """Writer of rows as lines of results.csv, cell by cell."""

    def __init__(self, headers: Sequence[str], lang: Lang, zone: tzinfo) -> None:
        self._iso, self._lang = Clock(zone).iso, lang
        self.names = [guard(masked(name)) for name in (*headers, *RESULT_COLUMNS)]
        self._buffer = io.StringIO(newline="")
        self._write = _writer(self._buffer)
        self.hidden = 0
        """Number of rows whose texts had to be masked."""

    def head(self) -> str:
        """Return the first line."""
        return self._quoted(self.names)

    def cells(self, record: RowRecord) -> tuple[list[str], list[str]]:
        """Return a row's cells as they are written, and before possible secrets in them were masked."""
        *values, started, ended = own_values(record, self._lang)
        cells = [guard(cell) if cell and cell[0] in RISKY else cell for cell in record.row.cells]
        cells += [
            (guard(value) if value and value[0] in RISKY else value)
            if value.__class__ is str
            else ("" if value is None else str(value))
            for value in values
        ]
        cells += (self._iso(started), self._iso(ended))
        line = ",".join(cells)
        if not line.isprintable():
            cells = [*map(picture_controls, cells)]
            line = ",".join(cells)
        if masked(line) != line:
            self.hidden += 1
            return [*map(masked, cells)], cells
        return cells, cells

    def line(self, record: RowRecord) -> str:
        """Return a row's line, with a line break."""
        cells, _plain = self.cells(record)
        line = ",".join(cells)
        # csv.writer examines every character, which is slow: a line that needs no quoting is ready.
        if line.count(",") == len(cells) - 1 and '"' not in line and "\n" not in line and "\r" not in line:
            return f"{line}\r\n"
        return self._quoted(cells)

    def _quoted(self, cells: Sequence[str]) -> str:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._write(cells)
        return self._buffer.getvalue()


class RowsDigest:
    """The digest over a run's rows that binds a report to the ledger. Anyone can recompute it.

    SHA-256 of a JSON text in UTF-8: an array with one array per row, in the order of the list's lines, without spaces
    and with only the escapes that JSON requires (Python: `json.dumps(rows, ensure_ascii=False, separators=(",", ":"))`).
    A row is `line, env, appid, merchant, path, file, size, [cells], outcome, reason, detail, errcode, errmsg, rid,
    http_status, store_code, attempts, bytes, md5, file_id, started, ended`: missing values are null (a missing reason:
    an empty text), times are whole milliseconds since 1970 (UTC). If the object was given headers, they follow:
    `content_type, cache_control`. `detail` is the ledger's value, a JSON object as a text; for the code `store_message`
    only the message, for `text` with the same sentence in both languages only that sentence.
    """

    def __init__(self) -> None:
        self._sha256, self._between = hashlib.sha256(), "["

    def add(self, encoded: str) -> None:
        """Add rows: their arrays as JSON, with commas between them."""
        self._sha256.update(f"{self._between}{encoded}".encode())
        self._between = ","

    def passing(self, records: Iterable[RowRecord]) -> Iterator[RowRecord]:
        """Yield the rows, and add each to the digest."""
        left = iter(records)
        while batch := list(islice(left, _BATCH)):
            self.add(encode([*map(fields, batch)])[1:-1])
            yield from batch

    def hexdigest(self) -> str:
        """Return the digest over the rows so far: 64 hex digits."""
        whole = self._sha256.copy()
        whole.update(b"]" if self._between == "," else b"[]")
        return whole.hexdigest()


_OF_ROW = attrgetter("line", "env", "appid", "merchant", "path", "file", "size", "cells")
_OF_END = attrgetter(
    "errcode", "errmsg", "rid", "http_status", "store_code", "attempts", "bytes", "md5", "file_id"
)


def fields(record: RowRecord) -> tuple[Any, ...]:
    """Return everything that the ledger holds of a row, in the order of the digest."""
    row, end = record.row, record.end
    started, ended = end.started_at, end.ended_at
    headers = (row.content_type, row.cache_control) if row.content_type or row.cache_control else ()
    return (
        *_OF_ROW(row),
        end.outcome,
        end.reason or "",
        detail_text(end.detail),
        *_OF_END(end),
        None if started is None else round(started * 1000),
        None if ended is None else round(ended * 1000),
        *headers,
    )


def detail_text(why: Detail | None) -> str:
    """Return a row's detail for the digest: the store's message, and a text that is the same in both languages, as it is."""
    if why is None:
        return ""
    if why.code is DetailCode.STORE_MESSAGE:
        return str(why.params["message"])
    if why.code is DetailCode.TEXT and why.params["en"] == why.params["zh"]:
        return str(why.params["en"])
    return stored(why)


class _IrregularError(Exception):
    """A text that has to be masked: its row is written cell by cell."""


class RowTexts:
    """The lines of a run's rows, in the order of the list, and the digest over them.

    `head` is the first line of results.csv and failed.csv.
    """

    def __init__(self, reader: RunReader, run: RunRecord, lang: Lang, zone: tzinfo) -> None:
        self._reader, self._run, self._lang = reader, run, lang
        self._digest, self._lines = RowsDigest(), RowLines(run.headers, lang, zone)
        self.head, self.hexdigest = self._lines.head(), self._digest.hexdigest
        self._iso = Clock(zone).of_milliseconds
        self._environments: dict[int, EnvRecord] = {}
        self._places: dict[int, tuple[str, str]] = {}

    @property
    def hidden(self) -> int:
        """Number of rows so far in which a possible secret was masked."""
        return self._lines.hidden

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the next rows, and of those that did not succeed; only once. Raises LedgerDamagedError."""
        if isinstance(self._reader, LedgerReader):
            yield from self._of_records(self._reader)
            return
        rows = self._digest.passing(self._reader.rows(self._run))
        while batch := list(islice(rows, _BATCH)):
            lines = [(self._lines.line(record), record.end.outcome.succeeded) for record in batch]
            yield "".join(line for line, _ in lines), "".join(line for line, good in lines if not good)

    def _of_records(self, ledger: LedgerReader) -> Iterator[tuple[str, str]]:
        self._environments = {place.number: place for place in ledger.envs(self._run)}
        successes = Outcome.successes()
        for records in ledger.records(self._run):
            with ledger.reading(self._run):
                lines, digested = self._texts(records)
            self._digest.add(",".join(digested))
            bad = [line for line, record in zip(lines, records, strict=True) if record[8] not in successes]
            yield "".join(lines), "".join(bad)

    def _texts(self, records: Sequence[Any]) -> tuple[list[str], list[str]]:
        """Return the rows' lines with line breaks, and their parts of the digest's input."""
        made = [*map(self._regular, records)]
        lines, digested = [line for line, _ in made], [text for _, text in made]
        if "" in lines or _has_special("".join(lines)):
            for number, line in enumerate(lines):
                if not line or _has_special(line):
                    record = records[number]
                    row = RowRecord(read_row(record, self._environments[record[2]]), read_end(record))
                    lines[number] = self._lines.line(row).removesuffix("\r\n")
                    digested[number] = encode([fields(row)])[1:-1]
        return [f"{line}\r\n" for line in lines], digested

    def _regular(self, record: Any) -> tuple[str, str]:
        """Return a row's line without a line break, and its part of the digest's input; empty texts if irregular."""
        (
            _run, line, place, path, file, size, _mtime, cells, outcome, reason, detail, errcode, errmsg, rid, http_status,
            store_code, attempts, sent, md5, file_id, started, ended, content_type, cache_control, _etag,
        ) = record  # fmt: skip
        texts = cells[2:-2].split('","')
        own = ",".join(texts)
        if (
            # Without escapes, the ledger's JSON is the digest's, and the cells are the texts between its quotes.
            "\\" in cells
            or cells.count('"') != 2 * len(texts)
            or not (cells.startswith('["') and cells.endswith('"]'))
            or own.count(",") != len(texts) - 1
            or not RISKY.isdisjoint([text[:1] for text in texts])
        ):
            return "", ""
        quoted = encode_basestring
        begun = None if started is None else round(started * 1000)
        done = None if ended is None else round(ended * 1000)
        try:
            in_csv, in_json = self._places.get(place) or self._place(place)
            why_in_csv, http_in_csv, why_in_json, http_in_json = _end_texts(
                self._lang, outcome, reason, detail, errcode, http_status, store_code
            )
            errmsg_in_csv = _cell(redact(errmsg)) if errmsg else ""
            text = (
                f"{own},{line},{in_csv},{why_in_csv},{errmsg_in_csv},{_cell(redact(rid)) if rid else ''},{http_in_csv},"
                f"{attempts},{'' if sent is None else sent},"
                f"{md5 if md5.isalnum() else _cell(md5)},"
                f"{_cell(redact(file_id) if '=' in file_id else file_id)},"
                f"{_cell(content_type) if content_type else ''},"
                f"{'' if begun is None else self._iso(begun)},{'' if done is None else self._iso(done)}"
            )
        except _IrregularError:
            return "", ""
        headers = (
            f",{quoted(content_type or '')},{quoted(cache_control or '')}"
            if content_type or cache_control
            else ""
        )
        return text, (
            f"[{line},{in_json},{quoted(path)},{quoted(file)},{'null' if size is None else size},{cells},"
            f"{why_in_json},{quoted(errmsg)},{quoted(rid)},{http_in_json},{attempts},{'null' if sent is None else sent},{quoted(md5)},{quoted(file_id)},"
            f"{'null' if begun is None else begun},{'null' if done is None else done}{headers}]"
        )

    def _place(self, number: int) -> tuple[str, str]:
        """Return an environment's parts of the line and of the digest's input."""
        place = self._environments[number]
        in_csv = ",".join(map(_cell, (place.merchant, place.appid, place.env)))
        if len(self._places) >= _SHARED:
            self._places.clear()
        self._places[number] = in_csv, encode((place.env, place.appid, place.merchant))[1:-1]
        return self._places[number]


@lru_cache(maxsize=_SHARED)
def _end_texts(
    lang: Lang,
    outcome: str,
    reason: str,
    detail: str,
    errcode: int | None,
    http_status: int | None,
    store_code: str,
) -> tuple[str, str, str, str]:
    """Return what the line and the digest's input say about how a row ended, each before and after its errmsg and rid."""
    end = RowEnd(
        0,
        Outcome(outcome),
        Reason(reason) if reason else None,
        read_detail(detail),
        errcode,
        http_status=http_status,
        store_code=store_code,
    )
    words = ",".join(map(_cell, explanation(end, lang)))
    quoted, store_cell = encode_basestring, _cell(redact(store_code))
    errcode_json = "null" if errcode is None else errcode
    return (
        f"{outcome},{words},{'' if errcode is None else errcode}",
        f"{'' if http_status is None else http_status},{store_cell}",
        f'"{outcome}","{reason}",{quoted(detail_text(end.detail))},{errcode_json}',
        f"{'null' if http_status is None else http_status},{quoted(store_code)}",
    )


def _cell(text: str) -> str:
    """Return a text as a cell of a line. Raises _IrregularError if it has to be masked."""
    if text[:1] in RISKY:
        text = guard(text)
    if "," in text or '"' in text:  # line breaks make the row irregular
        if masked(text) != text:  # once quoted, a secret might not be found
            raise _IrregularError
        text = '"' + text.replace('"', '""') + '"'
    return text


def _has_special(text: str) -> bool:
    """Return whether lines contain a control character, or what looks like a secret."""
    return (not text.isprintable() and _CONTROL.search(text) is not None) or masked(text) != text


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
        write = _writer(stream)
        write(columns)
        for line in lines:
            write([*map(errcode_cell, line)])


def errcode_table(causes: Sequence[Cause], lang: Lang) -> tuple[list[str], Iterator[Sequence[str | int]]]:
    """Return the columns and lines of errcodes.csv: a line per merchant, environment and code, with its rows by outcome.

    The outcomes are always those of uploads, others where a cause has them.
    """
    found = {outcome for cause in causes for outcome in cause.outcomes}.difference(_OF_UPLOADS)
    outcomes = (*_OF_UPLOADS, *(outcome for outcome in Outcome.all() if outcome in found))

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


def _writer(stream: Any) -> Any:
    return csv.writer(stream, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL).writerow
