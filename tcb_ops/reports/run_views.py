"""Read-only views of a run that reports read like the ledger: some of its rows, and the run merged with its retries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from heapq import merge
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from tcb_ops.details import Detail
from tcb_ops.errors import RunNotFoundError
from tcb_ops.model import SUCCESSES, Outcome, Reason
from tcb_ops.reports.summary import count_outcomes
from tcb_ops.runs.reader import LedgerReader, RunReader
from tcb_ops.runs.records import EnvRecord, Partition, RowRecord, RunRecord, Tally, TimelineBucket


class RunView(ABC):
    """The part of a RunReader that views have in common: they read from another reader and are compared with no run.

    `whole`: whether what the ledger has only of a whole single run (timeline, phases, workers) is that of the view.
    """

    def __init__(self, reader: RunReader, *, whole: bool) -> None:
        self._reader, self._whole = reader, whole

    @property
    def name(self) -> str:
        """The ledger's name in messages."""
        return self._reader.name

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for PostgreSQL."""
        return self._reader.file

    def envs(self, run: RunRecord) -> list[EnvRecord]:
        """List a run's environments without counting their rows."""
        return self._reader.envs(run)

    @abstractmethod
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

    @abstractmethod
    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first."""

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count rows by outcome, without zeros."""
        return count_outcomes(self.tallies(run))

    def planned_bytes(self, run: RunRecord, outcomes: frozenset[Outcome]) -> int:
        """Sum up the sizes of the local files of the rows with these outcomes."""
        return sum(record.row.size or 0 for record in self.rows(run, outcomes=outcomes))

    def timeline(self, run: RunRecord, buckets: int = 60) -> list[TimelineBucket]:
        """Return how rows ended over time; nothing unless `whole`: retries are too far from the run for one chart."""
        return self._reader.timeline(run, buckets) if self._whole else []

    def phase_seconds(self, run: RunRecord) -> dict[str, float]:
        """Return the seconds that the run spent in each phase; nothing unless `whole`."""
        return self._reader.phase_seconds(run) if self._whole else {}

    def partitions(self, run: RunRecord) -> list[Partition]:
        """List the partitions of a run on a cluster; nothing unless `whole`."""
        return self._reader.partitions(run) if self._whole else []

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
        super().__init__(reader, whole=False)
        self._only = only

    def run(self, wanted: str, target: str | None = None) -> RunRecord:
        """Find a run, as the ledger does; its field `rows` counts the whole run."""
        return replace(self._reader.run(wanted, target), environments=tuple(sorted(self._only)))

    def envs(self, run: RunRecord) -> list[EnvRecord]:
        """List the selected environments of a run without counting their rows."""
        return [one for one in self._reader.envs(run) if (one.appid, one.env) in self._only]

    def rows(self, run: RunRecord, **wanted: Any) -> Iterator[RowRecord]:
        """Stream the rows in the order of the list, in constant memory."""
        found = self._reader.rows(run, **wanted)
        return (record for record in found if (record.row.appid, record.row.env) in self._only)

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first."""
        return [one for one in self._reader.tallies(run) if (one.appid, one.env) in self._only]

    def first_failures(self, run: RunRecord, environment: EnvRecord, limit: int) -> list[RowRecord]:
        """Read the first rows of an environment that ended without success, in the order of the list."""
        return self._reader.first_failures(run, environment, limit)

    def confirmation(self, run: RunRecord) -> tuple[str, dict[Outcome, int]] | None:  # noqa: ARG002
        """Return None: a confirmation counts the rows of the whole run."""
        return None

    @contextmanager
    def snapshot(self) -> Iterator[SelectedRows]:
        """Open a consistent snapshot, which later writes do not change."""
        with self._reader.snapshot() as seen:
            yield SelectedRows(seen, self._only)


def merged_run(ledger: LedgerReader, run: RunRecord) -> MergedRun:
    """Merge the original of `run` (itself, unless it is a retry) with its retries."""
    while run.parent:
        try:
            run = ledger.run(run.parent)
        except RunNotFoundError:  # the parent was deleted: this is the oldest run that remains
            break
    return MergedRun(ledger, run)


def last_state(states: Sequence[RowRecord]) -> RowRecord:
    """Return the last of a row's states in a run and its retries, given oldest first.

    ===========================================  =====================
    states                                       the last one
    ===========================================  =====================
    uploaded                                     uploaded
    failed, refused                              refused
    failed, uploaded                             uploaded
    failed, pending (its retry is unfinished)    failed
    failed, uploaded, refused                    uploaded: it was done
    pending                                      pending
    ===========================================  =====================

    A retry that began before a success was known does not undo it.
    """
    ended = [state for state in states if state.end.outcome is not Outcome.PENDING]
    good = [state for state in ended if state.end.outcome in SUCCESSES]
    return (good or ended or states)[-1]


class MergedRun(RunView):
    """The last states of one run's rows, and other runs unchanged (`report --final`)."""

    def __init__(self, ledger: LedgerReader, run: RunRecord) -> None:
        self._ledger, self._retries = ledger, ledger.retries(run)
        super().__init__(ledger, whole=not self._retries)
        family = (run, *self._retries)
        ends = [one.finished_at for one in family if one.finished_at is not None]
        self.original = replace(
            run,
            retries=tuple(retry.id for retry in self._retries),
            finished_at=max(ends) if run.finished_at is not None else None,
            seconds=sum(one.seconds for one in family),
            link_calls=sum(one.link_calls for one in family),
            upload_calls=sum(one.upload_calls for one in family),
        )

    def run(self, wanted: str, target: str | None = None) -> RunRecord:
        """Find a run, as the ledger does."""
        found = self._ledger.run(wanted, target)
        return replace(self.original, report=found.report) if found.id == self.original.id else found

    def rows(
        self,
        run: RunRecord,
        *,
        outcomes: frozenset[Outcome] | None = None,
        merchant: str = "",
        path: str = "",
        line: int | None = None,
    ) -> Iterator[RowRecord]:
        """Stream the rows' last states in the order of the list, in constant memory."""
        family = [run] if run.id != self.original.id else [self.original, *self._retries]
        states = merge(
            *(self._ledger.rows(one, path=path, line=line) for one in family),
            key=lambda record: record.row.line,
        )
        for _, of_a_line in groupby(states, key=lambda record: record.row.line):
            record = last_state(list(of_a_line))
            fits = outcomes is None or record.end.outcome in outcomes
            if fits and (not merchant or merchant in {record.row.merchant, record.row.appid}):
                yield record

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first."""
        counted: Counter[tuple[Any, ...]] = Counter()
        errmsgs: dict[tuple[Any, ...], str] = {}
        details: dict[tuple[Any, ...], Detail | None] = {}
        for record in self.rows(run):
            row, end = record.row, record.end
            key = (row.appid, row.merchant, row.env, end.outcome, end.reason, end.errcode, end.store_code)
            counted[key] += 1
            if end.reason is Reason.NO_TOKEN:
                details[key] = end.detail
            elif end.reason in {Reason.REFUSED, Reason.COMPONENT}:
                errmsgs[key] = max(errmsgs.get(key, ""), end.errmsg)
        found = [
            Tally(*(*key, rows, errmsgs.get(key, ""), details.get(key))) for key, rows in counted.items()
        ]
        return sorted(found, key=lambda t: (-t.rows, t.merchant, t.env, t.outcome, t.errcode or 0))

    def first_failures(self, run: RunRecord, place: EnvRecord, limit: int) -> list[RowRecord]:
        """Read the first rows of an environment that have still not succeeded, of the first 50 that once did not."""
        once = self._ledger.first_failures(run, place, 50 if self._retries else limit)
        last = (record for one in once for record in self.rows(run, line=one.row.line))
        return list(islice((record for record in last if record.end.outcome not in SUCCESSES), limit))

    def confirmation(self, run: RunRecord) -> tuple[str, dict[Outcome, int]] | None:
        """Find the newest finished run that confirmed an upload, as the ledger does."""
        return self._ledger.confirmation(run)

    @contextmanager
    def snapshot(self) -> Iterator[MergedRun]:
        """Open a consistent snapshot, which later writes do not change."""
        with self._ledger.snapshot() as seen:
            yield MergedRun(seen, seen.run(self.original.id))
