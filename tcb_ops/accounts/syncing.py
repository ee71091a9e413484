"""Asking the platform who has authorized it, for what name and which environments."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tcb_ops.accounts.asking import Asking, Trouble, each
from tcb_ops.accounts.changes import Authorized, Authorizer
from tcb_ops.accounts.looking import connected
from tcb_ops.accounts.states import COMPONENT_CODES, of_the_component
from tcb_ops.errors import PlatformStopError, SettingsError, StoppedError
from tcb_ops.model import Text
from tcb_ops.platform.tokens import open_source
from tcb_ops.runs.loop import hand_over
from tcb_ops.runs.pacing import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from concurrent.futures import Future

    from tcb_ops.platform.authorizers import Authorizers, Info
    from tcb_ops.platform.tokens import TokenSource
    from tcb_ops.settings import Settings

__all__ = ["begin_sync"]


def begin_sync(
    settings: Settings,
    *,
    only: Collection[str] | None = None,
    tokens: TokenSource | None = None,
    pace: Pace | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    say: Callable[[Text], None] = lambda _: None,
) -> Future[Authorized]:
    """Begin asking; the future gives what was found. Cancelling it ends the calls.

    Args:
        settings: the target and the token source, which must give the token of `component_appid` as well.
        only: appids whose environments are asked for; None for all.
        tokens: a token source of the caller's own.
        pace: its attempts, backoff, slow_wait and patience hold for each call.
        progress: called with the mini programs done and their number, on the private loop's thread.
        say: told of a pause that the platform asks for.

    Raises SettingsError without a component_appid. The future raises PlatformStopError where the list is refused,
    OutageError where nobody is reached, StoppedError where the list is not whole.

    """
    if not settings.tokens.component_appid:
        raise SettingsError(
            Text(
                "merchants sync needs the component token: set component_appid under [tokens] in tcb-ops.toml, and let "
                "the token source give that appid's token (README: Tokens).",
                "merchants sync 需要 component_access_token：请在 tcb-ops.toml 的 [tokens] 中设置 component_appid，"
                "并让令牌来源能给出该 appid 的令牌（见 README 的 Tokens 一节）。",
            )
        )
    source = tokens or open_source(settings)
    return hand_over(_sync(settings, only, source, pace or Pace(), progress, say))


async def _sync(
    settings: Settings,
    only: Collection[str] | None,
    source: TokenSource,
    pace: Pace,
    progress: Callable[[int, int], None],
    say: Callable[[Text], None],
) -> Authorized:
    component = settings.tokens.component_appid
    async with connected(settings, source, pace, say) as (asking, authorizers):
        appids = await _list(asking, authorizers, component)
        asked_for = [appid for appid in appids if only is None or appid in only]
        done = 0

        def one_done() -> None:
            nonlocal done
            done += 1
            progress(done, len(asked_for))

        async def about(appid: str) -> Authorizer:
            info: Info | Trouble = await asking.ask(component, partial(authorizers.info, appid=appid))
            if isinstance(info, Trouble) and info.code in COMPONENT_CODES:
                raise _stop(component, info)
            name = "" if isinstance(info, Trouble) else info.name
            return Authorizer(appid, name, await asking.ask(appid, authorizers.environments))

        return Authorized(frozenset(appids), tuple(await each(asked_for, about, one_done)))


async def _list(asking: Asking, authorizers: Authorizers, component: str) -> list[str]:
    """Every appid once, in the platform's order."""
    appids: dict[str, None] = {}
    offset, total = 0, 1
    while offset < total:
        page = await asking.ask(component, partial(authorizers.page, offset=offset))
        if isinstance(page, Trouble):
            raise _stop(component, page)
        offset, total = offset + len(page.appids), page.total
        appids |= dict.fromkeys(page.appids)
        if not page.appids:
            break
    if not appids and not total:
        raise StoppedError(
            Text(
                f"The platform says that nobody has authorized it, so nothing was changed: is component_appid {component} right?",
                f"平台称没有任何商户授权，因此未作改动：component_appid {component} 是否正确？",
            )
        )
    if len(appids) < total:
        raise StoppedError(
            Text(
                f"The platform says that {total:,} merchants have authorized it, but listed {len(appids):,}: somebody came "
                "or went meanwhile. Nothing was changed; run the same command again.",
                f"平台称有 {total:,} 个商户授权，但只列出 {len(appids):,} 个：其间可能有商户授权或取消授权。"
                "未作改动，请再次运行同一命令。",
            )
        )
    return list(appids)


def _stop(component: str, trouble: Trouble) -> PlatformStopError:
    told = of_the_component(trouble)
    said = f" (errcode {told.code})" if told.errcode is not None else ""
    return PlatformStopError(
        Text(
            f"The merchants cannot be asked for with the component token (of component_appid {component}){said}: "
            f"{told.meaning.en} {told.action.en}",
            f"无法用 component_access_token（component_appid {component}）查询商户{said}：{told.meaning.zh}{told.action.zh}",
        )
    )
