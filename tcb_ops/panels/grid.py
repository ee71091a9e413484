"""Merchant × status, as it stands: a line per merchant, those with trouble first. Pure, from tallies to HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tcb_ops.i18n import Lang, Text
from tcb_ops.model import GOOD, Outcome
from tcb_ops.panels.html import esc, table
from tcb_ops.reports.explanations import OUTCOMES, why
from tcb_ops.runs.records import Tally

MERCHANTS_SHOWN = 400
"""Merchants that the grid shows; the rest is counted, and stands in the report."""
_HEADS = (
    Text("Merchant", "商户"),
    Text("RunState", "状态"),
    Text("Rows", "行数"),
    Text("Progress", "进度"),
    Text("Good", "成功"),
    Text("Not good", "未成功"),
    Text("To do", "待处理"),
    Text("Why", "原因"),
)


@dataclass(slots=True)
class MerchantLine:
    """One merchant (appid) of a run."""

    appid: str
    merchant: str
    good: int = 0
    bad: int = 0
    todo: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    outcomes: dict[Outcome, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All its rows."""
        return self.good + self.bad + self.todo


def merchant_lines(tallies: Iterable[Tally]) -> list[MerchantLine]:
    """Sum tallies up by merchant; those with rows that are not good first, most of them first, then by name."""
    lines: dict[str, MerchantLine] = {}
    for tally in tallies:
        line = lines.setdefault(tally.appid, MerchantLine(tally.appid, tally.merchant))
        line.outcomes[tally.outcome] = line.outcomes.get(tally.outcome, 0) + tally.rows
        if tally.outcome is Outcome.PENDING:
            line.todo += tally.rows
        elif tally.outcome in GOOD:
            line.good += tally.rows
        else:
            line.bad += tally.rows
            found = why(tally.outcome, tally.reason, tally.errcode, tally.store_code)
            if found is not None:
                line.codes[found.code] = line.codes.get(found.code, 0) + tally.rows
    return sorted(lines.values(), key=lambda line: (-line.bad, line.merchant, line.appid))


def merchant_state(line: MerchantLine, *, going: bool) -> Text:
    """Say how a merchant stands.

    =========================  ==========  ==========================
    rows                       run goes    state
    =========================  ==========  ==========================
    none to do, none bad       either      done
    none to do, some bad       either      done, not all good
    some to do, none begun     yes / no    waiting / not begun
    some to do, some ended     yes / no    working / stopped
    =========================  ==========  ==========================
    """
    if not line.todo:
        return Text("done, not all good", "已结束，有问题") if line.bad else Text("done", "完成")
    if line.todo == line.rows:
        return Text("waiting", "等待中") if going else Text("not begun", "未开始")
    return Text("working", "进行中") if going else Text("stopped", "已中断")


def render_grid(lines: Sequence[MerchantLine], lang: Lang, *, going: bool) -> str:
    """Draw the grid."""
    shown = lines[:MERCHANTS_SHOWN]
    rows = [
        (
            f'<span class="op-name">{esc(line.merchant)}</span>',
            merchant_state(line, going=going).of(lang),
            line.rows,
            _bar(line),
            line.good,
            f'<span class="op-badtext">{line.bad:,}</span>' if line.bad else "0",
            line.todo,
            _whys(line, lang),
        )
        for line in shown
    ]
    label = Text("Merchants and how their rows stand", "各商户的行状态").of(lang)
    drawn = table([head.of(lang) for head in _HEADS], rows, "hsnhnmns", label=label, classes="op-by-merchant")
    more = len(lines) - len(shown)
    if more > 0:
        left = Text(f"… and {more:,} more merchants: see the report", f"……另有 {more:,} 家商户：见报告").of(
            lang
        )
        drawn += f"<p>{esc(left)}</p>"
    return drawn


def _bar(line: MerchantLine) -> str:
    """Good and not good as shares of a bar; the numbers beside it say the same."""
    good, bad = (100 * part / line.rows for part in (line.good, line.bad))
    return f'<span class="op-bar" aria-hidden="true"><i class="g" style="width:{good:.0f}%"></i><i class="b" style="width:{bad:.0f}%"></i></span>'


def _whys(line: MerchantLine, lang: Lang) -> str:
    codes = sorted(line.codes.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{code} × {rows:,}" for code, rows in codes[:3]]
    if not parts and line.outcomes.get(Outcome.UNCHANGED):
        parts = [f"{OUTCOMES[Outcome.UNCHANGED].of(lang)} × {line.outcomes[Outcome.UNCHANGED]:,}"]
    return ", ".join(parts) + (" …" if len(codes) > 3 else "")
