"""The public function of `why`: the causes of a run, or of a merchant, each asked about and judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Unpack

from tcb_ops.arguments import checked
from tcb_ops.errors import RunNotFoundError, UsageError
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, _, as_list
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Merchant, Outcome, Reason, RowEnd
from tcb_ops.reports.explanations import COMPONENT_MARK
from tcb_ops.reports.explanations import why as cause_of_row
from tcb_ops.run import Run
from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.runs.single_calls import Probes
from tcb_ops.runs.verdicts import Answers, Facts, Verdict, appids_by_env, verdict_of
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, find_run, opened_target, settings_for
from tcb_ops.wechat import open_client
from tcb_ops.wechat.call_policy import CallLimits
from tcb_ops.wechat.responses import ReceivedRequest
from tcb_ops.wechat.transport import uses_proxy

AT_ONCE = 32
"""Samples asked about at the same time."""
_UNSENT = frozenset({Outcome.PENDING})
_SKIPPED = frozenset({str(Outcome.PENDING), str(Reason.MERCHANT_LEFT)})
"""Codes about which there is nothing to ask."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A line to ask about, and the rows and merchants for which it stands."""

    merchant: Merchant
    names: tuple[str, ...]
    code: str = ""
    """As in errcodes.csv; empty where no row is asked about."""
    end: RowEnd | None = None
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A cause: the verdict about a sample, and for how many rows and which merchants it stands."""

    verdict: Verdict
    sample: Sample
    answers: Answers

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return all fields, for JSON and data frames."""
        line, end = self.sample.merchant, self.sample.end
        about = {"rows": self.sample.rows, "merchants": len(self.sample.names), "rid": end.rid if end else ""}
        return (
            about | {"appid": line.appid, "merchant": line.name, "env": line.env} | self.verdict.as_dict(lang)
        )

    def redacted(self) -> dict[str, Any]:
        """Return what can be handed on, also as a fault of a simulator: no names, tokens, links and contents."""
        kept = ("rows", "rid", "code", "errcode", "errmsg", "cause", "who", "proven", "not_asked")
        about, request = self.as_dict(Lang.EN), self.answers.request
        fault = {"env": "*", "errcode": about["errcode"], "errmsg": about["errmsg"] or about["code"]}
        return {name: about[name] for name in kept} | {
            "received": asdict(request) if isinstance(request, ReceivedRequest) else None,
            "fault": fault if about["errcode"] else None,
        }


_COLUMNS = (
    *("rows", "code", "cause", "who", "meaning", "action", "evidence", "message"),
    *("errmsg", "rid", "appid", "merchant", "env"),
)


class Diagnoses(list[Diagnosis], Tabular):
    """The causes of a run, most rows first; `frame` has a line for each."""

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

    `subject`: a run (its id, `latest`, or RUN:LINE for one row), an environment, an appid or a merchant's name.
    `every`: ask about every merchant of each cause instead of one. At most five calls for each; nothing is changed.
    Verdicts of a run are kept in its ledger for its report. Raises UsageError, also for a run of another target.
    """
    settings = settings_for(options, subject)
    run, samples, merchants = subject_of(subject, settings, every=every)
    with opened_target(settings, lambda: merchants) as opened:
        return diagnose(run, samples, merchants, opened)


def subject_of(
    subject: str | Run, settings: Settings, *, every: bool = False, only: Sequence[Merchant] | None = None
) -> tuple[Run | None, list[Sample], list[Merchant]]:
    """Return the run, if it is one, what to ask about, and the merchants; `only`: a run is narrowed to these.

    Raises UsageError if nothing fits, or several do.
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
    if missing is not None and not lines and subject == "latest":
        raise UsageError(
            missing.text, _("To ask about a merchant without a run, give its name, appid or env.")
        )
    if run is None and not lines:
        text = _("{subject} is no run, environment, appid or merchant's name.", subject=str(subject))
        raise UsageError(text, missing.text if missing is not None else None)
    if run is None:
        return None, [Sample(each, (each.name,)) for each in lines], merchants
    run = run if only is None else run.of_merchants(only)
    return run, list(_samples(run, line, merchants, settings, every=every)), merchants


