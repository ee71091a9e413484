"""What a run says that ends early: why, and how it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tcb_ops.errcodes import errcode
from tcb_ops.errors import (
    CanaryError,
    InterruptedRunError,
    OutageError,
    PlatformStopError,
    TokenSourceError,
)
from tcb_ops.model import Text, is_loopback

if TYPE_CHECKING:
    from tcb_ops.model import RowEnd
    from tcb_ops.runs.pacing import Pace
    from tcb_ops.runs.records import RunRecord

__all__ = [
    "NO_COMPONENT",
    "away",
    "canary_stop",
    "interrupted",
    "outage",
    "platform_stop",
    "stopping",
    "token_stop",
]

NO_COMPONENT = Text(
    "This environment is the platform's own (owner = platform) and is served with the component token: set "
    "tokens.component_appid in the settings.",
    "该环境属于平台自己（owner = platform），要用 component_access_token：请在设置中填写 tokens.component_appid。",
)
"""Why a row of the platform's own environments has no token."""


def _go_on(run: RunRecord) -> Text:
    return Text(
        f"Run the same command again: it goes on with run {run.id}.",
        f"再次运行同一命令，即可继续任务 {run.id}。",
    )


def interrupted(run: RunRecord) -> InterruptedRunError:
    """The error of a sitting that was told to end."""
    more = _go_on(run)
    return InterruptedRunError(Text(f"interrupted. {more.en}", f"已中断。{more.zh}"))


def away(target: str, pace: Pace) -> Text:
    """What is said while nobody is reached; a simulator on this machine is likelier to have been forgotten than lost."""
    asks = Text("", "")
    if is_loopback(urlsplit(target).hostname or ""):
        asks = Text(" (is `tcb-ops simulate` running?)", "（`tcb-ops simulate` 在运行吗？）")
    return Text(
        f"{target} cannot be reached{asks.en}; trying again for {pace.patience:g} s",
        f"无法连接 {target}{asks.zh}，{pace.patience:g} 秒内持续重试",
    )


def outage(run: RunRecord, pace: Pace, last: str) -> OutageError:
    """The error of a run whose patience with an outage has run out; `last` is what the last try met."""
    more = _go_on(run)
    return OutageError(
        Text(
            f"{last}; nobody was reached for {pace.patience:g} s, so the run stops and the rows not done are pending. "
            f"Check the network. {more.en}",
            f"{last}；{pace.patience:g} 秒内未能连上任何地址，任务就此停止，未完成的行仍待处理。请检查网络。{more.zh}",
        )
    )


def platform_stop(end: RowEnd, run: RunRecord) -> PlatformStopError:
    """The error of a run that meets a refusal of the whole platform."""
    said, more = stopping(end.errcode or 0, end.errmsg), _go_on(run)
    return PlatformStopError(Text(f"{said.en} {more.en}", f"{said.zh}{more.zh}"))


def stopping(code: int, errmsg: str) -> Text:
    """What is said of a refusal of the whole platform; the errmsg of 61004 names the address that is missing."""
    known = errcode(code)
    said, said_zh = (f" ({errmsg})", f"（{errmsg}）") if errmsg else ("", "")
    return Text(
        f"errcode {code}{said} stops every merchant. {known.meaning.en} {known.action.en}",
        f"errcode {code}{said_zh}影响所有商户。{known.meaning.zh}{known.action.zh}",
    )


def token_stop(error: TokenSourceError, run: RunRecord) -> TokenSourceError:
    """The error of a run whose token source has no token for anybody."""
    more = _go_on(run)
    return TokenSourceError(Text(f"{error.text.en} {more.en}", f"{error.text.zh}{more.zh}"))


def canary_stop(run: RunRecord, bad: int) -> CanaryError:
    """The error of a run whose first environments did not all go well."""
    return CanaryError(
        Text(
            f"{bad:,} rows of the first environments are not good, so the run stops here: `tcb-ops errcodes {run.id}` says "
            "why. To go on with the other environments all the same, run the same command without --canary.",
            f"首批环境中有 {bad:,} 行未成功，任务就此停下：用 `tcb-ops errcodes {run.id}` 查看原因。"
            "若仍要继续其余环境，请去掉 --canary 再次运行同一命令。",
        )
    )
