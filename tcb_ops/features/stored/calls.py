"""The calls of runs about stored files: confirm, delete, undo; and the check before an upload with --if-exists or --backup.

A call names up to 50 files of one environment, and each file has its own status in the answer. What an answer leads to is
decided by the pure functions of `stored_files`, which names the sources.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.errcodes import Decision, Scope, errcode
from tcb_ops.errors import TransportError
from tcb_ops.features.stored.files import (
    Backup,
    BackupError,
    Download,
    SavedFile,
    UndoStep,
    WrittenFiles,
    confirm_outcome,
    stored_by,
    undo_step,
    undone_outcome,
    uploaded_md5s,
)
from tcb_ops.i18n import Text
from tcb_ops.model import Link, Outcome, Owner, Reason, Row, RowEnd, Secret, is_source
from tcb_ops.runs.calls import CallContext, FailedAttempt, SomeEnds, UploadCalls
from tcb_ops.runs.records import EarlierUpload
from tcb_ops.runs.scheduler import Task
from tcb_ops.runs.uploads import OVERWRITE, IfExists
from tcb_ops.wechat.local_files import FileChangedError, FileUnreadableError
from tcb_ops.wechat.responses import (
    NOT_THERE,
    ApiError,
    BucketPage,
    FileStatus,
    HttpResponse,
    InvalidResponse,
    UnsafeLink,
)

_GOES_AGAIN = frozenset({Decision.RETRY, Decision.RETRY_ONCE, Decision.SLOW, Decision.REFRESH})
_GONE = frozenset({Outcome.DELETED, Outcome.ALREADY_GONE})
_MD5 = re.compile(r"[0-9a-f]{32}")
_ETAG = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")
_GOOD = frozenset({200, 206})
"""HTTP statuses of a file's bytes."""
_PAST_CACHES = {"Cache-Control": "no-cache"}

Found = TypeVar("Found")
AskFiles: TypeAlias = Callable[
    [str, Sequence[str], Secret, Owner], Awaitable[dict[str, FileStatus] | ApiError | InvalidResponse]
]


class _EarlyEndError(Exception):
    """A row, or all rows of a call, go no further; `result`: how they end, or the attempt that failed."""

    def __init__(self, result: RowEnd | FailedAttempt) -> None:
        super().__init__()
        self.result = result