def _samples(
    run: Run, line: int, merchants: Sequence[Merchant], settings: Settings, *, every: bool
) -> Iterator[Sample]:
    """Yield what to ask about a run: a merchant of each code, or every one; or a row. Raises UsageError."""
    target = run.record.target
    if target != settings.run_target:
        text = _(
            "run {id} was sent to {target}, not to {asked}.",
            id=run.id,
            target=target,
            asked=settings.run_target,
        )
        raise UsageError(text, _("Ask its own target: --target {target}", target=target))
    unsent = next(run.rows(outcomes=_UNSENT), None)
    if run.record.stopped is not None and unsent is not None:
        code = run.record.stopped.params.get("errcode", "")
        merchant = Merchant(unsent.row.appid, unsent.row.merchant, unsent.row.env)
        yield Sample(merchant, (merchant.name,), str(code), None, run.outcomes[Outcome.PENDING])
    in_file, tallies = {(each.appid, each.env): each for each in merchants}, run.tallies()
    groups = [(group, group.merchants if every else group.merchants[:1]) for group in run.overview().codes]
    shares = [(group, share) for group, some in groups for share in some if group.code not in _SKIPPED]
    records = [
        (group.code, record, share.rows if every else group.rows, [share] if every else group.merchants)
        for group, share in shares
        for record in run.page(code=group.code, appid=share.appid, limit=1, tallies=tallies)[0]
    ]
    if line:
        record = next(run.rows(line=line), None)
        if record is None:
            raise UsageError(_("run {id} has no line {line}.", id=run.id, line=line))
        end = record.end
        cause = cause_of_row(
            end.outcome, end.reason, end.errcode, end.store_code, http_status=end.http_status
        )
        records = [(cause.code, record, 1, [])] if cause is not None else []
    for code, record, rows, stands_for in records:
        row = record.row
        merchant = in_file.get((row.appid, row.env)) or Merchant(row.appid, row.merchant, row.env)
        names = tuple(share.merchant for share in stands_for) or (row.merchant,)
        yield Sample(merchant, names, code, record.end, rows)


def diagnose(
    run: Run | None, samples: Sequence[Sample], merchants: Sequence[Merchant], settings: Settings
) -> Diagnoses:
    """Ask an opened target about the samples and judge its answers; verdicts about a run are kept in its ledger."""
    diagnoses = Diagnoses(_merged(submit_coroutine(_ask(samples, merchants, settings)).result()))
    if run is not None:
        run.keep_verdicts([each.verdict.to_json() | {"rows": each.sample.rows} for each in diagnoses])
    return diagnoses


async def _ask(
    samples: Sequence[Sample], merchants: Sequence[Merchant], settings: Settings
) -> list[Diagnosis]:
    appids, proxied, room = (
        appids_by_env(merchants),
        uses_proxy(settings.api_base),
        asyncio.Semaphore(AT_ONCE),
    )
    async with open_client(settings, connections=2 * AT_ONCE, limits=CallLimits(attempts=1)) as opened:
        client, caller = opened
        probes = Probes(caller, client, settings.tokens.component_appid)

        async def about(sample: Sample) -> tuple[Sample, Answers, Verdict | None]:
            end = sample.end
            async with room:
                answers = await probes.about(sample.merchant, end, time.time())
            facts = Facts(
                merchant=sample.merchant,
                answers=answers,
                code=sample.code.removesuffix(COMPONENT_MARK),
                about_component=sample.code.endswith(COMPONENT_MARK),
                errmsg=end.errmsg if end is not None else "",
                rid=end.rid if end is not None else "",
                appids=appids,
                proxied=proxied,
            )
            return sample, answers, verdict_of(facts)

        judged = await asyncio.gather(*map(about, samples))
    return [Diagnosis(verdict, sample, answers) for sample, answers, verdict in judged if verdict is not None]


def _merged(diagnoses: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return each cause once, most rows first; the first merchant that was asked about stands for the others."""
    merged: dict[tuple[str, str], Diagnosis] = {}
    for diagnosis in diagnoses:
        key, sample = (diagnosis.verdict.code, diagnosis.verdict.cause), diagnosis.sample
        before = merged.setdefault(key, diagnosis)
        if before is not diagnosis:
            names = tuple(dict.fromkeys((*before.sample.names, *sample.names)))
            total = replace(before.sample, names=names, rows=before.sample.rows + sample.rows)
            merged[key] = replace(before, sample=total)
    return sorted(merged.values(), key=lambda each: (-each.sample.rows, each.verdict.code))
