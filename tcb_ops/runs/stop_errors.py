"""What a run says that ends early: why, and how it goes on."""

from __future__ import annotations

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
from tcb_ops.i18n import Text
from tcb_ops.model import RowEnd, is_simulated, target_label
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.next_commands import of_run, quoted, resume
from tcb_ops.runs.records import RunRecord
from tcb_ops.settings import Settings

NO_COMPONENT = Text(
    "This environment is the platform's own (owner = platform) and is served with the component token: set "
    "tokens.component_appid in the settings.",
    "该环境属于平台自己（owner = platform），要用 component_access_token：请在设置中填写 tokens.component_appid。",
)
"""Why a row of the platform's own environments has no token."""


def with_next(error: TcbOpsError, run: RunRecord, settings: Settings) -> TcbOpsError:
    """Add to an error that ended a run early which run that is, its target, and the command that resumes it."""
    target = target_label(run.target, settings.api_base)
    lines = [*error.text.en.splitlines()], [*error.text.zh.splitlines()]
    ways = [
        (
            Text(f"To resume run {run.id} ({target}):", f"继续任务 {run.id}（{target}）："),
            resume(settings, run),
        )
    ]
    if isinstance(error, CanaryError):
        ways = [
            (Text("To see why:", "查看原因："), of_run(settings, run, "errcodes")),
            (
                Text(
                    f"To go on with the other environments of run {run.id} ({target}) all the same, without --canary:",
                    f"仍要继续任务 {run.id}（{target}）的其余环境（不带 --canary）：",
                ),
                resume(settings, run, canary=False),
            ),
        ]
    for about, words in ways:
        lines[0].extend((about.en, quoted(words)))
        lines[1].extend((about.zh, quoted(words)))
    error.args = ("\n".join(lines[0]),)
    error.text = Text("\n".join(lines[0]), "\n".join(lines[1]))
    return error


def interrupted() -> InterruptedRunError:
    """The error of a sitting that was told to end."""
    return InterruptedRunError(
        Text("interrupted; the rows not done are pending.", "已中断；未完成的行仍待处理。")
    )


def lock_lost() -> LedgerError:
    """The error of a session that cannot tell any more whether it alone works on its run."""
    return LedgerError(
        Text(
            "the ledger's database does not answer, so another process may take the run over: this one stops, and the rows "
            "not done are pending. Check the database and the network.",
            "台账数据库没有应答，任务可能被其他进程接手：本进程就此停止，未完成的行仍待处理。请检查数据库和网络。",
        )
    )


def away(target: str, pace: RunLimits) -> Text:
    """What is said while nobody is reached; a simulator on this machine is likelier to have been forgotten than lost."""
    asks = Text("", "")
    if is_simulated(target):
        asks = Text(" (is `tcb-ops simulate` running?)", "（`tcb-ops simulate` 在运行吗？）")
    return Text(
        f"{target} cannot be reached{asks.en}; trying again for {pace.patience:g} s",
        f"无法连接 {target}{asks.zh}，{pace.patience:g} 秒内持续重试",
    )


def outage(pace: RunLimits, last: str) -> OutageError:
    """The error of a run whose patience with an outage has run out; `last` is what the last try met."""
    return OutageError(
        Text(
            f"{last}; nobody was reached for {pace.patience:g} s, so the run stops and the rows not done are pending. "
            "Check the network.",
            f"{last}；{pace.patience:g} 秒内未能连上任何地址，任务就此停止，未完成的行仍待处理。请检查网络。",
        )
    )


def platform_stop(end: RowEnd) -> PlatformStopError:
    """The error of a run that meets a refusal of the whole platform."""
    return refused_platform(end.errcode or 0, end.errmsg)


def refused_platform(code: int, errmsg: str) -> PlatformStopError:
    """Return the error of a refusal of the whole platform; the errmsg of 61004 names the address that is missing."""
    known = errcode(code)
    quoted_en, quoted_zh = (f" ({errmsg})", f"（{errmsg}）") if errmsg else ("", "")
    return PlatformStopError(
        Text(
            f"errcode {code}{quoted_en} stops every merchant. {known.meaning.en}",
            f"errcode {code}{quoted_zh}影响所有商户。{known.meaning.zh}",
        ),
        known.action,
    )


def token_outage(text: Text, pace: RunLimits) -> TokenSourceError:
    """The error of a run whose token source has given nobody a usable answer for as long as patience allows."""
    return TokenSourceError(
        Text(
            f"{text.en} No merchant got an answer from the token source for {pace.patience:g} s, so the run stops and the "
            "rows not done are pending.",
            f"{text.zh}{pace.patience:g} 秒内令牌来源未对任何商户作出应答，任务就此停止，未完成的行仍待处理。",
        )
    )


def canary_stop(bad: int) -> CanaryError:
    """The error of a run whose first environments did not all go well."""
    return CanaryError(
        Text(
            f"{bad:,} rows of the first environments are not good, so the run stops here.",
            f"首批环境中有 {bad:,} 行未成功，任务就此停下。",
        )
    )
