"""A target's runs over some days: which codes there were, at which merchants, on which days, and what retries brought.

Every number is a sum of tallies, which the ledger keeps of a finished run. Kinds of runs are counted apart, and the rows of
a retry once, as its original has them: `History.retries` says what became of them.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Unpack

from tcb_ops.arguments import checked
from tcb_ops.catalogue import ERRCODE, texts_of
from tcb_ops.errors import ArgumentError, LedgerDamagedError, UsageError, check_count, check_value
from tcb_ops.features.evidence.drawings import CODES, Chart, chart, macros
from tcb_ops.features.evidence.queries import by_cell, tried_again
from tcb_ops.formatting import fold
from tcb_ops.frames import Lines, NoRun, Tabular
from tcb_ops.i18n import NOTHING, Bilingual, Lang, Text, _, as_lines, as_list, as_sentences, ngettext
from tcb_ops.kinds import ANY_KIND, Kind, MissingKind, all_kinds, kind_names, merchant_count, row_count
from tcb_ops.model import Outcome, Reason, target_name
from tcb_ops.reports.data_frames import frame_of
from tcb_ops.reports.explanations import why
from tcb_ops.reports.summary import most_first
from tcb_ops.run import Run
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, existing_ledger, find_run, merchants_for, settings_for

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.ledger.reader import LedgerReader
    from tcb_ops.ledger.records import RunRecord

_MOST_DAYS = 36_500
DAYS = 30
TOP = 10
"""Lines that a card shows of each kind."""
_COUNTS = ("succeeded", "not_succeeded", "pending")
_ONLY_RETRIES = _("Only retries in these days.")


@dataclass(frozen=True, slots=True)
class HistoryRun:
    """A run, and how its rows ended."""

    record: RunRecord
    day: date
    """On which it began, in the settings' time zone."""
    succeeded: int
    not_succeeded: int
    pending: int


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """Rows of one environment that ended with one code, in runs of one kind that began on one day."""

    day: date
    kind: Kind
    merchant: str
    appid: str
    env: str
    code: str
    """As in errcodes.csv: an errcode, a code of the store, or a reason."""
    rows: int


@dataclass(frozen=True, slots=True)
class KindLine:
    """Runs of one kind, or their retries."""

    kind: Kind
    retries: bool
    runs: int
    rows: int
    succeeded: int
    not_succeeded: int
    pending: int


@dataclass(frozen=True, slots=True)
class CodeLine:
    """Rows that ended with one code, in runs of one kind."""

    kind: Kind
    code: str
    rows: int
    days: int
    merchants: int
    meaning: Text


@dataclass(frozen=True, slots=True)
class MerchantHistory:
    """One merchant's rows in runs of one kind."""

    kind: Kind
    merchant: str
    appid: str
    days: int
    """On which rows did not succeed."""
    last_day: date
    rows: int
    not_succeeded: int
    codes: str
    """Most rows first."""
    shares: tuple[float | None, ...]
    """Of its rows that did not succeed, on each day; None where it had none."""


@dataclass(frozen=True, slots=True)
class ValueLine:
    """The rows with one value in a column, in runs of one kind."""

    value: str
    kind: Kind
    merchants: int
    rows: int
    not_succeeded: int


@dataclass(frozen=True, slots=True)
class RetryLine:
    """Rows that were tried again after they had ended with one code."""

    kind: Kind
    code: str
    rows: int
    succeeded: int


@dataclass(frozen=True, slots=True)
class KindSection:
    """What a card shows of one kind: a sentence, lines, and how many more there are."""

    kind: Kind
    sentence: Text
    lines: Sequence[Any] = ()
    rest: int = 0
    chart: Chart | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Tabular):
    """A question to a history, answered: `frame()` has every line; a notebook shows the first of each kind."""

    caption: Text
    names: tuple[str, ...]
    lines: tuple[Any, ...]
    sections: tuple[KindSection, ...]
    history: History
    card: str
    """The macro that draws the lines of a section."""
    header: str = ""
    """The header of the column whose values are counted."""

    def _table(self, _lang: Lang) -> Lines:
        values = attrgetter(*(["value"] if self.header else []), *self.names)
        lines = [tuple(str(v) if isinstance(v, Kind) else v for v in values(line)) for line in self.lines]
        headers = [self.header] if self.header else []
        return Lines(self.caption, self.names, lines, len(lines), headers=headers)

    def __repr__(self) -> str:
        lang = self.history.settings.lang
        sentences = (
            _("{name}: {message}", name=part.kind.label, message=part.sentence) for part in self.sections
        )
        return as_lines((self.caption, *sentences)).of(lang)

    def _repr_html_(self) -> str:
        return str(macros(self.history.settings.lang).answer_card(self))


