"""Results as HTML for notebooks, which the engine escapes."""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tcb_ops import formatting, shell
from tcb_ops.engine.next_commands import resume
from tcb_ops.engine.stop_errors import stop_text
from tcb_ops.errors import InputError, TcbOpsError, problem_line
from tcb_ops.formatting import format_duration, format_size
from tcb_ops.frames import METADATA, SHOWN, Lines
from tcb_ops.hooks import DiagnosisHooks, hooks
from tcb_ops.i18n import Lang, Text, _, as_list, in_python, ngettext, pgettext, verbatim
from tcb_ops.kinds import Kind
from tcb_ops.lists.batch import facts_line
from tcb_ops.model import Outcome, Problem, target_name
from tcb_ops.reports.explanations import change_lines, confirmation_text, run_title
from tcb_ops.reports.export import PAGE, Report, local_file
from tcb_ops.reports.rendering import environment
from tcb_ops.reports.summary import RunSummary
from tcb_ops.settings import Settings, default_lang

if TYPE_CHECKING:
    from tcb_ops.lists.batch import Batch
    from tcb_ops.reports.findings import Findings, FindingSection

_PROBLEMS = 50
"""Problems shown of a list that is refused."""
_PROBLEM_HEADS = ("line", "column", "value", "problem", "fix")
_HEADS = {
    "action": pgettext("column", "what to do"),
    "bytes": pgettext("column", "bytes"),
    "changed_at": pgettext("column", "changed at"),
    "changed_by": pgettext("column", "changed by"),
    "code": _("code"),
    "column": _("column"),
    "daily_limit": pgettext("column", "calls a day"),
    "decision": pgettext("column", "decision"),
    "default": pgettext("column", "default"),
    "doubt": pgettext("column", "doubt"),
    "env": _("environment"),
    "env_status": pgettext("column", "status"),
    "errcode": _("code"),
    "fix": pgettext("column", "what to do"),
    "found": pgettext("column", "found"),
    "found_by": pgettext("column", "found by"),
    "known": pgettext("column", "known"),
    "left": pgettext("column", "has left"),
    "line": _("line"),
    "meaning": _("meaning"),
    "merchant": _("merchant"),
    "message": _("text for the merchant"),
    "name": pgettext("column", "name"),
    "owner": pgettext("column", "owner"),
    "path": _("path"),
    "problem": _("problem"),
    "remain": pgettext("column", "left"),
    "rows": _("rows"),
    "run": _("run"),
    "scope": pgettext("column", "scope"),
    "state": pgettext("column", "state"),
    "text": pgettext("column", "result"),
    "used": pgettext("column", "used"),
    "value": pgettext("column", "value"),
    "what": pgettext("column", "what"),
    "who": pgettext("column", "who must act"),
    "works": pgettext("column", "ready"),
}
"""What cards call the columns of tables. Other columns, a list's own too, keep their names."""
_YES_OR_NO = {True: pgettext("cell", "yes"), False: pgettext("cell", "no")}


