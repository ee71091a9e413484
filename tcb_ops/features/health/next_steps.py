"""What a person should do now at a target, the most urgent first. The ledger tells it; nobody is asked."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Unpack

from tcb_ops.arguments import checked
from tcb_ops.engine import next_commands
from tcb_ops.engine.plan import Choice, choose, undone_uploads
from tcb_ops.features.health import HEALTHY
from tcb_ops.features.health.audit import audited, newest_audit
from tcb_ops.features.health.open_rows import OpenRows, lies_in_merchant, open_rows, retries_of
from tcb_ops.features.health.remedies import remedy_of
from tcb_ops.features.health.verdicts import presumed
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import CommandText, Lang, Text, _, as_list, in_python, ngettext
from tcb_ops.kinds import MissingKind
from tcb_ops.ledger.records import RunRecord, Tally, count_outcomes
from tcb_ops.model import Outcome, Reason, target_name
from tcb_ops.reports.explanations import run_title, why
from tcb_ops.run import Run
from tcb_ops.settings import Settings, default_lang
from tcb_ops.shell import as_call
from tcb_ops.start import TargetOptions, existing_ledger, merchants_for, settings_for

if TYPE_CHECKING:
    from tcb_ops.features.health.audit_result import AuditResult
    from tcb_ops.ledger.ledger import Ledger
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.reports.summary import Cause

_NAMES = 3
"""Merchants and codes that a step names."""
_COLUMNS = ("step", "text", "run", "rows", "merchants", "command")


class StepCode(Enum):
    """What a step is about, the most urgent first: as a string the name, in small letters."""

    RESUME = _("{title}. {verdict}")
    READY = _("Asked and ready: {names}. {rows} can run again.")
    GONE = _("{title}: the cause of {rows} has gone. The newest audit found {names} healthy.")
    NEWLY_BROKEN = _("Newly broken: {rows} ({names}).")
    UNDELIVERED = _("The message about audit {id} was not delivered to {receivers}.")
    FIX = _("{title}: {rows} did not succeed ({codes}).")
    WAITING = _("{title}: {rows} can run again when the merchants that were asked have confirmed ({names}).")
    OLDER = _("Unfinished for over a day: {runs}.")
    NOT_INSTALLED = _(
        "Run {id} is unfinished, and runs of its kind ({kind}) are not installed here: install all of tcb-ops, then resume it."
    )

    def __str__(self) -> str:
        return self.name.lower()


def step_of_run(choice: Choice, *, over: bool, held: bool, missing: bool) -> StepCode | None:
    """Return the step about an unfinished run; None if there is none.

    `choice`: what the same command does about it; `missing`: whether its kind is not installed.

    ==========================================  =========  ======  =======  =============
    its rows                                    worked on  choice  missing  step
    ==========================================  =========  ======  =======  =============
    were run again since, or were taken back    any        any     any      none
    any other                                   yes        any     any      none
    any other                                   no         resume  no       RESUME
    any other                                   no         resume  yes      NOT_INSTALLED
    any other                                   no         ask     any      OLDER
    any other                                   no         new     any      none
    ==========================================  =========  ======  =======  =============
    """
    if over or held:
        return None
    if missing and choice == "resume":
        return StepCode.NOT_INSTALLED
    return {"resume": StepCode.RESUME, "ask": StepCode.OLDER}.get(choice)


def step_of_rows(*, of_merchant: bool, healthy: bool, asked: bool) -> StepCode:
    """Return the step about rows that did not succeed.

    =================================  ==================  ==============  =======
    the cause lies in                  an audit since      merchant asked  step
    =================================  ==================  ==============  =======
    the row, the machine, the target   any                 any             FIX
    the merchant, the environment      finds it healthy    any             GONE
    the merchant, the environment      does not, or none   yes             WAITING
    the merchant, the environment      does not, or none   no              FIX
    =================================  ==================  ==============  =======
    """
    if of_merchant and healthy:
        return StepCode.GONE
    return StepCode.WAITING if of_merchant and asked else StepCode.FIX


@dataclass(frozen=True, slots=True)
class StepToTake:
    """A step: why, and the command that does it."""

    step: StepCode
    text: Text
    command: CommandText
    run: str
    """The id of the run that it is about; empty for several."""
    rows: int
    """Of an audit: environments."""
    merchants: int

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return the object for `--json`."""
        facts = {name: getattr(self, name) for name in _COLUMNS}
        return facts | {"step": str(self.step), "text": self.text.of(lang), "run": self.run or None}