class StoredCalls(UploadCalls):
    """Makes the calls of rows about stored files. What uploads and restores send goes through `UploadCalls`.

    Where a row goes no further, the methods raise `_EarlyEndError`.
    """

    def __init__(self, context: CallContext) -> None:
        super().__init__(context)
        chosen, limits = context.run.settings, context.limits
        self.content = bool(chosen.get("content"))
        """Whether bytes are compared."""
        self.subject: tuple[str, ...] = tuple(chosen.get("of", ()))
        """The runs whose files are meant; empty for the newest that the ledger knows."""
        reads = context.run.kind.reads_written
        self.files = WrittenFiles(context.ledger, context.run, resumed=context.resumed) if reads else None
        self.if_exists: IfExists = chosen.get("if_exists", OVERWRITE)
        self.backup = Backup(Path(chosen["backup"])) if chosen.get("backup") else None
        self.per_call = limits.per_env
        """Files of one call that are checked at once."""
        self.gate = asyncio.Semaphore(limits.concurrency)
        """Limits the file checks under way at once, in all."""
        self._prefixes: dict[int, str] = {}
        """`cloud://<env>.<bucket>` by lane."""
        self._listings: dict[int, Listing] = {}

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        raise NotImplementedError

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Take rows as far as their calls succeed."""
        await self._read_histories(task)
        try:
            results = await self._work(task)
        except _EarlyEndError as error:
            results = [error.result]
        ends = list[RowEnd]()
        rest: FailedAttempt | None = None
        for result in results:
            if isinstance(result, RowEnd):
                ends.append(self.context.run.kind.end_of(result))
            else:
                rest = rest or replace(result, end=self.context.run.kind.end_of(result.end))
        return SomeEnds(ends, rest)

    # --- confirm ------------------------------------------------------------------------------------------------

    async def _confirm(self, task: Task) -> list[RowEnd | FailedAttempt]:
        if task.lane.owner == Owner.PLATFORM:
            listing = await self._listing(task)
            return [self._as_listed(task, row, listing.etag(row.path)) for row in task.rows]
        located = await self._locate(task)
        asks = self.content or any(self._undone(task, row) is not None for row in task.rows)
        self.phases.enter("store")
        try:
            return await self._each(
                task.rows, lambda row: self._confirm_row(task, row, located.get(row.line)), asks=asks
            )
        finally:
            self.phases.leave("store")

    async def _confirm_row(self, task: Task, row: Row, file: FileStatus | None) -> RowEnd:
        known, undone = self._known(task, row), self._undone(task, row)
        if file is not None and file.status == NOT_THERE:
            md5 = known.md5 if known else ""
            if undone is not None and undone_outcome(None, undone.md5) is Outcome.UNDONE:
                return self._row_end(task, row, Outcome.UNDONE, file_id=file.file_id)
            return self._row_end(task, row, Outcome.ABSENT, Reason.ABSENT, file_id=file.file_id, md5=md5)
        if file is None or file.status:
            raise _EarlyEndError(self._file_refused(task, row, file))
        size = known.bytes if known else None
        end = self._row_end(task, row, Outcome.PRESENT, file_id=file.file_id, bytes=size)
        if undone is not None:  # a file may be there that is not the upload's
            etag = await self._etag(task, end, file.url, past_caches=True)
            if undone_outcome(etag, undone.md5) is Outcome.UNDONE:
                return replace(end, outcome=Outcome.UNDONE, md5=undone.md5, bytes=None)
        return await self._compare(task, row, end, file.url) if self.content or undone is not None else end

    def _file_refused(self, task: Task, row: Row, file: FileStatus | None) -> RowEnd | FailedAttempt:
        """Return what a file's own status leads to; one that was left out is asked for again."""
        if file is None:
            left_out = detail(DetailCode.FILE_LEFT_OUT)
            end = self._row_end(task, row, Outcome.FAILED, Reason.NO_ANSWER, left_out)
            return FailedAttempt(end, Decision.RETRY, Scope.ROW, "link")
        end = replace(
            self._row_end(task, row, Outcome.REFUSED, Reason.REFUSED, file_id=file.file_id),
            errcode=file.status,
            errmsg=file.errmsg,
        )
        goes_again = errcode(file.status).decision in _GOES_AGAIN
        return FailedAttempt(end, Decision.RETRY, Scope.ROW, "link") if goes_again else end

    async def _compare(self, task: Task, row: Row, end: RowEnd, url: Secret) -> RowEnd:
        """Compare a file's ETag with the MD5 that was uploaded; past the caches where it differs."""
        known = self._known(task, row)
        if known is None:
            return replace(end, outcome=Outcome.UNKNOWN, reason=Reason.NO_CHECKSUM)
        first = await self._etag(task, end, url)
        if first == known.md5:
            return replace(end, md5=known.md5)
        etag = await self._etag(task, end, url, past_caches=True) if first is not None else None
        if first is None or etag is None:
            return replace(end, outcome=Outcome.ABSENT, reason=Reason.ABSENT)
        outcome = Outcome.STALE
        if etag != known.md5:
            outcome = confirm_outcome(etag, known.md5, await self._older(task, row))
        return _differing(end, outcome, first if etag == known.md5 else etag, known.md5)

    async def _etag(self, task: Task, end: RowEnd, url: Secret, *, past_caches: bool = False) -> str | None:
        """Ask for a file's ETag, in lower case without quotes; without an MD5 in it, hash the whole file.

        None if the file is missing. `end`: of its row, so far.
        """
        async with self.gate:
            answer = await self._ask_store(task, end, self.wechat.look(url, past_caches=past_caches))
            etag = bare_etag(answer)
            if answer.status == 416 or (answer.status in _GOOD and not _ETAG.fullmatch(etag)):
                whole = Download(None)
                headers = _PAST_CACHES if past_caches else {}
                fetching = self.wechat.fetch(url, headers=headers, sink=whole.write)
                answer = await self._ask_store(task, end, fetching)
                etag = whole.md5
        if answer.status == 404:
            return None
        if answer.status not in _GOOD:
            raise _EarlyEndError(_bad_status(end, answer))
        return etag

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
                    raise _EarlyEndError(FailedAttempt(end, Decision.RETRY, Scope.ROW, "link"))
                listing.add(page)
        return listing

    def _as_listed(self, task: Task, row: Row, etag: str | None) -> RowEnd:
        """Return the end of a row whose file is listed with an ETag; None if it is not listed."""
        known, undone = self._known(task, row), self._undone(task, row)
        end = self._row_end(task, row, Outcome.PRESENT, md5=known.md5 if known else "")
        if undone is not None and undone_outcome(etag, undone.md5) is Outcome.UNDONE:
            return replace(end, outcome=Outcome.UNDONE, md5=undone.md5)
        if etag is None:
            return replace(end, outcome=Outcome.ABSENT, reason=Reason.ABSENT)
        if known is None:
            return replace(end, outcome=Outcome.UNKNOWN, reason=Reason.NO_CHECKSUM) if self.content else end
        if not etag:  # the listing does not say what is there
            unseen = Outcome.UNKNOWN if self.content else Outcome.PRESENT
            return replace(end, outcome=unseen, reason=Reason.UNVERIFIED)
        outcome = confirm_outcome(etag, known.md5, ())
        return end if outcome is Outcome.PRESENT else _differing(end, outcome, etag, known.md5)

    # --- delete -------------------------------------------------------------------------------------------------

    async def _delete(self, task: Task) -> list[RowEnd | FailedAttempt]:
        results, ours = list[RowEnd | FailedAttempt](), list[Row]()
        for row in task.rows:
            why = self._not_ours(task, row)
            if why is not None:  # another run has written to its path since
                results.append(self._row_end(task, row, Outcome.FAILED, Reason.CONFLICT, why))
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
        except _EarlyEndError as error:
            return [*results, error.result]

    async def _differing(self, task: Task) -> dict[int, RowEnd | FailedAttempt]:
        """Compare the files of a delete with what was uploaded; return how those end that are not the same, by line."""
        located = await self._locate(task)
        ends = await self._each(
            task.rows, lambda row: self._confirm_row(task, row, located.get(row.line)), asks=True
        )
        found: dict[int, RowEnd | FailedAttempt] = {}
        for row, end in zip(task.rows, ends, strict=True):
            match end:
                case RowEnd(outcome=Outcome.PRESENT):
                    continue
                case RowEnd(outcome=Outcome.ABSENT):
                    found[row.line] = replace(end, outcome=Outcome.ALREADY_GONE, reason=None)
                case RowEnd(outcome=Outcome.DIFFERENT | Outcome.FOREIGN | Outcome.STALE | Outcome.UNKNOWN):
                    found[row.line] = replace(end, outcome=Outcome.FAILED, reason=Reason.CONFLICT)
                case _:
                    found[row.line] = end
        return found

    async def _delete_files(self, task: Task) -> list[RowEnd | FailedAttempt]:
        ids = await self._file_ids(task)
        self.lease.check()
        answer = await self._ask_files(task, ids, self.wechat.delete)
        gone = [line for line, file in answer.items() if file.status == NOT_THERE]
        second: dict[int, FileStatus] = {}
        unanswered: RowEnd | FailedAttempt | None = None
        if gone:
            try:
                second = await self._ask_files(task, {line: ids[line] for line in gone}, self.wechat.locate)
            except _EarlyEndError as error:
                unanswered = error.result
        results: list[RowEnd | FailedAttempt] = []
        for row in task.rows:
            file, again = answer.get(row.line), second.get(row.line)
            if file is None or file.status not in {0, NOT_THERE}:
                results.append(self._file_refused(task, row, file))
            elif not file.status:
                results.append(self._row_end(task, row, Outcome.DELETED, file_id=file.file_id))
            elif again is not None and again.status == NOT_THERE:
                results.append(self._row_end(task, row, Outcome.ALREADY_GONE, file_id=file.file_id))
            else:  # it is there after all, or the second answer leaves it out
                there = None if again is None or not again.status else again
                results.append(unanswered or self._file_refused(task, row, there))
        return results

    # --- undo ---------------------------------------------------------------------------------------------------

    async def _undo(self, task: Task) -> list[RowEnd | FailedAttempt]:
        return [await self._undo_row(task, task.row)]

    async def _undo_row(self, task: Task, row: Row) -> RowEnd | FailedAttempt:
        known = self._known(task, row)
        if (why := self._not_ours(task, row)) is not None:  # written after this run was planned
            return self._not_undoable(task, why)
        saved = await self._record_of(task)
        if saved is not None and saved.may_be_ours(
            uploaded_md5s(task.histories.get(row.path, []), self.subject)
        ):
            return self._not_undoable(task, detail(DetailCode.SAVED_AS_SENT))
        before = saved.md5 if saved is not None and row.file else None
        now = await self._now(task)
        if saved is not None and before and saved.has(now):
            now = before
        done = self._end(task, Outcome.DELETED if before is None else Outcome.RESTORED)
        file_id = known.file_id if known is not None else ""
        done = replace(done, md5=before or "", bytes=row.size if before else None, file_id=file_id)
        undone = self.files is not None and self.files.is_undone(task.histories.get(row.path, []))
        ours = "" if undone else await self._ours(row, known, saved, now)
        certain = known is not None or saved is not None
        same_headers = (
            known is not None
            and saved is not None
            and (known.content_type, known.cache_control) == (saved.content_type, saved.cache_control)
        )
        match undo_step(now or None, ours, before, certain=certain, same_headers=same_headers):
            case UndoStep.NOTHING:
                if self._was_undone_here(task, known, undone=undone) and now == (before or ""):
                    return done
                return replace(self._end(task, Outcome.LEFT), md5=now, file_id=file_id)
            case UndoStep.NOT_KNOWN:
                return self._not_undoable(task, detail(DetailCode.NOT_KNOWN_WHOSE))
            case UndoStep.CONFLICT:
                return replace(done, outcome=Outcome.CONFLICT, reason=Reason.CONFLICT, md5=now)
            case UndoStep.DELETE | UndoStep.RESTORE:
                return await self._take_back(task, before)

    async def _take_back(self, task: Task, before: str | None) -> RowEnd | FailedAttempt:
        """Store what an upload overwrote, by its MD5; None: delete what it added."""
        await self._read_histories(task)  # again: calls have been made meanwhile
        if (why := self._not_ours(task, task.row)) is not None:
            return self._not_undoable(task, why)
        task.acted = True
        if before is not None:
            return await self._restore(task, before)
        (result,) = await self._delete_files(task)
        if isinstance(result, RowEnd) and result.outcome in _GONE:
            return replace(result, outcome=Outcome.DELETED)
        return result

    def _was_undone_here(self, task: Task, known: EarlierUpload | None, *, undone: bool) -> bool:
        """Return whether it was this undo that took away what the upload stored: an attempt whose answer was lost, or a killed session."""
        if task.acted:
            return True
        history = task.histories.get(task.row.path, [])
        may_have = self.files is not None and self.files.may_have_acted(history)
        return may_have and known is not None and not undone

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

    def _backup_damaged(self, task: Task, why: Text | None = None) -> _EarlyEndError:
        why = why or detail(DetailCode.BACKUP_DAMAGED, file=task.row.file)
        return _EarlyEndError(self._end(task, Outcome.FAILED, Reason.BACKUP_DAMAGED, why))

    async def _ours(self, row: Row, known: EarlierUpload | None, saved: SavedFile | None, now: str) -> str:
        """Return the MD5 of what the upload put at a path: `now` if that is one of several; empty if it is unknown."""
        if known is not None:
            return known.md5
        found, complete = set(saved.sent) if saved is not None else set[str](), False
        if not found and self.files is not None:
            found, complete = await asyncio.to_thread(self.files.planned_md5s, row.line)
        if now in found:
            return now
        return min(found) if found and (complete or saved is not None) else ""

    def _not_undoable(self, task: Task, why: Text) -> RowEnd:
        return self._end(task, Outcome.NOT_UNDOABLE, Reason.NOT_UNDOABLE, why)

    async def _restore(self, task: Task, before: str) -> RowEnd | FailedAttempt:
        """Store what an upload overwrote; `before`: its MD5."""
        if await self._md5_of_local(task) != before:
            raise self._backup_damaged(task)
        sent = await self._link_and_store(task)
        if isinstance(sent, RowEnd) and sent.outcome is Outcome.UPLOADED:
            return replace(sent, outcome=Outcome.RESTORED)
        return sent

    async def _now(self, task: Task) -> str:
        """Return the MD5 of what is at a row's path, empty where nothing is."""
        file = (await self._locate(task)).get(task.row.line)
        if file is not None and file.status == NOT_THERE:
            return ""
        if file is None or file.status:
            raise _EarlyEndError(self._file_refused(task, task.row, file))
        return await self._etag_there(task, file)

    async def _etag_there(self, task: Task, file: FileStatus) -> str:
        """Return the ETag of a file that was located, empty where it is gone after all."""
        return await self._etag(task, self._end(task, Outcome.FAILED), file.url, past_caches=True) or ""

    # --- before an upload -----------------------------------------------------------------------------------------

    async def _before_store(self, task: Task, link: Link) -> None:
        """Look at what is at the path, and save it. Raises _EarlyEndError if the upload may not go on, and BackupError."""
        row, md5, saved_here = task.row, "", False
        ids = {row.line: f"{prefix_of(link.file_id, row.env)}/{row.path}"}
        while not saved_here:
            saved = await self._saved(row)
            file = (await self._ask_files(task, ids, self.wechat.locate)).get(row.line)
            if file is None or file.status not in {0, NOT_THERE}:
                raise _EarlyEndError(self._file_refused(task, row, file))
            there = file if not file.status else None
            if self.backup is not None and not is_source(row.file):
                md5 = await self._md5_of_local(task)
            if saved is not None and not await self._changed_since(task, there, saved, md5):
                await self._note_sent(row, saved, md5)
                return
            if there is not None and self.if_exists != OVERWRITE:
                raise _EarlyEndError(await self._exists(task, there))
            if self.backup is None:
                return
            # If another process has saved it meanwhile, that decides.
            saved_here = await self._save(task, self.backup, there, md5, saved)

    async def _note_sent(self, row: Row, saved: SavedFile, md5: str) -> None:
        """Note the MD5 of what is about to be sent, which may differ from what earlier attempts sent. Raises BackupError."""
        if self.backup is not None and md5 and md5 not in saved.sent:
            await asyncio.to_thread(self.backup.note_sent, row.line, md5)

    async def _changed_since(self, task: Task, file: FileStatus | None, saved: SavedFile, md5: str) -> bool:
        """Return whether a path that was saved before has to be looked at again: not if its file is the saved one, or ours.

        It was saved in a session that was killed, or by a row that a retry repeats. Somebody else may have changed it since.
        `md5`: of the local file, which may have changed since, too; empty for a URL.
        """
        now = await self._etag_there(task, file) if file is not None else ""
        if saved.has(now):
            return bool(now) and self.if_exists != OVERWRITE
        if md5:  # noted before it is sent: the same bytes without a note are somebody else's
            return now not in saved.sent
        return now != await self._md5_of_local(task)

    async def _md5_of_local(self, task: Task) -> str:
        """Return the MD5 of what a row sends."""
        try:
            return await self._hash(task.row)
        except (FileChangedError, FileUnreadableError) as error:
            raise _EarlyEndError(self._unusable(task, error)) from None
        except TransportError as error:
            raise _EarlyEndError(self._no_answer(task, error, "store")) from None

    async def _exists(self, task: Task, file: FileStatus) -> RowEnd | FailedAttempt:
        """End a row whose path is taken: as unchanged where the bytes are the same, or existing files are to be kept."""
        row, etag = task.row, await self._etag_there(task, file)
        if not etag:
            return self._file_refused(task, row, None)
        md5 = await self._md5_of_local(task)
        if etag == md5 and task.sent:  # an earlier attempt, whose answer was lost
            end = self._end(task, Outcome.UPLOADED, errcode=0, errmsg="ok")
            return replace(end, file_id=file.file_id, md5=md5, bytes=row.size)
        if etag == md5 or self.if_exists == "skip":
            end = self._end(task, Outcome.UNCHANGED, None, detail(DetailCode.KEPT), file_id=file.file_id)
            return replace(end, md5=md5, bytes=row.size) if etag == md5 else end
        return replace(self._end(task, Outcome.FAILED, Reason.EXISTS), file_id=file.file_id)

    async def _save(
        self, task: Task, backup: Backup, file: FileStatus | None, md5: str, earlier: SavedFile | None
    ) -> bool:
        """Save what is at a row's path, and note the MD5 of what is about to be sent there. Raises BackupError.

        `earlier`: the row's last record. Returns False if another process has saved the row since that was read.
        """
        row, version = task.row, earlier.version + 1 if earlier is not None else 1
        saved = SavedFile(row.env, row.path, "", sent=(md5,) if md5 else (), version=version)
        if file is None:
            self.lease.check()
            return await asyncio.to_thread(backup.save, row.line, saved)
        whole = await asyncio.to_thread(Download, backup.part(row.line))
        try:
            if whole.error is not None:
                raise whole.error
            fetching = self.wechat.fetch(file.url, headers=_PAST_CACHES, sink=whole.write)
            try:
                answer = await self._ask_store(task, self._end(task, Outcome.FAILED), fetching)
            finally:
                await asyncio.to_thread(whole.close)
            if whole.error is not None:
                raise whole.error
            etag = bare_etag(answer)
            if answer.status != 200 or (_MD5.fullmatch(etag) and etag != whole.md5):
                raise _EarlyEndError(_bad_status(self._end(task, Outcome.FAILED), answer))
            if earlier is not None and whole.md5 in earlier.sent:  # ours after all
                await self._note_sent(row, earlier, md5)
                return True
            saved = replace(
                saved,
                md5=whole.md5,
                content_type=answer.headers.get("content-type", ""),
                cache_control=answer.headers.get("cache-control", ""),
                etag="" if etag == whole.md5 else etag,
            )
            self.lease.check()
            return await asyncio.to_thread(backup.save, row.line, saved, whole.file)
        finally:
            await asyncio.to_thread(whole.discard)

    async def _saved(self, row: Row) -> SavedFile | None:
        return await asyncio.to_thread(self.backup.read, row.line) if self.backup is not None else None

    # --- calls ----------------------------------------------------------------------------------------------------

    async def _locate(self, task: Task) -> dict[int, FileStatus]:
        return await self._ask_files(task, await self._file_ids(task), self.wechat.locate)

    async def _ask_files(
        self, task: Task, ids: Mapping[int, str], request: AskFiles
    ) -> dict[int, FileStatus]:
        """Ask about files, or have them deleted; their statuses by row."""
        env, wanted, owner = task.row.env, list(dict.fromkeys(ids.values())), task.lane.owner
        found = await self._answer(task, lambda token: request(env, wanted, token, owner))
        return {line: found[file_id] for line, file_id in ids.items() if file_id in found}

    async def _answer(
        self, task: Task, request: Callable[[Secret], Awaitable[Found | ApiError | InvalidResponse]]
    ) -> Found:
        """Make a call of a task with its token, and return the platform's answer."""
        self.link_calls += 1
        task.counts.calls += 1
        if task.started_at is None:
            task.started_at = time.time()
        self.phases.enter("link")
        try:
            answer = await request(task.token)
        except TransportError as error:
            raise _EarlyEndError(self._no_answer(task, error, "link")) from None
        finally:
            self.phases.leave("link")
        self.last_answer = self.clock()
        if isinstance(answer, ApiError | InvalidResponse):
            raise _EarlyEndError(self._refused(task, answer))
        return answer

    async def _each(
        self, rows: Sequence[Row], work: Callable[[Row], Awaitable[RowEnd]], *, asks: bool
    ) -> list[RowEnd | FailedAttempt]:
        """Work on rows of one call, as many at once as an environment may have in flight. `asks`: rows make calls of their own."""
        room = asyncio.Semaphore(self.per_call)

        async def one(row: Row) -> RowEnd | FailedAttempt:
            async with room:
                try:
                    return await work(row)
                except _EarlyEndError as error:
                    return error.result

        if not asks:
            return [await one(row) for row in rows]
        return list(await asyncio.gather(*map(one, rows)))

    async def _ask_store(
        self, task: Task, end: RowEnd, request: Awaitable[HttpResponse | UnsafeLink]
    ) -> HttpResponse:
        """Make a call to the store, and return its answer. `end`: of its row, so far."""
        self.upload_calls += 1
        if task.started_at is None:
            task.started_at = time.time()
        try:
            answer = await request
        except TransportError as error:
            attempt = self._no_answer(task, error, "store")
            raise _EarlyEndError(replace(attempt, end=replace(attempt.end, line=end.line))) from None
        self.last_answer = self.clock()
        if isinstance(answer, UnsafeLink):
            bad_link = replace(end, reason=answer.reason, detail=as_detail(answer.why))
            raise _EarlyEndError(replace(bad_link, outcome=Outcome.FAILED))
        return answer

    # --- what the ledger knows --------------------------------------------------------------------------------------

    async def _read_histories(self, task: Task) -> None:
        """Read what runs did at the paths of a call, right before it: another run may have written there meanwhile."""
        if self.files is not None:
            task.histories = await asyncio.to_thread(self.files.histories, task.rows)

    def _not_ours(self, task: Task, row: Row) -> Text | None:
        """Return why a row's file is not to be touched; None if it may be."""
        return None if self.files is None else self.files.not_ours(task.histories.get(row.path, []))

    def _undone(self, task: Task, row: Row) -> EarlierUpload | None:
        """Return what an undo left at the path of a row that is confirmed; None unless one has taken the upload back."""
        history = task.histories.get(row.path, [])
        if self.files is None or not self.files.is_undone(history):
            return None
        return next(
            entry for entry in reversed(history) if entry.outcome in {Outcome.RESTORED, Outcome.DELETED}
        )

    def _known(self, task: Task, row: Row) -> EarlierUpload | None:
        """Return what was put at a row's path, by the runs that are meant; None where that is not certain."""
        return stored_by(task.histories.get(row.path, []), self.subject)

    async def _older(self, task: Task, row: Row) -> set[str]:
        """Return the MD5s that are known of a row's path from before."""
        history, known = task.histories.get(row.path, []), self._known(task, row)
        before = history[: history.index(known)] if known is not None else []
        with suppress(BackupError):
            saved = await self._saved(row)
            return {one.md5 for one in before} | {saved.md5 if saved is not None else ""}
        return {one.md5 for one in before}

    async def _file_ids(self, task: Task) -> dict[int, str]:
        """Return the file_ids of a task's rows: as the ledger has them, else made of the environment's bucket."""
        lane = task.lane
        ids: dict[int, str] = {}
        for row in task.rows:
            written = [one.file_id for one in task.histories.get(row.path, ()) if one.file_id]
            if written and written[-1].endswith(f"/{row.path}"):
                ids[row.line] = written[-1]
                self._prefixes.setdefault(lane.number, prefix_of(written[-1], row.env))
        if len(ids) < len(task.rows) and not self._prefixes.get(lane.number):
            link = await self._link(task)  # nothing is stored: its file_id names the bucket
            if isinstance(link, FailedAttempt):
                raise _EarlyEndError(link)
            self._prefixes[lane.number] = prefix_of(link.file_id, task.row.env)
        prefix = self._prefixes.get(lane.number, "")
        return {row.line: ids.get(row.line) or f"{prefix}/{row.path}" for row in task.rows}

    def _row_end(
        self,
        task: Task,
        row: Row,
        outcome: Outcome,
        reason: Reason | None = None,
        why: Text | None = None,
        **more: Any,
    ) -> RowEnd:
        return replace(self._end(task, outcome, reason, why), line=row.line, **more)


