"""What a kind of run is, and which kinds there are.

A kind brings everything in which its runs differ from others: how rows are planned and worked on, what their outcomes
mean, and what follows. `Kind` has the defaults; links and upload are the core's own kinds, and features bring more.
Nothing outside a kind's own module compares or looks up kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tcb_ops.hooks import CORE, features, load
from tcb_ops.i18n import Text, _, as_list, ngettext, pgettext, verbatim
from tcb_ops.model import Outcome, Row, RowEnd, RunSettings, Step, Want

if TYPE_CHECKING:
    from tcb_ops.engine.calls import CallContext, Calls
    from tcb_ops.errors import TcbOpsError
    from tcb_ops.ledger.reader import LedgerReader
    from tcb_ops.ledger.records import EnvRecord, RunRecord
    from tcb_ops.reports.findings import Findings
    from tcb_ops.reports.summary import NextAction, RunSummary
    from tcb_ops.settings import Settings

ANY_KIND = "any"
"""In place of a kind's name: `latest` is the run that was created last."""


class Kind(str):
    """A kind of run. As a string it is the name by which the ledger and the command line know it.

    A kind sets the facts that differ from these defaults, and overrides the methods that do. It must have `name`, `label`,
    `report_title` and `done`, and override `calls`.
    """

    __slots__ = ()

    # --- facts ----------------------------------------------------------------------------------------------------

    name: ClassVar[str]
    label: ClassVar[Text]
    """What runs of this kind do, in a word."""
    report_title: ClassVar[Text]
    """The title of a report."""
    done: ClassVar[Text]
    """What was done to every row of a run that succeeded."""
    good_label: ClassVar[Text] = _("Succeeded")
    bad_label: ClassVar[Text] = _("Did not succeed")
    """The heads of columns that count the rows that succeeded, and those that did not."""
    rows_label: ClassVar[Text] = pgettext("heading", "Rows")
    """The head of what counts its rows."""
    settings: ClassVar[type[RunSettings]] = RunSettings
    """What its runs keep."""
    rows_per_call: ClassVar[int] = 1
    question: ClassVar[Text] = verbatim("")
    """Asked before a live run, with `live_environments` and `api_base`; empty where nothing is changed."""
    main: ClassVar[bool] = False
    """Whether `latest` is one of its runs where no kind is given."""
    clustered: ClassVar[bool] = False
    """Whether a cluster's workers can share its rows."""
    renewed_after: ClassVar[float] = 0.0
    """Age in seconds from which a new run takes the place of an unfinished one; 0: after a day, tcb-ops asks."""
    unanswered: ClassVar[Outcome] = Outcome.NOT_ATTEMPTED
    """The outcome of rows whose merchant's token source did not respond."""
    has_list: ClassVar[bool] = True
    """Whether its rows come from a list that can be corrected."""
    of_merchants: ClassVar[bool] = False
    """Whether its runs are about the merchants, not about a list: each has all of them, is compared with the one before, of whatever
    file, and takes the place of a retry."""
    has_findings: ClassVar[bool] = False
    """Whether its runs are reported by their `findings`."""
    keeps_headers: ClassVar[bool] = True
    """Whether its calls get the Content-Type and Cache-Control of rows."""
    sends_files: ClassVar[bool] = False
    """Whether its rows have local files below a root."""
    writes_links: ClassVar[bool] = False
    """Whether it writes a file of links, which stays on this machine."""
    findings_of_files: ClassVar[frozenset[Outcome]] = frozenset()
    """The outcomes that tell what is stored at a row's path, of a kind that looks."""
    wants: ClassVar[Want] = Want.AS_IT_IS
    """What its runs want at the paths of their rows."""
    changes_store: ClassVar[bool] = False
    """Whether its runs change what is stored."""
    asks_store: ClassVar[bool] = False
    """Whether its rows make calls to the store."""
    takes_back: ClassVar[bool] = False
    """Whether its runs remove or replace what uploads have stored."""
    replacing: ClassVar[frozenset[Outcome]] = frozenset()
    """The outcomes after which another file, or none, is at a row's path."""
    changed: ClassVar[Text]
    """What happened to such a file, `overwritten`; where `replacing` is not empty."""

    def __new__(cls) -> Self:
        """Return the kind; a module makes it once."""
        return super().__new__(cls, cls.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return kind_named, (str.__str__(self),)

    # --- planning and working on rows -----------------------------------------------------------------------------

    def settings_of(self, run: str, settings: RunSettings, parent: str) -> RunSettings:
        """Return the settings that the ledger keeps of a new run; `parent`: the run that it retries, or empty."""
        return settings

    def want(self, row: Row) -> Want:
        """Return what a run wants at the path of a row."""
        return self.wants

    def least_calls(self, step: Step) -> int:
        """Return how many calls a row makes at least, to the platform and to the store."""
        nothing_to_do = step is Step.UNCHANGED and self.wants is not Want.AS_IT_IS
        return 0 if nothing_to_do else 1 + self.asks_store

    def asks(self, environments: Sequence[EnvRecord], settings: Settings) -> Mapping[str, int]:
        """Return the interfaces that a run asks about environments, with how often; empty if it is about paths."""
        return {}

    def stored_headers(self, row: Row) -> tuple[str | None, str | None]:
        """Return the Content-Type and Cache-Control that the ledger keeps of a row, for its calls; None for none."""
        return (row.content_type, row.cache_control) if self.keeps_headers else (None, None)

    def end_of(self, end: RowEnd) -> RowEnd:
        """Return a row's end, as `Calls` gave it or as it was planned, in terms of this kind."""
        return end

    def calls(self, context: CallContext) -> Calls:
        """Return the calls of its rows."""
        raise NotImplementedError

    def stop_error(self, end: RowEnd, appid: str) -> TcbOpsError | None:
        """Return the error that stops the run, if a row's end affects every merchant."""
        return None

    def end_when_stopped(self, error: TcbOpsError) -> RowEnd | None:
        """Return how the pending rows end if an error stops the run; None: they stay pending and the run is unfinished."""
        return None

    # --- reports and what follows ---------------------------------------------------------------------------------

    def findings(
        self, reader: LedgerReader, summary: RunSummary, settings: Settings, receiver: str = ""
    ) -> Findings | None:
        """Return what a run found, as sections of its report.

        Asked for finished runs, except retries, of kinds with `has_findings`. `receiver`: of messages; what is new is what it was
        not told.
        """
        return None

    def unit_count(self, count: int) -> Text:
        """Return a number of its rows: `1,204 rows`."""
        return row_count(count)

    def done_text(self, counts: Mapping[Outcome, int]) -> Text:
        """Return what was done to all rows of a run that succeeded."""
        return self.done

    def verdict(self, counts: Mapping[Outcome, int], *, finished: bool) -> Text:
        """Sum up a run in one sentence.

        ==========  ====================  ===========================================
        finished    rows                  sentence
        ==========  ====================  ===========================================
        no          any                   unfinished: how many have ended, how many are pending
        yes         none                  no rows
        yes         all succeeded         all N rows succeeded; how many of them unchanged
        yes         some did not          G of N succeeded, how many of them unchanged; B did not: by outcome
        ==========  ====================  ===========================================
        """
        total, unchanged = sum(counts.values()), counts.get(Outcome.UNCHANGED, 0)
        succeeded = sum(rows for outcome, rows in counts.items() if outcome.succeeded)
        others = {outcome: rows for outcome, rows in counts.items() if not outcome.succeeded}
        if not finished:
            pending = counts.get(Outcome.PENDING, 0)
            return _(
                "Unfinished: {total:,} of {rows} have ended ({good:,} succeeded), {pending:,} pending.",
                total=total - pending,
                rows=self.unit_count(total),
                good=succeeded,
                pending=pending,
            )
        if not total:
            return _("The run has no rows.")
        if others:
            text = _("{good:,} of {rows} succeeded, {total:,} did not: {listed}.")
            if unchanged:
                text = _(
                    "{good:,} of {rows} succeeded ({same:,} unchanged, not sent again), {total:,} did not: {listed}."
                )
            return text.format(
                good=succeeded,
                rows=row_count(total),
                same=unchanged,
                total=total - succeeded,
                listed=as_list(counted_rows(others)),
            )
        done = self.done_text(counts)
        if unchanged == total:
            done = _("unchanged, nothing sent again")
        elif unchanged:
            return _(
                "All {n:,} rows succeeded: {rest:,} {done}, {same:,} unchanged and not sent again.",
                n=total,
                rest=total - unchanged,
                done=done,
                same=unchanged,
            )
        return ngettext(
            "The only row succeeded: {done}.", "All {n:,} rows succeeded: {done}.", total, done=done
        )

    def next_command(
        self, settings: Settings, run: RunRecord, actions: Sequence[NextAction]
    ) -> tuple[Text, list[str]] | None:
        """Return the next command about rows that did not succeed, with its purpose; None where nothing helps.

        `actions`: what somebody can do about the causes; at least one.
        """
        return None


class MissingKind(Kind):
    """The kind of a run whose feature is not installed: its runs are listed, and nothing else is done with them."""


@cache
def _kind_references() -> Mapping[str, str]:
    every = (CORE, *features().values())
    return {name: reference for feature in every for name, reference in feature.kinds.items()}


@cache
def kind_named(name: str) -> Kind:
    """Return the kind that the ledger knows by this name."""
    if (reference := _kind_references().get(name)) is None:
        label = verbatim(name)
        values = {
            "name": name,
            "label": label,
            "report_title": label,
            "done": label,
            "changed": label,
            "__slots__": (),
        }
        missing: Kind = type("MissingKind", (MissingKind,), values)()
        return missing
    kind: Kind = load(reference)
    return kind


def all_kinds() -> list[Kind]:
    """Return the kinds that there are."""
    return [kind_named(name) for name in _kind_references()]


def kind_names() -> list[str]:
    """Return the names of the kinds that there are."""
    return list(_kind_references())


def counted(counts: Mapping[Outcome, int]) -> list[Text]:
    """Return the counts, without zeros: `412 uploaded`, `12 refused`."""
    return [
        pgettext("count", "{rows:,} {outcome}", rows=rows, outcome=outcome.label)
        for outcome, rows in counts.items()
        if rows
    ]


def counted_rows(counts: Mapping[Outcome, int]) -> list[Text]:
    """Return the counts as parts of a sentence about rows, without zeros."""
    return [
        _("{rows:,} {outcome}", rows=rows, outcome=outcome.label) for outcome, rows in counts.items() if rows
    ]


def row_count(count: int) -> Text:
    """Return `1 row`, `1,204 rows`."""
    return ngettext("{n:,} row", "{n:,} rows", count)


def merchant_count(count: int) -> Text:
    """Return `1 merchant`, `28 merchants`."""
    return ngettext("{n:,} merchant", "{n:,} merchants", count)


def environment_count(count: int) -> Text:
    """Return `1 environment`, `28 environments`."""
    return ngettext("{n:,} environment", "{n:,} environments", count)
