"""Comparison of two runs, row by row.

Rows are matched by environment, appid and cloud path, whatever their lines. They are streamed in that order from the
ledger, in constant memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache
from heapq import merge
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tcb_ops.arguments import checked
from tcb_ops.errors import UsageError
from tcb_ops.features.evidence.queries import pairs_by_line, rows_by_path
from tcb_ops.i18n import Joined, Text, _, verbatim
from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.cards import sections_html
from tcb_ops.reports.data_frames import frame_of
from tcb_ops.reports.explanations import why
from tcb_ops.reports.findings import FindingLine, FindingSection
from tcb_ops.run import Run, environments_of
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, find_run, ledger_with_runs, selected_merchants, settings_for

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.ledger.reader import LedgerReader
    from tcb_ops.ledger.records import RunRecord
    from tcb_ops.lists.merchants import Merchants


EARLIER_RUNS = 30
"""Audits that are searched for the last known state of what is unknown."""
Place = tuple[str, str]
"""An environment: (env, appid)."""
State = tuple[str, str, int | None, str]
"""Outcome, reason, errcode, store's code."""


class Change(StrEnum):
    """How a row changed from one run to a later one."""

    NEWLY_BROKEN = "newly_broken"
    STILL_BROKEN = "still_broken"
    FIXED = "fixed"
    ONLY_IN_NEWER = "only_in_newer"
    ONLY_IN_OLDER = "only_in_older"
    UNFINISHED = "unfinished"
    """Pending in at least one of the two."""
    UNKNOWN = "unknown"
    """Unknown to the newer run."""
    STILL_GOOD = "still_good"


_TEXTS: dict[Change, tuple[Text, Text]] = {
    Change.NEWLY_BROKEN: (_("Newly broken"), _("{rows:,} newly broken")),
    Change.STILL_BROKEN: (_("Still broken"), _("{rows:,} still broken")),
    Change.FIXED: (_("Fixed"), _("{rows:,} fixed")),
    Change.ONLY_IN_NEWER: (_("Only in the newer run"), _("{rows:,} only in the newer run")),
    Change.ONLY_IN_OLDER: (_("Only in the older run"), _("{rows:,} only in the older run")),
    Change.UNFINISHED: (_("Not finished"), _("{rows:,} not finished")),
    Change.UNKNOWN: (_("Unknown"), _("{rows:,} unknown")),
    Change.STILL_GOOD: (_("Succeeded in both"), _("{rows:,} succeeded in both")),
}
"""A change's title, and its rows in the summary."""


DIFF_COLUMNS = ("change", "merchant", "appid", "env", "before", "after", "rows")
"""The columns of a diff as a table, fields of its lines."""


@dataclass(frozen=True, slots=True)
class DiffLine:
    """Rows of one merchant's environment with the same change and codes."""

    change: Change
    appid: str
    merchant: str
    env: str
    before: str
    """The code in the older run, as in errcodes.csv; empty if the row succeeded or is missing."""
    after: str
    """The code in the newer run; empty if the row succeeded or is missing."""
    rows: int


