"""The public functions of audits; they take what those of `tcb_ops.api` take."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tcb_ops import api
from tcb_ops.arguments import checked
from tcb_ops.errors import UsageError
from tcb_ops.features.health.audit_kind import AUDIT, audit_spec
from tcb_ops.features.health.audit_result import AuditResult, read_known
from tcb_ops.features.health.settings import AuditRunSettings
from tcb_ops.i18n import _
from tcb_ops.model import Selection
from tcb_ops.run import Run, RunHandle
from tcb_ops.settings import Settings
from tcb_ops.start import StartOptions, blocking, merchants_for, naming, settings_for, start_run

if TYPE_CHECKING:
    from tcb_ops.ledger.records import RunRecord
    from tcb_ops.lists.merchants import Merchants


@checked
def start_audit(
    merchants: Merchants | str | Path = "",
    *,
    known: str | Path | None = None,
    out: str | Path | None = None,
    cluster: str | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start an audit, or resume the unfinished one.

    Each environment of the merchants (by default those of the settings' file) that have not left is healthy, unhealthy or unknown, by its token, permission set,
    status and quota, and an upload link for a probe path.
    If a problem that affects every merchant stops the audit, the run still ends: environments not checked are unknown,
    and `Run.stopped` has the reason.

    `known`: the file of known failures; None: the settings' own, if it exists. `Run.audit()` compares the audit with the
    previous one.
    `out`: the folder of the report. `audit` writes it at the end; after `start_audit` export the run there: until then the same
    call resumes it.
    """
    settings = settings_for(options)
    listed = merchants_for(merchants, options, options.get("where", ""))
    file: Path = settings.section("audit").known if known is None else Path(known)
    with naming("known", known):
        failures = read_known(file) if known is not None or file.exists() else ()
    about = AuditRunSettings(
        known=tuple(asdict(failure) for failure in failures),
        known_file=None if known is None else str(Path(known).absolute()),
    )
    return start_run(lambda _: audit_spec(listed, about), settings, options, out=out, cluster=cluster)


audit = blocking(start_audit)


def audited(run: Run, receiver: str = "") -> AuditResult:
    """Return what an audit found; `receiver`: compared with the last audit of which this receiver was told.

    Raises UsageError if the run is not an audit.
    """
    result = run.findings(receiver)
    if not isinstance(result, AuditResult):
        text = _("Run {id} is not an audit but a run of {kind}.", id=run.id, kind=run.record.kind)
        raise UsageError(text)
    return result


def newest_audit(settings: Settings, selection: Selection | None = None) -> RunRecord | None:
    """Return the newest finished audit of the target that is no retry; with this selection, if one is given."""
    for record in (run.record for run in api.runs(settings=settings, damaged=[])):
        is_whole = (record.kind, record.target) == (AUDIT, settings.run_target) and not record.parent
        if is_whole and record.finished_at is not None and selection in {None, record.selection}:
            return record
    return None
