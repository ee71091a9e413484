"""The result of an audit, compared with the previous one: newly broken, recovered, still broken, silenced, unknown.

The terminal, the page, the message to the team, the metrics and the notebook show the same `AuditResult`. The metrics
are a text file for the collector of the node exporter.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, ClassVar

from tcb_ops.errors import UsageError
from tcb_ops.features.audit import HEALTHY, UNHEALTHY, AuditCode
from tcb_ops.features.audit.checks import other_causes
from tcb_ops.features.audit.known import KnownFailure, kept_with_run, silencing
from tcb_ops.i18n import Lang, Text, _, ngettext
from tcb_ops.kinds import environment_count
from tcb_ops.model import Outcome
from tcb_ops.reports.comparisons import Change, Diff, DiffLine, Place, Reference, State
from tcb_ops.reports.findings import FindingLine, FindingSection
from tcb_ops.reports.run_views import RunReader
from tcb_ops.reports.summary import Cause, RunSummary
from tcb_ops.resources import system_reason
from tcb_ops.runs.next_commands import install
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.stop_errors import stop_text
from tcb_ops.settings import Settings

_NOT_CHECKED = {
    "permissions": _(
        "Permission sets were not checked in {count:,} of {environments}. That needs the component token: set "
        "tokens.component_appid, and let the token source provide its token."
    ),
}
_NO_QUOTA = _(
    "The quota left was not checked in {count:,} of {environments}: the platform gave no usable response."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """An environment that is unhealthy or unknown."""

    cause: Cause
    before: str = ""
    """Its code in the previous audit, or when it was last known; empty if it was healthy, unknown or missing."""
    is_new: bool = True
    """Whether it has a cause that the previous audit did not have, or was silenced there (`is_new`)."""
    known: KnownFailure | None = None
    """The line of known.csv that silences it; with several causes the one that expires first."""
    also: tuple[str, ...] = ()
    """The codes of its further causes."""

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return the object for `--json`, a webhook or a command."""
        cause = self.cause
        found = {name: getattr(cause, name) for name in ("appid", "merchant", "env")} | {
            "cause": cause.code,
            "causes": [cause.code, *self.also],
            "meaning": cause.meaning.of(lang),
            "action": cause.action.of(lang),
            "before": self.before or None,
            "new": self.is_new,
        }
        if self.known is not None:
            found |= {"until": self.known.until.isoformat(), "note": self.known.note}
        return found


