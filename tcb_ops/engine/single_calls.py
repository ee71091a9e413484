"""Calls outside of runs: with a token, as many attempts as allowed, and the pauses that the platform asks for.

`upload_link`, the public function for ad-hoc work, makes one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from tcb_ops.catalogue import Decision, errcode
from tcb_ops.engine.limits import AttemptCounts, NextStep, RunLimits, backoff_wait, classify, next_step
from tcb_ops.errors import TokenError, TransportError, TransportFault
from tcb_ops.hooks import TokenSource
from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret
from tcb_ops.settings import Settings
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse
from tcb_ops.wechat.single_transport import SingleTransport
from tcb_ops.wechat.tokens import open_source

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
        async with SingleTransport(connections=connections) as transport:
            client = PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts)
            yield client, Caller(source, limits or RunLimits(), notify=notify)
    finally:
        await source.aclose()
