"""`source = "component"`: tcb-ops refreshes the merchants' tokens by itself, as the only one that does.

One refresh at a time per appid, over tasks, threads and processes: a flight per appid here, the store's lock between
processes, and under it a look at what is stored by now. The component's own token is kept and renewed in the same
way. No lock covers two merchants, so none waits for another's refresh.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import replace

from tcb_ops.errors import SettingsError, TokenError, TokenSourceError, TransportError
from tcb_ops.i18n import Text
from tcb_ops.model import Secret
from tcb_ops.settings import TokenSettings
from tcb_ops.wechat.tokens.component_client import ComponentClient
from tcb_ops.wechat.tokens.credential import Credential
from tcb_ops.wechat.tokens.store import Store, StoredToken
from tcb_ops.wechat.tokens.token import Token

AT_ONCE = 128
"""Refreshes on their way at once, each with a lock and a connection."""
RETRY_WAIT = 1.0
ROTATION_WAIT = 2.0
LATER = 60.0
"""Seconds after which a renewal ahead of the end that failed is tried again."""
MOST_REFUSED, REFUSED_WITHIN = 5, 300.0
"""So many refreshes of one appid within so many seconds because its token was refused: more would not help, but use
up the day's calls."""
LET_FINISH = 5.0
"""Seconds that refreshes on their way have at the end, so that what they bring is stored."""


class ComponentTokens:
    """The platform's own tokens and its merchants'.

    Args:
        component_appid: the third-party platform's appid; its token is the component token.
        secret, ticket: its AppSecret and component_verify_ticket.
        store: where what comes back is kept.
        api_base: the target.
        clock: Unix seconds.
        retry_wait: seconds before a question that found no answer is asked once more.
        rotation_wait: seconds before a refused refresh token is looked up for the last time.

    """

    def __init__(
        self,
        component_appid: str,
        secret: Credential,
        ticket: Credential,
        store: Store,
        api_base: str,
        *,
        clock: Callable[[], float] = time.time,
        retry_wait: float = RETRY_WAIT,
        rotation_wait: float = ROTATION_WAIT,
    ) -> None:
        self._component_appid, self._store, self._clock = component_appid, store, clock
        self._issuer = ComponentClient(
            component_appid,
            secret,
            ticket,
            api_base,
            self._component_access,
            connections=AT_ONCE,
            clock=clock,
            retry_wait=retry_wait,
            rotation_wait=rotation_wait,
        )
        self._room = asyncio.Semaphore(AT_ONCE)
        self._flights: dict[str, asyncio.Task[Token]] = {}
        self._refused: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MOST_REFUSED))

    @classmethod
    def of(cls, settings: TokenSettings, api_base: str) -> ComponentTokens:
        """Make it as the settings say. Raises SettingsError for what is missing or cannot be used, naming it."""
        if not settings.sole_owner:
            raise SettingsError(
                Text(
                    'tokens.source = "component" needs sole_owner = true: a second program that refreshes the same tokens voids '
                    "those of the first within five minutes. If a backend of yours refreshes them already, use "
                    'source = "service" or "command" and ask it; set sole_owner = true only if tcb-ops is the only one.',
                    'tokens.source = "component" 需要 sole_owner = true：若另有程序刷新同一批令牌，先前的令牌会在五分钟内失效。'
                    '如果你们的后台已在刷新，请用 source = "service" 或 "command" 向它取；'
                    "只有 tcb-ops 是唯一的刷新者时，才设 sole_owner = true。",
                )
            )
        if not settings.component_appid:
            raise SettingsError(
                Text(
                    "tokens.component_appid is missing: it is the platform's own appid on open.weixin.qq.com.",
                    "缺少 tokens.component_appid：它是第三方平台在 open.weixin.qq.com 上的 appid。",
                )
            )
        secret = Credential.named("tokens.secret", settings.secret)
        ticket = Credential.named("tokens.ticket", settings.ticket)
        store = Store(settings.store, settings.component_appid, api_base)
        return cls(settings.component_appid, secret, ticket, store, api_base)

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Give the stored token, or the one that a refresh brings: this call's, or one that is on its way.

        Raises TransportError where the platform cannot be reached: an outage, which its callers wait out.
        """
        try:
            return await self._token(appid, refused)
        except TokenError as error:
            if appid != self._component_appid:
                raise
            text = error.text
        raise TokenSourceError(text)  # the component's own trouble is everybody's

    async def _token(self, appid: str, refused: Secret | None) -> Token:
        while True:
            kept = self._store.read(appid)
            if kept is not None and kept.serves(refused, self._clock()):
                return kept.token
            flight = self._flights.get(appid)
            mine = flight is None
            if flight is None:
                flight = self._flights[appid] = asyncio.create_task(self._fly(appid, refused))
                flight.add_done_callback(lambda done: self._landed(appid, done))
            # Shielded: what a refresh brings is stored, whoever stops waiting for it.
            token = await asyncio.shield(flight)
            if mine or token.value != refused:
                return token

    async def aclose(self) -> None:
        """Let refreshes on their way end, for a moment, and close the connections."""
        if self._flights:
            _, left = await asyncio.wait(self._flights.values(), timeout=LET_FINISH)
            for flight in left:
                flight.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await self._issuer.aclose()

    # --- one refresh at a time --------------------------------------------------------------------------------------

    def _landed(self, appid: str, flight: asyncio.Task[Token]) -> None:
        self._flights.pop(appid, None)
        if not flight.cancelled():
            flight.exception()  # seen, even where nobody waits any more

    async def _fly(self, appid: str, refused: Secret | None) -> Token:
        if appid == self._component_appid:  # never behind merchants that wait for it
            return await self._renewed(appid, refused)
        async with self._room:
            return await self._renewed(appid, refused)

    async def _renewed(self, appid: str, refused: Secret | None) -> Token:
        async def keep(refresh: Secret) -> None:
            await asyncio.to_thread(
                self._store.write, appid, replace(kept or StoredToken(None, None), refresh=refresh)
            )

        async with self._store.hold(appid):
            kept, now = self._store.read(appid), self._clock()
            if kept is not None and (kept.serves(refused, now) or not self._may_refresh(appid, refused, now)):
                return kept.token
            try:
                fresh = await (
                    self._issuer.component_token()
                    if appid == self._component_appid
                    else self._issuer.authorizer_token(appid, kept, keep, lambda: self._store.read(appid))
                )
            except (TokenError, TokenSourceError, TransportError):
                if kept is None or not kept.alive(refused, now):
                    raise
                return replace(kept.token, renew_at=min(now + LATER, kept.expires_at))
            await asyncio.to_thread(self._store.write, appid, fresh)
            return fresh.token

    async def _component_access(self, refused: Secret | None) -> Secret:
        return (await self.token(self._component_appid, refused)).value

    def _may_refresh(self, appid: str, refused: Secret | None, now: float) -> bool:
        """Whether one more refresh can help a token that is refused; counts those that are made for that."""
        if refused is None:
            return True
        times = self._refused[appid]
        if len(times) == MOST_REFUSED and now - times[0] < REFUSED_WITHIN:
            return False
        times.append(now)
        return True
