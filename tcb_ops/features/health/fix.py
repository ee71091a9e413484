"""Carrying out remedies: the calls about a cause of a run, what merchants are asked for, and the rows that can run again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from tcb_ops import api
from tcb_ops.catalogue import all_causes
from tcb_ops.errors import RefusedError, TcbOpsError, TransportError
from tcb_ops.features.health.open_rows import OpenRows, Retry, open_rows, retries_of
from tcb_ops.features.health.remedies import (
    CREATE_ENV,
    LOOK,
    OPEN_CLOUD,
    PREAUTH_CODE,
    Choice,
    Remedy,
    RemedyState,
    RemedyStep,
    call_of,
    decide,
    remedy_of,
)
from tcb_ops.features.health.verdicts import NORMAL, Answers, grouped, presumed, verdict_of
from tcb_ops.features.health.why import Diagnosis, Sample, judge, subject_of, summed_up
from tcb_ops.i18n import NOTHING, Lang, Text, _, as_list, as_sentences
from tcb_ops.interface_calls import call
from tcb_ops.ledger.locks import HeldError, hold, operator_name
from tcb_ops.ledger.records import LETTER, MESSAGE, Asked
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.lists.table import LIST_COLUMNS
from tcb_ops.model import Merchant, Owner, Secret
from tcb_ops.run import Run
from tcb_ops.settings import Settings
from tcb_ops.start import find_run, ledger_with_runs

SHORT = 60.0
"""Seconds that are waited for an environment to become NORMAL."""
POLL = 2.0
SYSTEM_BUSY, NO_TOKEN, ASKED_TODAY = -1, 40001, -601026
"""The errcodes that stand for no usable answer and for no token; and that of a message that was sent today already."""
Made: TypeAlias = dict[tuple[object, ...], tuple[RemedyState, Text, int]]
"""What became of the calls that change something, by appid, interface and body: none is made twice for an account."""
LINK = "https://mp.weixin.qq.com/safe/bindcomponent?action=bindcomponent&no_scan=1&auth_type=2&{query}#wechat_redirect"
"""The authorization link that is opened in WeChat (Authorization_Process_Technical_Description)."""


@dataclass(slots=True)
class Treatment:
    """What is done about a cause at one merchant."""

    diagnosis: Diagnosis
    env: str
    """Where its rows belong: another environment than theirs once one was chosen or created."""
    state: RemedyState | None = None
    """None: nothing was done yet."""
    said: Text = NOTHING
    """What WeChat answered, or what is left to do."""
    errcode: int = 0
    """Of the last call."""
    is_new: bool = False
    """Whether the environment was created or found just now, so that it is waited for."""
    link: Secret | None = None
    """By which the merchant authorizes the platform; it lasts ten minutes."""

    @property
    def remedy(self) -> Remedy:
        """What can be done."""
        return remedy_of(self.diagnosis.verdict.cause)

    @property
    def merchant(self) -> Merchant:
        """Whose rows they are."""
        return self.diagnosis.facts.merchant

    @property
    def moved(self) -> bool:
        """Whether the rows belong into another environment, so that they are corrected and not retried."""
        return self.env != self.merchant.env

    def does(self, step: RemedyStep) -> Text:
        """What a call does, in a sentence; and why it is made again if the merchant was asked already."""
        again = _(
            "Make it again to see whether they have confirmed: WeChat sends no second message in 24 hours."
        )
        is_again = step.waiting and self.diagnosis.verdict.asked is not None
        return as_sentences((step.does, again)) if is_again else step.does

    @property
    def end(self) -> Text:
        """What became of it, in a line."""
        name = self.merchant.name or self.merchant.appid
        about = {"code": self.diagnosis.verdict.code, "name": name}
        state = self.state.value if self.state is not None else NOTHING
        if not self.said.en:
            return _("{code} · {name}: {state}", state=state, **about)
        return _("{code} · {name}: {state}. {said}", state=state, said=self.said, **about)

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return the object for `--json`."""
        return self.diagnosis.as_dict(lang) | {
            "remedy": self.remedy.text.of(lang) or None,
            "interfaces": [step.interface for step in self.remedy.steps],
            "state": str(self.state) if self.state else None,
            "said": self.said.of(lang) or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What a person decides. Without a person: nothing that costs, and nothing that only a person knows."""

    agrees: Callable[[Treatment, RemedyStep], bool] = lambda _treatment, step: not step.costs
    """Whether a step is taken that changes something."""
    env: Callable[[Treatment, Sequence[str]], str] = lambda _treatment, _envs: ""
    """Which environment is meant; empty: none of them."""
    sent: Callable[[Treatment, Text], bool] = lambda _treatment, _text: False
    """Whether a text was sent to the merchant, with the treatment's link if there is one."""
    waits: Callable[[Sequence[str]], None] = lambda _envs: None
    """Told that environments are waited for."""
    takes_link: bool = False
    """Whether somebody can pass on the link by which a merchant authorizes the platform, which lasts ten minutes."""


def treatments(
    run: Run, settings: Settings, only: Sequence[Merchant] | None = None, code: str = ""
) -> tuple[Run, list[Treatment]]:
    """Ask an opened target why rows of a run did not succeed, every merchant of each cause; the ledger keeps it, as for `why`.

    Return the run with its retries and corrections, and what can be done about each. `only`: of these merchants; `code`: about
    the rows with it.
    """
    now = time.time()
    whole, samples, merchants = subject_of(run, settings, every=True, only=only, code=code)
    judged = judge(samples, merchants, settings, now)
    summed_up(whole, judged, settings)
    ordered = [
        each for _verdict, members in grouped((each.verdict, each) for each in judged) for each in members
    ]
    return whole or run, [Treatment(each, each.facts.merchant.env) for each in ordered]


def carry_out(
    listed: Sequence[Treatment],
    run: Run,
    settings: Settings,
    decisions: Decisions,
    ended: Callable[[Treatment], object] = lambda _treatment: None,
) -> None:
    """Carry out the remedies, as far as they can be, and keep in the ledger what merchants were asked for.

    `ended`: told when a treatment has its state.
    """
    made: Made = {}
    for treatment in listed:
        _treat(treatment, run, settings, decisions, made)
        if not treatment.is_new:
            ended(treatment)
    created = [each for each in listed if each.is_new]
    if created:
        decisions.waits([each.env for each in created])
        _await_normal(created, settings)
    for treatment in created:
        ended(treatment)


def _treat(treatment: Treatment, run: Run, settings: Settings, decisions: Decisions, made: Made) -> None:
    """Carry out the remedy at a merchant, which one operator does at a time."""
    remedy, merchant = treatment.remedy, treatment.merchant
    if not remedy.retries or (merchant.owner is Owner.PLATFORM and CREATE_ENV in remedy.steps):
        treatment.state = RemedyState.SKIPPED
        return
    busy = _("{name} is being worked on by {who}. Run `fix` again later.")
    busy = busy.format(name=merchant.name or merchant.appid)
    try:
        with hold(ledger_with_runs(settings), f"fix-{quote(merchant.appid, safe='')}", busy):
            if not any(step.changes for step in remedy.steps) or _is_unchanged(treatment, settings):
                _take_steps(treatment, run, settings, decisions, made)
    except HeldError as error:
        treatment.state, treatment.said = RemedyState.LATER, error.text


def _is_unchanged(treatment: Treatment, settings: Settings) -> bool:
    """Ask again right before something is changed: whether the cause is still there, or somebody has removed it meanwhile."""
    before = treatment.diagnosis
    facts = replace(before.facts, answers=Answers(request=before.facts.answers.request))
    sample = Sample(facts, before.names, before.rows)
    judged = judge([sample], list(read_merchants(settings.merchants)), settings, time.time())
    if not judged or judged[0].verdict.cause == "passed":
        treatment.state = RemedyState.DONE
        _note_done(treatment, settings)
        return False
    if judged[0].verdict.cause != before.verdict.cause:
        treatment.state = RemedyState.SKIPPED
        treatment.said = _("WeChat answers something else by now. Run `fix` again.")
        return False
    treatment.diagnosis = judged[0]
    return True


def _take_steps(treatment: Treatment, run: Run, settings: Settings, decisions: Decisions, made: Made) -> None:
    remedy = treatment.remedy
    treatment.state = RemedyState.DONE
    for step in remedy.steps:
        _take(step, treatment, settings, decisions, made)
        if treatment.state is not RemedyState.DONE:
            break
    if remedy.choice is Choice.ENV:
        _choose(treatment, run, settings, decisions)
    if remedy.choice is Choice.LETTER or treatment.state is RemedyState.WAITING:
        _ask_merchant(treatment, run, settings, decisions)
    elif treatment.state is RemedyState.DONE:
        _note_done(treatment, settings)


def _take(
    step: RemedyStep, treatment: Treatment, settings: Settings, decisions: Decisions, made: Made
) -> None:
    """Take a step and set the treatment's state by its answer."""
    tokens = settings.tokens
    request = call_of(step, treatment.merchant, tokens.component_appid)
    same = (request.appid, request.interface, *request.body.items())
    if step.changes and same in made:  # another environment of the same account
        treatment.state, treatment.said, treatment.errcode = made[same]
        return
    if step is PREAUTH_CODE and not (decisions.takes_link and tokens.component_appid and tokens.redirect_uri):
        return
    if step is CREATE_ENV and treatment.diagnosis.facts.listed:
        _use_existing(treatment.diagnosis.facts.listed, treatment, decisions)
        return
    if step.changes and not decisions.agrees(treatment, step):
        treatment.state, treatment.said = RemedyState.SKIPPED, step.does
        return
    # A person may have taken long to agree, and the merchant has a console of its own.
    if step is CREATE_ENV:
        envs = _environments(treatment, settings)
        if envs is None:
            treatment.state = RemedyState.LATER
            return
        if envs:
            _use_existing(envs, treatment, decisions)
            return
    treatment.errcode, answer = _made(step, treatment, settings)
    treatment.state = decide(step, treatment.errcode, _statuses(answer).get(treatment.merchant.env, ""))
    treatment.env = str(answer.get("envid") or treatment.env)
    treatment.is_new = step is CREATE_ENV and treatment.state is RemedyState.DONE
    made[same] = treatment.state, treatment.said, treatment.errcode
    if step is OPEN_CLOUD and treatment.state is RemedyState.DONE:
        _note_done(treatment, settings)
    if isinstance(code := answer.get("pre_auth_code"), Secret):
        about = {"component_appid": tokens.component_appid, "pre_auth_code": code.reveal()}
        about |= {"redirect_uri": tokens.redirect_uri, "biz_appid": treatment.merchant.appid}
        treatment.link = Secret(LINK.format(query=urlencode(about)))


def _use_existing(envs: Mapping[str, str], treatment: Treatment, decisions: Decisions) -> None:
    """Use an environment that WeChat lists, instead of creating one."""
    own = treatment.merchant.env
    treatment.env = own if own in envs else decisions.env(treatment, list(envs))
    treatment.state = RemedyState.DONE if treatment.env else RemedyState.SKIPPED
    treatment.is_new = treatment.state is RemedyState.DONE


def _made(step: RemedyStep, treatment: Treatment, settings: Settings) -> tuple[int, dict[str, Any]]:
    """Make the call of a step; return the errcode, or 0 and the answer. What is wrong is said by the treatment."""
    made = call_of(step, treatment.merchant, settings.tokens.component_appid)
    try:
        return 0, call(
            made.appid, made.interface, made.body, as_component=made.as_component, settings=settings
        )
    except TcbOpsError as error:
        treatment.said = _("{interface}: {said}", interface=made.interface, said=error.text)
        if isinstance(error, RefusedError):
            return error.errcode, {}
        if isinstance(error, TransportError) and step.changes:
            may_be = _("It may have been carried out: `fix` looks first when you run it again.")
            treatment.said = as_sentences((treatment.said, may_be))
        return (SYSTEM_BUSY if isinstance(error, TransportError) else NO_TOKEN), {}


def _note_done(treatment: Treatment, settings: Settings) -> None:
    """Note in the ledger that the merchant has done what it was asked for about these rows."""
    facts, ledger = treatment.diagnosis.facts, ledger_with_runs(settings)
    # What the rows ended with, and what stands in their way by now.
    causes = {presumed(facts.code, facts.owner), treatment.diagnosis.verdict.cause}
    for (appid, cause), asked in ledger.asked(settings.run_target).items():
        if appid == treatment.merchant.appid and cause in causes:
            ledger.note_asked(replace(asked, done=True))


def _statuses(answer: Mapping[str, Any]) -> dict[str, str]:
    listed = answer.get("info_list")
    entries = listed if isinstance(listed, list) else []
    return {str(each.get("env")): str(each.get("status")) for each in entries if isinstance(each, dict)}


def _environments(treatment: Treatment, settings: Settings) -> dict[str, str] | None:
    """Return the environments that WeChat lists now, with their status; None where it does not answer, as the treatment says."""
    code, answer = _made(LOOK, treatment, settings)
    return None if code else _statuses(answer)


def _await_normal(created: Sequence[Treatment], settings: Settings) -> None:
    """Wait a short time until the environments are NORMAL."""
    until = time.monotonic() + SHORT
    waiting = list(created)
    while True:
        for treatment in list(waiting):
            treatment.state = RemedyState.LATER
            if (envs := _environments(treatment, settings)) is None:
                continue
            if (status := envs.get(treatment.env, "–")) == NORMAL:
                treatment.state, treatment.said = RemedyState.DONE, NOTHING
                _check_listed(treatment, settings)
                waiting.remove(treatment)
                continue
            text = _("{env} is {status}: it is ready about ten minutes after it was created.")
            treatment.said = text.format(env=treatment.env, status=status)
        if not waiting or time.monotonic() > until:
            return
        time.sleep(POLL)


def _choose(treatment: Treatment, run: Run, settings: Settings, decisions: Decisions) -> None:
    if not run.record.kind.main:  # an audit has no rows: its environments are lines of the merchants file
        treatment.state, treatment.said = RemedyState.SKIPPED, treatment.diagnosis.verdict.action
        return
    normal = environments_to_choose(treatment)
    chosen = decisions.env(treatment, normal) if normal else ""
    if not chosen:
        listed = treatment.diagnosis.facts.listed or {}
        envs = [f"{env} {status}" for env, status in listed.items()]
        treatment.state = RemedyState.SKIPPED
        treatment.said = _("WeChat lists {envs}.", envs=as_list(envs or ["–"], 5))
        return
    treatment.env = chosen
    _check_listed(treatment, settings)


def environments_to_choose(treatment: Treatment) -> list[str]:
    """Return the NORMAL environments of the merchant into which its rows may belong, if that is what a person decides."""
    if treatment.remedy.choice is not Choice.ENV:
        return []
    listed = treatment.diagnosis.facts.listed or {}
    return [env for env, status in listed.items() if status == NORMAL and env != treatment.merchant.env]


def _check_listed(treatment: Treatment, settings: Settings) -> None:
    """Leave the rows alone where the merchants file lacks the environment that they belong into."""
    merchant = treatment.merchant
    in_file = {(line.appid, line.env) for line in read_merchants(settings.merchants)}
    if treatment.moved and (merchant.appid, treatment.env) not in in_file:
        text = _("{file} has no line of {appid} with {env}. Add it, or let `tcb-ops merchants sync` add it.")
        treatment.state = RemedyState.SKIPPED
        treatment.said = text.format(file=settings.merchants, appid=merchant.appid, env=treatment.env)


def _ask_merchant(treatment: Treatment, run: Run, settings: Settings, decisions: Decisions) -> None:
    """Keep that WeChat sent its message to the merchant, or the operator the text; without either, it is left to a person."""
    facts, earlier = treatment.diagnosis.facts, treatment.diagnosis.verdict.asked
    if earlier is not None and not all_causes()[treatment.diagnosis.verdict.cause].proof:
        treatment.said = _("Only its rows can tell whether the merchant has done it.")
        return
    by_wechat = OPEN_CLOUD in treatment.remedy.steps
    fresh = verdict_of(facts)
    letter = fresh.message if fresh is not None else None
    sent = by_wechat or (letter is not None and decisions.sent(treatment, letter))
    asked = earlier
    # Whoever asked today did not do it with this ledger, or got no answer.
    is_told = treatment.errcode == ASKED_TODAY
    if sent and not (is_told and earlier is not None):
        merchant, cause = treatment.merchant, treatment.diagnosis.verdict.cause
        at, how = datetime.now(settings.zone).isoformat(timespec="seconds"), MESSAGE if by_wechat else LETTER
        who = "" if is_told else operator_name()
        asked = Asked(settings.run_target, merchant.appid, cause, merchant.name, run.id, who, how, at)
        ledger_with_runs(settings).note_asked(asked)
    treatment.state = RemedyState.WAITING if by_wechat or asked is not None else RemedyState.SKIPPED
    treatment.said = treatment.said if asked is None else asked.text


# --- the rows that can run again --------------------------------------------------------------------------------


def retries(run: Run, done: Iterable[Treatment], settings: Settings) -> list[Retry]:
    """Return the retries of the rows whose cause has gone, and of no others."""
    chosen = {
        OpenRows(each.diagnosis.facts.code, each.merchant.appid, each.merchant.env)
        for each in done
        if not each.moved
    }
    return retries_of(chosen, open_rows(find_run(run.id, settings).tallies_to_retry()))


def new_file(file: Path) -> Path:
    """Return this file, or where it exists the first with a number that does not: what an earlier `fix` wrote stays."""
    numbered = (file.with_name(f"{file.stem}-{number}{file.suffix}") for number in itertools.count(2))
    return next(each for each in itertools.chain([file], numbered) if not each.exists())


def write_corrected(run: Run, done: Iterable[Treatment], settings: Settings) -> Path:
    """Write the rows that belong into another environment, with that one, as a list that corrects the run."""
    headers, columns = run.record.headers, columns_given(run)
    position = replace(LIST_COLUMNS, given=columns).find(headers, 0)[0].get("env")
    header = "env" if position is None else headers[position]
    rows, kept = run.failed(), None
    for each in done:
        own = (rows["tcb_appid"] == each.merchant.appid) & (rows["tcb_env"] == each.merchant.env)
        rows.loc[own, header] = each.env
        kept = own if kept is None else kept | own
    folder = Path(settings.reports)
    folder.mkdir(parents=True, exist_ok=True)
    file = new_file(folder / f"{run.id}-fixed.csv")
    rows[kept].to_csv(file, index=False, encoding="utf-8-sig", mode="x")
    return file


def corrected(run: Run, done: Iterable[Treatment], settings: Settings) -> Batch:
    """Return the rows that belong into another environment as a checked list, written by `write_corrected`."""
    file, maps = write_corrected(run, done, settings), run.record.selection.words("map")[1::2]
    root, columns = run.record.root or None, columns_given(run)
    return api.read_paths(file, settings.merchants, root, columns=columns, file_map=maps, settings=settings)


def columns_given(run: Run) -> dict[str, str]:
    """Return the columns that the run was told of with --column."""
    words = run.record.selection.words("column")[1::2]
    return {name: header for name, _equals, header in (word.partition("=") for word in words)}
