"""results.csv, failed.csv, errcodes.csv: for spreadsheets, written row by row in constant memory.

UTF-8 with BOM and CRLF, as spreadsheets expect; text cells that one would run as a formula are made inert.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Any

from tcb_ops.formatting import RISKY, guard, picture_controls
from tcb_ops.i18n import Lang
from tcb_ops.model import SUCCESSES, Outcome
from tcb_ops.reports.explanations import action_text, reason_text
from tcb_ops.reports.summary import Cause
from tcb_ops.runs.records import RowRecord
from tcb_ops.secrets import masked, redact
from tcb_ops.settings import Settings

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

_NOT_GOOD = tuple(outcome for outcome in Outcome if outcome not in SUCCESSES)
ERRCODE_COLUMNS = ("appid", "merchant", "env", "code", "meaning", "action", "rows", *map(str, _NOT_GOOD))
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
        if at is None:
            return ""
        whole, milliseconds = divmod(round(at * 1000), 1000)
        moment, offset = self._second(whole)
        return f"{moment}.{milliseconds:03d}{offset}"


def own_values(record: RowRecord, lang: Lang) -> tuple[Any, ...]:
    """Return the values of RESULT_COLUMNS: text, int or None, and Unix seconds for the two times.

    Text from outside is redacted.
    """
    end = record.end
    if end.reason is None and end.outcome in _NOTHING_TO_SAY:
        return (*_whose(record), "", "", *_how(record))
    return (*_whose(record), reason_text(end).of(lang), action_text(end).of(lang), *_how(record))


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


def write_rows(
    records: Iterable[RowRecord], headers: Sequence[str], results: Path, failed: Path, settings: Settings
) -> int:
    """Write results.csv and failed.csv in one pass; return the number of rows whose texts had to be masked.

    Raises OSError; the files must not exist yet.
    """
    iso, lang = Clock(settings.zone).iso, settings.lang
    head = [guard(masked(name)) for name in (*headers, *RESULT_COLUMNS)]
    hidden = 0
    with _new(results) as every_row, _new(failed) as bad_rows:
        write, write_bad = _writer(every_row), _writer(bad_rows)
        write(head)
        write_bad(head)
        commas = len(head) - 1
        for record in records:
            *values, started, ended = own_values(record, lang)
            cells = [guard(cell) if cell and cell[0] in RISKY else cell for cell in record.row.cells]
            cells += [
                (guard(value) if value and value[0] in RISKY else value)
                if value.__class__ is str
                else ("" if value is None else str(value))
                for value in values
            ]
            cells += (iso(started), iso(ended))
            bad = record.end.outcome not in SUCCESSES
            # csv.writer examines every character, which is slow: a line that needs no quoting is written directly.
            line = ",".join(cells)
            if not line.isprintable():
                cells = [*map(picture_controls, cells)]
                line = ",".join(cells)
            if masked(line) != line:
                hidden += 1
                cells = [*map(masked, cells)]
                line = ",".join(cells)
            if line.count(",") == commas and '"' not in line and "\n" not in line and "\r" not in line:
                line += "\r\n"
                every_row.write(line)
                if bad:
                    bad_rows.write(line)
            else:
                write(cells)
                if bad:
                    write_bad(cells)
    return hidden


def write_errcodes(listed: Iterable[Cause], file: Path, lang: Lang) -> None:
    """Write errcodes.csv: a line per merchant, environment and code, with its rows by outcome. Raises OSError."""
    with _new(file) as stream:
        write = _writer(stream)
        write(ERRCODE_COLUMNS)
        for cause in listed:
            appid, merchant, env, code, *counts = errcode_facts(cause)
            texts = (appid, merchant, env, code, cause.meaning.of(lang), cause.action.of(lang))
            write([*(guard(masked(text)) for text in texts), *counts])


def errcode_facts(cause: Cause) -> tuple[Any, ...]:
    """Return the values of ERRCODE_COLUMNS without meaning and action, which depend on the language."""
    counts = (cause.outcomes.get(outcome, 0) for outcome in _NOT_GOOD)
    return cause.appid, cause.merchant, cause.env, cause.code, cause.rows, *counts


def _new(file: Path) -> Any:
    stream = file.open("x", encoding="utf-8", newline="", buffering=1 << 18)
    stream.write("\ufeff")  # the codec utf-8-sig would run Python code for each row
    return stream


def _writer(stream: Any) -> Any:
    return csv.writer(stream, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL).writerow
