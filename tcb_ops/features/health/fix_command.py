"""The command that carries out what can be done about the causes of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops.cli import Command, options
from tcb_ops.errors import UsageError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Text, _, as_list
from tcb_ops.kinds import row_count
from tcb_ops.model import target_name

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tcb_ops.cli.steps import RunCommand
    from tcb_ops.features.health.fix import Decisions, Treatment
    from tcb_ops.features.health.remedies import RemedyStep
    from tcb_ops.i18n import Lang
    from tcb_ops.run import Run, RunHandle


_RETRIED, _FIXED = Path("links.retry.csv"), Path("links.fixed.csv")
"""The files of the links of a links run's retry and of its correction."""


@click.command(cls=Command, usual="yes target where json")
@click.argument("run", default="latest")
@options.options_of(
    options.RunOptions, "yes", yes="Do not ask: do what costs nothing, and leave the rest to a person."
)
@options.kind_option
@options.limit_options
@options.common_options
def fix(command: RunCommand, run: str, kind: str | None) -> int:
    """Do what can be done about the causes of a run, and run its rows again.

    It asks WeChat why rows did not succeed, shows what can be done about each cause, asks, makes the calls, and runs the rows
    again whose cause has gone. The ledger keeps what merchants were asked for.

    Exit codes: 0 every row has succeeded · 1 some have not · 2 nothing was done.
    """
    from tcb_ops.features.health.fix import Decisions, carry_out, treatments
    from tcb_ops.reports.explanations import named
    from tcb_ops.start import find_run

    console, common, yes = command.console, command.common, command.which.yes
    asks, print_one = sys.stdin.isatty() and not yes, _nothing if common.json else console.print
    parent = find_run(run, command.settings, kind=kind)
    if command.which.out is not None and not parent.record.kind.writes_links:
        command.check_folder()
    with command.opened():
        settings = command.settings
        console.release()
        with console.waiting(_("asking the platform")):
            whole, listed = treatments(parent.with_settings(settings), settings, common.matching(settings))
        about = whole.record
        console.info(
            _("Run {id} · {kind} · {list_name}", id=named(about), kind=about.kind, list_name=about.list_name)
        )
        for part in _plan(listed, console.lang):
            print_one(part)
        if listed and not (asks or yes):
            if common.json:
                console.json(_summary(whole, listed, ()))
            raise UsageError(
                _("Nothing was done."),
                _(
                    "Without a terminal, {--yes} does what costs nothing; the rest needs a person at a terminal."
                ),
            )
        if about.finished_at is None and any(each.remedy.retries for each in listed):
            raise UsageError(_("Run {id} is unfinished. Resume it, then run `fix` again.", id=whole.id))
        decisions = _Asking(command).decisions() if asks else Decisions()
        carry_out(listed, whole, settings, decisions, lambda treatment: print_one(treatment.end))
        if not listed:
            left = _("Nothing can be done here about the rows that are left.")
            print_one(_("Nothing is wrong.") if whole.succeeded else left)
        runs: list[Run] = []
        try:
            runs.extend(_followed(command, handle) for handle in _again(command, whole, listed))
        except UsageError as error:  # the remedies were carried out: the rows are what is left
            console.warn(error.text)
        final = find_run(whole.id, settings).final()
    if common.json:
        console.json(_summary(final, listed, runs))
    return 0 if final.succeeded else 1


def _nothing(_part: object) -> None:
    pass


def _followed(command: RunCommand, handle: RunHandle) -> Run:
    from tcb_ops.preflight import where_links_are

    run = command.follow(handle, command.export)
    if not command.common.json:
        command.end_reported(run)
        if run.record.links:
            command.console.info(where_links_are(run.record, time.time(), command.settings.zone))
    return run


def _plan(listed: Sequence[Treatment], lang: Lang) -> Iterator[RenderableType]:
    """Render the causes, each with the names of its merchants and what can be done."""
    from tcb_ops.features.health.verdicts import grouped
    from tcb_ops.reports.formats.terminal import Wrapped

    for verdict, members in grouped((each.diagnosis.verdict, each) for each in listed):
        names = [name for each in members for name in each.diagnosis.names]
        rows = row_count(sum(each.diagnosis.rows for each in members)).of(lang)
        listed_names = as_list(dict.fromkeys(names)).of(lang)
        head = " · ".join(sanitize(part) for part in (verdict.code, rows, listed_names))
        yield Wrapped(head, bold=len(verdict.code))
        yield Wrapped(sanitize(verdict.meaning.of(lang)))
        remedy = members[0].remedy
        if verdict.asked is not None or not remedy.retries:
            what = _("→ {who}: {action}", who=verdict.who_acts, action=verdict.action)
            yield Wrapped(sanitize(what.of(lang)))
        if remedy.text.en:
            yield Wrapped(f"→ {remedy.text.of(lang)}")
        for step in remedy.steps:
            step_line = _("{interface}: {said}", interface=step.interface, said=members[0].does(step))
            yield Wrapped(f"  {step_line.of(lang)}", style="dim")
        yield ""


