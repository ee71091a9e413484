"""Text of table cells: trimmed, folded for comparison, shortened for screens, guarded against formulas."""

from __future__ import annotations

import re
import unicodedata

EDGE = " \t\r\n\v\f\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u200b\u2060\ufeff"
"""Invisible characters that spreadsheets, chat windows and web pages leave around a value."""


def trim(text: str) -> str:
    """Remove spaces of any width and zero-width characters from both ends."""
    return text.strip(EDGE)


def fold(text: str) -> str:
    """Fold a text for comparison: trimmed, full-width letters narrowed, lower case."""
    return unicodedata.normalize("NFKC", text).strip(EDGE).casefold()


def shown(text: str, limit: int = 80) -> str:
    """Shorten a text to `limit` characters and escape invisible ones, for a screen."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


RISKY = frozenset("'=+-@＝＋－＠\t\r\n")
"""First characters of the cells that `guard` may change: a quick test for writers of millions of cells."""

_RUNS = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def guard(cell: str) -> str:
    """Guard a text cell against running as a formula. Plain numbers are kept; `'=` becomes `''=`, so that reading is exact."""
    return f"'{cell}" if _RUNS.match(cell) and not _NUMBER.fullmatch(cell) else cell


def unguard(cell: str) -> str:
    """Remove the apostrophe that `guard` adds."""
    return cell[1:] if cell.startswith("'") and _RUNS.match(cell) else cell
