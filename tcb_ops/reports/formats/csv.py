"""A run's rows as text: results.csv, failed.csv, the digest over them; and errcodes.csv. In constant memory.

The CSVs are for spreadsheets: UTF-8 with BOM and CRLF; text cells that one would run as a formula are made inert.

A million rows are exported and verified without an object for each: a row is what the ledger has of it, a tuple. Each batch
of lines is searched once for what they must not contain (secrets, control characters).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from io import StringIO
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tcb_ops.details import DetailCode, read_detail, stored
from tcb_ops.formatting import RISKY, escape_controls, guard, has_controls, unguard
from tcb_ops.i18n import Lang, verbatim
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RowRecord, RunRecord, end_values
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.explanations import action_text, merchant_text, reason_text
from tcb_ops.reports.summary import Cause
from tcb_ops.secrets import masked, redact
from tcb_ops.settings import Settings

CONTENT_TYPE = "tcb_content_type"
RESULT_COLUMNS = (
    "tcb_line", "tcb_merchant", "tcb_appid", "tcb_env", "tcb_outcome", "tcb_reason", "tcb_action", "tcb_errcode",
    "tcb_errmsg", "tcb_rid", "tcb_http_status", "tcb_store_code", "tcb_attempts", "tcb_bytes", "tcb_md5", "tcb_file_id",
    CONTENT_TYPE, "tcb_started_at", "tcb_ended_at",
)  # fmt: skip
"""The columns of results.csv and failed.csv after the input's own; their order is part of the contract."""
NUMBERS = {"tcb_line", "tcb_errcode", "tcb_http_status", "tcb_attempts", "tcb_bytes"}
TIMES = {"tcb_started_at", "tcb_ended_at"}
_TEXTS = [number for number, name in enumerate(RESULT_COLUMNS) if name not in NUMBERS | TIMES]

ERRCODE_COLUMNS = ("appid", "merchant", "env", "code", "meaning", "action", "rows")
"""The first columns of errcodes.csv; a count per outcome follows."""
_OF_UPLOADS = (
    Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED, Outcome.INVALID, Outcome.PENDING,
)  # fmt: skip
_MARKS = ',"\r\n'
"""What a cell of a CSV is quoted for."""
_FIRST = itemgetter(slice(1))
_SHARED = 1_000
"""Maximum number of cached texts that many rows share, such as the sentence for an errcode."""
_BATCH = 1_000


def iso_clock(zone: tzinfo) -> Callable[[int | None], str]:
    """Return what formats whole milliseconds since 1970, such as 2025-03-01T09:30:00.250+08:00; empty for None."""

    # Cached by second, in which thousands of rows may end: only the milliseconds differ.
    @lru_cache(maxsize=256)
    def second(seconds: int) -> tuple[str, str]:
        moment = datetime.fromtimestamp(seconds, zone).isoformat()
        return moment[:19], moment[19:]

    def iso(time: int | None) -> str:
        if time is None:
            return ""
        seconds, milliseconds = divmod(time, 1000)
        moment, offset = second(seconds)
        return f"{moment}.{milliseconds:03d}{offset}"

    return iso


class ResultColumns(NamedTuple):
    """Some rows of a run, by columns."""

    stored: list[Sequence[Any]]
    """The columns of the ledger's table of rows; from a view of the run with (merchant, appid, env) for the number."""
    cells: list[list[str]]
    """The cells of each row of the list; empty if they are not asked for."""
    results: list[Sequence[Any]]
    """RESULT_COLUMNS: text, int or None, and Unix seconds for the two times. Text from outside is redacted."""


def result_batches(
    reader: LedgerReader,
    run: RunRecord,
    lang: Lang,
    outcomes: frozenset[Outcome] | None = None,
    *,
    size: int = _BATCH,
    with_cells: bool = True,
) -> Iterator[ResultColumns]:
    """Yield a run's rows with these outcomes (None: all) in the order of the list. Raises LedgerDamagedError."""
    if reader.ledger is reader:
        records: Iterator[Any] = chain.from_iterable(reader.records(run, outcomes))
        environments: dict[Any, Any] = {
            environment.number: (environment.merchant, environment.appid, environment.env)
            for environment in reader.envs(run)
        }
    else:
        records, environments = map(_as_stored, reader.rows(run, outcomes=outcomes)), {}
    while batch := list(islice(records, size)):
        with reader.reading(run):
            columns = _by_column(batch, environments, lang, with_cells=with_cells)
        yield columns


