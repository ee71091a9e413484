"""Each merchant of a run: its environments, how their rows ended, under which codes, the first rows that are not good."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tcb_ops.model import GOOD, Outcome
from tcb_ops.reports.explanations import why
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.records import RowRecord, RunRecord, Tally

FIRST = 3
"""Rows that are shown of a merchant."""


@dataclass(frozen=True, slots=True)
class MerchantDetail:
    """One merchant's part of a run."""

    merchant: str
    appid: str
    outcomes: Mapping[Outcome, int]
    """Pending included; the sum is `rows`."""
    codes: tuple[tuple[str, int], ...]
    """Of rows that ended, but not well; most rows first."""
    envs: tuple[tuple[str, Mapping[Outcome, int]], ...]
    """Those with most rows that are not good first."""
    first: tuple[RowRecord, ...] = ()

    @property
    def rows(self) -> int:
        """All its rows."""
        return sum(self.outcomes.values())

    @property
    def bad(self) -> int:
        """Rows that ended, but not well."""
        return _bad(self.outcomes)


def by_merchant(groups: Iterable[Tally]) -> list[MerchantDetail]:
    """Sum groups up by merchant: those with most rows that are not good first, then by name."""
    envs: defaultdict[tuple[str, str], defaultdict[str, Counter[Outcome]]] = defaultdict(
        lambda: defaultdict(Counter)
    )
    codes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for group in groups:
        key = (group.merchant, group.appid)
        envs[key][group.env][group.outcome] += group.rows
        cause = why(group.outcome, group.reason, group.errcode, group.store_code)
        if cause is not None and group.outcome is not Outcome.PENDING:
            codes[key][cause.code] += group.rows
    found = []
    for key, its in envs.items():
        whole: Counter[Outcome] = Counter()
        for outcomes in its.values():
            whole.update(outcomes)
        found.append(
            MerchantDetail(
                *key,
                outcomes={outcome: whole[outcome] for outcome in Outcome if whole[outcome]},
                codes=tuple(sorted(codes[key].items(), key=lambda code: (-code[1], code[0]))),
                envs=tuple(sorted(its.items(), key=lambda env: (-_bad(env[1]), env[0]))),
            )
        )
    return sorted(found, key=lambda merchant: (-merchant.bad, merchant.merchant, merchant.appid))


def namesakes(groups: Iterable[Tally]) -> set[str]:
    """Names that more than one merchant has: beside them the appid tells which one is meant."""
    names = Counter(name for name, _ in {(group.merchant, group.appid) for group in groups})
    return {name for name, merchants in names.items() if name and merchants > 1}


def with_first_rows(
    found: Iterable[MerchantDetail], ledger: Ledger, run: RunRecord
) -> Iterator[MerchantDetail]:
    """Add to each merchant its first rows that are not good, environment by environment, as it is asked for."""
    place_of = {(place.appid, place.merchant, place.env): place for place in ledger.envs(run)}
    for detail in found:
        first: list[RowRecord] = []
        for env, outcomes in detail.envs:
            if _bad(outcomes) and len(first) < FIRST:
                place = place_of[detail.appid, detail.merchant, env]
                first += ledger.first_failures(run, place, FIRST - len(first))
        yield replace(detail, first=tuple(first))


def fitting(parts: Iterable[str], room: int) -> list[str]:
    """Take parts of a page as long as they fit into so many bytes; what comes after the first that does not is not made."""
    taken = []
    for part in parts:
        room -= len(part.encode())
        if room < 0:
            break
        taken.append(part)
    return taken


def _bad(outcomes: Mapping[Outcome, int]) -> int:
    return sum(
        rows for outcome, rows in outcomes.items() if outcome not in GOOD and outcome is not Outcome.PENDING
    )
