"""Calls outside of runs: with a token, as many attempts as allowed, and the pauses that the platform asks for.

`upload_link`, the public function for ad-hoc work, makes one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar, Unpack

from tcb_ops.arguments import checked
from tcb_ops.catalogue import Decision, errcode
from tcb_ops.errors import RefusedError, TokenError, TransportError, TransportFault, UsageError
from tcb_ops.i18n import Text, _
from tcb_ops.lists.merchants import Unresolved, read_merchants, resolve
from tcb_ops.lists.paths import path_problem
from tcb_ops.model import Link, Merchant, Owner, Secret
from tcb_ops.runs.limits import AttemptCounts, NextStep, RunLimits, backoff_wait, classify, next_step
from tcb_ops.runs.loop import result_of, submit_coroutine
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, opened_target, settings_for
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse, UnsafeLink
from tcb_ops.wechat.tokens import TokenSource, open_source
from tcb_ops.wechat.transport import Transport

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class CallFailure:
    """The result of a single call that failed."""

    answer: ApiError | InvalidResponse | TransportError
    """The last response or error."""
    step: NextStep
    """STOP_RUN if the error affects every merchant, REFRESH if the source returns the refused token again, else END."""
    unreachable: bool = False
    """No connection was made, by this call or any concurrent one."""


@dataclass(slots=True)
class Caller:
    """Makes single calls with an appid's token: limits attempts, renews the token once, pauses on 45011.

    Many tasks may share a Caller; it caches their tokens.
    """

    source: TokenSource
    limits: RunLimits = field(default_factory=RunLimits)
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    notify: Callable[[Text], None] = lambda _: None
    """Called at the first slow-down response, to explain the pause."""
    tokens: dict[str, Secret] = field(default_factory=dict)
    source_answered: bool = False
    """The token source has responded for some appid, so a later failure affects one merchant only."""
    answers: int = 0
    """Calls that received a response, or at least connected."""
    notified: bool = False

    async def call(
        self, appid: str, request: Callable[[Secret], Awaitable[Answer | ApiError | InvalidResponse]]
    ) -> Answer | CallFailure:
        """Call `request` with the appid's token until it succeeds or the policy ends the call.

        Raises the errors of the token source, after pauses if it asks to slow down.
        """
        counts, waited, answers = AttemptCounts(), 0.0, self.answers
        while True:
            token = await self._token(appid)
            counts.link += 1
            answer = await self._answer(request(token))
            if not isinstance(answer, ApiError | InvalidResponse | TransportError):
                return answer
            decision, scope = classify(answer)
            step = next_step(decision, scope, counts, counts.link, self.limits, patient=self._patient(waited))
            match step:
                case NextStep.REFRESH:
                    counts.refreshed = True
                    if not await self._renew(appid, token):
                        return CallFailure(answer, step)
                    counts.link -= 1
                case NextStep.RETRY:
                    counts.retried_once |= decision is Decision.RETRY_ONCE
                    await self.sleep(backoff_wait(self.limits, counts.link, random.random()))  # noqa: S311  no secret
                case NextStep.SLOW:
                    counts.link -= 1
                    waited += await self._pause()
                case NextStep.STOP_RUN:
                    return CallFailure(answer, step)
                case _:
                    nobody = isinstance(answer, TransportError) and self.answers == answers
                    return CallFailure(answer, NextStep.END, unreachable=nobody)

    async def _answer(
        self, request: Awaitable[Answer | ApiError | InvalidResponse]
    ) -> Answer | ApiError | InvalidResponse | TransportError:
        try:
            answer = await request
        except TransportError as error:
            self.answers += error.fault is not TransportFault.UNREACHABLE
            return error
        self.answers += 1
        return answer

    def _patient(self, waited: float) -> bool:
        return waited < self.limits.patience and self.limits.attempts > 1

    async def _pause(self) -> float:
        """Sleep for `slow_wait` and return its seconds; the first time, notify the user."""
        if not self.notified:
            self.notified = True
            text = _(
                "The platform asks to slow down (45011): pausing {seconds} s at a time, then continuing."
            )
            self.notify(text.format(seconds=f"{self.limits.slow_wait:g}"))
        await self.sleep(self.limits.slow_wait)
        return self.limits.slow_wait

    async def _token(self, appid: str) -> Secret:
        if appid not in self.tokens:
            self.tokens[appid] = await self._from_source(appid, None)
        return self.tokens[appid]

    async def _renew(self, appid: str, refused: Secret) -> bool:
        if self.tokens.get(appid) == refused:  # otherwise another call has already renewed the appid's token
            self.tokens[appid] = await self._from_source(appid, refused)
        return self.tokens[appid] != refused

    async def _from_source(self, appid: str, refused: Secret | None) -> Secret:
        waited = 0.0
        while True:
            try:
                token = (await self.source.token(appid, refused)).value
            except TokenError as error:
                self.source_answered |= not error.transient
                if errcode(error.errcode).decision is not Decision.SLOW or not self._patient(waited):
                    raise
            else:
                self.source_answered = True
                return token
            waited += await self._pause()


@asynccontextmanager
async def open_client(
    settings: Settings,
    *,
    connections: int = 1,
    limits: RunLimits | None = None,
    notify: Callable[[Text], None] = lambda _: None,
) -> AsyncIterator[tuple[PlatformClient, Caller]]:
    """Open a client for single calls, and what makes them; `notify`: called for a pause that the platform asks for."""
    source = open_source(settings)
    try:
        async with Transport(connections=connections) as transport:
            client = PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts)
            yield client, Caller(source, limits or RunLimits(), notify=notify)
    finally:
        await source.aclose()


@checked
def upload_link(env: str, path: str, *, appid: str | None = None, **options: Unpack[TargetOptions]) -> Link:
    """Request one upload link, for ad-hoc work. Only `.reveal()` shows its secret parts.

    `appid` is needed if several merchants share the environment. Raises UsageError (unknown env, bad path),
    TokenError, TransportError, RefusedError (the platform's errcode).
    """
    settings = settings_for(options)
    if (problem := path_problem(path)) is not None:
        raise UsageError(_("path: {wrong}.", wrong=problem[0]))
    merchants = read_merchants(settings.merchants)
    merchant = resolve(merchants, env, "", appid or "")
    assert merchant is not None  # noqa: S101  only --where leaves lines out
    if isinstance(merchant, Unresolved):
        name, message, fix = merchant.column, merchant.message, merchant.fix
        raise UsageError(_("{name}: {message}; {fix}.", name=name, message=message, fix=fix))
    with opened_target(settings, lambda: merchants) as opened:
        return result_of(submit_coroutine(_request_link(merchant, path, opened)))


async def _request_link(merchant: Merchant, path: str, settings: Settings) -> Link:
    appid = merchant.appid
    if merchant.owner is Owner.PLATFORM:
        appid = settings.tokens.component_appid
        if not appid:
            raise TokenError(NO_COMPONENT)
    async with open_client(settings) as (client, caller):
        result: Link | UnsafeLink | CallFailure = await caller.call(
            appid, lambda token: client.upload_link(merchant.env, path, token, merchant.owner)
        )
    match result.answer if isinstance(result, CallFailure) else result:
        case Link() as link:
            return link
        case TransportError() as error:
            raise error
        case ApiError(errcode=code, errmsg=errmsg):
            entry = errcode(code, merchant.owner)
            text = _("errcode {errcode} {errmsg}: {meaning}")
            text = text.format(errcode=code, errmsg=errmsg, meaning=entry.meaning)
            raise RefusedError(text, code, fix=entry.action)
        case unusable:
            raise TransportError(TransportFault.GARBAGE, unusable.why)
