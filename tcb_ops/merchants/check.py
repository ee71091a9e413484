"""Looking at every merchant of a merchants file: what can work today."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from tcb_ops.i18n import Text
from tcb_ops.merchants.asking import AT_ONCE, Asking, TransportFailure, each
from tcb_ops.merchants.status import COMPONENT_CODES, Answers, MerchantState, judge, of_the_component
from tcb_ops.model import Merchant, Owner, Reason
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.loop import hand_over
from tcb_ops.settings import Settings
from tcb_ops.wechat.authorizers import COMPONENT_UPLOADS, UPLOADS, Authorizers, Info
from tcb_ops.wechat.responses import Interfaces
from tcb_ops.wechat.tokens import TokenSource, open_source
from tcb_ops.wechat.transport import Transport


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen."""

    states: tuple[MerchantState, ...]
    """In the order of the lines."""
    note: Text | None
    """Why permission sets were not looked at."""


def merchant_states(
    settings: Settings,
    merchants: Iterable[Merchant],
    *,
    tokens: TokenSource | None = None,
    pace: RunLimits | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[MerchantState]:
    """Look at every line, and give what each can do, in their order. Blocks, inside a running event loop as well.

    Args:
        settings: the target and the token source.
        merchants: lines of a merchants file; those that have left are not asked about.
        tokens: a token source of the caller's own.
        pace: its attempts, backoff, slow_wait and patience hold for each call.
        progress: called with the mini programs done and their number, on the private loop's thread.

    Raises SettingsError, PlatformStopError (61004 and the like), OutageError (nobody is reached).

    """
    looked = begin_look(settings, merchants, tokens=tokens, pace=pace, progress=progress).result()
    return list(looked.states)


def begin_look(
    settings: Settings,
    merchants: Iterable[Merchant],
    *,
    tokens: TokenSource | None = None,
    pace: RunLimits | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    say: Callable[[Text], None] = lambda _: None,
) -> Future[Looked]:
    """Begin what `merchant_states` waits for; cancelling it ends the calls. `say` is told of a pause."""
    source = tokens or open_source(settings)
    return hand_over(_look(settings, list(merchants), source, pace or RunLimits(), progress, say))


@asynccontextmanager
async def connected(
    settings: Settings, source: TokenSource, pace: RunLimits, say: Callable[[Text], None] = lambda _: None
) -> AsyncIterator[tuple[Asking, Authorizers]]:
    """Connect to the target; the source is closed with the connection."""
    try:
        async with Transport(connections=2 * AT_ONCE) as transport:
            interfaces = Interfaces(transport, settings.api_base)
            yield Asking(source, pace, say=say), Authorizers(interfaces, settings.tokens.component_appid)
    finally:
        await source.aclose()


async def _look(
    settings: Settings,
    merchants: list[Merchant],
    source: TokenSource,
    pace: RunLimits,
    progress: Callable[[int, int], None],
    say: Callable[[Text], None],
) -> Looked:
    there = [m for m in merchants if not m.left]
    appids = list(dict.fromkeys(m.appid for m in there if m.owner is Owner.MERCHANT))
    component = settings.tokens.component_appid
    note = None if component else _NEEDS_COMPONENT
    done = 0

    def one_done() -> None:
        nonlocal done
        done += 1
        progress(done, len(appids))

    async with connected(settings, source, pace, say) as (asking, authorizers):

        async def about(appid: str) -> Answers:
            found = await asking.ask(appid, authorizers.environments)
            left = None
            if not isinstance(found, TransportFailure):
                left = await asking.ask(appid, partial(authorizers.quota, interface=UPLOADS))
            return Answers(found, left, await permissions(appid))

        async def permissions(appid: str) -> Info | TransportFailure | None:
            nonlocal note
            if note is not None:
                return None
            info = await asking.ask(component, partial(authorizers.info, appid=appid))
            if isinstance(info, TransportFailure) and info.code in COMPONENT_CODES:
                note = _component_ill(of_the_component(info))
                return None
            return info

        async def about_the_platform() -> Answers:
            if not component:
                return Answers(_NO_COMPONENT)
            found = await asking.ask(component, authorizers.own_environments, Owner.PLATFORM)
            if isinstance(found, TransportFailure):
                return Answers(of_the_component(found))
            left = await asking.ask(component, partial(authorizers.quota, interface=COMPONENT_UPLOADS))
            return Answers(found, left)

        needed = any(m.owner is Owner.PLATFORM for m in there)
        platform = await about_the_platform() if needed else Answers(())
        answers = dict(zip(appids, await each(appids, about, one_done), strict=True))
    status = {
        one.env: one.status
        for answer in (*answers.values(), platform)
        if not isinstance(answer.environments, TransportFailure)
        for one in answer.environments
    }
    states = tuple(
        MerchantState(m)
        if m.left
        else judge(m, platform, {})
        if m.owner is Owner.PLATFORM
        else judge(m, answers[m.appid], status)
        for m in merchants
    )
    return Looked(states, note)


_NEEDS_COMPONENT = Text(
    "Permission sets were not looked at: that needs the component token. Set component_appid under [tokens].",
    "未检查权限集：需要 component_access_token。请在 [tokens] 中设置 component_appid。",
)


def _component_ill(trouble: TransportFailure) -> Text:
    return Text(
        f"Permission sets were not looked at: the component token does not work. {trouble.meaning.en} {trouble.action.en}",
        f"未检查权限集：component_access_token 不可用。{trouble.meaning.zh}{trouble.action.zh}",
    )


_NO_COMPONENT = TransportFailure(
    Reason.NO_TOKEN,
    Text(
        "An environment of the platform's own needs the component token, and no component_appid is set.",
        "平台自有的环境需要 component_access_token，但未设置 component_appid。",
    ),
    Text(
        "Set component_appid under [tokens], and let the token source give its token.",
        "请在 [tokens] 中设置 component_appid，并让令牌来源能给出它的令牌。",
    ),
)
