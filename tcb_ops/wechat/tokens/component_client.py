"""Whose trouble it is when one of the platform's token interfaces refuses, and what is said. Pure.

The same code means different things there: 40001 is the merchant's token on an upload link, the component's token on
api_authorizer_token, and a wrong AppSecret on api_component_token (domain.md §3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any

from tcb_ops.errcodes import Decision, Scope, errcode
from tcb_ops.errors import SettingsError, TokenError, TokenSourceError, TransportError, TransportFault
from tcb_ops.i18n import Text
from tcb_ops.model import Secret
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse
from tcb_ops.wechat.tokens.credential import Credential
from tcb_ops.wechat.tokens.store import StoredToken
from tcb_ops.wechat.tokens.token import finite, is_token
from tcb_ops.wechat.transport import Timeouts, Transport

COMPONENT_TOKEN = "api_component_token"  # noqa: S105  an interface, not a password


class ErrorScope(StrEnum):
    """What a refusal speaks of, and so what follows."""

    TICKET = "ticket"
    """Read the ticket again, once."""
    COMPONENT = "component"
    """The component token: a new one, once."""
    REFRESH_TOKEN = "refresh_token"  # noqa: S105  a word, not a token
    """Look the merchant's refresh token up, once."""
    NOBODY = "nobody"
    """It passes: ask again, once."""
    MERCHANT = "merchant"
    EVERYBODY = "everybody"


def whose(interface: str, code: int) -> ErrorScope:
    """Say whose trouble an errcode of a token interface is.

    ====================  =========================================  =============
    interface             errcode                                    whose
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
    known = errcode(code)
    if known.decision is Decision.RETRY:
        return ErrorScope.NOBODY
    if interface == COMPONENT_TOKEN:
        return ErrorScope.TICKET if code in {61005, 61006} else ErrorScope.EVERYBODY
    if code in {40001, 40014, 42001}:
        return ErrorScope.COMPONENT
    if code in {61023, 42002}:
        return ErrorScope.REFRESH_TOKEN
    if code in {41002, 41004, 41018, 61014, 61024} or known.scope is Scope.PLATFORM:
        return ErrorScope.EVERYBODY
    return ErrorScope.MERCHANT


def for_all(interface: str, refusal: ApiError) -> TokenSourceError:
    """The error for a refusal that stops everybody."""
    # From api_component_token 40001 means the AppSecret (component_access_token page, its errcode table).
    wrong_secret = interface == COMPONENT_TOKEN and refusal.errcode == 40001
    known = errcode(40125 if wrong_secret else refusal.errcode)
    said = f" ({refusal.errmsg})" if refusal.errmsg else ""
    return TokenSourceError(
        Text(
            f"errcode {refusal.errcode}{said} from {interface} stops every merchant. {known.meaning.en} {known.action.en}",
            f"{interface} 返回 errcode {refusal.errcode}{said}，影响所有商户。{known.meaning.zh}{known.action.zh}",
        )
    )


def for_one(appid: str, refusal: ApiError, *, looked_up: bool = False) -> TokenError:
    """The error for a refusal that is one merchant's; `looked_up`: the platform's list did not help."""
    if looked_up:
        return TokenError.of(
            appid,
            lambda appid: Text(
                f"{appid} needs a new authorization: its refresh token is refused and api_get_authorizer_list has no other.",
                f"{appid} 需要重新授权：它的 refresh_token 被拒绝，且 api_get_authorizer_list 中没有可用的。",
            ),
            refusal.errcode,
        )
    return TokenError.of(
        appid,
        lambda appid: Text(
            f"the token of {appid} cannot be refreshed: errcode {refusal.errcode} {refusal.errmsg}".rstrip()
            + ".",
            f"无法刷新 {appid} 的令牌：errcode {refusal.errcode} {refusal.errmsg}".rstrip() + "。",
        ),
        refusal.errcode,
    )


TIMEOUTS = Timeouts(connect=10, answer=20)
RENEW_FROM = 11 / 12
"""Of a token's life, from when it is renewed: 1 h 50 min of its 7200 s (domain.md §4)."""
LIST_KEPT = 60.0
"""Seconds in which one look at api_get_authorizer_list serves every merchant."""
LIST = "api_get_authorizer_list"
PAGE, PAGES = 500, 200
"""Authorizers asked for at a time (the interface's most), and how often: 100,000 are more than any platform has."""