def run_html(
    summary: RunSummary,
    settings: Settings,
    holder: Text | None = None,
    *,
    findings: Findings | None = None,
    resumable: bool = False,
) -> str:
    """Render a card: the run, its target, how its rows ended, when, by whom, and where its report is.

    `holder`: who works on it. `findings`: of a finished run. `resumable`: whether it can be resumed if nobody does.
    """
    run, counts, zone = summary.run, summary.counts, settings.zone
    lines: list[Text] = [] if run.stopped is None else [stop_text(run.stopped)]
    lines += [] if findings is None or (since := findings.since(zone)) is None else [since]
    lines += change_lines(summary.changed_by, zone)
    lines += [] if summary.confirmed is None else [confirmation_text(*summary.confirmed)]
    calls: list[tuple[Text, str]] = []
    if holder is not None:
        lines.append(holder)
    elif resumable:
        command = shell.join(
            resume(settings, run, canary=counts.keys() <= Outcome.successes() | {Outcome.PENDING})
        )
        calls.append((_("To resume it:"), shell.as_call(command)))
    if any(group.code != Outcome.PENDING for group in summary.codes):
        calls.append((_("Why, and what to do:"), "run.causes()"))
    begun = datetime.fromtimestamp(run.created_at, zone).isoformat(" ", "minutes")
    when = _("begun {moment}, took {duration}", moment=begun, duration=format_duration(run.seconds))
    about = (
        _("Target: {target}", target=target_name(run.target)).of(settings.lang),
        run.id,
        run.operator,
        when.of(settings.lang),
    )
    files = []
    if run.links and (links := Path(run.links)).exists():
        here = links.resolve().is_relative_to(Path.cwd().resolve())
        label = _("Links:") if here else _("Links, outside the working folder:")
        files.append((label, local_file(links)[0], ""))
    if run.report and (report := Path(run.report)).exists():
        files.append((_("Report:"), local_file(report)[0], local_file(report / PAGE)[1]))
    card = _macros(settings.lang).run_card
    return str(card(run, run_title(run), summary.verdict, counts, lines, calls, about, files))


def batch_html(batch: Batch, lang: Lang) -> str:
    """Render a card: the rows of a list, what was detected, the problems of rows that are skipped, and the merchants."""
    problems = batch.problems
    listed = _problem_lines(problems[:SHOWN], lang)
    wrong = None
    if rows := problems.rows:
        wrong = ngettext(
            "{n:,} row has problems and is skipped:", "{n:,} rows have problems and are skipped:", rows
        )
    columns = slice(4 if batch.root is not None else 3)  # without files there are no sizes
    names: tuple[Text, ...] = (
        pgettext("column", "merchant"),
        _("environments"),
        pgettext("column", "rows"),
        _("size"),
    )
    merchants = [
        (merchant or appid, envs, count, format_size(size))[columns]
        for appid, merchant, envs, count, size in batch.by_merchant()
    ]
    return str(
        _macros(lang).batch_card(
            batch.source.name,
            in_python(facts_line(batch), lang),
            in_python(batch.decided.format(name=batch.source.name), lang),
            batch.warnings,
            (listed, len(problems) - len(listed)),
            heads_of(_PROBLEM_HEADS, lang),
            wrong,
            merchants,
            [name.of(lang) for name in names[columns]],
            SHOWN,
        )
    )


class CauseGroup(NamedTuple):
    """What a causes card shows of one code."""

    code: str
    rows: Text
    """How many, in the unit of the run's kind."""
    meaning: str
    action: str
    who: str
    merchants: list[str]


def steps_html(title: Text, steps: Sequence[tuple[str, str]], lang: Lang) -> str:
    """Render what to do: a text for each step, and the call or the command that does it."""
    return str(_macros(lang).steps_card(title, steps))


def causes_html(lines: Iterable[Any], verdicts: Mapping[str, Any], kind: Kind, lang: Lang) -> str:
    """Render causes by code: what it means, what to do, who must act, and the merchants; `lines` as in `Run.causes`."""
    return groups_html(*_cause_groups(lines, verdicts, kind, lang), lang)


def groups_html(title: Text, groups: Sequence[CauseGroup], lang: Lang) -> str:
    """Render causes that are grouped already."""
    return str(_macros(lang).causes_card(title, groups, SHOWN))


def causes_text(lines: Iterable[Any], verdicts: Mapping[str, Any], kind: Kind, lang: Lang) -> str:
    """Render causes by code for a terminal."""
    title, groups = _cause_groups(lines, verdicts, kind, lang)
    text = _("{code} · {rows} · {names}: {meaning} → {action}")
    listed = (text.format(**group._asdict(), names=as_list(group.merchants, 3)).of(lang) for group in groups)
    return "\n".join((title.of(lang), *listed))


