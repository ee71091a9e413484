"""Text and HTML of the panels: a run's header, progress, merchants, causes, result, and the files of its report; earlier runs.

For light and dark pages. Pure functions, except for the files, and the decision what comes next. All text goes through `esc`; nothing is fetched from the network.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tcb_ops.details import DetailCode
from tcb_ops.engine.progress import Progress
from tcb_ops.engine.stop_errors import stop_text
from tcb_ops.errors import InterruptedRunError, TcbOpsError
from tcb_ops.formatting import escape_controls, format_duration, format_size
from tcb_ops.hooks import DiagnosisHooks, hooks
from tcb_ops.i18n import Lang, Text, _, as_lines, as_list, in_panel, ngettext, pgettext, verbatim
from tcb_ops.kinds import Kind, merchant_count, row_count
from tcb_ops.ledger.records import Tally
from tcb_ops.model import Outcome, Reason, target_name
from tcb_ops.preflight import ran_out, where_links_are
from tcb_ops.reports.explanations import (
    MARK,
    change_lines,
    confirmation_text,
    counts_line,
    merchant_text,
    run_title,
    total_text,
    why,
)
from tcb_ops.reports.export import read_manifest
from tcb_ops.reports.rendering import outcome_class
from tcb_ops.reports.summary import CodeGroup, RunSummary, retry_helps
from tcb_ops.run import Run

NAMED = 4
"""Merchants named beside a code."""
CAUSES = 12
"""Causes that are shown; the others are folded."""
STYLE = f"<style>{(files(__package__) / 'styles.css').read_text(encoding='utf-8')}</style>"
_SHOWN = {".html", ".json", ".txt"}
"""Endings of files that a browser shows; a page runs its scripts only at the server's own address. Others are downloaded."""
_OPENED = " data-commandlinker-command='docmanager:open' data-commandlinker-args='{}'"
"""Has JupyterLab and Notebook 7 open a file in its viewer; elsewhere the link is followed."""
_CLASSES = {"n": ' class="op-num"', "s": ' class="op-short"', "t": "", "h": ""}


def esc(text: object) -> str:
    """Escape a text for HTML, and its control characters."""
    return escape(escape_controls(str(text)))


def heading(text: str) -> str:
    """Return a heading."""
    return f"<h2>{esc(text)}</h2>"


def message(text: str, tone: str = "", commands: Sequence[str] = ()) -> str:
    """Frame a message that a screen reader reads when it changes; `tone` is "", good or bad.

    Lines that are one of the `commands` are shown in an element of their own.
    """
    kind = f" op-{tone}" if tone else ""
    lines = [f"<code>{esc(line)}</code>" if line in commands else esc(line) for line in text.split("\n")]
    shown = "\n".join(lines)
    return f'<div role="status" aria-live="polite" class="op-message{kind}">{shown}</div>' if text else ""


