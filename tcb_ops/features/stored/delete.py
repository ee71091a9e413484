"""The calls of a delete."""

from __future__ import annotations

from dataclasses import replace

from tcb_ops.features.stored import StoredOutcome, StoredReason
from tcb_ops.features.stored.calls import EarlyEndError
from tcb_ops.features.stored.confirm import ConfirmCalls
from tcb_ops.model import Outcome, Row, RowEnd
from tcb_ops.runs.calls import FailedAttempt
from tcb_ops.runs.scheduler import Task


class DeleteCalls(ConfirmCalls):
    """Makes the calls of a delete."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        results, ours = list[RowEnd | FailedAttempt](), list[Row]()
        for row in task.rows:
            why = self._not_ours(task, row)
            if why is not None:  # another run has written to its path since
                results.append(self._row_end(task, row, Outcome.FAILED, StoredReason.CONFLICT, why))
            else:
                ours.append(row)
        try:
            if self.content and ours:
                differing = await self._differing(replace(task, rows=ours))
                results += differing.values()
                ours = [row for row in ours if row.line not in differing]
            if not ours:
                return results
            return results + await self._delete_files(replace(task, rows=ours) if results else task)
        except EarlyEndError as error:
            return [*results, error.result]

    async def _differing(self, task: Task) -> dict[int, RowEnd | FailedAttempt]:
        """Compare the files of a delete with what was uploaded; return how those end that are not the same, by line."""
        located = await self._locate(task)
        ends = await self._each(
            task.rows, lambda row: self._confirm_row(task, row, located.get(row.line)), asks=True
        )
        differing: dict[int, RowEnd | FailedAttempt] = {}
        for row, end in zip(task.rows, ends, strict=True):
            match end:
                case RowEnd(outcome=StoredOutcome.PRESENT):
                    continue
                case RowEnd(outcome=StoredOutcome.ABSENT):
                    differing[row.line] = replace(end, outcome=StoredOutcome.ALREADY_GONE, reason=None)
                case RowEnd(
                    outcome=StoredOutcome.DIFFERENT
                    | StoredOutcome.FOREIGN
                    | StoredOutcome.STALE
                    | Outcome.UNKNOWN
                ):
                    differing[row.line] = replace(end, outcome=Outcome.FAILED, reason=StoredReason.CONFLICT)
                case _:
                    differing[row.line] = end
        return differing
