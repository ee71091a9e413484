"""Runs as DataFrames, for notebooks. pandas loads here and nowhere else, when a frame is asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tcb_ops.reports.files import RESULT_COLUMNS, own_values
from tcb_ops.reports.summary import summary

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.records import RunRecord
    from tcb_ops.settings import Settings

__all__ = ["errcodes_frame", "results_frame"]

_INTS = {"tcb_line", "tcb_errcode", "tcb_http_status", "tcb_attempts", "tcb_bytes"}
_TIMES = {"tcb_started_at", "tcb_ended_at"}


def results_frame(ledger: Ledger, run: RunRecord, settings: Settings) -> pd.DataFrame:
    """Every row of a run, in the order of the list, with results.csv's columns.

    ===========================================================================  ===========================
    columns                                                                      dtype
    ===========================================================================  ===========================
    the input's own, and text                                                    string (empty, never NA)
    tcb_line, tcb_errcode, tcb_http_status, tcb_attempts, tcb_bytes              Int64
    tcb_started_at, tcb_ended_at                                                 datetime64 with time zone
    ===========================================================================  ===========================

    Texts are in the settings' language, times in their zone. Cells are as they stood in the list, without the
    apostrophe that the CSV files have.
    """
    import pandas as pd

    names = (*run.headers, *RESULT_COLUMNS)
    columns: list[list[Any]] = [[] for _ in names]
    for record in ledger.rows(run):
        for column, value in zip(
            columns, (*record.row.cells, *own_values(record, settings.lang)), strict=True
        ):
            column.append(value)
    own = len(run.headers)
    series: dict[int, Any] = {}
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        if place >= own and name in _INTS:
            series[place] = pd.array(column, dtype="Int64")
        elif place >= own and name in _TIMES:
            moments = [None if at is None else datetime.fromtimestamp(at, UTC) for at in column]
            series[place] = pd.DatetimeIndex(moments, dtype="datetime64[us, UTC]").tz_convert(
                settings.timezone
            )
        else:
            series[place] = pd.array(column, dtype="string")
    frame = pd.DataFrame(series)
    frame.columns = pd.Index(names, dtype="object")  # by place, not by name: a list may have a header twice
    return frame


def errcodes_frame(ledger: Ledger, run: RunRecord) -> pd.DataFrame:
    """Rows per merchant and errcode (other than 0): index merchant, appid, env; a column per errcode; Int64.

    Merchants and errcodes with most rows come first. Without errcodes the frame is empty, its index names the same.
    """
    import pandas as pd

    index = ["merchant", "appid", "env"]
    found = pd.DataFrame(summary(ledger, run)["errcodes"], columns=[*index, "errcode", "rows"])
    found = found.astype(dict.fromkeys(index, "string") | {"errcode": "int64", "rows": "Int64"})
    frame = found.pivot_table(
        index=index, columns="errcode", values="rows", aggfunc="sum", fill_value=0, sort=False
    )
    return frame.astype("Int64")
