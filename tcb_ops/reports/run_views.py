"""Read-only views of a run that reports read like the ledger: their common part, and selected rows of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tcb_ops.model import Outcome
from tcb_ops.runs.reader import RunReader
from tcb_ops.runs.records import EnvRecord, Partition, RowRecord, RunRecord, Tally, TimelineBucket


class RunView:
    """The part of a RunReader that views have in common: they read from another reader and are compared with no run."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader

    @property
    def name(self) -> str:
        """The ledger's name in messages."""
        return self._reader.name

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for PostgreSQL."""
        return self._reader.file

    def previous(self, run: RunRecord) -> RunRecord | None:  # noqa: ARG002
        """Return None: only whole single runs are compared with earlier ones."""
        return None

    def exports(self, run: RunRecord) -> set[str]:
        """Return the SHA-256 of the manifest.json of each report of the run."""
        return self._reader.exports(run)

    def worked_on_by(self, run: RunRecord) -> str:
        """Return who else is working on the run; empty if nobody is."""
        return self._reader.worked_on_by(run)


class SelectedRows(RunView):
    """The rows of the environments in `only`, each as (appid, env): `report --where`, `Run.of_merchants`."""

    def __init__(self, reader: RunReader, only: frozenset[tuple[str, str]]) -> None:
        super().__init__(reader)
        self._only = only

    def run(self, wanted: str, target: str | None = None) -> RunRecord:
        """Find a run, as the ledger does; its field `rows` counts the whole run."""
        return replace(self._reader.run(wanted, target), environments=tuple(sorted(self._only)))

    def envs(self, run: RunRecord) -> list[EnvRecord]:
        """List the selected environments of a run without counting their rows."""
        return [one for one in self._reader.envs(run) if (one.appid, one.env) in self._only]

    def rows(
        self,
        run: RunRecord,
        *,
        outcomes: frozenset[Outcome] | None = None,
        merchant: str = "",
        path: str = "",
        line: int | None = None,
    ) -> Iterator[RowRecord]:
        """Stream the rows in the order of the list, in constant memory."""
        found = self._reader.rows(run, outcomes=outcomes, merchant=merchant, path=path, line=line)
        return (record for record in found if (record.row.appid, record.row.env) in self._only)

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count rows by outcome, without zeros."""
        counted: Counter[Outcome] = Counter()
        for one in self.tallies(run):
            counted[one.outcome] += one.rows
        return {outcome: counted[outcome] for outcome in Outcome if counted[outcome]}

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first."""
        return [one for one in self._reader.tallies(run) if (one.appid, one.env) in self._only]

    def first_failures(self, run: RunRecord, environment: EnvRecord, limit: int) -> list[RowRecord]:
        """Read the first rows of an environment that ended without success, in the order of the list."""
        return self._reader.first_failures(run, environment, limit)

    def planned_bytes(self, run: RunRecord, outcomes: frozenset[Outcome]) -> int:
        """Sum up the sizes of the local files of the rows with these outcomes."""
        return sum(record.row.size or 0 for record in self.rows(run, outcomes=outcomes))

    def timeline(self, run: RunRecord, buckets: int = 60) -> list[TimelineBucket]:  # noqa: ARG002
        """Return nothing: the ledger has the timeline of whole runs only."""
        return []

    def phase_seconds(self, run: RunRecord) -> dict[str, float]:  # noqa: ARG002
        """Return nothing: the phases are those of the whole run."""
        return {}

    def confirmation(self, run: RunRecord) -> tuple[str, dict[Outcome, int]] | None:  # noqa: ARG002
        """Return None: a confirmation counts the rows of the whole run."""
        return None

    def partitions(self, run: RunRecord) -> list[Partition]:  # noqa: ARG002
        """Return nothing: workers are those of the whole run."""
        return []

    @contextmanager
    def snapshot(self) -> Iterator[SelectedRows]:
        """Open a consistent snapshot, which later writes do not change."""
        with self._reader.snapshot() as seen:
            yield SelectedRows(seen, self._only)
