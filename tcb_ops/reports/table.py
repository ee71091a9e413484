"""The errcode table: which code, at which merchant and environment, how many rows, what to do."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcb_ops.model import Lang, Outcome, Text
from tcb_ops.reports.wording import why

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.table import Table

    from tcb_ops.model import Reason
    from tcb_ops.runs.ledger import Ledger, RunRecord, Tally

__all__ = [
    "Cause",
    "CodeGroup",
    "Group",
    "MerchantShare",
    "by_code",
    "causes",
    "errcode_table",
    "render_errcodes",
]

LINES = 40
"""Lines that the table may take on a terminal, more or less."""
LEAST = 4
"""Lines that a code takes at least: its texts wrap."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one merchant's environment that share an end: a Tally, counted while the rows go by."""

    appid: str
    merchant: str
    env: str
    outcome: Outcome
    reason: Reason | None
    errcode: int | None
    store_code: str
    rows: int


@dataclass(frozen=True, slots=True)
class Cause:
    """Rows of one merchant's environment that are not good for the same reason."""

    appid: str
    merchant: str
    env: str
    code: str
    """An errcode, a code of the store, or a reason's name (`no_token`, `file_changed`, `pending` …)."""
    meaning: Text
    action: Text
    outcomes: Mapping[Outcome, int]
    """How these rows ended; the sum is `rows`."""
    rows: int


@dataclass(frozen=True, slots=True)
class MerchantShare:
    """One merchant's part of a code."""

    appid: str
    merchant: str
    envs: tuple[str, ...]
    """Most rows first."""
    rows: int


@dataclass(frozen=True, slots=True)
class CodeGroup:
    """All causes of one code."""

    code: str
    meaning: Text
    action: Text
    merchants: tuple[MerchantShare, ...]
    """Most rows first."""
    rows: int


def errcode_table(ledger: Ledger, run: RunRecord) -> list[Cause]:
    """Tabulate a run's rows that are not good, most rows first. Each of them is in exactly one entry."""
    return causes(ledger.tallies(run))


def causes(groups: Iterable[Group | Tally]) -> list[Cause]:
    """Tabulate groups of rows by merchant, environment and code, most rows first; good ones are left out."""
    outcomes: defaultdict[tuple[str, str, str, str], dict[Outcome, int]] = defaultdict(dict)
    texts: dict[str, tuple[Text, Text]] = {}
    for group in groups:
        found = why(group.outcome, group.reason, group.errcode, group.store_code)
        if found is None:
            continue
        texts.setdefault(found.code, (found.meaning, found.action))
        ended = outcomes[group.appid, group.merchant, group.env, found.code]
        ended[group.outcome] = ended.get(group.outcome, 0) + group.rows
    listed = [
        Cause(
            appid,
            merchant,
            env,
            code,
            *texts[code],
            outcomes={outcome: ended[outcome] for outcome in Outcome if outcome in ended},
            rows=sum(ended.values()),
        )
        for (appid, merchant, env, code), ended in outcomes.items()
    ]
    return sorted(listed, key=lambda cause: (-cause.rows, cause.code, cause.merchant, cause.env, cause.appid))


def by_code(listed: Iterable[Cause]) -> list[CodeGroup]:
    """Group causes by code, then by merchant; most rows first."""
    codes: defaultdict[str, list[Cause]] = defaultdict(list)
    for cause in listed:
        codes[cause.code].append(cause)
    groups = [
        CodeGroup(
            code, found[0].meaning, found[0].action, _by_merchant(found), sum(cause.rows for cause in found)
        )
        for code, found in codes.items()
    ]
    return sorted(groups, key=lambda group: (-group.rows, group.code))


def _by_merchant(found: Iterable[Cause]) -> tuple[MerchantShare, ...]:
    merchants: defaultdict[tuple[str, str], list[Cause]] = defaultdict(list)
    for cause in found:
        merchants[cause.appid, cause.merchant].append(cause)
    shares = [
        MerchantShare(appid, merchant, tuple(cause.env for cause in its), sum(cause.rows for cause in its))
        for (appid, merchant), its in merchants.items()
    ]
    return tuple(sorted(shares, key=lambda share: (-share.rows, share.merchant, share.appid)))


_HEADS = (
    Text("code", "错误码"),
    Text("merchant", "商户"),
    Text("env", "环境"),
    Text("rows", "行数"),
    Text("what it means → what to do", "含义 → 怎么处理"),
)


def render_errcodes(listed: Sequence[Cause], lang: Lang) -> Table:
    """Draw causes for a terminal: a row per code, its merchants beneath one another, its texts once.

    Takes some 40 lines at most, however many merchants there are; what is left out is counted.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text as Styled

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, leading=1)
    code, merchant, env, rows, texts = (head.of(lang) for head in _HEADS)
    table.add_column(code, no_wrap=True, style="bold")
    table.add_column(merchant, no_wrap=True, max_width=24, overflow="ellipsis")
    table.add_column(env, no_wrap=True, max_width=26, overflow="ellipsis")
    table.add_column(rows, no_wrap=True, justify="right")
    table.add_column(texts, min_width=26, overflow="fold")
    groups = by_code(listed)
    shown = groups[: LINES // LEAST]
    for group, lines in zip(shown, _share([len(group.merchants) for group in shown]), strict=True):
        first = group.merchants[:lines]
        names = [_plain(share.merchant) for share in first]
        envs = [_envs(share) for share in first]
        if more := len(group.merchants) - lines:
            names.append(_more(more, Text("more merchants", "家商户")).of(lang))
            envs.append("errcodes.csv")
        numbers = [f"{group.rows:,}"] if len(first) == 1 else [f"{share.rows:,}" for share in first]
        if more:
            numbers.append(f"{sum(share.rows for share in group.merchants[lines:]):,}")
        table.add_row(
            Styled(_plain(group.code)),
            Styled("\n".join(names)),
            Styled("\n".join(envs)),
            Styled("\n".join(numbers)),
            Styled(f"{group.meaning.of(lang)}\n→ {group.action.of(lang)}"),
        )
    if left := groups[len(shown) :]:
        table.add_row(
            "…",
            Styled(_more(len(left), Text("more codes", "个错误码")).of(lang)),
            "errcodes.csv",
            f"{sum(group.rows for group in left):,}",
        )
    return table


def _share(wanted: Sequence[int]) -> list[int]:
    """Share the lines out among the codes: each its merchants, the ones with many what the others leave.

    ================  ==========
    wanted            given
    ================  ==========
    3                 3
    300               39
    300, 2            35, 2
    300, 300          19, 19
    ================  ==========
    """
    given = [0] * len(wanted)
    left, waiting = LINES, sorted(range(len(wanted)), key=lambda place: wanted[place])
    while waiting:
        place, fair = waiting[0], left // len(waiting)
        waiting.pop(0)
        # One line is for "… and N more merchants".
        given[place] = wanted[place] if wanted[place] <= max(1, fair) else max(1, fair - 1)
        left -= max(LEAST, given[place] + (given[place] < wanted[place]))
    return given


def _envs(share: MerchantShare) -> str:
    first = _plain(share.envs[0])
    return first if len(share.envs) == 1 else f"{first} +{len(share.envs) - 1}"


def _more(count: int, what: Text) -> Text:
    return Text(f"… and {count:,} {what.en}", f"……另有 {count:,} {what.zh}")


def _plain(text: str) -> str:
    """Keep control characters of a text from outside away from the terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
