"""The course of a run: rows over time as a drawing, where the time went, and one sentence of advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcb_ops.i18n import Text
from tcb_ops.model import GOOD, Outcome
from tcb_ops.runs.records import Moment

WIDTH, HEIGHT = 600, 100
"""Of the drawing, in its own units: it is stretched to the page."""
SHORT = 5.0
"""Seconds of a run under which there is nothing to advise."""
PAUSE = 60.0
"""Seconds in which nothing ended, under which they are no pause worth telling of."""
OWN = "own"

PHASE_NAMES: dict[str, Text] = {
    "link": Text("Asking for links", "请求上传链接"),
    "store": Text("Sending files to the store", "向存储发送文件"),
    "limit": Text("Held by --per-env or --rate", "受 --per-env 或 --rate 限制"),
    "slow": Text("Paused: told to slow down", "按平台要求放慢而暂停"),
    "backoff": Text("Waiting to try again", "等待重试"),
    "token": Text("Waiting for tokens", "等待令牌"),
    "outage": Text("Target not reachable", "目标无法连接"),
    OWN: Text("tcb-ops itself: ledger and files", "tcb-ops 自身：台账与文件"),
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """Rows over time: a stack of good, not attempted and bad rows per moment, as SVG paths."""

    good: str
    skipped: str
    bad: str
    sums: tuple[int, int, int]
    """Good, not attempted, bad."""
    began: float
    ended: float
    """Unix seconds."""
    peak: float
    """Rows per second of the fullest moment."""
    mean: float
    quiet: tuple[float, float] | None
    """The longest time in which nothing ended, where that is a fifth of the whole or more, and a minute."""


def draw(moments: Sequence[Moment]) -> Drawing | None:
    """Draw the moments. None where no row has ended."""
    if not moments:
        return None
    stacks = [_stack(moment.outcomes) for moment in moments]
    most = max(sum(stack) for stack in stacks)
    wide, step = WIDTH / len(moments), HEIGHT / most
    paths: tuple[list[str], list[str], list[str]] = ([], [], [])
    for number, stack in enumerate(stacks):
        bottom = float(HEIGHT)
        for path, rows in zip(paths, stack, strict=True):
            if rows:
                high = rows * step
                path.append(
                    f"M{number * wide + wide * 0.08:.2f} {bottom:.2f}h{wide * 0.84:.2f}v{-high:.2f}h{-wide * 0.84:.2f}z"
                )
                bottom -= high
    good, skipped, bad = (sum(part) for part in zip(*stacks, strict=True))
    span = moments[-1].until - moments[0].at
    return Drawing(
        good="".join(paths[0]),
        skipped="".join(paths[1]),
        bad="".join(paths[2]),
        sums=(good, skipped, bad),
        began=moments[0].at,
        ended=moments[-1].until,
        peak=most / (moments[0].until - moments[0].at),
        mean=(good + skipped + bad) / span,
        quiet=_quiet(moments),
    )


def where_it_went(spent: Mapping[str, float], seconds: float) -> list[tuple[str, float, float]]:
    """Give the phases with their seconds and their share of the run, most first. Empty where nothing was measured.

    What no phase accounts for went to tcb-ops itself.
    """
    measured = sum(spent.values())
    if not measured:
        return []
    whole = max(seconds, measured)
    parts = {phase: spent.get(phase, 0.0) for phase in PHASE_NAMES} | {OWN: whole - measured}
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return [(phase, part, part / whole) for phase, part in ordered if part / whole >= 0.005]


def advice(spent: Mapping[str, float], seconds: float, settings: Mapping[str, object]) -> Text | None:
    """Give one sentence from where most of the time went. None for runs too short to advise on, or not measured.

    =========  ===================  ==================================================
    most in    and                  advice
    =========  ===================  ==================================================
    outage                          the network or the target, then run again
    slow                            a lower --rate, another hour
    backoff                         look at the causes first
    token                           the token source
    limit      --rate was given     raise --rate, as far as 45011 allows
    limit      it was not           raise --per-env, or more environments in one run
    store                           the line; --skip-unchanged
    link                            raise --concurrency, as far as 45011 allows
    own                             a quicker disk or machine
    =========  ===================  ==================================================
    """
    parts = where_it_went(spent, seconds)
    if not parts or seconds < SHORT:
        return None
    phase, _, share = parts[0]
    if phase == "limit" and settings.get("rate"):
        phase = "rate"
    told = _ADVICE[phase]
    shown = {name: settings.get(name, "?") for name in ("rate", "per_env", "concurrency")}
    return Text(
        f"{share:.0%} of the time: {told.en.format(**shown)}",
        f"{share:.0%} 的时间：{told.zh.format(**shown)}",
    )


_ADVICE: dict[str, Text] = {
    "outage": Text(
        "the target could not be reached. Look at the network and any proxy before the next run.",
        "目标无法连接。下次运行前请检查网络和代理。",
    ),
    "slow": Text(
        "the platform or the store asked for pauses. Give a --rate it bears, or run at a quieter hour.",
        "平台或存储要求放慢。请用 --rate 设为其可承受的速度，或换个空闲时段运行。",
    ),
    "backoff": Text(
        "rows waited to be tried again. Mend the causes above first; pressing harder does not help.",
        "各行在等待重试。请先解决上面的原因；加大并发没有帮助。",
    ),
    "token": Text(
        "rows waited for tokens. Look at how quickly the token source answers.",
        "各行在等待令牌。请检查令牌来源的响应速度。",
    ),
    "rate": Text(
        "--rate {rate} held rows back. Raise it, as long as 45011 does not appear.",
        "受 --rate {rate} 限制而等待。可以调高，只要不出现 45011。",
    ),
    "limit": Text(
        "--per-env {per_env} held rows back while there was room for more. Raise it, or put more environments into one run.",
        "受 --per-env {per_env} 限制而等待，而总并发尚有余量。可以调高它，或在一次任务中放入更多环境。",
    ),
    "store": Text(
        "files were on their way to the store. A faster line helps; for files that are there already, --skip-unchanged.",
        "在向存储发送文件。更快的网络会有帮助；已上传过的文件可用 --skip-unchanged 跳过。",
    ),
    "link": Text(
        "links were asked for. A --concurrency over {concurrency} may be quicker, as long as 45011 does not appear.",
        "在请求上传链接。把 --concurrency（现为 {concurrency}）调高可能更快，只要不出现 45011。",
    ),
    OWN: Text(
        "tcb-ops itself was busy: the ledger, the local files, this machine. A quicker disk for the ledger helps most.",
        "花在 tcb-ops 自身：台账、本地文件和本机。把台账放在更快的磁盘上最有帮助。",
    ),
}


def duration(seconds: float) -> Text:
    """Say how long something took, as people say it.

    ==========  ============  ============
    seconds     English       Chinese
    ==========  ============  ============
    0.26        0.3 s         0.3 秒
    42.0        42 s          42 秒
    250.0       4 min 10 s    4 分 10 秒
    7500.0      2 h 5 min     2 小时 5 分
    180000.0    2 d 2 h       2 天 2 小时
    ==========  ============  ============
    """
    if seconds < 9.95:
        return Text(f"{seconds:.1f} s", f"{seconds:.1f} 秒")
    whole = round(seconds)
    if whole < 60:
        return Text(f"{whole} s", f"{whole} 秒")
    if whole < 3600:
        return Text(f"{whole // 60} min {whole % 60} s", f"{whole // 60} 分 {whole % 60} 秒")
    if whole < 86400:
        return Text(
            f"{whole // 3600} h {whole % 3600 // 60} min", f"{whole // 3600} 小时 {whole % 3600 // 60} 分"
        )
    return Text(
        f"{whole // 86400} d {whole % 86400 // 3600} h", f"{whole // 86400} 天 {whole % 86400 // 3600} 小时"
    )


def _stack(outcomes: Mapping[Outcome, int]) -> tuple[int, int, int]:
    good = sum(rows for outcome, rows in outcomes.items() if outcome in GOOD)
    skipped = outcomes.get(Outcome.NOT_ATTEMPTED, 0)
    return good, skipped, sum(outcomes.values()) - good - skipped


def _quiet(moments: Sequence[Moment]) -> tuple[float, float] | None:
    longest, begin = (0, 0), 0
    for number, moment in enumerate(moments):
        if moment.outcomes:
            begin = number + 1
        elif number + 1 - begin > longest[1] - longest[0]:
            longest = (begin, number + 1)
    if (longest[1] - longest[0]) * 5 < len(moments) or longest[0] == longest[1]:
        return None
    since, until = moments[longest[0]].at, moments[longest[1] - 1].until
    return (since, until) if until - since >= PAUSE else None
