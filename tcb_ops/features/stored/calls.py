"""The calls of runs about stored files: confirm, delete, undo, and uploads with --backup, which look at each path before they send.

A call names up to 50 files of one environment, and each file has its own status in the answer. What an answer leads to is
decided by the pure functions of `rules`, which names the sources.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from tcb_ops.catalogue import Decision, Scope, errcode
from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.engine.calls import CallContext, FailedAttempt, SomeEnds, UploadCalls
from tcb_ops.engine.scheduler import Task
from tcb_ops.errors import TransportError
from tcb_ops.features.stored import StoredCode, StoredOutcome, StoredReason
from tcb_ops.features.stored.backup import Backup, BackupError, Download, SavedFile
from tcb_ops.features.stored.client import NOT_THERE, FileClient, FileStatus, prefix_of
from tcb_ops.features.stored.queries import runs_about, uploads_of_list
from tcb_ops.features.stored.rules import Subject, UndoStep, confirm_outcome, undo_step, undo_want
from tcb_ops.features.stored.run_settings import kept_by
from tcb_ops.i18n import Text
from tcb_ops.kinds import kind_named
from tcb_ops.ledger.files import OwnFile, StoredFile
from tcb_ops.model import Link, Outcome, Owner, Reason, Row, RowEnd, Secret, is_source
from tcb_ops.wechat.local_files import FileChangedError, FileUnreadableError
from tcb_ops.wechat.responses import ApiError, HttpResponse, InvalidResponse, UnsafeLink

GOES_AGAIN = frozenset({Decision.RETRY, Decision.RETRY_ONCE, Decision.SLOW, Decision.REFRESH})
GONE = frozenset({StoredOutcome.DELETED, StoredOutcome.ALREADY_GONE})
MD5 = re.compile(r"[0-9a-f]{32}")
ETAG = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")
GOOD = frozenset({200, 206})
"""HTTP statuses of a file's bytes."""
PAST_CACHES = {"Cache-Control": "no-cache"}

AskFiles: TypeAlias = Callable[
    [str, Sequence[str], Secret, Owner], Awaitable[dict[str, FileStatus] | ApiError | InvalidResponse]
]


class EarlyEndError(Exception):
    """A row, or all rows of a call, go no further; `result`: how they end, or the attempt that failed."""

    def __init__(self, result: RowEnd | FailedAttempt) -> None:
        super().__init__()
        self.result = result


