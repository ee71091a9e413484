"""What was seen of the merchants, for people: a table on the screen, worst first, and a CSV for a spreadsheet."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.cell_text import guard
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.merchants.asking import TransportFailure
from tcb_ops.merchants.status import MerchantState
from tcb_ops.model import Merchant

if TYPE_CHECKING:
    from rich.console import RenderableType

LINES = 40
"""Lines that are shown of those that cannot work, some of each trouble."""
GOOD_LINES = 12
"""Lines that can work are shown where there are no more than these; else they are summed up."""

_HEADS = (
    Text("merchant", "商户"),
    Text("environment", "环境"),
    Text("token", "令牌"),
    Text("set 49", "权限集"),
    Text("cloud", "云开发"),
    Text("status", "状态"),
    Text("calls", "剩余调用"),
    Text("why", "原因"),
)


def draw_states(states: Sequence[MerchantState], lang: Lang) -> Iterator[RenderableType]:
    """Draw the table, then what is behind each code and what to do. What is left out is counted."""
    from rich.table import Table

    from tcb_ops.reports.formats.terminal import Wrapped

    bad = _worst_first([state for state in states if state.troubles])
    good = [state for state in states if state.works]
    some = _some_of_each(bad)
    shown = some + (good if len(good) <= GOOD_LINES else [])
    if shown:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in _HEADS:
            name, env = head.en == "merchant", head.en == "environment"
            # Where the screen is narrow, names and environments wrap, to be copied whole; the rest stays on its line.
            table.add_column(
                head.of(lang),
                justify="right" if head.en == "calls" else "left",
                no_wrap=not (name or env),
                overflow="fold",
                min_width=8 if name else 11 if env else None,
                max_width=30 if name else None,
            )
        for state in shown:
            table.add_row(*_cells(state, lang))
        yield table
    if more := len(bad) - len(some):
        yield Text(
            f"… and {more:,} more that cannot work: --out FILE.csv has all",
            f"……另有 {more:,} 行不能工作：用 --out FILE.csv 导出全部",
        ).of(lang)
    for trouble, whose in group((state.merchant, trouble) for state in bad for trouble in state.troubles):
        yield ""
        said = f"{trouble.code} · {_lines(len(whose)).of(lang)}{_names(whose).of(lang)} · {sanitize(trouble.meaning.of(lang))}"
        yield Wrapped(said, bold=len(trouble.code))
        yield Wrapped(f"→ {sanitize(trouble.action.of(lang))}")
    if shown:
        yield ""


def verdict(states: Sequence[MerchantState]) -> Text:
    """How many lines can work, in one sentence; and which of them is nearest to the end of its calls."""
    works = [state for state in states if state.works]
    left = sum(state.merchant.left for state in states)
    bad = len(states) - len(works) - left
    en = f"{len(works):,} of {_lines(len(states)).en} can work, {bad:,} cannot"
    zh = f"{_lines(len(states)).zh}中 {len(works):,} 行可以工作，{bad:,} 行不能"
    if left:
        en = f"{en}, {left:,} {'is' if left == 1 else 'are'} of merchants that have left (status=left)"
        zh = f"{zh}，{left:,} 行的商户已离开（status=left）"
    limited = [
        (state.quota.left, state.merchant.name)
        for state in works
        if state.quota and state.quota.left is not None
    ]
    if limited:
        least, name = min(limited)
        en = f"{en}. Fewest calls left today: {least:,} ({sanitize(name)})"
        zh = f"{zh}。今日剩余调用最少：{least:,}（{sanitize(name)}）"
    return Text(f"{en}.", f"{zh}。")


def write_states(states: Iterable[MerchantState], dest: Path, lang: Lang) -> None:
    """Write a line per state, for a spreadsheet: UTF-8 with BOM, and no cell that would run as a formula."""
    with dest.open("w", encoding="utf-8-sig", newline="") as file:
        out = csv.writer(file)
        out.writerow(
            (
                *("appid", "merchant", "env", "owner", "works", "token", "permission", "cloud", "env_status"),
                *("daily_limit", "used", "remain", "code", "meaning", "action", "errmsg"),
            )
        )
        for state in states:
            merchant, quota = state.merchant, state.quota
            said = [merchant.appid, merchant.name, merchant.env, str(merchant.owner)]
            said += ["left" if merchant.left else _word(state.works)]
            said += [*map(_word, (state.token, state.permission, state.cloud)), state.env_status]
            figures = quota.figures if quota else None
            said += [str(n) for n in figures.values()] if figures else [""] * 3
            said += [
                " / ".join(filter(None, part))
                for part in zip(
                    *((t.code, t.meaning.of(lang), t.action.of(lang), t.errmsg) for t in state.troubles),
                    strict=True,
                )
            ] or [""] * 4
            out.writerow(map(guard, said))


def group(
    troubles: Iterable[tuple[Merchant, TransportFailure]],
) -> list[tuple[TransportFailure, list[Merchant]]]:
    """Bring those together whose trouble is alike but for the merchant in its words; most merchants first."""
    groups: dict[TransportFailure, list[tuple[Merchant, TransportFailure]]] = {}
    for merchant, trouble in troubles:
        groups.setdefault(_alike(trouble, merchant), []).append((merchant, trouble))
    found = [
        (alike if len(its) > 1 else its[0][1], [merchant for merchant, _ in its])
        for alike, its in groups.items()
    ]
    return sorted(found, key=lambda one: -len(one[1]))


def _alike(trouble: TransportFailure, merchant: Merchant) -> TransportFailure:
    """A trouble without its merchant's name and appid, and without what the platform said word for word."""

    def without(text: Text) -> Text:
        names = filter(None, (merchant.appid, merchant.name))
        return reduce(lambda t, n: Text(t.en.replace(n, "…"), t.zh.replace(n, "…")), names, text)

    return TransportFailure(trouble.code, without(trouble.meaning), without(trouble.action))


