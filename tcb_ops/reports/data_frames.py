"""What a run has, and other tables, as DataFrames for analysis. Loads pandas when it is needed.

Times in frames are naive, in the time zone that `attrs["timezone"]` names: `to_excel` refuses times with a zone.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from io import StringIO
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.catalogue import ERRCODE
from tcb_ops.engine.links_file import LINK_COLUMNS
from tcb_ops.errors import ArgumentError, UsageError
from tcb_ops.formatting import unguard
from tcb_ops.frames import Given, Lines
from tcb_ops.i18n import Lang, Text, _, as_list
from tcb_ops.kinds import Kind
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import Outcome
from tcb_ops.reports.formats.csv import RESULT_COLUMNS, result_batches
from tcb_ops.reports.summary import Cause, RunSummary
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


def results_frame(
    reader: LedgerReader,
    run: RunRecord,
    settings: Settings,
    outcomes: frozenset[Outcome] | None = None,
    columns: Iterable[str] | None = None,
    given: Given | None = None,
) -> pd.DataFrame:
    """Return a run's rows with these outcomes (None: all), in the order of the list, with the columns of results.csv.

    `columns`: only those, in this order; a name that the list has twice stands for both. Raises ArgumentError for another name.
    `given`: the frame that was the list, whose index and types the rows get.

    ===========================================================================  ===========================
    columns                                                                      dtype
    ===========================================================================  ===========================
    the input's own, and text                                                    string (empty, never NA)
    tcb_line, tcb_errcode, tcb_http_status, tcb_attempts, tcb_bytes              Int64
    tcb_started_at, tcb_ended_at                                                 datetime64
    ===========================================================================  ===========================

    Texts are in the settings' language. Cells are as in the list, without the apostrophe that the CSV files add.
    """
    names, of_list = [*run.headers, *RESULT_COLUMNS], len(run.headers)
    chosen = list(range(len(names)))
    if columns is not None:
        columns = list(columns)
        if not columns or not set(columns) <= set(names):
            raise ArgumentError("columns", columns, _("names of {names}", names=as_list(names)), shown=True)
        chosen = [number for name in columns for number in chosen if names[number] == name]
    in_order = sorted({*chosen, of_list} if given is not None else {*chosen})  # `of_list` is tcb_line
    headers = [names[number] for number in in_order if number < of_list]
    own = [names[number] for number in in_order if number >= of_list]

    def every_batch() -> Iterator[list[Sequence[Any]]]:
        batches = result_batches(reader, run, settings.lang, outcomes, with_cells=bool(headers))
        for batch in batches:
            cells = list(zip(*batch.cells, strict=True)) if headers else [()] * of_list
            every_column = [*cells, *batch.results]
            yield [every_column[number] for number in in_order]

    frame = frame_of_columns(own, every_batch(), settings.timezone, headers)
    if given is not None:
        frame = _like_given(frame, given, in_order[: len(headers)])
    # Else they are in order already, and this would copy them all.
    return frame if chosen == in_order else frame.iloc[:, [in_order.index(number) for number in chosen]]


def _like_given(frame: pd.DataFrame, given: Given, listed: Sequence[int]) -> pd.DataFrame:
    """Return results with the index of the frame that was the list, and its columns; the first ones of `frame` are these.

    A column whose cells are not the frame's own stays text: a later correction changed one, or a URL's signature is hidden.
    """
    row_of = {line: row for row, line in enumerate(given.lines)}
    taken = given.frame.iloc[[row_of[line] for line in frame["tcb_line"]]]
    for position, number in enumerate(listed):
        column = taken.iloc[:, number]
        if [*column.astype(object).where(column.notna(), "").map(str)] == [*frame.iloc[:, position]]:
            frame.isetitem(position, column.array)
    frame.index = taken.index
    return frame


def links_frame(
    ledger: LedgerReader, run: RunRecord, settings: Settings, reader: LedgerReader
) -> pd.DataFrame:
    """Return the rows of a finished links run's links.csv: errcode Int64, expires_at datetime64, all others string.

    Only the rows that `reader` has, if it is not the ledger itself. Raises UsageError if the file is missing, or now contains another run's links.
    """
    file = Path(run.links)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            head, *lines = csv.reader(stream)
    except (OSError, ValueError, csv.Error):
        text = _("{file} cannot be read: the links of run {id} are lost.", file=file, id=run.id)
        raise UsageError(text, _("Issue them again.")) from None
    newer = [other.id for other in ledger.runs() if other.links == run.links and other.number > run.number]
    columns = (*run.headers, *LINK_COLUMNS)
    if newer or len(lines) != run.rows or any(len(line) != len(columns) for line in (head, *lines)):
        by = newer[-1] if newer else "?"
        text = _("{file} now contains the links of another run ({by}), not those of {id}.")
        raise UsageError(text.format(file=file, by=by, id=run.id))
    if reader is not ledger:
        selected = {record.row.line for record in reader.rows(run)}
        in_order = zip(ledger.listed(run), lines, strict=True)
        lines = [cells for (line, *_rest), cells in in_order if line in selected]
    values: list[list[Any]] = [[cells[number] for cells in lines] for number in range(len(columns))]
    errcode, expires = (len(run.headers) + LINK_COLUMNS.index(name) for name in ("errcode", "expires_at"))
    values[errcode] = [int(code) if code else None for code in values[errcode]]
    times = values[expires]
    values[expires] = [datetime.fromisoformat(time).timestamp() if time else None for time in times]
    return frame_of_columns(LINK_COLUMNS, [values], settings.timezone, head[: len(run.headers)])


def saved_results_frame(data: bytes, timezone: str) -> pd.DataFrame:
    """Return the rows of a results.csv as `results_frame` does, times to the millisecond. Raises ValueError for a damaged one."""
    lines = csv.reader(StringIO(data.decode("utf-8-sig"), newline=""))
    head = [unguard(name) for name in next(lines, [])]
    headers, own = head[: -len(RESULT_COLUMNS)], tuple(head[-len(RESULT_COLUMNS) :])
    if own != RESULT_COLUMNS:
        raise ValueError("columns")
    readers = [unguard] * len(headers) + [_READERS.get(_DTYPES.get(name, name), unguard) for name in own]

    def every_batch() -> Iterator[list[list[Any]]]:
        while batch := list(islice(lines, 1_000)):
            columns = zip(readers, zip(*batch, strict=True), strict=True)
            yield [[read(cell) for cell in cells] for read, cells in columns]

    try:
        return frame_of_columns(RESULT_COLUMNS, every_batch(), timezone, headers)
    except (csv.Error, ArithmeticError) as error:
        raise ValueError(*error.args) from None


def errcodes_frame(causes: Sequence[Cause], kind: Kind, settings: Settings) -> pd.DataFrame:
    """Count the rows that did not succeed by merchant and code.

    Index merchant, appid, env; a column per code, Int64. The codes are those of errcodes.csv: errcodes as
    numbers, others (`AccessDenied`, `no_token`, `pending`, …) as text.

    Merchants, their environments, and codes are ordered by all their rows, the most first. If all rows succeeded, the
    frame is empty, with the same index names. A notebook shows the first lines with the sums, in the settings' language.
    """
    import pandas as pd

    from tcb_ops.reports.causes import Errcodes

    of_merchant, of_env, of_code = Counter[object](), Counter[object](), Counter[str]()
    for cause in causes:
        of_merchant[cause.merchant, cause.appid] += cause.rows
        of_env[cause.appid, cause.env] += cause.rows
        of_code[cause.code] += cause.rows

    def most_first(cause: Cause) -> tuple[object, ...]:
        merchant = (cause.merchant, cause.appid)
        return -of_merchant[merchant], merchant, -of_env[cause.appid, cause.env], cause.env

    names = ("merchant", "appid", "env", "code", "rows")
    lines = frame_of(names, map(attrgetter(*names), sorted(causes, key=most_first)))
    table = lines.pivot_table(
        index=[*names[:3]], columns="code", values="rows", aggfunc="sum", fill_value=0, sort=False
    )
    codes = sorted(of_code, key=lambda code: (-of_code[code], code))
    table = table[codes]
    table.columns = pd.Index(
        [int(code) if ERRCODE.fullmatch(code) else code for code in codes], name="errcode"
    )
    frame = Errcodes(table.astype("Int64"))
    frame.kind, frame.lang = kind, settings.lang
    return frame


def causes_frame(
    causes: Sequence[Cause], kind: Kind, verdicts: Iterable[Any], settings: Settings
) -> pd.DataFrame:
    """Return the causes: a line per code, merchant and environment, most rows first, as in errcodes.csv.

    A notebook shows them as a card, by code.

    =======================================================  ======
    columns                                                  dtype
    =======================================================  ======
    code, merchant, appid, env                               string
    rows                                                     Int64
    meaning, action (in the settings' language)              string
    =======================================================  ======
    """
    from tcb_ops.reports.causes import COLUMNS, Causes

    frame = Causes(frame_of(COLUMNS, map(attrgetter(*COLUMNS), causes), settings.lang))
    frame.kind, frame.lang = kind, settings.lang
    frame.verdicts = {verdict.code: verdict for verdict in verdicts}
    return frame


def merchants_frame(summary: RunSummary) -> pd.DataFrame:
    """Return how merchants' rows ended: a line per merchant, ordered by name.

    merchant, appid (string); rows, succeeded, not_succeeded, pending (Int64): rows is the sum of the other three.
    """
    names = ("merchant", "appid", "rows", "succeeded", "not_succeeded", "pending")
    lines = []
    for merchant in sorted(summary.merchants, key=attrgetter("merchant", "appid")):
        rows, bad, pending = merchant.rows, merchant.not_succeeded, merchant.outcomes.get(Outcome.PENDING, 0)
        lines.append((merchant.merchant, merchant.appid, rows, rows - bad - pending, bad, pending))
    return frame_of(names, lines)


def timeline_frame(reader: LedgerReader, run: RunRecord, settings: Settings) -> pd.DataFrame:
    """Return the run over time: a line per interval, oldest first; none if no row has ended.

    ==============================================================================  ============================
    columns                                                                         dtype
    ==============================================================================  ============================
    at: start of the interval                                                       datetime64
    seconds: its length                                                             Float64
    linked, uploaded, … unknown: rows that ended, by outcome                        Int64
    ended: their sum                                                                Int64
    rate: ended ÷ seconds                                                           Float64
    ==============================================================================  ============================

    Invalid rows are not included.
    """
    moments = reader.timeline(run)
    seen = {outcome for moment in moments for outcome in moment.outcomes}
    of_every_timeline = {outcome for outcome in Outcome.all() if outcome.order <= Outcome.UNKNOWN.order}
    shown = (of_every_timeline | seen) - {Outcome.INVALID, Outcome.PENDING}
    outcomes = sorted(shown, key=attrgetter("order"))
    lines = []
    for moment in moments:
        ended, seconds = sum(moment.outcomes.values()), moment.until - moment.at
        counts = (moment.outcomes.get(outcome, 0) for outcome in outcomes)
        lines.append((moment.at, seconds, *counts, ended, ended / seconds))
    names = ("at", "seconds", *map(str, outcomes), "ended", "rate")
    dtypes = dict.fromkeys(map(str, outcomes), "Int64")
    return frame_of(names, lines, timezone=settings.timezone, dtypes=dtypes)


# --- any table ---------------------------------------------------------------------------------------------------

_TIMES = {"tcb_started_at", "tcb_ended_at", "expires_at", "at"}
_INTS = {
    "tcb_line", "tcb_errcode", "tcb_http_status", "tcb_attempts", "tcb_bytes", "errcode", "rows", "succeeded",
    "not_succeeded", "days", "merchants", "pending", "ended", "line", "http_status", "daily_limit", "used", "remain",
}  # fmt: skip
_DTYPES = (
    dict.fromkeys(_INTS, "Int64")
    | dict.fromkeys(("seconds", "rate"), "Float64")
    | dict.fromkeys(("default", "left", "works", "known", "new", "proven"), "boolean")
    | dict.fromkeys(("day", "last_day"), "day")
)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "Int64": lambda cell: int(cell) if cell else None,
    **dict.fromkeys(_TIMES, lambda cell: datetime.fromisoformat(cell).timestamp() if cell else None),
}
"""How cells of a CSV are read, by the dtype or the name of their column; others are text."""


def table_frame(table: Lines, lang: Lang) -> pd.DataFrame:
    """Return a table as a DataFrame, its texts in this language."""
    return frame_of(table.names, table.lines, lang, headers=table.headers, listed=table.listed)


def frame_of(
    names: Sequence[str], lines: Iterable[Sequence[Any]], lang: Lang = Lang.EN, **options: Any
) -> pd.DataFrame:
    """Return a frame of lines, whose Texts are in this language; `options` are those of `frame_of_columns`."""
    texts = ([cell.of(lang) if isinstance(cell, Text) else cell for cell in line] for line in lines)
    columns = list(zip(*texts, strict=True)) or [()] * (len(names) + len(options.get("headers", ())))
    return frame_of_columns(names, [columns], **options)


def frame_of_columns(
    names: Sequence[str],
    batches: Iterable[Sequence[Sequence[Any]]],
    timezone: str = "",
    headers: Sequence[str] = (),
    listed: int = 0,
    dtypes: Mapping[str, str] = {},
) -> pd.DataFrame:
    """Return a frame of our own columns, after those of a list, as text. By position: a list may have duplicate headers.

    `batches`: the columns of some lines each. `timezone`: of times, which are Unix seconds. `listed`: the number of last
    columns that are a list's, too. `dtypes`: of further columns that are not text.
    """
    import pandas as pd

    kinds = _DTYPES | (dict.fromkeys(_TIMES, timezone) if timezone else {}) | dict(dtypes)
    own = [_Column("string") for _header in headers]
    own += [_Column(kinds.get(name, "string")) for name in names[: len(names) - listed]]
    own += [_Column("string") for _header in range(listed)]
    for batch in batches:
        for column, cells in zip(own, batch, strict=True):
            column.add(cells)
    arrays: dict[int, Any] = {}
    while own:  # a column at a time: little is held twice
        arrays[len(arrays)] = own.pop(0).array()
    frame = pd.DataFrame(arrays, copy=False)
    frame.columns = pd.Index([*headers, *names], dtype="object" if headers else None)
    if timezone:
        frame.attrs["timezone"] = timezone
    return frame


class _Column:
    """A column of a frame, which grows in little memory.

    `kind`: the dtype; or "day", or a time zone for Unix seconds.
    """

    def __init__(self, kind: str) -> None:
        import pandas as pd

        self._kind: Any = kind
        self._arrow = kind == "string" and pd.StringDtype().storage == "pyarrow"
        self._is_object = kind in {"string", "boolean", "day"}
        self._cells: Any = [] if self._is_object else bytearray()

    def add(self, cells: Sequence[Any]) -> None:
        """Add cells: texts, numbers, yes or no; None for none."""
        if self._arrow:
            import pyarrow as pa

            if not {*map(type, cells)} <= {str}:
                cells = [None if cell is None else str(cell) for cell in cells]
            # In Arrow's default pool, up to half of such small blocks is never used.
            self._cells.append(pa.array(cells, pa.large_string(), memory_pool=pa.system_memory_pool()))
        elif self._is_object:
            self._cells.extend(cells)
        else:
            import numpy as np

            self._cells += np.array(cells, "float64").tobytes()

    def array(self) -> Any:
        """Return the column as pandas has it."""
        import numpy as np
        import pandas as pd

        if self._arrow:
            import pyarrow as pa

            return pd.array(pa.chunked_array(self._cells, pa.large_string()), dtype=self._kind)
        if self._kind == "day":
            return pd.DatetimeIndex(self._cells, dtype="datetime64[s]")
        if self._is_object:
            return pd.array(np.array(self._cells, "object"), dtype=self._kind)
        numbers = np.frombuffer(self._cells)
        if self._kind in {"Int64", "Float64"}:
            return pd.array(numbers, dtype=self._kind)
        moments = np.round(numbers * 1e6).astype("datetime64[us]")  # nan becomes NaT
        return pd.DatetimeIndex(moments, tz="UTC").tz_convert(self._kind).tz_localize(None)