@dataclass(frozen=True, slots=True, repr=False)
class History:
    """A target's runs over some days, each counted on the day on which it began."""

    days: tuple[date, ...]
    """Every day of the period, oldest first, in the settings' time zone."""
    runs: tuple[HistoryRun, ...]
    """The last created first."""
    lines: tuple[HistoryLine, ...]
    """The rows that did not succeed, without retries: by day and kind, then most rows first."""
    target: str
    settings: Settings
    absent: Text
    """Why there is no run; empty where there are runs."""
    notes: tuple[Text, ...]
    _ledger: LedgerReader | None
    _rows: Mapping[tuple[Kind, str, str], Counter[date]]
    """Rows that have ended, of each kind, appid and env, by day."""

    # --- questions ------------------------------------------------------------------------------------------------

    def codes(self) -> Answer:
        """Return the codes: a line per kind and code, most rows first, and a drawing of each day."""
        lines: list[CodeLine] = []
        sections = []
        for kind, listed in self._of_kinds():
            counted: defaultdict[str, Counter[date]] = defaultdict(Counter)
            merchants: defaultdict[str, set[str]] = defaultdict(set)
            for line in listed:
                counted[line.code][line.day] += line.rows
                merchants[line.code].add(line.appid)
            its = [
                CodeLine(kind, code, days.total(), len(days), len(merchants[code]), _meaning(code))
                for code, days in counted.items()
            ]
            its.sort(key=lambda line: (-line.rows, line.code))
            lines += its
            bars = chart(self.days, [(line.code, counted[line.code]) for line in its]) if its else None
            sections.append(
                KindSection(kind, self._verdict(kind), its[:CODES], max(len(its) - CODES, 0), bars)
            )
        names = ("kind", "code", "rows", "days", "merchants", "meaning")
        return self._answer(_("Codes by day"), names, lines, sections, "code_lines")

    @checked
    def merchants(self, top: int = TOP) -> Answer:
        """Return the merchants with rows that did not succeed: a line per kind and merchant, most days first.

        `top`: how many of each kind the card shows, each with its days.
        """
        check_count("top", top, least=1)
        lines: list[MerchantHistory] = []
        sections = []
        for kind, listed in self._of_kinds():
            rows, bad = self._by_merchant(kind), defaultdict[str, Counter[date]](Counter)
            codes: defaultdict[str, Counter[str]] = defaultdict(Counter)
            names: dict[str, str] = {}
            for line in listed:
                bad[line.appid][line.day] += line.rows
                codes[line.appid][line.code] += line.rows
                names[line.appid] = line.merchant  # the last of a merchant that was renamed
            its = []
            for appid, days in bad.items():
                of = rows[appid]
                shares = tuple(days[day] / of[day] if of[day] else None for day in self.days)
                named = ", ".join(code for code, _rows in most_first(codes[appid]))
                about = len(days), max(days), of.total(), days.total(), named
                its.append(MerchantHistory(kind, names[appid], appid, *about, shares))
            its.sort(key=lambda line: (-line.days, -line.not_succeeded, line.merchant, line.appid))
            lines += its
            sentence = self._verdict(kind)
            if its:
                text = _("{count} of {merchants} had rows that did not succeed.")
                sentence = text.format(count=f"{len(its):,}", merchants=merchant_count(len(rows)))
            if len(its) > top:
                more = ngettext(
                    "Here is the one on most days; it has {rows:,} of {total:,} such rows.",
                    "Here are the {n:,} on most days; they have {rows:,} of {total:,} such rows.",
                    top,
                )
                shown_rows, total = (sum(line.not_succeeded for line in part) for part in (its[:top], its))
                sentence = as_sentences((sentence, more.format(rows=shown_rows, total=total)))
            sections.append(KindSection(kind, sentence, its[:top]))
        columns = ("kind", "merchant", "appid", "rows", "not_succeeded", "days", "last_day", "codes")
        return self._answer(_("Merchants by day"), columns, lines, sections, "merchant_lines")

    @checked
    def by(self, column: str, top: int = TOP) -> Answer:
        """Count rows by the values of a column: of the merchants file or, if that has none of this name, of the lists.

        `top`: how many values of each kind the card shows.
        """
        check_count("top", top, least=1)
        file = self._merchants_file()
        of_file = file.cells(column) if file is not None else None
        lines: list[ValueLine] = []
        sections = []
        for kind, listed in self._of_kinds():
            counted = _Values()
            if of_file is not None:
                for _kind, appid, env in (key for key in self._rows if key[0] == kind):
                    counted.add(of_file.get((appid, env), ""), appid, self._rows[kind, appid, env].total(), 0)
                for line in listed:
                    counted.add(of_file.get((line.appid, line.env), ""), line.appid, 0, line.rows)
            else:
                self._add_cells(counted, kind, column)
            its = counted.lines(kind)
            lines += its
            if its:
                bad, rows = sum(line.not_succeeded for line in its), sum(line.rows for line in its)
                sentence = _("{bad:,} of {rows} did not succeed.", bad=bad, rows=row_count(rows))
                sections.append(KindSection(kind, sentence, its[:top], max(len(its) - top, 0)))
        nothing = _ONLY_RETRIES
        if any(not run.record.parent for run in self.runs):
            nothing = self._no_column(column, file.headers if file is not None else [])
        names, caption = ("kind", "merchants", "rows", "not_succeeded"), _("Rows by {column}", column=column)
        return self._answer(caption, names, lines, sections, "value_lines", nothing, column)

    def retries(self) -> Answer:
        """Return what retries brought: of the rows that ended with a code and were tried again, how many succeeded then."""
        lines: list[RetryLine] = []
        sections = []
        for kind in self._kinds():
            runs = [run for run in self.runs if run.record.kind == kind and run.record.parent]
            if not runs or self._ledger is None:
                continue
            rows, good = Counter[str](), Counter[str]()
            for run in runs:
                for *before, outcome, count in tried_again(self._ledger, run.record):
                    code = _code_of(*before) if before[0] is not None else ""
                    rows[code] += int(count)
                    good[code] += int(count) * Outcome(outcome).succeeded
            its = [RetryLine(kind, code, count, good[code]) for code, count in most_first(rows)]
            lines += its
            tried = ngettext("{n:,} retry", "{n:,} retries", len(runs))
            text = _("{good:,} of {rows} that {retries} tried again succeeded.")
            sentence = text.format(good=good.total(), rows=row_count(rows.total()), retries=tried)
            sections.append(KindSection(kind, sentence, its))
        names, nothing = ("kind", "code", "rows", "succeeded"), _("No retry in these days.")
        return self._answer(_("What retries brought"), names, lines, sections, "retry_lines", nothing)

    @checked
    def run(self, run: str = "") -> Run | NoRun:
        """Open a run by its id, as `tcb_ops.open_run` does; "": the newest of these days that is no retry."""
        newest = [each.record.id for each in self.runs if not each.record.parent][:1] if not run else [run]
        if not newest:
            return NoRun(self.absent if not self.runs else _ONLY_RETRIES, self.settings.lang)
        return find_run(newest[0], self.settings)

    def frame(self) -> pd.DataFrame:
        """Return the rows that did not succeed: day (datetime64[s]), kind, merchant, appid, env, code (string), rows (Int64)."""
        names = ("day", "kind", "merchant", "appid", "env", "code", "rows")
        lines = ((line.day, str(line.kind), *attrgetter(*names[2:])(line)) for line in self.lines)
        return frame_of(names, lines, timezone=self.settings.timezone)

    # --- how it is shown ------------------------------------------------------------------------------------------

    def kinds(self) -> list[KindLine]:
        """Return how many runs there are of each kind, their retries apart, and how their rows ended."""
        lines = []
        for kind in self._kinds():
            for retries in (False, True):
                runs = [
                    run for run in self.runs if run.record.kind == kind and bool(run.record.parent) is retries
                ]
                counts = (sum(getattr(run, name) for run in runs) for name in _COUNTS)
                if runs:
                    rows = sum(run.record.rows for run in runs)
                    lines.append(KindLine(kind, retries, len(runs), rows, *counts))
        return lines

    def sentence(self) -> Text:
        """Sum up the history in a sentence, or say why it is empty."""
        if not self.runs:
            return self.absent
        counted = ngettext("{n:,} run", "{n:,} runs", len(self.runs))
        days = ngettext("{n:,} day", "{n:,} days", len(self.days))
        text = _("{runs} in {days}, from {first} to {last}.")
        return text.format(runs=counted, days=days, first=self.days[0], last=self.days[-1])

    @property
    def simulated(self) -> bool:
        """Whether its target is a simulator."""
        return self.settings.simulated or any(run.record.simulated for run in self.runs)

    def __repr__(self) -> str:
        bad = sum(line.rows for line in self.lines)
        errcodes = sum(line.rows for line in self.lines if ERRCODE.fullmatch(line.code))
        text = _("<History of {target}: {runs} {rows} failed, {errcodes:,} with an errcode>")
        return text.format(
            target=target_name(self.target), runs=self.sentence(), rows=row_count(bad), errcodes=errcodes
        ).of(self.settings.lang)

    def _repr_html_(self) -> str:
        return str(macros(self.settings.lang).history_card(self))

    # --- parts of it ----------------------------------------------------------------------------------------------

    def _kinds(self) -> list[Kind]:
        ran = {run.record.kind for run in self.runs}
        return [kind for kind in all_kinds() if kind in ran]

    def _of_kinds(self) -> Iterator[tuple[Kind, list[HistoryLine]]]:
        """Yield each kind of which there is a run that is no retry, with its lines."""
        for kind in self._kinds():
            if any(run.record.kind == kind and not run.record.parent for run in self.runs):
                yield kind, [line for line in self.lines if line.kind == kind]

    def _by_merchant(self, kind: Kind) -> Mapping[str, Counter[date]]:
        merchants: defaultdict[str, Counter[date]] = defaultdict(Counter)
        for (of_kind, appid, _env), days in self._rows.items():
            if of_kind == kind:
                merchants[appid].update(days)
        return merchants

    def _verdict(self, kind: Kind) -> Text:
        runs = [run for run in self.runs if run.record.kind == kind and not run.record.parent]
        good, bad, pending = (sum(getattr(run, name) for run in runs) for name in _COUNTS)
        counted = ngettext("{n:,} run", "{n:,} runs", len(runs))
        if bad:
            days = len({run.day for run in runs if run.not_succeeded})
            text = _("{runs}: {bad:,} of {rows} did not succeed, on {days}.")
            on = ngettext("{n:,} day", "{n:,} days", days)
            sentence = text.format(runs=counted, bad=bad, rows=row_count(good + bad + pending), days=on)
        elif pending:
            text = _("{runs}: of {rows}, every one that has ended succeeded.")
            sentence = text.format(runs=counted, rows=row_count(good + pending))
        else:
            sentence = _("{runs}: all {rows} succeeded.", runs=counted, rows=row_count(good))
        waiting = ngettext("{n:,} row is pending.", "{n:,} rows are pending.", pending)
        return as_sentences((sentence, waiting)) if pending else sentence

    def _answer(
        self,
        caption: Text,
        names: tuple[str, ...],
        lines: Sequence[Any],
        sections: Sequence[KindSection],
        card: str,
        nothing: Text = _ONLY_RETRIES,
        header: str = "",
    ) -> Answer:
        if not sections:
            caption = nothing if self.runs else self.absent
        return Answer(caption, names, tuple(lines), tuple(sections), self, card, header)

    def _merchants_file(self) -> Any:
        """Return the merchants of the settings' file; None if it cannot be read."""
        with suppress(UsageError):
            return merchants_for("", {"settings": self.settings})
        return None

    def _headers(self) -> list[str]:
        return [*dict.fromkeys(header for run in self._with_list() for header in run.record.headers)]

    def _with_list(self) -> list[HistoryRun]:
        return [run for run in self.runs if not run.record.parent and not run.record.kind.of_merchants]

    def _add_cells(self, counted: _Values, kind: Kind, column: str) -> None:
        for run in self._with_list():
            headers = [fold(header) for header in run.record.headers]
            if self._ledger is None or run.record.kind != kind or fold(column) not in headers:
                continue
            appids = {each.number: each.appid for each in self._ledger.envs(run.record)}
            for cell, place, outcome, rows in by_cell(self._ledger, run.record, headers.index(fold(column))):
                bad = 0 if Outcome(outcome).succeeded else int(rows)
                counted.add(cell or "", appids[place], int(rows), bad)

    def _no_column(self, column: str, of_file: Iterable[str]) -> Text:
        sentences = [_("There is no column {column}.", column=column) if column else _("Name a column.")]
        for text, headers in (
            (_("Columns of the merchants file: {names}."), [*of_file]),
            (_("Columns of the lists: {names}."), self._headers()),
        ):
            if headers:
                sentences.append(text.format(names=as_list(headers, 12)))
        return as_sentences(sentences)


