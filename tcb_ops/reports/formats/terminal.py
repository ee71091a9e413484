"""Terminal output about runs: errcodes, rows, lists of runs, diffs, and verifications."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tcb_ops.catalogue import all_reasons
from tcb_ops.formatting import sanitize, shorten, wrap
from tcb_ops.i18n import NOTHING, Lang, Text, _, ngettext, pgettext
from tcb_ops.kinds import MissingKind, row_count
from tcb_ops.model import SIMULATOR, Outcome, Reason
from tcb_ops.reports.explanations import code_label, merchant_text, reason_text, why
from tcb_ops.reports.summary import CodeGroup, MerchantShare, by_code
from tcb_ops.secrets import masked
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.measure import Measurement

    from tcb_ops.ledger.records import RowRecord, RunRecord
    from tcb_ops.reports.findings import FindingLine, Findings, FindingSection

MOST_CODES = 20
"""Codes shown per run."""
MERCHANT_LINES = 40
"""Lines of merchants, for all codes together."""
FEWEST_LINES = 3
"""Lines that each code may take at least."""
NAME_CELLS, ENV_CELLS = 30, 28
"""Cells that a merchant's name and its environments take at most below a code."""
NOTE_INDENT = 7
"""Cells by which a run's list and note are indented below its figures."""


def render_errcodes(
    groups: Sequence[CodeGroup],
    lang: Lang,
    rest: str = "errcodes.csv",
    indent: int = 0,
    *,
    texts: bool = False,
    remarks: Mapping[tuple[str, str], Text] = MappingProxyType({}),
) -> RenderableType:
    """Render a run's codes: each with its texts, and its merchants and their rows below.

    `texts`: also what to tell the merchant, where it must act; of several, the one with the most rows. `remarks`: by appid and
    environment. Limited to a screen or two; what is left out is counted, and `rest` names where it can be found.
    """
    from rich.console import Group
    from rich.padding import Padding

    def wrapped(text: str, more: int = 0, bold: int = 0, style: str = "") -> RenderableType:
        return Padding(Wrapped(text, bold, style), (0, 0, 0, indent + more))

    drawn: list[RenderableType] = []
    blocks = _merchant_lines(groups, lang, rest, remarks)
    for group, lines in zip(groups[: len(blocks)], blocks, strict=True):
        code = sanitize(group.code)
        head = f"{code} · {row_count(group.rows).of(lang)} · {sanitize(group.meaning.of(lang))}"
        drawn += [wrapped(head, bold=len(code)), wrapped(f"→ {group.action.of(lang)}")]
        if group.detail:
            drawn.append(wrapped(sanitize(group.detail.of(lang)), more=2, style="italic"))
        drawn.append(AlignedTable(lines, frozenset({2}), frozenset({0}), 3, indent=indent + 2))
        first = group.merchants[0]
        message = merchant_text(group.code, first.appid, first.merchant, first.envs[0])
        if message is not None and texts:
            text = _("Text for the merchant: {text}", text=message)
            drawn.append(wrapped(sanitize(text.of(lang)), more=2, style="italic"))
        drawn.append("")
    if hidden := groups[len(blocks) :]:
        text = _(
            "… and {more_codes} · {rows}: {rest}",
            more_codes=ngettext("{n:,} more code", "{n:,} more codes", len(hidden)),
            rows=row_count(sum(group.rows for group in hidden)),
            rest=rest,
        )
        drawn.append(wrapped(text.of(lang)))
    return Group(*drawn)


