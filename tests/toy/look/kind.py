"""The kind of run, and its section of the report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcb_ops.engine.list_kinds import ListKind
from tcb_ops.i18n import verbatim
from tcb_ops.model import Outcome
from tcb_ops.reports.findings import FindingLine, Findings, FindingSection

from . import SHUT

if TYPE_CHECKING:
    from tcb_ops.engine.calls import CallContext, Calls
    from tcb_ops.i18n import Lang
    from tcb_ops.ledger.reader import LedgerReader
    from tcb_ops.model import RowEnd
    from tcb_ops.reports.summary import RunSummary
    from tcb_ops.settings import Settings


class LookKind(ListKind):
    """A run that looks whether the environments of a list are open."""

    name = "look"
    label, report_title, done = verbatim("look"), verbatim("What is open"), verbatim("open")
    has_findings = True

    def calls(self, context: CallContext) -> Calls:
        """Return the calls of its rows."""
        from .calls import LookCalls  # they load HTTP, which `tcb-ops runs` does not need

        return LookCalls(context)

    def end_of(self, end: RowEnd) -> RowEnd:
        """Return a refused row as one whose environment is shut."""
        return replace(end, outcome=SHUT) if end.outcome is Outcome.REFUSED else end

    def findings(
        self, reader: LedgerReader, summary: RunSummary, settings: Settings, receiver: str = ""
    ) -> Looked:
        """Return the environments that are shut."""
        rows = reader.rows(summary.run, outcomes=frozenset({SHUT}))
        return Looked([FindingLine(r.row.merchant, r.row.env, r.end.errmsg or "-") for r in rows])


@dataclass(frozen=True)
class Looked(Findings):
    """What a run found."""

    shut: list[FindingLine]
    title, nothing = verbatim("Environments"), verbatim("All are open.")

    def sections(self) -> list[FindingSection]:
        """Return the environments that are shut as one section."""
        return [FindingSection(verbatim("Shut"), self.shut)] if self.shut else []

    def to_json(self, lang: Lang) -> dict[str, list[str]]:
        """Return the environments that are shut, a name for each row."""
        return {"shut": [line.env for line in self.shut]}


LOOK = LookKind()