def _cause_groups(
    lines: Iterable[Any], verdicts: Mapping[str, Any], kind: Kind, lang: Lang
) -> tuple[Text, list[CauseGroup]]:
    groups: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for line in lines:
        groups[line.code, line.meaning, line.action][line.merchant or line.appid or line.env] += line.rows
    shown: list[tuple[int, CauseGroup]] = []
    diagnosis = hooks(DiagnosisHooks)
    for (code, meaning, action), merchants in groups.items():
        verdict, who = verdicts.get(code), ""
        if verdict is not None:
            meaning, action = verdict.meaning.of(lang), verdict.action.of(lang)  # noqa: PLW2901  what WeChat answered
        elif code != Outcome.PENDING and diagnosis is not None:
            verdict = diagnosis.presumed(code, "", "", "")
        if verdict is not None:
            who = verdict.who_acts.of(lang)
        names = [name for name, _rows in merchants.most_common()]
        rows = merchants.total()
        shown.append((rows, CauseGroup(code, kind.unit_count(rows), meaning, action, who, names)))
    shown.sort(key=lambda counted: -counted[0])
    title = errcodes_title([rows for rows, _group in shown], kind)
    return title, [group for _rows, group in shown]


def errcodes_title(rows: Sequence[int], kind: Kind) -> Text:
    """Say how many rows did not succeed; `rows`: of each cause."""
    if not rows:
        return _("Nothing is wrong: every row succeeded.")
    return ngettext(
        "{label}: {rows}, {n:,} cause.",
        "{label}: {rows}, {n:,} causes.",
        len(rows),
        label=kind.bad_label,
        rows=kind.unit_count(sum(rows)),
    )


def errcodes_html(
    codes: Sequence[str], lines: Sequence[tuple[str, str, str, Sequence[int]]], kind: Kind, lang: Lang
) -> str:
    """Render how many rows ended with which code, by merchant and environment, below the sums of all.

    `lines`: merchant, appid, environment, and the numbers in the order of the codes. An appid is shown where merchants share a name.
    """
    sums = [sum(counts) for counts in zip(*(line[-1] for line in lines), strict=True)]
    appids = defaultdict[str, set[str]](set)
    for name, appid, _env, _counts in lines:
        appids[name].add(appid)
    shown: list[tuple[object, ...]] = [(_("all merchants").of(lang), "", sum(sums), *sums)] if lines else []
    for name, appid, env, counts in lines[:SHOWN]:
        merchant = f"{name} {appid}".strip() if len(appids[name]) > 1 else name or appid
        shown.append((merchant, env, sum(counts), *(count or "" for count in counts)))
    heads = [*heads_of(("merchant", "env", "rows"), lang), *codes]
    return str(_macros(lang).lines_card(errcodes_title(sums, kind), heads, shown, len(lines) - SHOWN))


def report_html(report: Report, lang: Lang) -> str:
    """Render the files of a report's folder, with links if it is below the working folder."""
    files = [(*local_file(file), format_size(file.stat().st_size)) for file in report.files]
    names = [
        (file.name, address, size) for file, (_name, address, size) in zip(report.files, files, strict=True)
    ]
    return str(_macros(lang).report_card(local_file(report.folder)[0], names))


def error_html(error: TcbOpsError, lang: Lang) -> str:
    """Render an error: what happened and what to do, its problems as a table, and where in the code, folded."""
    calls = {*map(shell.as_call, error.text.commands())}
    lines = [(line, line in calls) for line in formatting.lines(error.python_text(lang)).split("\n") if line]
    # The only problem is what the error says.
    problems = error.problems[:_PROBLEMS] if len(error.problems) > 1 else ()
    heads, listed = heads_of(_PROBLEM_HEADS, lang), _problem_lines(problems, lang)
    rest = len(error.problems) - len(problems)
    card = _macros(lang).error_card
    return str(card(_public_name(error), lines, heads, listed, rest, _trace(error)))


def problems_html(error: InputError, lang: Lang) -> str:
    """Render what is wrong with a list, in place of the list."""
    lines, rest = _problem_lines(error.problems[:SHOWN], lang), len(error.problems) - SHOWN
    return str(_macros(lang).lines_card(verbatim(error.source), heads_of(_PROBLEM_HEADS, lang), lines, rest))


