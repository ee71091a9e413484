"""The kind of run that checks whether each environment works: its account, its status, its quota, and a link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.engine.next_commands import command, pace, retry
from tcb_ops.engine.stop_errors import stop_reason
from tcb_ops.errors import LedgerDamagedError, OutageError, PlatformStopError, TcbOpsError, TokenSourceError
from tcb_ops.features.health import HEALTHY, NOT_ASKED, REFUSED_TOKENS, UNHEALTHY, interfaces
from tcb_ops.features.health.settings import AuditRunSettings, kept_by_audit
from tcb_ops.features.health.verdicts import presumed
from tcb_ops.hooks import ComparisonHooks, hooks
from tcb_ops.i18n import Text, _, as_list, pgettext
from tcb_ops.kinds import Kind, counted, environment_count
from tcb_ops.model import Outcome, Owner, Reason, Row, RowEnd

if TYPE_CHECKING:
    from tcb_ops.engine.calls import CallContext, Calls
    from tcb_ops.engine.plan import RunSpec
    from tcb_ops.features.health.audit_result import AuditResult
    from tcb_ops.ledger.reader import LedgerReader
    from tcb_ops.ledger.records import EnvRecord, RunRecord
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.reports.summary import NextAction, RunSummary
    from tcb_ops.settings import Settings

PROBE = "tcb-ops/probe.txt"
"""The cloud path that an audit requests links for."""
_OF_EVERYBODY = (OutageError, PlatformStopError, TokenSourceError)
"""Problems that affect every merchant, not this machine."""
_UNKNOWN = {"wechat_busy", "too_fast", "unreachable"}
"""Causes that say nothing about an environment."""


class AuditKind(Kind):
    """Audits. A row is an environment, and a problem of every merchant ends the audit instead of leaving it unfinished."""

    name = "audit"
    settings = AuditRunSettings
    label = _("audit")
    report_title = _("Audit report")
    done = _("healthy")
    good_label, bad_label = _("Healthy"), _("Unhealthy or unknown")
    rows_label = pgettext("heading", "Environments")
    renewed_after = 23 * 3600.0
    clustered = of_merchants = has_findings = True
    has_list = False
    unanswered = Outcome.UNKNOWN

    def calls(self, context: CallContext) -> Calls:
        """Return the calls of its rows."""
        from tcb_ops.features.health.audit_calls import AuditCalls

        return AuditCalls(context)

    def end_of(self, end: RowEnd) -> RowEnd:
        """Return how an environment ends, from how a row of a list would have ended.

        ===========================================================  =========
        the row                                                      becomes
        ===========================================================  =========
        linked, uploaded                                             healthy
        not checked; WeChat is busy, or did not answer               unknown
        anything else: an errcode, no token, a link that is unsafe   unhealthy
        healthy, unhealthy, unknown, invalid                         unchanged
        ===========================================================  =========
        """
        if end.outcome in {HEALTHY, UNHEALTHY, Outcome.UNKNOWN, Outcome.INVALID}:
            return end
        if end.outcome in {Outcome.LINKED, Outcome.UPLOADED}:
            return replace(end, outcome=HEALTHY)
        cause = presumed(str(end.errcode or end.reason))
        unknown = end.reason is NOT_ASKED or cause in _UNKNOWN
        return replace(end, outcome=Outcome.UNKNOWN if unknown else UNHEALTHY)

    def asks(self, environments: Sequence[EnvRecord], settings: Settings) -> Mapping[str, int]:
        """Return the calls of `AuditCalls`; for an environment that the others have decided, there is none for a link."""
        from tcb_ops.wechat.client import INTERFACES

        asked = Counter[str]()
        for _appid, owner in {(environment.appid, environment.owner) for environment in environments}:
            asked[interfaces.ENVIRONMENTS[owner]] += 1
            asked[interfaces.QUOTA] += 1
            if owner is Owner.MERCHANT and settings.tokens.component_appid:
                asked[interfaces.AUTHORIZER] += 1
        for environment in environments:
            asked[f"{INTERFACES[environment.owner]}/uploadfile"] += 1
        return asked

    def stop_error(self, end: RowEnd, appid: str) -> TcbOpsError | None:
        """Return the error for a refused component token, which affects every merchant."""
        from tcb_ops.features.health.audit_calls import refused_component

        refused = end.reason is Reason.COMPONENT and end.errcode in REFUSED_TOKENS
        return refused_component(appid, end.errcode or 0, end.errmsg) if refused else None

    def end_when_stopped(self, error: TcbOpsError) -> RowEnd | None:
        """Return how environments end that were not reached because of a problem that affects every merchant."""
        if not isinstance(error, _OF_EVERYBODY):
            return None
        reason = stop_reason(error)
        code = reason.params.get("errcode")
        return RowEnd(0, Outcome.UNKNOWN, NOT_ASKED, reason, errcode=code if isinstance(code, int) else None)

    def findings(
        self, reader: LedgerReader, summary: RunSummary, settings: Settings, receiver: str = ""
    ) -> AuditResult:
        """Return what changed since the previous audit; damage to that one does not concern this one, and is a note."""
        from tcb_ops.features.health.audit_result import audit_result

        run, changes, damage = summary.run, None, None
        try:
            before = reader.ledger.previous(run, receiver)
            if before is not None and (comparison := hooks(ComparisonHooks)):
                only = getattr(reader, "only", None)
                changes = comparison.compare(reader.ledger, before, run, settings, only)
        except LedgerDamagedError as error:
            damage = error.text
        return audit_result(reader, summary, changes, settings, damage)

    def unit_count(self, count: int) -> Text:
        """Return `28 environments`."""
        return environment_count(count)

    def verdict(self, counts: Mapping[Outcome, int], *, finished: bool) -> Text:
        """Return the number of environments, and by outcome."""
        environments, listed = environment_count(sum(counts.values())), as_list(counted(counts))
        text = _("{environments}: {listed}.") if finished else _("Unfinished, {environments}: {listed}.")
        return text.format(environments=environments, listed=listed)

    def next_command(
        self, settings: Settings, run: RunRecord, actions: Sequence[NextAction]
    ) -> tuple[Text, list[str]] | None:
        """Return another audit after one that was stopped, else a retry."""
        if run.stopped is not None and not run.parent:
            # A retry is no audit of its own, with which the next one could be compared.
            known = kept_by_audit(run).known_file
            words = [
                "audit",
                *run.selection.words(),
                *(["--known", known] if known else []),
                *pace(run.settings),
            ]
            return _("When that is fixed, audit again:"), command(settings, *words, target=run.target)
        if not (again := sum(action.retried for action in actions)):
            return None
        purpose = _(
            "When the causes are fixed, check {environments} again:", environments=environment_count(again)
        )
        return purpose, retry(settings, run)


def audit_spec(merchants: Merchants, settings: AuditRunSettings | None = None) -> RunSpec:
    """Return the spec of an audit: one row per environment of merchants that have not left, all with the same path.

    The columns of the merchants file are carried through, as those of a list are.
    """
    from tcb_ops.engine.plan import RunSpec, environments_of_rows

    lines = [merchant for merchant in merchants if not merchant.left]

    def rows() -> Iterator[Row]:
        numbers = {merchant.line for merchant in lines}
        in_file = 0 not in numbers and len(numbers) == len(lines)  # not of several files
        for number, merchant in enumerate(lines, start=1):
            cells = (merchant.appid, merchant.name, merchant.env, *merchants.own_cells(merchant))
            yield Row(
                merchant.line if in_file else number,
                merchant.env,
                PROBE,
                merchant.appid,
                merchant.name,
                PROBE,
                cells,
            )

    name, headers = Path(merchants.source).name, ("appid", "name", "env", *merchants.own_headers)
    environments = environments_of_rows(rows(), merchants)
    return RunSpec(
        AUDIT,
        name,
        merchants.sha256,
        merchants.size,
        headers,
        None,
        rows,
        environments,
        merchants.selection,
        settings=settings or AuditRunSettings(),
    )


AUDIT = AuditKind()