def row_values(records: Iterable[RowRecord], settings: Settings) -> Iterator[Sequence[Any]]:
    """Yield the cells of rows as in results.csv, unguarded: numbers as numbers, times as ISO 8601."""
    iso, records = iso_clock(settings.zone), iter(records)
    while batch := list(islice(records, _BATCH)):
        *columns, started, ended = _by_column(
            [*map(_as_stored, batch)], {}, settings.lang, with_cells=False
        ).results
        times = ([*map(iso, _milliseconds(moments))] for moments in (started, ended))
        for record, *values in zip(batch, *columns, *times, strict=True):
            yield (*record.row.cells, *values)


def _as_stored(record: RowRecord) -> tuple[Any, ...]:
    row, cells = record.row, msgspec.json.encode(record.row.cells).decode()
    return (
        None, row.line, (row.merchant, row.appid, row.env), row.path, row.file, row.size, row.mtime_ns, cells,
        *end_values(record.end), row.content_type, row.cache_control, row.etag,
    )  # fmt: skip


def _by_column(
    records: Sequence[Any], environments: Mapping[Any, Any], lang: Lang, *, with_cells: bool
) -> ResultColumns:
    stored: list[Sequence[Any]] = list(zip(*records, strict=True))
    (
        outcomes, reasons, details, errcodes, errmsgs, rids, statuses, store_codes, attempts, sent, md5s, file_ids, started,
        ended, content_types,
    ) = stored[8:23]  # fmt: skip
    names = zip(*[environments.get(number, number) for number in stored[2]], strict=True)
    ends = zip(outcomes, reasons, details, errcodes, statuses, store_codes, strict=True)
    words = zip(*[_words(lang, *end) for end in ends], strict=True)
    cells = json.loads(f"[{','.join(stored[7])}]") if with_cells else []
    if with_cells and (len(cells) != len(records) or len({*map(len, cells)}) > 1):
        raise ValueError("cells")
    values = [
        stored[1],
        *names,
        outcomes,
        *words,
        errcodes,
        _redacted(errmsgs),
        _redacted(rids),
        statuses,
        _redacted(store_codes),
        attempts,
        sent,
        md5s,
        [redact(text) if "=" in text else text for text in file_ids],
        [text or "" for text in content_types],
        started,
        ended,
    ]
    return ResultColumns(stored, cells, values)


def _redacted(texts: Sequence[str]) -> Sequence[str]:
    redacted = {text: redact(text) for text in set(texts)}
    return [redacted[text] for text in texts]


@lru_cache(maxsize=_SHARED)
def _words(
    lang: Lang,
    outcome: str,
    reason: str,
    detail: str,
    errcode: int | None,
    http_status: int | None,
    store_code: str,
) -> tuple[str, str]:
    end = RowEnd(
        0,
        Outcome(outcome),
        Reason(reason) if reason else None,
        read_detail(detail),
        errcode,
        http_status=http_status,
        store_code=store_code,
    )
    if end.reason is None and end.outcome.succeeded and end.outcome is not Outcome.UNCHANGED:
        return "", ""
    return reason_text(end).of(lang), action_text(end).of(lang)


@lru_cache(maxsize=_SHARED)
def _detail_text(value: str) -> str:
    """Return a row's detail for the digest: the store's message, and a text that is the same in both languages, as it is."""
    detail = read_detail(value)
    if detail is None:
        return ""
    if detail.code is DetailCode.STORE_MESSAGE:
        return str(detail.params["message"])
    if detail.code is DetailCode.TEXT and detail.params["en"] == detail.params["zh"]:
        return str(detail.params["en"])
    return stored(detail)