def _again(command: RunCommand, run: Run, listed: Sequence[Treatment]) -> Iterator[RunHandle]:
    """Start the runs of the rows whose cause has gone: a retry, and an upload of those that belong into another environment."""
    from tcb_ops import api
    from tcb_ops.features.health.fix import corrected, new_file, retries
    from tcb_ops.features.health.open_rows import open_rows
    from tcb_ops.features.health.remedies import RemedyState
    from tcb_ops.lists.batch import facts_line
    from tcb_ops.lists.merchants import read_merchants
    from tcb_ops.model import Outcome
    from tcb_ops.preflight import scope_of_list, scope_of_rows

    done = [each for each in listed if each.state is RemedyState.DONE]
    record, settings = run.record, command.settings
    moved = [each for each in done if each.moved]
    for retried in retries(run, done, settings):
        merchants = read_merchants(settings.merchants, retried.where)
        if record.kind.changes_store:
            rows = open_rows(run.of_merchants(merchants).tallies_to_retry())
            tallies = [tally for each in retried.rows for tally in rows.get(each, ())]
            scope = scope_of_rows(tallies, Outcome.retriable())
            command.ask_confirmation(record.kind, scope, _("At most {text}", text=scope.text))
        out = new_file(_RETRIED) if record.kind.writes_links else command.reports
        yield api.start_retry(run.id, merchants, codes=retried.codes, out=out, **command.options)
    if moved:
        with corrected(run, moved, settings) as batch:
            text = _("{file} has the rows with the environment that is meant.")
            command.console.info(text.format(file=batch.source))
            if record.kind.writes_links:
                yield api.start_links(batch, out=new_file(_FIXED), **command.options)
                return
            command.ask_confirmation(record.kind, scope_of_list(batch), facts_line(batch))
            yield api.start_upload(batch, out=command.reports, **command.options)


class _Asking:
    """The questions to a person at a terminal."""

    def __init__(self, command: RunCommand) -> None:
        self._console, self._settings = command.console, command.settings

    def decisions(self) -> Decisions:
        """Return the answers as decisions."""
        from tcb_ops.features.health.fix import Decisions

        return Decisions(
            agrees=self._agrees,
            env=self._env,
            sent=self._sent,
            waits=self._waits,
            takes_link=sys.stderr.isatty(),
        )

    def _agrees(self, treatment: Treatment, step: RemedyStep) -> bool:
        question = _("{name}: {does} Call {interface} at {target}?", **self._about(treatment, step))
        return self._confirms(question)

    def _env(self, treatment: Treatment, envs: Sequence[str]) -> str:
        about = {"name": treatment.merchant.name or treatment.merchant.appid, "env": treatment.merchant.env}
        if len(envs) == 1:
            question = _("{name}: WeChat lists {listed}, not {env}. Send the rows there?")
            return envs[0] if self._confirms(question.format(listed=envs[0], **about)) else ""
        question = _(
            "{name}: WeChat does not list {env}. Which of {listed} is meant? Nothing: none of these:"
        )
        lang, listed = self._console.lang, as_list(envs)

        def chosen(answer: str) -> str:
            if answer.strip() in {"", *envs}:
                return answer.strip()
            raise click.UsageError(_("Write one of {listed}, or nothing.", listed=listed).of(lang))

        asked = sanitize(question.format(listed=listed, **about).of(lang))
        answer: str = click.prompt(
            asked, default="", show_default=False, prompt_suffix=" ", err=True, value_proc=chosen
        )
        return answer

    def _sent(self, treatment: Treatment, text: Text) -> bool:
        self._console.warn(text)
        if treatment.link is not None:
            click.echo(treatment.link.reveal(), err=True)
            self._console.warn(_("The link is for the administrator's phone, and lasts ten minutes."))
        name = treatment.merchant.name or treatment.merchant.appid
        return self._confirms(_("{name}: Have you sent the text to the merchant?", name=name))

    def _waits(self, envs: Sequence[str]) -> None:
        self._console.info(_("Waiting for {envs} to become NORMAL", envs=as_list(envs, 3)))

    def _about(self, treatment: Treatment, step: RemedyStep) -> dict[str, Any]:
        name = treatment.merchant.name or treatment.merchant.appid
        target = target_name(self._settings.run_target)
        return {"name": name, "does": treatment.does(step), "interface": step.interface, "target": target}

    def _confirms(self, question: Text) -> bool:
        return self._console.confirm(question)


def _summary(run: Run, listed: Sequence[Treatment], runs: Sequence[Run]) -> dict[str, Any]:
    lang = run.settings.lang
    return {
        "run": run.id,
        "target": run.settings.run_target,
        "counts": run.counts,
        "causes": [each.as_dict(lang) for each in listed],
        "runs": [each.id for each in runs],
    }
