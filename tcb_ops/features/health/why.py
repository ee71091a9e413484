"""The public function of `why`: the causes of a run, or of a merchant, each asked about and judged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Unpack

from tcb_ops.arguments import checked
from tcb_ops.catalogue import COMPONENT_MARK
from tcb_ops.engine.loop import result_of, submit_coroutine
from tcb_ops.errors import RunNotFoundError, UsageError
from tcb_ops.features.health.interfaces import ReceivedRequest
from tcb_ops.features.health.questions import ask_about
from tcb_ops.features.health.verdicts import Answers, Facts, Verdict, grouped, verdict_of
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, _, as_list, in_python
from tcb_ops.kinds import row_count
from tcb_ops.ledger.records import RowRecord
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Merchant, Outcome, Reason, target_name
from tcb_ops.reports.explanations import answered_at, why_of
from tcb_ops.run import Run, has_code
from tcb_ops.settings import Settings, default_lang
from tcb_ops.start import (
    TargetOptions,
    existing_ledger,
    find_run,
    ledger_with_runs,
    opened_target,
    settings_for,
)

_SKIPPED = frozenset({str(Outcome.PENDING), str(Reason.MERCHANT_LEFT)})
"""Codes about which there is nothing to ask."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A line or a row to ask about, and the rows and merchants for which it stands."""

    facts: Facts
    names: tuple[str, ...]
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Diagnosis(Sample):
    """A cause: the verdict about a sample, with what WeChat answered, and for how many rows and merchants it stands."""

    verdict: Verdict = field(kw_only=True)

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return all fields, for JSON and data frames."""
        line = self.facts.merchant
        return {
            "rows": self.rows,
            "merchants": len(self.names),
            "rid": self.facts.rid,
            "appid": line.appid,
            "merchant": line.name,
            "env": line.env,
            **self.verdict.as_dict(lang),
        }

    def redacted(self) -> dict[str, Any]:
        """Return what can be handed on, also as a fault of a simulator: no names, tokens, links and contents."""
        names = ("rows", "rid", "code", "errcode", "errmsg", "cause", "who", "proven", "not_asked")
        about, request = self.as_dict(Lang.EN), self.facts.answers.request
        fault = {"env": "*", "errcode": about["errcode"], "errmsg": about["errmsg"] or about["code"]}
        return {name: about[name] for name in names} | {
            "received": asdict(request) if isinstance(request, ReceivedRequest) else None,
            "fault": fault if about["errcode"] else None,
        }


_COLUMNS = (
    *("rows", "code", "cause", "who", "proven", "meaning", "action", "evidence", "message"),
    *("errmsg", "rid", "appid", "merchant", "env"),
)


class Diagnoses(list[Diagnosis], Tabular):
    """The causes of a run, most rows first: a line for each, also of the `frame`."""

    def __repr__(self) -> str:
        lang = default_lang()
        text = _("{code} · {rows} · {names}: {meaning} → {who}: {action}")
        lines = []
        for each in self:
            cause, rows, names = each.verdict, row_count(each.rows), as_list(each.names, 3)
            told = {"meaning": cause.meaning, "who": cause.who_acts, "action": cause.action}
            lines.append(text.format(code=cause.code, rows=rows, names=names, **told).of(lang))
        return "\n".join(lines) or _("Nothing is wrong.").of(lang)

    def _repr_html_(self) -> str:
        from tcb_ops.reports.cards import CauseGroup, groups_html

        lang, groups = default_lang(), []
        for each in self:
            cause, rows = each.verdict, row_count(each.rows)
            meaning, action, who = (
                in_python(text, lang) for text in (cause.meaning, cause.action, cause.who_acts)
            )
            groups.append(CauseGroup(cause.code, rows, meaning, action, who, [*each.names]))
        return groups_html(_("Who must act") if groups else _("Nothing is wrong."), groups, lang)

    def _table(self, lang: Lang) -> Lines:
        lines = []
        for each in self:
            evidence = "\n".join(line.of(lang) for line in each.verdict.lines())
            facts = each.as_dict(lang) | {"evidence": evidence}
            lines.append([facts[name] for name in _COLUMNS])
        return Lines(_("Who must act"), _COLUMNS, lines, len(lines))


@checked
def why(subject: str | Run = "latest", *, every: bool = False, **options: Unpack[TargetOptions]) -> Diagnoses:
    """Ask WeChat why rows did not succeed, and return who must act.

    `subject`: a run (its id, `latest`, or RUN:LINE for one row), an environment, an appid or a merchant's name. Rows that
    retries or corrections of a run have completed are left out.
    `every`: ask about every merchant of each cause instead of one. At most five calls for each; nothing is changed.
    Verdicts of a run are kept in its ledger for its report. Raises UsageError, also for a run of another target.
    """
    settings = settings_for(options, subject)
    run, samples, merchants = subject_of(subject, settings, every=every)
    with opened_target(settings, lambda: merchants) as opened:
        return diagnose(run, samples, merchants, opened, time.time())


def why_code(run: Run, code: str, settings: Settings) -> Diagnoses:
    """Ask WeChat about a merchant's rows that ended with a code, as `why` does."""
    merchants = list(read_merchants(settings.merchants)) if settings.merchants.exists() else []
    samples = list(_samples(run, 0, merchants, settings, every=False, only_code=code))
    with opened_target(settings, lambda: merchants) as opened:
        return diagnose(run, samples, merchants, opened, time.time())


