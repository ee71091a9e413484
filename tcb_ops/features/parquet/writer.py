"""Writes a run's rows as a Parquet file. Only this module loads pyarrow, when it is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tcb_ops.errors import StoppedError, UsageError
from tcb_ops.i18n import _
from tcb_ops.reports.formats.csv import NUMBERS, RESULT_COLUMNS, TIMES, result_batches
from tcb_ops.resources import replacing, system_reason
from tcb_ops.runs.next_commands import install
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.secrets import masked
from tcb_ops.settings import Settings

_ROW_GROUP = 20_000
"""Rows per row group of a Parquet file, so that memory does not grow with the run."""


def write_parquet(reader: LedgerReader, run: RunRecord, dest: Path, settings: Settings) -> Path:
    """Write a run's rows in the order of the list, with the columns of results.csv; return the file.

    Columns of the list are text, times are timestamps with the settings' time zone. A duplicate header becomes
    `name_2`. The file appears when it is complete. Raises UsageError without pyarrow, and if a file of another format is
    there; StoppedError if the file cannot be written.
    """
    if dest.is_file() and not _is_parquet(dest):
        raise UsageError(_("{dest} already exists: check it, or choose another name", dest=dest))
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        text = _("Parquet needs pyarrow. Install it:\n{command}", command=install("analysis"))
        raise UsageError(text) from None
    moment = pa.timestamp("us", tz=settings.timezone)
    kinds = dict.fromkeys(NUMBERS, pa.int64()) | dict.fromkeys(TIMES, moment)
    names: list[str] = []
    times: Counter[str] = Counter()
    for name in (*map(masked, run.headers), *RESULT_COLUMNS):
        times[name] += 1
        names.append(name if times[name] == 1 else f"{name}_{times[name]}")
    types = [pa.string()] * len(run.headers) + [kinds.get(name, pa.string()) for name in RESULT_COLUMNS]
    schema = pa.schema(list(zip(names, types, strict=True)))
    try:
        with replacing(dest) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for batch in result_batches(reader, run, settings.lang, size=_ROW_GROUP):
                cells = [[*map(masked, column)] for column in zip(*batch.cells, strict=True)]
                arrays = [
                    pa.array(_microseconds(column) if kind is moment else column, kind)
                    for column, kind in zip([*cells, *batch.results], types, strict=True)
                ]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
    except OSError as error:
        text = _("{dest} cannot be written: {why}.", dest=dest, why=system_reason(error))
        raise StoppedError(text, _("Choose another file.")) from None
    return dest


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _microseconds(column: Iterable[float | None]) -> list[int | None]:
    return [None if moment is None else int(moment * 1_000_000) for moment in column]
