"""What changed between two runs, drawn for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.measure import Measurement
from rich.text import Text as Styled

from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.reports.diff import Change, DiffLine, RunDiff, changed, diff_verdict

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

CODES, MERCHANTS = 8, 10
"""Codes of a change, and merchants of a code, that are shown; what is left out is counted."""
MORE = 16
"""Columns that "… and 290 more" takes under the merchants."""
_SHOWN = (
    Change.NEWLY_BROKEN,
    Change.STILL_BROKEN,
    Change.MENDED,
    Change.ONLY_IN_NEWER,
    Change.ONLY_IN_OLDER,
)


def render_diff(diff: RunDiff, lang: Lang) -> Table:
    """Draw each change that asks for something, or was hoped for: its codes, and under each the merchants.

    Newly and still broken rows stand under the code they have now, mended ones under the code they had. At the end
    stands the sum of everything.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text as Styled

    table = Table.grid()
    listed = [line for change in _SHOWN for line in diff.of(change) if line.before or line.after]
    widths = (
        max(min(max((cell_len(sanitize(line.merchant)) for line in listed), default=0), 30), MORE),
        min(max((cell_len(sanitize(line.env)) for line in listed), default=0), 28),
        max((len(f"{line.rows:,}") for line in listed), default=0),
    )
    for change in _SHOWN:
        codes = _by_code([line for line in diff.of(change) if line.before or line.after], change)
        if not codes:
            continue
        rows = sum(line.rows for _, lines in codes for line in lines)
        table.add_row(Styled(f"{changed(change).of(lang)} · {_rows(rows, lang)}", style="bold"))
        for code, lines in codes[:CODES]:
            count = _rows(sum(line.rows for line in lines), lang)
            said = " · ".join((sanitize(code), count, diff.meanings[code].of(lang)))
            table.add_row(Styled(f"  {said}", overflow="fold"))
            table.add_row(_merchants(lines, change, widths, lang))
        if left := codes[CODES:]:
            rows = sum(line.rows for _, lines in left for line in lines)
            more = Text(
                f"  … and {len(left)} more codes, {_rows(rows, lang)}: --json has all",
                f"  ……另有 {len(left)} 个错误码，{_rows(rows, lang)}：全部见 --json",
            )
            table.add_row(Styled(more.of(lang)))
        table.add_row("")
    table.add_row(Styled(diff_verdict(diff).of(lang), overflow="fold"))
    return table


def _by_code(lines: Sequence[DiffLine], change: Change) -> list[tuple[str, list[DiffLine]]]:
    """Lines by the code they stand under, most rows first."""

    def code(line: DiffLine) -> str:
        return line.before if change in {Change.MENDED, Change.ONLY_IN_OLDER} else line.after

    groups = [(key, list(found)) for key, found in groupby(sorted(lines, key=code), key=code)]
    return sorted(groups, key=lambda group: (-sum(line.rows for line in group[1]), group[0]))


def _merchants(lines: Sequence[DiffLine], change: Change, widths: tuple[int, int, int], lang: Lang) -> Table:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text as Styled

    ordered = sorted(lines, key=lambda line: (-line.rows, line.merchant, line.env))
    inner = Table.grid(padding=(0, 3, 0, 0))
    inner.add_column(no_wrap=True, width=widths[0])
    inner.add_column(no_wrap=True, width=widths[1])
    inner.add_column(no_wrap=True, width=widths[2], justify="right")
    inner.add_column(no_wrap=True)
    for line in ordered[:MERCHANTS]:
        was = ""
        if change is Change.STILL_BROKEN and line.before != line.after:
            was = Text(f"was {sanitize(line.before)}", f"原为 {sanitize(line.before)}").of(lang)
        cells = (sanitize(line.merchant), sanitize(line.env), f"{line.rows:,}", was)
        inner.add_row(*(Styled(cell, overflow="ellipsis") for cell in cells))
    if left := ordered[MERCHANTS:]:
        more = Text(f"… and {len(left):,} more", f"……另有 {len(left):,} 条")
        inner.add_row(more.of(lang), "--json", f"{sum(line.rows for line in left):,}", "")
    outer = Table.grid()
    outer.add_row(Padding(inner, (0, 0, 0, 4)))
    return outer


def _rows(count: int, lang: Lang) -> str:
    return Text(plural(count, "row"), f"{count:,} 行").of(lang)


_WIDE = "\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
_OPENING, _CLOSING = "「『（《【“‘", "」』）》】”’，。；：、！？…"
_PIECES = re.compile(rf"\s+|[{_OPENING}]*(?:[^\s{_WIDE}{_OPENING}{_CLOSING}]+|[{_WIDE}]?)[{_CLOSING}]*")


def fold(text: str, width: int) -> str:
    """Break a line into lines of at most `width` cells; a Latin word that is longer stays whole.

    ==============================  =====  ==================================
    text                            width  lines
    ==============================  =====  ==================================
    请重新授权并勾选权限集。        10     请重新授权 / 并勾选权限 / 集。
    请用 tcb/createclouduser 开通   22     请用 / tcb/createclouduser 开 / 通
    ask the owner                   8      ask the / owner
    ==============================  =====  ==================================
    """
    lines, line, used = [], "", 0
    for piece in filter(None, _PIECES.findall(text)):
        size = cell_len(piece)
        if used + size > width and line.strip():
            lines.append(line.rstrip())
            line, used = "", 0
            if piece.isspace():
                continue
        line, used = line + piece, used + size
    return "\n".join([*lines, line])


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A sentence as rich draws it; the first `bold` characters stand out."""

    text: str
    bold: int = 0
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drawn = Styled(fold(self.text, options.max_width), style=self.style, overflow="fold")
        drawn.stylize("bold", 0, self.bold)
        yield drawn

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, min(cell_len(self.text), options.max_width))
