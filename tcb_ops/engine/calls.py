"""The calls of a row: to the platform for its link, then (for uploads) to the store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from tcb_ops.catalogue import ETAG_MISMATCH, Decision, Scope, store_code
from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.engine.limits import LINK_MARGIN, RunLimits, classify
from tcb_ops.engine.loop import submit_coroutine
from tcb_ops.engine.progress import Progress
from tcb_ops.engine.scheduler import Task
from tcb_ops.errors import TransportError, TransportFault, needed
from tcb_ops.hooks import BackupHooks, SourceHooks, TokenSource
from tcb_ops.i18n import Text
from tcb_ops.ledger.files import StoredFile
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.locks import Lease, seconds_since_boot
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import Link, Outcome, Owner, Reason, Row, RowEnd, Secret, is_source
from tcb_ops.settings import Settings
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.cos import StoredObject, Unconfirmed, post_object
from tcb_ops.wechat.local_files import (
    Body,
    FileChangedError,
    FileUnreadableError,
    hash_file,
    memory_for,
    open_file,
)
from tcb_ops.wechat.responses import ApiError, InvalidResponse, UnsafeLink
from tcb_ops.wechat.transport import Transport

Answer = TypeVar("Answer")

SMALL = 64 * 1024
DIGESTS = 10_000
"""Digests kept at a time, so that memory does not grow with the list."""


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
class SomeEnds:
    """How some rows of a call ended."""

    ends: Sequence[RowEnd]
    rest: FailedAttempt | None
    """What the others met; None where all have ended."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a session takes from its surroundings. The monotonic clock is the event loop's own.

    The default is the real world. A test can give a session another one, in which time passes as it wants.
    """

    now: Callable[[], float] = time.time
    """Unix seconds."""
    chance: Callable[[], float] = random.random
    """A number from 0 up to 1, for the jitter of waits."""
    executor: Callable[[str], Executor] = lambda name: ThreadPoolExecutor(1, f"tcb-ops-{name}")
    """Returns a thread for the blocking work of this name, in order."""
    transport: Callable[[int], AbstractAsyncContextManager[Transport]] = lambda most: Transport(
        connections=most
    )
    """Opens so many connections."""
    submit: Callable[[Coroutine[Any, Any, Any]], Future[Any]] = submit_coroutine
    """Starts a coroutine on the event loop of sessions."""
    since_boot: Callable[[], float] = seconds_since_boot
    """Monotonic seconds, in which a suspended machine counts too: how long a lock is relied on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The inputs of a session: its run, limits, sources and callbacks."""

    ledger: Ledger
    run: RunRecord
    settings: Settings
    limits: RunLimits
    tokens: TokenSource
    root: Path
    """Folder of the local files."""
    out: Path | None = None
    """Path of a links run's file, if not the planned one."""
    progress: Callable[[Progress], None] | None = None
    skip_unchanged: bool = False
    canary: int = 0
    """Number of environments that go first; 0 for all at once."""
    check_lock: Callable[[], None] = lambda: None
    """Raises LedgerError if the run's lock is lost."""
    may_discard: Callable[[str], bool] = lambda _run: False
    """Called with the id of another run whose part file is in the way: whether it may be discarded."""
    runtime: Runtime = field(default_factory=Runtime)
    runner: MakeRunner | None = None
    """Makes what has the run worked on by other processes; None: this one works on it."""
    lease_seconds: float | None = None
    """Seconds after a successful lock check in which rows may begin and have effects; None for those of a lock."""
    urls: Callable[[Row], Secret] | None = None
    """Returns the whole URL that a row's file is sent from; None if no URL has a query."""
    resumed: bool = False
    """Whether an earlier session may have worked on the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext(RunContext):
    """What the calls of a run's rows need."""

    transport: Transport
    lease: Lease
    """Checked right before each effect."""


class Runner(Protocol):
    """What works on the rows of a run, in this process or others."""

    @property
    def has_begun_rows(self) -> bool:
        """Whether rows have begun, and how they ended is not recorded."""

    async def work(self) -> None:
        """Work until all rows have ended. Raises TcbOpsError if the run stops."""

    def interrupt(self) -> None:
        """End early: calls in flight have a few seconds to end, all other rows stay pending."""


MakeRunner: TypeAlias = Callable[[RunContext, Callable[[Progress], None]], Runner]


