"""The result of an audit, compared with the previous one: newly broken, recovered, still broken, silenced, unknown.

The terminal, the page, the message to the team and the notebook show the same `AuditResult`. known.csv has the failures that are
reported without an alarm until a date, because somebody is dealing with them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tcb_ops.catalogue import ERRCODE, all_reasons
from tcb_ops.engine.next_commands import quoted, retry
from tcb_ops.engine.plan import tallies_to_retry
from tcb_ops.engine.stop_errors import stop_text
from tcb_ops.errors import RunNotFoundError
from tcb_ops.features.health import HEALTHY, UNHEALTHY, AuditCode
from tcb_ops.features.health.audit_calls import PERMISSIONS, QUOTA
from tcb_ops.features.health.open_rows import lies_in_merchant, open_rows, retries_of
from tcb_ops.features.health.settings import kept_by_audit
from tcb_ops.features.health.verdicts import presumed
from tcb_ops.formatting import shown
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, Text, _
from tcb_ops.kinds import environment_count
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import Asked, RunRecord, Tally
from tcb_ops.lists.table import APPID_NAMES, ENV_NAMES, Columns, Line, named_columns, read_lines
from tcb_ops.model import Outcome, Problem
from tcb_ops.reports.findings import FindingLine, FindingSection
from tcb_ops.reports.summary import Cause, RunSummary
from tcb_ops.settings import Settings, default_lang

if TYPE_CHECKING:
    from tcb_ops.features.evidence.diffs import Diff, DiffLine

_NOT_CHECKED = {
    PERMISSIONS: _(
        "Permission sets were not checked in {count:,} of {environments}. That needs the component token: set "
        "tokens.component_appid, and let the token source provide its token."
    ),
    QUOTA: _(
        "The quota left was not checked in {count:,} of {environments}: the platform gave no usable response."
    ),
}


# --- known.csv ----------------------------------------------------------------------------------------------

_KNOWN_COLUMNS = Columns(
    named_columns(
        appid=APPID_NAMES,
        env=ENV_NAMES,
        cause="cause code errcode 原因 错误码 代码",
        until="until 截止 截止日期 到期 到期日",
        note="note 备注 说明",
    ),
    needed=(("appid", "env"), ("cause",), ("until",)),
    mappable=False,
)


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """One line: an appid or an environment (or both), the cause it fails with, and until when that is known."""

    appid: str
    env: str
    cause: str
    """As errcodes.csv has it: an errcode, or a reason such as `halted`."""
    until: str
    """The last day on which it is silenced, as in ISO 8601."""
    note: str = ""

    def silences(self, appid: str, env: str, cause: str, day: str) -> bool:
        """Return whether it silences a failure on a day: until its last day, that day included."""
        of_it = self.cause == cause and self.appid in {"", appid} and self.env in {"", env}
        return of_it and self.until >= day


def read_known(file: Path) -> tuple[KnownFailure, ...]:
    """Read known.csv (encodings and delimiters as for lists). Raises InputError with all problems of the file."""
    return tuple(read_lines(file, _KNOWN_COLUMNS, _read)[0])


def _read(lines: Iterable[Line], problems: list[Problem]) -> Iterator[KnownFailure]:
    for line in lines:
        faults = []
        appid, env = line.value("appid"), line.value("env")
        if not appid and not env:
            message = _("neither an appid nor an environment is given")
            faults.append(line.problem(message, _("fill in one of them")))
        cause, until = _cause(line.value("cause")), _day(line.value("until"))
        if not cause:
            message = _("'{cause}' is not a cause", cause=shown(line.value("cause")))
            fix = _("write the code as errcodes.csv of the report has it, e.g. 85088 or halted")
            faults.append(line.problem(message, fix, "cause"))
        if not until:
            message = _("'{until}' is not a date", until=shown(line.value("until")))
            fix = _("write the last day on which it is silenced, e.g. 2026-12-31")
            faults.append(line.problem(message, fix, "until"))
        problems += faults
        if not faults:
            yield KnownFailure(appid, env, cause, until, line.value("note"))


def _cause(text: str) -> str:
    """Return an errcode or a reason in the form of errcodes.csv; empty for anything else."""
    reason = text.lower() if text.lower() in all_reasons() else ""
    return text if ERRCODE.fullmatch(text) else reason


def _day(text: str) -> str:
    try:
        return date(*map(int, re.findall(r"\d+", text))).isoformat()
    except (OverflowError, TypeError, ValueError):
        return ""


# --- the result --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """An environment that is unhealthy or unknown."""

    cause: Cause
    before: str = ""
    """Its code in the previous audit; empty if it was healthy, unknown or missing."""
    is_new: bool = True
    """Whether the previous audit did not have its cause, or silenced it."""
    known: KnownFailure | None = None
    """The line of known.csv that silences it."""
    asked: Asked | None = None
    """What the merchant was asked for, and has not done."""

    @property
    def line(self) -> FindingLine:
        """The environment as it is listed."""
        cause, known = self.cause, self.known
        remark = _("was {before}", before=self.before) if self.before not in {"", cause.code} else None
        if known is not None:
            remark = _("until {day}", day=known.until)
        elif self.asked is not None:
            by_whom = _("asked on {day} by {operator}") if self.asked.operator else _("asked by {day}")
            remark = by_whom.format(day=self.asked.at[:10], operator=self.asked.operator)
        note = known.note if known else ""
        return FindingLine(cause.merchant, cause.env, cause.code, remark, note, cause.appid)

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return the object for `--json`, a webhook or a command."""
        cause = self.cause
        finding = {name: getattr(cause, name) for name in ("appid", "merchant", "env")} | {
            "cause": cause.code,
            "meaning": cause.meaning.of(lang),
            "action": (self.asked.text if self.asked else cause.action).of(lang),
            "before": self.before or None,
            "new": self.is_new,
        }
        if self.known is not None:
            finding |= {"until": self.known.until, "note": self.known.note}
        return finding


