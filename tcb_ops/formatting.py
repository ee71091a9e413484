"""Text, durations and sizes for display; and the text of table cells: trimmed, folded, shortened, guarded."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from tcb_ops.i18n import Text, _

_CONTROLS = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What a terminal executes (C0, C1), what changes the order of the text around it, what ends a line in some programs only,
and what cannot be written.
"""
_ESCAPED = re.compile(r"[␀-␟]|\\u(007f|00[89][0-9a-f]|061c|200[ef]|202[89a-e]|206[6-9])")
_LEADS = (b"\xc2", b"\xd8\x9c", b"\xe2\x80", b"\xe2\x81")
"""How those beyond ASCII begin in UTF-8."""
_ASCII_CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\t\r\n"})


def escape_controls(text: str) -> str:
    r"""Escape the control characters and bidirectional marks of a text from outside: U+001B as ␛, U+009B as \u009b.

    Tabs and line breaks stay. Each output does this to all of its texts.
    """
    return text if text.isprintable() else _CONTROLS.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else f"\\u{code:04x}"


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16) if match[1] else ord(match[0]) - 0x2400)


def has_controls(text: str) -> bool:
    """Return whether `escape_controls` would change a text, which may be long; surrogates, which it cannot have, aside."""
    data = text.encode()
    if len(data.translate(None, _ASCII_CONTROLS)) < len(data):
        return True
    return any(lead in data for lead in _LEADS) and _CONTROLS.search(text) is not None


def sanitize(text: str) -> str:
    """Return a text from outside as one line for a terminal: escaped, line breaks and tabs as spaces."""
    return text if text.isprintable() else re.sub(r"[\r\n\t]", " ", escape_controls(text))


def format_duration(seconds: float) -> Text:
    """Return a duration for display: <1s, 7s, 3m20s, 2h05m."""
    rounded = round(seconds)
    if rounded < 1:
        return _("<1s")
    if rounded < 60:
        return _("{seconds}s", seconds=rounded)
    if rounded < 3600:
        return _("{minutes}m{seconds:02}s", minutes=rounded // 60, seconds=rounded % 60)
    return _("{hours}h{minutes:02}m", hours=rounded // 3600, minutes=rounded % 3600 // 60)


def format_size(size: float) -> str:
    """Return a number of bytes for display: 17 B, 4.1 KB, 3 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.3g} TB"


def lines(text: str) -> str:
    """Return a message, which may contain names from outside, with each line sanitized."""
    return "\n".join(map(sanitize, text.split("\n")))


EDGE = " \t\r\n\v\f\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u200b\u2060\ufeff"
"""Invisible characters that spreadsheets, chat windows and web pages leave around a value."""


def trim(text: str) -> str:
    """Remove spaces of any width and zero-width characters from both ends."""
    return text.strip(EDGE)


def fold(text: str) -> str:
    """Return a text for comparison: trimmed, full-width letters narrowed, case folded."""
    return unicodedata.normalize("NFKC", text).strip(EDGE).casefold()


def shown(text: str, limit: int = 80) -> str:
    """Shorten a text to `limit` characters and escape invisible ones, for a screen."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


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
    if len(text) * 2 <= width:
        return text
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    tail = width // 2
    start, end = set_cell_size(text, width - 1 - tail), set_cell_size(text[::-1], tail)[::-1]
    return f"{start.rstrip()}…{end.lstrip()}"


def near_names(value: str, names: Iterable[str]) -> list[str]:
    """Return up to three names similar to a value, ignoring width and case."""
    from difflib import get_close_matches

    by_fold = {fold(name): name for name in names}
    return [by_fold[n] for n in get_close_matches(fold(value), by_fold, n=3, cutoff=0.5)]


RISKY = frozenset("'=+-@＝＋－＠\t\r\n")
"""First characters of cells that `guard` may change: a quick test for writers of millions of cells."""

_RUNS = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def guard(cell: str) -> str:
    """Prevent a text cell from running as a formula; escape control characters.

    Plain numbers are kept; `'=` becomes `''=`, so that `unguard` is exact.
    """
    cell = escape_controls(cell)
    return f"'{cell}" if _RUNS.match(cell) and not _NUMBER.fullmatch(cell) else cell


def unguard(cell: str) -> str:
    """Undo `guard`."""
    cell = _ESCAPED.sub(_unescaped, cell)
    return cell[1:] if cell.startswith("'") and _RUNS.match(cell) else cell


_WIDE = "\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
_OPENING, _CLOSING = "「『（《【“‘", r"」』）》】”’，。；：、！？…\]"
_PIECES = (
    rf"\s+|\[默认：[^\]\s]*\]?|[{_OPENING}]*(?:[^\s{_WIDE}{_OPENING}{_CLOSING}]+|[{_WIDE}]?)[{_CLOSING}]*"
)
"""A pattern that takes 3 ms to compile."""
_ASCII_PIECES = r"\s+|[^\s\]]*\]*"
"""What it comes to for ASCII."""


def wrap(text: str, width: int) -> str:
    """Break a line into lines of at most `width` cells; a Latin word that is longer stays whole.

    ==============================  =====  ==================================
    text                            width  lines
    ==============================  =====  ==================================
    请重新授权并勾选权限集。        10     请重新授权 / 并勾选权限 / 集。
    请用 tcb/createclouduser 开通   22     请用 / tcb/createclouduser 开 / 通
    ask the owner                   8      ask the / owner
    报告文件夹。 [默认：reports]    18     报告文件夹。 / [默认：reports]
    ==============================  =====  ==================================
    """
    cells: Callable[[str], int] = len
    pieces = _ASCII_PIECES
    if not text.isascii():
        from rich.cells import cell_len

        pieces, cells = _PIECES, cell_len
    broken, line, used = [], "", 0
    for piece in filter(None, re.findall(pieces, text)):
        size = cells(piece)
        if used + size > width and line.strip():
            broken.append(line.rstrip())
            line, used = "", 0
            if piece.isspace():
                continue
        line, used = line + piece, used + size
    return "\n".join([*broken, line])