def subject_of(
    subject: str | Run,
    settings: Settings,
    *,
    every: bool = False,
    only: Sequence[Merchant] | None = None,
    code: str = "",
) -> tuple[Run | None, list[Sample], list[Merchant]]:
    """Return the run, if it is one, what to ask about, and the merchants.

    `only`, `code`: a run is narrowed to these merchants, and to its rows with this code. Raises UsageError if nothing fits, or
    several do.
    """
    merchants = list(read_merchants(settings.merchants)) if settings.merchants.exists() else []
    run: Run | None = subject if isinstance(subject, Run) else None
    line, missing = 0, None
    if isinstance(subject, str):
        name, _colon, number = subject.rpartition(":")
        line = int(number) if name and number.isdecimal() else 0
        try:
            run = find_run(name if line else subject, settings)
        except RunNotFoundError as error:
            missing = error
    lines = [each for each in merchants if subject in {each.env, each.appid, each.name} and not each.left]
    hits = [_("run {id}", id=run.id)] if run is not None else []
    hits += dict.fromkeys(_("merchant {name} ({appid})", name=m.name, appid=m.appid) for m in lines)
    if len(hits) > 1:
        fix = _("Give a run's id, or an environment or appid that only one of them has.")
        raise UsageError(_("{subject} means several: {hits}.", subject=str(subject), hits=as_list(hits)), fix)
    if missing is not None and not lines:
        text = _("{subject} is no run, environment, appid or merchant's name.", subject=str(subject))
        if subject == "latest":
            text = _("There is no run to ask about. To ask about a merchant, give its name, appid or env.")
        raise UsageError(text, missing.text)
    if run is None:
        return None, [Sample(Facts(merchant=each), (each.name,)) for each in lines], merchants
    if not (line or run.record.parent or run.record.corrects):
        run = run.final()
    run = run if only is None else run.of_merchants(only)
    samples = _samples(run, line, merchants, settings, every=every, only_code=code)
    return run, list(samples), merchants


def _samples(
    run: Run,
    line: int,
    merchants: Sequence[Merchant],
    settings: Settings,
    *,
    every: bool,
    only_code: str = "",
) -> Iterator[Sample]:
    """Yield what to ask about a run: an environment of each code (or `only_code`), or every one; or a row. Raises UsageError."""
    target = run.record.target
    if target != settings.run_target:
        text = _("Run {id} was sent to {target}, not to {asked}.")
        text = text.format(id=run.id, target=target_name(target), asked=target_name(settings.run_target))
        raise UsageError(text, _("Ask its own target: {--target:{target}}", target=target))
    records: list[tuple[str, RowRecord, int, tuple[str, ...]]]
    in_file = {(each.appid, each.env): each for each in merchants}
    if line:
        record = next(run.rows(line=line), None)
        if record is None:
            raise UsageError(_("Run {id} has no line {line}.", id=run.id, line=line))
        cause = why_of(record.end)
        records = [] if cause is None else [(cause.code, record, 1, (record.row.merchant,))]
    else:
        unsent, tallies = next(run.rows(outcomes=frozenset({Outcome.PENDING})), None), run.tallies()
        if run.record.stopped is not None and unsent is not None and not only_code:
            merchant = Merchant(unsent.row.appid, unsent.row.merchant, unsent.row.env)
            code = str(run.record.stopped.params.get("errcode", ""))
            facts = Facts(merchant=merchant, code=code, path=unsent.row.path)
            yield Sample(facts, (merchant.name,), run.outcomes[Outcome.PENDING])
        asked = [
            group
            for group in run.overview().codes
            if group.code not in _SKIPPED and only_code in {"", group.code}
        ]
        records, most = [], None if every else 1
        shares = [(group, share) for group in asked for share in group.merchants[:most]]
        for group, share in shares:
            its = [tally for tally in tallies if tally.appid == share.appid and has_code(tally, group.code)]
            for env in list(dict.fromkeys(tally.env for tally in its))[:most]:
                of_env = [tally for tally in its if tally.env == env]
                page, _count = run.page(code=group.code, appid=share.appid, limit=1, tallies=of_env)
                rows, names = group.rows, tuple(each.merchant for each in group.merchants)
                if every:
                    rows, names = sum(tally.rows for tally in of_env), (share.merchant,)
                records += [(group.code, record, rows, names) for record in page]
    received = _kept(run, settings).get("received", {})
    for code, record, rows, names in records:
        row, end = record.row, record.end
        merchant = in_file.get((row.appid, row.env)) or Merchant(row.appid, row.merchant, row.env)
        answers = Answers()
        if (request := received.get(end.rid)) is not None:
            answers = Answers(request=ReceivedRequest(**request | {"fields": tuple(request["fields"])}))
        facts = Facts(
            merchant=merchant,
            answers=answers,
            code=code.removesuffix(COMPONENT_MARK),
            path=row.path,
            about_component=code.endswith(COMPONENT_MARK),
            errmsg=end.errmsg,
            rid=end.rid,
            ended_at=end.ended_at or 0.0,
        )
        yield Sample(facts, names, rows)


