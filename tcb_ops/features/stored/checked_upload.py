"""The calls of an upload with --backup, which looks at each path before it sends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tcb_ops.features.stored import StoredReason
from tcb_ops.features.stored.calls import (
    MD5,
    PAST_CACHES,
    EarlyEndError,
    StoredCalls,
    bad_status,
    bare_etag,
    prefix_of,
)
from tcb_ops.features.stored.client import NOT_THERE, FileStatus
from tcb_ops.features.stored.files import Backup, BackupError, Download, SavedFile
from tcb_ops.model import Link, Outcome, Row, RowEnd, is_source
from tcb_ops.runs.calls import FailedAttempt, SomeEnds, UploadCalls
from tcb_ops.runs.scheduler import Task


class CheckedUploadCalls(StoredCalls):
    """Makes the calls of an upload that looks at each path before it sends, and saves what is there."""

    backup: Backup

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Make the calls of a row until it ends or one fails."""
        return await UploadCalls.advance(self, task)

    async def _store(self, task: Task, link: Link) -> RowEnd | FailedAttempt:
        try:
            await self._before_store(task, link)
        except BackupError as error:
            return self._end(task, Outcome.FAILED, StoredReason.BACKUP_FAILED, error.text)
        except EarlyEndError as error:
            return error.result
        return await super()._store(task, link)

    async def _before_store(self, task: Task, link: Link) -> None:
        """Look at what is at the path, and save it. Raises EarlyEndError if the upload may not go on, and BackupError."""
        row, md5, saved_here = task.row, "", False
        ids = {row.line: f"{prefix_of(link.file_id, row.env)}/{row.path}"}
        while not saved_here:
            saved = await self._saved(row)
            file = (await self._ask_files(task, ids, self.file_client.locate)).get(row.line)
            if file is None or file.status not in {0, NOT_THERE}:
                raise EarlyEndError(self._file_refused(task, row, file))
            existing = file if not file.status else None
            if not is_source(row.file):
                md5 = await self._md5_of_local(task)
            if saved is not None and not await self._changed_since(task, existing, saved, md5):
                await self._note_sent(row, saved, md5)
                return
            # If another process has saved it meanwhile, that decides.
            saved_here = await self._save(task, existing, md5, saved)

    async def _note_sent(self, row: Row, saved: SavedFile, md5: str) -> None:
        """Note the MD5 of what is about to be sent, which may differ from what earlier attempts sent. Raises BackupError."""
        if md5 and md5 not in saved.sent:
            await asyncio.to_thread(self.backup.note_sent, row.line, md5)

    async def _changed_since(self, task: Task, file: FileStatus | None, saved: SavedFile, md5: str) -> bool:
        """Return whether a path that was saved before has to be looked at again: not if its file is the saved one, or ours.

        It was saved in a session that was killed, or by a row that a retry repeats. Somebody else may have changed it since.
        `md5`: of the local file, which may have changed since, too; empty for a URL.
        """
        now = await self._etag_there(task, file) if file is not None else ""
        if saved.has(now):
            return False
        if md5:  # noted before it is sent: the same bytes without a note are somebody else's
            return now not in saved.sent
        return now != await self._md5_of_local(task)

    async def _save(self, task: Task, file: FileStatus | None, md5: str, earlier: SavedFile | None) -> bool:
        """Save what is at a row's path, and note the MD5 of what is about to be sent there. Raises BackupError.

        `earlier`: the row's last record. Returns False if another process has saved the row since that was read.
        """
        row, version = task.row, earlier.version + 1 if earlier is not None else 1
        saved = SavedFile(row.env, row.path, "", sent=(md5,) if md5 else (), version=version)
        if file is None:
            self.lease.check()
            return await asyncio.to_thread(self.backup.save, row.line, saved)
        download = await asyncio.to_thread(Download, self.backup.part(row.line))
        try:
            fetching = self.file_client.fetch(file.url, headers=PAST_CACHES, sink=download.write)
            try:
                answer = await self._ask_store(task, self._end(task, Outcome.FAILED), fetching)
            finally:
                await asyncio.to_thread(download.close)
            etag = bare_etag(answer)
            if answer.status != 200 or (MD5.fullmatch(etag) and etag != download.md5):
                raise EarlyEndError(bad_status(self._end(task, Outcome.FAILED), answer))
            if earlier is not None and download.md5 in earlier.sent:  # ours after all
                await self._note_sent(row, earlier, md5)
                return True
            saved = replace(
                saved,
                md5=download.md5,
                content_type=answer.headers.get("content-type", ""),
                cache_control=answer.headers.get("cache-control", ""),
                etag="" if etag == download.md5 else etag,
            )
            self.lease.check()
            return await asyncio.to_thread(self.backup.save, row.line, saved, download.file)
        finally:
            await asyncio.to_thread(download.discard)