class _Values:
    """Rows by the values of a column, while they are counted."""

    def __init__(self) -> None:
        self._rows, self._bad = Counter[str](), Counter[str]()
        self._appids: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, value: str, appid: str, rows: int, bad: int) -> None:
        """Count rows with a value, `bad` of which did not succeed."""
        self._rows[value] += rows
        self._bad[value] += bad
        self._appids[value].add(appid)

    def lines(self, kind: Kind) -> list[ValueLine]:
        """Return the values, most rows that did not succeed first."""
        lines = [
            ValueLine(value, kind, len(self._appids[value]), rows, self._bad[value])
            for value, rows in self._rows.items()
        ]
        return sorted(lines, key=lambda line: (-line.not_succeeded, -line.rows, line.value))


# --- reading it --------------------------------------------------------------------------------------------------


@checked
def history(
    days: int = DAYS, *, kind: str = ANY_KIND, until: str = "today", **options: Unpack[TargetOptions]
) -> History:
    """Sum up the runs of `target`, else the settings' own, over some days: how rows ended, by kind, code, merchant and day.

    `kind`: links, upload, audit, confirm, delete or undo; any: all of them, each counted apart. `until` is the last of the days:
    a date such as 2026-10-30, today, or latest, the day of the newest run.
    """
    settings = settings_for(options)
    check_count("days", days, least=1)
    check_value("days", days, days <= _MOST_DAYS, _("at most {most:,}", most=_MOST_DAYS))
    names = [*kind_names(), ANY_KIND]
    check_value("kind", kind, kind in names, as_list(names))
    ledger, now = existing_ledger(settings), time.time()
    if until == "latest":
        records = ledger.runs(settings.run_target, damaged=[]) if ledger is not None else []
        now = max((run.created_at for run in records if kind in {ANY_KIND, run.kind}), default=now)
    elif until != "today":
        try:
            now = datetime.fromisoformat(until).replace(tzinfo=settings.zone).timestamp()
        except (ValueError, OverflowError):
            valid = _("today, latest or a date such as 2026-10-30")
            raise ArgumentError("until", until, valid, shown=True) from None
    return read_history(ledger, settings, kind=kind, days=days, now=now)


