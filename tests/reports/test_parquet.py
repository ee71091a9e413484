"""A run as a Parquet file: every row, with types, and nothing left behind where it cannot be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tcb_ops.errors import StoppedError
from tcb_ops.reports.formats.csv import RESULT_COLUMNS
from tcb_ops.reports.formats.parquet import write_parquet
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pq = pytest.importorskip("pyarrow.parquet")


def test_it_has_every_row_with_its_types(a_run: Callable[..., Any], tmp_path: Path):
    reported = a_run()
    file = write_parquet(reported.ledger, reported.run, tmp_path / "run.parquet", Settings())
    table = pq.read_table(file)
    assert table.num_rows == reported.run.rows
    assert table.column_names[-len(RESULT_COLUMNS) :] == list(RESULT_COLUMNS)
    assert table.schema.field("tcb_errcode").type == "int64"
    assert table.schema.field("tcb_ended_at").type.tz == Settings().timezone
    outcomes = [str(record.end.outcome) for record in reported.ledger.rows(reported.run)]
    assert table["tcb_outcome"].to_pylist() == outcomes
    assert [path.name for path in tmp_path.glob("run.parquet*")] == ["run.parquet"]


def test_a_file_that_cannot_be_written_is_reported(a_run: Callable[..., Any], tmp_path: Path):
    reported = a_run()
    with pytest.raises(StoppedError, match="cannot be written"):
        write_parquet(reported.ledger, reported.run, tmp_path / "missing" / "run.parquet", Settings())
