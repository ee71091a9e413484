"""HTML: report.html, one file to read, print or forward.

It is complete without its script, and has no external address.

The template engine escapes all text. The page is made from totals, so that it stays small however large the run, and
names where the rest is.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files

from tcb_ops.engine.next_commands import fixed_list, quoted, resume, retry
from tcb_ops.engine.stop_errors import stop_text
from tcb_ops.hooks import SimulatorHooks, WorkbookHooks, hooks
from tcb_ops.i18n import Lang, _
from tcb_ops.kinds import environment_count, merchant_count
from tcb_ops.ledger.locks import working
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.model import Outcome
from tcb_ops.reports.charts import charts_of
from tcb_ops.reports.explanations import (
    change_lines,
    confirmation_text,
    kept_verdicts,
)
from tcb_ops.reports.rendering import environment
from tcb_ops.reports.summary import NextAction, Per, RunSummary, next_actions
from tcb_ops.settings import Settings

CAUSES = 12
"""Causes under "what to do next" that are in view; the others are folded."""
NAMED = 4
"""Merchants named beside a cause."""
DETAILED = 80
"""Maximum number of merchants with details, most failures first."""
LISTED = 420
"""Maximum number of further merchants, with a line each."""
ENVS = 8
"""Environments shown per merchant."""
CHANGED = 15
"""Lines shown per kind of change."""
OPEN = 3
"""Number of merchants with failures up to which their details are open."""
_HOW_OFTEN = {
    Per.ONCE: _("one fix for all"),
    Per.MERCHANT: _("once per merchant"),
    Per.ENV: _("once per environment"),
    Per.NOBODY: _("nothing to do"),
}

FILES = ("report.xlsx", "results.csv", "failed.csv", "errcodes.csv", "manifest.json", "manifest.json.sig")
"""The files beside the page that it links to."""
PDF_MARK = "<!--pdf-->"
"""Where the link to report.pdf is added once that is printed: a page never links to a file that was not made."""
SCRIPT = (files("tcb_ops.reports") / "templates" / "report.js").read_text(encoding="utf-8")
"""Search, copy buttons, and files inside the page; the page's security policy allows only this script."""


def page(
    reader: LedgerReader,
    summary: RunSummary,
    settings: Settings,
    versions: Mapping[str, str],
    *,
    now: float,
    signed: str = "",
    with_data: bool = False,
) -> str:
    """Return the report of a run as HTML, in the settings' language and time zone.

    `signed`: the fingerprint of the key that will sign its manifest; empty for none. `with_data`: it will have results.csv inside.
    """
    run, counts = summary.run, summary.counts
    bad = sum(merchant.not_succeeded > 0 for merchant in summary.merchants)
    actions = next_actions(summary.codes)
    state = "good" if all(outcome.succeeded for outcome in counts) else "bad"
    findings = run.kind.findings(reader, summary, settings) if run.has_findings else None
    templates = environment(settings.lang, settings.timezone)
    there = {"report.xlsx": hooks(WorkbookHooks) is not None, "manifest.json.sig": signed != ""}
    codes = {cause.code for cause in summary.causes}  # others have been solved by a retry
    values = {
        "html_lang": "zh-CN" if settings.lang == "zh" else "en",
        "run": run,
        "summary": summary,
        "stopped": stop_text(run.stopped) if run.stopped is not None else None,
        "namesakes": summary.namesakes,
        "verdict": summary.verdict,
        "changed_by": change_lines(summary.changed_by, settings.zone),
        "confirmed": None if summary.confirmed is None else confirmation_text(*summary.confirmed),
        "state": state if run.finished_at is not None else "unfinished",
        "now": now,
        "holder": None if run.finished_at is not None else working(reader.ledger, run.id),
        "resume": quoted(
            resume(settings, run, canary=counts.keys() <= Outcome.successes() | {Outcome.PENDING})
        ),
        "actions": [(action, _whose(action, settings.lang)) for action in actions],
        "causes": CAUSES,
        "in_list": ", ".join(action.group.code for action in actions if action.in_list)
        if run.kind.has_list
        else "",
        "retry": quoted(retry(settings, run, actions if run.kind.has_list else ()))
        if run.finished_at is not None and any(outcome.retried for outcome in counts)
        else "",
        "practice": (simulator := hooks(SimulatorHooks)) is not None and simulator.is_practice(settings),
        "fixed_list": quoted(fixed_list(settings, run)),
        "named": NAMED,
        "changed": CHANGED,
        "verdicts": [verdict for verdict in kept_verdicts(reader, run) if verdict.code in codes],
        "charts": charts_of(summary.causes, reader.timeline(run), settings.zone),
        "findings": findings,
        "sections": [] if findings is None or findings.stopped is not None else findings.sections(),
        "merchants": len(summary.merchants),
        "omitted": max(0, len(summary.merchants) - DETAILED - LISTED),
        "files": [name for name in FILES if there.get(name, True)],
        "pdf_mark": PDF_MARK,
        "signed": signed,
        "with_data": with_data,
        "script": SCRIPT,
        "script_hash": b64encode(sha256(SCRIPT.encode()).digest()).decode(),
        "settings": sorted(
            (
                name,
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
                _is_path(value),
            )
            for name, value in run.settings.facts().items()
            if value != ""
        ),
        "versions": versions,
    }
    merchants = summary.merchants[: DETAILED + LISTED]
    macros = templates.get_template("merchant.html.j2").make_module({"namesakes": summary.namesakes})
    detailed = summary.with_first_rows(merchants[:DETAILED], reader)
    html: str = templates.get_template("report.html.j2").render(
        values,
        blocks=[macros.block(merchant, bad <= OPEN, ENVS) for merchant in detailed],
        lines=[*map(macros.line, merchants[DETAILED:])],
    )
    return html


def _is_path(value: object) -> bool:
    """Return whether a setting names a folder or file of this machine, which is not printed."""
    return isinstance(value, str) and "://" not in value and ("/" in value or "\\" in value)


def _whose(action: NextAction, lang: Lang) -> str:
    merchants, envs = len(action.group.merchants), len(action.group.envs)
    parts = [merchant_count(merchants)]
    if envs != merchants or action.per is Per.ENV:
        parts.append(environment_count(envs))
    if action.actions != 1 or (action.per is Per.ONCE and merchants > 1):
        parts.append(_HOW_OFTEN[action.per])
    return " · ".join(part.of(lang) for part in parts)
