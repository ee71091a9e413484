"""Text and HTML of the panels, for light and dark pages: a run's header, progress, merchants, causes and result.

Pure functions, and the decision what comes next. All text goes through `esc`; nothing is fetched from the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from importlib.resources import files
from typing import Any

from tcb_ops.details import DetailCode
from tcb_ops.errors import InterruptedRunError, TcbOpsError
from tcb_ops.formatting import format_duration
from tcb_ops.i18n import Lang, Text, _, as_lines, pgettext, verbatim
from tcb_ops.kinds import Kind, row_count
from tcb_ops.model import Outcome
from tcb_ops.preflight import ran_out
from tcb_ops.reports.explanations import MARK, change_lines, counts_line, why
from tcb_ops.reports.formats.charts import code_colour, outcome_class
from tcb_ops.reports.summary import CodeGroup
from tcb_ops.run import Run
from tcb_ops.runs.progress import Progress
from tcb_ops.runs.records import Tally
from tcb_ops.runs.stop_errors import stop_text

NAMED = 4
"""Merchants named beside a code."""
LINES = 500
"""Most lines of a DataFrame in a notebook; the rest is counted."""
STYLE = f"<style>{(files(__package__) / 'styles.css').read_text(encoding='utf-8')}</style>"
COLUMNS: dict[str, Text] = {
    "merchant": _("Merchant"),
    "rows": _("Rows"),
    "progress": _("Progress"),
    "good": _("Succeeded"),
    "bad": _("Failed"),
    "todo": _("To do"),
    "why": _("Why"),
    "appid": _("appid"),
    "env": _("Environment"),
    "succeeded": _("Succeeded"),
    "not_succeeded": _("Did not succeed"),
    "pending": pgettext("column", "Pending"),
    "code": _("Code"),
    "merchants": pgettext("column", "Merchants"),
    "meaning": _("What it means"),
    "action": _("What to do"),
}
"""The heads of tables, by the names that DataFrames and the grid have for them."""
_OF_FRAMES = frozenset(
    {"merchant", "appid", "env", "rows", "succeeded", "not_succeeded", "pending", "code", "meaning", "action"}
)
"""Those of DataFrames; other names may be the list's own."""
MERCHANT_COLUMNS = ("merchant", "rows", "progress", "good", "bad", "todo", "why")
_CLASSES = {"n": ' class="op-num"', "s": ' class="op-short"', "t": "", "h": ""}


def esc(text: object) -> str:
    """Escape a text for HTML; control characters become �."""
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in str(text)))


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
    head = "".join(
        f'<th scope="col"{_CLASSES[kind]}>{esc(name.of(lang))}</th>'
        for name, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_CLASSES[kind]}>{cell if kind == 'h' else _cell(cell)}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<table class="op-table {classes}" aria-label="{esc(label)}"><thead><tr>{head}</tr></thead>'
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


def run_state(*, here: bool, held: bool, finished: bool) -> RunState:
    """Return which process works on a run.

    =========  ==========  ============  ==========
    here       held        finished      state
    =========  ==========  ============  ==========
    yes        any         any           here
    no         any         yes           finished
    no         yes         no            elsewhere
    no         no          no            unfinished
    =========  ==========  ============  ==========
    """
    if here:
        return RunState.HERE
    if finished:
        return RunState.FINISHED
    return RunState.ELSEWHERE if held else RunState.UNFINISHED


def render_mark(lang: Lang, *, live: bool) -> str:
    """Draw whether the target is live or simulated."""
    words = _("LIVE").of(lang) if live else MARK
    return f'<span class="op-mark {"op-live" if live else "op-simulated"}">{esc(words)}</span>'