class ComponentClient:
    """Asks the platform for tokens, as the component.

    Args:
        component_appid: the third-party platform's appid.
        secret, ticket: its AppSecret and component_verify_ticket.
        api_base: the target.
        component_access: gives the component token, another one than the refused.
        connections: how many questions go out at once.
        clock: Unix seconds.
        retry_wait: seconds before a question that found no answer is asked once more.
        rotation_wait: seconds before a refused refresh token is looked up for the last time: another machine may just have
            rotated it.

    """

    def __init__(
        self,
        component_appid: str,
        secret: Credential,
        ticket: Credential,
        api_base: str,
        component_access: Callable[[Secret | None], Awaitable[Secret]],
        *,
        connections: int,
        clock: Callable[[], float],
        retry_wait: float,
        rotation_wait: float,
    ) -> None:
        self._component_appid, self._secret, self._ticket = component_appid, secret, ticket
        self._base, self._component_access = api_base, component_access
        self._connections, self._clock, self._retry_wait = connections, clock, retry_wait
        self._rotation_wait = rotation_wait
        self._host = api_base.partition("://")[2].partition("/")[0]
        self._transport: Transport | None = None
        self._list: dict[str, Secret] = {}
        self._list_until = float("-inf")
        self._list_asked_at = float("-inf")
        """When the list was asked for, by the loop's clock."""
        self._list_short: Text | None = None
        """Where the list held fewer than it said: that a merchant is not on it then means nothing."""
        self._listing: asyncio.Task[ApiError | Text | None] | None = None

    async def aclose(self) -> None:
        """End a program that still runs, and close the connections."""
        self._secret.let_go()
        self._ticket.let_go()
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.gather(self._listing, return_exceptions=True)
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def component_token(self) -> StoredToken:
        """A new component token; a ticket that is refused is read again, once. Raises TokenSourceError."""
        secret, ticket = await self._read_credentials()
        said = await self._ask_for_component(secret, ticket)
        if isinstance(said, ApiError) and whose(COMPONENT_TOKEN, said.errcode) is ErrorScope.TICKET:
            refused = ticket
            secret, ticket = await self._read_credentials()  # one may have been pushed since
            if ticket != refused:
                said = await self._ask_for_component(secret, ticket)
        if isinstance(said, ApiError):
            raise for_all(COMPONENT_TOKEN, said)
        kept = said if isinstance(said, Text) else self._kept(said, "component_access_token", None)
        if isinstance(kept, StoredToken):
            return kept
        raise TokenSourceError(
            Text(
                f"{COMPONENT_TOKEN} at {self._host} gave no usable answer. {kept.en}",
                f"{self._host} 的 {COMPONENT_TOKEN} 没有给出可用的应答。{kept.zh}",
            ),
            transient=True,
        )

    async def _ask_for_component(self, secret: Secret, ticket: Secret) -> dict[str, Any] | ApiError | Text:
        body = {
            "component_appid": self._component_appid,
            "component_appsecret": secret.reveal(),
            "component_verify_ticket": ticket.reveal(),
        }
        return await self._ask(COMPONENT_TOKEN, body, secrets=(secret, ticket))

    async def _read_credentials(self) -> tuple[Secret, Secret]:
        try:
            return await self._secret.read(), await self._ticket.read()
        except SettingsError as error:
            text = error.text
        raise TokenSourceError(text)

    async def authorizer_token(
        self,
        appid: str,
        kept: StoredToken | None,
        keep: Callable[[Secret], Awaitable[None]],
        stored: Callable[[], StoredToken | None],
    ) -> StoredToken:
        """Refresh a merchant's token; a refresh token that is missing or refused is looked up.

        `keep` is given a rotated refresh token that came without a token of use: the old one has five minutes left. `stored`
        gives what is kept by now: a process elsewhere may have written it.
        """
        refresh = kept.refresh if kept is not None else None
        if refresh is None:
            refresh = await self._look_up(appid)
        if refresh is None:
            raise TokenError.of(
                appid,
                lambda appid: Text(
                    f"{appid} needs a new authorization. {LIST} has no refresh token for it.",
                    f"{appid} 需要重新授权：{LIST} 中没有它的 refresh_token。",
                ),
                61003,
            )
        said = await self._refresh(appid, refresh)
        if _wants_look_up(said):
            refresh, said = await self._refresh_with_newer(appid, refresh, said, stored)
        if isinstance(said, ApiError):
            raise for_one(appid, said, looked_up=_wants_look_up(said))
        if isinstance(said, Text):
            raise _no_answer(appid, "api_authorizer_token", said)
        rotated = said.get("authorizer_refresh_token")
        # Always what came back: whether it rotates, the platform's staff contradict (domain.md §4).
        newest = Secret(rotated) if is_token(rotated) else refresh
        fresh = self._kept(said, "authorizer_access_token", newest)
        if isinstance(fresh, Text):
            if newest != refresh:
                await keep(newest)
            raise _no_answer(appid, "api_authorizer_token", fresh)
        return fresh

    async def _refresh_with_newer(
        self,
        appid: str,
        refresh: Secret,
        said: dict[str, Any] | ApiError | Text,
        stored: Callable[[], StoredToken | None],
    ) -> tuple[Secret, dict[str, Any] | ApiError | Text]:
        """After a refused refresh token: try the one that is stored or listed by now, and once more after a moment.

        Another machine that refreshes the same merchant may just have rotated it; its list may show that a little later.
        Gives the refresh token that was tried last, and what was answered.
        """
        tried = {refresh}
        for wait in (0.0, self._rotation_wait):
            since = float(
                "-inf"
            )  # first a list that is at hand, then one that was asked for after the refusal
            if wait:
                since = asyncio.get_running_loop().time()
                await asyncio.sleep(wait)
            kept = stored()
            newer = kept.refresh if kept is not None else None
            if newer is None or newer in tried:
                newer = await self._look_up(appid, since)
            if newer is not None and newer not in tried:
                tried.add(newer)
                refresh, said = newer, await self._refresh(appid, newer)
                if not _wants_look_up(said):
                    break
        return refresh, said

    async def _refresh(self, appid: str, refresh: Secret) -> dict[str, Any] | ApiError | Text:
        body = {"authorizer_appid": appid, "authorizer_refresh_token": refresh.reveal()}
        return await self._ask_as_component("api_authorizer_token", body, (refresh,))

    async def _look_up(self, appid: str, since: float = float("-inf")) -> Secret | None:
        """The refresh token that the platform's list has for a merchant; one look serves all, for a minute.

        The list was asked for after `since`, by the loop's clock. A look that fails is the failure of all who wait for it:
        300 merchants must not try one after the other.
        """
        while self._clock() >= self._list_until or self._list_asked_at < since:
            if self._listing is None:
                self._listing = asyncio.create_task(self._read_list())
                self._listing.add_done_callback(self._listed)
            trouble = await asyncio.shield(self._listing)
            if isinstance(trouble, ApiError):
                raise for_one(appid, trouble)
            if isinstance(trouble, Text):
                raise _no_answer(appid, LIST, trouble)
        found = self._list.get(appid)
        if found is None and self._list_short is not None:
            raise _no_answer(appid, LIST, self._list_short, transient=False)
        return found

    def _listed(self, done: asyncio.Task[ApiError | Text | None]) -> None:
        self._listing = None
        if not done.cancelled():
            done.exception()  # seen, even where nobody waits any more

    async def _read_list(self) -> ApiError | Text | None:
        """Read the platform's list anew; gives what stood in the way."""
        found: dict[str, Secret] = {}
        asked_at = asyncio.get_running_loop().time()
        seen = total = 0
        for _ in range(PAGES):
            body = {"offset": seen, "count": PAGE}
            said = await self._ask_as_component(LIST, body)
            if isinstance(said, ApiError | Text):
                return said
            listed, count = said.get("list"), said.get("total_count")
            if not isinstance(listed, list) or not isinstance(count, int):
                return Text("It lacks list or total_count.", "其中缺少 list 或 total_count。")
            for entry in listed:  # its refresh token may be absent or empty (domain.md §2.3)
                if isinstance(entry, dict) and is_token(entry.get("refresh_token")):
                    found[str(entry.get("authorizer_appid"))] = Secret(entry["refresh_token"])
            seen, total = seen + len(listed), count
            if not listed or seen >= total:
                break
        self._list, self._list_until, self._list_asked_at = found, self._clock() + LIST_KEPT, asked_at
        self._list_short = None
        if seen < total:
            self._list_short = Text(
                f"It listed {seen:,} of {total:,} merchants.", f"它只列出 {total:,} 个商户中的 {seen:,} 个。"
            )
        return None

    async def _ask_as_component(
        self, interface: str, body: Mapping[str, Any], secrets: tuple[Secret, ...] = ()
    ) -> dict[str, Any] | ApiError | Text:
        """Ask with the component token, renewed once where it is refused. Raises for what concerns everybody."""
        token = await self._component_access(None)
        full = {"component_appid": self._component_appid, **body}
        said = await self._ask(interface, full, token, secrets)
        if isinstance(said, ApiError) and whose(interface, said.errcode) is ErrorScope.COMPONENT:
            token = await self._component_access(token)
            said = await self._ask(interface, full, token, secrets)
        if isinstance(said, ApiError) and whose(interface, said.errcode) in {
            ErrorScope.COMPONENT,
            ErrorScope.EVERYBODY,
        }:
            raise for_all(interface, said)
        return said

    async def _ask(
        self,
        interface: str,
        body: Mapping[str, Any],
        token: Secret | None = None,
        secrets: tuple[Secret, ...] = (),
    ) -> dict[str, Any] | ApiError | Text:
        """Ask, and once more where that may help; where there is no answer that one can use, gives why.

        Raises TransportError where no connection is made at all.
        """
        if self._transport is None:
            self._transport = Transport(connections=self._connections, timeouts=TIMEOUTS)
        client = PlatformClient(self._transport, self._base)
        why = Text("", "")
        away: TransportError | None = None
        for again in (False, True):
            if again:
                await asyncio.sleep(self._retry_wait)
            try:
                said = await client.call(f"cgi-bin/component/{interface}", body, token, secrets)
            except TransportError as error:
                why, away = error.text, error if error.fault is TransportFault.UNREACHABLE else None
                continue
            if isinstance(said, InvalidResponse):
                why, away = said.why, None
            elif (
                not isinstance(said, ApiError)
                or again
                or whose(interface, said.errcode) is not ErrorScope.NOBODY
            ):
                return said
        if away is not None:
            raise away
        return why

    def _kept(self, said: Mapping[str, Any], name: str, refresh: Secret | None) -> StoredToken | Text:
        value, now = said.get(name), self._clock()
        life: float | None = None
        with suppress(TypeError, ValueError, OverflowError):
            life = finite(float(said.get("expires_in", 7200)))
        if not is_token(value) or life is None:
            return Text(f"It lacks {name} or expires_in.", f"其中缺少 {name} 或 expires_in。")
        return StoredToken(Secret(value), refresh, now + life * RENEW_FROM, now + life)


def _no_answer(appid: str, interface: str, why: Text, *, transient: bool = True) -> TokenError:
    return TokenError.of(
        appid,
        lambda appid: Text(
            f"the token of {appid} cannot be refreshed now: {interface} gave no usable answer. {why.en}",
            f"暂时无法刷新 {appid} 的令牌：{interface} 没有给出可用的应答。{why.zh}",
        ),
        transient=transient,
    )


def _wants_look_up(said: dict[str, Any] | ApiError | Text) -> bool:
    return (
        isinstance(said, ApiError) and whose("api_authorizer_token", said.errcode) is ErrorScope.REFRESH_TOKEN
    )
