"""What will run out soon, from the quotas that audits have recorded. `days_left` and `short_of_calls` are pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from tcb_ops.i18n import Lang, Text, _, ngettext
from tcb_ops.model import Outcome, QuotaUsage
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import LINKS, STORAGE, WRITES, RunRecord, usage_of

DAY = 86_400.0
SOON = 7
"""Days: what lasts longer is not reported."""
PAST = 14
"""Days of audits and runs from which the pace is taken."""
_BEIJING = ZoneInfo("Asia/Shanghai")

Reading = tuple[float, int]
"""When a quota was read (Unix seconds), and how much of it was used."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A quota that will be used up soon."""

    appid: str
    merchant: str
    env: str
    """For link calls, the first environment of the appid: they count by appid."""
    quota: str
    """`storage` (MB), `writes` (this month) or `links` (today)."""
    used: int
    limit: int
    days: float | None
    """Until it is used up at the present pace; None for link calls."""
    pace: float
    """How much of it is used a day."""
    is_new: bool
    """Whether the previous audit did not predict it."""

    @property
    def text(self) -> Text:
        """A sentence about it, without the merchant."""
        if self.quota == LINKS:
            return _(
                "link calls: {left:,} left today, about {pace:,} a day are made",
                left=self.limit - self.used,
                pace=round(self.pace),
            )
        days = int(self.days or 0)
        if self.quota == STORAGE:
            today = _("storage is full within a day ({used:,} of {limit:,} MB)")
            later = ngettext(
                "storage is full in {n:,} day ({used:,} of {limit:,} MB)",
                "storage is full in {n:,} days ({used:,} of {limit:,} MB)",
                days,
            )
        else:
            today = _("writes are used up within a day ({used:,} of {limit:,} this month)")
            later = ngettext(
                "writes are used up in {n:,} day ({used:,} of {limit:,} this month)",
                "writes are used up in {n:,} days ({used:,} of {limit:,} this month)",
                days,
            )
        return (later if days else today).format(used=self.used, limit=self.limit)

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return the object for `--json`, a webhook or a command."""
        names = ("appid", "merchant", "env", "quota", "used", "limit")
        return {name: getattr(self, name) for name in names} | {
            "days": None if self.days is None else round(self.days, 1),
            "new": self.is_new,
            "text": self.text.of(lang),
        }


def days_left(used: int, limit: int, earlier: Sequence[Reading], now: float) -> tuple[float, float] | None:
    """Return in how many days a quota is used up, and the pace per day; None if that cannot be told.

    `earlier` are the readings before, latest first. The pace is the growth since the oldest of them after which it has
    never fallen: where something was deleted, or a month began, older readings do not count.

    ========  ==============  =============================  ==========================
    limit     used            earlier                        result
    ========  ==============  =============================  ==========================
    unknown   any             any                            None
    known     all, or more    any                            0 days
    known     less            none, or no growth since       None
    known     less            growth since                   what is left / the pace
    ========  ==============  =============================  ==========================
    """
    if limit <= 0:
        return None
    oldest = (now, used)
    for at, value in earlier:
        if value > oldest[1] or at >= oldest[0]:
            break
        oldest = (at, value)
    grown, days = used - oldest[1], (now - oldest[0]) / DAY
    pace = grown / days if grown > 0 and days > 0 else 0.0
    if used >= limit:
        return 0.0, pace
    return ((limit - used) / pace, pace) if pace > 0 else None


def short_of_calls(used: int, limit: int, pace: float) -> bool:
    """Return whether today's link calls will not last for what is usually made in a day.

    =======  ========================  =====================
    limit    still to be made today    short
    =======  ========================  =====================
    unknown  any                       no
    known    none: pace <= used        no
    known    pace - used               if more than is left
    =======  ========================  =====================
    """
    return limit > 0 and max(0.0, pace - used) > limit - used


def days_of_month_left(now: float) -> float:
    """Return the days until the monthly quotas are reset: the first of the month in Beijing."""
    there = datetime.fromtimestamp(now, _BEIJING)
    month = there.year * 12 + there.month
    reset = datetime(month // 12, month % 12 + 1, 1, tzinfo=_BEIJING)
    return (reset - there).total_seconds() / DAY


def _due(quota: str, used: QuotaUsage, earlier: Sequence[Reading], now: float) -> tuple[float, float] | None:
    """Return when a quota is used up, and the pace, if that is soon."""
    found = days_left(used.used, used.limit, earlier, now)
    if found is None or found[0] > SOON or (quota == WRITES and found[0] > days_of_month_left(now)):
        return None
    return found


def forecasts(reader: LedgerReader, run: RunRecord) -> list[Forecast]:
    """Return what runs out soon by what an audit read, the most urgent first."""
    pace: dict[str, float] | None = None
    measured: dict[tuple[str, str, str], tuple[str, QuotaUsage]] = {}
    """Merchant and usage by (appid, environment, quota): of link calls once per appid, and where few are left."""
    asked: set[str] = set()
    for appid, merchant, env, used in _measured(reader, run):
        for quota, now in used.items():
            if quota == LINKS:
                if appid in asked:
                    continue
                asked.add(appid)
                pace = _link_pace(reader, run) if pace is None else pace
                if not short_of_calls(now.used, now.limit, pace.get(appid, 0.0)):
                    continue
            measured[appid, env, quota] = merchant, now
    past = _readings(reader, run, measured.keys()) if measured else {}
    found: list[Forecast] = []
    for (appid, env, quota), (merchant, now) in measured.items():
        kept = past.get((appid, env, quota), [])
        earlier = [(at, one.used) for at, one in kept]
        at, before = kept[0] if kept else (0.0, QuotaUsage(0, 0))
        if quota == LINKS:
            a_day = (pace or {}).get(appid, 0.0)
            is_new = not short_of_calls(before.used, before.limit, a_day)
            found.append(Forecast(appid, merchant, env, quota, now.used, now.limit, None, a_day, is_new))
        elif (due := _due(quota, now, earlier, run.created_at)) is not None:
            is_new = _due(quota, before, earlier[1:], at) is None
            found.append(Forecast(appid, merchant, env, quota, now.used, now.limit, *due, is_new))
    return sorted(found, key=lambda one: (one.days or 0.0, one.merchant, one.env))


def _measured(
    reader: LedgerReader, run: RunRecord
) -> Iterator[tuple[str, str, str, Mapping[str, QuotaUsage]]]:
    """Stream (appid, merchant, environment, usage by quota) of an audit's healthy environments."""
    for record in reader.rows(run, outcomes=frozenset({Outcome.HEALTHY})):
        yield record.row.appid, record.row.merchant, record.row.env, usage_of(record.end.detail)


def _readings(
    reader: LedgerReader, run: RunRecord, wanted: Container[tuple[str, str, str]]
) -> dict[tuple[str, str, str], list[tuple[float, QuotaUsage]]]:
    """Return the earlier readings by (appid, environment, quota), latest first; of link calls only the latest."""
    found: dict[tuple[str, str, str], list[tuple[float, QuotaUsage]]] = {}
    for audit in reader.earlier_audits(run, run.created_at - PAST * DAY):
        for appid, _merchant, env, usage in _measured(reader, audit):
            for quota, used in usage.items():
                if (appid, env, quota) not in wanted:
                    continue
                kept = found.setdefault((appid, env, quota), [])
                if quota != LINKS or not kept:
                    kept.append((audit.created_at, used))
    return found


def _link_pace(reader: LedgerReader, run: RunRecord) -> dict[str, float]:
    """Return the link calls that an appid's runs make on a day on which it has any."""
    by_day: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for appid, created_at, rows in reader.rows_by_appid(run.target, run.created_at - PAST * DAY):
        by_day[appid][int((created_at + 8 * 3600) // DAY)] += int(rows)  # the day in Beijing
    return {appid: days.total() / len(days) for appid, days in by_day.items()}
