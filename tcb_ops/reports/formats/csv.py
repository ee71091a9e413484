"""results.csv, failed.csv, errcodes.csv: for spreadsheets, written row by row in constant memory.

UTF-8 with BOM and CRLF, as spreadsheets expect; text cells that one would run as a formula are made inert.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Any

from tcb_ops.formatting import RISKY, guard, picture_controls
from tcb_ops.i18n import Lang
from tcb_ops.model import SUCCESSES, Outcome, RowEnd
from tcb_ops.reports.explanations import action_text, reason_text
from tcb_ops.reports.summary import Cause
from tcb_ops.runs.records import RowRecord
from tcb_ops.secrets import masked, redact

CONTENT_TYPE = "tcb_content_type"
RESULT_COLUMNS = (
    "tcb_line",
    "tcb_merchant",
    "tcb_appid",
    "tcb_env",
    "tcb_outcome",
    "tcb_reason",
    "tcb_action",
    "tcb_errcode",
    "tcb_errmsg",
    "tcb_rid",
    "tcb_http_status",
    "tcb_store_code",
    "tcb_attempts",
    "tcb_bytes",
    "tcb_md5",
    "tcb_file_id",
    CONTENT_TYPE,
    "tcb_started_at",
    "tcb_ended_at",
)
"""The columns of results.csv and failed.csv after the input's own; their order is part of the contract."""
WORDS = ("tcb_reason", "tcb_action")
"""Those of them that contain sentences; they are adjacent."""

ERRCODE_COLUMNS = ("appid", "merchant", "env", "code", "meaning", "action", "rows")
"""The first columns of errcodes.csv; a count per outcome follows."""
_OF_UPLOADS = (
    Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED, Outcome.INVALID, Outcome.PENDING,
)  # fmt: skip
_NOTHING_TO_SAY = SUCCESSES - {Outcome.UNCHANGED}


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
    return (*_whose(record), *explanation(record.end, lang), *_how(record))


def explanation(end: RowEnd, lang: Lang) -> tuple[str, str]:
    """Return the values of WORDS."""
    if end.reason is None and end.outcome in _NOTHING_TO_SAY:
        return "", ""
    return reason_text(end).of(lang), action_text(end).of(lang)


def fact_values(record: RowRecord) -> tuple[Any, ...]:
    """Return the same values without WORDS, which depend on the language and on our wording."""
    return (*_whose(record), *_how(record))


def _whose(record: RowRecord) -> tuple[Any, ...]:
    row = record.row
    return row.line, row.merchant, row.appid, row.env, record.end.outcome.value


def _how(record: RowRecord) -> tuple[Any, ...]:
    end = record.end
    return (
        end.errcode,
        redact(end.errmsg) if end.errmsg else "",
        redact(end.rid) if end.rid else "",
        end.http_status,
        redact(end.store_code) if end.store_code else "",
        end.attempts,
        end.bytes,
        end.md5,
        redact(end.file_id) if "=" in end.file_id else end.file_id,
        record.row.content_type,
        end.started_at,
        end.ended_at,
    )


class RowLines:
    """Writer of rows as lines of results.csv, cell by cell."""

    def __init__(self, headers: Sequence[str], lang: Lang, zone: tzinfo) -> None:
        self._iso, self._lang = Clock(zone).iso, lang
        self._names = [guard(masked(name)) for name in (*headers, *RESULT_COLUMNS)]
        self._buffer = io.StringIO(newline="")
        self._write = _writer(self._buffer)
        self.hidden = 0
        """Number of rows whose texts had to be masked."""

    def head(self) -> str:
        """Return the first line."""
        return self._quoted(self._names)

    def line(self, record: RowRecord) -> str:
        """Return a row's line, with a line break."""
        *values, started, ended = own_values(record, self._lang)
        cells = [guard(cell) if cell and cell[0] in RISKY else cell for cell in record.row.cells]
        cells += [
            (guard(value) if value and value[0] in RISKY else value)
            if value.__class__ is str
            else ("" if value is None else str(value))
            for value in values
        ]
        cells += (self._iso(started), self._iso(ended))
        # csv.writer examines every character, which is slow: a line that needs no quoting is joined here.
        line = ",".join(cells)
        if not line.isprintable():
            cells = [*map(picture_controls, cells)]
            line = ",".join(cells)
        if masked(line) != line:
            self.hidden += 1
            cells = [*map(masked, cells)]
            line = ",".join(cells)
        if (
            line.count(",") == len(self._names) - 1
            and '"' not in line
            and "\n" not in line
            and "\r" not in line
        ):
            return f"{line}\r\n"
        return self._quoted(cells)

    def _quoted(self, cells: Sequence[str]) -> str:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._write(cells)
        return self._buffer.getvalue()


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


def write_errcodes(listed: Iterable[Cause], file: Path, lang: Lang) -> None:
    """Write errcodes.csv: a line per merchant, environment and code, with its rows by outcome. Raises OSError."""
    with _new(file) as stream:
        write = _writer(stream)
        listed = list(listed)
        outcomes = errcode_outcomes(listed)
        write((*ERRCODE_COLUMNS, *outcomes))
        for cause in listed:
            appid, merchant, env, code, *counts = errcode_facts(cause, outcomes)
            texts = (appid, merchant, env, code, cause.meaning.of(lang), cause.action.of(lang))
            write([*(guard(masked(text)) for text in texts), *counts])


def errcode_outcomes(listed: Iterable[Cause]) -> tuple[Outcome, ...]:
    """Return the outcomes that errcodes.csv counts: always those of uploads, others where a cause has them."""
    found = {outcome for cause in listed for outcome in cause.outcomes}
    return (*_OF_UPLOADS, *(outcome for outcome in Outcome if outcome in found.difference(_OF_UPLOADS)))


def errcode_facts(cause: Cause, outcomes: Iterable[Outcome]) -> tuple[Any, ...]:
    """Return a line of errcodes.csv without meaning and action, which depend on the language."""
    counts = (cause.outcomes.get(outcome, 0) for outcome in outcomes)
    return cause.appid, cause.merchant, cause.env, cause.code, cause.rows, *counts


def _new(file: Path) -> Any:
    stream = file.open("x", encoding="utf-8", newline="", buffering=1 << 18)
    stream.write("\ufeff")  # the codec utf-8-sig would run Python code for each row
    return stream


def _writer(stream: Any) -> Any:
    return csv.writer(stream, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL).writerow