@dataclass(frozen=True, slots=True)
class LinkCalls:
    """A merchant's link calls of the day."""

    appid: str
    merchant: str
    used: int
    limit: int

    @property
    def left(self) -> int:
        """The calls that are left until midnight in Beijing."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class AuditResult:
    """An audit and its changes since the previous one. Every environment that is not healthy is in exactly one list."""

    title: ClassVar[Text] = _("This audit")
    nothing: ClassVar[Text] = _("Nothing newly broken, recovered, silenced or unknown.")
    run: RunRecord
    previous: RunRecord | None
    """The latest finished audit of the same target and --where that was not stopped; None if there is none."""
    environments: int
    healthy: int
    new: tuple[Finding, ...]
    """Newly broken: unhealthy, with a cause that it did not have before."""
    still: tuple[Finding, ...]
    recovered: tuple[DiffLine, ...]
    unknown: tuple[Finding, ...]
    silenced: tuple[Finding, ...]
    expired: tuple[KnownFailure, ...]
    """Lines of known.csv whose date has passed."""
    not_checked: Mapping[str, int]
    """Environments for which a check could not be made, by check (`quota`, `permissions`)."""
    fewest_link_calls: LinkCalls | None = None
    """Those of the healthy environment with the fewest calls left; None if no limit is known."""
    added: int = 0
    """Number of environments that the previous audit did not have."""
    gone: int = 0
    """Number of environments that only the previous audit had."""

    @property
    def stopped(self) -> Text | None:
        """The problem affecting every merchant that stopped the audit, if any."""
        return stop_text(self.run.stopped) if self.run.stopped is not None else None

    @property
    def clock_set_back(self) -> bool:
        """Whether the previous audit began later than this one by this machine's clock."""
        return self.previous is not None and self.previous.created_at > self.run.created_at

    @property
    def changed(self) -> bool:
        """Whether something is newly broken, recovered or newly unknown, or the audit was stopped."""
        return bool(
            self.new
            or self.recovered
            or self.run.stopped is not None
            or any(finding.is_new for finding in self.unknown)
        )

    def exit_code(self, fail_on: str = "any") -> int:
        """Return the exit code of the command; `fail_on` is `any`, `new` or `none`.

        =========  =======  ======================================  ====
        stopped    fail_on  not silenced                            code
        =========  =======  ======================================  ====
        yes        any of   any                                     3
        no         none     any                                     0
        no         new      something new, unhealthy or unknown     1
        no         new      nothing new                             0
        no         any      something unhealthy or unknown          1
        no         any      nothing                                 0
        =========  =======  ======================================  ====
        """
        if self.run.stopped is not None:
            return 3
        bad = [*self.new, *self.still, *self.unknown]
        if fail_on == "new":
            bad = [finding for finding in bad if finding.is_new]
        return 1 if bad and fail_on != "none" else 0

    def counts(self) -> dict[str, int]:
        """Return the number of environments by list, zeros included."""
        return {
            "new": len(self.new),
            "recovered": sum(line.rows for line in self.recovered),
            "still": len(self.still),
            "unknown": len(self.unknown),
            "silenced": len(self.silenced),
            "expired": len(self.expired),
            "healthy": self.healthy,
        }

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return the object under `audit` in `--json`."""
        return {
            "previous": self.previous.id if self.previous is not None else None,
            "stopped": self.stopped.of(lang) if self.stopped is not None else None,
            "healthy": self.healthy,
            **{
                name: [finding.to_json(lang) for finding in getattr(self, name)]
                for name in ("new", "still", "unknown", "silenced")
            },
            "recovered": [
                {"appid": line.appid, "merchant": line.merchant, "env": line.env, "before": line.before}
                for line in self.recovered
            ],
            "expired": [line.to_json() for line in self.expired],
            "fewest_link_calls": asdict(self.fewest_link_calls)
            if self.fewest_link_calls is not None
            else None,
            "not_checked": dict(self.not_checked),
            "added": self.added,
            "gone": self.gone,
        }

    def summary(self) -> Text:
        """Sum up an audit in one line."""
        counts = self.counts()
        return _(
            "newly broken {new:,} · recovered {recovered:,} · still broken {still:,} · unknown {unknown:,} · silenced "
            "{silenced:,} · healthy {healthy:,} of {environments:,}",
            environments=self.environments,
            **{
                name: counts[name] for name in ("new", "recovered", "still", "unknown", "silenced", "healthy")
            },
        )

    def sections(self) -> list[FindingSection]:
        """Return the environments that are not healthy or have recovered, the most urgent first."""

        def group(title: Text, findings: tuple[Finding, ...]) -> FindingSection:
            return FindingSection(title, [*map(_line, findings)], [finding.cause for finding in findings])

        recovered = [
            FindingLine(line.merchant, line.env, "", _("was {before}", before=line.before))
            for line in self.recovered
        ]
        expired = [FindingLine(one.appid, one.env, one.cause, _until(one), one.note) for one in self.expired]
        groups = (
            group(_("Newly broken"), self.new),
            FindingSection(_("Recovered"), recovered),
            group(_("Unknown"), self.unknown),
            group(_("Still broken"), self.still),
            FindingSection(_("Silenced by known.csv"), [*map(_line, self.silenced)]),
            FindingSection(_("Expired in known.csv: remove these lines, or give them a new date"), expired),
        )
        return [one for one in groups if one.lines]

    def notes(self) -> Iterator[Text]:
        """Yield notes on what an audit was compared with, and what it could not check."""
        environments = environment_count(self.environments)
        if self.previous is None:
            yield _("There is no earlier audit to compare with: everything that is broken counts as new.")
        else:
            yield _("Compared with audit {id}.", id=self.previous.id)
        if self.clock_set_back:
            yield _("By this machine's clock that audit began later than this one: check the clock.")
        if self.added and self.previous is not None:
            yield ngettext(
                "{n:,} environment was added to the merchants file since.",
                "{n:,} environments were added to the merchants file since.",
                self.added,
            )
        if self.gone:
            yield ngettext(
                "{n:,} environment of that audit is no longer in the merchants file, or has left.",
                "{n:,} environments of that audit are no longer in the merchants file, or have left.",
                self.gone,
            )
        for check, count in self.not_checked.items():
            text = _NOT_CHECKED.get(check, _NO_QUOTA)
            yield text.format(count=count, environments=environments)
        if (calls := self.fewest_link_calls) is not None:
            yield _(
                "Fewest link calls left today: {left:,} of {limit:,} ({merchant}).",
                left=calls.left,
                limit=calls.limit,
                merchant=calls.merchant,
            )


def _line(one: Finding) -> FindingLine:
    cause, known = one.cause, one.known
    if known is not None:
        return FindingLine(cause.merchant, cause.env, cause.code, _until(known), known.note)
    was = _("was {before}", before=one.before) if one.before not in {"", cause.code} else None
    also = _("also {codes}", codes=", ".join(one.also)) if one.also else None
    remark = _("{first}; {second}", first=also, second=was) if also and was else also or was
    return FindingLine(cause.merchant, cause.env, cause.code, remark)


def _until(known: KnownFailure) -> Text:
    return _("until {day}", day=known.until.isoformat())


def day_of(run: RunRecord, settings: Settings) -> date:
    """Return the day of a run in the settings' time zone, for comparison with the dates of known.csv."""
    return datetime.fromtimestamp(run.created_at, settings.zone).date()