class NextSteps(list[StepToTake], Tabular):
    """What a person should do now, the most urgent first: a line for each, also of the `frame`."""

    def __init__(self, steps: Iterable[StepToTake], target: str) -> None:
        super().__init__(sorted(steps, key=lambda each: [*StepCode].index(each.step)))
        text = _("To do now for {target}, the most urgent first:")
        if not self:
            text = _(
                "Nothing to do for {target}: every run is finished, no row is left to run again, and nothing is newly broken."
            )
        self.title = text.format(target=target_name(target))

    def _calls(self, lang: Lang) -> list[tuple[str, str]]:
        return [(in_python(each.text, lang), as_call(each.command)) for each in self]

    def __repr__(self) -> str:
        lang = default_lang()
        return "\n".join((self.title.of(lang), *map(" → ".join, self._calls(lang))))

    def _repr_html_(self) -> str:
        from tcb_ops.reports.cards import steps_html

        lang = default_lang()
        return steps_html(self.title, self._calls(lang), lang)

    def _table(self, lang: Lang) -> Lines:
        lines = [tuple(each.as_dict(lang).values()) for each in self]
        return Lines(self.title, _COLUMNS, lines, len(lines))


@checked
def next_steps(*, where: str | Sequence[str] = "", **options: Unpack[TargetOptions]) -> NextSteps:
    """Return what a person should do now at `target`, else the settings' own, the most urgent first.

    Each step has its `text` and the `command` that does it: unfinished runs, merchants that were asked and are ready, rows whose
    cause has gone, what the newest audit found newly broken, messages that were not delivered, and other rows of the latest upload
    or links run that did not succeed. `where`: only merchants that match, as in `read_merchants`. Nothing is asked or sent.
    """
    settings = settings_for(options)
    ledger = existing_ledger(settings)
    merchants = merchants_for("", {"settings": settings}, where) if where else None
    steps = [] if ledger is None else _Reading(ledger, settings, merchants).steps(time.time())
    return NextSteps(steps, settings.run_target)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is read of a ledger. `merchants`: only their rows; None: all."""

    ledger: Ledger
    settings: Settings
    merchants: Merchants | None

    def steps(self, now: float) -> list[StepToTake]:
        records = self.ledger.runs(self.settings.run_target, damaged=[])
        undone = undone_uploads(self.ledger, self.settings)
        steps, under_way = self._of_unfinished(records, undone, now)
        newest = newest_audit(self.settings)
        audit = None if newest is None else self._whole(newest)
        result = None if audit is None else audited(audit)
        if result is not None:
            steps += self._of_audit(result, {each.id for each in records if each.kind.of_merchants})
        latest = next((record for record in records if record.kind.main), None)
        if latest is None:
            return steps
        run = self._whole(latest)
        if run.record.finished_at is not None and not {run.id, *run.record.retries} & (under_way | undone):
            ready = () if result is None else result.ready
            told = [tally for each in ready if each.run.id == run.id for tally in each.rows]
            steps += self._of_rows(run, audit, open_rows(told))
        return steps

    def _of_unfinished(
        self, records: Iterable[RunRecord], undone: set[str], now: float
    ) -> tuple[list[StepToTake], set[str]]:
        """Return the steps about unfinished runs, and the runs that are worked on or are to be resumed."""
        steps, older, under_way, seen = list[StepToTake](), 0, set[str](), set[object]()
        for record in records:  # the newest first
            work = (record.kind, record.list_sha256, record.root, record.selection, record.parent)
            over, missing = work in seen or record.id in undone, isinstance(record.kind, MissingKind)
            seen.add(work)
            run = self._narrowed(Run(self.ledger, record, self.settings))
            if record.finished_at is not None or not (tallies := run.tallies()):
                continue
            held = not over and run.holder() is not None
            choice = choose(record.created_at, now, record.kind, new_run=False)
            step = step_of_run(choice, over=over, held=held, missing=missing)
            older += step is StepCode.OLDER
            if held or step is StepCode.RESUME:
                under_way.add(record.id)
            if step is StepCode.RESUME:
                counts = count_outcomes(tallies)
                verdict = record.kind.verdict(counts, finished=False)
                pending = [tally for tally in tallies if tally.outcome is Outcome.PENDING]
                good = counts.keys() <= Outcome.successes() | {Outcome.PENDING}
                words = next_commands.resume(self.settings, record, canary=good)
                steps.append(_step(step, words, record, pending, verdict=verdict))
            elif step is StepCode.NOT_INSTALLED:
                words = next_commands.command(self.settings, "runs")
                steps.append(_step(step, words, record, tallies, kind=record.kind))
        if older:
            words = next_commands.command(self.settings, "runs")
            text = StepCode.OLDER.value.format(runs=ngettext("{n:,} run", "{n:,} runs", older))
            steps.append(StepToTake(StepCode.OLDER, text, next_commands.quoted(words), "", 0, 0))
        return steps, under_way

    def _of_audit(self, result: AuditResult, audits: Container[str]) -> Iterator[StepToTake]:
        record = result.run
        for ready in result.ready:
            yield _step(StepCode.READY, ready.words, ready.run, ready.rows)
        if new := [finding.cause for finding in result.new if finding.asked is None]:
            words = self._about(record, _verb(cause.code for cause in new))
            yield _step(StepCode.NEWLY_BROKEN, words, record, new)
        broken = (*result.new, *result.still)
        if waiting := [each.cause for each in broken if each.asked is not None and each.asked.run in audits]:
            yield _step(StepCode.WAITING, self._about(record, "fix"), record, waiting)
        if record.undelivered:
            from tcb_ops.features.health.notifications import receivers  # which loads HTTP

            words = next_commands.of_run(self.settings, record, "notify")
            if missed := [name for name in record.undelivered if name in receivers(self.settings)]:
                yield _step(StepCode.UNDELIVERED, words, record, (), receivers=as_list(missed, _NAMES))

    def _of_rows(self, run: Run, audit: Run | None, ready: Container[OpenRows]) -> Iterator[StepToTake]:
        """Yield the steps about a run's rows that did not succeed, without those of merchants that are ready."""
        asked = self.ledger.asked(self.settings.run_target).values()
        healthy = set() if audit is None else self._healthy_since(run, audit)
        groups = defaultdict[StepCode, list[tuple[Tally, str]]](list)
        for tally in run.tallies():
            cause = why(tally.outcome, tally.reason, tally.errcode, tally.store_code)
            if cause is None or tally.outcome is Outcome.PENDING or tally.reason is Reason.MERCHANT_LEFT:
                continue
            about = {run.id, presumed(cause.code)}
            step = step_of_rows(
                of_merchant=lies_in_merchant(tally),
                healthy=(tally.appid, tally.env) in healthy,
                asked=any(each.appid == tally.appid and about & {each.run, each.cause} for each in asked),
            )
            groups[step].append((tally, cause.code))
        gone = groups.pop(StepCode.GONE, [])
        yield from self._of_gone(run.record, [tally for tally, _code in gone], ready)
        for step, ended in groups.items():
            codes = list(dict.fromkeys(code for _tally, code in ended))
            rows = [tally for tally, _code in ended]
            words = self._about(run.record, _verb(codes))
            yield _step(step, words, run.record, rows, codes=as_list(codes, _NAMES))

    def _of_gone(
        self, run: RunRecord, gone: Iterable[Tally], ready: Container[OpenRows]
    ) -> Iterator[StepToTake]:
        """Yield the steps about a run's rows whose cause has gone."""
        gone_rows = {each: of for each, of in open_rows(gone).items() if each not in ready}
        rows = open_rows(Run(self.ledger, run, self.settings).tallies_to_retry())
        for retried in retries_of(gone_rows, rows):
            words = next_commands.retry(self.settings, run, narrow=retried.words)
            tallies = [tally for each in retried.rows for tally in gone_rows[each]]
            yield _step(StepCode.GONE, words, run, tallies)

    def _healthy_since(self, run: Run, audit: Run) -> set[tuple[str, str]]:
        """Return the environments that an audit found healthy which began after the run's last rows there, as (appid, env)."""
        ended = defaultdict[tuple[str, str], float](float)
        for member in (self.ledger.run(each) for each in (run.id, *run.record.retries)):
            for each in self.ledger.envs(member):
                place = each.appid, each.env
                ended[place] = max(ended[place], member.finished_at or math.inf)
        places = ((tally.appid, tally.env) for tally in audit.tallies() if tally.outcome is HEALTHY)
        return {place for place in places if ended[place] <= audit.record.created_at}

    def _whole(self, record: RunRecord) -> Run:
        return self._narrowed(Run(self.ledger, record, self.settings).final())

    def _narrowed(self, run: Run) -> Run:
        return run if self.merchants is None else run.of_merchants(self.merchants)

    @property
    def _where(self) -> list[str]:
        return [] if self.merchants is None else self.merchants.selection.words()

    def _about(self, run: RunRecord, verb: str) -> list[str]:
        return [*next_commands.of_run(self.settings, run, verb), *self._where]


def _step(
    step: StepCode, words: Sequence[str], run: RunRecord, of: Iterable[Tally | Cause], **values: object
) -> StepToTake:
    rows, appids, names = 0, set[str](), dict[str, None]()
    for each in of:
        rows += each.rows
        appids.add(each.appid)
        names[each.merchant or each.appid or each.env] = None
    about = {"title": run_title(run), "rows": run.kind.unit_count(rows), "names": as_list(names, _NAMES)}
    text = step.value.format(**about, id=run.id, **values)
    return StepToTake(step, text, next_commands.quoted(words), run.id, rows, len(appids))


def _verb(codes: Iterable[str]) -> str:
    """Return the command that does something about one of the codes, or that says who must."""
    return "fix" if any(remedy_of(presumed(code)).retries for code in codes) else "why"
