"""Text of table cells: trimmed, folded for comparison, shortened for screens, guarded against formulas."""

from __future__ import annotations

import re
import unicodedata

EDGE = " \t\r\n\v\f\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u200b\u2060\ufeff"
"""What a spreadsheet, a chat window or a web page leaves around a value without anyone seeing it."""


def trim(text: str) -> str:
    """The text without spaces of any width and zero-width characters at its ends; those inside stay."""
    return text.strip(EDGE)


def fold(text: str) -> str:
    """The text as names are compared: trimmed, full-width letters made narrow, upper case made lower."""
    return unicodedata.normalize("NFKC", text).strip(EDGE).casefold()


def shown(text: str, limit: int = 80) -> str:
    """The text for a screen: what cannot be seen is escaped, what is long is cut to `limit` characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


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
