"""The calls of an audit's environments: the account's checks, a link, and with `--write-probe` a small file."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from tcb_ops.details import as_detail, detail
from tcb_ops.errors import TransportError
from tcb_ops.features.audit import PROBE_LEFT, UNHEALTHY, AuditCode
from tcb_ops.features.audit.checks import AccountChecks, AccountFacts, cause_of
from tcb_ops.i18n import Text, verbatim
from tcb_ops.model import Link, Owner, Reason, Row, RowEnd
from tcb_ops.runs.calls import CallContext, FailedAttempt, SomeEnds, UploadCalls
from tcb_ops.runs.scheduler import Task
from tcb_ops.wechat.local_files import Body
from tcb_ops.wechat.responses import NOT_THERE, ApiError, InvalidResponse, own_file_id

DELETE_WAITS = (0.0, 1.0, 2.0)
"""Seconds before each attempt to delete the probe file."""
_PROBE = b"tcb-ops audit: this file may be deleted.\n"


class AuditCalls(UploadCalls):
    """The calls of an audit. An environment that the account's checks have decided gets no link."""

    def __init__(self, context: CallContext) -> None:
        super().__init__(context)
        settings = context.settings
        self._checks = AccountChecks(self.wechat, self.component, settings.tokens.component_appid)
        self._writes_probe = bool(context.run.settings.get("write_probe"))

    def forget(self, appid: str, owner: Owner) -> None:
        """Forget what was found about an account of which no environment is left."""
        self._checks.accounts.pop((appid, owner), None)

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Make the calls of an environment until it ends or one fails."""
        facts = await self._facts(task)
        if isinstance(facts, FailedAttempt):
            return facts
        if (cause := cause_of(facts, task.row.env)) is not None:
            return self._end(task, UNHEALTHY, cause.reason, cause.detail, errcode=cause.errcode)
        result = await self._probe(task)
        if isinstance(result, RowEnd) and result.outcome.succeeded:
            result = replace(result, detail=facts.detail)
        return result

    async def _facts(self, task: Task) -> AccountFacts | FailedAttempt:
        """Return the facts about the environment's account."""
        try:
            facts, calls = await self._checks.ask(task.lane.app.appid, task.lane.owner, task.token)
        except TransportError as error:
            return self._no_answer(task, error, "link")
        task.counts.calls += calls
        if calls:
            self.last_answer = self.clock()
        return facts if isinstance(facts, AccountFacts) else self._refused(task, facts)

    async def _probe(self, task: Task) -> RowEnd | FailedAttempt:
        """Request a link; with `--write-probe`, store the probe file and delete it again."""
        link = await self._current_link(task)
        if isinstance(link, FailedAttempt):
            return link
        if not self._writes_probe:
            return self._linked(task, link)
        return await self._store_probe(task, link)

    async def _store_probe(self, task: Task, link: Link) -> RowEnd | FailedAttempt:
        row = task.row
        answer = await self._store(task, link)
        if isinstance(answer, FailedAttempt) and answer.end.reason is Reason.STORE_REFUSED:
            return answer
        problem = await self._delete_probe(task, own_file_id(link, row.path, row.env))
        if isinstance(answer, FailedAttempt) or problem is None:
            return answer
        still_there = detail(AuditCode.PROBE_LEFT, path=row.path, why=as_detail(problem))
        return self._end(task, UNHEALTHY, PROBE_LEFT, still_there)

    @asynccontextmanager
    async def _opened(self, row: Row) -> AsyncIterator[Body]:
        body = Body(len(_PROBE))
        body.content, body.md5 = _PROBE, hashlib.md5(_PROBE, usedforsecurity=False).hexdigest()
        yield body

    async def _delete_probe(self, task: Task, file_id: str) -> Text | None:
        """Delete the probe file, in several attempts; return None, or why it could not be deleted."""
        problem: Text | None = None
        for wait in DELETE_WAITS:
            await asyncio.sleep(wait)
            task.counts.calls += 1
            try:
                answer = await self.wechat.delete(task.row.env, [file_id], task.token, task.lane.owner)
            except TransportError as error:
                problem = error.text
                continue
            if isinstance(answer, InvalidResponse):
                problem = answer.why
                continue
            status = answer.errcode if isinstance(answer, ApiError) else next(iter(answer.values())).status
            if status in {0, NOT_THERE}:
                return None
            problem = verbatim(f"errcode {status}")
        return problem
