"""The causes of a run, which are a DataFrame, and a card in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd

from tcb_ops.i18n import Lang
from tcb_ops.kinds import Kind
from tcb_ops.reports.cards import causes_html

COLUMNS = ("code", "merchant", "appid", "env", "rows", "meaning", "action")


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

    def _repr_html_(self) -> str | None:
        if tuple(self.columns) != COLUMNS:  # changed in place
            plain: str | None = pd.DataFrame(self)._repr_html_()  # type: ignore[operator]
            return plain
        return causes_html(self.itertuples(index=False), self.verdicts, self.kind, self.lang)
