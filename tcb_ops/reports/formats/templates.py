"""The templates of the report's page, of cards and tables: what they can call."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from tcb_ops.formatting import shorten
from tcb_ops.i18n import Lang, Text, _, ngettext, pgettext
from tcb_ops.kinds import row_count
from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.explanations import code_label, reason_text
from tcb_ops.reports.formats.charts import (
    code_colour,
    format_rate,
    outcome_class,
    shade,
)
from tcb_ops.secrets import redact


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
        optimized=False,  # or compiling takes half as long again, for a page that is rendered once
    )
    environment.filters |= {
        "number": "{:,}".format,
        "redact": redact,
        "text": lambda text: text.of(lang),
        "moment": lambda moment: f"{local(moment).isoformat(sep=' ', timespec='seconds')} {timezone}",
        "clock": lambda moment, form: local(moment).strftime(form),
        "rate": format_rate,
        "short": shorten,
        "breaks": _breaks,
    }
    environment.globals |= {
        "_": translated(_),
        "ngettext": translated(ngettext),
        "pgettext": translated(pgettext),
        "shade": shade,
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


def _breaks(code: str) -> Any:
    """Return a code that may break between its words, as InvalidArgument between d and A."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split("(?<=[a-z])(?=[A-Z])", code))
