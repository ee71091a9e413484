"""The public functions of audits; they take what those of `tcb_ops.api` take."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tcb_ops import api
from tcb_ops.arguments import checked
from tcb_ops.errors import SettingsError, StoppedError, TcbOpsError, UsageError, check_value
from tcb_ops.features.audit.kind import AUDIT, audit_spec
from tcb_ops.features.audit.notifications import (
    Notification,
    check_receiver,
    deliver,
    is_due,
    message_about,
    notify_test,
    receivers,
)
from tcb_ops.features.audit.result import AuditResult, KnownFailure, read_known
from tcb_ops.i18n import Text, _
from tcb_ops.run import Run, RunHandle
from tcb_ops.settings import Settings
from tcb_ops.start import (
    StartOptions,
    TargetOptions,
    blocking,
    find_run,
    is_run_name,
    ledger_with_runs,
    merchants_for,
    naming,
    settings_for,
    start_run,
)

if TYPE_CHECKING:
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.records import RunRecord


@checked
def start_audit(
    merchants: Merchants | str | Path = "",
    *,
    known: str | Path | None = None,
    report: str | Path | None = None,
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
    `report`: the folder of the report. `audit` writes it at the end; after `start_audit` export the run there: until then the same
    call resumes it.
    """
    listed, settings = merchants_for(merchants, options), settings_for(options)
    failures = [line.to_json() for line in known_failures(known, settings)]
    about: dict[str, object] = {"known": failures}
    if known is not None:
        about["known_file"] = str(Path(known).absolute())
    selection = options.get("selection", "")
    return start_run(
        lambda _: audit_spec(listed, selection, about), settings, options, out=report, cluster=cluster
    )


audit = blocking(start_audit)


def audited(run: Run, receiver: str = "") -> AuditResult:
    """Return what an audit found; `receiver`: compared with the last audit of which this receiver was told.

    Raises UsageError if the run is not an audit.
    """
    result = run.findings(receiver)
    if not isinstance(result, AuditResult):
        raise UsageError(
            _("run {id} is not an audit but a run of `{kind}`.", id=run.id, kind=run.record.kind)
        )
    return result


@checked
def notify(
    run: str | Run | None = "latest",
    *,
    on_demand: bool = True,
    **options: Unpack[TargetOptions],
) -> list[Notification]:
    """Send the message about a finished audit to every `[[notify]]` of the settings; return the deliveries.

    `run`: a Run, an id, a prefix or `latest` (the newest finished audit that is no retry); None sends a test message. `on_demand`
    False: only to receivers whose `on` applies. A failed delivery raises no error.
    """
    settings = settings_for(options, run)
    if isinstance(run, str):
        check_value("run", run, is_run_name(run), _("a Run, a run's id, or None"))
    if not settings.section("notify"):
        raise SettingsError(
            _("No receivers are configured."),
            _('Add a [[notify]] section to tcb-ops.toml, for example with kind = "wecom".'),
        )
    if run is None:
        return notify_test(settings)
    ledger = ledger_with_runs(settings)
    record = newest_audit(settings) if run == "latest" else find_run(run, settings).record
    if record is None:
        raise UsageError(_("No audit of {target} has finished yet.", target=settings.run_target))
    if record.kind is AUDIT and record.finished_at is None:
        raise UsageError(
            _("audit {id} is not finished: there is no result to send yet.", id=record.id),
            _("Run the same audit again to finish it."),
        )

    named = list(zip(receivers(settings), settings.section("notify"), strict=True))
    # Compared with the last audit of which each was told, so that what was not delivered is news again.
    results = {name: audited(Run(ledger, record, settings), name) for name, _to in named}
    due = {name for name, to in named if is_due(to.on, results[name])}
    waiting = {*record.undelivered, *(set() if on_demand else due)}
    _note_undelivered(ledger, record, waiting)
    deliveries = []
    for name, to in named:
        if not on_demand and name not in due:
            deliveries.append(Notification(name, sent=False, detail=_("not sent: nothing is new"), due=False))
            continue
        deliveries.append(deliver(name, to, *message_about(results[name], settings), settings))
        if deliveries[-1].sent and name in waiting:
            waiting.remove(name)
            _note_undelivered(ledger, record, waiting)
    return deliveries


def _note_undelivered(ledger: Ledger, audit: RunRecord, receivers: Collection[str]) -> None:
    with suppress(StoppedError):  # a ledger that cannot be written keeps nobody from being told
        ledger.note_undelivered(audit, receivers)


def receiver_problems(settings: Settings) -> list[Text]:
    """Return which receivers cannot be reached with what is here, and which did not get the last audit's message."""
    problems, named = list[Text](), zip(receivers(settings), settings.section("notify"), strict=True)
    for name, to in named:
        try:
            check_receiver(to, settings)
        except TcbOpsError as error:
            problems.append(_("{receiver}: {detail}", receiver=name, detail=error.text))
    if (record := newest_audit(settings)) is not None:
        text = _("{receiver}: it did not get the message about {run}")
        problems += [text.format(receiver=name, run=record.id) for name in record.undelivered]
    return problems


def newest_audit(settings: Settings, selection: str | None = None) -> RunRecord | None:
    """Return the newest finished audit of the target that is no retry; with this selection, if one is given."""
    audits = [
        run.record
        for run in api.runs(settings=settings, damaged=[])
        if (run.record.kind, run.record.target) == (AUDIT, settings.run_target)
        and run.record.finished_at is not None
        and not run.record.parent
        and selection in {None, run.record.selection}
    ]
    return max(audits, key=lambda record: record.number, default=None)


def known_failures(file: str | Path | None, settings: Settings) -> tuple[KnownFailure, ...]:
    """Return the lines of a file of known failures; None: of the settings' own, if it exists."""
    if file is not None:
        with naming("known", file):
            return read_known(Path(file))
    own: Path = settings.section("audit").known
    return read_known(own) if own.exists() else ()
