"""What a headless run tells whoever started its notebook: how it ended, for a screen and for a page."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.i18n import Lang, Text
from tcb_ops.model import Outcome
from tcb_ops.panels.errcodes import render_codes
from tcb_ops.panels.grid import merchant_lines, render_grid
from tcb_ops.panels.html import heading
from tcb_ops.reports.summary import by_code
from tcb_ops.run import Run

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADLESS_RESULT = "TCB_OPS_HEADLESS_RESULT"
"""A file that gets the headless cell's result: how `tcb-ops notebook` learns of it."""
WIDE = 100
"""Columns of what is printed: it ends in a mail or a log more often than on a terminal."""


def result_file() -> Path | None:
    """The file that is told; None where nobody asks."""
    file = os.environ.get(HEADLESS_RESULT)
    return Path(file) if file else None


def terminal_output(run: Run, lang: Lang) -> list[RenderableType]:
    """What a terminal shows of a run beside its verdict: what went wrong, and what to do."""
    from tcb_ops.reports.formats.terminal import render_errcodes

    causes = run.cause_list()
    return [render_errcodes(by_code(causes), lang)] if causes else []


def page_html(run: Run, lang: Lang) -> str:
    """What a page shows of it: what went wrong and what to do, then every merchant."""
    causes = [cause for cause in run.cause_list() if cause.code != Outcome.PENDING]
    codes = render_codes(by_code(causes), lang) if causes else ""
    title = Text("Merchants", "各商户").of(lang)
    return f"{codes}{heading(title)}{render_grid(merchant_lines(run.tallies()), lang, going=False)}"


def tell(
    file: Path,
    *,
    run: Run | None,
    report: Path | None,
    code: int,
    text: Text | None,
    title: str = "",
    screen: Sequence[RenderableType] = (),
    page: str = "",
) -> None:
    """Write it down, whole or not at all."""
    told = {
        "run": run.id if run is not None else None,
        "report": str(report) if report is not None else None,
        "exit_code": code,
        "text": {"en": text.en, "zh": text.zh} if text is not None else None,
        "title": title,
        "screen": _printed(screen),
        "page": page,
    }
    part = Path(f"{file}.part")
    part.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    part.replace(file)


def _printed(parts: Sequence[RenderableType]) -> str:
    from rich.console import Console

    out = StringIO()
    # In a kernel rich would show it as the cell's output.
    console = Console(
        file=out,
        width=WIDE,
        force_jupyter=False,
        color_system=None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().replace("\N{NO-BREAK SPACE}", " ").splitlines())
