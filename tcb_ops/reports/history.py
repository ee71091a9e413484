"""Errcodes by day and merchant over all runs of a target, from one question to the ledger."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache

from tcb_ops.i18n import plural
from tcb_ops.runs.reader import QUARTER, LedgerReader
from tcb_ops.settings import Settings

DAYS = 30


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """Rows of one merchant that ended with one errcode on one day."""

    day: date
    merchant: str
    appid: str
    errcode: int
    rows: int


@dataclass(frozen=True, slots=True)
class MerchantHistory:
    """One merchant's errcodes over the days of a history."""

    merchant: str
    appid: str
    days: int
    """On which it had one."""
    last: date
    rows: int
    codes: tuple[int, ...]
    """Most rows first."""


@dataclass(frozen=True, slots=True, repr=False)
class ErrcodeHistory:
    """The errcodes of some days: rows that ended with one, in whatever run; rows that are retried count again."""

    days: tuple[date, ...]
    """Every day of the span, the oldest first, in the settings' time zone."""
    lines: tuple[HistoryLine, ...]
    """By day, then most rows first."""
    target: str
    settings: Settings

    def codes(self) -> list[tuple[int, tuple[int, ...]]]:
        """Each errcode with its rows per day, aligned with `days`; most rows first."""
        place = {day: number for number, day in enumerate(self.days)}
        counted: dict[int, list[int]] = {}
        for line in self.lines:
            counted.setdefault(line.errcode, [0] * len(self.days))[place[line.day]] += line.rows
        ordered = sorted(counted.items(), key=lambda found: (-sum(found[1]), found[0]))
        return [(errcode, tuple(rows)) for errcode, rows in ordered]

    def merchants(self) -> list[MerchantHistory]:
        """The merchants that had an errcode: those with most days first."""
        its: dict[tuple[str, str], list[HistoryLine]] = {}
        for line in self.lines:
            its.setdefault((line.merchant, line.appid), []).append(line)
        found = [_of_merchant(*key, lines) for key, lines in its.items()]
        return sorted(found, key=lambda one: (-one.days, -one.rows, one.merchant, one.appid))

    def __repr__(self) -> str:
        merchants = len({line.appid for line in self.lines})
        rows = sum(line.rows for line in self.lines)
        return f"<History of {plural(len(self.days), 'day')}: {plural(rows, 'row')} with an errcode, {plural(merchants, 'merchant')}>"


def history(
    ledger: LedgerReader | None, target: str, settings: Settings, *, days: int = DAYS, now: float
) -> ErrcodeHistory:
    """Count the rows of a target that ended with an errcode other than 0, over the last `days` days, today included; None has no runs.

    A day is one of the settings' time zone. Rows that a breaker kept from being attempted count under its errcode.
    """
    today = datetime.fromtimestamp(now, settings.zone).date()
    span = tuple(today - timedelta(days=back) for back in range(max(days, 1) - 1, -1, -1))
    since = datetime(span[0].year, span[0].month, span[0].day, tzinfo=settings.zone).timestamp()

    @cache
    def day_of(quarter: int) -> date:
        return datetime.fromtimestamp(quarter * QUARTER, settings.zone).date()

    counted: Counter[tuple[date, str, str, int]] = Counter()
    for appid, merchant, errcode, quarter, rows in (
        ledger.errcodes_since(target, since) if ledger is not None else ()
    ):
        counted[day_of(int(quarter)), merchant, appid, errcode] += rows
    lines = [HistoryLine(*key, rows) for key, rows in counted.items() if span[0] <= key[0] <= today]
    lines.sort(key=lambda line: (line.day, -line.rows, line.merchant, line.appid, line.errcode))
    return ErrcodeHistory(span, tuple(lines), target, settings)


def _of_merchant(merchant: str, appid: str, lines: list[HistoryLine]) -> MerchantHistory:
    codes: Counter[int] = Counter()
    for line in lines:
        codes[line.errcode] += line.rows
    days = {line.day for line in lines}
    ordered = sorted(codes, key=lambda code: (-codes[code], code))
    return MerchantHistory(merchant, appid, len(days), max(days), codes.total(), tuple(ordered))