class RowsDigest:
    """The digest over a run's rows, which binds a report to the ledger, and which anyone can recompute.

    SHA-256 of a JSON text in UTF-8, an array with one array per row, in the order of the list's lines, without spaces and
    with only the escapes that JSON requires (Python: `json.dumps(rows, ensure_ascii=False, separators=(",", ":"))`).
    A row is `line, env, appid, merchant, path, file, size, [cells], outcome, reason, detail, errcode, errmsg, rid,
    http_status, store_code, attempts, bytes, md5, file_id, started, ended`: missing values are null (a missing reason:
    an empty text), times are whole milliseconds since 1970 (UTC). If the object was given headers, they follow:
    `content_type, cache_control`. `detail` is the ledger's value, a JSON object as a text; for the code `store_message`
    only the message, for `text` with the same sentence in both languages only that sentence.
    """

    def __init__(self) -> None:
        self._sha256, self._between = hashlib.sha256(), b"["

    def add(self, batch: ResultColumns) -> None:
        """Add the next rows, with their cells."""
        self._sha256.update(self._between + msgspec.json.encode(_digested(batch))[1:-1])
        self._between = b","

    def hexdigest(self) -> str:
        """Return the digest over the rows so far: 64 hex digits."""
        complete = self._sha256.copy()
        complete.update(b"]" if self._between == b"," else b"[]")
        return complete.hexdigest()


def rows_digest(reader: LedgerReader, run: RunRecord) -> str:
    """Return the digest over all rows of a run. Raises LedgerDamagedError."""
    digest = RowsDigest()
    for batch in result_batches(reader, run, Lang.EN):
        with reader.reading(run):
            digest.add(batch)
    return digest.hexdigest()


class RowLines:
    """The lines of results.csv and failed.csv, and the digest over the rows."""

    def __init__(self, reader: LedgerReader, run: RunRecord, lang: Lang, zone: tzinfo) -> None:
        self._reader, self._run, self._lang, self._iso = reader, run, lang, iso_clock(zone)
        self.digest = RowsDigest()
        names = [guard(masked(name)) for name in (*run.headers, *RESULT_COLUMNS)]
        (self.head,) = self._lines([[name] for name in names])
        """The first line of both files."""
        self.hidden = 0
        """Number of rows so far in which a possible secret was masked."""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the next rows, and of those that did not succeed; only once. Raises LedgerDamagedError."""
        successes = Outcome.successes()
        for batch in result_batches(self._reader, self._run, self._lang):
            with self._reader.reading(self._run):
                lines = self._lines(self._columns(batch))
                self.digest.add(batch)
            outcomes = batch.stored[8]
            bad = [line for line, outcome in zip(lines, outcomes, strict=True) if outcome not in successes]
            yield "".join(lines), "".join(bad)

    def _columns(self, batch: ResultColumns) -> list[Sequence[Any]]:
        *values, started, ended = batch.results
        for column in _TEXTS:
            values[column] = _guarded(values[column])
        times = [[*map(self._iso, _milliseconds(moments))] for moments in (started, ended)]
        return [*map(_guarded, zip(*batch.cells, strict=True)), *values, *times]

    def _lines(self, columns: Sequence[Sequence[Any]]) -> list[str]:
        lines = _lines(columns)
        text = "".join(lines)
        special = _is_special(text)
        if special or '"' in text:
            for number, line in enumerate(lines):
                if '"' in line or (special and _is_special(line)):  # once quoted, a secret might not be found
                    cells = ["" if column[number] is None else str(column[number]) for column in columns]
                    (lines[number],) = _lines([[cell] for cell in self._mask([*map(escape_controls, cells)])])
        return lines

    def _mask(self, cells: list[str]) -> list[str]:
        line = ",".join(cells)
        if masked(line) == line:
            return cells
        self.hidden += 1
        return [*map(masked, cells)]


def _lines(columns: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a CSV from its columns: numbers, None, and texts, which are quoted where RFC 4180 says so.

    `csv.writer` takes three times as long, since it looks at each character of each cell.
    """
    return [f"{line}\r\n" for line in map(",".join, zip(*map(_quoted, columns), strict=True))]


