"""Tables as DataFrames. Only this module loads pandas, when it is needed.

Times in frames are naive, in the time zone that `attrs["timezone"]` names: `to_excel` refuses times with a zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tcb_ops.frames import Lines
from tcb_ops.i18n import Lang, Text

if TYPE_CHECKING:
    import pandas as pd

_TIMES = {"tcb_started_at", "tcb_ended_at", "expires_at", "at"}
_INTS = {
    "tcb_line", "tcb_errcode", "tcb_http_status", "tcb_attempts", "tcb_bytes", "errcode", "rows", "succeeded",
    "not_succeeded", "pending", "ended", "line", "http_status", "daily_limit", "used", "remain",
}  # fmt: skip
_YES_OR_NO = dict.fromkeys(
    ("default", "left", "works", "token", "permission", "cloud", "known", "new", "proven"), "boolean"
)
_DTYPES = dict.fromkeys(_INTS, "Int64") | dict.fromkeys(("seconds", "rate"), "Float64") | {"day": "day"}


def table_frame(table: Lines, lang: Lang) -> pd.DataFrame:
    """Return a table as a DataFrame, its texts in this language."""
    return frame_of(table.names, table.lines, lang, headers=table.headers, dtypes=_YES_OR_NO)


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
    dtypes: Mapping[str, str] = {},
) -> pd.DataFrame:
    """Return a frame of our own columns, after those of a list, as text. By position: a list may have duplicate headers.

    `batches`: the columns of some lines each. `timezone`: of times, which are Unix seconds. `dtypes`: of
    further columns that are not text.
    """
    import pandas as pd

    kinds = _DTYPES | (dict.fromkeys(_TIMES, timezone) if timezone else {}) | dict(dtypes)
    own = [_Column("string") for _header in headers]
    own += [_Column(kinds.get(name, "string")) for name in names]
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
