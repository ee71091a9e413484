"""Asking for many accounts at once: with each one's token, a few at a time, one's trouble never another's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tcb_ops.errcodes import Decision, Scope, errcode
from tcb_ops.errors import (
    OutageError,
    PlatformStopError,
    TokenError,
    TokenSourceError,
    TransportError,
    TransportFault,
)
from tcb_ops.i18n import Text
from tcb_ops.model import Owner, Reason, Secret
from tcb_ops.runs.limits import RunLimits, Step, Tries, backoff_wait, next_step
from tcb_ops.runs.stop_errors import stopping
from tcb_ops.wechat.responses import InvalidResponse, Refusal
from tcb_ops.wechat.tokens import TokenSource

AT_ONCE = 8
"""Merchants that are asked about at a time."""

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class TransportFailure:
    """What stands in a merchant's way, and what to do about it."""

    code: str
    """An errcode, or a short name of ours: `no_token`, `dead_token`, `no_answer`, `halted` …"""
    meaning: Text
    action: Text
    errmsg: str = ""
    """The platform's own words."""

    @property
    def errcode(self) -> int | None:
        """The errcode, where it is one."""
        return int(self.code) if self.code.lstrip("-").isdigit() else None


@dataclass(slots=True)
class Asking:
    """Makes calls with an appid's token. A refused token is looked up anew once a call; passing trouble is tried again."""

    source: TokenSource
    pace: RunLimits = field(default_factory=RunLimits)
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    say: Callable[[Text], None] = lambda _: None
    """Told once, when the platform asks for a pause: for a minute nothing else would move."""
    tokens: dict[str, Secret] = field(default_factory=dict)
    source_answered: bool = False
    """The token source has given or refused somebody a token: what it does not answer is one merchant's trouble."""
    answers: int = 0
    """Calls that somebody answered, or at least took."""
    told_of_pause: bool = False

    async def ask(
        self,
        appid: str,
        call: Callable[[Secret], Awaitable[Found | Refusal | InvalidResponse]],
        owner: Owner = Owner.MERCHANT,
    ) -> Found | TransportFailure:
        """Call with the appid's token; gives what was found, or the trouble when that is its end, in its owner's words.

        Raises PlatformStopError for a refusal that concerns everybody, OutageError when nobody is reached, and what
        the token source raises for everybody.
        """
        try:
            return await self._ask(appid, call, owner)
        except TokenError as error:
            if error.transient and not self.source_answered:
                raise TokenSourceError(error.text) from None
            self.source_answered |= not error.transient
            return TransportFailure(
                Reason.NO_TOKEN, Text("There is no token for it.", "没有它的令牌。"), error.text
            )

    async def _ask(
        self, appid: str, call: Callable[[Secret], Awaitable[Found | Refusal | InvalidResponse]], owner: Owner
    ) -> Found | TransportFailure:
        tries, waited, answers = Tries(), 0.0, self.answers
        while True:
            token = await self._token(appid)
            tries.link += 1
            said = await self._said(call, token)
            if not isinstance(said, Refusal | InvalidResponse | TransportError):
                return said
            match next_step(*_decision(said), tries, tries.link, self.pace, patient=self._patient(waited)):
                case Step.STOP_RUN if isinstance(said, Refusal):
                    raise PlatformStopError(stopping(said.errcode, said.errmsg))
                case Step.REFRESH:
                    tries.refreshed = True
                    if not await self._renewed(appid, token):
                        return _DEAD_COMPONENT_TOKEN if owner is Owner.PLATFORM else _DEAD_TOKEN
                case Step.RETRY:
                    tries.retried_once = True
                    await self.sleep(backoff_wait(self.pace, tries.link, random.random()))  # noqa: S311  no secret
                case Step.SLOW:
                    tries.link -= 1
                    waited += await self._pause()
                case _ if isinstance(said, TransportError) and self.answers == answers:
                    raise OutageError(said.text)
                case _:
                    return _trouble(said, owner)

    def _patient(self, waited: float) -> bool:
        return waited < self.pace.patience and self.pace.attempts > 1

    async def _pause(self) -> float:
        """Wait as the platform asks; gives for how long."""
        if not self.told_of_pause:
            self.told_of_pause = True
            seconds = f"{self.pace.slow_wait:g}"
            self.say(
                Text(
                    f"The platform asks to slow down (45011): pausing {seconds} s at a time, then going on.",
                    f"平台要求放慢（45011）：每次暂停 {seconds} 秒后继续。",
                )
            )
        await self.sleep(self.pace.slow_wait)
        return self.pace.slow_wait

    async def _token(self, appid: str) -> Secret:
        if appid not in self.tokens:
            self.tokens[appid] = await self._given(appid, None)
        return self.tokens[appid]

    async def _given(self, appid: str, refused: Secret | None) -> Secret:
        """What the source gives; waited for where the platform tells it to slow down."""
        waited = 0.0
        while True:
            try:
                found = (await self.source.token(appid, refused)).value
            except TokenError as error:
                if errcode(error.errcode).decision is not Decision.SLOW or not self._patient(waited):
                    raise
            else:
                self.source_answered = True
                return found
            waited += await self._pause()

    async def _renewed(self, appid: str, refused: Secret) -> bool:
        """Whether there is another token than the one that was refused."""
        if self.tokens.get(appid) == refused:  # else another call of the same appid has looked already
            self.tokens[appid] = await self._given(appid, refused)
        return self.tokens[appid] != refused

    async def _said(
        self, call: Callable[[Secret], Awaitable[Found | Refusal | InvalidResponse]], token: Secret
    ) -> Found | Refusal | InvalidResponse | TransportError:
        try:
            said = await call(token)
        except TransportError as error:
            self.answers += error.fault is not TransportFault.UNREACHABLE
            return error
        self.answers += 1
        return said


