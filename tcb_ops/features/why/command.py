"""The command that says why rows did not succeed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, settings_options
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _, as_list, ngettext


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
    from tcb_ops.features.diagnosis.terminal import render_verdicts
    from tcb_ops.features.why.api import diagnose, subject_of

    settings, console = common.start()
    if record is not None and Path(record).exists():
        raise UsageError(_("{out} already exists: choose another name", out=record))
    now, only = time.time(), common.matching(settings)
    run, samples, merchants = subject_of(subject, settings, now, every=every, only=only)
    with common.open_target(console, settings) as settings:
        console.release()
        with console.waiting(_("asking the platform")):
            diagnoses = diagnose(run, samples, merchants, settings, now)
    if record is not None:
        causes = {"causes": [diagnosis.redacted() for diagnosis in diagnoses]}
        Path(record).write_text(json.dumps(causes, ensure_ascii=False, indent=2), encoding="utf-8")
    if common.json:
        listed = [diagnosis.as_dict(settings.lang) for diagnosis in diagnoses]
        console.json({"target": settings.run_target, "run": run.id if run else None, "causes": listed})
        return 1 if diagnoses else 0
    if run is not None:
        kind, name = run.record.kind, run.record.list_name
        console.info(_("Run {id} · {kind} · {list_name}", id=run.id, kind=kind, list_name=name))
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
