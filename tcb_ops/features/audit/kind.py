"""The kind of run that checks whether each environment works: its account, its status, its quota, and a link."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.errcodes import Decision, errcode, store_code
from tcb_ops.errors import OutageError, PlatformStopError, TcbOpsError, TokenSourceError
from tcb_ops.features.audit import HEALTHY, NOT_ASKED, REFUSED_TOKENS, UNHEALTHY
from tcb_ops.i18n import Text, _, as_list, ngettext, pgettext
from tcb_ops.kinds import Kind, environment_count
from tcb_ops.model import Outcome, Reason, Row, RowEnd
from tcb_ops.runs.next_commands import audit_again, retry
from tcb_ops.runs.stop_errors import stop_reason

if TYPE_CHECKING:
    from tcb_ops.features.audit.result import AuditResult
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.reports.comparisons import Diff
    from tcb_ops.reports.run_views import RunReader
    from tcb_ops.reports.summary import NextAction, RunSummary
    from tcb_ops.runs.plan import RunSpec
    from tcb_ops.runs.records import RunRecord
    from tcb_ops.settings import Settings

PROBE = "tcb-ops/probe.txt"
"""The cloud path that an audit requests links for."""
_OF_EVERYBODY = (OutageError, PlatformStopError, TokenSourceError)
"""Problems that affect every merchant, not this machine."""
_NO_VERDICT = {Reason.NO_ANSWER, NOT_ASKED}
_FOR_LATER = {Decision.RETRY, Decision.RETRY_ONCE, Decision.SLOW}


class AuditKind(Kind):
    """Audits. A row is an environment, and a problem of every merchant ends the audit instead of leaving it unfinished."""

    name = "audit"
    calls_at = "tcb_ops.features.audit.calls:AuditCalls"
    main = True
    label = _("audit")
    report_title = _("Audit report")
    done = _("healthy")
    good_label, bad_label = _("Healthy"), _("Unhealthy or unknown")
    rows_label = pgettext("heading", "Environments")
    renewed_after = 23 * 3600.0
    clustered = surveys = True
    has_list = False
    unanswered = Outcome.UNKNOWN
    announce = "tcb_ops.features.audit.command:announce"

    def end_of(self, end: RowEnd) -> RowEnd:
        """Return how an environment ends, from how a row of a list would have ended.

        ===========================================================  =========
        the row                                                      becomes
        ===========================================================  =========
        linked, uploaded                                             healthy
        an errcode or a store's code to retry or slow down for       unknown
        any other errcode, also of rows stopped by a breaker         unhealthy
        no response; not checked                                     unknown
        anything else: no token, a store that refuses                unhealthy
        healthy, unhealthy, unknown, invalid                         unchanged
        ===========================================================  =========
        """
        if end.outcome in {HEALTHY, UNHEALTHY, Outcome.UNKNOWN, Outcome.INVALID}:
            return end
        if end.outcome in {Outcome.LINKED, Outcome.UPLOADED}:
            return replace(end, outcome=HEALTHY)
        unknown = end.reason in _NO_VERDICT
        if end.reason is Reason.DEAD_TOKEN:
            unknown = False
        elif end.errcode:
            unknown = errcode(end.errcode).decision in _FOR_LATER
        elif end.store_code:
            unknown = store_code(end.store_code, "", end.http_status or 0).decision in _FOR_LATER
        return replace(end, outcome=Outcome.UNKNOWN if unknown else UNHEALTHY)

    def stops_run(self, end: RowEnd) -> bool:
        """Return whether the component token was refused, which affects every merchant."""
        return end.reason is Reason.COMPONENT and end.errcode in REFUSED_TOKENS

    def end_when_stopped(self, error: TcbOpsError) -> RowEnd | None:
        """Return how environments end that were not reached because of a problem that affects every merchant."""
        if not isinstance(error, _OF_EVERYBODY):
            return None
        reason = stop_reason(error)
        code = reason.params.get("errcode")
        return RowEnd(0, Outcome.UNKNOWN, NOT_ASKED, reason, errcode=code if isinstance(code, int) else None)

    def findings(
        self, reader: RunReader, summary: RunSummary, changes: Diff | None, settings: Settings
    ) -> AuditResult:
        """Return what changed since the previous audit."""
        from tcb_ops.features.audit.result import audit_result

        return audit_result(reader, summary, changes, settings)

    def unit_count(self, count: int) -> Text:
        """Return `28 environments`."""
        return environment_count(count)

    def verdict(self, counts: Mapping[Outcome, int], *, finished: bool) -> Text:
        """Return how many environments are healthy, and the others by outcome; or how many were checked."""
        total = sum(counts.values())
        healthy = sum(rows for outcome, rows in counts.items() if outcome.succeeded)
        environments = environment_count(total)
        if not finished:
            pending = counts.get(Outcome.PENDING, 0)
            return _(
                "Unfinished: {total:,} of {environments} were checked ({good:,} healthy), {pending:,} pending.",
                total=total - pending,
                environments=environments,
                good=healthy,
                pending=pending,
            )
        if healthy == total > 0:
            return _("All is well: {environments}, all healthy.", environments=environments)
        listed = as_list(
            ngettext("{n:,} is {outcome}", "{n:,} are {outcome}", rows, outcome=outcome.label)
            for outcome, rows in counts.items()
            if not outcome.succeeded
        )
        text = _("{good:,} of {environments} are healthy, {listed}.")
        if 1 in {healthy, total}:
            text = _("{good:,} of {environments} is healthy, {listed}.")
        return text.format(good=healthy, environments=environments, listed=listed)

    def next_step(
        self, settings: Settings, run: RunRecord, actions: Sequence[NextAction]
    ) -> tuple[Text, list[str]] | None:
        """Return another audit after one that was stopped, else a retry."""
        if run.stopped is not None and not run.parent:
            # A retry is no audit of its own, with which the next one could be compared.
            return _("When that is fixed, audit again:"), audit_again(settings, run)
        count = environment_count(sum(action.group.rows for action in actions))
        purpose = _("When the causes are fixed, check {environments} again:", environments=count)
        return purpose, retry(settings, run)


def audit_spec(merchants: Merchants, selection: str, options: Mapping[str, Any]) -> RunSpec:
    """Return the spec of an audit: one row per environment of merchants that have not left, all with the same path."""
    from tcb_ops.runs.plan import RunSpec, environments_of_rows

    lines = [merchant for merchant in merchants if not merchant.left]

    def rows() -> Iterator[Row]:
        for number, merchant in enumerate(lines, start=1):
            cells = (merchant.appid, merchant.name, merchant.env)
            yield Row(number, merchant.env, PROBE, merchant.appid, merchant.name, PROBE, cells)

    name, headers = Path(merchants.source).name, ("appid", "name", "env")
    environments = environments_of_rows(rows(), merchants)
    return RunSpec(
        AUDIT, name, merchants.sha256, 0, headers, None, rows, environments, selection, options=options
    )


AUDIT = AuditKind()