def _problem_lines(problems: Iterable[Problem], lang: Lang) -> list[tuple[object, ...]]:
    """Return problems as lines of a table; one of the file as a whole has no line number."""
    lines = (problem_line(problem, lambda text: in_python(text, lang)) for problem in problems)
    return [(number or "", *others) for number, *others in lines]


def attended() -> bool:
    """Return whether a person sees the cell that is executed, and can press a button.

    A front end lets a cell ask for input; a program that executes notebooks does not (`allow_stdin` of Jupyter's message
    execute_request). Voila executes them as a program does, for a person.
    """
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell is None or not hasattr(shell, "get_parent"):
        return False
    asked = shell.get_parent().get("content", {}).get("allow_stdin", False)
    return bool(asked) or "VOILA_REQUEST_URL" in os.environ


def show_error(error: TcbOpsError) -> str | None:
    """Show an error as a card, if this is the kernel of a notebook; return what is left to say in place of its trace.

    A program that executes notebooks prints what stands there, so it gets the problem again. The output's metadata says to programs what the error is. None: there is no kernel.
    """
    ipython: Any = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    lang, raised = default_lang(), id(error.__traceback__)
    if error.shown_as_raised != raised:  # IPython asks twice: for the screen, and for its history
        error.shown_as_raised = raised
        card = {"text/html": error_html(error, lang), "text/plain": error.python_text(lang)}
        result = {"exit_code": error.exit_code, "text": {each: in_python(error.text, each) for each in Lang}}
        ipython.display.display(card, metadata={METADATA: result}, raw=True)
    below = _("shown above; the cells below were not run.") if attended() else error.problem
    return f"{_public_name(error)}: {in_python(below, lang)}"


def _public_name(error: TcbOpsError) -> str:
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == TcbOpsError.__module__)


def _trace(error: TcbOpsError) -> str:
    """Return where an error was raised, from the cell on, without the folders of this machine."""
    lines = []
    for frame in traceback.extract_tb(error.__traceback__)[1:]:
        file = Path(frame.filename)
        place = local_file(file)[0] if file.exists() else "cell"
        lines.append(f"{place}:{frame.lineno} {frame.name}\n    {frame.line}")
    return "\n".join(lines)


def target_html(target: Text, live: bool, lang: Lang) -> str:
    """Render where the calls of a notebook go."""
    return str(_macros(lang).target_card(target, live))


def sections_html(
    verdict: Text, sections: Sequence[FindingSection], lang: Lang, notes: Sequence[Text] = ()
) -> str:
    """Render what was found or has changed, a small table per section."""
    return str(_macros(lang).sections_card(verdict, sections, notes, SHOWN))


def findings_html(findings: Findings, lang: Lang) -> str:
    """Render what a run found."""
    if findings.stopped is not None:
        return sections_html(findings.stopped, (), lang)
    return sections_html(findings.summary(), findings.sections(), lang, list(findings.notes()))


def table_html(table: Lines, lang: Lang) -> str:
    """Render the first lines of a table."""
    lines = [[_cell(cell, lang) for cell in line] for line in islice(table.lines, SHOWN)]
    own = len(table.names) - table.listed
    heads = (*table.headers, *heads_of(table.names[:own], lang), *table.names[own:])
    return str(_macros(lang).lines_card(table.caption, heads, lines, table.total - SHOWN))


def heads_of(names: Iterable[str], lang: Lang) -> list[str]:
    """Return what people read in place of our columns' names."""
    heads = _HEADS | {outcome: outcome.label for outcome in Outcome.all()}
    return [heads[name].of(lang) if name in heads else name for name in names]


def _cell(value: object, lang: Lang) -> object:
    text = _YES_OR_NO[value] if isinstance(value, bool) else value
    return in_python(text, lang) if isinstance(text, Text) else "" if text is None else text


def _macros(lang: Lang) -> Any:
    return environment(lang).get_template("notebook.html.j2").module