def read_history(
    ledger: LedgerReader | None, settings: Settings, *, kind: str = ANY_KIND, days: int = DAYS, now: float
) -> History:
    """Sum up the runs of the settings' target over the last `days` days, today included; without a `ledger` there are none."""
    target, zone = settings.run_target, settings.zone
    today = datetime.fromtimestamp(now, zone).date()
    span = tuple(today - timedelta(days=back) for back in range(max(days, 1) - 1, -1, -1))
    runs: list[HistoryRun] = []
    counted: Counter[tuple[date, Kind, str, str, str, str]] = Counter()
    ended: defaultdict[tuple[Kind, str, str], Counter[date]] = defaultdict(Counter)
    damaged: list[LedgerDamagedError] = []
    unknown = 0
    absent = NOTHING
    if ledger is not None:
        with ledger.snapshot() as reader:
            for record in reader.runs(target, damaged=damaged):
                day = datetime.fromtimestamp(record.created_at, zone).date()
                if kind not in {ANY_KIND, record.kind} or not span[0] <= day <= today:
                    continue
                if isinstance(record.kind, MissingKind):
                    unknown += 1
                    continue
                sums = Counter[str]()
                for tally in reader.tallies(record):
                    outcome = tally.outcome
                    name = "succeeded" if outcome.succeeded else "not_succeeded"
                    sums["pending" if outcome is Outcome.PENDING else name] += tally.rows
                    if outcome is Outcome.PENDING or record.parent:
                        continue
                    ended[record.kind, tally.appid, tally.env][day] += tally.rows
                    if not outcome.succeeded:
                        code = _code_of(outcome, tally.reason or "", tally.errcode, tally.store_code)
                        counted[day, record.kind, tally.merchant, tally.appid, tally.env, code] += tally.rows
                runs.append(HistoryRun(record, day, *(sums[count] for count in _COUNTS)))
            if not runs:
                absent = _why_absent(reader, settings, kind, span)
    lines = [HistoryLine(*key, rows) for key, rows in counted.items()]
    lines.sort(key=lambda one: (one.day, one.kind, -one.rows, one.merchant, one.appid, one.env, one.code))
    left_out = ngettext(
        "{n:,} run is left out: its record is damaged, or its kind is not installed.",
        "{n:,} runs are left out: their records are damaged, or their kinds are not installed.",
        len(damaged) + unknown,
    )
    notes = (left_out,) if damaged or unknown else ()
    if ledger is None:
        text = _("There is no ledger {ledger} yet: the first run makes it. To read another, name its file.")
        absent = text.format(ledger=settings.ledger_name)
    return History(span, tuple(runs), tuple(lines), target, settings, absent, notes, ledger, ended)


