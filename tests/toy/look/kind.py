"""The kind of run, and its section of the report."""

from dataclasses import dataclass, replace

from tcb_ops.engine.list_kinds import ListKind
from tcb_ops.i18n import verbatim
from tcb_ops.model import Outcome
from tcb_ops.reports.findings import FindingLine, Findings, FindingSection

from . import SHUT


class LookKind(ListKind):
    name = "look"
    label, report_title, done = verbatim("look"), verbatim("What is open"), verbatim("open")
    has_findings = True

    def calls(self, context):
        from .calls import LookCalls  # they load HTTP, which `tcb-ops runs` does not need

        return LookCalls(context)

    def end_of(self, end):
        return replace(end, outcome=SHUT) if end.outcome is Outcome.REFUSED else end

    def findings(self, reader, summary, settings, receiver=""):
        rows = reader.rows(summary.run, outcomes=frozenset({SHUT}))
        return Looked([FindingLine(r.row.merchant, r.row.env, r.end.errmsg or "-") for r in rows])


@dataclass(frozen=True)
class Looked(Findings):
    shut: list[FindingLine]
    title, nothing = verbatim("Environments"), verbatim("All are open.")

    def sections(self):
        return [FindingSection(verbatim("Shut"), self.shut)] if self.shut else []


LOOK = LookKind()