def _merchant_lines(
    groups: Sequence[CodeGroup], lang: Lang, rest: str, remarks: Mapping[tuple[str, str], Text]
) -> list[list[tuple[str, ...]]]:
    """Return the lines below each code that is shown: name, environments, rows, remark; the last may count other merchants."""
    shown = groups[:MOST_CODES]
    most = max(FEWEST_LINES, MERCHANT_LINES // max(1, len(shown)))
    blocks = []
    for group in shown:
        count = len(group.merchants) if len(group.merchants) <= most else most - 1
        lines: list[tuple[str, ...]] = []
        for share in group.merchants[:count]:
            remark = next(
                (remarks[share.appid, env] for env in share.envs if (share.appid, env) in remarks), None
            )
            name, told = (
                shorten(sanitize(share.merchant or "–"), NAME_CELLS),
                "" if remark is None else remark.of(lang),
            )
            lines.append((name, _first_env(share), f"{share.rows:,}", told))
        if hidden := group.merchants[count:]:
            more = _(
                "… and {more_merchants}",
                more_merchants=ngettext("{n:,} more merchant", "{n:,} more merchants", len(hidden)),
            )
            # Users copy the command in `rest`: never shorten it.
            lines.append((more.of(lang), rest, f"{sum(share.rows for share in hidden):,}", ""))
        blocks.append(lines if any(line[3] for line in lines) else [line[:3] for line in lines])
    return blocks


def _first_env(share: MerchantShare) -> str:
    more = f" +{len(share.envs) - 1}" if len(share.envs) > 1 else ""
    return shorten(f"{sanitize(share.envs[0] or '–')}{more}", ENV_CELLS)


FINDING_LINES = 20
"""Environments shown per section without causes; the others are counted."""


def render_findings(findings: Findings, lang: Lang, rest: str = "errcodes.csv") -> Iterator[RenderableType]:
    """Render what a run found by section, with each cause once."""
    yield from render_sections(findings.sections(), lang, rest)
    for note in findings.notes():
        yield Wrapped(note.of(lang))


def render_sections(
    sections: Sequence[FindingSection], lang: Lang, rest: str, most: int = FINDING_LINES
) -> Iterator[RenderableType]:
    """Render sections of findings or of changed rows; `rest` names where what is left out can be found: `most` lines are shown of each."""
    from rich.text import Text as Styled

    for section in sections:
        yield Styled(f"{section.title.of(lang)} · {section.count:,}", style="bold")
        if section.action is not None:
            yield Wrapped(f"→\u00a0{sanitize(section.action.of(lang))}")
        if section.command is not None:  # for copying: not broken
            yield section.command
        if section.causes:
            remarks = {
                (line.appid, line.env): line.remark for line in section.lines if line.remark is not None
            }
            yield render_errcodes(by_code(section.causes), lang, rest, indent=2, remarks=remarks)
        else:
            yield _finding_lines(section.lines, lang, rest, most)
            yield ""


def _finding_lines(lines: Sequence[FindingLine], lang: Lang, rest: str, most: int) -> AlignedTable:
    def code_text(code: str | None) -> str:
        if not code:
            return "–" if code is None else _("succeeded").of(lang)
        label = code_label(code).of(lang)
        return label if code in all_reasons() else f"{code} {label}".rstrip()

    cells = [
        [
            line.name,
            line.env,
            f"{line.rows:,}" if line.rows else "",
            " → ".join(map(code_text, line.codes())) if line.before else line.code or "",
            line.remark.of(lang) if line.remark is not None else "",
            line.note,
        ]
        for line in lines[:most]
    ]
    if (more := len(lines) - most) > 0:
        cells.append([_("… and {count:,} more", count=more).of(lang), rest, "", "", "", ""])
    filled = [column for column in range(6) if any(line[column] for line in cells)]
    drawn = [[sanitize(line[column]) for column in filled] for line in cells]
    return AlignedTable(drawn, elastic=frozenset(range(len(filled))), gap=3, head=False, indent=2)


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

    @property
    def cells(self) -> int:
        """Cells of a line if nothing is shortened."""
        widths = self.widths(sys.maxsize)
        return sum(widths) + self.gap * (len(widths) - 1)

    def widths(self, most: int) -> list[int]:
        """Return the columns' widths, with the gaps at most `most` cells if the elastic ones allow it.

        The widest elastic column is narrowed first, none below 8 cells.
        """
        widths = [max(map(cell_len, column)) for column in zip(*self.lines, strict=True)]
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
        texts = (sanitize(row.merchant), sanitize(row.env), sanitize(masked(row.path)))
        lines.append([f"{row.line}", *texts, end.outcome.label.of(lang), code])
    yield AlignedTable(lines, numbers=frozenset({0}), elastic=frozenset({1, 2, 3}))
    for named, means, todo in causes:
        yield ""
        yield Wrapped(f"{named} · {means}", bold=len(named))
        yield Wrapped(f"→ {todo}")


def render_runs(
    runs: Sequence[tuple[RunRecord, Mapping[Outcome, int], Text | None]],
    settings: Settings,
    lang: Lang,
    width: int,
) -> Iterator[RenderableType]:
    """Render a line per run: id, kind, target and rows; the lists and notes beside it if all fit, otherwise below.

    Each run comes with its rows by outcome, and what later runs did to its files (None: nothing), which stands before the list.
    A list and note too long for a line of their own are shortened.
    """
    from rich.text import Text as Styled

    heads = (_("run"), _("kind"), _("target"), _("rows"), _("ok"), _("not ok"), _("pending"))
    lines = [[head.of(lang) for head in heads], *(_run_cells(run, counts, lang) for run, counts, _ in runs)]
    numbers = frozenset(range(3, len(heads)))
    notes = [
        [_("list, note").of(lang)],
        *(_list_and_note(run, mark, settings, lang) for run, _, mark in runs),
    ]
    joined = map(" · ".join, notes)
    beside = AlignedTable([[*line, note] for line, note in zip(lines, joined, strict=True)], numbers)
    if beside.cells <= width:
        yield beside
        return
    for number, line in enumerate(AlignedTable(lines, numbers).drawn(width)):
        note = " " * NOTE_INDENT + _fit(notes[number], width - NOTE_INDENT)
        for text in (line, note):
            yield Styled(text, style="" if number else "bold", no_wrap=True)


def _run_cells(run: RunRecord, counts: Mapping[Outcome, int], lang: Lang) -> list[str]:
    total, pending = sum(counts.values()), counts.get(Outcome.PENDING, 0)
    good = sum(rows for outcome, rows in counts.items() if outcome.succeeded)
    bad = total - good - pending
    target = pgettext("target", "SIMULATED") if run.simulated else _("LIVE")
    judged = (f"{good:,}", f"{bad:,}" if bad else "–")
    if isinstance(run.kind, MissingKind):
        judged = ("–", "–")
    return [
        run.id,
        run.kind.label.of(lang),
        target.of(lang),
        f"{total:,}",
        *judged,
        f"{pending:,}" if pending else "–",
    ]


def _list_and_note(run: RunRecord, mark: Text | None, settings: Settings, lang: Lang) -> list[str]:
    marked = mark.of(lang) if mark is not None else ""
    retry = (_("retry") if run.parent else _("correction") if run.corrects else NOTHING).of(lang)
    elsewhere = run.target not in {settings.run_target, SIMULATOR}
    target = (
        _("target {target}", target=run.target.partition("://")[2] or run.target).of(lang)
        if elsewhere
        else ""
    )
    return list(filter(None, (marked, retry, sanitize(run.list_name), sanitize(run.note), target)))


def _fit(parts: Sequence[str], width: int) -> str:
    table = AlignedTable([parts], elastic=frozenset(range(len(parts))), gap=3)
    return " · ".join(map(shorten, parts, table.widths(width)))