def _why_absent(ledger: LedgerReader, settings: Settings, kind: str, span: Sequence[date]) -> Text:
    target, others = settings.run_target, Counter(run.target for run in ledger.runs(damaged=[]))
    same = [run for run in ledger.runs(target, damaged=[]) if kind in {ANY_KIND, run.kind}]
    if same:
        text = _(
            'No run to {target} from {first} to {last}. The newest is of {day}: until = "{day}" shows it.'
        )
        day = datetime.fromtimestamp(same[0].created_at, settings.zone).date()
        return text.format(target=target_name(target), first=span[0], last=span[-1], day=day)
    if others.keys() - {target}:
        runs = ngettext("{n:,} run", "{n:,} runs", others.total() - others[target])
        text = _(
            "No run to {target} in the ledger {name}. It has {runs} to {others}: set the target to see more."
        )
        listed = as_list((target_name(name) for name, _runs in others.most_common() if name != target), 3)
        return text.format(target=target_name(target), name=settings.ledger_name, runs=runs, others=listed)
    if others:
        return _("No run of this kind to {target} yet.", target=target_name(target))
    return _("{ledger} has no run yet.", ledger=settings.ledger_name)


@cache
def _meaning(code: str) -> Text:
    """Return the label of a code, or its meaning in a language in which the code is clear without a label."""
    texts = texts_of(code)
    return Bilingual(*(texts.label.of(lang) or texts.meaning.of(lang) for lang in (Lang.EN, Lang.ZH)))


def _code_of(outcome: str, reason: str, errcode: int | None, store_code: str) -> str:
    cause = why(Outcome(outcome), Reason(reason) if reason else None, errcode, store_code)
    return "" if cause is None else cause.code