class StoredCalls(UploadCalls):
    """What the calls of rows about stored files have in common. What uploads and restores send goes through `UploadCalls`.

    Where a row goes no further, the methods raise `EarlyEndError`. What is known of the paths of a call is read right before it:
    another run may have written there meanwhile.
    """

    def __init__(self, context: CallContext) -> None:
        super().__init__(context)
        run, limits, settings = context.run, context.limits, context.settings
        self.file_client = FileClient(context.transport, settings.api_base, store_hosts=settings.store_hosts)
        self.content = bool(kept_by(run).content)
        """Whether bytes are compared."""
        self._of_upload = [context.ledger.run(run_id) for run_id in run.settings.of]
        """The upload whose files are meant, and its retries; empty for the newest that the ledger knows."""
        self._uploads_of_list: set[str] | None = None
        """Of a delete: the runs whose files may be deleted; None for any run of this ledger."""
        if of_list := kept_by(run).of_list:
            uploads = uploads_of_list(context.ledger, run.target, of_list)
            self._uploads_of_list = {upload.id for upload in uploads}
        took_back = kind_named("undo") if run.kind.findings_of_files else run.kind
        self.subject: Subject | None = None
        if self._of_upload:
            about = runs_about(context.ledger, self._of_upload[0], took_back)
            self.subject = Subject.of(self._of_upload, about)
        self._taken_back_by = self.subject.taken_back_by if self.subject is not None else frozenset[str]()
        self.backup = Backup(Path(run.settings.backup)) if run.settings.backup else None
        self.gate = asyncio.Semaphore(limits.concurrency)
        """Limits the file checks under way at once, in all."""
        self._prefixes: dict[int, str] = {}
        """`cloud://<env>.<bucket>` by lane."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        raise NotImplementedError

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Take rows as far as their calls succeed."""
        await self._read_files(task)
        try:
            results = await self._work(task)
        except EarlyEndError as error:
            results = [error.result]
        end_of = self.context.run.kind.end_of
        ends = [end_of(result) for result in results if isinstance(result, RowEnd)]
        rest = next((result for result in results if isinstance(result, FailedAttempt)), None)
        return SomeEnds(ends, rest and replace(rest, end=end_of(rest.end)))

    # --- one file -------------------------------------------------------------------------------------------------

    def _file_refused(self, task: Task, row: Row, file: FileStatus | None) -> RowEnd | FailedAttempt:
        """Return what a file's own status leads to; one that was left out is asked for again."""
        if file is None:
            left_out = detail(StoredCode.FILE_LEFT_OUT)
            end = self._row_end(task, row, Outcome.FAILED, Reason.NO_ANSWER, left_out)
            return FailedAttempt(end, Decision.RETRY, Scope.ROW, "link")
        end = replace(
            self._row_end(task, row, Outcome.REFUSED, Reason.REFUSED, file_id=file.file_id),
            errcode=file.status,
            errmsg=file.errmsg,
        )
        goes_again = errcode(file.status).decision in GOES_AGAIN
        return FailedAttempt(end, Decision.RETRY, Scope.ROW, "link") if goes_again else end

    async def _etag(self, task: Task, end: RowEnd, url: Secret, *, past_caches: bool = False) -> str | None:
        """Ask for a file's ETag, in lower case without quotes; without an MD5 in it, hash the whole file.

        None if the file is missing. `end`: of its row, so far.
        """
        async with self.gate:
            headers = PAST_CACHES if past_caches else {}
            first_byte = {"Range": "bytes=0-0"} | headers  # for the headers that come with it
            looking = self.file_client.fetch(url, headers=first_byte, sink=lambda _chunk: False)
            answer = await self._ask_store(task, end, looking)
            etag = _bare_etag(answer)
            if answer.status == 416 or (answer.status in GOOD and not ETAG.fullmatch(etag)):
                digest = hashlib.md5(usedforsecurity=False)
                fetching = self.file_client.fetch(url, headers=headers, sink=digest.update)
                answer = await self._ask_store(task, end, fetching)
                etag = digest.hexdigest()
        if answer.status == 404:
            return None
        if answer.status not in GOOD:
            raise EarlyEndError(_bad_status(end, answer))
        return etag

    async def _etag_there(self, task: Task, file: FileStatus) -> str:
        return await self._etag(task, self._end(task, Outcome.FAILED), file.url, past_caches=True) or ""

    async def _md5_of_local(self, task: Task) -> str:
        try:
            return await self._hash(task.row)
        except (FileChangedError, FileUnreadableError) as error:
            raise EarlyEndError(self._unusable(task, error)) from None
        except TransportError as error:
            raise EarlyEndError(self._no_answer(task, error, "store")) from None

    async def _saved(self, row: Row) -> SavedFile | None:
        return await asyncio.to_thread(self.backup.read, row.line) if self.backup is not None else None

    # --- calls ----------------------------------------------------------------------------------------------------

    async def _delete_files(self, task: Task) -> list[RowEnd | FailedAttempt]:
        # NOT_THERE is also the answer to a bad signature. So those files are asked for once more, and count as gone if this
        # second interface does not have them either.
        ids = await self._file_ids(task)
        self.lease.check()
        answer = await self._ask_files(task, ids, self.file_client.delete)
        gone = {line: ids[line] for line, file in answer.items() if file.status == NOT_THERE}
        second: dict[int, FileStatus] = {}
        unanswered: RowEnd | FailedAttempt | None = None
        if gone:
            try:
                second = await self._ask_files(task, gone, self.file_client.locate)
            except EarlyEndError as error:
                unanswered = error.result
        results: list[RowEnd | FailedAttempt] = []
        for row in task.rows:
            file, again = answer.get(row.line), second.get(row.line)
            if file is None or file.status not in {0, NOT_THERE}:
                results.append(self._file_refused(task, row, file))
            elif not file.status:
                results.append(self._row_end(task, row, StoredOutcome.DELETED, file_id=file.file_id))
            elif again is not None and again.status == NOT_THERE:
                results.append(self._row_end(task, row, StoredOutcome.ALREADY_GONE, file_id=file.file_id))
            else:  # it is there after all, or the second answer leaves it out
                refusing = None if again is None or not again.status else again
                results.append(unanswered or self._file_refused(task, row, refusing))
        return results

    async def _locate(self, task: Task) -> dict[int, FileStatus]:
        return await self._ask_files(task, await self._file_ids(task), self.file_client.locate)

    async def _ask_files(
        self, task: Task, ids: Mapping[int, str], request: AskFiles
    ) -> dict[int, FileStatus]:
        file_ids = list(dict.fromkeys(ids.values()))
        files = await self._ask(task, request(task.row.env, file_ids, task.token, task.lane.owner))
        if isinstance(files, FailedAttempt):
            raise EarlyEndError(files)
        return {line: files[file_id] for line, file_id in ids.items() if file_id in files}

    async def _ask_store(
        self, task: Task, end: RowEnd, request: Awaitable[HttpResponse | UnsafeLink]
    ) -> HttpResponse:
        """Make a call to the store, and return its answer. `end`: of its row, so far."""
        self.upload_calls += 1
        if task.started_at is None:
            task.started_at = self.now()
        try:
            answer = await request
        except TransportError as error:
            attempt = self._no_answer(task, error, "store")
            raise EarlyEndError(replace(attempt, end=replace(attempt.end, line=end.line))) from None
        self.last_answer = self.clock()
        if isinstance(answer, UnsafeLink):
            bad_link = replace(end, reason=answer.reason, detail=as_detail(answer.why))
            raise EarlyEndError(replace(bad_link, outcome=Outcome.FAILED))
        return answer

    # --- what the ledger knows --------------------------------------------------------------------------------------

    async def _read_files(self, task: Task) -> None:
        run, ledger, keys = self.context.run, self.context.ledger, [(row.env, row.path) for row in task.rows]
        files = await asyncio.to_thread(ledger.files, run.target, keys, run.number)
        task.files = {path: file for (_env, path), file in files.items()}
        if self._of_upload:
            lines = [row.line for row in task.rows]
            task.own = await asyncio.to_thread(ledger.own_files, self._of_upload, lines)

    async def _file_ids(self, task: Task) -> dict[int, str]:
        """Return the file_ids of a task's rows: as the ledger has them, else made of the environment's bucket."""
        lane = task.lane
        ids: dict[int, str] = {}
        for row in task.rows:
            file = task.files.get(row.path)
            if file is not None and file.file_id.endswith(f"/{row.path}"):
                ids[row.line] = file.file_id
                self._prefixes.setdefault(lane.number, prefix_of(file.file_id, row.env))
        if len(ids) < len(task.rows) and not self._prefixes.get(lane.number):
            link = await self._link(task)  # nothing is stored: its file_id names the bucket
            if isinstance(link, FailedAttempt):
                raise EarlyEndError(link)
            self._prefixes[lane.number] = prefix_of(link.file_id, task.row.env)
        prefix = self._prefixes.get(lane.number, "")
        return {row.line: ids.get(row.line) or f"{prefix}/{row.path}" for row in task.rows}

    def _row_end(
        self,
        task: Task,
        row: Row,
        outcome: Outcome,
        reason: Reason | None = None,
        reason_text: Text | None = None,
        **more: Any,
    ) -> RowEnd:
        return replace(self._end(task, outcome, reason, reason_text), line=row.line, **more)


