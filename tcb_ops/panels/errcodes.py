"""What went wrong and what to do about it, by code; and the rows behind a code or a merchant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import ipywidgets as widgets

from tcb_ops.i18n import Lang, Text, _, pgettext, verbatim
from tcb_ops.model import Outcome
from tcb_ops.panels.html import esc, heading, table
from tcb_ops.panels.worker import Worker, html_area, show
from tcb_ops.reports.explanations import OUTCOMES, reason_text, why
from tcb_ops.reports.summary import Cause, CodeGroup, by_code
from tcb_ops.run import Run
from tcb_ops.runs.records import RowRecord
from tcb_ops.secrets import redact

ROWS = 50
"""Rows behind a code that are shown."""
NAMED = 4
"""Merchants named beside a code."""
_OPTIONS = _(
    "Names that begin with -- are options of the command line: --rate is “Pace” here, --api-base the "
    "setting api_base."
)


def matching_rows(run: Run, causes: Sequence[Cause], code: str, appid: str) -> Iterator[RowRecord]:
    """Stream the rows of a run that did not succeed, of one code and one merchant; "" is all of them."""
    wanted = [c for c in causes if code in {"", c.code} and appid in {"", c.appid}]
    outcomes = frozenset(outcome for cause in wanted for outcome in cause.outcomes)
    environments = {(cause.appid, cause.env) for cause in wanted}
    for record in run.rows(merchant=appid, outcomes=outcomes) if wanted else ():
        end = record.end
        found = why(end.outcome, end.reason, end.errcode, end.store_code)
        if found and code in {"", found.code} and (record.row.appid, record.row.env) in environments:
            yield record


def render_codes(groups: Sequence[CodeGroup], lang: Lang) -> str:
    """Draw the codes, with their rows and merchants, what they mean and what to do."""
    heads = (
        _("Code"),
        _("Rows"),
        pgettext("column", "Merchants"),
        _("What it means"),
        _("What to do"),
    )
    title = _("What went wrong, and what to do").of(lang)
    rows = [(g.code, g.rows, _merchants(g, lang), g.meaning.of(lang), g.action.of(lang)) for g in groups]
    return heading(title) + table(heads, rows, "snttt", lang, label=title, classes="op-by-code")


class ErrcodeTable(widgets.VBox):
    """The codes of a run, and its rows by code and merchant."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._lang = worker, worker.lang
        self._run: Run | None = None
        self._causes: list[Cause] = []
        self.table = html_area("op-codes")
        self.code = self._choice(_("Code"), "op-code", self._list_merchants)
        self.merchant = self._choice(_("Merchant"), "op-merchant", self._list_rows)
        self.rows = html_area("op-rows", "24rem")
        super().__init__([self.table, widgets.HBox([self.code, self.merchant]), self.rows])
        show(self, shown=False)

    def show(self, run: Run | None) -> None:
        """Show a run's rows that did not succeed; None, or a run without any, hides all of it."""
        causes = [c for c in run.cause_list() if c.code != Outcome.PENDING] if run is not None else []
        self._run = None  # while the choices change, nothing is looked up
        show(self, shown=bool(causes))
        self._causes = causes
        groups = by_code(causes)
        note = f'<p class="op-quiet">{esc(_OPTIONS.of(self._lang))}</p>'
        self.table.value = render_codes(groups, self._lang) + note
        self.code.options = [self._everything, *((f"{g.code} · {g.rows:,}", g.code) for g in groups)]
        self.code.index = 0
        self.merchant.options = [self._everything]
        self._run = run
        self._list_merchants()

    @property
    def _everything(self) -> tuple[str, str]:
        return _("— all —").of(self._lang), ""

    def _choice(self, label: Text, name: str, chosen: Callable[[], None]) -> widgets.Dropdown:
        choice = self._worker.field(widgets.Dropdown, label, name, "24rem")
        choice.observe(lambda _: self._worker.guarded(chosen), "value")
        return choice

    def _list_merchants(self) -> None:
        """Offer the merchants that have the chosen code, and keep the chosen one if it is among them."""
        run, kept = self._run, self.merchant.value
        if run is None:
            return
        self._run = None
        names: dict[str, tuple[str, int]] = {}
        for cause in self._causes:
            if self.code.value in {"", cause.code}:
                names[cause.appid] = (cause.merchant, names.get(cause.appid, ("", 0))[1] + cause.rows)
        ordered = sorted(names.items(), key=lambda item: (-item[1][1], item[1][0]))
        self.merchant.options = [
            self._everything,
            *((f"{name} · {rows:,} ({appid})", appid) for appid, (name, rows) in ordered),
        ]
        self.merchant.value = kept if kept in names else ""
        self._run = run
        self._list_rows()

    def _list_rows(self) -> None:
        """Show the first rows behind the choice."""
        run, lang = self._run, self._lang
        if run is None:
            return
        code, appid = self.code.value or "", self.merchant.value or ""
        total = sum(c.rows for c in self._causes if code in {"", c.code} and appid in {"", c.appid})
        heads = (
            _("Line"),
            _("Merchant"),
            _("Environment"),
            _("Path"),
            _("Outcome"),
            _("Why"),
            verbatim("errmsg / rid"),
        )
        rows = [
            (
                record.row.line,
                record.row.merchant,
                record.row.env,
                record.row.path,
                OUTCOMES[record.end.outcome].of(lang),
                reason_text(record.end).of(lang),
                redact(f"{record.end.errmsg} {record.end.rid}".strip()),
            )
            for record in islice(matching_rows(run, self._causes, code, appid), ROWS)
        ]
        shown = min(len(rows), total)
        title = _("Rows that did not succeed: {shown:,} of {total:,}", shown=shown, total=total).of(lang)
        self.rows.value = f"<p><b>{esc(title)}</b></p>" + table(heads, rows, "nsststt", lang, label=title)


def _merchants(group: CodeGroup, lang: Lang) -> str:
    names = ", ".join(share.merchant for share in group.merchants[:NAMED])
    more = len(group.merchants) - NAMED
    return names + _(" and {more:,} more", more=more).of(lang) * (more > 0)