def _quoted(column: Sequence[Any]) -> Sequence[str]:
    try:
        text = "".join(column)
    except TypeError:  # numbers
        return ["" if cell is None else str(cell) for cell in column]
    if not any(mark in text for mark in _MARKS):
        return column
    return [
        '"{}"'.format(cell.replace('"', '""')) if any(mark in cell for mark in _MARKS) else cell
        for cell in column
    ]


def _milliseconds(times: Iterable[float | None]) -> list[int | None]:
    return [None if moment is None else round(moment * 1000) for moment in times]


def _digested(batch: ResultColumns) -> list[tuple[Any, ...]]:
    _run, lines, _number, paths, files, sizes, _mtime, _cells, outcomes, reasons, details, *ends = (
        batch.stored
    )
    _line, merchants, appids, envs, *_values, started, ended = batch.results
    texts, times = map(_detail_text, details), map(_milliseconds, (started, ended))
    columns = (
        lines, envs, appids, merchants, paths, files, sizes, batch.cells, outcomes, reasons, texts, *ends[:9], *times,
    )  # fmt: skip
    rows = list(zip(*columns, strict=True))
    if not any(map(any, ends[11:13])):
        return rows
    headers = [[text or "" for text in column] for column in ends[11:13]]
    longer = zip(rows, zip(*headers, strict=True), *headers, strict=True)
    return [(*row, *pair) if first or second else row for row, pair, first, second in longer]


def _guarded(texts: Sequence[str]) -> Sequence[str]:
    if RISKY.isdisjoint(map(_FIRST, texts)):
        return texts
    return [guard(text) if text[:1] in RISKY else text for text in texts]


def _is_special(text: str) -> bool:
    """Return whether lines contain a control character, or what looks like a secret."""
    return has_controls(text) or masked(text) != text


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
            write([guard(masked(value)) if isinstance(value, str) else str(value) for value in line])


def errcode_table(
    causes: Sequence[Cause], lang: Lang, *, texts: bool = False
) -> tuple[list[str], Iterator[Sequence[str | int]]]:
    """Return the columns and lines of errcodes.csv: a line per merchant, environment and code, with its rows by outcome.

    The outcomes are always those of uploads, others where a cause has them. `texts`: last, what to tell the merchant.
    """
    other_outcomes = {outcome for cause in causes for outcome in cause.outcomes}.difference(_OF_UPLOADS)
    outcomes = (*_OF_UPLOADS, *(outcome for outcome in Outcome.all() if outcome in other_outcomes))

    def line(cause: Cause) -> list[str | int]:
        told = merchant_text(cause.code, cause.appid, cause.merchant, cause.env) if texts else None
        counts = (cause.outcomes.get(outcome, 0) for outcome in outcomes)
        facts = (
            cause.appid,
            cause.merchant,
            cause.env,
            cause.code,
            cause.meaning.of(lang),
            cause.action.of(lang),
        )
        return [*facts, cause.rows, *counts, *([told.of(lang) if told is not None else ""] if texts else [])]

    return [*ERRCODE_COLUMNS, *map(str, outcomes), *(["message"] if texts else [])], map(line, causes)


def read_errcodes(data: bytes) -> list[Cause]:
    """Return the causes of an errcodes.csv. Raises ValueError for a damaged one."""
    try:
        head, *lines = csv.reader(StringIO(data.decode("utf-8-sig"), newline=""))
    except csv.Error as error:
        raise ValueError(*error.args) from None
    own, outcomes = tuple(head[: len(ERRCODE_COLUMNS)]), [*map(Outcome, head[len(ERRCODE_COLUMNS) :])]
    if own != ERRCODE_COLUMNS:
        raise ValueError("columns")
    causes = []
    for line in lines:
        appid, merchant, env, code, meaning, action, rows, *counts = map(unguard, line)
        counted = {outcome: int(count) for outcome, count in zip(outcomes, counts, strict=True)}
        causes.append(
            Cause(appid, merchant, env, code, verbatim(meaning), verbatim(action), counted, int(rows))
        )
    return causes


def _new(file: Path) -> Any:
    stream = file.open("x", encoding="utf-8", newline="", buffering=1 << 18)
    stream.write("\ufeff")  # the codec utf-8-sig would run Python code for each row
    return stream
