"""Cells that a spreadsheet would run as a formula: written with a leading apostrophe, read back as they were.

A CSV cell that begins with = + - @, their full-width forms, a tab or a line break can run a command when it is opened
in a spreadsheet. `guard` and `unguard` are each other's inverse for every text.
"""

from __future__ import annotations

import re

__all__ = ["RISKY", "guard", "unguard"]

RISKY = frozenset("'=+-@＝＋－＠\t\r\n")
"""What a cell begins with that `guard` may change; for whoever writes millions of cells, most of which do not."""

_RUNS = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def guard(cell: str) -> str:
    """Make a text cell inert. Plain numbers stay numbers; `'=` becomes `''=` so that reading can tell them apart."""
    return f"'{cell}" if _RUNS.match(cell) and not _NUMBER.fullmatch(cell) else cell


def unguard(cell: str) -> str:
    """Take the apostrophe off again."""
    return cell[1:] if cell.startswith("'") and _RUNS.match(cell) else cell