def render_header(run: Run, state: RunState, lang: Lang, *, live: bool) -> str:
    """Draw the line that names a run, its state, the run that it retries, and the later runs that changed its files."""
    record, kind = run.record, run.record.kind.label
    title = _("Run {id} · {states}", id=record.id, states=STATES[state]).of(lang)
    about = _(
        "{kind} · {list_name} · {rows} · {target} · {operator}@{host}",
        kind=kind,
        list_name=record.list_name,
        rows=record.kind.unit_count(record.rows),
        target=record.target,
        operator=record.operator,
        host=record.host,
    ).of(lang)
    retried = ""
    if record.parent:
        original, succeeded, rows = run.with_retries()
        text = _(
            "Retry of {id}: with its retries, {succeeded:,} of {rows} have succeeded.",
            id=original,
            succeeded=succeeded,
            rows=row_count(rows),
        )
        retried = f'<p class="op-retried">{esc(text.of(lang))}</p>'
    lines = [line.of(lang) for line in change_lines(run.changed_by, run.settings.zone)]
    changed = "".join(f'<p class="op-changed">{esc(line)}</p>' for line in lines)
    mark, quiet = render_mark(lang, live=live), f'<span class="op-quiet">{esc(about)}</span>'
    return f'<div class="op-title">{mark}<h2>{esc(title)}</h2>{quiet}</div>{retried}{changed}'


def render_progress(now: Progress, kind: Kind, lang: Lang, *, running: bool) -> str:
    """Draw a run's progress as a bar of its outcomes, with rate and time left while it is running."""
    share = now.done / now.total if now.total else 1.0
    parts = [
        _("{done:,} of {rows}", done=now.done, rows=kind.unit_count(now.total)).of(lang),
        f"{int(100 * share)}%",
    ]
    if running:
        # Below 10 with a decimal: "0 rows/s" beside a time left reads like a mistake.
        rate = f"{now.rate:,.0f}" if now.rate >= 10 else f"{round(now.rate, 1):g}"
        parts.append(_("{rate}/s", rate=rate).of(lang))
        if now.seconds_left is not None and now.seconds_left >= 1:  # below, rows may be waiting for a retry
            remaining = format_duration(now.seconds_left)
            parts.append(_("{left} left", left=remaining).of(lang))
    label = _("Rows that have ended").of(lang)
    # A screen reader reads the element; the bar of outcomes is for eyes.
    bar = (
        f'<progress class="op-hidden" aria-label="{esc(label)}" value="{now.done}" max="{max(now.total, 1)}"></progress>'
        f'<div class="op-outcomes" aria-hidden="true">{_shares(now)}</div>'
    )
    counts = "".join(
        f'<span class="op-count"><i class="{outcome_class(outcome)}"></i>{esc(counts_line({outcome: rows}).of(lang))}</span>'
        for outcome, rows in now.counts.items()
        if rows
    )
    note = f"<p>{esc(now.note.of(lang))}</p>" if now.note is not None and running else ""
    return f'{bar}<p class="op-figures"><b>{esc(" · ".join(parts))}</b>{counts}</p>{note}'


def _shares(now: Progress) -> str:
    rows: Counter[str] = Counter()
    for outcome, count in now.counts.items():
        rows[outcome_class(outcome)] += count
    rows["todo"] = now.total - now.done
    return "".join(
        f'<span class="{name}" style="flex:{count}"></span>' for name, count in rows.items() if count > 0
    )


def describe_end(run: Run, error: TcbOpsError | None, expired_links: int = 0) -> tuple[Text, str]:
    """Describe a run that no process works on; return the message and its tone.

    `error` is what ended it while it was watched, `expired_links` how many of its links had expired by then.
    """
    record, result = run.record, describe_result(run, expired_links)
    if record.finished_at is None:
        reason = _describe_stop(run, error)
        tone = "" if error is None or isinstance(error, InterruptedRunError) else "bad"
        return _(
            "{reason} {result} Resume completes the rest; finished rows are not sent again.",
            reason=reason,
            result=result,
        ), tone
    lines = [result] if error is None else [error.text, result]
    if record.kind.writes_links and record.report:
        lines.append(
            _(
                "The links are in {report}, which only you can read; they expire after about 15 minutes.",
                report=record.report,
            )
        )
    good = run.succeeded and error is None and not expired_links
    return as_lines(lines), "good" if good else "bad"