class ConfirmCalls(StoredCalls):
    """Makes the calls of a confirmation."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        located = await self._locate(task)
        room = asyncio.Semaphore(self.context.limits.per_env)

        async def result_of(row: Row) -> RowEnd | FailedAttempt:
            async with room:
                try:
                    return await self._confirm_row(task, row, located.get(row.line))
                except EarlyEndError as error:
                    return error.result

        if not self.content and not self._taken_back_by:  # rows make no calls of their own
            return [await result_of(row) for row in task.rows]
        return list(await asyncio.gather(*map(result_of, task.rows)))

    async def _confirm_row(self, task: Task, row: Row, file: FileStatus | None) -> RowEnd:
        earlier, known = self._stored_before(task, row), task.files.get(row.path)
        left_by_undo = known.md5 if known is not None and known.changed in self._taken_back_by else None
        if file is not None and file.status == NOT_THERE:
            if left_by_undo == "":
                return self._row_end(task, row, StoredOutcome.UNDONE, file_id=file.file_id)
            end = self._row_end(task, row, StoredOutcome.ABSENT, StoredReason.ABSENT, file_id=file.file_id)
            return replace(end, md5=earlier.md5 if earlier else "")
        if file is None or file.status:
            raise EarlyEndError(self._file_refused(task, row, file))
        size = earlier.bytes if earlier else None
        end = self._row_end(task, row, StoredOutcome.PRESENT, file_id=file.file_id, bytes=size)
        if left_by_undo is not None:  # a file may be there that is not the upload's
            etag = await self._etag(task, end, file.url, past_caches=True)
            if (etag or "") == left_by_undo:
                return replace(end, outcome=StoredOutcome.UNDONE, md5=left_by_undo, bytes=None)
        elif not self.content:
            return end
        if earlier is None:
            return replace(end, outcome=Outcome.UNKNOWN, reason=StoredReason.NO_CHECKSUM)
        return await self._compare(task, row, end, file.url, earlier)

    async def _compare(
        self, task: Task, row: Row, end: RowEnd, url: Secret, earlier: OwnFile | StoredFile
    ) -> RowEnd:
        """Compare a file's ETag with the MD5 that was uploaded; past the caches where it differs."""
        first = await self._etag(task, end, url)
        if first == earlier.md5:
            return replace(end, md5=earlier.md5)
        etag = await self._etag(task, end, url, past_caches=True) if first is not None else None
        if first is None or etag is None:
            return replace(end, outcome=StoredOutcome.ABSENT, reason=StoredReason.ABSENT)
        outcome = StoredOutcome.STALE
        if etag != earlier.md5:
            outcome = confirm_outcome(etag, earlier.md5, await self._older(task, row))
        other = first if etag == earlier.md5 else etag
        differs = detail(DetailCode.ETAG_DIFFERS, etag=other, md5=earlier.md5)
        # The reason has the outcome's name.
        return replace(end, outcome=outcome, reason=Reason(outcome), detail=differs, md5=earlier.md5)

    def _stored_before(self, task: Task, row: Row) -> OwnFile | StoredFile | None:
        """Return what the upload that is meant stored, or of a list what is known to be there; None where that is not certain."""
        if self._of_upload:
            own = task.own.get(row.line)
            return own if own is not None and own.md5 else None
        file = task.files.get(row.path)
        return file if file is not None and file.md5 and not file.may_have_changed(()) else None

    async def _older(self, task: Task, row: Row) -> set[str]:
        known = task.files.get(row.path)
        runs, line = (
            (self.subject.runs, row.line)
            if self.subject is not None
            else ((known.run,), known.line)
            if known is not None
            else ((), row.line)
        )
        older = await asyncio.to_thread(self.context.ledger.older_md5s, runs, line)
        with suppress(BackupError):
            saved = await self._saved(row)
            older.add(saved.md5 if saved is not None else "")
        return older


