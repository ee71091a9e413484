"""Results that are tables: as DataFrames, and as cards in notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from tcb_ops.formatting import escape_controls
from tcb_ops.hooks import FOR_RESULTS
from tcb_ops.i18n import Lang, Text, in_python, ngettext

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 12
"""Lines shown of a table; the others are counted."""
METADATA = "tcb_ops"
"""The key of the metadata of a notebook's output that says to programs what the card says: of a run or an error."""


@runtime_checkable
class ArrowStream(Protocol):
    """A table of any library that gives its rows as an Arrow stream: pandas, polars, DuckDB, pyarrow; a Run, too."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the rows as a capsule of Arrow's C stream interface."""


class Given(NamedTuple):
    """A DataFrame that was given as a list. Its index, and its columns' types, are those of the run's results."""

    frame: pd.DataFrame
    """Its columns that the run carries through."""
    lines: Sequence[int]
    """The line in the list of each of its rows."""


class Lines(NamedTuple):
    """A result as a table: what it is, the names of its columns, and its lines, `total` in number."""

    caption: Text
    names: Sequence[str]
    lines: Iterable[Sequence[Any]]
    total: int
    headers: Sequence[str] = ()
    """Columns of a list, before our own."""
    listed: int = 0
    """The number of last columns that are a list's, too: text, whatever they are called."""


class Tabular:
    """A result that is a table: `frame` returns it as a DataFrame, a notebook shows its first lines."""

    __slots__ = ()

    def _table(self, lang: Lang) -> Lines:
        raise NotImplementedError

    def frame(self) -> pd.DataFrame:
        """Return the table as a DataFrame: texts (string, in the settings' language), numbers (Int64), yes or no (boolean)."""
        lang = FOR_RESULTS.lang()
        return FOR_RESULTS.frame(self._table(lang), lang)

    def __repr__(self) -> str:
        lang = FOR_RESULTS.lang()
        table = self._table(lang)
        texts = [in_python(table.caption, lang)]
        for line in islice(table.lines, SHOWN):
            cells = (cell for cell in line if not isinstance(cell, bool) and cell not in {None, ""})
            texts.append(
                " · ".join(in_python(cell, lang) if isinstance(cell, Text) else str(cell) for cell in cells)
            )
        if (rest := table.total - SHOWN) > 0:
            texts.append(ngettext("… and {n:,} more line", "… and {n:,} more lines", rest).of(lang))
        return escape_controls("\n".join(texts))

    def _repr_html_(self) -> str:
        lang = FOR_RESULTS.lang()
        return FOR_RESULTS.table_card(self._table(lang), lang)


class NoRun:
    """Stands for a run where there is none, and for whatever is asked of it: a notebook shows why, and what to do.

    An error would end "Run all" at its cell, and leave what an earlier run has left in the cells below it.
    """

    def __init__(self, reason: Text, lang: Lang) -> None:
        self._reason, self._lang = reason, lang

    def __getattr__(self, name: str) -> NoRun:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __call__(self, *_given: object, **_named: object) -> NoRun:
        """Stand for the result of a call, too."""
        return self

    def __getitem__(self, _key: object) -> NoRun:
        return self

    def __repr__(self) -> str:
        return f"<{self._reason.of(self._lang)}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._reason.of(self._lang))}</p>"
