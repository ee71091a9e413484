"""results.csv, failed.csv, errcodes.csv: for spreadsheets, written row by row in flat memory.

UTF-8 with BOM and CRLF, as spreadsheets want it; text cells that one would run as a formula are made inert.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tcb_ops.model import GOOD, Outcome
from tcb_ops.reports.redact import redact
from tcb_ops.reports.wording import action_text, reason_text
from tcb_ops.runs.records import Tally
from tcb_ops.spreadsheet import guard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from zoneinfo import ZoneInfo

    from tcb_ops.model import Lang
    from tcb_ops.reports.table import Cause
    from tcb_ops.runs.records import RowRecord
    from tcb_ops.settings import Settings

__all__ = [
    "ERRCODE_COLUMNS",
    "RESULT_COLUMNS",
    "Clock",
    "Passed",
    "own_values",
    "write_errcodes",
    "write_rows",
]

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
    "tcb_started_at",
    "tcb_ended_at",
)
"""What results.csv and failed.csv say after the input's own columns; the order is part of the contract."""

_NOT_GOOD = tuple(outcome for outcome in Outcome if outcome not in GOOD)
ERRCODE_COLUMNS = ("appid", "merchant", "env", "code", "meaning", "action", "rows", *map(str, _NOT_GOOD))
_NOTHING_TO_SAY = GOOD - {Outcome.UNCHANGED}
FIRST = 200
"""Rows that ended, but not well, which a pass keeps for the page."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What was seen while the rows went by: counted then, so that it agrees with the files whatever runs meanwhile."""

    groups: tuple[Tally, ...]
    first: tuple[RowRecord, ...]
    """The first rows that ended, but not well; 200 at most."""


class Clock:
    """Writes Unix seconds as ISO 8601 with milliseconds and offset, in one time zone."""

    def __init__(self, zone: ZoneInfo) -> None:
        # Rows end by the thousand in a second: only the milliseconds are new each time.
        @lru_cache(maxsize=256)
        def second(at: int) -> tuple[str, str]:
            moment = datetime.fromtimestamp(at, zone).isoformat()
            return moment[:19], moment[19:]

        self._second = second

    def iso(self, at: float | None) -> str:
        """The moment, such as 2025-03-01T09:30:00.250+08:00; empty for None."""
        if at is None:
            return ""
        whole, milliseconds = divmod(round(at * 1000), 1000)
        moment, offset = self._second(whole)
        return f"{moment}.{milliseconds:03d}{offset}"


def own_values(record: RowRecord, lang: Lang) -> tuple[Any, ...]:
    """Give the values of RESULT_COLUMNS: text, int or None, and Unix seconds for the two times.

    Text from outside has lost what looks like a secret.
    """
    row, end = record.row, record.end
    plain = end.reason is None and end.outcome in _NOTHING_TO_SAY
    return (
        row.line,
        row.merchant,
        row.appid,
        row.env,
        end.outcome.value,
        "" if plain else reason_text(end).of(lang),
        "" if plain else action_text(end).of(lang),
        end.errcode,
        redact(end.errmsg) if end.errmsg else "",
        redact(end.rid) if end.rid else "",
        end.http_status,
        redact(end.store_code) if end.store_code else "",
        end.attempts,
        end.bytes,
        end.md5,
        redact(end.file_id) if "=" in end.file_id else end.file_id,
        end.started_at,
        end.ended_at,
    )


def write_rows(
    records: Iterable[RowRecord], headers: Sequence[str], results: Path, failed: Path, settings: Settings
) -> Passed:
    """Write results.csv and failed.csv in one pass. Raises OSError; the files must not be there yet."""
    counted: Counter[tuple[Any, ...]] = Counter()
    first: list[RowRecord] = []
    iso, lang = Clock(settings.zone).iso, settings.lang
    head = [guard(name) for name in (*headers, *RESULT_COLUMNS)]
    with _new(results) as every_row, _new(failed) as bad_rows:
        write, write_bad = _writer(every_row), _writer(bad_rows)
        write(head)
        write_bad(head)
        for record in records:
            row, end = record.row, record.end
            counted[
                row.appid, row.merchant, row.env, end.outcome, end.reason, end.errcode, end.store_code
            ] += 1
            *values, started, ended = own_values(record, lang)
            cells = [guard(cell) if cell else cell for cell in row.cells]
            cells += [guard(value) if value and value.__class__ is str else value for value in values]
            cells += (iso(started), iso(ended))
            write(cells)
            if end.outcome not in GOOD:
                write_bad(cells)
                if len(first) < FIRST and end.outcome is not Outcome.PENDING:
                    first.append(record)
    return Passed(tuple(Tally(*(*key, rows)) for key, rows in counted.items()), tuple(first))


def write_errcodes(listed: Iterable[Cause], file: Path, lang: Lang) -> None:
    """Write errcodes.csv: a line per merchant, environment and code, with how its rows ended. Raises OSError."""
    with _new(file) as stream:
        write = _writer(stream)
        write(ERRCODE_COLUMNS)
        for cause in listed:
            texts = (
                cause.appid,
                cause.merchant,
                cause.env,
                cause.code,
                cause.meaning.of(lang),
                cause.action.of(lang),
            )
            counts = (cause.outcomes.get(outcome, 0) for outcome in _NOT_GOOD)
            write([*map(guard, texts), cause.rows, *counts])


def _new(file: Path) -> Any:
    stream = file.open("x", encoding="utf-8", newline="", buffering=1 << 18)
    stream.write("\ufeff")  # the codec utf-8-sig would do, but goes through Python for each row
    return stream


def _writer(stream: Any) -> Any:
    return csv.writer(stream, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL).writerow
