"""A run over time: the rows that ended as a drawing, and what most of the time went to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcb_ops.i18n import Text
from tcb_ops.model import GOOD, Outcome
from tcb_ops.runs.records import Moment

WIDTH, HEIGHT = 600, 100
"""Of the drawing, in its own units: it is stretched to the page."""
SHORT = 5.0
"""Seconds of a run under which its bottleneck does not matter."""
PAUSE = 60.0
"""Seconds without an ended row, under which they are not reported as a pause."""
OWN = "own"

PHASES: dict[str, Text] = {
    "link": Text("requesting links", "请求上传链接"),
    "store": Text("sending files to the store", "向存储发送文件"),
    "limit": Text("held by --per-env or --rate", "受 --per-env 或 --rate 限制"),
    "slow": Text(
        "paused because the platform or the store asked to slow down", "按平台或存储的要求放慢而暂停"
    ),
    "backoff": Text("waiting to retry", "等待重试"),
    "token": Text("waiting for tokens", "等待令牌"),
    "outage": Text("waiting for a target that could not be reached", "等待无法连接的目标"),
    OWN: Text("in tcb-ops itself: ledger and local files", "tcb-ops 自身：台账与本地文件"),
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


def bottleneck(spent: Mapping[str, float], seconds: float) -> Text | None:
    """Say what most of a run's time went to; None for runs that were short, or not measured.

    What no phase accounts for went to tcb-ops itself.
    """
    measured = sum(spent.values())
    if not measured or seconds < SHORT:
        return None
    whole = max(seconds, measured)
    phases = {**spent, OWN: whole - measured}
    most = max(PHASES, key=lambda phase: phases.get(phase, 0.0))
    share = f"{phases[most] / whole:.0%}"
    return Text(
        f"Where the time went: {share} {PHASES[most].en}.", f"时间花在哪里：{share} {PHASES[most].zh}。"
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