def _cells(state: MerchantState, lang: Lang) -> list[str]:
    left = state.quota.left if state.quota else None
    return [
        sanitize(state.merchant.name),
        sanitize(state.merchant.env),
        *(_shown(seen, lang) for seen in (state.token, state.permission, state.cloud)),
        sanitize(state.env_status) or "–",
        "–" if left is None else f"{left:,}",
        ", ".join(trouble.code for trouble in state.troubles),
    ]


def _shown(seen: bool | None, lang: Lang) -> str:
    if seen is None:
        return "–"
    return (Text("yes", "是") if seen else Text("NO", "否")).of(lang)


def _word(seen: bool | None) -> str:
    return "" if seen is None else "yes" if seen else "no"


def _worst_first(bad: Sequence[MerchantState]) -> list[MerchantState]:
    """What most merchants suffer from comes first."""
    times = Counter(state.troubles[0].code for state in bad)
    return sorted(
        bad,
        key=lambda s: (-times[s.troubles[0].code], s.troubles[0].code, s.merchant.name, s.merchant.env),
    )


def _some_of_each(bad: Sequence[MerchantState]) -> list[MerchantState]:
    """As many as there is room for, shared out among the troubles: one that hundreds have must not hide the others."""
    of: dict[str, list[MerchantState]] = {}
    for state in bad:
        of.setdefault(state.troubles[0].code, []).append(state)
    room, some = LINES, set[int]()
    for served, its in enumerate(sorted(of.values(), key=len)):
        taken = its[: max(1, room // (len(of) - served))]
        room -= len(taken)
        some |= set(map(id, taken))
    return [state for state in bad if id(state) in some]


def _names(whose: Sequence[Merchant]) -> Text:
    """Who it is, the first three."""
    names = list(dict.fromkeys(sanitize(merchant.name) for merchant in whose))
    more = len(names) - 3
    return Text(
        f" ({', '.join(names[:3])}{f' and {more:,} more' if more > 0 else ''})",
        f"（{'、'.join(names[:3])}{f'等 {len(names):,} 个' if more > 0 else ''}）",
    )


def _lines(count: int) -> Text:
    return Text(plural(count, "line"), f"{count:,} 行")
