"""The calls of a row: to the platform for its link, then (for uploads) to the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.errcodes import Decision, Scope, store_code
from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.i18n import Text, verbatim
from tcb_ops.model import SUCCESSES, Kind, Link, Outcome, Owner, Reason, Row, RowEnd, Secret, is_source
from tcb_ops.runs.audit import AccountChecks, AccountFacts, cause_detail, causes_of
from tcb_ops.runs.lease import Lease
from tcb_ops.runs.limits import LINK_MARGIN
from tcb_ops.runs.progress import PhaseTimer
from tcb_ops.runs.records import EarlierUpload, measured
from tcb_ops.runs.scheduler import Task
from tcb_ops.secrets import MASK
from tcb_ops.wechat.call_policy import classify
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.cos import StoredObject, Unconfirmed, etag_verdict, post_object
from tcb_ops.wechat.local_files import Body, FileChangedError, FileUnreadableError, hash_file, open_file
from tcb_ops.wechat.remote_files import SourceClient, SourceRefusedError
from tcb_ops.wechat.responses import NOT_THERE, ApiError, InvalidResponse, UnsafeLink, own_file_id
from tcb_ops.wechat.transport import Transport

SMALL = 64 * 1024
DIGESTS = 10_000
"""Digests kept at a time, so that memory does not grow with the list."""
DELETE_WAITS = (0.0, 1.0, 2.0)
"""Seconds before each attempt to delete an audit's probe file."""
ETAG_MISMATCH = "ETagMismatch"
"""Used in place of a store's code if the stored object's checksum does not match the uploaded file."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed call of a row."""

    end: RowEnd
    """How the row ends if it is not tried again."""
    decision: Decision
    scope: Scope
    step: str
    """`link` or `store`."""
    unreachable: bool = False
    """Whether no connection could be made, as in an outage."""

    @property
    def code(self) -> str:
        """The code that a breaker counts."""
        return str(self.end.errcode) if self.end.errcode else self.end.store_code


@dataclass(frozen=True, slots=True)
class Probe:
    """The small file that an audit with `--write-probe` stores and deletes, with its original size and time."""

    file: Path
    size: int
    mtime_ns: int


