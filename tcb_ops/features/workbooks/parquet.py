"""A run's rows as an Arrow stream and as a Parquet file, and lists that are Arrow streams. Loads pyarrow when it is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tcb_ops.disk import replacing
from tcb_ops.engine.next_commands import install
from tcb_ops.errors import StoppedError, UsageError
from tcb_ops.frames import ArrowStream
from tcb_ops.i18n import _
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RunRecord
from tcb_ops.reports.formats.csv import NUMBERS, RESULT_COLUMNS, TIMES, result_batches
from tcb_ops.secrets import masked
from tcb_ops.settings import Settings
from tcb_ops.system_errors import system_reason

_ROW_GROUP = 20_000
"""Rows per batch, which is a row group of a Parquet file, so that memory does not grow with the run."""


def write_parquet(reader: LedgerReader, run: RunRecord, dest: Path, settings: Settings) -> Path:
    """Write a run's rows in the order of the list, with the columns of results.csv; return the file.

    Columns of the list are text, times are timestamps with the settings' time zone. A duplicate header becomes
    `name_2`. The file appears when it is complete. Raises UsageError without pyarrow, and if a file of another format is
    there; StoppedError if the file cannot be written.
    """
    if dest.is_file() and not _is_parquet(dest):
        raise UsageError(_("{dest} already exists: check it, or choose another name", dest=dest))
    pa, schema = _pyarrow(), _schema(run, settings)
    try:
        with replacing(dest) as part, pa.parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            for batch in _batches(reader, run, settings, schema):
                writer.write_batch(batch)
    except OSError as error:
        text = _("{dest} cannot be written: {why}.", dest=dest, why=system_reason(error))
        raise StoppedError(text, _("Choose another file.")) from None
    return dest


def arrow_stream(
    reader: LedgerReader, run: RunRecord, settings: Settings, requested_schema: object
) -> object:
    """Return a run's rows as Arrow's C stream, with the columns of `write_parquet`, from a snapshot of the ledger.

    Raises UsageError without pyarrow.
    """
    pa, schema = _pyarrow(), _schema(run, settings)

    def batches() -> Iterator[Any]:
        with reader.snapshot() as snapshot:
            yield from _batches(snapshot, run, settings, schema)

    stream: object = pa.RecordBatchReader.from_batches(schema, batches()).__arrow_c_stream__(requested_schema)
    return stream


def arrow_texts(source: ArrowStream) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the headers and rows of an Arrow stream as text; missing values are empty. Raises UsageError without pyarrow."""
    table = _pyarrow().RecordBatchReader.from_stream(source).read_all()
    cells = ([_text(cell) for cell in column.to_pylist()] for column in table.columns)
    return table.column_names, [*zip(*cells, strict=True)]


def _text(cell: object) -> str:
    return "" if cell is None or cell != cell else str(cell)  # noqa: PLR0124  NaN is missing, too


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError:
        text = _("Arrow and Parquet need pyarrow. Install it:\n{command}", command=install("analysis"))
        raise UsageError(text) from None
    return pyarrow


def _schema(run: RunRecord, settings: Settings) -> Any:
    pa = _pyarrow()
    kinds = dict.fromkeys(NUMBERS, pa.int64()) | dict.fromkeys(
        TIMES, pa.timestamp("us", tz=settings.timezone)
    )
    names: list[str] = []
    times: Counter[str] = Counter()
    for name in (*map(masked, run.headers), *RESULT_COLUMNS):
        times[name] += 1
        names.append(name if times[name] == 1 else f"{name}_{times[name]}")
    types = [pa.string()] * len(run.headers) + [kinds.get(name, pa.string()) for name in RESULT_COLUMNS]
    return pa.schema(list(zip(names, types, strict=True)))


def _batches(reader: LedgerReader, run: RunRecord, settings: Settings, schema: Any) -> Iterator[Any]:
    pa = _pyarrow()
    for batch in result_batches(reader, run, settings.lang, size=_ROW_GROUP):
        cells = [[*map(masked, column)] for column in zip(*batch.cells, strict=True)]
        arrays = [
            pa.array(_microseconds(column) if pa.types.is_timestamp(kind) else column, kind)
            for column, kind in zip([*cells, *batch.results], schema.types, strict=True)
        ]
        yield pa.record_batch(arrays, schema=schema)


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _microseconds(column: Iterable[float | None]) -> list[int | None]:
    return [None if moment is None else int(moment * 1_000_000) for moment in column]