@dataclass(frozen=True, slots=True, repr=False)
class Diff:
    """What changed from one run to a later one. Rows that succeeded in both are only counted."""

    older: RunRecord
    newer: RunRecord
    counts: Mapping[Change, int]
    """Rows by change, zeros included."""
    lines: tuple[DiffLine, ...]
    """By change, then most rows first."""
    settings: Settings

    @property
    def broken(self) -> bool:
        """Whether rows fail in the newer run that succeeded in the older one, or were missing there."""
        return any(
            line.change is Change.NEWLY_BROKEN or (line.change is Change.ONLY_IN_NEWER and line.after)
            for line in self.lines
        )

    def of(self, change: Change) -> list[DiffLine]:
        """Return the lines of one change, most rows first."""
        return [line for line in self.lines if line.change is change]

    def sections(self) -> list[FindingSection]:
        """Return the rows that failed in either run, by what became of them."""
        listed = (
            (change, [line for line in self.of(change) if line.before or line.after]) for change in _LISTED
        )
        return [FindingSection(_title(change), [*map(_listed, lines)]) for change, lines in listed if lines]

    def __repr__(self) -> str:
        return _("<Diff {verdict}>", verdict=diff_verdict(self)).of(self.settings.lang)

    def frame(self) -> pd.DataFrame:
        """Return the lines as a DataFrame: change, merchant, appid, env, before, after (string), rows (Int64)."""
        lines = map(attrgetter(*DIFF_COLUMNS), self.lines)
        return frame_of(DIFF_COLUMNS, lines)

    def _repr_html_(self) -> str | None:
        return sections_html(diff_verdict(self), self.sections(), self.settings.lang)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `diff --json` prints."""
        return {
            "older": _about(self.older, self.settings),
            "newer": _about(self.newer, self.settings),
            "kind": str(self.newer.kind),
            "target": self.newer.target,
            "counts": {str(name): rows for name, rows in self.counts.items()},
            "changes": [asdict(line) for line in self.lines],
        }


def change(before: str | None, after: str | None) -> Change:
    """Classify a row by its outcomes in two runs; None: the run does not have it.

    =========  =========  =============
    before     after      change
    =========  =========  =============
    pending    any        unfinished
    any        pending    unfinished
    none       any        only in newer
    any        none       only in older
    success    success    still good
    success    failure    newly broken
    failure    success    fixed
    failure    failure    still broken
    any        unknown    unknown
    unknown    success    still good
    unknown    failure    newly broken
    =========  =========  =============

    What is unknown is neither broken nor fixed: after a night in which the platform refused all calls,
    nothing has recovered. An environment that was unknown before is compared with its last known state, if there is one.
    """
    if Outcome.PENDING in {before, after}:
        return Change.UNFINISHED
    if after == Outcome.UNKNOWN:
        return Change.UNKNOWN
    if before is None:
        return Change.ONLY_IN_NEWER
    if after is None:
        return Change.ONLY_IN_OLDER
    was_broken = not Outcome(before).succeeded and before != Outcome.UNKNOWN
    if Outcome(after).succeeded:
        return Change.FIXED if was_broken else Change.STILL_GOOD
    return Change.STILL_BROKEN if was_broken else Change.NEWLY_BROKEN


_LISTED = (Change.NEWLY_BROKEN, Change.STILL_BROKEN, Change.FIXED, Change.ONLY_IN_NEWER)
"""The changes whose rows are listed; of the others there is a count."""


def _title(change: Change) -> Text:
    title, _counted = _TEXTS[change]
    return _("{changes}, did not succeed", changes=title) if change is Change.ONLY_IN_NEWER else title


def _listed(line: DiffLine) -> FindingLine:
    before = None if line.change is Change.ONLY_IN_NEWER else line.before
    return FindingLine(
        line.merchant, line.env, line.after, appid=line.appid, rows=line.rows, before=(before,)
    )


def compare(
    ledger: LedgerReader,
    older: RunRecord,
    newer: RunRecord,
    settings: Settings,
    only: frozenset[tuple[str, str]] | None = None,
) -> Diff:
    """Compare two runs. Raises UsageError if their kinds or targets differ.

    What is unknown to the older run is compared with its last known state.
    `only`: the environments, as (appid, env), whose rows are compared; None for all.
    """
    if (older.target, older.kind) != (newer.target, newer.kind):
        text = _("{older} and {newer} are not runs of the same kind and target.")
        fix = _("`tcb-ops runs` lists the kind and target of each run.")
        raise UsageError(text.format(older=older.id, newer=newer.id), fix)
    counts = dict.fromkeys(Change, 0)
    lines: Counter[tuple[Change, str, str, str, str]] = Counter()
    became = cache(change)
    known_before = _known_before(ledger, older) if older.kind.of_merchants else {}
    for environment, before, after, rows in _pairs(ledger, older, newer):
        if only is not None and environment[::-1] not in only:
            continue
        if before is not None and before[0] == Outcome.UNKNOWN:
            before = known_before.get(environment, before)  # noqa: PLW2901  the state that counts
        what = became(before and before[0], after and after[0])
        counts[what] += rows
        if what is not Change.STILL_GOOD:  # often a million rows
            lines[what, *environment, _code(before), _code(after)] += rows
    order = list(Change)
    names = {(each.env, each.appid): each.merchant for run in (older, newer) for each in ledger.envs(run)}
    listed = [
        DiffLine(what, appid, names[env, appid], env, before, after, rows)
        for (what, env, appid, before, after), rows in lines.items()
    ]
    listed.sort(key=attrgetter("after", "before", "merchant", "env", "appid"))
    listed.sort(key=lambda line: (order.index(line.change), -line.rows))
    return Diff(older, newer, counts, tuple(listed), settings)


def _known_before(ledger: LedgerReader, run: RunRecord) -> dict[Place, State]:
    """Return the last known states of what is unknown to an audit, from at most EARLIER_RUNS before it."""
    unknown = {
        (env, appid) for env, appid, _path, *state in rows_by_path(ledger, run) if state[0] == Outcome.UNKNOWN
    }
    states: dict[Place, State] = {}
    earlier, searched = ledger.previous(run), 0
    while unknown and earlier is not None and searched < EARLIER_RUNS:
        for env, appid, _path, outcome, *more in rows_by_path(ledger, earlier):
            if (env, appid) in unknown and outcome != Outcome.UNKNOWN:
                states[env, appid] = (outcome, *more)
                unknown.discard((env, appid))
        earlier, searched = ledger.previous(earlier), searched + 1
    return states


def diff_verdict(diff: Diff) -> Text:
    """Sum up a comparison in one sentence, without changes that did not occur."""
    parts = tuple(_TEXTS[change][1].format(rows=rows) for change, rows in diff.counts.items() if rows)
    if not parts:
        return _("Neither run has a row.")
    listed = Joined(parts, verbatim(" · "))
    text = _("Rows from {older} to {newer}: {listed}.")
    return text.format(older=diff.older.id, newer=diff.newer.id, listed=listed)


def _pairs(
    ledger: LedgerReader, older: RunRecord, newer: RunRecord
) -> Iterator[tuple[Place, State | None, State | None, int]]:
    """Yield (env, appid), the state in each run, and the number of rows; the same ones may be repeated."""
    pairs = pairs_by_line(ledger, older, newer)
    if pairs is not None:
        for env, appid, *states, rows in pairs:
            yield (env, appid), tuple(states[:4]), tuple(states[4:]), rows
        return
    streams = (_once(rows_by_path(ledger, run), which) for which, run in enumerate((older, newer)))
    for (env, appid, _path), entries in groupby(merge(*streams), itemgetter(0)):
        by_run = {which: state for _key, which, state in entries}
        yield (env, appid), by_run.get(0), by_run.get(1), 1


def _once(records: Iterable[Any], which: int) -> Iterator[tuple[tuple[str, str, str], int, State]]:
    """Yield each key once: the second of two duplicate rows was skipped as invalid."""
    for key, duplicates in groupby(records, itemgetter(slice(3))):
        yield key, which, next(duplicates)[3:]


@checked
def diff(
    older: str | Run,
    newer: str | Run = "latest",
    *,
    merchants: Merchants | str | Path | None = None,
    where: str | Sequence[str] = "",
    **options: Unpack[TargetOptions],
) -> Diff:
    """Compare two runs of one kind and target: newly broken, fixed, still broken, by merchant and cause.

    Each is a Run, an id, a prefix or `latest`, which is the latest run of that kind by itself; `merchants`, and `where` as in `read_merchants`: only their rows are compared. Raises RunNotFoundError, and
    UsageError if the runs cannot be compared.
    """
    settings = settings_for(options, newer)
    before = find_run(older, settings, "older")
    after = find_run(newer, settings, "newer", before.record.kind)
    selected = selected_merchants(merchants, {"settings": settings}, where)
    only = None if selected is None else environments_of(selected)
    return compare(ledger_with_runs(settings), before.record, after.record, settings, only)


@lru_cache(maxsize=4096)
def _code(state: State | None) -> str:
    if state is None:
        return ""
    outcome, reason, errcode, store_code = state
    cause = why(Outcome(outcome), Reason(reason) if reason else None, errcode, store_code)
    return "" if cause is None else cause.code


def _about(run: RunRecord, settings: Settings) -> dict[str, Any]:
    begun = datetime.fromtimestamp(run.created_at, settings.zone).isoformat(timespec="seconds")
    return {"run": run.id, "begun": begun, "finished": run.finished_at is not None, "rows": run.rows}
