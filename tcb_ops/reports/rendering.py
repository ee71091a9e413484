"""The templates of pages and cards, which escape all text, and the colours in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from colorsys import hls_to_rgb
from datetime import datetime
from functools import cache
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

from tcb_ops.formatting import escape_controls, shorten
from tcb_ops.i18n import Lang, Text, _, ngettext, pgettext
from tcb_ops.kinds import row_count
from tcb_ops.model import Outcome, Reason, target_name
from tcb_ops.reports.explanations import code_label, reason_text
from tcb_ops.secrets import redact

_CLASSES = {
    Outcome.PENDING: "pending",
    Outcome.NOT_ATTEMPTED: "skip",
    Outcome.UNKNOWN: "skip",
    Outcome.FAILED: "failed",
}
_SALT = 226
"""Chosen so that the 18 most frequent codes have different colours."""


def outcome_class(outcome: Outcome) -> str:
    """Return the CSS class of an outcome's colour: good, bad, failed, skip or pending."""
    return "good" if outcome.succeeded else _CLASSES.get(outcome, "bad")


def code_colour(code: str) -> str:
    """Return the colour of a code, the same in every chart: one of 36 from blue to violet: no outcome has such a colour."""
    number = crc32(f"{_SALT}{code}".encode())
    hue, lightness = number % 9 * 15 + 180, (36, 44, 52, 60)[number // 9 % 4]
    red, green, blue = (round(255 * part) for part in hls_to_rgb(hue / 360, lightness / 100, 0.6))
    return (
        f"#{red:02x}{green:02x}{blue:02x}"  # JupyterLab drops other forms from a notebook that nobody has run
    )


def _finalized(value: object) -> object:
    """Escape the control characters of a text; markup has been made of such texts."""
    return escape_controls(value) if type(value) is str else value


@cache  # compiling the templates takes longer than the rest of a small report
def environment(lang: Lang, timezone: str = "UTC") -> Any:
    """Return the template environment for one language and time zone, which escapes everything."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    def translated(text: Callable[..., Text]) -> Callable[..., str]:
        return lambda *msgids, **values: text(*msgids, **values).of(lang)

    def local(moment: float) -> datetime:
        return datetime.fromtimestamp(moment, ZoneInfo(timezone))

    environment = Environment(
        loader=PackageLoader("tcb_ops.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
        optimized=False,  # or compiling takes half as long again, for a page that is rendered once
    )
    environment.filters |= {
        "number": "{:,}".format,
        "redact": redact,
        "text": lambda text: text.of(lang),
        "target": lambda target: target_name(target).of(lang),
        "moment": lambda moment: f"{local(moment).isoformat(sep=' ', timespec='seconds')} {timezone}",
        "clock": lambda moment, form: local(moment).strftime(form),
        "short": shorten,
        "breaks": _breaks,
        "over_numbers": _over_numbers,
    }
    environment.globals |= {
        "_": translated(_),
        "ngettext": translated(ngettext),
        "pgettext": translated(pgettext),
        "outcomes": {outcome: outcome.label for outcome in Outcome.all()},
        "reason_text": reason_text,
        "reasons": {*Reason.all(), Outcome.PENDING},
        "lang": str(lang),
        "row_count": row_count,
        "code_label": code_label,
        "css": outcome_class,
        "colour": code_colour,
    }
    return environment


def _over_numbers(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> list[str]:
    """Return those heads of a table whose columns have numbers."""
    columns = zip(heads, zip(*lines, strict=True), strict=False)
    return [head for head, cells in columns if {int, float} & {*map(type, cells)}]


def _breaks(code: str) -> Any:
    """Return a code that may break between its words, as InvalidArgument between d and A."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split("(?<=[a-z])(?=[A-Z])", code))
