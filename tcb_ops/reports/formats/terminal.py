"""Terminal output about runs: errcodes, rows, lists of runs, diffs, and verifications."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from tcb_ops.formatting import sanitize, wrap
from tcb_ops.i18n import Lang, Text, _, as_list, as_sentences, ngettext, pgettext
from tcb_ops.kinds import MissingKind, row_count
from tcb_ops.model import SIMULATOR, Outcome, Reason, is_simulated
from tcb_ops.reports.comparisons import Change, Diff, DiffLine, change_title, diff_verdict
from tcb_ops.reports.explanations import reason_text, why
from tcb_ops.reports.summary import CodeGroup, MerchantShare, by_code
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.measure import Measurement
    from rich.table import Table

    from tcb_ops.features.evidence.verify import Verification
    from tcb_ops.reports.findings import FindingLine, Findings
    from tcb_ops.runs.records import RowRecord, RunRecord

MOST_CODES = 20
"""Codes shown per run."""
MERCHANT_LINES = 40
"""Lines of merchants, for all codes together."""
FEWEST_LINES = 3
"""Lines that each code may take at least."""
DIFF_CODES, DIFF_MERCHANTS = 8, 10
"""Codes shown per change, and merchants per code; the others are counted."""
NAME_CELLS, ENV_CELLS = 30, 28
"""Cells that a merchant's name and its environments take at most below a code."""
NOTE_INDENT = 7
"""Cells by which a run's list and note are indented below its figures."""
_SHOWN = (Change.NEWLY_BROKEN, Change.STILL_BROKEN, Change.FIXED, Change.ONLY_IN_NEWER, Change.ONLY_IN_OLDER)


def render_errcodes(
    groups: Sequence[CodeGroup],
    lang: Lang,
    rest: str = "errcodes.csv",
    every: Sequence[Sequence[str]] = (),
    indent: int = 0,
) -> RenderableType:
    """Render a run's codes: each with its texts, and its merchants and their rows below, aligned.

    Limited to a screen or two; what is left out is counted, and `rest` names where it can be found. `every`: the lines of
    merchants with which these are aligned, if they are not the only ones.
    """
    from rich.console import Group
    from rich.padding import Padding

    def wrapped(text: str, more: int = 0, bold: int = 0, style: str = "") -> RenderableType:
        return Padding(Wrapped(text, bold, style), (0, 0, 0, indent + more))

    drawn: list[RenderableType] = []
    blocks = merchant_lines(groups, lang, rest)
    every = every or list(chain(*blocks))
    for group, lines in zip(groups[: len(blocks)], blocks, strict=True):
        code = sanitize(group.code)
        head = f"{code} · {row_count(group.rows).of(lang)} · {sanitize(group.meaning.of(lang))}"
        drawn += [wrapped(head, bold=len(code)), wrapped(f"→ {group.action.of(lang)}")]
        if group.detail:
            drawn.append(wrapped(sanitize(group.detail.of(lang)), more=2, style="italic"))
        drawn += [_aligned(lines, every, indent + 2), ""]
    if left := groups[len(blocks) :]:
        text = _(
            "… and {more_codes} · {rows}: {rest}",
            more_codes=ngettext("{n:,} more code", "{n:,} more codes", len(left)),
            rows=row_count(sum(group.rows for group in left)),
            rest=rest,
        )
        drawn.append(wrapped(text.of(lang)))
    return Group(*drawn)


def _aligned(lines: Sequence[Sequence[str]], every: Sequence[Sequence[str]], indent: int) -> AlignedTable:
    """Align lines of merchant, environments, rows, and perhaps a remark, with all lines that are shown."""
    return AlignedTable(
        lines, frozenset({2}), frozenset({0}), gap=3, head=False, indent=indent, aligned_with=every
    )


