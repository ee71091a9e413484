"""`source = "component"`: tcb-ops refreshes the merchants' tokens itself, as the only program that does.

An appid has one refresh at a time over tasks, threads and processes: one task per appid here, and the store's lock
between processes, under which the stored token is read again. The component token is stored and renewed in the same
way. No merchant waits for another's lock.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Hashable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

from tcb_ops.catalogue import Decision, Scope, errcode
from tcb_ops.details import detail
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.single_calls import Caller, CallFailure
from tcb_ops.errors import SettingsError, TokenError, TokenSourceError, TransportError, TransportFault
from tcb_ops.features.tokens import ComponentCode
from tcb_ops.features.tokens.component_store import StoredToken, TokenStore
from tcb_ops.hooks import TokenSource
from tcb_ops.i18n import Text, _, as_sentences
from tcb_ops.model import Secret
from tcb_ops.programs import Credential
from tcb_ops.settings import Settings
from tcb_ops.wechat.client import AUTHORIZERS_PER_PAGE, PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse
from tcb_ops.wechat.single_transport import SingleTransport
from tcb_ops.wechat.tokens import Token, finite, is_token
from tcb_ops.wechat.transport import Timeouts

AT_ONCE = 128
"""Maximum refreshes at once, each with a lock and a connection."""
TIMEOUTS = Timeouts(connect=10, answer=20)
RETRY_WAIT, ROTATION_WAIT = 1.0, 2.0
"""Seconds before a call without a usable response is repeated; before a refused refresh token is looked up again."""
RENEW_FROM = 11 / 12
"""The fraction of a token's lifetime after which it is renewed: 1 h 50 min of 7200 s (api_component_token)."""
LATER = 60.0
"""Seconds after which a failed renewal is tried again while the token is still valid."""
MOST_REFUSED, REFUSED_WITHIN = 5, 300.0
"""Maximum refreshes of one appid after refusals, within so many seconds: more would only use up the daily quota."""
LET_FINISH = 5.0
"""Seconds for running refreshes to complete on closing, so that their tokens are stored."""
LIST_KEPT = 60.0
"""Seconds that a response of api_get_authorizer_list is cached for all merchants."""
PAGES = 200
"""Maximum number of pages requested: 100,000 authorizers are more than any platform has."""

COMPONENT_TOKEN = "api_component_token"  # noqa: S105  an interface, not a password
AUTHORIZER_TOKEN = "api_authorizer_token"  # noqa: S105  an interface, not a password
LIST = "api_get_authorizer_list"
_EVER = float("-inf")

Result = TypeVar("Result")


class ErrorScope(StrEnum):
    """The scope of an error of a token interface, which determines the next step."""

    TICKET = "ticket"
    """Read the ticket again, once."""
    COMPONENT = "component"
    """Get a new component token, once."""
    REFRESH_TOKEN = "refresh_token"  # noqa: S105  a word, not a token
    """Look up the merchant's refresh token, once."""
    NOBODY = "nobody"
    """Temporary: call again, once."""
    MERCHANT = "merchant"
    EVERYBODY = "everybody"


def error_scope(interface: str, code: int) -> ErrorScope:
    """Return the scope of an errcode of a token interface.

    The meaning of a code depends on the interface: 40001 refers to the merchant's token for an upload link, to the
    component token for api_authorizer_token, and to the AppSecret for api_component_token (their pages' errcode tables).

    ====================  =========================================  =============
    interface             errcode                                    concerns
    ====================  =========================================  =============
    any                   -1, -1000 (the catalogue: retry)           nobody
    api_component_token   61005, 61006                               ticket
    api_component_token   any other                                  everybody
    the others            40001, 40014, 42001                        component
    the others            61023, 42002                               refresh_token
    the others            41002, 41004, 41018, 61014, 61024          everybody
    the others            scope platform (61004, 61005, 61011 …)     everybody
    the others            any other (61003, 61007, 50002, 42007 …)   merchant
    ====================  =========================================  =============
    """
    entry = errcode(code)
    if entry.decision is Decision.RETRY:
        return ErrorScope.NOBODY
    if interface == COMPONENT_TOKEN:
        return ErrorScope.TICKET if code in {61005, 61006} else ErrorScope.EVERYBODY
    if code in {40001, 40014, 42001}:
        return ErrorScope.COMPONENT
    if code in {61023, 42002}:
        return ErrorScope.REFRESH_TOKEN
    if code in {41002, 41004, 41018, 61014, 61024} or entry.scope is Scope.PLATFORM:
        return ErrorScope.EVERYBODY
    return ErrorScope.MERCHANT


class _RefusedError(Exception):
    def __init__(self, interface: str, error: ApiError) -> None:
        super().__init__()
        self.interface, self.error = interface, error
        self.scope = error_scope(interface, error.errcode)