def audit_result(
    reader: RunReader, summary: RunSummary, changes: Diff | None, settings: Settings
) -> AuditResult:
    """Classify an audit's findings; `changes`: since the previous audit, None if there is none."""
    run, previous = summary.run, changes.older if changes is not None else None
    known, day = kept_with_run(run.settings), day_of(run, settings)
    not_checked, fewest = _healthy_details(reader, run)
    here = {(place.appid, place.env) for place in reader.envs(run)}
    there = {(place.appid, place.env) for place in reader.envs(previous)} if previous is not None else set()
    findings = _findings(reader, summary, changes, settings)
    bad = [one for one in findings if one.known is None]
    unhealthy = [one for one in bad if UNHEALTHY in one.cause.outcomes]
    return AuditResult(
        run,
        previous,
        summary.total,
        summary.counts.get(HEALTHY, 0),
        tuple(one for one in unhealthy if one.is_new),
        tuple(one for one in unhealthy if not one.is_new),
        tuple(changes.of(Change.FIXED)) if changes is not None else (),
        tuple(one for one in bad if Outcome.UNKNOWN in one.cause.outcomes),
        tuple(one for one in findings if one.known is not None),
        tuple(line for line in known if line.until < day),
        not_checked,
        fewest,
        len(here - there) if previous is not None else 0,
        len(there - here),
    )


def is_new(causes: Collection[str], before: Collection[str], *, was_silenced: bool) -> bool:
    """Return whether a failure is news, from its causes (those that are not silenced, if it has such) and those before.

    =====================================  ============  ===
    causes                                 was silenced  new
    =====================================  ============  ===
    one that it did not have before        any           yes
    as before, or some of those            no            no
    as before, or some of those            yes           yes
    =====================================  ============  ===
    """
    return was_silenced or not set(causes) <= set(before)


def _findings(
    reader: RunReader, summary: RunSummary, changes: Diff | None, settings: Settings
) -> list[Finding]:
    run = summary.run
    others = _further_causes(reader, run)
    lines = {
        (line.appid, line.env): line for line in (changes.lines if changes is not None else ()) if line.after
    }
    lists: dict[int, tuple[tuple[KnownFailure, ...], date]] = {}
    """known.csv as this audit and those before had it, and their days, by run number."""

    def silencers(of: RunRecord, place: tuple[str, str], causes: Iterable[str]) -> list[KnownFailure | None]:
        """Return for each cause of an environment the line that silenced it in an audit."""
        if of.number not in lists:
            lists[of.number] = kept_with_run(of.settings), day_of(of, settings)
        known, day = lists[of.number]
        return [silencing(known, *place, cause, day) for cause in causes]

    found = []
    for cause in summary.causes:
        if not {UNHEALTHY, Outcome.UNKNOWN} & cause.outcomes.keys():
            continue
        place = (cause.appid, cause.env)
        also = others.get(place[::-1], ())
        causes, line = (cause.code, *also), lines.get(place)
        before, were, was_silenced = "", list[str](), False
        if (
            changes is not None
            and line is not None
            and line.before
            and line.change is not Change.NEWLY_BROKEN
        ):
            there = changes.references.get(place[::-1], Reference(changes.older))
            were = [line.before, *there.also]
            before = cause.code if cause.code in were else line.before
            was_silenced = all(silencers(there.run, place, were))
        silenced_by = silencers(run, place, causes)
        alarming = [code for code, silencer in zip(causes, silenced_by, strict=True) if silencer is None]
        found.append(
            Finding(
                cause,
                before,
                is_new=is_new(alarming or causes, were, was_silenced=was_silenced),
                known=None if alarming else min(filter(None, silenced_by), key=lambda one: one.until),
                also=also,
            )
        )
    return found


