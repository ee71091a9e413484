"""The errcode table: which code, at which merchant and environment, how many rows, what to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.model import Outcome
from tcb_ops.reports.explanations import own_words, why
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.records import RunRecord, Tally

if TYPE_CHECKING:
    from rich.table import Table

CODES = 20
"""Codes that the table shows on a terminal."""
MERCHANTS = 40
"""Lines of merchants that it shows, over all codes."""
FEWEST = 3
"""Of them, what each code may take at least."""


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
    detail: str = ""
    """What the token source or the platform said of one of the rows, without secrets, where that has to be read."""


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
    """All causes of one code that are mended in one way."""

    code: str
    meaning: Text
    action: Text
    merchants: tuple[MerchantShare, ...]
    """Most rows first."""
    rows: int
    detail: str = ""
    """Why there was no token, in the source's words, without secrets; in short."""


def errcode_table(ledger: Ledger, run: RunRecord) -> list[Cause]:
    """Tabulate a run's rows that are not good, most rows first. Each of them is in exactly one entry."""
    return causes(ledger.tallies(run))


def causes(groups: Iterable[Tally]) -> list[Cause]:
    """Tabulate groups of rows by merchant, environment and code, most rows first; good ones are left out."""
    outcomes: defaultdict[tuple[str, str, str, str], dict[Outcome, int]] = defaultdict(dict)
    texts: dict[tuple[str, str, str, str], tuple[Text, Text]] = {}
    details: dict[tuple[str, str, str, str], str] = {}
    for group in groups:
        found = why(group.outcome, group.reason, group.errcode, group.store_code)
        if found is None:
            continue
        entry = (group.appid, group.merchant, group.env, found.code)
        texts.setdefault(entry, (found.meaning, found.action))
        if said := own_words(group, found):
            details.setdefault(entry, said)
        ended = outcomes[entry]
        ended[group.outcome] = ended.get(group.outcome, 0) + group.rows
    listed = [
        Cause(
            *entry,
            *texts[entry],
            outcomes={outcome: ended[outcome] for outcome in Outcome if outcome in ended},
            rows=sum(ended.values()),
            detail=details.get(entry, ""),
        )
        for entry, ended in outcomes.items()
    ]
    return sorted(listed, key=lambda cause: (-cause.rows, cause.code, cause.merchant, cause.env, cause.appid))


def by_code(listed: Iterable[Cause]) -> list[CodeGroup]:
    """Group causes by code, then by merchant; most rows first."""
    codes: defaultdict[tuple[str, Text], list[Cause]] = defaultdict(list)
    for cause in listed:
        codes[cause.code, cause.action].append(cause)
    groups = [
        CodeGroup(
            code,
            found[0].meaning,
            action,
            _by_merchant(found),
            sum(cause.rows for cause in found),
            in_short((cause.appid, cause.detail) for cause in found),
        )
        for (code, action), found in codes.items()
    ]
    return sorted(groups, key=lambda group: (-group.rows, group.code))


def in_short(said: Iterable[tuple[str, str]]) -> str:
    """What was said of several appids, most rows first: each sentence once, and not in the name of one of them.

    What the platform says bears a rid, so that each is another: the first will do.

    ==========================================  ===========================
    of                                          in short
    ==========================================  ===========================
    wx1: unknown wx1                            unknown wx1
    wx1: unknown wx1, wx2: unknown wx2          unknown …
    wx1: unknown wx1, wx2: wx2 has left         unknown … / … has left
    four and more, each another sentence        the first three, then / …
    errmsg: a rid: 1, errmsg: a rid: 2          errmsg: a rid: 1
    ==========================================  ===========================
    """
    heard = [(appid, detail) for appid, detail in said if detail]
    if heard and heard[0][1].startswith("errmsg: "):
        return heard[0][1]
    one = len({appid for appid, _ in heard}) == 1
    sentences = list(dict.fromkeys(text if one else text.replace(appid or "…", "…") for appid, text in heard))
    return " / ".join([*sentences[:3], *(["…"] if len(sentences) > 3 else [])])


