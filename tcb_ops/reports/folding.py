"""Sentences on a terminal, folded where readers of Chinese expect it: between any two characters, at no closing mark.

rich breaks lines at spaces alone, so that a Chinese sentence moves to the next line as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.measure import Measurement
from rich.text import Text as Styled

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Folded", "fold"]

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
class Folded:
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