class Calls:
    """The calls for the rows of a run, and their counts. These are a link's; other kinds add their own."""

    def __init__(self, context: CallContext) -> None:
        settings = context.settings
        self.context, self.lease = context, context.lease
        self.clock = asyncio.get_running_loop().time
        """Monotonic seconds."""
        self.now = context.runtime.now
        """Unix seconds."""
        self.wechat = PlatformClient(context.transport, settings.api_base, store_hosts=settings.store_hosts)
        self.link_calls = 0
        self.upload_calls = 0
        self.last_answer = float("-inf")
        """When any server last responded, by `clock`."""

    def forget(self, appid: str, owner: Owner) -> None:
        """Forget what was found about an account of which no row is left."""

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Make the calls of a row until it ends or one fails."""
        link = await self._current_link(task)
        return link if isinstance(link, FailedAttempt) else self._linked(task, link)

    def _linked(self, task: Task, link: Link) -> RowEnd:
        return self._end(task, Outcome.LINKED, errcode=0, errmsg="ok", file_id=link.file_id, link=link)

    async def _current_link(self, task: Task) -> Link | FailedAttempt:
        """Return a task's link; a new one where it has none, or its own is about to expire."""
        if task.link is not None and self.clock() < task.link_until:
            return task.link
        link = await self._link(task)
        if isinstance(link, Link):
            task.link, task.counts.link = link, 0
            task.link_until = self.clock() + link.alive_for(self.now()) - LINK_MARGIN
        return link

    async def _link(self, task: Task) -> Link | FailedAttempt:
        row = task.row
        answer: Link | UnsafeLink | FailedAttempt = await self._ask(
            task, self.wechat.upload_link(row.env, row.path, task.token, task.lane.owner)
        )
        if isinstance(answer, UnsafeLink):
            end = self._end(task, Outcome.FAILED, answer.reason, answer.why)
            return FailedAttempt(end, Decision.FIX, Scope.ROW, "link")
        return answer

    async def _ask(
        self, task: Task, call: Awaitable[Answer | ApiError | InvalidResponse]
    ) -> Answer | FailedAttempt:
        """Make a call of a task to the platform; return its answer, or why there is none."""
        self.link_calls += 1
        task.counts.calls += 1
        try:
            answer = await call
        except TransportError as error:
            return self._no_answer(task, error, "link")
        self.last_answer = self.clock()
        return self._refused(task, answer) if isinstance(answer, ApiError | InvalidResponse) else answer

    def _refused(self, task: Task, answer: ApiError | InvalidResponse) -> FailedAttempt:
        decision, scope = classify(answer)
        if isinstance(answer, InvalidResponse):
            end = self._end(
                task, Outcome.FAILED, Reason.NO_ANSWER, answer.why, http_status=answer.http_status
            )
            return FailedAttempt(end, decision, scope, "link")
        by_component = task.lane.owner is Owner.PLATFORM
        end = self._end(
            task,
            Outcome.REFUSED,
            Reason.COMPONENT if by_component else Reason.REFUSED,
            errcode=answer.errcode,
            errmsg=answer.errmsg,
            rid=answer.rid,
            http_status=answer.http_status,
        )
        return FailedAttempt(end, decision, scope, "link")

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
        message: Text | None = None,
        **more: Any,
    ) -> RowEnd:
        """Return how a row ends now; `more` are fields of RowEnd."""
        return RowEnd(
            task.row.line,
            outcome,
            reason,
            as_detail(message) if message is not None else None,
            attempts=task.counts.calls,
            started_at=task.started_at,
            ended_at=self.now(),
            **more,
        )