def new_failures(
    reader: RunReader, summary: RunSummary, changes: Diff | None, settings: Settings
) -> set[tuple[str, str]]:
    """Return the environments, as (appid, env), that fail now and did not before: those to check again."""
    return {
        (one.cause.appid, one.cause.env)
        for one in _findings(reader, summary, changes, settings)
        if one.is_new and one.known is None
    }


def _further_causes(reader: RunReader, audit: RunRecord) -> dict[Place, tuple[str, ...]]:
    """Return the codes of the further causes of environments that have several in an audit."""
    return {
        (record.row.env, record.row.appid): also
        for record in reader.rows(audit, outcomes=frozenset({UNHEALTHY}))
        if (also := other_causes(record.end.detail))
    }


def references(
    ledger: LedgerReader, audit: RunRecord
) -> tuple[dict[Place, tuple[State, Reference]], dict[Place, Reference]]:
    """Return the last known state of what is unknown to an audit, and what has several causes in it."""
    from tcb_ops.features.audit.queries import last_known

    known = {
        place: (state, Reference(run, other_causes(kept)))
        for run, place, state, kept in last_known(ledger, audit)
    }
    several = _further_causes(ledger, audit)
    return known, {place: Reference(audit, also) for place, also in several.items()}


def _healthy_details(reader: RunReader, run: RunRecord) -> tuple[dict[str, int], LinkCalls | None]:
    """Return in how many healthy environments each check could not be made, and the fewest link calls left."""
    not_checked: Counter[str] = Counter()
    fewest: LinkCalls | None = None
    for record in reader.rows(run, outcomes=frozenset({HEALTHY})):
        detail = record.end.detail
        if detail is None:
            continue
        if detail.code is AuditCode.NOT_CHECKED:
            not_checked.update(str(detail.params["checks"]).split(", "))
        used, limit = detail.params.get("used"), detail.params.get("limit")
        if isinstance(used, int) and isinstance(limit, int):
            calls = LinkCalls(record.row.appid, record.row.merchant, used, limit)
            if fewest is None or calls.left < fewest.left:
                fewest = calls
    return dict(not_checked), fewest


# --- metrics for Prometheus -----------------------------------------------------------------------------------------


def check_metrics(file: Path) -> None:
    """Raise UsageError if metrics cannot be written. Also for use before an audit."""
    try:
        import prometheus_client  # noqa: F401  only whether it is installed
    except ImportError:
        command = install("metrics")
        raise UsageError(
            _("--metrics needs the package prometheus-client. To install it:\n{command}", command=command)
        ) from None
    real = Path(os.path.realpath(file))  # Path.resolve raises RuntimeError for a loop of links
    if (os.path.lexists(real) and not real.is_file()) or not real.parent.is_dir():
        raise UsageError(_("--metrics {file}: this must be a file in an existing folder.", file=file))


def write_metrics(result: AuditResult, file: Path) -> Text | None:
    """Write an audit's metrics; return None, or why that failed."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"tcb_ops_audit_{name}", text, ["target", *labels], registry=registry)

    target = result.run.target
    by_state = gauge("environments", "Environments of the latest audit, by state.", "state")
    for state, count in result.counts().items():
        if state != "expired":
            by_state.labels(target, state).set(count)
    gauge("stopped", "1 where a problem that affects every merchant stopped it.").labels(target).set(
        result.run.stopped is not None
    )
    gauge("finished_timestamp_seconds", "When it finished.").labels(target).set(result.run.finished_at or 0)
    broken = gauge(
        "environment_broken",
        "An environment that is unhealthy or unknown, and not silenced.",
        "appid",
        "env",
        "cause",
    )
    for finding in (*result.new, *result.still, *result.unknown) if result.run.stopped is None else ():
        broken.labels(target, finding.cause.appid, finding.cause.env, finding.cause.code).set(1)
    try:
        write_to_textfile(os.path.realpath(file), registry)  # a link stays, its target is replaced
    except OSError as error:
        return _("{file}: the metrics cannot be written ({why}).", file=file, why=system_reason(error))
    return None