class ConfirmCalls(StoredCalls):
    """Makes the calls of a confirmation."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        return await self._confirm(task)


class DeleteCalls(StoredCalls):
    """Makes the calls of a delete."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        return await self._delete(task)


class UndoCalls(StoredCalls):
    """Makes the calls of an undo."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        return await self._undo(task)


class CheckedUploadCalls(StoredCalls):
    """Makes the calls of an upload that looks at each path before it sends: with --backup or --if-exists."""

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Make the calls of a row until it ends or one fails."""
        return await UploadCalls.advance(self, task)

    async def _store(self, task: Task, link: Link) -> RowEnd | FailedAttempt:
        try:
            await self._before_store(task, link)
        except BackupError as error:
            return self._end(task, Outcome.FAILED, Reason.BACKUP_FAILED, error.text)
        except _EarlyEndError as error:
            return error.result
        return await super()._store(task, link)


def checked_upload_calls(context: CallContext) -> CheckedUploadCalls | None:
    """Return the calls of an upload with --backup or --if-exists; None for others."""
    chosen = context.run.settings
    if chosen.get("backup") or chosen.get("if_exists", OVERWRITE) != OVERWRITE:
        return CheckedUploadCalls(context)
    return None


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


def prefix_of(file_id: str, env: str) -> str:
    """Return `cloud://<env>.<bucket>` of a file_id; of one that has another form, or is of another environment, nothing.

    Raises nothing: with an empty prefix the platform refuses the file_id.
    """
    found = re.match(r"cloud://([^./]+)\.[^/]+", file_id)
    return found[0] if found is not None and found[1] == env else ""


