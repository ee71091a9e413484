"""The calls of a confirmation."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from dataclasses import replace
from functools import partial

from tcb_ops.details import DetailCode, detail
from tcb_ops.errcodes import Decision, Scope
from tcb_ops.features.stored import StoredOutcome, StoredReason
from tcb_ops.features.stored.calls import (
    EarlyEndError,
    StoredCalls,
)
from tcb_ops.features.stored.files import (
    BackupError,
    confirm_outcome,
    undone_outcome,
)
from tcb_ops.model import Outcome, Owner, Reason, Row, RowEnd, Secret
from tcb_ops.runs.calls import CallContext, FailedAttempt
from tcb_ops.runs.records import EarlierUpload
from tcb_ops.runs.scheduler import Task
from tcb_ops.wechat.responses import (
    NOT_THERE,
    BucketPage,
    FileStatus,
)

_DIFFERING = {
    StoredOutcome.DIFFERENT: StoredReason.DIFFERENT,
    StoredOutcome.FOREIGN: StoredReason.FOREIGN,
    StoredOutcome.STALE: StoredReason.STALE,
}


class ConfirmCalls(StoredCalls):
    """Makes the calls of a confirmation."""

    def __init__(self, context: CallContext) -> None:
        super().__init__(context)
        self._listings: dict[int, Listing] = {}

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        return await self._confirm(task)

    async def _confirm(self, task: Task) -> list[RowEnd | FailedAttempt]:
        if task.lane.owner == Owner.PLATFORM:
            listing = await self._listing(task)
            return [self._as_listed(task, row, listing.etag(row.path)) for row in task.rows]
        located = await self._locate(task)
        asks = self.content or any(self._undone(task, row) is not None for row in task.rows)
        return await self._each(
            task.rows, lambda row: self._confirm_row(task, row, located.get(row.line)), asks=asks
        )

    async def _confirm_row(self, task: Task, row: Row, file: FileStatus | None) -> RowEnd:
        known, undone = self._known(task, row), self._undone(task, row)
        if file is not None and file.status == NOT_THERE:
            md5 = known.md5 if known else ""
            if undone is not None and undone_outcome(None, undone.md5) is StoredOutcome.UNDONE:
                return self._row_end(task, row, StoredOutcome.UNDONE, file_id=file.file_id)
            return self._row_end(
                task, row, StoredOutcome.ABSENT, StoredReason.ABSENT, file_id=file.file_id, md5=md5
            )
        if file is None or file.status:
            raise EarlyEndError(self._file_refused(task, row, file))
        size = known.bytes if known else None
        end = self._row_end(task, row, StoredOutcome.PRESENT, file_id=file.file_id, bytes=size)
        if undone is not None:  # a file may be there that is not the upload's
            etag = await self._etag(task, end, file.url, past_caches=True)
            if undone_outcome(etag, undone.md5) is StoredOutcome.UNDONE:
                return replace(end, outcome=StoredOutcome.UNDONE, md5=undone.md5, bytes=None)
        return await self._compare(task, row, end, file.url) if self.content or undone is not None else end

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
        return _differing(end, outcome, first if etag == known.md5 else etag, known.md5)

    async def _listing(self, task: Task) -> Listing:
        """Return the listing of an environment that the platform owns, which is read once."""
        listing = self._listings.setdefault(task.lane.number, Listing())
        async with listing.lock:
            while not listing.complete:
                marker = listing.marker
                page = await self._answer(task, partial(self.wechat.bucket, task.row.env, marker=marker))
                if page.next_marker and page.next_marker <= marker:  # the same keys again
                    why = detail(DetailCode.LISTING_REPEATS)
                    end = self._end(task, Outcome.FAILED, Reason.NO_ANSWER, why)
                    raise EarlyEndError(FailedAttempt(end, Decision.RETRY, Scope.ROW, "link"))
                listing.add(page)
        return listing

    def _as_listed(self, task: Task, row: Row, etag: str | None) -> RowEnd:
        """Return the end of a row whose file is listed with an ETag; None if it is not listed."""
        known, undone = self._known(task, row), self._undone(task, row)
        end = self._row_end(task, row, StoredOutcome.PRESENT, md5=known.md5 if known else "")
        if undone is not None and undone_outcome(etag, undone.md5) is StoredOutcome.UNDONE:
            return replace(end, outcome=StoredOutcome.UNDONE, md5=undone.md5)
        if etag is None:
            return replace(end, outcome=StoredOutcome.ABSENT, reason=StoredReason.ABSENT)
        if known is None:
            return (
                replace(end, outcome=Outcome.UNKNOWN, reason=StoredReason.NO_CHECKSUM)
                if self.content
                else end
            )
        if not etag:  # the listing does not say what is there
            unseen = Outcome.UNKNOWN if self.content else StoredOutcome.PRESENT
            return replace(end, outcome=unseen, reason=Reason.UNVERIFIED)
        outcome = confirm_outcome(etag, known.md5, ())
        return end if outcome is StoredOutcome.PRESENT else _differing(end, outcome, etag, known.md5)

    def _undone(self, task: Task, row: Row) -> EarlierUpload | None:
        """Return what an undo left at the path of a row that is confirmed; None unless one has taken the upload back."""
        history = task.histories.get(row.path, [])
        if self.files is None or not self.files.is_undone(history):
            return None
        by_undo = {StoredOutcome.RESTORED, StoredOutcome.DELETED}
        return next((entry for entry in reversed(history) if entry.outcome in by_undo), None)

    async def _older(self, task: Task, row: Row) -> set[str]:
        """Return the MD5s that are known of a row's path from before."""
        history, known = task.histories.get(row.path, []), self._known(task, row)
        before = history[: history.index(known)] if known is not None else []
        with suppress(BackupError):
            saved = await self._saved(row)
            return {one.md5 for one in before} | {saved.md5 if saved is not None else ""}
        return {one.md5 for one in before}


class Listing:
    """The keys of an environment, on disk: there may be millions."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.complete = False
        self.marker = ""
        self._found = sqlite3.connect("", check_same_thread=False)
        self._found.execute("CREATE TABLE objects (key TEXT PRIMARY KEY, etag TEXT) WITHOUT ROWID")

    def add(self, page: BucketPage) -> None:
        """Take a page."""
        self._found.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?)", page.objects)
        self.complete = not page.next_marker
        self.marker = page.next_marker

    def etag(self, key: str) -> str | None:
        """Return a key's ETag; None if it is missing."""
        found = self._found.execute("SELECT etag FROM objects WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None


def _differing(end: RowEnd, outcome: Outcome, etag: str, md5: str) -> RowEnd:
    differs = detail(DetailCode.ETAG_DIFFERS, etag=etag, md5=md5)
    return replace(end, outcome=outcome, reason=_DIFFERING[outcome], detail=differs, md5=md5)
