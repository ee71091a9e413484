"""The causes and errcodes of a run, which are DataFrames with stable names, and shown in the language of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd

from tcb_ops.i18n import Lang
from tcb_ops.kinds import Kind
from tcb_ops.reports.cards import causes_html, causes_text, errcodes_html, errcodes_title, heads_of

_LINES, _WIDTH = 60, 120
"""Of a printed table."""
COLUMNS = ("code", "merchant", "appid", "env", "rows", "meaning", "action")
INDEX = ("merchant", "appid", "env")
"""Of errcodes."""


class Causes(pd.DataFrame):
    """What `Run.causes` returns. Whatever is derived from it is a plain DataFrame, and shown as one."""

    _metadata: ClassVar[list[str]] = ["kind", "lang", "verdicts"]
    kind: Kind
    lang: Lang
    verdicts: Mapping[str, Any]
    """What WeChat has answered about codes."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __reduce__(self) -> Any:
        return pd.DataFrame(self).__reduce__()

    def __repr__(self) -> str:
        if tuple(self.columns) != COLUMNS:
            return repr(pd.DataFrame(self))
        return causes_text(self.itertuples(index=False), self.verdicts, self.kind, self.lang)

    def _repr_html_(self) -> str | None:
        if tuple(self.columns) != COLUMNS:  # changed in place
            plain: str | None = pd.DataFrame(self)._repr_html_()  # type: ignore[operator]
            return plain
        return causes_html(self.itertuples(index=False), self.verdicts, self.kind, self.lang)


class Errcodes(pd.DataFrame):
    """What `Run.errcodes` returns. Whatever is derived from it is a plain DataFrame."""

    _metadata: ClassVar[list[str]] = ["kind", "lang"]
    kind: Kind
    lang: Lang

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __reduce__(self) -> Any:
        return pd.DataFrame(self).__reduce__()

    def __repr__(self) -> str:
        if tuple(self.index.names) != INDEX:
            return repr(pd.DataFrame(self))
        if self.empty:
            return errcodes_title((), self.kind).of(self.lang)
        shown = pd.DataFrame(self)
        if self.lang is not Lang.EN:
            index, columns = (
                heads_of(map(str, axis.names), self.lang) for axis in (self.index, self.columns)
            )
            shown = shown.rename_axis(index=index, columns=columns)
        return shown.to_string(max_rows=_LINES, line_width=_WIDTH)

    def _repr_html_(self) -> str | None:
        if tuple(self.index.names) != INDEX:  # changed in place
            plain: str | None = pd.DataFrame(self)._repr_html_()  # type: ignore[operator]
            return plain
        codes = [*map(str, self.columns)]
        lines = [(*key, counts) for key, counts in zip(self.index, self.to_numpy().tolist(), strict=True)]
        return errcodes_html(codes, lines, self.kind, self.lang)
