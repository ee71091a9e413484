"""A run as its operator holds it: counts, tables, exports. All of it is read from the ledger."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.model import GOOD, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from tcb_ops.reports.table import Cause
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.records import RowRecord, RunRecord
    from tcb_ops.settings import Settings

__all__ = ["Run"]


class Run:
    """A run in the ledger, finished or not."""

    def __init__(self, ledger: Ledger, record: RunRecord, settings: Settings) -> None:
        self._ledger, self.record, self._settings = ledger, record, settings

    def __repr__(self) -> str:
        counts = ", ".join(f"{outcome} {rows:,}" for outcome, rows in self.counts.items())
        return f"<Run {self.id} {self.record.kind}: {counts}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def counts(self) -> dict[str, int]:
        """Rows by outcome, without zeros, `pending` included: the sum is the rows in."""
        return {str(outcome): rows for outcome, rows in self.outcomes.items()}

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """The same, keyed by Outcome."""
        return self._ledger.counts(self.record)

    @property
    def good(self) -> bool:
        """Whether every row ended well."""
        return all(outcome in GOOD for outcome in self.outcomes)

    def summary(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        from tcb_ops.reports.summary import summary

        return summary(self._ledger, self._ledger.run(self.id))

    def causes(self) -> list[Cause]:
        """What is wrong, by merchant, environment and code, most rows first; no loading of all rows."""
        from tcb_ops.reports.table import errcode_table

        return errcode_table(self._ledger, self.record)

    def rows(self, *, line: int | None = None, merchant: str = "", path: str = "") -> Iterator[RowRecord]:
        """Stream rows in the order of the list, flat in memory; `path` is a cloud path or a part of one."""
        return self._ledger.rows(self.record, line=line, merchant=merchant, path=path)

    def merchants_like(self, name: str) -> list[str]:
        """Names of the run's merchants that hold `name`, or all of them; 20 at most."""
        names = list(
            dict.fromkeys(place.merchant for place in self._ledger.places(self.record) if place.merchant)
        )
        return ([known for known in names if name in known] or names)[:20]

    def results(self) -> pd.DataFrame:
        """Every row: the input's columns, then `tcb_line` … `tcb_ended_at` as in results.csv."""
        from tcb_ops.reports.frames import results_frame

        return results_frame(self._ledger, self.record, self._settings)

    def errcodes(self) -> pd.DataFrame:
        """Rows by merchant (appid, env) × errcode."""
        from tcb_ops.reports.frames import errcodes_frame

        return errcodes_frame(self._ledger, self.record)

    def export(self, dest: str | Path, *, replace: bool = False) -> Path:
        """Write the report folder: results.csv, failed.csv, errcodes.csv, report.html, manifest.json.

        A report of the same run at `dest` is replaced, with `replace` one of another run too; anything else there is a
        UsageError.
        """
        from tcb_ops.reports.export import export

        self.record = self._ledger.run(self.id)
        return export(self._ledger, self.record, Path(dest), self._settings, now=time.time(), replace=replace)