@contextmanager
def probe_file() -> Iterator[Probe]:
    """Create the probe file of an audit, and remove it at the end."""
    with TemporaryDirectory(prefix="tcb-ops-probe-") as folder:
        file = Path(folder) / "probe.txt"
        file.write_text("tcb-ops audit: this file may be deleted.\n", encoding="utf-8")
        there = file.stat()
        yield Probe(file, there.st_size, there.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class SomeEnds:
    """How some rows of a call ended."""

    ends: Sequence[RowEnd]
    rest: FailedAttempt | None
    """What the others met; None where all have ended."""


@dataclass(slots=True)
class Calls:
    """The calls for the rows of a run, their counts, and a cache of digests."""

    kind: Kind
    wechat: PlatformClient
    transport: Transport
    root: Path
    etag: str
    """`fail` or `warn`: how to treat a stored object whose ETag differs."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    phases: PhaseTimer
    sources: SourceClient
    """For files that are sent from URLs."""
    whole_url: Callable[[Row], Secret]
    """Returns the URL of a row, with its query."""
    lease: Lease
    """Checked right before each effect."""
    checks: AccountChecks | None = None
    """For an audit."""
    probe: Probe | None = None
    """For an audit with `--write-probe`."""
    link_calls: int = 0
    upload_calls: int = 0
    digests: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """MD5 of files by (name, size, mtime): one file for 400 environments is hashed once."""
    last_answer: float = field(default=float("-inf"))
    """When any server last responded, by `clock`."""

    def forget(self, appid: str, owner: Owner) -> None:
        """Forget what was found about an account of which no row is left."""
        if self.checks is not None:
            self.checks.accounts.pop((appid, owner), None)

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Make the calls of a row until it ends or one fails."""
        if task.started_at is None:
            task.started_at = time.time()
        earlier = task.lane.known.pop(task.row.path, None)
        if earlier is not None and (same := await self._unchanged(task, earlier)) is not None:
            return same
        if self.checks is None:
            return await self._link_and_store(task)
        facts = await self._facts(task, self.checks)
        if isinstance(facts, FailedAttempt):
            return facts
        if causes := causes_of(facts, task.row.env):
            end = self._end(task, Outcome.UNHEALTHY, causes[0].reason, cause_detail(causes))
            return replace(end, errcode=causes[0].errcode)
        result = await self._link_and_store(task)
        if isinstance(result, RowEnd) and result.outcome in SUCCESSES:
            account = task.lane.app.appid, task.lane.owner
            used, missing = await self.checks.measure(*account, task.token, task.row.env)
            result = replace(result, detail=measured(used, missing))
        return result

    async def _link_and_store(self, task: Task) -> RowEnd | FailedAttempt:
        if task.link is None or self.clock() >= task.link_until:
            self.phases.enter("link")
            try:
                got = await self._link(task)
            finally:
                self.phases.leave("link")
            if isinstance(got, FailedAttempt):
                return got
            task.link, task.counts.link = got, 0
            task.link_until = self.clock() + got.alive_for(time.time()) - LINK_MARGIN
        if self.kind not in {Kind.UPLOAD, Kind.UNDO} and self.probe is None:
            return self._end(
                task, Outcome.LINKED, errcode=0, errmsg="ok", file_id=task.link.file_id, link=task.link
            )
        self.phases.enter("store")
        try:
            if self.probe is not None:
                return await self._store_probe(task, task.link, self.probe)
            return await self._store(task, task.link)
        finally:
            self.phases.leave("store")

    async def _facts(self, task: Task, checks: AccountChecks) -> AccountFacts | FailedAttempt:
        """Return the facts about the row's account."""
        self.phases.enter("link")
        try:
            found, calls = await checks.ask(task.lane.app.appid, task.lane.owner, task.token)
        except TransportError as error:
            return self._no_answer(task, error, "link")
        finally:
            self.phases.leave("link")
        task.counts.calls += calls
        if calls:
            self.last_answer = self.clock()
        if isinstance(found, AccountFacts):
            return found
        return self._refused(task, found)

    async def _link(self, task: Task) -> Link | FailedAttempt:
        row = task.row
        self.link_calls += 1
        task.counts.calls += 1
        try:
            answer = await self.wechat.upload_link(row.env, row.path, task.token, task.lane.owner)
        except TransportError as error:
            return self._no_answer(task, error, "link")
        self.last_answer = self.clock()
        if isinstance(answer, Link):
            return answer
        if isinstance(answer, UnsafeLink):
            end = self._end(task, Outcome.FAILED, Reason.BAD_LINK, answer.why)
            return FailedAttempt(end, Decision.FIX, Scope.ROW, "link")
        return self._refused(task, answer)

    def _refused(self, task: Task, answer: ApiError | InvalidResponse) -> FailedAttempt:
        decision, scope = classify(answer)
        if isinstance(answer, InvalidResponse):
            end = self._end(task, Outcome.FAILED, Reason.NO_ANSWER, answer.why)
            return FailedAttempt(replace(end, http_status=answer.http_status), decision, scope, "link")
        by_component = task.lane.owner is Owner.PLATFORM
        end = replace(
            self._end(task, Outcome.REFUSED, Reason.COMPONENT if by_component else Reason.REFUSED),
            errcode=answer.errcode,
            errmsg=answer.errmsg,
            rid=answer.rid,
            http_status=answer.http_status,
        )
        return FailedAttempt(end, decision, scope, "link")

    async def _store_probe(self, task: Task, link: Link, probe: Probe) -> RowEnd | FailedAttempt:
        """Store the probe file and delete it again."""
        row = task.row
        answer = await self._store(task, link, probe)
        if isinstance(answer, FailedAttempt) and answer.end.reason is Reason.STORE_REFUSED:
            return answer
        why = await self._delete_probe(task, own_file_id(link, row.path, row.env))
        if isinstance(answer, FailedAttempt) or why is None:
            return answer
        left = detail(DetailCode.PROBE_LEFT, path=row.path, why=as_detail(why))
        return self._end(task, Outcome.UNHEALTHY, Reason.PROBE_LEFT, left)

    async def _delete_probe(self, task: Task, file_id: str) -> Text | None:
        """Delete the probe file, in several attempts; return None, or why it could not be deleted."""
        why: Text | None = None
        for wait in DELETE_WAITS:
            await asyncio.sleep(wait)
            task.counts.calls += 1
            try:
                answer = await self.wechat.delete(task.row.env, [file_id], task.token, task.lane.owner)
            except TransportError as error:
                why = error.text
                continue
            if isinstance(answer, InvalidResponse):
                why = answer.why
                continue
            status = answer.errcode if isinstance(answer, ApiError) else next(iter(answer.values())).status
            if status in {0, NOT_THERE}:
                return None
            why = verbatim(f"errcode {status}")
        return why

    async def _store(self, task: Task, link: Link, probe: Probe | None = None) -> RowEnd | FailedAttempt:
        row = task.row
        try:
            async with self._opened(row, probe) as body:
                self.lease.check()
                self.upload_calls += 1
                task.counts.calls += 1
                task.sent = True
                answer = await post_object(
                    self.transport,
                    link,
                    row.path,
                    body,
                    row.content_type,
                    row.cache_control,
                    before_end=self.lease.check,
                )
        except (FileChangedError, FileUnreadableError) as error:
            return self._unusable(task, error)
        except TransportError as error:
            return self._no_answer(task, error, "store")
        self.last_answer = self.clock()
        if isinstance(answer, StoredObject):
            if probe is None and not is_source(row.file):
                self._keep_digest(self._planned(row), answer.md5)
            return self._stored(task, link, answer, body.size)
        if isinstance(answer, Unconfirmed):
            end = self._end(task, Outcome.FAILED, Reason.NO_CONFIRMATION, answer.why)
            decision, scope, code = Decision.RETRY, Scope.ROW, ""
        else:
            known = store_code(answer.code, answer.message, answer.http_status)
            why = detail(DetailCode.STORE_MESSAGE, message=answer.message) if answer.message else None
            end = self._end(task, Outcome.FAILED, Reason.STORE_REFUSED, why)
            decision, scope, code = known.decision, known.scope, answer.code
        end = replace(end, http_status=answer.http_status, rid=answer.request_id, store_code=code)
        return FailedAttempt(end, decision, scope, "store")

    @asynccontextmanager
    async def _opened(self, row: Row, probe: Probe | None) -> AsyncIterator[Body]:
        """Open the file of a row, or the probe file. Raises as `open_file` and SourceClient do."""
        if probe is not None:
            with open_file(probe.file, probe.size, probe.mtime_ns, "", probe.file.parent) as small:
                yield small
        elif is_source(row.file):
            async with self.sources.opened(self.whole_url(row), row.file, row.size, row.etag) as body:
                yield body
        else:
            planned = self._planned(row)
            size, known = planned[1], self.digests.get(planned, "")
            opened = partial(open_file, self.root / row.file, *planned[1:], known, self.root)
            # Reading a small file is quicker than passing it to a thread.
            with opened() if size <= SMALL else await asyncio.to_thread(opened) as file:
                yield file

    async def _hash(self, row: Row) -> str:
        """Return the MD5 of a row's file. Raises as `_opened` does."""
        if is_source(row.file):
            async with self._opened(row, None) as body:
                async for _chunk in body.chunks():
                    pass
                return body.md5
        planned = self._planned(row)
        digest = self.digests.get(planned, "")
        if not digest:
            digest = await asyncio.to_thread(hash_file, self.root / row.file, *planned[1:])
        self._keep_digest(planned, digest)
        return digest

    @staticmethod
    def _planned(row: Row) -> tuple[str, int, int]:
        """Return what identifies the bytes of a row's local file."""
        return row.file, row.size or 0, row.mtime_ns or 0

    def _unusable(self, task: Task, error: FileChangedError | FileUnreadableError) -> RowEnd:
        """Return the end of a row whose file cannot be sent."""
        reason = Reason.FILE_CHANGED if isinstance(error, FileChangedError) else Reason.FILE_UNREADABLE
        if isinstance(error, SourceRefusedError) and error.detail.code is DetailCode.SOURCE_REDIRECT:
            reason = Reason.SOURCE_REDIRECT
        return self._end(task, Outcome.FAILED, reason, error.text)

    async def _unchanged(self, task: Task, earlier: EarlierUpload) -> RowEnd | None:
        """Return the end of a row whose bytes and headers are stored already; None if they differ or are unreadable."""
        row = task.row
        if row.size is not None and earlier.bytes != row.size:
            return None
        if (earlier.content_type, earlier.cache_control) != (row.content_type, row.cache_control):
            return None
        try:
            # A strong ETag means the same bytes, unless the part of the URL that is not kept tells files apart.
            same_etag = (
                row.etag and (row.etag, row.file) == (earlier.etag, earlier.file) and MASK not in row.file
            )
            digest = earlier.md5 if same_etag else await self._hash(row)
        except (FileChangedError, FileUnreadableError, TransportError):
            return None  # the upload reports the problem
        if digest != earlier.md5:
            return None
        since = detail(DetailCode.UNCHANGED_SINCE, run=earlier.run)
        end = self._end(task, Outcome.UNCHANGED, None, since)
        return replace(end, md5=digest, bytes=earlier.bytes, file_id=earlier.file_id)

    def _keep_digest(self, planned: tuple[str, int, int], digest: str) -> None:
        if len(self.digests) >= DIGESTS:
            self.digests.clear()
        self.digests[planned] = digest

    def _stored(self, task: Task, link: Link, answer: StoredObject, size: int) -> RowEnd | FailedAttempt:
        verdict = etag_verdict(answer.etag, answer.md5)
        end = self._end(
            task,
            Outcome.UPLOADED,
            None if verdict == "same" else Reason.UNVERIFIED,
            errcode=0,
            errmsg="ok",
            http_status=answer.http_status,
            file_id=link.file_id,
            md5=answer.md5,
            bytes=size,
        )
        if verdict != "different" or self.etag == "warn":
            return end
        why = detail(DetailCode.ETAG_DIFFERS, etag=answer.etag, md5=answer.md5)
        failed = replace(
            end,
            outcome=Outcome.FAILED,
            reason=Reason.ETAG_MISMATCH,
            detail=why,
            store_code=ETAG_MISMATCH,
        )
        return FailedAttempt(failed, Decision.RETRY, Scope.ENV, "store")

    def _no_answer(self, task: Task, error: TransportError, step: str) -> FailedAttempt:
        if error.fault is not TransportFault.UNREACHABLE:
            self.last_answer = self.clock()  # the connection was accepted: the target is reachable
        return FailedAttempt(
            self._end(task, Outcome.FAILED, Reason.NO_ANSWER, error.text),
            Decision.RETRY,
            Scope.ROW,
            step,
            unreachable=error.fault is TransportFault.UNREACHABLE,
        )

    def _end(
        self,
        task: Task,
        outcome: Outcome,
        reason: Reason | None = None,
        why: Text | None = None,
        **more: Any,
    ) -> RowEnd:
        """Return how a row ends now; `more` are fields of RowEnd."""
        return RowEnd(
            task.row.line,
            outcome,
            reason,
            as_detail(why) if why is not None else None,
            attempts=task.counts.calls,
            started_at=task.started_at,
            ended_at=time.time(),
            **more,
        )