def _by_merchant(found: Iterable[Cause]) -> tuple[MerchantShare, ...]:
    merchants: defaultdict[tuple[str, str], list[Cause]] = defaultdict(list)
    for cause in found:
        merchants[cause.appid, cause.merchant].append(cause)
    shares = [
        MerchantShare(appid, merchant, tuple(cause.env for cause in its), sum(cause.rows for cause in its))
        for (appid, merchant), its in merchants.items()
    ]
    return tuple(sorted(shares, key=lambda share: (-share.rows, share.merchant, share.appid)))


def render_errcodes(listed: Sequence[Cause], lang: Lang, rest: str = "errcodes.csv") -> Table:
    """Draw causes for a terminal: each code with its texts once, its merchants and their rows beneath, aligned.

    `rest`: where what is left out can be seen.
    However many merchants there are, it is a screen or two; what is left out is counted.
    """
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text as Styled

    from tcb_ops.reports.formats.terminal import Wrapped

    table = Table.grid()
    groups = by_code(listed)
    shown = groups[:CODES]
    parts = [
        _lines(group, count, lang, rest)
        for group, count in zip(shown, _share([len(group.merchants) for group in shown]), strict=True)
    ]
    every = [line for lines in parts for line in lines]
    widths = [max((cell_len(line[column]) for line in every), default=0) for column in range(3)]
    # Where the rest can be seen is copied, and so stands whole.
    widths[1] = max(
        (min(cell_len(place), 28) if place != rest else cell_len(rest) for _, place, _ in every), default=0
    )
    for group, lines in zip(shown, parts, strict=True):
        code = sanitize(group.code)
        head = f"{code} · {_rows(group.rows).of(lang)} · {sanitize(group.meaning.of(lang))}"
        table.add_row(Wrapped(head, bold=len(code)))
        table.add_row(Wrapped(f"→ {group.action.of(lang)}"))
        if group.detail:
            table.add_row(Padding(Wrapped(sanitize(group.detail), style="italic"), (0, 0, 0, 2)))
        inner = Table.grid(padding=(0, 3, 0, 0))
        inner.add_column(no_wrap=True, width=min(widths[0], 30))
        inner.add_column(no_wrap=True, width=widths[1])
        inner.add_column(no_wrap=True, width=widths[2], justify="right")
        for line in lines:
            inner.add_row(*(Styled(cell, overflow="ellipsis") for cell in line))
        table.add_row(Padding(inner, (0, 0, 1, 2)))
    if left := groups[len(shown) :]:
        rows = _rows(sum(group.rows for group in left)).of(lang)
        table.add_row(
            Text(
                f"… and {len(left)} more codes · {rows}: {rest}",
                f"……另有 {len(left)} 个错误码 · {rows}：见 {rest}",
            ).of(lang)
        )
    return table


def _lines(group: CodeGroup, count: int, lang: Lang, rest: str) -> list[tuple[str, str, str]]:
    """The merchants of a code that are shown, and how many more there are: name, environments, rows."""
    lines = [(sanitize(share.merchant), _envs(share), f"{share.rows:,}") for share in group.merchants[:count]]
    if left := group.merchants[count:]:
        more = Text(f"… and {len(left):,} more merchants", f"……另有 {len(left):,} 家商户")
        lines.append((more.of(lang), rest, f"{sum(share.rows for share in left):,}"))
    return lines


def _share(wanted: Sequence[int]) -> list[int]:
    """Share the lines out among the codes' merchants: those with many get what the others leave.

    ================  ==========
    wanted            given
    ================  ==========
    3                 3
    300               39
    300, 2            37, 2
    300, 300          19, 19
    20 times 300      20 times 2
    ================  ==========
    """
    given = [0] * len(wanted)
    left = MERCHANTS
    smallest_first = sorted(range(len(wanted)), key=lambda place: wanted[place])
    for served, place in enumerate(smallest_first):
        fair = max(FEWEST, left // (len(wanted) - served))
        # One line is for "… and N more merchants".
        given[place] = wanted[place] if wanted[place] <= fair else fair - 1
        left -= given[place] + (given[place] < wanted[place])
    return given


def _rows(count: int) -> Text:
    return Text(plural(count, "row"), f"{count:,} 行")


def _envs(share: MerchantShare) -> str:
    first = sanitize(share.envs[0])
    return first if len(share.envs) == 1 else f"{first} +{len(share.envs) - 1}"