class DeleteCalls(StoredCalls):
    """Makes the calls of a delete."""

    def _not_ours(self, task: Task, row: Row) -> Text | None:
        """Return why a row's file is not to be deleted; None if it may be.

        Contents are not compared: a change that is not certain counts. Files of a list are those that runs of this ledger
        uploaded, unless the run was started with `foreign`.
        """
        run, file = self.context.run, task.files.get(row.path)
        if self.subject is not None:
            since = self.subject.changed_since(file, task.own.get(row.line))
            since = since or self.subject.may_have_changed(file)
            return detail(StoredCode.WRITTEN_SINCE, run=since) if since else None
        if self._uploads_of_list is not None:
            is_own = file is not None and file.is_of(self._uploads_of_list)
        else:
            is_own = bool(kept_by(run).foreign) or (file is not None and file.is_ours)
        if is_own:
            return None
        if file is not None and (last := file.may_have_changed(()) or file.changed):
            return detail(StoredCode.WRITTEN_SINCE, run=last)
        return detail(StoredCode.NOT_UPLOADED_HERE)

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        results, to_delete = list[RowEnd | FailedAttempt](), list[Row]()
        for row in task.rows:
            if (changed := self._not_ours(task, row)) is None:
                to_delete.append(row)
            else:  # another run has written to its path since
                results.append(self._row_end(task, row, Outcome.FAILED, StoredReason.CONFLICT, changed))
        try:
            return results + await self._delete_files(replace(task, rows=to_delete)) if to_delete else results
        except EarlyEndError as error:
            return [*results, error.result]


