"""The calls of a confirmation."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from tcb_ops.details import DetailCode, detail
from tcb_ops.features.stored import StoredOutcome, StoredReason
from tcb_ops.features.stored.calls import EarlyEndError, StoredCalls
from tcb_ops.features.stored.files import BackupError, confirm_outcome
from tcb_ops.model import Outcome, Row, RowEnd, Secret
from tcb_ops.runs.calls import FailedAttempt
from tcb_ops.runs.scheduler import Task
from tcb_ops.wechat.responses import NOT_THERE, FileStatus

_REASONS = {
    StoredOutcome.DIFFERENT: StoredReason.DIFFERENT,
    StoredOutcome.FOREIGN: StoredReason.FOREIGN,
    StoredOutcome.STALE: StoredReason.STALE,
}


class ConfirmCalls(StoredCalls):
    """Makes the calls of a confirmation."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        located = await self._locate(task)
        asks = self.content or any(self._is_undone(task, row) for row in task.rows)
        return await self._each(
            task.rows, lambda row: self._confirm_row(task, row, located.get(row.line)), asks=asks
        )

    async def _confirm_row(self, task: Task, row: Row, file: FileStatus | None) -> RowEnd:
        known, left = self._known(task, row), self._left_by_undo(task, row)
        if file is not None and file.status == NOT_THERE:
            if left == "":
                return self._row_end(task, row, StoredOutcome.UNDONE, file_id=file.file_id)
            end = self._row_end(task, row, StoredOutcome.ABSENT, StoredReason.ABSENT, file_id=file.file_id)
            return replace(end, md5=known.md5 if known else "")
        if file is None or file.status:
            raise EarlyEndError(self._file_refused(task, row, file))
        size = known.bytes if known else None
        end = self._row_end(task, row, StoredOutcome.PRESENT, file_id=file.file_id, bytes=size)
        if left is not None:  # a file may be there that is not the upload's
            etag = await self._etag(task, end, file.url, past_caches=True)
            if (etag or "") == left:
                return replace(end, outcome=StoredOutcome.UNDONE, md5=left, bytes=None)
        return await self._compare(task, row, end, file.url) if self.content or left is not None else end

    async def _compare(self, task: Task, row: Row, end: RowEnd, url: Secret) -> RowEnd:
        """Compare a file's ETag with the MD5 that was uploaded; past the caches where it differs."""
        known = self._known(task, row)
        if known is None:
            return replace(end, outcome=Outcome.UNKNOWN, reason=StoredReason.NO_CHECKSUM)
        first = await self._etag(task, end, url)
        if first == known.md5:
            return replace(end, md5=known.md5)
        etag = await self._etag(task, end, url, past_caches=True) if first is not None else None
        if first is None or etag is None:
            return replace(end, outcome=StoredOutcome.ABSENT, reason=StoredReason.ABSENT)
        outcome = StoredOutcome.STALE
        if etag != known.md5:
            outcome = confirm_outcome(etag, known.md5, await self._older(task, row))
        differs = detail(DetailCode.ETAG_DIFFERS, etag=first if etag == known.md5 else etag, md5=known.md5)
        return replace(end, outcome=outcome, reason=_REASONS[outcome], detail=differs, md5=known.md5)

    def _left_by_undo(self, task: Task, row: Row) -> str | None:
        """Return the MD5 of what an undo left at a row's path, empty for nothing; None unless one has taken the upload back."""
        if not self._is_undone(task, row):
            return None
        by_undo = {StoredOutcome.RESTORED, StoredOutcome.DELETED}
        return next(
            (entry.md5 for entry in reversed(task.histories[row.path]) if entry.outcome in by_undo), None
        )

    async def _older(self, task: Task, row: Row) -> set[str]:
        """Return the MD5s that are known of a row's path from before."""
        history, known = task.histories.get(row.path, []), self._known(task, row)
        before = history[: history.index(known)] if known is not None else []
        older = {entry.md5 for entry in before}
        with suppress(BackupError):
            saved = await self._saved(row)
            older.add(saved.md5 if saved is not None else "")
        return older
