"""Views of a run that reports read like the ledger: some of its rows, and the run merged with its retries."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from heapq import merge
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, Self, Unpack

from tcb_ops.kinds import Kind
from tcb_ops.ledger.database import BATCH
from tcb_ops.ledger.histories import columns_of, merged_runs
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import (
    EnvRecord,
    RowFilter,
    RowRecord,
    RunRecord,
    Tally,
    TimelineBucket,
    count_outcomes,
)
from tcb_ops.model import Outcome, Reason, Row


def merged_run(
    ledger: LedgerReader, run: RunRecord, only: frozenset[tuple[str, str]] | None = None
) -> RunView:
    """Merge the original of `run` (itself, unless it is a retry) with its retries (`report --final`).

    Its corrections count among its retries, and have it as their original. `only`: the environments whose rows
    the view has, each as (appid, env); None for all.
    """
    original, *retries = merged_runs(ledger, run)
    return RunView(ledger, original, retries, only)


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
    good = [state for state in ended if state.end.outcome.succeeded]
    return (good or ended or states)[-1]


class RunView(LedgerReader):
    """Reads one run's rows as from the ledger: their last states after `retries`, those of the environments in `only` (`--where`).

    `only` has each as (appid, env); None for all. Other runs are read unchanged, except for `only`. What the ledger has only
    of a whole single run (timeline, workers) is that of the view if it is one.
    """

    def __init__(
        self,
        reader: LedgerReader,
        run: RunRecord,
        retries: Sequence[RunRecord] = (),
        only: frozenset[tuple[str, str]] | None = None,
    ) -> None:
        vars(self).update(vars(reader))  # the same connections
        self._reader, self._retries, self.only = reader, retries, only
        self._whole = not retries and only is None
        self.record = self._shown(run)
        """The run as the view shows it; its field `rows` counts the whole run."""

    @property
    def ledger(self) -> LedgerReader:
        """The ledger itself."""
        return self._reader.ledger

    @property
    def unmerged(self) -> LedgerReader:
        """What the view reads from."""
        return self._reader

    def run(self, name: str, target: str | None = None, kinds: Collection[Kind] | None = None) -> RunRecord:
        """Find a run, as the ledger does."""
        run = self._reader.run(name, target, kinds)
        return self._shown(run) if run.id == self.record.id else run

    def envs(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments without counting their rows; of a merged run also those of its retries."""
        members = (run, *self._retries) if run.id == self.record.id else (run,)
        environments = {_key(each): each for member in members for each in self._reader.envs(member, only)}
        return [environment for environment in environments.values() if self._shows(environment)]

    def rows(self, run: RunRecord, **filters: Unpack[RowFilter]) -> Iterator[RowRecord]:
        """Stream the rows in the order of the list, in constant memory; of a merged run in their last states."""
        if not self._members(run):
            return (record for record in self._reader.rows(run, **filters) if self._shows(record.row))
        own = filters.copy()
        own["lines_not_of"] = [*filters.get("lines_not_of", ()), *(retry.number for retry in self._retries)]
        if (environments := filters.get("environments")) is not None:
            keys = set(map(_key, environments))
            own["environments"] = [each for each in self._reader.envs(self.record) if _key(each) in keys]
        once = self._reader.rows(self.record, **own)
        retried = map(last_state, self._retried(filters))
        records = merge(once, (record for record in retried if _fits(record, filters)), key=_line)
        return (record for record in records if self._shows(record.row))

    def _retried(self, filters: RowFilter) -> Iterator[list[RowRecord]]:
        """Stream the states of each line that was tried again, the oldest first; of the filters, those by line count."""
        states = []
        for retry in self._retries:
            records = self._reader.rows(
                retry,
                line=filters.get("line"),
                after_line=filters.get("after_line", -1),
                lines_not_of=filters.get("lines_not_of", ()),
            )
            if retry.headers != self.record.headers:
                columns = columns_of(self.record.headers, retry.headers)
                records = map(partial(_with_columns, columns=columns), records)
            states.append(records)
        by_line = (list(of_a_line) for _, of_a_line in groupby(merge(*states, key=_line), key=_line))
        while later := list(islice(by_line, BATCH)):
            lines = [states[0].row.line for states in later]
            first = {record.row.line: record for record in self._reader.rows(self.record, lines=lines)}
            yield from ([first[line], *states] for line, states in zip(lines, later, strict=True))

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first."""
        tallies = [tally for tally in self._reader.tallies(run) if self._shows(tally)]
        if not self._members(run):
            return tallies
        by_end = {tally.key: tally for tally in tallies}
        for states in self._retried({}):
            first, last = _tally(states[0]), _tally(last_state(states))
            if self._shows(first):
                by_end[first.key] = replace(by_end[first.key], rows=by_end[first.key].rows - 1)
            if self._shows(last):
                known = by_end.get(last.key, last)
                by_end[last.key] = replace(last, rows=known.rows + 1, errmsg=max(known.errmsg, last.errmsg))
        tallies = [tally for tally in by_end.values() if tally.rows]
        return sorted(tallies, key=lambda t: (-t.rows, t.merchant, t.env, t.outcome, t.errcode or 0))

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count rows by outcome, without zeros."""
        return count_outcomes(self.tallies(run))

    def planned_bytes(self, run: RunRecord, outcomes: frozenset[Outcome]) -> int:
        """Sum up the sizes of the local files of the rows with these outcomes."""
        return sum(record.row.size or 0 for record in self.rows(run, outcomes=outcomes))

    def members(self, run: RunRecord) -> list[RunRecord]:
        """Return the runs whose rows are a run's, the oldest first: those that are merged, else it and its retries."""
        return self._members(run) or self._reader.members(run)

    def _members(self, run: RunRecord) -> list[RunRecord]:
        """Return the runs that are merged; none if this is another run, or nothing is merged."""
        return [self.record, *self._retries] if self._retries and run.id == self.record.id else []

    def timeline(self, run: RunRecord, buckets: int = 60) -> list[TimelineBucket]:
        """Return how rows ended over time; retries are too far from the run for one chart."""
        return self._reader.timeline(run, buckets) if self._whole else []

    def previous(self, run: RunRecord, receiver: str = "") -> RunRecord | None:
        """Return None: only whole single runs are compared with earlier ones."""
        return None

    @contextmanager
    def snapshot(self) -> Iterator[Self]:
        """Open a consistent snapshot, which later writes do not change."""
        with self._reader.snapshot() as reader:
            retries = [reader.run(retry.id) for retry in self._retries]
            yield type(self)(reader, reader.run(self.record.id), retries, self.only)

    def _of_whole_runs(self, *_arguments: object) -> Any:
        """Refuse what the ledger tells of all rows of a run: here it would be those of others, too."""
        raise NotImplementedError

    records = listed = linked = pending = state = environments = check = _of_whole_runs  # type: ignore[assignment]

    def _shown(self, run: RunRecord) -> RunRecord:
        family = (run, *self._retries)
        ends = [each.finished_at for each in family if each.finished_at is not None]
        return replace(
            run,
            retries=tuple(retry.id for retry in self._retries) or run.retries,
            environments=run.environments if self.only is None else tuple(sorted(self.only)),
            finished_at=max(ends) if run.finished_at is not None else None,
            seconds=sum(each.seconds for each in family),
            link_calls=sum(each.link_calls for each in family),
            upload_calls=sum(each.upload_calls for each in family),
        )

    def _shows(self, part: EnvRecord | Row | Tally) -> bool:
        return self.only is None or _key(part) in self.only