async def each(
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[Found]],
    done: Callable[[], None] = lambda: None,
) -> list[Found]:
    """Do the work for every item, AT_ONCE at a time; gives what was found in the items' order.

    `done` is called after each. The first exception ends the others, and is raised as it is.
    """
    listed = list(items)
    found: dict[int, Found] = {}
    left = iter(enumerate(listed))

    async def worker() -> None:
        for place, item in left:
            found[place] = await work(item)
            done()

    workers = [asyncio.ensure_future(worker()) for _ in range(min(AT_ONCE, len(listed)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [found[place] for place in range(len(listed))]


_DEAD_TOKEN = TransportFailure(
    Reason.DEAD_TOKEN,
    Text(
        "Its token was refused and the token source gave the same one again.",
        "令牌被拒绝，而令牌来源再次给出了同一个令牌。",
    ),
    Text(
        "Have the token source renew it; if that does not help, the merchant has to authorize again.",
        "请让令牌来源刷新它；若仍无效，需请商户重新授权。",
    ),
)
RENEW_COMPONENT = Text(
    "Have the token source renew the component token, and make sure that only one program refreshes it.",
    "请让令牌来源刷新 component_access_token，并确认只有一个程序在刷新它。",
)
_DEAD_COMPONENT_TOKEN = replace(_DEAD_TOKEN, action=RENEW_COMPONENT)


def _decision(said: Refusal | InvalidResponse | TransportError) -> tuple[Decision, Scope]:
    match said:
        case Refusal():
            known = errcode(said.errcode)
            return known.decision, known.scope
        case InvalidResponse(retryable=False):
            return Decision.FIX, Scope.ROW
        case _:
            return Decision.RETRY, Scope.ROW


def _trouble(said: Refusal | InvalidResponse | TransportError, owner: Owner) -> TransportFailure:
    if isinstance(said, Refusal):
        known = errcode(said.errcode, owner)
        return TransportFailure(str(said.errcode), known.meaning, known.action, said.errmsg)
    return TransportFailure(
        Reason.NO_ANSWER,
        said.why if isinstance(said, InvalidResponse) else said.text,
        Text(
            "Check the network and any proxy on the way, then look again.",
            "请检查网络和途经的代理，然后再查一次。",
        ),
    )