def describe_result(run: Run, expired_links: int = 0) -> Text:
    """Describe how a run's rows ended, and how many of its links had expired by its end."""
    record = run.record
    result = record.kind.verdict(run.outcomes, finished=record.finished_at is not None)
    late = ran_out(expired_links, record.report)
    return as_lines([result, late]) if late is not None else result


def _describe_stop(run: Run, error: TcbOpsError | None) -> Text:
    if isinstance(error, InterruptedRunError):
        return _("Cancelled.")
    if error is not None:
        return _("{text}\n", text=error.text)
    stopped = run.record.stopped
    if stopped is not None and stopped.code is DetailCode.INTERRUPTED:
        return _("It was cancelled or interrupted.")
    if stopped is not None:
        return _("It was stopped: {text}\n", text=stop_text(stopped))
    return _("It ended unexpectedly.")


# --- merchants --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class MerchantLine:
    """The rows of a merchant (appid) in a run."""

    appid: str
    merchant: str
    good: int = 0
    bad: int = 0
    todo: int = 0
    codes: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """All its rows."""
        return self.good + self.bad + self.todo


def merchant_lines(tallies: Iterable[Tally]) -> list[MerchantLine]:
    """Sum tallies up by merchant: most rows that did not succeed first, then by name."""
    lines: dict[str, MerchantLine] = {}
    for tally in tallies:
        line = lines.setdefault(tally.appid, MerchantLine(tally.appid, tally.merchant))
        if tally.outcome is Outcome.PENDING:
            line.todo += tally.rows
        elif tally.outcome.succeeded:
            line.good += tally.rows
        else:
            line.bad += tally.rows
            code = why(tally.outcome, tally.reason, tally.errcode, tally.store_code)
            if code is not None:
                line.codes[code.code] += tally.rows
    return sorted(lines.values(), key=lambda line: (-line.bad, line.merchant, line.appid))


# --- causes and tables ----------------------------------------------------------------------------------------------

_OPTIONS = _("Names that begin with -- are options of the command line.")


def render_codes(groups: Sequence[CodeGroup], lang: Lang) -> str:
    """Draw the codes, with their rows and merchants, what they mean and what to do."""
    heads = [COLUMNS[name] for name in ("code", "rows", "merchants", "meaning", "action")]
    title = _("What went wrong, and what to do").of(lang)
    rows = [
        (_code(g.code), g.rows, _merchants(g, lang), g.meaning.of(lang), g.action.of(lang)) for g in groups
    ]
    note = f'<p class="op-quiet">{esc(_OPTIONS.of(lang))}</p>'
    drawn = table(heads, rows, "hnttt", lang, label=title, classes="op-by-code")
    return f"{heading(title)}{drawn}{note}"


def _code(code: str) -> str:
    """Draw a code with its colour; the grid makes it a button."""
    return f'<span class="op-code" data-code="{esc(code)}"><i style="background:{code_colour(code)}"></i>{esc(code)}</span>'


def _merchants(group: CodeGroup, lang: Lang) -> str:
    names = ", ".join(share.merchant for share in group.merchants[:NAMED])
    more = len(group.merchants) - NAMED
    return names + _(" and {more:,} more", more=more).of(lang) * (more > 0)


def frame_html(frame: Any, lang: Lang, label: str) -> str:
    """Draw a DataFrame with heads in the panel's language."""
    named = [name for name in frame.index.names if name is not None]
    labelled = frame.reset_index() if named else frame
    heads = [COLUMNS[name] if name in _OF_FRAMES else verbatim(str(name)) for name in labelled.columns]
    kinds = "".join("n" if kind.kind in "iuf" else "t" for kind in labelled.dtypes)
    rows = labelled.head(LINES).itertuples(index=False, name=None)
    more = len(frame) - LINES
    rest = f"<p>{esc(_('… and {more:,} more', more=more).of(lang))}</p>" if more > 0 else ""
    return table(heads, rows, kinds, lang, label=label) + rest
