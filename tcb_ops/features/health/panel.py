"""The panel of audits, and the box of every panel with what can be done about a cause."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.engine.plan import RunSpec
from tcb_ops.features.health import fix
from tcb_ops.features.health.actions import cell_of, remedy_text
from tcb_ops.features.health.audit import start_audit
from tcb_ops.features.health.audit_kind import AUDIT, audit_spec
from tcb_ops.features.health.fix import Decisions, Treatment
from tcb_ops.features.health.remedies import Choice, RemedyState
from tcb_ops.features.health.verdicts import grouped
from tcb_ops.i18n import Lang, Text, _, as_lines, as_list, pgettext
from tcb_ops.kinds import Kind, environment_count, merchant_count
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.controls import ActionButton, Menu, Worker, html_area, show, tick_box
from tcb_ops.panels.html import esc
from tcb_ops.panels.notebook_panels import RunForm
from tcb_ops.panels.run_monitor import RunMonitor
from tcb_ops.reports.explanations import code_label
from tcb_ops.reports.summary import CodeGroup
from tcb_ops.run import Run, RunHandle
from tcb_ops.settings import Settings
from tcb_ops.start import StartOptions, opened_target


class AuditPanel(RunForm):
    """Audits all merchants."""

    kind, action = AUDIT, pgettext("button", "Audit")

    def _is_same_work(self, run: Run) -> bool:
        return run.record.kind is AUDIT and run.record.selection == self.context.merchants.selection

    def _prepare(self) -> None:
        facts, *_more = self._facts()
        self._changed()
        self.worker.say(self.context.ready(facts), "good", line=self.ready_line)

    def _facts(self) -> tuple[Text, int, Text, RunSpec]:
        lines = self.context.merchants
        work = audit_spec(lines)
        merchants, environments = len({line.appid for line in lines}), environment_count(len(lines))
        facts = _("{merchants}, {environments}, one call each; no file is sent")
        facts = facts.format(merchants=merchant_count(merchants), environments=environments)
        return facts, merchants, _("Audit {environments}", environments=environments), work

    def _start_run(self, options: StartOptions) -> RunHandle:
        return start_audit(self.context.merchants, cluster=self.monitor.cluster, **options)


class RemedyMenu(Menu):
    """What can be done about a cause of the run that is shown: a choice of the cause, the plan, what a person decides."""

    def __init__(self, worker: Worker, context: PanelContext, monitor: RunMonitor) -> None:
        self._context, self._monitor = context, monitor
        self._run: Run | None = None
        self._groups: list[CodeGroup] = []
        self._listed: list[Treatment] = []
        """What WeChat was asked about the cause that is chosen."""
        self.choice = worker.field(widgets.Dropdown, _("Cause"), "op-fix-cause")
        self.choice.observe(lambda _: self.prepare(), "value")
        self.plan = html_area("op-fix-plan")
        self.env = worker.field(widgets.Dropdown, _("Upload to"), "op-fix-env")
        self.costs = tick_box(_("Create environments, which costs money"), "op-fix-costs", worker.lang)
        self.sent = tick_box(_("I have sent the text to the merchant"), "op-fix-sent", worker.lang)
        self.action = ActionButton(worker, context, pgettext("remedy", "Do this"), "op-fix", self._act)
        parts = [self.choice, self.plan, self.env, self.costs, self.sent, self.action]
        super().__init__(worker, pgettext("remedy", "Fix"), "op-fix-menu", parts)
        self.show_run(None)

    def show_run(self, run: Run | None) -> None:
        """Offer what can be done about the causes of a finished run."""
        self._run = run if run is not None and run.record.finished_at is not None else None
        self._groups = [
            group for group in (self._run.overview().codes if self._run else ()) if remedy_text(group.code)
        ]
        self.opened, self._listed = False, []
        self.choice.options = [
            (f"{group.code} {code_label(group.code).of(self._worker.lang)}".rstrip(), group.code)
            for group in self._groups
        ]
        self.choice.index = 0 if self._groups else None  # ipywidgets chooses none by itself
        self.offer(shown=bool(self._groups) and not self._monitor.undone)
        self._show_plan()

    def enable(self, *, busy: bool) -> None:
        """Enable the buttons that may be pressed."""
        self.action.enable(busy=busy)

    def choose(self, code: str) -> None:
        """Open the box for a code."""
        self.choice.value = code
        self.opened = True
        self.prepare()

    def write_cell(self, code: str) -> None:
        """Write what can be done about a code as the next cell of the notebook."""
        group = next((group for group in self._groups if group.code == code), None)
        if group is not None and self._run is not None:
            self._monitor.grid.send({"cell": cell_of(group, self._run)})

    def prepare(self) -> None:
        """Ask WeChat about the cause, if the box is open."""
        if self.opened:
            self._worker.start(self._ask, waits=True)

    def _ask(self) -> None:
        if (run := self._run) is None:
            return
        with self._opened() as settings:
            _whole, self._listed = fix.treatments(
                run.with_settings(settings), settings, code=str(self.choice.value)
            )
        self._show_plan()
        self._monitor.show_verdicts()
        if not self._listed:
            self._worker.say(_("Nothing is wrong."), "good")

    def _opened(self) -> AbstractContextManager[Settings]:
        return opened_target(self._context.settings, lambda: self._context.merchants)

    def _show_plan(self) -> None:
        """Show what would be done, and ask for what only a person decides."""
        listed, lang = self._listed, self._worker.lang
        steps = [(each, step) for each in listed for step in each.remedy.steps if step.changes]
        envs = dict.fromkeys(env for each in listed for env in fix.environments_to_choose(each))
        told = [each for each in listed if each.remedy.choice is Choice.LETTER]
        self.plan.value = "".join(_plan(listed, self._run.record.kind, lang)) if self._run is not None else ""
        nothing = _("none of these").of(lang)
        self.env.options = [(nothing, ""), *((env, env) for env in envs)]
        self.env.value = next(iter(envs), "") if len(envs) == 1 else ""
        show(self.env, shown=bool(envs))
        self.costs.value = self.sent.value = False
        show(self.costs, shown=any(step.costs for _each, step in steps))
        show(self.sent, shown=bool(told))
        merchants = {each.merchant.appid for each in listed if each.remedy.retries}
        rest = _("At {merchants}; then their rows run again.")
        if self._run is not None and self._run.record.kind.of_merchants:
            rest = _("At {merchants}.")
        rest = rest.format(merchants=merchant_count(len(merchants)))
        facts = as_lines([*dict.fromkeys(each.does(step) for each, step in steps), rest])
        self.action.ask(facts if merchants else None, len(merchants), pgettext("remedy", "Do this"))

    def _act(self) -> None:
        """Do what can be done, and start the run of the rows whose cause has gone."""
        if (run := self._run) is None:
            return
        self.action.check()
        decisions = Decisions(
            agrees=lambda _treatment, step: bool(self.costs.value) or not step.costs,
            env=lambda _treatment, envs: str(self.env.value) if self.env.value in envs else "",
            sent=lambda _treatment, _text: bool(self.sent.value),
            waits=lambda envs: self._worker.say(
                _("Waiting for {envs} to become NORMAL", envs=as_list(envs, 3))
            ),
        )
        with self._opened() as settings:
            fix.carry_out(self._listed, run, settings, decisions)
        done = [each for each in self._listed if each.state is RemedyState.DONE]
        self.opened = False
        self._monitor.show_verdicts()
        self._worker.say(as_lines([each.end for each in self._listed]), "good" if done else "bad")
        if done and not run.record.kind.of_merchants:
            self._rerun(run, done)

    def _rerun(self, run: Run, done: Sequence[Treatment]) -> None:
        """Run the rows again: those that belong into another environment as a correction, else as a retry."""
        settings, moved = self._context.settings, [each for each in done if each.moved]
        if moved:
            batch = fix.corrected(run, moved, settings)
            start = api.start_links if run.record.kind.writes_links else api.start_upload
            self._monitor.start(lambda options: start(batch, **options))
            return
        (retried,) = fix.retries(run, done, settings)  # the rows have one code
        merchants = read_merchants(settings.merchants, retried.where)
        self._monitor.start(
            lambda options: api.start_retry(run.id, merchants, codes=retried.codes, **options)
        )


def _plan(listed: Sequence[Treatment], kind: Kind, lang: Lang) -> Iterator[str]:
    """Draw what can be done, a paragraph for each verdict: whom it concerns, and the calls."""
    for verdict, members in grouped((each.diagnosis.verdict, each) for each in listed):
        names = as_list(dict.fromkeys(name for each in members for name in each.diagnosis.names), 5)
        rows, remedy = kind.unit_count(sum(each.diagnosis.rows for each in members)), members[0].remedy
        head = _("{code}: {rows}, {names}", code=verdict.code, rows=rows, names=names)
        lines = [f"<b>{esc(head.of(lang))}</b>", esc(verdict.meaning.of(lang))]
        lines += [esc(verdict.action.of(lang))] if verdict.asked is not None or not remedy.retries else []
        lines += [esc(remedy.text.of(lang))] if remedy.text.en else []
        lines += [
            f"<code>{esc(step.interface)}</code> {esc(members[0].does(step).of(lang))}"
            for step in remedy.steps
        ]
        if remedy.choice is Choice.LETTER and verdict.message is not None:
            letter = _("Text for the merchant: {text}", text=verdict.message)
            lines.append(f'<span class="op-letter">{esc(letter.of(lang))}</span>')
        yield "".join(f"<p>{line}</p>" for line in lines)
