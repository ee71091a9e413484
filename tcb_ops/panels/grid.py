"""The tabs of a run: what to do, merchants, rows and charts, searched, sorted and filtered in the browser.

The browser holds the merchants. Rows are read from the ledger in pages, when they are asked for. The front end is
`grid.js`, a plain ES module that is part of the package.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from tcb_ops.hooks import DiagnosisHooks, hooks
from tcb_ops.i18n import Text, _, in_panel, pgettext, verbatim
from tcb_ops.kinds import Kind
from tcb_ops.ledger.records import RowRecord, Tally
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Outcome
from tcb_ops.panels.controls import Worker
from tcb_ops.panels.html import MerchantLine, heading, merchant_lines, render_causes
from tcb_ops.reports.charts import charts_of
from tcb_ops.reports.explanations import action_text, code_label, reason_text
from tcb_ops.reports.findings import Findings
from tcb_ops.reports.rendering import outcome_class
from tcb_ops.reports.summary import CodeGroup, by_code, causes_of, most_first
from tcb_ops.run import Run
from tcb_ops.secrets import redact

PAGE = 50
"""Rows of a page."""
_WORDS: dict[str, Text] = {
    "merchant": _("Merchant"),
    "progress": _("Progress"),
    "units": Kind.rows_label,
    "good": Kind.good_label,
    "bad": Kind.bad_label,
    "todo": pgettext("column", "Pending"),
    "why": _("Why"),
    "env": _("Environment"),
    "code": _("Code"),
    "merchants": pgettext("heading", "Merchants"),
    "search": _("Search merchants, environments"),
    "all": pgettext("merchants", "All"),
    "open": pgettext("merchants", "Working or paused"),
    "not_begun": pgettext("merchants", "Not begun"),
    "new": pgettext("merchants", "new"),
    "copied": _("Copied"),
    "none": _("Nothing matches."),
    "more": _("Show more merchants"),
    "tabs": _("Parts of the run"),
    "state": _("State"),
    "to_do": _("What to do"),
    "charts": _("Charts"),
    "files": _("Files"),
    "nothing_to_do": _("There is nothing to do."),
    "no_charts": _("There is nothing to draw yet."),
    "no_files": _("This run was not exported here yet: press Export."),
    "line": _("Line"),
    "path": _("Path"),
    "outcome": _("Outcome"),
    "path_search": _("Search paths"),
    "clear": _("Clear filters"),
    "next": _("Next page"),
    "previous": _("Previous page"),
    "loading": _("Loading …"),
    "unread": _("The rows could not be read."),
    "keys": _("A click or Enter opens a line; the arrow keys lead from one to the next."),
    "lost": _("The kernel does not respond. Wait, or run all cells again."),
    "dead": _("The kernel was restarted. Run all cells again: nothing is lost."),
}


class RunGrid(anywidget.AnyWidget):
    """The grid. `show` sends what changed; the browser asks for rows."""

    _esm = (files("tcb_ops.panels") / "grid.js").read_text(encoding="utf-8")
    words = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        worker: Worker,
        look: Callable[[], None],
        clicks: Mapping[str, Callable[[str], None]],
        *,
        sample: bool,
        merchants: Merchants,
    ) -> None:
        """`sample`: the run's ledger ends with the kernel. `merchants`: whose own columns are shown.

        `look` shows what other processes have changed. `clicks`: by NAME, what a click on something with the attribute
        `data-NAME` does in the background, with its value.
        """
        self._worker, self._lang, self._look, self._clicks = worker, worker.lang, look, clicks
        self._zone: Any = None
        self._own = _own_columns(merchants)
        self._running = False
        self.on_filter: Callable[[], object] = lambda: None
        """Called when the tab Rows is filtered otherwise, before it has its rows."""
        self.forget()
        words = {name: text.of(worker.lang) for name, text in _WORDS.items()}
        if sample:
            again = _("The kernel was restarted. Run all cells again: the sample starts over.")
            words["dead"] = again.of(worker.lang)
        super().__init__(words=words | {"lang": str(worker.lang)})
        self.add_class("op-grid")
        self.on_msg(self._answer)

    def forget(self) -> None:
        """Show no run, and hold none."""
        self._run: Run | None = None
        self._tallies: list[Tally] = []
        self.lines: dict[str, list[Any]] = {}
        """The merchants as the browser has them, by appid."""
        self.findings: Findings | None = None
        """What a finished run of a kind with findings has found."""
        self.verdicts: dict[str, Any] = {}
        """By code, what WeChat was asked about, as `Run.kept_verdicts` returns it."""
        self.shown = ("", "", "")
        """The code ("" for all), the appid and the part of a path by which rows are filtered."""
        self.causes = self._charts = ""
        """The HTML of the causes, and of the charts."""
        self._codes: list[Any] = []
        self._sent: dict[str, Any] = {}
        """The causes, charts and codes that the browser has."""

    def show(self, run: Run, *, running: bool) -> int:
        """Show a run as the ledger has it now; return the number of its merchants."""
        new = self._run is None or self._run.id != run.id or self._running != running
        if self._run is None or self._run.id != run.id:
            self.read_verdicts(run)
            self.shown = ("", "", "")
        self._run, self._running, self._zone = run, running, run.settings.zone
        self._tallies = tallies = run.tallies()
        ended = not running and run.record.finished_at is not None
        self.findings = run.findings() if ended and run.record.has_findings else None
        lines, news = merchant_lines(tallies), self._news()
        drawn = {line.appid: _line(line, self._own, is_new=line.appid in news) for line in lines}
        changed = [line for appid, line in drawn.items() if new or self.lines.get(appid) != line]
        causes = causes_of(tallies)
        groups = by_code([c for c in causes if c.code != Outcome.PENDING])
        self.lines = drawn
        self.causes = self._causes(groups, run, running=running)
        self._codes = [
            (group.code, f"{group.code} {code_label(group.code).of(self._lang)}".rstrip(), group.rows)
            for group in groups
        ]
        totals = {line.appid: line.shares.total() for line in lines}
        charts = charts_of(causes, run.timeline_buckets(), self._zone)
        self._charts = charts.html(run.record.kind, totals, self._lang)
        self._publish(changed, full=new)
        return len(lines)

    def read_verdicts(self, run: Run) -> None:
        """Read what the ledger keeps of WeChat's answers."""
        self.verdicts = {verdict.code: verdict for verdict in run.kept_verdicts()}

    def _news(self) -> set[str]:
        """Return the merchants of which something is new, where the run is compared with the one before."""
        found = self.findings
        if found is None or found.since(self._zone) is None:
            return set()
        return {cause.appid for section in found.news() for cause in section.causes}

    def _causes(self, groups: Sequence[CodeGroup], run: Run, *, running: bool) -> str:
        """Draw the causes: what is new first, or what retries have left."""
        kind, found, asks = run.record.kind, self.findings, hooks(DiagnosisHooks) is not None and not running
        ended = not running and run.record.finished_at is not None
        retries = ended and not kind.of_merchants
        if retries and run.has_retries:
            kept = [tally for tally in self._tallies if not tally.outcome.retried]
            groups = by_code(causes_of([*kept, *run.tallies_to_retry()]))
        parts = [("", groups)] if groups else []
        if found is not None and found.since(self._zone) is not None:
            sections = [section for section in found.sections() if section.causes]
            parts = [(heading(section.title.of(self._lang)), by_code(section.causes)) for section in sections]
        options = {
            "asks": asks,
            "retries": retries,
            "fixes": ended,
            "simulated": run.record.simulated,
            "zone": self._zone,
        }
        return "".join(
            title + render_causes(each, self.verdicts, kind, self._lang, **options) for title, each in parts
        )

    def read(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return a page of rows: code (None, "" or a code), appid, path, after (the line before it)."""
        run = self._run
        if run is None:
            return {"rows": [], "total": 0, "more": False}
        path, before = wanted.get("path") or "", self.shown
        self.shown = (wanted.get("code") or "", wanted.get("appid") or "", path)
        if self.shown != before:
            self.on_filter()
        records, total = run.page(
            code=wanted.get("code"),
            appid=self.shown[1],
            path=path,
            after_line=int(wanted.get("after", -1)),
            limit=PAGE + 1,
            tallies=self._tallies,
        )
        rows = [self._row(record, run.record.headers) for record in records[:PAGE]]
        return {"rows": rows, "total": None if path else total, "more": len(records) > PAGE}

    def _answer(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Answer the browser. Called by ipywidgets on any thread."""
        try:
            if message.get("ask") == "all":
                self._publish(list(self.lines.values()), full=True)
            elif message.get("ask") == "look":
                self._look()
            elif message.get("ask") == "rows":
                self.send({"rows": self.read(message), "id": message.get("id")})
            elif message.get("ask") in self._clicks:
                self._worker.start(partial(self._clicks[message["ask"]], str(message.get("value"))))
        except Exception as error:  # noqa: BLE001  an exception in a callback is lost
            if not message.get("auto"):  # what nobody asked for does not cover how the run ended
                self._worker.report(error)
            self.send({"failed": True, "id": message.get("id")})

    def _publish(self, lines: Sequence[Any], *, full: bool) -> None:
        run, drawn = self._run, {"causes": self.causes, "charts": self._charts, "codes": self._codes}
        changed = {name: value for name, value in drawn.items() if full or self._sent.get(name) != value}
        self._sent = drawn
        about: dict[str, Any] = {"run": run.id if run is not None else "", "running": self._running}
        if full and run is not None:
            kind = run.record.kind
            labels = {"good": kind.good_label, "bad": kind.bad_label, "units": kind.rows_label}
            about["words"] = {name: label.of(self._lang) for name, label in labels.items()}
            about["listed"] = kind.has_list
        self.send(about | {"full": full, "lines": list(lines)} | changed)

    def _row(self, record: RowRecord, headers: Sequence[str]) -> dict[str, Any]:
        row, end, lang = record.row, record.end, self._lang
        listed = self._run is not None and self._run.record.kind.has_list
        ended = datetime.fromtimestamp(end.ended_at, self._zone) if end.ended_at else None
        facts: list[tuple[Text, Any]] = [
            (_("Why"), in_panel(reason_text(end), lang)),
            (_("What to do"), in_panel(action_text(end), lang)),
            (_("errmsg"), redact(end.errmsg)),
            (_("rid"), redact(end.rid)),
            (_("Local file"), row.file if listed else ""),
            (_("HTTP status"), end.http_status),
            (_("Attempts"), end.attempts),
            (_("Bytes"), end.bytes),
            (_("MD5"), end.md5),
            (_("Ended"), ended.isoformat(" ", "seconds") if ended else ""),
        ]
        shown = {row.merchant, row.appid, row.env, row.path, row.file}
        own = zip(map(verbatim, headers), map(redact, row.cells), strict=False)
        facts += [fact for fact in own if fact[1] not in shown]
        return {name: getattr(row, name) for name in ("line", "merchant", "appid", "env")} | {
            "path": row.path if listed else "",
            "outcome": end.outcome.label.of(lang),
            "css": outcome_class(end.outcome),
            "why": in_panel(reason_text(end), lang),
            "facts": [(name.of(lang), str(value)) for name, value in facts if value not in {None, ""}],
        }


def _own_columns(merchants: Merchants) -> dict[str, list[tuple[str, str]]]:
    """Return what the columns of the merchants file that are the operator's own say of each merchant, by appid."""
    cells: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for merchant in merchants:
        cells[merchant.appid].append(merchants.own_cells(merchant))
    told: dict[str, list[tuple[str, str]]] = {}
    for appid, lines in cells.items():
        values = (
            ", ".join(dict.fromkeys(filter(None, map(redact, column)))) for column in zip(*lines, strict=True)
        )
        told[appid] = [pair for pair in zip(merchants.own_headers, values, strict=True) if pair[1]]
    return told


def _line(line: MerchantLine, own: Mapping[str, list[tuple[str, str]]], *, is_new: bool) -> list[Any]:
    """Return a merchant as the browser has it."""
    codes = most_first(line.codes)[:3]
    shares = [(name, line.shares[name]) for name in ("good", "bad", "failed", "skip")]
    counts = (line.shares.total(), line.shares["good"], line.bad, line.shares["pending"])
    return [
        line.appid,
        line.merchant,
        *counts,
        codes,
        shares,
        " ".join(sorted(line.envs)),
        is_new,
        own.get(line.appid, []),
    ]