class UploadCalls(Calls):
    """The calls of uploads, and a cache of digests."""

    def __init__(self, context: CallContext) -> None:
        super().__init__(context)
        self.digests: dict[tuple[str, int, int], str] = {}
        """MD5 of files by (name, size, mtime): one file for 400 environments is hashed once."""

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Make the calls of a row until it ends or one fails."""
        known = task.lane.known_files.pop(task.row.path, None)
        if known is not None and (same := await self._unchanged(task, known)) is not None:
            return same
        return await self._link_and_store(task)

    async def _link_and_store(self, task: Task) -> RowEnd | FailedAttempt:
        link = await self._current_link(task)
        if isinstance(link, FailedAttempt):
            return link
        return await self._store(task, link)

    async def _store(self, task: Task, link: Link) -> RowEnd | FailedAttempt:
        row = task.row
        try:
            async with self._opened(row) as body:
                self.lease.check()
                self.upload_calls += 1
                task.counts.calls += 1
                answer = await post_object(
                    self.context.transport,
                    link,
                    row.path,
                    body,
                    row.content_type,
                    row.cache_control,
                    any_etag=self.context.settings.etag == "warn",
                    before_end=self.lease.check,
                )
        except (FileChangedError, FileUnreadableError) as error:
            return self._unusable(task, error)
        except TransportError as error:
            return self._no_answer(task, error, "store")
        self.last_answer = self.clock()
        if isinstance(answer, StoredObject):
            if not is_source(row.file):
                self._keep_digest(self._planned(row), answer.md5)
            return self._stored(task, link, answer, body.size)
        if isinstance(answer, Unconfirmed):
            end = self._end(task, Outcome.FAILED, Reason.NO_CONFIRMATION, answer.why)
            decision, scope, code = Decision.RETRY, Scope.ROW, ""
        else:
            entry = store_code(answer.code, answer.message, answer.http_status)
            message = detail(DetailCode.STORE_MESSAGE, message=answer.message) if answer.message else None
            end = self._end(task, Outcome.FAILED, Reason.STORE_REFUSED, message)
            decision, scope, code = entry.decision, entry.scope, answer.code
        end = replace(end, http_status=answer.http_status, rid=answer.request_id, store_code=code)
        return FailedAttempt(end, decision, scope, "store")

    @asynccontextmanager
    async def _opened(self, row: Row) -> AsyncIterator[Body]:
        if is_source(row.file):
            async with needed(SourceHooks).body(self.context, row) as body:
                yield body
        else:
            planned = self._planned(row)
            size, digest = planned[1], self.digests.get(planned, "")
            root = self.context.root
            opened = partial(open_file, root / row.file, *planned[1:], digest, root, memory_for(size))
            # Reading a small file is quicker than passing it to a thread.
            with opened() if size <= SMALL else await asyncio.to_thread(opened) as file:
                yield file

    async def _hash(self, row: Row) -> str:
        if is_source(row.file):
            async with self._opened(row) as body:
                async for _chunk in body.chunks():
                    pass
                return body.md5
        planned = self._planned(row)
        digest = self.digests.get(planned, "")
        if not digest:
            digest = await asyncio.to_thread(hash_file, self.context.root / row.file, *planned[1:])
        self._keep_digest(planned, digest)
        return digest

    @staticmethod
    def _planned(row: Row) -> tuple[str, int, int]:
        return row.file, row.size or 0, row.mtime_ns or 0

    def _unusable(self, task: Task, error: FileChangedError | FileUnreadableError) -> RowEnd:
        return self._end(task, Outcome.FAILED, error.of_row, error.text)

    async def _unchanged(self, task: Task, known: StoredFile) -> RowEnd | None:
        """Return the end of a row whose bytes and headers are stored already; None if they differ or are unreadable."""
        row = task.row
        if not known.may_be(row):
            return None
        try:
            digest = known.md5 if known.has_etag_of(row) else await self._hash(row)
        except (FileChangedError, FileUnreadableError, TransportError):
            return None  # the upload reports the problem
        if digest != known.md5:
            return None
        since = detail(DetailCode.UNCHANGED_SINCE, run=known.run)
        end = self._end(task, Outcome.UNCHANGED, None, since)
        return replace(end, md5=digest, bytes=known.bytes, file_id=known.file_id)

    def _keep_digest(self, planned: tuple[str, int, int], digest: str) -> None:
        if len(self.digests) >= DIGESTS:
            self.digests.clear()
        self.digests[planned] = digest

    def _stored(self, task: Task, link: Link, answer: StoredObject, size: int) -> RowEnd | FailedAttempt:
        end = self._end(
            task,
            Outcome.UPLOADED,
            None if answer.verdict == "same" else Reason.UNVERIFIED,
            errcode=0,
            errmsg="ok",
            http_status=answer.http_status,
            file_id=link.file_id,
            md5=answer.md5,
            bytes=size,
        )
        if answer.verdict != "different":
            return end
        message = detail(DetailCode.ETAG_DIFFERS, etag=answer.etag, md5=answer.md5)
        failed = replace(
            end,
            outcome=Outcome.FAILED,
            reason=Reason.ETAG_MISMATCH,
            detail=message,
            store_code=ETAG_MISMATCH,
        )
        return FailedAttempt(failed, Decision.RETRY, Scope.ENV, "store")


def open_upload_calls(context: CallContext) -> Calls:
    """Return the calls of an upload; those with a backup look at each path before they send."""
    backed_up = bool(context.run.settings.backup)
    return needed(BackupHooks).calls(context) if backed_up else UploadCalls(context)