_key, _line = attrgetter("appid", "env"), attrgetter("row.line")


def _fits(record: RowRecord, filters: RowFilter) -> bool:
    row, end = record.row, record.end
    if (outcomes := filters.get("outcomes")) is not None and end.outcome not in outcomes:
        return False
    state = end.outcome, end.reason or "", end.errcode, end.store_code
    if (ends := filters.get("ends")) is not None and state not in ends:
        return False
    if (environments := filters.get("environments")) is not None and _key(row) not in map(_key, environments):
        return False
    in_merchant = filters.get("merchant", "") in {"", row.merchant, row.appid}
    return in_merchant and filters.get("path", "").lower() in row.path.lower()


def _tally(record: RowRecord) -> Tally:
    """Return the tally of one row, with 0 rows."""
    row, end = record.row, record.end
    errmsg = end.errmsg if end.reason in {Reason.REFUSED, Reason.COMPONENT} else ""
    detail = end.detail if end.reason is not None and end.reason.explained else None
    key = (row.appid, row.merchant, row.env, end.outcome, end.reason, end.errcode, end.store_code)
    return Tally(*key, 0, errmsg, detail)


def _with_columns(record: RowRecord, columns: Sequence[int]) -> RowRecord:
    cells = record.row.cells
    return replace(record, row=replace(record.row, cells=tuple(cells[column] for column in columns)))