def table(
    heads: Sequence[Text],
    rows: Iterable[Sequence[object]],
    kinds: str,
    lang: Lang,
    *,
    label: str,
    classes: str = "",
) -> str:
    """Draw a table.

    `kinds` has a letter per column: n number, s short text, t text, h HTML that is escaped already.
    """

    def line(tag: str, values: Iterable[object]) -> str:
        drawn = (
            f"<{tag}{_CLASSES[kind]}>{value if kind == 'h' else _cell(value)}</{tag[:2]}>"
            for value, kind in zip(values, kinds, strict=True)
        )
        return f"<tr>{''.join(drawn)}</tr>"

    head = line('th scope="col"', (name.of(lang) for name in heads))
    body = "".join(line("td", row) for row in rows)
    return (
        f'<table class="op-table {classes}" aria-label="{esc(label)}"><thead>{head}</thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _cell(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else esc(cell)


# --- a run ----------------------------------------------------------------------------------------------------------


class RunState(StrEnum):
    """Which process works on a run."""

    HERE = "here"
    """This process."""
    ELSEWHERE = "elsewhere"
    UNFINISHED = "unfinished"
    """Nobody: it was cancelled, stopped, or cut off."""
    FINISHED = "finished"


STATES = {
    RunState.HERE: _("running"),
    RunState.ELSEWHERE: _("running in another process"),
    RunState.UNFINISHED: _("unfinished"),
    RunState.FINISHED: pgettext("state", "finished"),
}


def rest_state(run: Run) -> RunState:
    """Return the state of a run that no process works on."""
    return RunState.UNFINISHED if run.record.finished_at is None else RunState.FINISHED


def render_mark(lang: Lang, *, live: bool) -> str:
    """Draw whether the target is live or simulated."""
    words = _("LIVE").of(lang) if live else MARK
    return f'<span class="op-mark {"op-live" if live else "op-simulated"}">{esc(words)}</span>'


def render_moment(seconds: float, zone: tzinfo, *, age: bool = False) -> str:
    """Draw a moment, to the minute; `age`: the browser shows how long ago that was."""
    moment = datetime.fromtimestamp(seconds, zone).isoformat(" ", "minutes")
    at = f' data-at="{seconds:.0f}"' if age else ""
    return f"<time{at}>{moment}</time>"


def render_run_link(run: str, content: str = "") -> str:
    """Draw a button that shows a run; `content`: HTML, by default the run's id."""
    return f'<button type="button" class="op-link" title="{esc(run)}" data-run="{esc(run)}">{content or esc(run)}</button>'


def origins_of(run: Run) -> list[str]:
    """Return the ids of the runs that a run is about: the one that it retries, or the upload that it confirms or undoes."""
    record = run.record
    return [record.parent] if record.parent else list(record.settings.of)


def render_header(
    run: Run, summary: RunSummary, state: RunState, lang: Lang, *, live: bool, since: Text | None = None
) -> str:
    """Draw what a run is, its state and age, the run that it is about, and the later runs that changed its files.

    `since`: what has changed since the run before.
    """
    record, zone = run.record, run.settings.zone
    ended = record.finished_at if state is RunState.FINISHED else None
    when = render_moment(ended or record.created_at, zone, age=True)
    text = _("finished {moment}, took {duration}") if ended else _("{state}, begun {moment}")
    values = {"state": STATES[state], "duration": format_duration(record.seconds), "moment": "\n"}
    about = esc(text.format(**values).of(lang)).replace("\n", when)
    target = target_name(record.target).of(lang)
    origin = esc(f"{record.id} · {target} · {record.operator}@{record.host}")
    news = f"<p><b>{esc(since.of(lang))}</b></p>" if since is not None else ""
    lines = []
    family = run.with_retries(corrected=True)
    if family is not None and (record.parent or record.corrects or not summary.is_undone):
        lines.append((total_text(record, *family), family[0]))
    elif origins := origins_of(run):
        lines.append((_("About the upload {run}.", run=origins[0]), origins[0]))
    changes = summary.changed_by
    sentences = change_lines(changes, zone)
    if summary.confirmed is not None:
        lines.append((confirmation_text(*summary.confirmed), summary.confirmed[0]))
    lines += [(line, change.run) for line, change in zip(sentences, changes, strict=True)]
    linked = "".join(
        f'<p class="op-lineage">{esc(line.of(lang)).replace(run_id, render_run_link(run_id))}</p>'
        for line, run_id in lines
    )
    marks = "".join(
        f' <span class="op-mark op-changed">{esc(c.kind.changed.of(lang))}</span>' for c in changes
    )
    title = f"{render_mark(lang, live=live)}<h2>{esc(run_title(run.record).of(lang))}</h2>{marks}"
    quiet = f'<span><b>{about}</b> <span class="op-quiet">{origin}</span></span>'
    return f'<div class="op-title">{title}{quiet}</div>{news}{linked}'


def render_runs(runs: Sequence[Run], here: Collection[str], lang: Lang, label: Text) -> str:
    """Draw runs as a table; `here`: the ids of those that this process works on."""
    heads = (_("Begun"), _("What it was"), _("State"), _("Result"), _("Note"))
    checks = [run for run in reversed(runs) if run.record.kind.findings_of_files and run.record.finished_at]
    checked = {origin: run.id for run in checks for origin in origins_of(run)}
    lines = []
    for run in runs:
        record, counts = run.record, run.outcomes
        state = RunState.HERE if run.id in here else rest_state(run)
        result = f'<div class="op-outcomes" aria-hidden="true">{_shares(counts)}</div>'
        link = render_run_link(run.id, render_moment(record.created_at, run.settings.zone))
        about = [_("about {run}", run=origin) for origin in origins_of(run)[:1]]
        about += [_("checked by {run}", run=checked[run.id])] if run.id in checked else []
        about += [mark] if (mark := run.mark) is not None else []
        about += [verbatim(record.note)] if record.note else []
        counted = f"{result}{esc(counts_line(counts).of(lang))}"
        lines.append(
            (link, run_title(run.record).of(lang), STATES[state].of(lang), counted, as_list(about).of(lang))
        )
    return table(heads, lines, "htsht", lang, label=label.of(lang), classes="op-run-table")


def render_run_below(lang: Lang) -> str:
    """Draw a button that has JupyterLab and Notebook 7 run the cells below the panel's, which a press on it has selected.

    Their command for "all below" begins with the selected cell: the panel would be opened again, and show the newest run.
    """
    label = esc(_("Run the cells below").of(lang))
    names = ("move-cursor-down", "extend-marked-cells-bottom", "run-cell")
    given = esc(json.dumps({"commands": [f"notebook:{name}" for name in names]}))
    command = f'data-commandlinker-command="apputils:run-all-enabled" data-commandlinker-args="{given}"'
    return f'<button type="button" class="op-chip" {command}>{label}</button>'


def render_progress(now: Progress, kind: Kind, lang: Lang, *, running: bool) -> str:
    """Draw a run's progress as a bar of its outcomes, with rate and time left while it is running."""
    share = now.done / now.total if now.total else 1.0
    parts = [
        _("{done:,} of {rows}", done=now.done, rows=kind.unit_count(now.total)).of(lang),
        f"{int(100 * share)}%",
    ]
    if running:
        # Below 10 with a decimal: "0/s" beside a time left reads like a mistake.
        rate = f"{now.rate:,.0f}" if now.rate >= 10 else f"{round(now.rate, 1):g}"
        if rate != "0":
            parts.append(_("{rate}/s", rate=rate).of(lang))
        if now.seconds_left is not None and now.seconds_left >= 1:  # below, rows may be waiting for a retry
            parts.append(_("{left} left", left=format_duration(now.seconds_left)).of(lang))
    label = _("Rows that have ended").of(lang)
    # A screen reader reads the element; the bar of outcomes is for eyes.
    bar = (
        f'<progress class="op-hidden" aria-label="{esc(label)}" value="{now.done}" max="{max(now.total, 1)}"></progress>'
        f'<div class="op-outcomes" aria-hidden="true">{_shares({**now.counts, Outcome.PENDING: now.total - now.done})}</div>'
    )
    counts = "".join(
        f'<span class="op-count"><i class="{outcome_class(outcome)}"></i>{esc(counts_line({outcome: rows}).of(lang))}</span>'
        for outcome, rows in now.counts.items()
        if rows
    )
    # Its line is there as long as the run works: what stands below the header stays where it is.
    said = esc(now.note.of(lang)) if now.note is not None else ""
    note = f'<p class="op-note" title="{said}">{said}</p>' if running else ""
    return f'{bar}<p class="op-figures"><b>{esc(" · ".join(parts))}</b>{counts}</p>{note}'


def _shares(counts: Mapping[Outcome, int]) -> str:
    rows: Counter[str] = Counter()
    for outcome, count in counts.items():
        rows["todo" if outcome is Outcome.PENDING else outcome_class(outcome)] += count
    return "".join(
        f'<span class="{name}" style="flex:{count}"></span>' for name, count in rows.items() if count > 0
    )


def describe_end(run: Run, error: TcbOpsError | None, now: float, expired_links: int = 0) -> tuple[Text, str]:
    """Describe a run that no process works on; return the message and its tone.

    `error` is what ended it while it was watched, `expired_links` how many of its links had expired by then. `now`: in Unix seconds.
    """
    record, result = run.record, describe_result(run, expired_links)
    if record.finished_at is None:
        reason = _describe_stop(run, error)
        tone = "" if error is None or isinstance(error, InterruptedRunError) else "bad"
        rest = _("Its files were undone or deleted, so it is not resumed: New run uploads the list again.")
        if run.resumable:
            rest = _("Resume completes the rest; finished rows are not sent again.")
        return _("{reason} {result} {rest}", reason=reason, result=result, rest=rest), tone
    if isinstance(error, InterruptedRunError):  # every row had ended by then
        error = None
    lines = [result] if error is None else [error.text, result]
    if record.links and Outcome.LINKED in run.outcomes:
        lines.append(where_links_are(record, now, run.settings.zone))
    good = run.succeeded and error is None and not expired_links
    return as_lines(lines), "good" if good else "bad"


def describe_result(run: Run, expired_links: int = 0) -> Text:
    """Describe how a run's rows ended, and how many of its links had expired by its end."""
    return as_lines(filter(None, (run.verdict, ran_out(expired_links, run.record.links))))


def _describe_stop(run: Run, error: TcbOpsError | None) -> Text:
    stopped = run.record.stopped
    if isinstance(error, InterruptedRunError):
        return _("Cancelled.")
    if error is not None:
        # Its text ends with the command that resumes the run.
        return _("{text}\n", text=as_lines(filter(None, (error.problem, error.fix))))
    if stopped is None:
        return _("It ended unexpectedly.")
    if stopped.code is DetailCode.INTERRUPTED:
        return _("It was cancelled or interrupted.")
    return _("It was stopped: {text}\n", text=stop_text(stopped))


# --- merchants --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class MerchantLine:
    """The rows of a merchant (appid) in a run."""

    appid: str
    merchant: str
    shares: Counter[str] = field(default_factory=Counter)
    """Rows by the class of their outcome's colour; good: succeeded, pending: not ended, all others did not succeed."""
    codes: Counter[str] = field(default_factory=Counter)
    envs: set[str] = field(default_factory=set)

    @property
    def bad(self) -> int:
        """The rows that did not succeed."""
        return self.shares.total() - self.shares["good"] - self.shares["pending"]


def merchant_lines(tallies: Iterable[Tally]) -> list[MerchantLine]:
    """Sum tallies up by merchant: most rows that did not succeed first, then by name."""
    lines: dict[str, MerchantLine] = {}
    for tally in tallies:
        line = lines.setdefault(tally.appid, MerchantLine(tally.appid, tally.merchant))
        line.shares[outcome_class(tally.outcome)] += tally.rows
        line.envs.add(tally.env)
        code = why(tally.outcome, tally.reason, tally.errcode, tally.store_code)
        if code is not None and tally.outcome is not Outcome.PENDING:
            line.codes[code.code] += tally.rows
    return sorted(lines.values(), key=lambda line: (-line.bad, line.merchant, line.appid))


# --- causes and tables ----------------------------------------------------------------------------------------------


def render_causes(
    groups: Sequence[CodeGroup],
    verdicts: Mapping[str, Any],
    kind: Kind,
    lang: Lang,
    *,
    asks: bool,
    retries: bool,
    fixes: bool = False,
    simulated: bool = False,
    zone: tzinfo = UTC,
) -> str:
    """Draw the causes: what each means, what to do, whom it concerns, its verdict, and buttons for what can be done here.

    `asks`: whether WeChat, or the simulator, can be asked; `retries`: whether rows can be retried; `fixes`: whether remedies can
    be carried out.
    """
    options = {"asks": asks, "retries": retries, "fixes": fixes, "simulated": simulated}
    drawn = [_cause(group, verdicts.get(group.code), kind, lang, zone, **options) for group in groups]
    rest = len(drawn) - CAUSES
    more = ngettext("… and {n:,} more cause", "… and {n:,} more causes", rest).of(lang)
    folded = f"<details><summary>{esc(more)}</summary><ul>{''.join(drawn[CAUSES:])}</ul></details>"
    return f'<ul class="op-by-code">{"".join(drawn[:CAUSES])}</ul>{folded * (rest > 0)}'


def _cause(
    group: CodeGroup,
    verdict: Any,
    kind: Kind,
    lang: Lang,
    zone: tzinfo,
    *,
    asks: bool,
    retries: bool,
    fixes: bool,
    simulated: bool,
) -> str:
    code = esc(group.code)
    merchants = [share.merchant or share.appid or _("(no merchant)") for share in group.merchants]
    figures = _(
        "{rows}, {merchants}: {names}",
        rows=kind.unit_count(group.rows),
        merchants=merchant_count(len(merchants)),
        names=as_list(merchants, NAMED),
    )
    meaning, action = in_panel(group.meaning, lang), group.action if verdict is None else verdict.action
    lines = [f"<b>{esc(meaning)}</b>", f'<span class="op-quiet">{esc(figures.of(lang))}</span>']
    if verdict is not None:
        who = _("Who must act: {who}", who=verdict.who_acts)
        lines.append(f"<b>{esc(who.of(lang))}</b>")
    lines.append(esc(in_panel(action, lang)))
    if group.detail is not None:
        lines.append(f'<span class="op-quiet">{esc(group.detail.of(lang))}</span>')
    if verdict is not None:
        lines += [f'<span class="op-quiet">{esc(in_panel(line, lang))}</span>' for line in verdict.lines()]
        at = _("The simulator was asked at {moment}.") if simulated else _("WeChat was asked at {moment}.")
        asked = esc(at.format(moment="\n").of(lang))
        asked = asked.replace("\n", render_moment(verdict.at, zone))
        lines.append(f'<span class="op-quiet">{asked}</span>')
        if verdict.message is not None:
            letter = _("Text for the merchant: {text}", text=verdict.message)
            lines.append(f'<span class="op-letter">{esc(letter.of(lang))}</span>')
    acts = []
    again = sum(rows for outcome, rows in group.outcomes.items() if outcome.retried)
    if retries and again and retry_helps([group], again=False):
        acts.append(("retry", code, _("Retry {rows}", rows=row_count(again))))
    told = merchant_text(group.code) if verdict is None else verdict.message
    if told is not None:
        acts.append(("copy", esc(told.of(lang)), _("Copy the text for the merchant")))
    diagnosis = hooks(DiagnosisHooks)
    if fixes and diagnosis is not None and diagnosis.remedy(group.code) is not None:
        acts += [("fix", code, pgettext("remedy", "Fix")), ("cell", code, _("As code"))]
    if asks and group.code not in {*map(str, (*group.outcomes, Reason.MERCHANT_LEFT))}:
        acts.append(("why", code, _("Ask the simulator why") if simulated else _("Ask WeChat why")))
    buttons = (
        f'<button type="button" class="op-chip" data-{act}="{value}">{esc(label.of(lang))}</button>'
        for act, value, label in acts
    )
    lines += [" ".join(buttons)] if acts else []
    name = f'<button type="button" class="op-link op-code" data-code="{code}">{code}</button>'
    return f"<li><span>{name}</span><div>{''.join(f'<p>{line}</p>' for line in lines)}</div></li>"


# --- the files of a report ------------------------------------------------------------------------------------------


def report_links(run: Run, lang: Lang) -> str:
    """List the files of a run's report, if it has one, and say if they are older than a change of the run's files."""
    folder = Path(run.record.report or "-")
    manifest = read_manifest(folder)
    if manifest is None or manifest.run != run.id:
        return ""
    exported_at = datetime.fromisoformat(manifest.exported_at).timestamp()
    since = [change.run for change in run.overview().changed_by if change.at > exported_at]
    text = _("Exported before run {run}, which is not in these files: export again.", run=as_list(since))
    return f"<p>{esc(text.of(lang))}</p>" * bool(since) + file_links(folder)


def file_links(folder: Path) -> str:
    """Name a report folder and list its files; each is a link where the server of the notebook serves it."""
    items, folder = [], folder.resolve()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        label, size = esc(file.name), esc(format_size(file.stat().st_size))
        if served := _served(file):
            address, path = served
            how = "target='_blank'" if file.suffix in _SHOWN else "download"
            if file.suffix == ".csv" and "VOILA_REQUEST_URL" not in os.environ:
                how += _OPENED.format(esc(json.dumps({"path": path})))
            label = f"<a href='{esc(address)}' {how}>{label}</a>"
        items.append(f"<li>{label} <span class='op-quiet'>{size}</span></li>")
    return f"<p><code>{esc(folder)}</code></p><ul class='op-file-list'>{''.join(items)}</ul>"


def _served(file: Path) -> tuple[str, str] | None:
    """Return a file's address, and its path below the folder that the server serves; None if it serves no such file.

    The address begins with the server's base URL; where that is not known, it is relative to the notebook.
    """
    base, root = _server(file) or ("", Path.cwd())
    if not file.is_relative_to(root):
        return None
    path = file.relative_to(root).as_posix()
    return f"{base}{quote(path)}", path


def _server(file: Path) -> tuple[str, Path] | None:
    """Return the address of files, and their folder, of Voila, or of the Jupyter server that started this kernel.

    A Jupyter server that cannot be told by its process is the newest that serves the file.
    """
    if "VOILA_REQUEST_URL" in os.environ:
        return f"{os.environ.get('VOILA_BASE_URL', '/')}voila/files/", Path.cwd()
    if not os.environ.get("JPY_SESSION_NAME"):
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    servers = []
    for record in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            server = json.loads(record.read_text(encoding="utf-8"))
            root = Path(server["root_dir"]).resolve()
            is_parent = str(server["pid"]) == os.environ.get("JPY_PARENT_PID")
            if file.is_relative_to(root):
                servers.append((is_parent, record.stat().st_mtime, f"{server['base_url']}files/", root))
    return max(servers)[2:] if servers else None
