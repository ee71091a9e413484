"""The commands that say why rows did not succeed, and what a code means."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, settings_options
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _, as_list, ngettext
from tcb_ops.model import Owner, Reason


@click.command(cls=Command, usual="all record target where json")
@click.argument("subject", metavar="RUN|RUN:LINE|MERCHANT|ENV", default="latest")
@click.option("--all", "every", is_flag=True, help="Ask about every merchant of a cause, not about one.")
@click.option("--record", metavar="FILE", help="Write what is known of the causes, without names, as JSON.")
@settings_options("target", "merchants", "tokens", "ledger", "where", "json")
def why(subject: str, record: str | None, *, every: bool, common: CommonOptions) -> int:
    """Ask WeChat why rows did not succeed, and say who must act.

    For each cause of a run (the latest), or for a merchant: what the platform received, the quota left, the environment's
    status, the permission sets, the token source and the clock. At most five calls for each cause; nothing is changed.

    Exit codes: 0 nothing is wrong · 1 causes were found · 2 usage.
    """
    from tcb_ops.features.health.verdicts import render_verdicts
    from tcb_ops.features.health.why import diagnose, subject_of
    from tcb_ops.reports.explanations import named

    settings, console = common.start()
    if record is not None and Path(record).exists():
        raise UsageError(_("{out} already exists: choose another name", out=record))
    only = common.matching(settings)
    run, samples, merchants = subject_of(subject, settings, every=every, only=only)
    with common.open_target(console, settings) as settings:
        console.release()
        with console.waiting(_("asking the platform")):
            diagnoses = diagnose(run, samples, merchants, settings, time.time())
    if record is not None:
        causes = {"causes": [diagnosis.redacted() for diagnosis in diagnoses]}
        Path(record).write_text(json.dumps(causes, ensure_ascii=False, indent=2), encoding="utf-8")
    if common.json:
        listed = [diagnosis.as_dict(settings.lang) for diagnosis in diagnoses]
        console.json({"target": settings.run_target, "run": run.id if run else None, "causes": listed})
        return 1 if diagnoses else 0
    if run is not None:
        kind, name = run.record.kind, run.record.list_name
        console.info(_("Run {id} · {kind} · {list_name}", id=named(run.record), kind=kind, list_name=name))
    shown = [(each.verdict, each.names, each.rows) for each in diagnoses]
    for part in render_verdicts(shown, console.lang):
        console.print(part)
    if not diagnoses:
        console.print(_("Nothing is wrong."))
        return 0
    actors = dict.fromkeys(each.verdict.who for each in diagnoses)
    who = as_list(actor.value for actor in actors)
    count = ngettext("{n:,} cause", "{n:,} causes", len(diagnoses))
    console.print(_("{count}. Who must act: {who}.", count=count, who=who))
    return 1


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("code")
@settings_options("json")
def explain(code: str, *, common: CommonOptions) -> int:
    """Explain what a code means and what to do.

    An errcode (85088, -501001) or one of the store's (SlowDown).
    """
    from tcb_ops.catalogue import COMPONENT_MARK, ETAG_MISMATCH, all_reasons, errcode
    from tcb_ops.features.health.codes import by_itself
    from tcb_ops.features.health.codes import explain as look_up
    from tcb_ops.features.health.verdicts import presumed_verdict

    _settings, console = common.start()
    number = code.removesuffix(COMPONENT_MARK)
    name, source, itself = "", "", None
    if (reason := {ETAG_MISMATCH: str(Reason.ETAG_MISMATCH)}.get(code, code)) in Reason.all():
        texts, name = all_reasons()[reason], reason
        meaning, action, facts = texts.meaning, texts.action, dict[str, Any](code=reason)
    else:
        of_component = number != code and number.removeprefix("-").isdecimal()
        entry = errcode(int(number), Owner.PLATFORM) if of_component else look_up(code)
        meaning, action, itself = entry.meaning, entry.action, by_itself()[entry.decision, entry.scope]
        facts = {"code": entry.code, "known": entry.known, "decision": entry.decision, "scope": entry.scope}
        name, source = f"{entry.code} {entry.name}".rstrip() if entry.known else "", entry.source
    presumed = presumed_verdict(str(facts["code"]))
    if common.json:
        texts_shown = {"meaning": meaning.of(console.lang), "action": action.of(console.lang)}
        console.json(facts | texts_shown | {"who": str(presumed.who)})
        return 0
    console.print(_("{name}: {meaning}", name=name, meaning=meaning) if name else meaning)
    console.print(_("What to do: {action}", action=action))
    if str(facts["code"]) != "0":
        console.print(_("Who must act: {who}.", who=presumed.who_acts))
    if itself is not None:
        console.print(_("By itself, tcb-ops {itself}.", itself=itself))
    if source:
        console.print(_("Source: {source}", source=source))
    return 0