@dataclass(frozen=True, slots=True)
class Ready:
    """Merchants that were asked and are healthy now, while rows of a run wait for it."""

    asked: tuple[Asked, ...]
    run: RunRecord
    rows: tuple[Tally, ...]
    """Those that ended by a cause in the merchant or its environment."""
    words: list[str]
    """The command that runs these rows again."""


@dataclass(frozen=True, slots=True, repr=False)
class AuditResult(Tabular):
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
    not_checked: Mapping[str, int]
    """Environments for which a check could not be made, by check (`quota`, `permissions`)."""
    fewest_link_calls: dict[str, Any] | None = None
    """Those of the healthy environment with the fewest calls left; None if no limit is known."""
    first_of_month: bool = True
    """Whether no audit of the same month is before it: then a lasting note is made again."""
    ready: tuple[Ready, ...] = ()
    damage: Text | None = None
    """Why an earlier audit could not be read; None if it could."""

    @property
    def stopped(self) -> Text | None:
        """The problem affecting every merchant that stopped the audit, if any."""
        return stop_text(self.run.stopped) if self.run.stopped is not None else None

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
        findings = (*self.new, *self.still, *self.unknown)
        return int(fail_on != "none" and any(each.is_new or fail_on == "any" for each in findings))

    def __repr__(self) -> str:
        return str(_("<AuditResult {id}: {summary}>", id=self.run.id, summary=self.summary()))

    def counts(self) -> dict[str, int]:
        """Return the number of environments by list, zeros included."""
        names = ("new", "recovered", "still", "unknown", "silenced")
        return {name: len(getattr(self, name)) for name in names} | {"healthy": self.healthy}

    def _table(self, lang: Lang) -> Lines:
        names = ("state", "merchant", "appid", "env", "cause", "meaning", "action", "before", "new")
        listed = self.to_json(lang)
        lines = [
            tuple({**finding, "state": state}.get(name) for name in names)
            for state in ("new", "recovered", "still", "unknown", "silenced")
            for finding in listed[state]
        ]
        return Lines(self.summary(), names, lines, len(lines))

    def _repr_html_(self) -> str:
        from tcb_ops.reports.cards import findings_html

        return findings_html(self, default_lang())

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return the object under `audit` in `--json`."""
        about = ("appid", "merchant", "env", "before")
        return {
            "previous": self.previous.id if self.previous is not None else None,
            "stopped": self.stopped.of(lang) if self.stopped is not None else None,
            "healthy": self.healthy,
            **{
                name: [finding.to_json(lang) for finding in getattr(self, name)]
                for name in ("new", "still", "unknown", "silenced")
            },
            "recovered": [{name: getattr(line, name) for name in about} for line in self.recovered],
            "ready": [
                {name: getattr(asked, name) for name in ("appid", "merchant", "run", "at", "operator")}
                for asked in dict.fromkeys(asked for ready in self.ready for asked in ready.asked)
            ],
            "fewest_link_calls": self.fewest_link_calls,
            "not_checked": dict(self.not_checked),
        }

    def summary(self) -> Text:
        """Sum up an audit in one line."""
        return _(
            "newly broken {new:,} · recovered {recovered:,} · still broken {still:,} · unknown {unknown:,} · silenced "
            "{silenced:,} · healthy {healthy:,} of {environments:,}",
            environments=self.environments,
            **self.counts(),
        )

    def since(self, zone: tzinfo) -> Text | None:
        """Return what has changed since the previous audit, in one line."""
        if self.previous is None:
            return None
        moment = datetime.fromtimestamp(self.previous.created_at, zone).isoformat(" ", "minutes")
        text = _("{new:,} newly broken, {recovered:,} recovered since {moment}")
        return text.format(new=len(self.new), recovered=len(self.recovered), moment=moment)

    def news(self) -> list[FindingSection]:
        """Return the environments that a message names: those of which something is new."""
        recovered = [
            FindingLine(line.merchant, line.env, "", _("was {before}", before=line.before))
            for line in self.recovered
        ]
        sections = [
            *(
                FindingSection(
                    _("Asked and ready"),
                    [
                        FindingLine(each.merchant or each.appid, "", None, appid=each.appid)
                        for each in ready.asked
                    ],
                    action=_("They were asked, and have done it. Run their rows again:"),
                    command=quoted(ready.words),
                )
                for ready in self.ready
            ),
            _section(_("Newly broken"), self.new),
            FindingSection(_("Recovered"), recovered),
            _section(_("Unknown"), [finding for finding in self.unknown if finding.is_new]),
        ]
        return [section for section in sections if section.lines]

    def sections(self) -> list[FindingSection]:
        """Return the environments that are not healthy or have recovered, the most urgent first."""
        more = [
            _section(_("Still unknown"), [finding for finding in self.unknown if not finding.is_new]),
            _section(_("Still broken"), self.still),
            FindingSection(_("Silenced by known.csv"), [finding.line for finding in self.silenced]),
        ]
        return [*self.news(), *(section for section in more if section.lines)]

    def notes(self) -> Iterator[Text]:
        """Yield notes on what an audit was compared with, and what it could not check."""
        environments = environment_count(self.environments)
        if self.damage is not None:
            text = _("Not compared with an earlier audit, so everything that is broken counts as new: {text}")
            yield text.format(text=self.damage)
        elif self.previous is None:
            yield _("There is no earlier audit to compare with: everything that is broken counts as new.")
        else:
            yield _("Compared with audit {id}.", id=self.previous.id)
        for check, count in self.not_checked.items():
            if check != PERMISSIONS or self.first_of_month:
                yield _NOT_CHECKED[check].format(count=count, environments=environments)
        if self.fewest_link_calls is not None:
            text = _("Fewest link calls left today: {left:,} of {limit:,} ({merchant}).")
            yield text.format(**self.fewest_link_calls)


def _section(title: Text, findings: Sequence[Finding]) -> FindingSection:
    return FindingSection(title, [each.line for each in findings], [each.cause for each in findings])


def audit_result(
    reader: LedgerReader,
    summary: RunSummary,
    changes: Diff | None,
    settings: Settings,
    damage: Text | None = None,
) -> AuditResult:
    """Classify what is unhealthy or unknown; `changes`: since the previous audit, None if there is none, or `damage` to it.

    A failure is new with another cause than before, or if the previous audit silenced it.
    """
    run, previous = summary.run, changes.older if changes is not None else None
    lines = changes.lines if changes is not None else ()
    was_broken = {
        (line.env, line.appid): line.before for line in lines if line.after and line.change != "newly_broken"
    }
    asked = reader.ledger.asked(run.target)
    findings: defaultdict[str, list[Finding]] = defaultdict(list)
    for cause in summary.causes:
        if not {UNHEALTHY, Outcome.UNKNOWN} & cause.outcomes.keys():
            continue
        before = was_broken.get((cause.env, cause.appid), "")
        known = _silencer(run, cause, cause.code, settings)
        was_silenced = previous is not None and before and _silencer(previous, cause, before, settings)
        is_new = before != cause.code or bool(was_silenced)
        state = "unknown" if UNHEALTHY not in cause.outcomes else "new" if is_new else "still"
        waits = asked.get((cause.appid, presumed(cause.code)))
        finding = Finding(cause, before, is_new=is_new, known=known, asked=waits)
        findings["silenced" if known is not None else state].append(finding)
    not_checked, fewest = _healthy_details(reader, run)
    return AuditResult(
        run,
        previous,
        environments=summary.total,
        healthy=summary.counts.get(HEALTHY, 0),
        **{name: tuple(findings[name]) for name in ("new", "still", "unknown", "silenced")},
        recovered=tuple(line for line in lines if line.change == "fixed"),
        not_checked=not_checked,
        fewest_link_calls=fewest,
        ready=tuple(_ready(reader, run, asked.values(), settings)),
        first_of_month=previous is None or _month(previous, settings) != _month(run, settings),
        damage=damage,
    )


def _ready(
    reader: LedgerReader, audit: RunRecord, asked: Iterable[Asked], settings: Settings
) -> Iterator[Ready]:
    """Yield what healthy merchants were asked for whose rows did not succeed by a cause in them, for each retry of such rows.

    An audit tells nothing of a merchant that was asked after it.
    """
    tallies = reader.tallies(audit)
    broken = {tally.appid for tally in tallies if tally.outcome is not HEALTHY}
    healthy = {tally.appid for tally in tallies} - broken
    of_runs = defaultdict[str, list[Asked]](list)
    for each in asked:
        if each.appid in healthy and datetime.fromisoformat(each.at).timestamp() <= audit.created_at:
            of_runs[each.run].append(each)
    for run_id, waiting in of_runs.items():
        try:
            run = reader.ledger.run(run_id)
        except RunNotFoundError:  # pruned
            continue
        rows, appids = open_rows(tallies_to_retry(reader.ledger, run)), {each.appid for each in waiting}
        chosen = [each for each in rows if each.appid in appids and all(map(lies_in_merchant, rows[each]))]
        for retried in retries_of(chosen, rows):
            again = tuple(tally for each in retried.rows for tally in rows[each])
            who = {tally.appid for tally in again}
            asked_for = tuple(each for each in waiting if each.appid in who)
            yield Ready(asked_for, run, again, retry(settings, run, narrow=retried.words))


def _month(audit: RunRecord, settings: Settings) -> tuple[int, int]:
    day = datetime.fromtimestamp(audit.created_at, settings.zone)
    return day.year, day.month


def _silencer(audit: RunRecord, cause: Cause, code: str, settings: Settings) -> KnownFailure | None:
    day = datetime.fromtimestamp(audit.created_at, settings.zone).date().isoformat()
    lines = (KnownFailure(**line) for line in kept_by_audit(audit).known)
    return next((line for line in lines if line.silences(cause.appid, cause.env, code, day)), None)


def _healthy_details(reader: LedgerReader, run: RunRecord) -> tuple[dict[str, int], dict[str, Any] | None]:
    """Return in how many healthy environments each check could not be made, and the fewest link calls left."""
    not_checked, calls = Counter[str](), list[tuple[int, int, int, str, str]]()
    for record in reader.rows(run, outcomes=frozenset({HEALTHY})):
        if (detail := record.end.detail) is None:
            continue
        if detail.code is AuditCode.NOT_CHECKED:
            not_checked.update(str(detail.params["checks"]).split(", "))
        used, limit = detail.params.get("used"), detail.params.get("limit")
        if isinstance(used, int) and isinstance(limit, int):
            row = record.row
            calls.append((max(0, limit - used), limit, used, row.merchant, row.appid))
    names = ("left", "limit", "used", "merchant", "appid")
    return dict(not_checked), dict(zip(names, min(calls), strict=True)) if calls else None
