"""The kind of run, the calls of its rows, and its section of the report."""

from dataclasses import dataclass, replace

from tcb_ops.engine.calls import Calls, FailedAttempt
from tcb_ops.engine.list_kinds import ListKind
from tcb_ops.i18n import verbatim
from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.findings import FindingLine, Findings, FindingSection

from . import OPEN, SHUT


class LookKind(ListKind):
    name = "look"
    label, report_title, done = verbatim("look"), verbatim("What is open"), verbatim("open")
    surveys = True

    def calls(self, context):
        return LookCalls(context)

    def end_of(self, end):
        return replace(end, outcome=SHUT) if end.outcome is Outcome.REFUSED else end

    def findings(self, reader, summary, settings, receiver=""):
        rows = reader.rows(summary.run, outcomes=frozenset({SHUT}))
        return Looked([FindingLine(r.row.merchant, r.row.env, r.end.errmsg or "-") for r in rows])


class LookCalls(Calls):
    async def advance(self, task):
        answer = await self._ask(task, self.wechat.call("tcb/getenvinfo", {}, task.token))
        if isinstance(answer, FailedAttempt):
            return answer
        is_open = any((env["env"], env["status"]) == (task.row.env, "NORMAL") for env in answer["info_list"])
        return self._end(task, OPEN) if is_open else self._end(task, SHUT, Reason.REFUSED)


@dataclass(frozen=True)
class Looked(Findings):
    shut: list[FindingLine]
    title, nothing = verbatim("Environments"), verbatim("All are open.")

    def sections(self):
        return [FindingSection(verbatim("Shut"), self.shut)] if self.shut else []


LOOK = LookKind()
