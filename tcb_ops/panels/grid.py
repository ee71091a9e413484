"""The grid of a run: merchants, causes, rows and charts, searched, sorted and filtered in the browser.

The browser holds the merchants. Rows are read from the ledger in pages, when they are asked for. The front end is
`grid.js`, a plain ES module that is part of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from tcb_ops.i18n import Text, _, pgettext
from tcb_ops.model import Outcome
from tcb_ops.panels.controls import Worker
from tcb_ops.panels.html import (
    COLUMNS,
    MERCHANT_COLUMNS,
    MerchantLine,
    merchant_lines,
    render_codes,
)
from tcb_ops.reports.explanations import action_text, code_label, reason_text
from tcb_ops.reports.formats.charts import code_colour, draw, errcode_matrix, outcome_class
from tcb_ops.reports.summary import by_code, causes_of, most_first
from tcb_ops.run import Run
from tcb_ops.runs.records import RowRecord, Tally
from tcb_ops.secrets import redact

PAGE = 100
"""Rows of a page."""
_WORDS: dict[str, Text] = {name: COLUMNS[name] for name in (*MERCHANT_COLUMNS, "env", "code")} | {
    "merchants": pgettext("heading", "Merchants"),
    "search": _("Search merchants"),
    "all": pgettext("merchants", "all"),
    "failed": pgettext("merchants", "failed"),
    "open": pgettext("merchants", "working or paused"),
    "left": pgettext("merchants", "not done"),
    "done": pgettext("merchants", "done"),
    "none": _("No merchant matches."),
    "more": _("Show more merchants"),
    "row_title": pgettext("heading", "Rows"),
    "line": _("Line"),
    "path": _("Path"),
    "outcome": _("Outcome"),
    "path_search": _("Search paths"),
    "any": _("— all —"),
    "every_row": _("all rows"),
    "not_succeeded": _("all that did not succeed"),
    "clear": _("Clear filters"),
    "next": _("Next page"),
    "previous": _("Previous page"),
    "no_rows": _("No row matches."),
    "loading": _("Loading …"),
    "unread": _("The rows could not be read."),
    "copy": _("Copy"),
    "details": _("Details"),
    "charts": _("Errcodes by merchant"),
    "lost": _("The kernel does not respond. Run the panel's cell again."),
}


class RunGrid(anywidget.AnyWidget):
    """The grid. `show` sends what changed; the browser asks for rows."""

    _esm = (files("tcb_ops.panels") / "grid.js").read_text(encoding="utf-8")
    words = traitlets.Dict().tag(sync=True)

    def __init__(self, worker: Worker) -> None:
        self._worker, self._lang = worker, worker.lang
        self._zone: Any = None
        self._running = False
        self.forget()
        words: dict[str, Any] = {name: text.of(worker.lang) for name, text in _WORDS.items()}
        words["outcomes"] = {str(outcome): outcome.label.of(worker.lang) for outcome in Outcome.all()}
        super().__init__(words=words)
        self.add_class("op-grid")
        self.on_msg(self._answer)

    def forget(self) -> None:
        """Show no run, and hold none."""
        self._run: Run | None = None
        self._tallies: list[Tally] = []
        self.lines: dict[str, list[Any]] = {}
        """The merchants as the browser has them, by appid."""
        self.causes = self._charts = ""
        """The HTML of the causes, and of the charts."""
        self._codes: list[Any] = []
        self._sent: dict[str, Any] = {}
        """The causes, charts and codes that the browser has."""

    def show(self, run: Run, *, running: bool) -> int:
        """Show a run as the ledger has it now; return the number of its merchants."""
        from tcb_ops.reports.formats.notebook import heat_map, timeline_svg

        new = self._run is None or self._run.id != run.id or self._running != running
        self._run, self._running, self._zone = run, running, run.settings.zone
        self._tallies = tallies = run.tallies()
        lines = merchant_lines(tallies)
        drawn = {line.appid: _line(line) for line in lines}
        changed = [line for appid, line in drawn.items() if new or self.lines.get(appid) != line]
        causes = causes_of(tallies)
        matrix, groups = errcode_matrix(causes), by_code([c for c in causes if c.code != Outcome.PENDING])
        self.lines = drawn
        self.causes = render_codes(groups, self._lang) if groups else ""
        self._codes = [
            (group.code, f"{group.code} {code_label(group.code).of(self._lang)}".rstrip(), group.rows)
            for group in groups
        ]
        drawing = draw(run.timeline_buckets())
        self._charts = (heat_map(matrix, self._lang) if matrix else "") + (
            timeline_svg(drawing, self._lang, self._zone) if drawing else ""
        )
        self._publish(changed, full=new)
        return len(lines)

    def read(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return a page of rows: code (None, "" or a code), appid, outcome, path, after (the line before it)."""
        run = self._run
        if run is None:
            return {"rows": [], "total": 0, "more": False}
        outcome, path = wanted.get("outcome"), wanted.get("path") or ""
        records, total = run.page(
            code=wanted.get("code"),
            appid=wanted.get("appid") or "",
            outcomes=frozenset({Outcome(outcome)}) if outcome else None,
            path=path,
            after_line=int(wanted.get("after", -1)),
            limit=PAGE + 1,
            tallies=self._tallies,
        )
        rows = [self._row(record) for record in records[:PAGE]]
        return {"rows": rows, "total": None if path else total, "more": len(records) > PAGE}

    def _answer(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Answer the browser. Called by ipywidgets on any thread."""
        try:
            if message.get("ask") == "all":
                self._publish(list(self.lines.values()), full=True)
            elif message.get("ask") == "rows":
                self.send({"rows": self.read(message), "id": message.get("id")})
        except Exception as error:  # noqa: BLE001  an exception in a callback is lost
            if not message.get("auto"):  # what nobody asked for does not cover how the run ended
                self._worker.report(error)
            self.send({"failed": True, "id": message.get("id")})

    def _publish(self, lines: Sequence[Any], *, full: bool) -> None:
        run, drawn = self._run, {"causes": self.causes, "charts": self._charts, "codes": self._codes}
        changed = {name: value for name, value in drawn.items() if full or self._sent.get(name) != value}
        self._sent = drawn
        about = {"run": run.id if run is not None else "", "running": self._running}
        self.send(about | {"full": full, "lines": list(lines)} | changed)

    def _row(self, record: RowRecord) -> dict[str, Any]:
        row, end, lang = record.row, record.end, self._lang
        ended = datetime.fromtimestamp(end.ended_at, self._zone) if end.ended_at else None
        facts: list[tuple[Text, Any]] = [
            (_("Why"), reason_text(end).of(lang)),
            (_("What to do"), action_text(end).of(lang)),
            (_("errmsg"), redact(end.errmsg)),
            (_("rid"), redact(end.rid)),
            (_("Local file"), row.file),
            (_("HTTP status"), end.http_status),
            (_("Attempts"), end.attempts),
            (_("Bytes"), end.bytes),
            (_("MD5"), end.md5),
            (_("Ended"), ended.isoformat(" ", "seconds") if ended else ""),
        ]
        return {name: getattr(row, name) for name in ("line", "merchant", "appid", "env", "path")} | {
            "outcome": end.outcome.label.of(lang),
            "css": outcome_class(end.outcome),
            "why": reason_text(end).of(lang),
            "facts": [(name.of(lang), str(value)) for name, value in facts if value not in {None, ""}],
        }


def _line(line: MerchantLine) -> list[Any]:
    """Return a merchant as the browser has it."""
    codes = [(code, rows, code_colour(code)) for code, rows in most_first(line.codes)[:3]]
    return [line.appid, line.merchant, line.rows, line.good, line.bad, line.todo, codes]
