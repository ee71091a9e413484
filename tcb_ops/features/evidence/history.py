"""Codes of a target's runs of one kind by day and merchant, with one query of the ledger."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from importlib.resources import files
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Unpack

from tcb_ops.arguments import checked
from tcb_ops.errors import ArgumentError, check_count, check_value
from tcb_ops.features.evidence.queries import QUARTER, codes_since
from tcb_ops.frames import frame_by
from tcb_ops.i18n import _, as_list, ngettext
from tcb_ops.kinds import Kind, kind_named, kind_names, merchant_count, row_count
from tcb_ops.reports.formats.html import code_colour, environment
from tcb_ops.reports.summary import most_first
from tcb_ops.secrets import redact
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, existing_ledger, settings_for

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.runs.reader import LedgerReader

_MOST_DAYS = 36_500
DAYS = 30


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """Rows of one merchant that ended with one code on one day."""

    day: date
    merchant: str
    appid: str
    code: str
    """An errcode or a code of the store."""
    rows: int


@dataclass(frozen=True, slots=True)
class MerchantHistory:
    """One merchant's codes over the days of a history."""

    merchant: str
    appid: str
    days: int
    """Number of days with a code."""
    last: date
    rows: int
    codes: tuple[str, ...]
    """Most rows first."""


@dataclass(frozen=True, slots=True, repr=False)
class History:
    """Codes by day: the rows of all runs of one kind that ended with one; retried rows count again."""

    days: tuple[date, ...]
    """Every day of the period, oldest first, in the settings' time zone."""
    lines: tuple[HistoryLine, ...]
    """By day, then most rows first."""
    kind: Kind
    target: str
    settings: Settings

    def codes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return each code with its rows per day, aligned with `days`; most rows first."""
        counted: defaultdict[str, Counter[date]] = defaultdict(Counter)
        for line in self.lines:
            counted[line.code][line.day] += line.rows
        ordered = sorted(counted.items(), key=lambda item: (-item[1].total(), item[0]))
        return [(code, tuple(rows[day] for day in self.days)) for code, rows in ordered]

    def merchants(self) -> list[MerchantHistory]:
        """Return the merchants that had a code, most days first."""
        days: defaultdict[tuple[str, str], set[date]] = defaultdict(set)
        codes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for line in self.lines:
            days[line.merchant, line.appid].add(line.day)
            codes[line.merchant, line.appid][line.code] += line.rows
        histories = [
            MerchantHistory(*key, len(its), max(its), codes[key].total(), tuple(dict(most_first(codes[key]))))
            for key, its in days.items()
        ]
        return sorted(histories, key=lambda entry: (-entry.days, -entry.rows, entry.merchant, entry.appid))

    def frame(self) -> pd.DataFrame:
        """Return a DataFrame: day (datetime64[s]), merchant, appid, code (string), rows (Int64)."""
        names = ("day", "merchant", "appid", "code", "rows")
        lines, zone = map(attrgetter(*names), self.lines), self.settings.timezone
        return frame_by("frame_of", names, lines, timezone=zone)

    def _repr_html_(self) -> str:
        macros = environment(self.settings.lang).from_string(_TEMPLATE).module
        svg = macros.chart(self.kind.label, [day.isoformat() for day in self.days], *_chart(self))
        return str(macros.history_card(svg, self.merchants(), _LISTED))

    def __repr__(self) -> str:
        merchants = len({line.appid for line in self.lines})
        errcodes = sum(line.rows for line in self.lines if line.code.lstrip("-").isdigit())
        text = _(
            "<History of {kind}, {days}: {errcodes} with an errcode, {stored} with a code of the store, {merchants}>",
            kind=str(self.kind),
            days=ngettext("{n:,} day", "{n:,} days", len(self.days)),
            errcodes=row_count(errcodes),
            stored=row_count(sum(line.rows for line in self.lines) - errcodes),
            merchants=merchant_count(merchants),
        )
        return str(text)


@checked
def history(
    days: int = DAYS, *, kind: str = "upload", until: str = "today", **options: Unpack[TargetOptions]
) -> History:
    """Count errcodes and codes of the store by day and merchant over all runs of a kind of `target`, else the settings'.

    `kind`: links, upload, audit, confirm, delete or undo. `until` is the last of the days, such as 2026-10-30, or today.
    """
    settings = settings_for(options)
    check_count("days", days, least=1)
    check_value("days", days, days <= _MOST_DAYS, _("at most {most:,}", most=_MOST_DAYS))
    check_value("kind", kind, kind in kind_names(), as_list(kind_names()))
    now = time.time()
    if until != "today":
        try:
            now = datetime.fromisoformat(until).replace(tzinfo=settings.zone).timestamp()
        except (ValueError, OverflowError):
            valid = _("today or a date such as 2026-10-30")
            raise ArgumentError("until", until, valid, shown=True) from None
    ledger, target = existing_ledger(settings), settings.run_target
    return count_codes(ledger, target, kind_named(kind), settings, days=days, now=now)


def count_codes(
    ledger: LedgerReader | None, target: str, kind: Kind, settings: Settings, *, days: int = DAYS, now: float
) -> History:
    """Count a target's rows that ended with a code in runs of a kind, over the last `days` days, today included.

    Days are in the settings' time zone. Rows that a breaker kept from being attempted count under its code. Without a
    `ledger` there are none.
    """
    today = datetime.fromtimestamp(now, settings.zone).date()
    span = tuple(today - timedelta(days=back) for back in range(max(days, 1) - 1, -1, -1))
    since = datetime(span[0].year, span[0].month, span[0].day, tzinfo=settings.zone).timestamp()

    @cache
    def day_of(quarter: int) -> date:
        return datetime.fromtimestamp(quarter * QUARTER, settings.zone).date()

    counted: Counter[tuple[date, str, str, str]] = Counter()
    found = codes_since(ledger, target, kind, since) if ledger is not None else ()
    for appid, merchant, errcode, store_code, quarter, rows in found:
        counted[day_of(int(quarter)), merchant, appid, str(errcode or redact(store_code))] += rows
    lines = [HistoryLine(*key, rows) for key, rows in counted.items() if span[0] <= key[0] <= today]
    lines.sort(key=lambda line: (line.day, -line.rows, line.merchant, line.appid, line.code))
    return History(span, tuple(lines), kind, target, settings)


_TEMPLATE = (files("tcb_ops.features.evidence") / "history.html.j2").read_text(encoding="utf-8")
_LISTED = 12
"""Merchants in the card; the others are counted."""
_CODES = 6
"""Codes with a bar of their own; the others are summed up."""
_GREY = "#8a8f98"
"""Colour of all others together."""
_LEFT, _TOP, _WIDTH, _HEIGHT = 62, 20, 650, 130
"""Position and size of the bars in the drawing."""


def _chart(history: History) -> tuple[list[dict[str, Any]], int, list[tuple[str, str, int]]]:
    codes = history.codes()
    shown = [(code_colour(code), code, rows) for code, rows in codes[:_CODES]]
    if other_codes := codes[_CODES:]:
        others = tuple(map(sum, zip(*(rows for _, rows in other_codes), strict=True)))
        shown.append((_GREY, _("others").of(history.settings.lang), others))
    top = max((sum(day) for day in zip(*(rows for _, _, rows in shown), strict=True)), default=0)
    step = _WIDTH / len(history.days)
    bars: list[dict[str, Any]] = []
    for index, day in enumerate(history.days):
        y = float(_TOP + _HEIGHT)
        for colour, code, rows in shown:
            if rows[index]:
                height = rows[index] / top * _HEIGHT
                y = max(y - height, float(_TOP))
                x, count = _LEFT + (index + 0.12) * step, row_count(rows[index])
                size = {"x": x, "y": y, "width": step * 0.76, "height": height}
                about = {"colour": colour, "day": day.isoformat(), "code": code, "rows": count}
                bars.append({name: round(value, 1) for name, value in size.items()} | about)
    return bars, top, [(colour, code, sum(rows)) for colour, code, rows in shown]
