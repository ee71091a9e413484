"""Why a run stops before all its rows have ended: a code and its parameters in the ledger, an error for the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from tcb_ops.errcodes import errcode
from tcb_ops.errors import (
    CanaryError,
    InterruptedRunError,
    LedgerError,
    OutageError,
    PlatformStopError,
    TcbOpsError,
    TokenSourceError,
)
from tcb_ops.i18n import Text, plural
from tcb_ops.model import is_simulated

Error = TypeVar("Error", bound=TcbOpsError)

NO_COMPONENT = Text(
    "This environment is the platform's own (owner = platform) and is served with the component token: set "
    "tokens.component_appid in the settings.",
    "该环境属于平台自己（owner = platform），要用 component_access_token：请在设置中填写 tokens.component_appid。",
)
"""Why a row of the platform's own environments has no token."""


class StopCode(StrEnum):
    """Why a run stopped."""

    INTERRUPTED = "interrupted"
    LOCK_LOST = "lock_lost"
    OUTAGE = "outage"
    """No host could be reached: `seconds`, and `last`, what the last attempt met."""
    PLATFORM = "platform"
    """The whole platform is refused: `errcode`, `errmsg`."""
    TOKEN_SOURCE = "token_source"  # noqa: S105  a code, not a secret
    """The token source did not answer: `seconds`, and its message as `en` and `zh`."""
    CANARY = "canary"
    """Rows of the first environments did not succeed: `rows`."""
    OTHER = "other"
    """Anything else, and what ledgers of version 1 keep: a message as `en` and `zh`."""


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run stopped, as the ledger keeps it."""

    code: StopCode
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> Text:
        """The reason in words. Raises KeyError, TypeError or ValueError where a parameter is missing or damaged."""
        return TcbOpsError(*self.problem_and_fix()).text

    def problem_and_fix(self) -> tuple[Text, Text | None]:
        """Return what happened, and what to do where it is a sentence of its own."""
        params = self.params
        match self.code:
            case StopCode.INTERRUPTED:
                return Text(
                    "interrupted; the rows not done are pending.", "已中断；未完成的行仍待处理。"
                ), None
            case StopCode.LOCK_LOST:
                return Text(
                    "the ledger's database does not answer, so another process may take the run over: this one stops, "
                    "and the rows not done are pending.",
                    "台账数据库没有应答，任务可能被其他进程接手：本进程就此停止，未完成的行仍待处理。",
                ), Text("Check the database and the network.", "请检查数据库和网络。")
            case StopCode.OUTAGE:
                seconds, last = f"{params['seconds']:g}", params["last"]
                return Text(
                    f"{last}; no host could be reached for {seconds} s, so the run stops and the rows not done are "
                    "pending.",
                    f"{last}；{seconds} 秒内未能连上任何地址，任务就此停止，未完成的行仍待处理。",
                ), Text("Check the network.", "请检查网络。")
            case StopCode.PLATFORM:
                code, errmsg = int(params["errcode"]), params["errmsg"]
                known = errcode(code)
                quoted_en, quoted_zh = (f" ({errmsg})", f"（{errmsg}）") if errmsg else ("", "")
                return Text(
                    f"errcode {code}{quoted_en} stops every merchant. {known.meaning.en}",
                    f"errcode {code}{quoted_zh}影响所有商户。{known.meaning.zh}",
                ), known.action
            case StopCode.TOKEN_SOURCE:
                seconds = f"{params['seconds']:g}"
                return Text(
                    f"{params['en']} No merchant got an answer from the token source for {seconds} s, so the run stops "
                    "and the rows not done are pending.",
                    f"{params['zh']}{seconds} 秒内令牌来源未对任何商户作出应答，任务就此停止，未完成的行仍待处理。",
                ), None
            case StopCode.CANARY:
                rows = int(params["rows"])
                return Text(
                    f"{plural(rows, 'row')} of the first environments did not succeed, so the run stops here.",
                    f"首批环境中有 {rows:,} 行未成功，任务就此停下。",
                ), None
            case StopCode.OTHER:
                return Text(str(params["en"]), str(params["zh"])), None


def stop_reason(error: TcbOpsError) -> StopReason:
    """Return the reason that the ledger keeps of an error that stopped a run."""
    if error.code:
        return StopReason(StopCode(error.code), error.params)
    return StopReason(StopCode.OTHER, {"en": error.text.en, "zh": error.text.zh})


def interrupted() -> InterruptedRunError:
    """Make the error of a session that was cancelled or got a signal."""
    return _error(InterruptedRunError, StopCode.INTERRUPTED)


def lock_lost() -> LedgerError:
    """Make the error of a session that no longer knows whether it alone works on its run."""
    return _error(LedgerError, StopCode.LOCK_LOST)


def outage(seconds: float, last: str) -> OutageError:
    """Make the error of a run that reached no host for `patience` seconds; `last` is what the last attempt met."""
    return _error(OutageError, StopCode.OUTAGE, seconds=seconds, last=last)


def refused_platform(code: int, errmsg: str) -> PlatformStopError:
    """Make the error of a refusal of the whole platform; the errmsg of 61004 names the address that is missing."""
    return _error(PlatformStopError, StopCode.PLATFORM, errcode=code, errmsg=errmsg)


def token_outage(text: Text, seconds: float) -> TokenSourceError:
    """Make the error of a run whose token source gave nobody a usable answer for `patience` seconds."""
    return _error(TokenSourceError, StopCode.TOKEN_SOURCE, seconds=seconds, en=text.en, zh=text.zh)


def canary_stop(rows: int) -> CanaryError:
    """Make the error of a run whose first environments did not all succeed."""
    return _error(CanaryError, StopCode.CANARY, rows=rows)


def unreachable(target: str, seconds: float) -> Text:
    """Describe an outage while it lasts; a simulator on this machine has probably not been started."""
    asks = Text("", "")
    if is_simulated(target):
        asks = Text(" (is `tcb-ops simulate` running?)", "（`tcb-ops simulate` 在运行吗？）")
    return Text(
        f"{target} cannot be reached{asks.en}; trying again for {seconds:g} s",
        f"无法连接 {target}{asks.zh}，{seconds:g} 秒内持续重试",
    )


def _error(kind: type[Error], code: StopCode, **params: Any) -> Error:
    error = kind(*StopReason(code, params).problem_and_fix())
    error.code, error.params = code, params
    return error
