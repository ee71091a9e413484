"""Codes of a target's runs of one kind by day and merchant, with one query of the ledger."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Unpack

from tcb_ops.arguments import checked
from tcb_ops.errors import ArgumentError, check_count, check_value
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, Text, _, as_list, ngettext
from tcb_ops.kinds import Kind, kind_named, kind_names, row_count
from tcb_ops.secrets import redact
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, existing_ledger, settings_for

if TYPE_CHECKING:
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


@dataclass(frozen=True, slots=True, repr=False)
class History(Tabular):
    """Codes by day: the rows of all runs of one kind that ended with one; retried rows count again."""

    days: tuple[date, ...]
    """Every day of the period, oldest first, in the settings' time zone."""
    lines: tuple[HistoryLine, ...]
    """By day, then most rows first."""
    kind: Kind
    target: str

    def _table(self, _lang: Lang) -> Lines:
        names = ("day", "merchant", "appid", "code", "rows")
        return Lines(self._caption, names, map(attrgetter(*names), self.lines), len(self.lines))

    def __repr__(self) -> str:
        return f"<History of {self._caption}>"

    @property
    def _caption(self) -> Text:
        errcodes = sum(line.rows for line in self.lines if line.code.lstrip("-").isdigit())
        return _(
            "{kind}, {days}: {errcodes} with an errcode, {stored} with a code of the store",
            kind=str(self.kind),
            days=ngettext("{n:,} day", "{n:,} days", len(self.days)),
            errcodes=row_count(errcodes),
            stored=row_count(sum(line.rows for line in self.lines) - errcodes),
        )


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
    from tcb_ops.features.evidence.queries import QUARTER, codes_since

    today = datetime.fromtimestamp(now, settings.zone).date()
    span = tuple(today - timedelta(days=back) for back in range(max(days, 1) - 1, -1, -1))
    since = datetime(span[0].year, span[0].month, span[0].day, tzinfo=settings.zone).timestamp()

    @cache
    def day_of(quarter: int) -> date:
        return datetime.fromtimestamp(quarter * QUARTER, settings.zone).date()

    counted: Counter[tuple[date, str, str, str]] = Counter()
    for appid, merchant, errcode, store_code, quarter, rows in (
        codes_since(ledger, target, kind, since) if ledger is not None else ()
    ):
        counted[day_of(int(quarter)), merchant, appid, str(errcode or redact(store_code))] += rows
    lines = [HistoryLine(*key, rows) for key, rows in counted.items() if span[0] <= key[0] <= today]
    lines.sort(key=lambda line: (line.day, -line.rows, line.merchant, line.appid, line.code))
    return History(span, tuple(lines), kind, target)