class _NoAnswerError(Exception):
    def __init__(self, interface: str, reason: Text, *, transient: bool = True) -> None:
        super().__init__()
        self.interface, self.why, self.transient = interface, reason, transient


class _WithoutToken:
    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        return Token(Secret(""))

    async def aclose(self) -> None:
        return


class SharedTasks(dict[Hashable, asyncio.Task[Result]]):
    """Running tasks by key. Each is shared by all who ask for it, and goes on if they are cancelled."""

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result of the key's task, which is started if there is none."""
        task = self.get(key)
        if task is None:
            task = self[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def aclose(self, seconds: float = 0.0) -> None:
        """Cancel the tasks that do not end within so many seconds."""
        if self:
            _done, unfinished = await asyncio.wait(self.values(), timeout=seconds)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    def _ended(self, key: Hashable, task: asyncio.Task[Result]) -> None:
        del self[key]
        if not task.cancelled():
            task.exception()  # retrieve the exception even if no caller is waiting any more


class ComponentTokens:
    """The token source for `source = "component"`: the component token and the merchants' tokens.

    Args:
        component_appid: the third-party platform's appid; its token is the component token.
        secret, ticket: its AppSecret and component_verify_ticket.
        store: stores the tokens.
        api_base: the target.
        clock: returns Unix seconds.

    """

    def __init__(
        self,
        component_appid: str,
        secret: Credential,
        ticket: Credential,
        store: TokenStore,
        api_base: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._component_appid, self._secret, self._ticket = component_appid, secret, ticket
        self._store, self._base, self._clock = store, api_base, clock
        self._limits = RunLimits(attempts=2, backoff=RETRY_WAIT, slow_wait=0, patience=0)
        self._transport: SingleTransport | None = None
        self._list: dict[str, Secret] = {}
        self._list_until, self._list_asked_at = _EVER, _EVER
        """When the list expires, by `clock`; when it was requested, by the loop's clock."""
        self._list_short: Text | None = None
        """Set if the list had fewer entries than announced: a merchant missing from it may still be authorized."""
        self._listings = SharedTasks[None]()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._refreshes = SharedTasks[Token]()
        self._refused: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MOST_REFUSED))

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Return the stored token, or the result of a refresh, new or already running.

        Raises TransportError if the platform cannot be reached, an outage that callers wait out.
        """
        try:
            return await self._token(appid, refused)
        except TokenError as error:
            if appid != self._component_appid:
                raise
            # The component token affects every merchant.
            raise TokenSourceError(error.text) from None

    async def _token(self, appid: str, refused: Secret | None) -> Token:
        while True:
            stored = self._store.read(appid)
            if stored is not None and stored.serves(refused, self._clock()):
                return stored.token
            mine = appid not in self._refreshes
            token = await self._refreshes.join(appid, lambda: self._refresh(appid, refused))
            if mine or token.value != refused:
                return token

    async def aclose(self) -> None:
        """Wait briefly for running refreshes, kill running programs, and close the connections."""
        await self._refreshes.aclose(LET_FINISH)
        self._secret.close()
        self._ticket.close()
        await self._listings.aclose()
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def _refresh(self, appid: str, refused: Secret | None) -> Token:
        own = appid == self._component_appid  # never queued behind merchants that wait for it
        async with nullcontext() if own else self._room, self._store.hold(appid):
            stored, now = self._store.read(appid), self._clock()
            if stored and (stored.serves(refused, now) or not self._may_refresh(appid, refused, now)):
                return stored.token
            fetching = self._fetch_component_token() if own else self._fetch_authorizer_token(appid, stored)
            try:
                fresh = await fetching
            except (TokenError, TokenSourceError, TransportError):
                if stored is None or not stored.alive(refused, now):
                    raise
                return replace(stored.token, renew_at=min(now + LATER, stored.expires_at))
            await asyncio.to_thread(self._store.write, appid, fresh)
            return fresh.token

    def _may_refresh(self, appid: str, refused: Secret | None, now: float) -> bool:
        """Return whether another refresh can help after a refusal; count it."""
        if refused is None:
            return True
        times = self._refused[appid]
        if len(times) == MOST_REFUSED and now - times[0] < REFUSED_WITHIN:
            return False
        times.append(now)
        return True

    # --- platform calls -------------------------------------------------------------------------------------------

    async def _fetch_component_token(self) -> StoredToken:
        """Return a new component token; read a refused ticket again, once. Raises TokenSourceError."""
        try:
            secret, ticket = await self._credentials()
            try:
                return await self._ask_component_token(secret, ticket)
            except _RefusedError as refused:
                newer = await self._credentials() if refused.scope is ErrorScope.TICKET else (secret, ticket)
                if newer[1] == ticket:
                    raise
                return await self._ask_component_token(*newer)  # a new ticket has been pushed since
        except _RefusedError as refused:
            raise _for_all(refused) from None
        except _NoAnswerError as failure:
            host = self._base.partition("://")[2].partition("/")[0]
            silent = detail(ComponentCode.COMPONENT_SILENT, host=host, why=failure.why)
            raise TokenSourceError(silent, transient=True) from None

    async def _ask_component_token(self, secret: Secret, ticket: Secret) -> StoredToken:
        body = {"component_appsecret": secret.reveal(), "component_verify_ticket": ticket.reveal()}
        payload = await self._call(COMPONENT_TOKEN, body, (secret, ticket), _WithoutToken())
        return self._read_token(COMPONENT_TOKEN, payload, "component_access_token", None)

    async def _credentials(self) -> tuple[Secret, Secret]:
        try:
            return await self._secret.read(), await self._ticket.read()
        except SettingsError as error:
            raise TokenSourceError(error.text) from None

    async def _fetch_authorizer_token(self, appid: str, stored: StoredToken | None) -> StoredToken:
        """Refresh a merchant's token; look up a missing or refused refresh token.

        Raises TokenError for an error of this merchant, TokenSourceError for one that affects every merchant.
        """
        try:
            return await self._try_refresh_tokens(appid, stored)
        except _RefusedError as refused:
            error = refused.error
            reason = detail(ComponentCode.REFRESH_REFUSED, answer=f"{error.errcode} {error.errmsg}".rstrip())
            raise TokenError.of(appid, reason, error.errcode) from None
        except _NoAnswerError as failure:
            reason = detail(ComponentCode.REFRESH_SILENT, interface=failure.interface, why=failure.why)
            raise TokenError.of(appid, reason, transient=failure.transient) from None

    async def _try_refresh_tokens(self, appid: str, stored: StoredToken | None) -> StoredToken:
        """Try the stored refresh token; after a refusal a newer one, and once more after a short wait.

        Another machine may have just rotated the token, and the list may show the new one with a delay.
        """
        refresh = (stored.refresh if stored is not None else None) or await self._look_up(appid)
        if refresh is None:
            raise TokenError.of(appid, detail(ComponentCode.NOT_AUTHORIZED), 61003)
        tried: set[Secret] = set()
        code, since = 0, _EVER  # first any cached list, then one requested after the refusal
        for wait in (0.0, 0.0, ROTATION_WAIT):
            if wait:
                since = asyncio.get_running_loop().time()
                await asyncio.sleep(wait)
            if tried:
                stored = self._store.read(appid)
                refresh = stored.refresh if stored is not None else None
                if refresh is None or refresh in tried:
                    refresh = await self._look_up(appid, since)
            if refresh is None or refresh in tried:
                continue
            tried.add(refresh)
            try:
                return await self._use_refresh_token(appid, refresh)
            except _RefusedError as refused:
                if refused.scope is not ErrorScope.REFRESH_TOKEN:
                    raise
                code = refused.error.errcode
        raise TokenError.of(appid, detail(ComponentCode.AUTHORIZATION_OVER), code)

    async def _use_refresh_token(self, appid: str, refresh: Secret) -> StoredToken:
        body = {"authorizer_appid": appid, "authorizer_refresh_token": refresh.reveal()}
        payload = await self._call(AUTHORIZER_TOKEN, body, (refresh,))
        rotated = payload.get("authorizer_refresh_token")
        # Always store the returned token: it may be a new one (docs/en/explanation/tokens.md).
        newest = Secret(rotated) if is_token(rotated) else refresh
        try:
            return self._read_token(AUTHORIZER_TOKEN, payload, "authorizer_access_token", newest)
        except _NoAnswerError:
            if newest != refresh:  # the old one is valid for five more minutes
                stored = self._store.read(appid) or StoredToken(None, None)
                await asyncio.to_thread(self._store.write, appid, replace(stored, refresh=newest))
            raise

    async def _look_up(self, appid: str, since: float = _EVER) -> Secret | None:
        """Return a merchant's refresh token from the platform's list, which is cached for all merchants.

        The list was requested after `since`, by the loop's clock. If reading it fails, all who wait for it fail: 300
        merchants must not try one after the other.
        """
        while self._clock() >= self._list_until or self._list_asked_at < since:
            await self._listings.join(LIST, self._read_list)
        refresh_token = self._list.get(appid)
        if refresh_token is None and self._list_short is not None:
            raise _NoAnswerError(LIST, self._list_short, transient=False)
        return refresh_token

    async def _read_list(self) -> None:
        refresh_tokens: dict[str, Secret] = {}
        asked_at = asyncio.get_running_loop().time()
        read = total = 0
        for _each in range(PAGES):
            payload = await self._call(LIST, {"offset": read, "count": AUTHORIZERS_PER_PAGE})
            listed, count = payload.get("list"), payload.get("total_count")
            if not isinstance(listed, list) or not isinstance(count, int):
                raise _NoAnswerError(LIST, detail(ComponentCode.LIST_LACKS))
            for entry in listed:  # its refresh token may be absent or empty
                if isinstance(entry, dict) and is_token(entry.get("refresh_token")):
                    refresh_tokens[str(entry.get("authorizer_appid"))] = Secret(entry["refresh_token"])
            read, total = read + len(listed), count
            if not listed or read >= total:
                break
        self._list, self._list_asked_at, self._list_short = refresh_tokens, asked_at, None
        self._list_until = self._clock() + LIST_KEPT
        if read < total:
            self._list_short = detail(ComponentCode.LIST_SHORT, seen=read, total=total)

    async def _call(
        self,
        interface: str,
        body: Mapping[str, Any],
        secrets: tuple[Secret, ...] = (),
        source: TokenSource | None = None,
    ) -> dict[str, Any]:
        """Call an interface with the component token, retrying once where useful; return the JSON object.

        Raises _RefusedError and _NoAnswerError, TokenSourceError for a refusal that affects every merchant,
        TransportError if no connection can be made.
        """
        if self._transport is None:
            self._transport = SingleTransport(connections=AT_ONCE, timeouts=TIMEOUTS)
        client = PlatformClient(self._transport, self._base)
        full = {"component_appid": self._component_appid, **body}

        async def request(token: Secret) -> dict[str, Any] | ApiError | InvalidResponse:
            access = None if interface == COMPONENT_TOKEN else token
            return await client.call(f"cgi-bin/component/{interface}", full, access, secrets)

        caller = Caller(source or self, self._limits)
        result: dict[str, Any] | CallFailure = await caller.call(self._component_appid, request)
        if not isinstance(result, CallFailure):
            return result
        answer = result.answer
        if isinstance(answer, TransportError):
            if answer.fault is TransportFault.UNREACHABLE:
                raise answer
            raise _NoAnswerError(interface, answer.text)
        if isinstance(answer, InvalidResponse):
            raise _NoAnswerError(interface, answer.why)
        refused = _RefusedError(interface, answer)
        if interface != COMPONENT_TOKEN and refused.scope in {ErrorScope.COMPONENT, ErrorScope.EVERYBODY}:
            raise _for_all(refused)
        raise refused

    def _read_token(
        self, interface: str, payload: Mapping[str, Any], name: str, refresh: Secret | None
    ) -> StoredToken:
        value, now = payload.get(name), self._clock()
        life: float | None = None
        with suppress(TypeError, ValueError, OverflowError):
            life = finite(float(payload.get("expires_in", 7200)))
        if not is_token(value) or life is None:
            raise _NoAnswerError(interface, detail(ComponentCode.LACKS_EXPIRY, name=name))
        return StoredToken(Secret(value), refresh, now + life * RENEW_FROM, now + life)


def _for_all(refused: _RefusedError) -> TokenSourceError:
    interface, error = refused.interface, refused.error
    # From api_component_token, 40001 means the AppSecret (errcode table of the component_access_token page).
    wrong_secret = interface == COMPONENT_TOKEN and error.errcode == 40001
    entry = errcode(40125 if wrong_secret else error.errcode)
    told = {"errcode": error.errcode, "errmsg": error.errmsg or "-", "known_as": entry.code}
    reason = detail(ComponentCode.COMPONENT_REFUSED, interface=interface, **told)
    stopped = TokenSourceError(as_sentences((reason, entry.meaning, entry.action)))
    stopped.reason = reason
    return stopped


def component_tokens(settings: Settings) -> ComponentTokens:
    """Create the token source that the settings name. Raises SettingsError for a missing or invalid one."""
    tokens = settings.tokens
    if not tokens.sole_owner:
        text = _(
            'tokens.source = "component" needs sole_owner = true: a second program that refreshes the same '
            "tokens invalidates those of the first within five minutes. If your backend already refreshes "
            'them, use source = "service" or "command" to get them from it; set sole_owner = true only if '
            "no other program refreshes them."
        )
        raise SettingsError(text)
    if not tokens.component_appid:
        text = _("tokens.component_appid is missing: it is the platform's own appid on open.weixin.qq.com.")
        raise SettingsError(text)
    secret = Credential.named("tokens.secret", tokens.secret, settings.folder_of("tokens.secret"))
    ticket = Credential.named("tokens.ticket", tokens.ticket, settings.folder_of("tokens.ticket"))
    store = TokenStore(tokens.store, tokens.component_appid, settings.api_base)
    return ComponentTokens(tokens.component_appid, secret, ticket, store, settings.api_base)