def bare_etag(answer: HttpResponse) -> str:
    """Return an answer's ETag in lower case, without quotes and `W/`; empty where it has none."""
    return answer.headers.get("etag", "").strip().removeprefix("W/").strip('"').strip().lower()[:64]


_DIFFERING = {
    Outcome.DIFFERENT: Reason.DIFFERENT,
    Outcome.FOREIGN: Reason.FOREIGN,
    Outcome.STALE: Reason.STALE,
}


def _differing(end: RowEnd, outcome: Outcome, etag: str, md5: str) -> RowEnd:
    differs = detail(DetailCode.ETAG_DIFFERS, etag=etag, md5=md5)
    return replace(end, outcome=outcome, reason=_DIFFERING[outcome], detail=differs, md5=md5)


def _bad_status(end: RowEnd, answer: HttpResponse) -> FailedAttempt:
    """Return the attempt that a status of the store ended: a link may have expired, but no redirect is followed."""
    why = detail(DetailCode.DOWNLOAD_STATUS, status=answer.status)
    end = replace(end, outcome=Outcome.FAILED, reason=Reason.NO_ANSWER, detail=why, http_status=answer.status)
    redirected = 300 <= answer.status < 400
    return FailedAttempt(end, Decision.FIX if redirected else Decision.RETRY, Scope.ROW, "store")
