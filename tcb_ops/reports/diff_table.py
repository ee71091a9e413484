"""What changed between two runs, drawn for a terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from tcb_ops.model import Lang, Text, legible, plural
from tcb_ops.reports.diff import Change, changed, diff_verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tcb_ops.reports.diff import DiffLine, RunDiff

__all__ = ["render_diff"]

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
        max(min(max((cell_len(legible(line.merchant)) for line in listed), default=0), 30), MORE),
        min(max((cell_len(legible(line.env)) for line in listed), default=0), 28),
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
            said = " · ".join((legible(code), count, diff.meanings[code].of(lang)))
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
            was = Text(f"was {legible(line.before)}", f"原为 {legible(line.before)}").of(lang)
        cells = (legible(line.merchant), legible(line.env), f"{line.rows:,}", was)
        inner.add_row(*(Styled(cell, overflow="ellipsis") for cell in cells))
    if left := ordered[MERCHANTS:]:
        more = Text(f"… and {len(left):,} more", f"……另有 {len(left):,} 条")
        inner.add_row(more.of(lang), "--json", f"{sum(line.rows for line in left):,}", "")
    outer = Table.grid()
    outer.add_row(Padding(inner, (0, 0, 0, 4)))
    return outer


def _rows(count: int, lang: Lang) -> str:
    return Text(plural(count, "row"), f"{count:,} 行").of(lang)