def diagnose(
    run: Run | None, samples: Sequence[Sample], merchants: Sequence[Merchant], settings: Settings, now: float
) -> Diagnoses:
    """Ask an opened target about the samples and judge its answers; what was found of a run is kept in its ledger."""
    return summed_up(run, judge(samples, merchants, settings, now), settings)


def summed_up(run: Run | None, judged: Sequence[Diagnosis], settings: Settings) -> Diagnoses:
    """Return one diagnosis for each verdict, of what was asked just now; that of a run is kept in its ledger."""
    diagnoses, asked_at = Diagnoses(), time.time()
    for verdict, members in grouped((each.verdict, each) for each in judged):
        names = dict.fromkeys(name for sample in members for name in sample.names)
        rows = sum(sample.rows for sample in members)
        diagnoses.append(
            Diagnosis(members[0].facts, tuple(names), rows, verdict=replace(verdict, at=asked_at))
        )
    diagnoses.sort(key=lambda each: (-each.rows, each.verdict.code))
    if run is not None:
        _keep(run, diagnoses, [each.facts for each in judged], settings)
    return diagnoses


def judge(
    samples: Sequence[Sample], merchants: Sequence[Merchant], settings: Settings, now: float
) -> list[Diagnosis]:
    """Ask an opened target about the samples; return what each suffers from. Where nothing is wrong, there is none.

    `now`: Unix seconds, for the age of the rows' rids.
    """
    questions = [sample.facts for sample in samples]
    answered = result_of(submit_coroutine(ask_about(questions, merchants, settings, now=now)))
    asked = existing.asked(settings.run_target) if (existing := existing_ledger(settings)) else {}
    return [
        Diagnosis(facts, sample.names, sample.rows, verdict=verdict.reminded(asked))
        for sample, facts in zip(samples, answered, strict=True)
        if (verdict := verdict_of(facts)) is not None
    ]


# --- what the ledger keeps ---------------------------------------------------------------------------------------


def _keep(run: Run, diagnoses: Sequence[Diagnosis], answered: Sequence[Facts], settings: Settings) -> None:
    """Keep the verdicts in the run's ledger, and the answers; an earlier verdict about more rows of a code stays while it holds."""
    ledger = ledger_with_runs(settings)
    last = answered_at(ledger, run.record)
    kept = _kept(run, settings).get("verdicts", [])
    earlier = [line for line in kept if line.get("at", 0.0) >= last.get(line["code"], 0.0)]
    lines = [each.verdict.to_json() | {"rows": each.rows} for each in diagnoses]
    more = Counter[str]()
    for line in earlier:
        more[line["code"]] += line["rows"]
    for line in lines:
        more[line["code"]] -= line["rows"]
    verdicts = [line for line in earlier if more[line["code"]] > 0]
    verdicts += [line for line in lines if more[line["code"]] <= 0]
    received = _kept(run, settings).get("received", {})
    for facts in answered:
        if isinstance(request := facts.answers.request, ReceivedRequest):
            received[facts.rid] = asdict(request)
    ledger.keep_answers(run.record, {"verdicts": verdicts, "received": received})


def _kept(run: Run, settings: Settings) -> Mapping[str, Any]:
    """Return what the ledger keeps of questions about a run now."""
    return ledger_with_runs(settings).run(run.id).answers
