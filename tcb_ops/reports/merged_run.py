"""A run as it stands after its retries: the last state of each original row (`report --final`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import merge
from itertools import groupby, islice
from typing import Any

from tcb_ops.errors import RunNotFoundError
from tcb_ops.model import GOOD, Outcome, Reason
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.records import EnvRecord, Moment, RowRecord, RunRecord, Tally


def final_ledger(ledger: Ledger, run: RunRecord) -> FinalLedger:
    """Look at a ledger so that the original of `run` (itself, where it is no retry) stands there with its retries."""
    while run.parent:
        try:
            run = ledger.run(run.parent)
        except RunNotFoundError:  # it was deleted: this is the oldest that there is
            break
    return FinalLedger(ledger, run)


def last_state(states: Sequence[RowRecord]) -> RowRecord:
    """Choose among a row's states in a run and its retries, the oldest first.

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

    A good one is not undone by a retry that began before it was known to be good.
    """
    ended = [state for state in states if state.end.outcome is not Outcome.PENDING]
    good = [state for state in ended if state.end.outcome in GOOD]
    return (good or ended or states)[-1]


class FinalLedger(Ledger):
    """A ledger in which one run shows its rows' last states. Reports read from it as from any other."""

    def __init__(self, ledger: Ledger, run: RunRecord) -> None:
        self.__dict__.update(vars(ledger))  # the same connections: a view, not another ledger
        self._retries = Ledger.retries(self, run)
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
        found = super().run(wanted, target)
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
        """Stream the rows' last states in the order of the list, flat in memory."""
        family = [run] if run.id != self.original.id else [self.original, *self._retries]
        states = merge(
            *(super(FinalLedger, self).rows(one, path=path, line=line) for one in family),
            key=lambda record: record.row.line,
        )
        for _, of_a_line in groupby(states, key=lambda record: record.row.line):
            record = last_state(list(of_a_line))
            fits = outcomes is None or record.end.outcome in outcomes
            if fits and (not merchant or merchant in {record.row.merchant, record.row.appid}):
                yield record

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Rows by outcome, without zeros: their sum is the original's rows in."""
        counted: Counter[Outcome] = Counter()
        for tally in self.tallies(run):
            counted[tally.outcome] += tally.rows
        return {outcome: counted[outcome] for outcome in Outcome if counted[outcome]}

    def _tally(self, run: RunRecord) -> list[Tally]:
        counted: Counter[tuple[Any, ...]] = Counter()
        details: dict[tuple[Any, ...], str] = {}
        for record in self.rows(run):
            row, end = record.row, record.end
            key = (row.appid, row.merchant, row.env, end.outcome, end.reason, end.errcode, end.store_code)
            counted[key] += 1
            if end.reason is Reason.NO_TOKEN:
                details[key] = max(details.get(key, ""), end.detail)
            elif end.reason in {Reason.REFUSED, Reason.COMPONENT}:
                details[key] = max(details.get(key, ""), end.errmsg)
        found = [Tally(*(*key, rows, details.get(key, ""))) for key, rows in counted.items()]
        found.sort(key=lambda t: (-t.rows, t.merchant, t.env, t.outcome, t.errcode or 0))
        return found

    def first_failures(self, run: RunRecord, place: EnvRecord, limit: int) -> list[RowRecord]:
        """Read the first rows of one environment that are not good even now, as far as they are among its first 50."""
        once = super().first_failures(run, place, 50 if self._retries else limit)
        last = (record for one in once for record in self.rows(run, line=one.row.line))
        return list(islice((record for record in last if record.end.outcome not in GOOD), limit))

    def timeline(self, run: RunRecord, buckets: int = 60) -> list[Moment]:
        """Nothing where there are retries: they are days apart, and have no course that one picture could show."""
        return [] if self._retries else super().timeline(run, buckets)

    def phase_seconds(self, run: RunRecord) -> dict[str, float]:
        """Nothing where there are retries, for the same reason."""
        return {} if self._retries else super().phase_seconds(run)

    def previous(self, run: RunRecord) -> RunRecord | None:  # noqa: ARG002
        """None: what has changed since an earlier run is told of single runs."""
        return None
