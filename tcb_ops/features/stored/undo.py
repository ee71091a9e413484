"""The calls of an undo."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tcb_ops.details import DetailCode, detail
from tcb_ops.features.stored import StoredOutcome, StoredReason
from tcb_ops.features.stored.calls import GONE, EarlyEndError, StoredCalls
from tcb_ops.features.stored.files import (
    NOT_CERTAIN,
    BackupError,
    SavedFile,
    UndoStep,
    undo_step,
    uploaded_md5s,
)
from tcb_ops.i18n import Text
from tcb_ops.model import Outcome, RowEnd
from tcb_ops.runs.calls import FailedAttempt
from tcb_ops.runs.scheduler import Task
from tcb_ops.wechat.responses import NOT_THERE


class UndoCalls(StoredCalls):
    """Makes the calls of an undo."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        return [await self._undo(task)]

    async def _undo(self, task: Task) -> RowEnd | FailedAttempt:
        row, known, saved = task.row, self._known(task, task.row), await self._record_of(task)
        sent = saved.sent if saved is not None else ()
        if (why := self._not_ours(task, row, sent)) is not None:  # written after this run was planned
            return self._not_undoable(task, why)
        if saved is not None and saved.may_be_ours(
            uploaded_md5s(task.histories.get(row.path, []), self.subject)
        ):
            return self._not_undoable(task, detail(DetailCode.SAVED_AS_SENT))
        before = saved.md5 if saved is not None and row.file else None
        now = await self._now(task)
        if saved is not None and before and saved.has(now):
            now = before
        done = self._end(task, StoredOutcome.DELETED if before is None else StoredOutcome.RESTORED)
        file_id = known.file_id if known is not None else ""
        done = replace(done, md5=before or "", bytes=row.size if before else None, file_id=file_id)
        undone = self._is_undone(task, row)
        if known is not None or undone:
            ours = known.md5 if known is not None and not undone else ""
        else:
            ours = now if now in sent else min(sent, default="")
        same_headers = (
            known is not None
            and saved is not None
            and (known.content_type, known.cache_control) == (saved.content_type, saved.cache_control)
        )
        certain = known is not None or saved is not None
        match undo_step(now or None, ours, before, certain=certain, same_headers=same_headers):
            case UndoStep.NOTHING:
                acted = self._may_have_acted(task) and known is not None and not undone
                if (task.acted or acted) and now == (before or ""):
                    return done
                return replace(self._end(task, StoredOutcome.LEFT), md5=now, file_id=file_id)
            case UndoStep.NOT_KNOWN:
                return self._not_undoable(task, detail(DetailCode.NOT_KNOWN_WHOSE))
            case UndoStep.CONFLICT:
                return replace(done, outcome=StoredOutcome.CONFLICT, reason=StoredReason.CONFLICT, md5=now)
            case UndoStep.DELETE | UndoStep.RESTORE:
                return await self._take_back(task, before, sent)

    async def _take_back(
        self, task: Task, before: str | None, sent: Collection[str]
    ) -> RowEnd | FailedAttempt:
        """Store what an upload overwrote, by its MD5; None: delete what it added."""
        await self._read_histories(task)  # again: calls have been made meanwhile
        if (why := self._not_ours(task, task.row, sent)) is not None:
            return self._not_undoable(task, why)
        task.acted = True
        if before is not None:
            return await self._restore(task, before)
        (result,) = await self._delete_files(task)
        if isinstance(result, RowEnd) and result.outcome in GONE:
            return replace(result, outcome=StoredOutcome.DELETED)
        return result

    def _may_have_acted(self, task: Task) -> bool:
        """Return whether this undo may have taken the file back already, or another one whose answer was lost."""
        return (
            self.context.resumed
            or self.context.run.parent != ""
            or any(
                entry.run in self._taken_back_by and entry.outcome in NOT_CERTAIN
                for entry in task.histories.get(task.row.path, [])
            )
        )

    async def _record_of(self, task: Task) -> SavedFile | None:
        """Return what was saved for a row of an undo; ends the row if the record cannot be used."""
        row = task.row
        try:
            saved = await self._saved(row)
        except BackupError as error:
            raise self._backup_damaged(task, error.text) from None
        if row.file and (saved is None or (saved.env, saved.path) != (row.env, row.path)):
            raise self._backup_damaged(task)
        return saved

    def _backup_damaged(self, task: Task, why: Text | None = None) -> EarlyEndError:
        why = why or detail(DetailCode.BACKUP_DAMAGED, file=task.row.file)
        return EarlyEndError(self._end(task, Outcome.FAILED, StoredReason.BACKUP_DAMAGED, why))

    def _not_undoable(self, task: Task, why: Text) -> RowEnd:
        return self._end(task, StoredOutcome.NOT_UNDOABLE, StoredReason.NOT_UNDOABLE, why)

    async def _restore(self, task: Task, before: str) -> RowEnd | FailedAttempt:
        """Store what an upload overwrote; `before`: its MD5."""
        if await self._md5_of_local(task) != before:
            raise self._backup_damaged(task)
        sent = await self._link_and_store(task)
        if isinstance(sent, RowEnd) and sent.outcome is Outcome.UPLOADED:
            return replace(sent, outcome=StoredOutcome.RESTORED)
        return sent

    async def _now(self, task: Task) -> str:
        """Return the MD5 of what is at a row's path, empty where nothing is."""
        file = (await self._locate(task)).get(task.row.line)
        if file is not None and file.status == NOT_THERE:
            return ""
        if file is None or file.status:
            raise EarlyEndError(self._file_refused(task, task.row, file))
        return await self._etag_there(task, file)