def merchant_lines(groups: Sequence[CodeGroup], lang: Lang, rest: str) -> list[list[tuple[str, str, str]]]:
    """Return the lines below each code that is shown: name, environments, rows; the last may count other merchants."""
    shown = groups[:MOST_CODES]
    blocks = []
    for group, count in zip(shown, _share([len(group.merchants) for group in shown]), strict=True):
        lines = [
            (_short_name(share.merchant), _envs(share), f"{share.rows:,}")
            for share in group.merchants[:count]
        ]
        if left := group.merchants[count:]:
            more = _(
                "… and {more_merchants}",
                more_merchants=ngettext("{n:,} more merchant", "{n:,} more merchants", len(left)),
            )
            # Users copy the command in `rest`: never shorten it.
            lines.append((more.of(lang), rest, f"{sum(share.rows for share in left):,}"))
        blocks.append(lines)
    return blocks


def _share(wanted: Sequence[int]) -> list[int]:
    """Divide the lines among the codes' merchants: codes with many get what the others leave.

    ================  ==========
    wanted            given
    ================  ==========
    3                 3
    300               39
    300, 2            37, 2
    300, 300          19, 19
    20 times 300      20 times 2
    ================  ==========
    """
    given = [0] * len(wanted)
    left = MERCHANT_LINES
    smallest_first = sorted(range(len(wanted)), key=lambda place: wanted[place])
    for served, place in enumerate(smallest_first):
        fair = max(FEWEST_LINES, left // (len(wanted) - served))
        # One line is for "… and N more merchants".
        given[place] = wanted[place] if wanted[place] <= fair else fair - 1
        left -= given[place] + (given[place] < wanted[place])
    return given


def _short_name(merchant: str) -> str:
    return shorten(sanitize(merchant), NAME_CELLS)


def _envs(share: MerchantShare) -> str:
    more = f" +{len(share.envs) - 1}" if len(share.envs) > 1 else ""
    return shorten(f"{sanitize(share.envs[0])}{more}", ENV_CELLS)


def render_diff(diff: Diff, lang: Lang) -> RenderableType:
    """Render the rows of a diff that failed in either run: by change and code, and below each its merchants.

    Fixed rows, and those only in the older run, are under their code in that run, all others under the newer one. The
    last line is the summary.
    """
    from rich.console import Group
    from rich.text import Text as Styled

    def folded(text: str, style: str = "") -> Styled:
        return Styled(text, style=style, overflow="fold", no_wrap=False)

    drawn: list[RenderableType] = []
    every: list[tuple[str, str, str, str]] = []  # complete when the first of them is drawn
    for change in _SHOWN:
        codes = _lines_by_code([line for line in diff.of(change) if line.before or line.after], change)
        if not codes:
            continue
        rows = sum(line.rows for _, lines in codes for line in lines)
        drawn.append(folded(f"{change_title(change).of(lang)} · {row_count(rows).of(lang)}", "bold"))
        for code, lines in codes[:DIFF_CODES]:
            count = row_count(sum(line.rows for line in lines)).of(lang)
            head = " · ".join((sanitize(code), count, diff.meanings[code].of(lang)))
            block = list(_merchants(lines, change, lang))
            every += block
            drawn += [folded(f"  {head}"), _aligned(block, every, 4)]
        if left := codes[DIFF_CODES:]:
            rows = sum(line.rows for _, lines in left for line in lines)
            more = _(
                "  … and {more_codes}, {rows}: --json lists all",
                more_codes=ngettext("{n:,} more code", "{n:,} more codes", len(left)),
                rows=row_count(rows).of(lang),
            )
            drawn.append(folded(more.of(lang)))
        drawn.append("")
    return Group(*drawn, folded(diff_verdict(diff).of(lang)))


def _lines_by_code(lines: Sequence[DiffLine], change: Change) -> list[tuple[str, list[DiffLine]]]:
    """Group lines by their code, most rows first."""

    def code(line: DiffLine) -> str:
        return line.before if change in {Change.FIXED, Change.ONLY_IN_OLDER} else line.after

    groups = [(key, list(found)) for key, found in groupby(sorted(lines, key=code), key=code)]
    return sorted(groups, key=lambda group: (-sum(line.rows for line in group[1]), group[0]))


def _merchants(lines: Sequence[DiffLine], change: Change, lang: Lang) -> Iterator[tuple[str, str, str, str]]:
    """Yield the merchants of a code that are shown, and how many more there are: name, environment, rows, remark."""
    ordered = sorted(lines, key=lambda line: (-line.rows, line.merchant, line.env))
    for line in ordered[:DIFF_MERCHANTS]:
        was = ""
        if change is Change.STILL_BROKEN and line.before != line.after:
            was = _("was {before}", before=sanitize(line.before)).of(lang)
        yield _short_name(line.merchant), shorten(sanitize(line.env), ENV_CELLS), f"{line.rows:,}", was
    if left := ordered[DIFF_MERCHANTS:]:
        more = _("… and {count:,} more", count=len(left))
        yield more.of(lang), "--json", f"{sum(line.rows for line in left):,}", ""


FINDING_LINES = 20
"""Environments shown per section without causes; the others are counted."""


def render_findings(findings: Findings, lang: Lang, rest: str = "errcodes.csv") -> Iterator[RenderableType]:
    """Render what a run found by section, with each cause once."""
    from rich.text import Text as Styled

    sections = findings.sections()
    codes = [by_code(section.causes) for section in sections]
    every = list(chain.from_iterable(chain(*(merchant_lines(its, lang, rest) for its in codes))))
    for section, its in zip(sections, codes, strict=True):
        yield Styled(f"{section.title.of(lang)} · {len(section.lines):,}", style="bold")
        if its:
            yield render_errcodes(its, lang, rest, every, indent=2)
        else:
            yield _finding_lines(section.lines, lang, rest)
            yield ""
    for note in findings.notes():
        yield Wrapped(note.of(lang))


def _finding_lines(lines: Sequence[FindingLine], lang: Lang, rest: str) -> AlignedTable:
    cells = [
        [line.name, line.env, line.code, line.remark.of(lang) if line.remark is not None else "", line.note]
        for line in lines[:FINDING_LINES]
    ]
    if (more := len(lines) - FINDING_LINES) > 0:
        cells.append([_("… and {count:,} more", count=more).of(lang), rest, "", "", ""])
    filled = [column for column in range(5) if any(line[column] for line in cells)]
    drawn = [[sanitize(line[column]) for column in filled] for line in cells]
    return AlignedTable(drawn, elastic=frozenset(range(len(filled))), gap=3, head=False, indent=2)


def shorten(text: str, width: int) -> str:
    """Shorten a text to at most `width` cells by leaving out its middle.

    ==================  =====  =============
    text                width  shortened
    ==================  =====  =============
    merchants.csv       13     merchants.csv
    merchants.csv       9      merc….csv
    十一月门店清单.csv  12     十一…单.csv
    ==================  =====  =============
    """
    if cell_len(text) <= width:
        return text
    tail = width // 2
    start, end = set_cell_size(text, width - 1 - tail), set_cell_size(text[::-1], tail)[::-1]
    return f"{start.rstrip()}…{end.lstrip()}"


def room(console: Console) -> int:
    """Return how many cells a line may have: unlimited for a pipe or a file, unless COLUMNS is set."""
    return console.width if console.is_terminal or "COLUMNS" in os.environ else sys.maxsize


@dataclass(frozen=True, slots=True)
class AlignedTable:
    """A table of one-line texts. If it is too wide, the longest cells of some columns are shortened."""

    lines: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    """Right-aligned columns."""
    elastic: frozenset[int] = frozenset()
    """Columns whose cells may be shortened."""
    gap: int = 2
    head: bool = True
    """Whether the first line is the head, in bold."""
    indent: int = 0
    """Cells before each line. Not rich's Padding: that cuts a line of a pipe, which may be of any length."""
    aligned_with: Sequence[Sequence[str]] = ()
    """All lines that have these widths; empty if they are the only ones."""

    def widths(self, most: int) -> list[int]:
        """Return the columns' widths, with the gaps at most `most` cells if the elastic ones allow it.

        The widest elastic column is narrowed first, none below 8 cells.
        """
        widths = [
            max(map(cell_len, column)) for column in zip(*(self.aligned_with or self.lines), strict=True)
        ]
        while sum(widths) + self.gap * (len(widths) - 1) > most:
            widest = max(self.elastic, key=lambda column: widths[column], default=None)
            if widest is None or widths[widest] <= 8:
                break
            widths[widest] -= 1
        return widths

    def drawn(self, most: int) -> list[str]:
        """Return the lines, at most `most` cells wide if the elastic columns allow it."""
        widths = self.widths(most)
        return [
            (" " * self.gap).join(map(self._cell, range(len(widths)), line, widths)).rstrip()
            for line in self.lines
        ]

    def _cell(self, column: int, text: str, width: int) -> str:
        text = shorten(text, width)
        space = " " * (width - cell_len(text))
        return space + text if column in self.numbers else text + space

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text as Styled

        for number, line in enumerate(self.drawn(room(console) - self.indent)):
            yield Styled(
                f"{' ' * self.indent}{line}",
                style="" if number or not self.head else "bold",
                no_wrap=True,
                overflow="ignore",
            )


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A wrapped text for rich; the first `bold` characters are bold."""

    text: str
    bold: int = 0
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text as Styled

        drawn = Styled(wrap(self.text, options.max_width), style=self.style, overflow="fold")
        drawn.stylize("bold", 0, self.bold)
        yield drawn

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(1, min(cell_len(self.text), options.max_width))


def render_rows(shown: Sequence[RowRecord], lang: Lang) -> Iterator[RenderableType]:
    """Render a line per row; then, once per cause, its meaning and what to do."""
    heads = (_("line"), _("merchant"), _("environment"), _("path"), _("outcome"), _("code"))
    lines = [[head.of(lang) for head in heads]]
    causes: dict[tuple[str, str, str], None] = {}
    for record in shown:
        row, end = record.row, record.end
        cause = why(end.outcome, end.reason, end.errcode, end.store_code)
        code = sanitize(cause.code) if cause is not None else ""
        if cause is not None:
            # Each invalid row may have broken a different rule.
            meaning = reason_text(end) if end.reason is Reason.INVALID else cause.meaning
            causes[code, sanitize(meaning.of(lang)), sanitize(cause.action.of(lang))] = None
        texts = (sanitize(row.merchant), sanitize(row.env), sanitize(row.path))
        lines.append([f"{row.line}", *texts, end.outcome.label.of(lang), code])
    yield AlignedTable(lines, numbers=frozenset({0}), elastic=frozenset({1, 2, 3}))
    for named, means, todo in causes:
        yield ""
        yield Wrapped(f"{named} · {means}", bold=len(named))
        yield Wrapped(f"→ {todo}")


def render_runs(
    found: Sequence[tuple[RunRecord, Mapping[Outcome, int], Text | None]],
    settings: Settings,
    lang: Lang,
    width: int,
) -> Iterator[RenderableType]:
    """Render a line per run: date, id, kind, target and rows; the lists and notes beside it if all fit, otherwise below.

    Each run comes with its rows by outcome, and what later runs did to its files (None: nothing), which stands before the list. To fit `width`, the time of day is left out first; a list and note too long for a line of their own are shortened.
    """
    from rich.text import Text as Styled

    pending = any(Outcome.PENDING in counts for _, counts, _mark in found)
    heads = [_("date"), _("run"), _("kind"), _("target"), _("rows"), _("ok"), _("not ok")]
    if pending:
        heads.append(_("pending"))
    beside = [_list_and_note(run, mark, settings, lang) for run, _, mark in found]
    for when, gap in (("%m-%d %H:%M", 2), ("%m-%d", 2), ("%m-%d", 1)):
        lines = [[head.of(lang) for head in heads]]
        lines += [_run_cells(run, counts, when, settings, pending=pending) for run, counts, _ in found]
        table = AlignedTable(lines, frozenset(range(4, len(heads))), gap=gap)
        figures = sum(table.widths(width)) + gap * len(heads)
        if figures - gap <= width:
            break
    notes = [_("list, note").of(lang), *map(" · ".join, beside)]
    inline = figures + max(map(cell_len, notes)) <= width
    if not inline:
        notes[1:] = [_fit(parts, width - NOTE_INDENT) for parts in beside]
    if inline:
        table = replace(table, lines=[[*line, note] for line, note in zip(lines, notes, strict=True)])
    for number, line in enumerate(table.drawn(width)):
        style = "" if number else "bold"
        yield Styled(line, style=style, no_wrap=True)
        if not inline:
            yield Styled(" " * NOTE_INDENT + notes[number], style=style, no_wrap=True)


def _run_cells(
    run: RunRecord, counts: Mapping[Outcome, int], when: str, settings: Settings, *, pending: bool
) -> list[str]:
    total, waiting = sum(counts.values()), counts.get(Outcome.PENDING, 0)
    good = sum(rows for outcome, rows in counts.items() if outcome.succeeded)
    bad = total - good - waiting
    judged = not isinstance(run.kind, MissingKind)
    return [
        datetime.fromtimestamp(run.created_at, settings.zone).strftime(when),  # the year is in the id
        run.id,
        str(run.kind),
        "SIMULATED" if is_simulated(run.target) else "LIVE",
        f"{total:,}",
        f"{good:,}" if judged else "–",
        f"{bad:,}" if bad and judged else "–",
        *([f"{waiting:,}" if waiting else "–"] if pending else []),
    ]


def _list_and_note(run: RunRecord, mark: Text | None, settings: Settings, lang: Lang) -> list[str]:
    """Return a run's mark, list and note, whether it is a retry, and its target if it is not the present one."""
    marked = mark.of(lang) if mark is not None else ""
    retry = _("retry").of(lang) if run.parent else ""
    elsewhere = run.target not in {settings.run_target, SIMULATOR}
    target = f"→ {run.target.partition('://')[2] or run.target}" if elsewhere else ""
    return list(filter(None, (marked, retry, sanitize(run.list_name), sanitize(run.note), target)))


def _fit(parts: Sequence[str], width: int) -> str:
    """Join texts within `width` cells, the longest ones shortened."""
    table = AlignedTable([parts], elastic=frozenset(range(len(parts))), gap=3)
    return " · ".join(map(shorten, parts, table.widths(width)))


def render_verification(found: Verification, lang: Lang) -> Table:
    """Render a line per check of a report folder."""
    from rich.table import Table
    from rich.text import Text as Styled

    marks = {"same": _("same"), "differs": _("DIFFERS"), "unknown": pgettext("check", "unknown")}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found.checks:
        mark = marks.get(check.state, _("not checked")).of(lang)
        style = "bold" if check.state == "differs" else ""
        table.add_row(
            Styled(mark, style=style),
            Styled(sanitize(check.what), style=style),
            sanitize(check.text.of(lang)),
        )
    return table


def verification_verdict(found: Verification) -> Text:
    """Sum up the checks of a report folder."""
    states = [str(check.state) for check in found.checks]
    if "differs" in states:
        checks = ngettext("{n:,} check", "{n:,} checks", len(states))
        text = _("The report of run {run} differs from what was exported: {count:,} of {checks} failed.")
        sums = [text.format(run=found.run, count=states.count("differs"), checks=checks)]
    elif "unknown" in states:
        text = _(
            "The files are as manifest.json has them, but the ledger does not know run {run}, so nothing proves "
            "the report (exit code 1)."
        )
        sums = [text.format(run=found.run)]
    else:
        sums = [_("Nothing differs in the report of run {run}.", run=found.run), found.proves]
    if names := [check.what for check in found.checks if check.state == "not_checked"]:
        sums.append(_("Not checked: {names}.", names=as_list(names)))
    return as_sentences(sums)
