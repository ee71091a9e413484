"""A run's rows as a Parquet file, for DuckDB, Polars, pandas and BI tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tcb_ops.errors import StoppedError, UsageError
from tcb_ops.i18n import Lang, _
from tcb_ops.reports.formats.csv import RESULT_COLUMNS, own_values
from tcb_ops.resources import system_reason
from tcb_ops.runs.next_commands import install
from tcb_ops.runs.reader import RunReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.secrets import masked
from tcb_ops.settings import Settings

BATCH = 20_000
"""Rows per row group, so that memory does not grow with the run."""
_INTS = {"tcb_line", "tcb_errcode", "tcb_http_status", "tcb_attempts", "tcb_bytes"}
_TIMES = {"tcb_started_at", "tcb_ended_at"}


def write_parquet(reader: RunReader, run: RunRecord, dest: Path, settings: Settings) -> Path:
    """Write a run's rows in the order of the list, with the columns of results.csv; return the file.

    Columns of the list are text, times are timestamps with the settings' time zone. A duplicate header becomes
    `name_2`. The file appears when it is complete. Raises UsageError without pyarrow, StoppedError if the file cannot
    be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise UsageError(
            _("Parquet needs pyarrow. Install it:\n{command}", command=install("analysis"))
        ) from None
    kinds = dict.fromkeys(_INTS, pa.int64()) | dict.fromkeys(_TIMES, pa.timestamp("us", tz=settings.timezone))
    own = [(name, kinds.get(name, pa.string())) for name in RESULT_COLUMNS]
    names = _unique([*map(masked, run.headers), *RESULT_COLUMNS])
    types = [pa.string()] * len(run.headers) + [kind for _name, kind in own]
    schema = pa.schema(list(zip(names, types, strict=True)))
    part = dest.with_name(f"{dest.name}.part")
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for columns in _batches(reader, run, settings.lang):
                arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        part.replace(dest)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoppedError(
            _("{dest} cannot be written: {why}.", dest=dest, why=system_reason(error)),
            _("Choose another file."),
        ) from None
    return dest


def _batches(reader: RunReader, run: RunRecord, lang: Lang) -> Iterator[list[list[Any]]]:
    """Read the rows as columns, BATCH rows at a time."""
    rows = reader.rows(run)
    while batch := list(islice(rows, BATCH)):
        lines = [(*map(masked, one.row.cells), *_times(own_values(one, lang))) for one in batch]
        yield [list(column) for column in zip(*lines, strict=True)]


def _times(values: tuple[Any, ...]) -> Iterator[Any]:
    """Yield the values with Unix seconds as microseconds."""
    for name, value in zip(RESULT_COLUMNS, values, strict=True):
        yield int(value * 1_000_000) if name in _TIMES and value is not None else value


def _unique(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found