class UndoCalls(StoredCalls):
    """Makes the calls of an undo."""

    async def _work(self, task: Task) -> list[RowEnd | FailedAttempt]:
        return [await self._undo(task)]

    async def _undo(self, task: Task) -> RowEnd | FailedAttempt:
        row, file, saved = task.row, task.files.get(task.row.path), await self._record_of(task)
        earlier, undone = task.own.get(row.line), file is not None and file.changed in self._taken_back_by
        if earlier is not None and not earlier.sent:  # it found the file there, unchanged
            earlier = None
        sent = saved.sent if saved is not None else ()
        if (why := self._stays(task, saved)) is not None:  # written after this run was planned
            return self._not_undoable(task, why)
        before = saved.md5 if saved is not None and row.file else None
        now = await self._now(task)
        if saved is not None and before and saved.has(now):
            now = before
        done = self._end(task, StoredOutcome.DELETED if before is None else StoredOutcome.RESTORED)
        file_id = earlier.file_id if earlier is not None else ""
        done = replace(done, md5=before or "", bytes=row.size if before else None, file_id=file_id)
        if earlier is not None or undone:
            own_md5 = earlier.md5 if earlier is not None and not undone else ""
        else:
            own_md5 = now if now in sent else min(sent, default="")
        certain = earlier is not None or saved is not None
        match undo_step(now or None, own_md5, before, certain=certain):
            case UndoStep.NOTHING:
                acted = self._may_have_acted(task) and earlier is not None and not undone
                if (task.acted or acted) and now == (before or ""):
                    return done
                return replace(self._end(task, StoredOutcome.LEFT), md5=now, file_id=file_id)
            case UndoStep.NOT_KNOWN:
                return self._not_undoable(task, detail(StoredCode.NOT_KNOWN_WHOSE))
            case UndoStep.CONFLICT:
                return replace(done, outcome=StoredOutcome.CONFLICT, reason=StoredReason.CONFLICT, md5=now)
            case UndoStep.DELETE | UndoStep.RESTORE:
                return await self._take_back(task, before, saved)

    async def _now(self, task: Task) -> str:
        file = (await self._locate(task)).get(task.row.line)
        if file is not None and file.status == NOT_THERE:
            return ""
        if file is None or file.status:
            raise EarlyEndError(self._file_refused(task, task.row, file))
        return await self._etag_there(task, file)

    async def _take_back(
        self, task: Task, before: str | None, saved: SavedFile | None
    ) -> RowEnd | FailedAttempt:
        """Store what an upload overwrote, by its MD5; None: delete what it added."""
        await self._read_files(task)  # again: calls have been made meanwhile
        if (why := self._stays(task, saved)) is not None:
            return self._not_undoable(task, why)
        task.acted = True
        if before is None:
            (result,) = await self._delete_files(task)
            if isinstance(result, RowEnd) and result.outcome in GONE:
                return replace(result, outcome=StoredOutcome.DELETED)
            return result
        if await self._md5_of_local(task) != before:
            raise self._backup_damaged(task)
        stored = await self._link_and_store(task)
        if isinstance(stored, RowEnd) and stored.outcome is Outcome.UPLOADED:
            return replace(stored, outcome=StoredOutcome.RESTORED)
        return stored

    def _stays(self, task: Task, saved: SavedFile | None) -> Text | None:
        assert self.subject is not None  # noqa: S101  an undo is of an upload
        file, own = task.files.get(task.row.path), task.own.get(task.row.line)
        _want, why = undo_want(self.subject, file, own, saved)
        return why

    def _may_have_acted(self, task: Task) -> bool:
        """Return whether this undo may have taken the file back already, or another one whose answer was lost."""
        file = task.files.get(task.row.path)
        interrupted = file is not None and not self._taken_back_by.isdisjoint((file.doubt, *file.pending))
        return self.context.resumed or self.context.run.parent != "" or interrupted

    async def _record_of(self, task: Task) -> SavedFile | None:
        row = task.row
        try:
            saved = await self._saved(row)
        except BackupError as error:
            raise self._backup_damaged(task, error.text) from None
        if row.file and (saved is None or (saved.env, saved.path) != (row.env, row.path)):
            raise self._backup_damaged(task)
        return saved

    def _backup_damaged(self, task: Task, reason: Text | None = None) -> EarlyEndError:
        reason = reason or detail(StoredCode.BACKUP_DAMAGED, file=task.row.file)
        return EarlyEndError(self._end(task, Outcome.FAILED, StoredReason.BACKUP_DAMAGED, reason))

    def _not_undoable(self, task: Task, reason: Text) -> RowEnd:
        return self._end(task, StoredOutcome.NOT_UNDOABLE, StoredReason.NOT_UNDOABLE, reason)


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
            etag = _bare_etag(answer)
            if answer.status != 200 or (MD5.fullmatch(etag) and etag != download.md5):
                raise EarlyEndError(_bad_status(self._end(task, Outcome.FAILED), answer))
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


def _bare_etag(answer: HttpResponse) -> str:
    """Return an answer's ETag in lower case, without quotes and `W/`; empty where it has none."""
    return answer.headers.get("etag", "").strip().removeprefix("W/").strip('"').strip().lower()[:64]


def _bad_status(end: RowEnd, answer: HttpResponse) -> FailedAttempt:
    """Return the attempt that a status of the store ended: a link may have expired, but no redirect is followed."""
    reason = detail(StoredCode.DOWNLOAD_STATUS, status=answer.status)
    end = replace(end, outcome=Outcome.FAILED, reason=Reason.NO_ANSWER, detail=reason)
    end = replace(end, http_status=answer.status)
    redirected = 300 <= answer.status < 400
    return FailedAttempt(end, Decision.FIX if redirected else Decision.RETRY, Scope.ROW, "store")
