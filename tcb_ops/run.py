"""What the public functions return: Run and RunHandle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tcb_ops.arguments import checked
from tcb_ops.engine.progress import Progress
from tcb_ops.engine.stop_errors import stop_text
from tcb_ops.errors import LedgerDamagedError, TcbOpsError, UsageError, check_count, needed
from tcb_ops.frames import Given
from tcb_ops.hooks import (
    FOR_RESULTS,
    ArrowHooks,
    AuditHooks,
    ComparisonHooks,
    DiagnosisHooks,
    StoredHooks,
    WorkbookHooks,
    hooks,
)
from tcb_ops.i18n import Joined, Text, _, as_list, pgettext, verbatim
from tcb_ops.ledger.records import Tally
from tcb_ops.model import STORED_OUTCOMES, Merchant, Outcome, Secret
from tcb_ops.reports.explanations import kept_verdicts, why
from tcb_ops.reports.summary import RunSummary
from tcb_ops.settings import Settings
from tcb_ops.signals import ctrl_c_raises

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from tcb_ops.engine.session import RunSession
    from tcb_ops.ledger.ledger import Ledger
    from tcb_ops.ledger.reader import LedgerReader
    from tcb_ops.ledger.records import LaterChange, RowRecord, RunRecord, TimelineBucket
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.reports.export import Report
    from tcb_ops.reports.findings import Findings
    from tcb_ops.start import StartOptions


FOR_USERS = (
    "id counts succeeded stopped results failed links urls timeline to_parquet errcodes causes why audit changes final retry "
    "report export write_into"
)
"""The names of a Run that are for users, and so for completion; the front ends use more."""


class Run:
    """A run in the ledger, finished or not. In a notebook it shows itself as a card.

    =====================  ==================================================================================
    how it ended           `id`, `counts`, `succeeded`, `stopped`
    its rows               `results()`, `failed()`, `links()`, `urls()`, `timeline()`, `to_parquet(FILE)`; to Arrow,
                           as in `polars.DataFrame(run)`
    why, and what to do    `causes()`, `errcodes()`, `why()`; of an audit `audit()`; since the run before `changes()`
    what comes next        `retry()`, then `final()`: merged with its retries
    for others             `report()`, `export(FOLDER)`, `write_into(WORKBOOK)`
    =====================  ==================================================================================
    """

    def __init__(
        self,
        ledger: Ledger,
        record: RunRecord,
        settings: Settings,
        reader: LedgerReader | None = None,
        given: Given | None = None,
    ) -> None:
        """`reader`: the source of the run's rows, if it is not the ledger itself. `given`: the DataFrame that was its list."""
        self._ledger, self.record = ledger, record
        self.settings = settings
        """The settings with which the run is shown and exported."""
        self._reader: LedgerReader = reader or ledger
        self.given = given

    def __repr__(self) -> str:
        text = (
            _("<Run {id} {kind}: {counts}>")
            if self.mark is None
            else _("<Run {id} {kind}: {counts} ({mark})>")
        )
        each = pgettext("repr", "{outcome} {rows:,}")
        counts = as_list(each.format(outcome=end.label, rows=rows) for end, rows in self.outcomes.items())
        text = text.format(id=self.id, kind=_marked_kind(self.record), counts=counts, mark=self.mark)
        return text.of(self.settings.lang)

    def __dir__(self) -> list[str]:
        return FOR_USERS.split()

    def _repr_html_(self) -> str | None:
        self.refresh()
        holder = None if self.record.finished_at is not None else self.holder()
        findings = self.findings() if self.record.has_findings else None
        summary, resumable = self.overview(), self.resumable
        from tcb_ops.reports.cards import run_html

        return run_html(summary, self.settings, holder, findings=findings, resumable=resumable)

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def counts(self) -> dict[str, int]:
        """Rows by outcome, without zeros, including `pending`; the sum is the number of rows."""
        return {str(outcome): rows for outcome, rows in self.outcomes.items()}

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """The same as `counts`, keyed by Outcome."""
        return self._reader.counts(self.record)

    @property
    def verdict(self) -> Text:
        """How the rows ended, in a sentence or two."""
        return self.overview().verdict

    @property
    def mark(self) -> Text | None:
        """The newest run that undid or deleted files of this upload, in a few words for a list of runs; None without one."""
        newest, most_rows = None, 0
        for run in self._reader.taken_back_by(self.record):
            with suppress(LedgerDamagedError):  # damage to that run does not concern this one
                counts = self._reader.counts(run)
                if rows := sum(counts.get(outcome, 0) for outcome in run.kind.replacing):
                    newest, most_rows = newest or run, max(most_rows, rows)
        if newest is None:
            return None
        stored = sum(rows for outcome, rows in self.outcomes.items() if outcome in STORED_OUTCOMES)
        if self.record.parent and not stored:
            return None
        text = _("{changed} by {run}") if most_rows >= stored else _("partly {changed} by {run}")
        return text.format(changed=newest.kind.changed, run=newest.id)

    def refresh(self) -> None:
        """Read the run's record again, which says where its report is."""
        self.record = self._reader.run(self.id)

    def holder(self) -> Text | None:
        """Return who works on the run; None if nobody does. Takes the run's lock for a moment to find out."""
        from tcb_ops.ledger.locks import working

        return working(self._ledger, self.id)

    @property
    def succeeded(self) -> bool:
        """Whether every row succeeded."""
        return all(outcome.succeeded for outcome in self.outcomes)

    @property
    def resumable(self) -> bool:
        """Whether the run is unfinished, and no later run took back its files: such a run is not resumed."""
        return self.record.finished_at is None and not self._reader.taken_back_by(self.record)

    @property
    def stopped(self) -> Text | None:
        """Why the run stopped early. After a stopped audit, environments not checked are unknown."""
        return stop_text(self.record.stopped) if self.record.stopped is not None else None

    @checked
    def with_settings(self, settings: Settings) -> Run:
        """Return the same run, shown and exported with other settings."""
        return Run(self._ledger, self.record, settings, self._reader, self.given)

    @checked
    def of_merchants(self, merchants: Iterable[Merchant]) -> Run:
        """Return the same run with only the rows of these lines of the merchants file."""
        from tcb_ops.ledger.run_view import RunView

        only = environments_of(merchants)
        selected = RunView(self._reader, self._reader.run(self.id), only=only)
        return Run(self._ledger, selected.record, self.settings, selected, self.given)

    def close(self) -> None:
        """Close the ledger's connections."""
        self._ledger.close()

    def summary(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return self.overview().to_json()

    def tallies(self) -> list[Tally]:
        """Return current rows by merchant, environment, outcome and code, with one query of the ledger."""
        return self._reader.tallies(self._reader.run(self.id))

    def tallies_to_retry(self, path: str = "") -> list[Tally]:
        """Return rows that a retry would send, counted as in `tallies`; `path`: only with this part of a path."""
        from tcb_ops.engine.plan import tallies_to_retry

        if not path and not self.has_retries:
            return [tally for tally in self.tallies() if tally.outcome.retried]
        tallies, only = tallies_to_retry(self._ledger, self.record, path), self._reader.only
        return [tally for tally in tallies if only is None or (tally.appid, tally.env) in only]

    @checked
    def planned_bytes(self, outcomes: frozenset[Outcome]) -> int:
        """Return the bytes of these rows' local files when the run was planned."""
        return self._reader.planned_bytes(self.record, outcomes)

    @checked
    def rows(
        self,
        *,
        line: int | None = None,
        merchant: str = "",
        path: str = "",
        outcomes: frozenset[Outcome] | None = None,
    ) -> Iterator[RowRecord]:
        """Stream rows in the order of the list, with constant memory; `path`: a cloud path or a part of one."""
        return self._reader.rows(self.record, line=line, merchant=merchant, path=path, outcomes=outcomes)

    @checked
    def page(
        self,
        *,
        code: str | None = None,
        appid: str = "",
        path: str = "",
        after_line: int = -1,
        limit: int = 100,
        tallies: Sequence[Tally] | None = None,
    ) -> tuple[list[RowRecord], int]:
        """Return the next rows after a line, and how many rows the filter matches without `path`.

        `code`: a code as in errcodes.csv; "" for all rows that did not succeed, None for all rows. `tallies`: those of the
        run, where the caller has them: counting a million rows takes longer than a page. Raises LedgerError if the ledger
        was removed or replaced, RunNotFoundError if the run was deleted.
        """
        check_count("limit", limit)
        self._ledger.check_in_place()
        self._ledger.run(self.id)
        tallies = [
            tally
            for tally in (self.tallies() if tallies is None else tallies)
            if (not appid or tally.appid == appid) and has_code(tally, code)
        ]
        ends, environments = None, None
        if code is not None:
            ends = {(tally.outcome, tally.reason or "", tally.errcode, tally.store_code) for tally in tallies}
        if appid:
            keys = {(tally.appid, tally.env) for tally in tallies}
            environments = [each for each in self._reader.envs(self.record) if (each.appid, each.env) in keys]
        records = self._reader.rows(
            self.record, ends=ends, environments=environments, path=path, after_line=after_line
        )
        return list(islice(records, limit)), sum(tally.rows for tally in tallies)

    @checked
    def merchants_like(self, name: str) -> list[str]:
        """Return the run's merchants whose names contain `name`, or all if none does; at most 20."""
        names = list(dict.fromkeys(env.merchant for env in self._reader.envs(self.record) if env.merchant))
        return ([candidate for candidate in names if name in candidate] or names)[:20]

    @checked
    def results(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """Return all rows: the input's columns as text, then those of results.csv.

        ===================================================================  ==================================
        tcb_line                                                             line in the list
        tcb_merchant, tcb_appid, tcb_env                                     whose row it is
        tcb_outcome, tcb_reason                                              how it ended
        tcb_action                                                           what to do about it
        tcb_errcode, tcb_errmsg, tcb_rid                                     the platform's answer
        tcb_http_status, tcb_store_code                                      the store's answer
        tcb_attempts                                                         calls made
        tcb_bytes, tcb_md5, tcb_file_id, tcb_content_type                    what was stored
        tcb_started_at, tcb_ended_at                                         naive times of the settings' time zone
        ===================================================================  ==================================

        `columns`: only these, in this order, which takes less time and memory. Raises ArgumentError for an unknown one.

        If the list was a DataFrame of pandas, the rows have its index, and its columns their types, so that
        `df.join(run.results()[["tcb_outcome"]])` works. Only the Run that was returned in that process knows the frame: after
        `open_run`, and for any other list, the index counts from 0 and the list's columns are text. Then `tcb_line` is the line in
        the list; the first row is 2.
        """
        return self._results(columns=columns)

    def failed(self) -> pd.DataFrame:
        """Return the rows that did not succeed, including pending ones: `results()` as in failed.csv."""
        return self._results(frozenset(Outcome.all()) - Outcome.successes())

    def _results(
        self, outcomes: frozenset[Outcome] | None = None, columns: Iterable[str] | None = None
    ) -> pd.DataFrame:
        from tcb_ops.reports.data_frames import results_frame

        return results_frame(self._reader, self.record, self.settings, outcomes, columns, given=self.given)

    def links(self) -> pd.DataFrame:
        """Return the rows of a links run with the columns of links.csv. The links are secrets: do not display them.

        Raises UsageError if the run has no links.csv.
        """
        record = self._ledger.run(self.id)
        if not record.links:
            raise UsageError(_("Run {id} has no links.csv: only a finished links run has one.", id=record.id))
        from tcb_ops.reports.data_frames import links_frame

        return links_frame(self._ledger, record, self.settings, self._reader)

    def urls(self) -> pd.DataFrame:
        """Return all rows as `results()` does, with links at which the stored files can be looked at for two hours.

        `tcb_url` is a Secret, which only `.reveal()` shows: whoever has it can open the file. `tcb_url_until` is when it ends, and
        `tcb_url_problem` why there is none. Rows that stored nothing have neither. The platform is asked, 50 files a call.
        """
        return needed(StoredHooks).urls(self, self._reader.envs(self.record))

    def row_urls(
        self, records: Sequence[RowRecord], settings: Settings
    ) -> tuple[datetime, list[Secret | Text | None]]:
        """Return when links of these rows end, and for each its link, or why there is none; None for one that stored nothing.

        `settings`: of the opened target.
        """
        files = [(each.row.appid, each.row.env, each.end.file_id or "") for each in records]
        return needed(StoredHooks).row_urls(self, self._reader.envs(self.record), files, settings)

    def errcodes(self) -> pd.DataFrame:
        """Return how many rows did not succeed, by merchant (appid, env) × code, as in errcodes.csv."""
        from tcb_ops.reports.data_frames import errcodes_frame

        return errcodes_frame(self.overview().causes, self.record.kind, self.settings)

    def causes(self) -> pd.DataFrame:
        """Return what went wrong and what to do: a line per code, merchant and environment, most rows first."""
        from tcb_ops.reports.data_frames import causes_frame

        return causes_frame(self.overview().causes, self.record.kind, self.kept_verdicts(), self.settings)

    def by_merchant(self) -> pd.DataFrame:
        """Return how many rows each merchant has, and how many succeeded, did not succeed, are pending."""
        from tcb_ops.reports.data_frames import merchants_frame

        return merchants_frame(self.overview())

    def timeline(self) -> pd.DataFrame:
        """Return how rows ended over the run's time: a line per interval, oldest first."""
        from tcb_ops.reports.data_frames import timeline_frame

        return timeline_frame(self._reader, self.record, self.settings)

    def timeline_buckets(self) -> list[TimelineBucket]:
        """Return how rows ended over the run's time, as values without pandas."""
        return self._reader.timeline(self.record)

    def changes(self) -> Any:
        """Return what changed since the previous finished run of the same kind, target, list and part, a Diff; None without one."""
        if (before := self._reader.previous(self.record)) is None:
            return None
        return needed(ComparisonHooks).compare(self._ledger, before, self.record, self.settings, None)

    def audit(self) -> Any:
        """Return what an audit found, an AuditResult: compared with the previous one of the same target and part.

        Newly broken, recovered, still broken, silenced, unknown. Raises UsageError if the run is not an audit.
        """
        return needed(AuditHooks).result(self)

    def why(self, *, every: bool = False) -> Any:
        """Ask WeChat why rows did not succeed: Diagnoses, a list with `frame()`; each says who must act.

        `every`: ask about every merchant of each cause instead of one. Raises UsageError.
        """
        return needed(DiagnosisHooks).why(self, every)

    def kept_verdicts(self) -> list[Any]:
        """Return what WeChat answered about codes of this run, as `explanations.kept_verdicts` does."""
        return kept_verdicts(self._reader, self._reader.run(self.id))

    def findings(self, receiver: str = "") -> Findings | None:
        """Return what the run found, compared with the previous one of the target and part; None for a kind without.

        `receiver`: of messages; compared with the last run of which it was told.
        """
        with self._reader.snapshot() as reader:
            summary = RunSummary(reader, reader.run(self.id))
            return summary.run.kind.findings(reader, summary, self.settings, receiver)

    def retry(
        self,
        merchants: Merchants | str | Path = "",
        *,
        codes: Sequence[str | int] = (),
        **options: Unpack[StartOptions],
    ) -> Run:
        """Run again the rows that did not succeed, and wait for the end, as `tcb_ops.retry` does; return that run."""
        among = () if merchants == "" else (merchants,)
        return FOR_RESULTS.retry(self, *among, codes=codes, **options)

    def final(self) -> Run:
        """Return the run with the last state of each row after its retries; for a retry, its original run."""
        from tcb_ops.ledger.run_view import merged_run

        merged = merged_run(self._ledger, self.record, self._reader.only)
        given = self.given if merged.record.list_sha256 == self.record.list_sha256 else None
        return Run(self._ledger, merged.record, self.settings, merged, given)

    @property
    def has_retries(self) -> bool:
        """Whether the run is a retry or a correction, or has any."""
        from tcb_ops.ledger.histories import merged_runs

        return len(merged_runs(self._ledger, self.record)) > 1

    def with_retries(self, *, corrected: bool = False) -> tuple[str, int, int] | None:
        """Return the id of the original run, how many of its rows have succeeded by now, and its rows; None without a retry.

        Counted from sums, without reading rows. `corrected`: with its corrections; of a correction, the run that it corrects.
        """
        from tcb_ops.ledger.histories import family_of, merged_runs
        from tcb_ops.ledger.run_view import RunView

        runs = merged_runs if corrected else family_of
        original, *retries = runs(self._ledger, self.record)
        if not retries:
            return None
        only = self._reader.only
        reader = self._ledger if only is None else RunView(self._ledger, original, only=only)
        planned = reader.counts(original)
        counts = [planned, *(reader.counts(retry) for retry in retries)]
        succeeded = sum(rows for counted in counts for outcome, rows in counted.items() if outcome.succeeded)
        return original.id, succeeded, sum(planned.values())

    @checked
    def write_into(
        self,
        original: str | Path,
        out: str | Path | None = None,
        *,
        split_by: str = "",
        urls: bool = False,
        warn: Callable[[Text], None] | None = None,
    ) -> Path:
        """Write a copy of the list's own workbook, with columns for how each row ended; return its path.

        With `split_by`, a column's header, write a new folder with a workbook per value of it. With `urls`, a column
        has the links of `urls()`: anyone who gets the workbook can open the files for two hours. `out` None: beside the original. `warn` is told before anything is written what the copy will lack, such as pictures and charts.
        Raises UsageError if `original` is not the run's list or the destination exists.
        """
        workbooks, file = needed(WorkbookHooks), Path(original)
        target, lang = Path(out) if out is not None else None, self.settings.lang
        links = needed(StoredHooks).row_links(self, self._reader.envs(self.record)) if urls else None
        with self._reader.snapshot() as view:
            if split_by:
                return workbooks.split(view, self.record, file, target, lang, split_by, links)
            return workbooks.write_into(view, self.record, file, target, lang, warn, links)

    @checked
    def export(
        self,
        out: str | Path,
        *,
        replace: bool = False,
        pdf: bool = False,
        with_data: bool = False,
    ) -> Path:
        """Write the report folder: results.csv, failed.csv, errcodes.csv, report.html, report.xlsx, manifest.json.

        `pdf`, or `[report] pdf` in the settings: also report.pdf, printed by a Chromium; without one there is a warning.
        `with_data`: report.html has results.csv and manifest.json inside, so that it can be sent alone; `open_report` reads it.
        A report of the same run at `out` is replaced, with `replace` also one of another run; anything else there is a
        UsageError.
        """
        from tcb_ops.reports.export import export

        self.record = self._reader.run(self.id)
        return export(
            self._ledger,
            self.record,
            Path(out),
            self.settings,
            now=time.time(),
            replace=replace,
            reader=self._reader,
            pdf=pdf,
            with_data=with_data,
        )

    def report(self, out: str | Path | None = None, *, pdf: bool = False, with_data: bool = False) -> Report:
        """Write the report folder, as `export` does; None: in the settings' folder of reports, under the run's id.

        Returns its path, with `folder` and `files`; a notebook shows the files with links.
        """
        from tcb_ops.reports.export import Report

        name = f"{self.id}{'-final' * bool(self.record.retries)}"
        folder = self.settings.reports / name if out is None else out
        return Report(self.export(folder, pdf=pdf, with_data=with_data))

    @checked
    def to_parquet(self, out: str | Path) -> Path:
        """Write every row to a Parquet file, with the columns of results.csv; return the file.

        An earlier Parquet file is replaced. Needs pyarrow, the extra `analysis`. Raises UsageError without it, and where another
        file is at `out`; StoppedError where the file cannot be written.
        """
        with self._reader.snapshot() as snapshot:
            return needed(ArrowHooks).write(snapshot, self.record, Path(out), self.settings)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return every row as an Arrow stream, as `to_parquet` writes it: `polars.DataFrame(run)`, `duckdb.sql("from run")`.

        Needs pyarrow, the extra `analysis`.
        """
        return needed(ArrowHooks).stream(self._reader, self.record, self.settings, requested_schema)

    def changed_by(self) -> Sequence[LaterChange]:
        """Return the later runs that undid, deleted or overwrote files of this upload, the newest first; no rows are counted."""
        run, stored = self._reader.run(self.id), hooks(StoredHooks)
        return stored.changed_by(self._reader, run) if stored is not None and run.kind.sends_files else ()

    def overview(self) -> RunSummary:
        """Return the run's current summary, with one query: counts, causes and merchants that agree with one another."""
        return RunSummary(self._reader, self._reader.run(self.id))


def environments_of(merchants: Iterable[Merchant]) -> frozenset[tuple[str, str]]:
    """Return the environments of merchants file lines, as (appid, env)."""
    return frozenset((merchant.appid, merchant.env) for merchant in merchants)


def has_code(tally: Tally, code: str | None) -> bool:
    """Return whether rows ended with a code; "" is any code, and None matches rows that succeeded, too."""
    if code is None:
        return True
    cause = why(tally.outcome, tally.reason, tally.errcode, tally.store_code)
    return cause is not None and cause.code != Outcome.PENDING and code in {"", cause.code}


class RunHandle:
    """A run that is worked on in the background: `watch` it, `cancel` it, `wait` for it or await it."""

    def __init__(
        self,
        ledger: Ledger,
        record: RunRecord,
        session: RunSession | None,
        settings: Settings,
        held: ExitStack,
        warning: Text | None = None,
        *,
        resumed: bool,
        given: Given | None = None,
    ) -> None:
        """`session` None: nothing is left to do. `held` is closed at the end: the run's lock, the simulator."""
        self._ledger, self._session, self._settings, self._held = ledger, session, settings, held
        self._given = given
        self.record = record
        self.resumed = resumed
        """Whether an unfinished run is resumed."""
        self.done_before = session.done_before if session is not None else record.rows
        """Number of rows that were done before."""
        self.warning = warning
        """Of a retry: which rows it leaves out because the merchants file lacks their merchants; None if none."""
        self.expired_links = 0
        """For a finished links run: how many links had expired when links.csv was written."""
        self._waiting = threading.Lock()
        self._ended: RunRecord | TcbOpsError | None = None
        _handles[record.id] = self

    def __repr__(self) -> str:
        ended = self._ended is not None or self.ended_within(0)
        state = pgettext("run", "ended") if ended else pgettext("run", "running")
        text = _("<Run {id} {kind}: {counts}>", id=self.id, kind=_marked_kind(self.record), counts=state)
        return text.of(self._settings.lang)

    def __await__(self) -> Generator[Any, None, Run]:
        return self._wait_beside().__await__()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    def watch(self) -> Iterator[Progress]:
        """Yield progress as it is committed, until the work ends."""
        return session.watch() if (session := self._session) is not None else iter(())

    @checked
    def ended_within(self, seconds: float) -> bool:
        """Wait at most `seconds` for the work to end; return whether it has."""
        return (session := self._session) is None or session.ended_within(seconds)

    @checked
    def follow(self, show: Callable[[Iterator[Progress]], None]) -> None:
        """Pass the progress to `show` until the work ends; Ctrl-C cancels the work."""
        try:
            with ctrl_c_raises():
                show(self.watch())
        except KeyboardInterrupt as interrupt:
            if (session := self._session) is not None:
                session.interrupted(interrupt)

    def cancel(self) -> None:
        """Stop the work; unfinished rows stay pending, and the same call resumes them."""
        if (session := self._session) is not None:
            session.cancel()

    def wait(self, then: Callable[[Run], object] | None = None) -> Run:
        """Wait for the run's end. Raises StoppedError, or InterruptedRunError after `cancel` or Ctrl-C, even if it has finished.

        Several threads may wait: one ends the run, and all get the same result. `then`: called with the run while no other
        process can take it, such as to export it.
        """
        with self._waiting:
            if self._ended is None:
                try:
                    with self._held, ctrl_c_raises():
                        try:
                            self._ended = self._end(then)
                            if self._session is not None:
                                self._session.raise_if_cancelled()
                        except TcbOpsError as error:
                            self._ended = error
                except TcbOpsError as error:
                    self._ended = error
                except KeyboardInterrupt:
                    # A second one, while a lock or a cluster is closed: the first one's error says how to resume.
                    if not isinstance(self._ended, TcbOpsError):
                        raise
                finally:
                    _handles.pop(self.id, None)
                if self._session is not None:
                    self.expired_links = self._session.expired_links
                    self._session = None  # frees the tokens
        if isinstance(self._ended, TcbOpsError):
            raise self._ended
        return self._run(self._ended)

    def _end(self, then: Callable[[Run], object] | None) -> RunRecord:
        record = self._session.wait() if self._session is not None else self.record
        try:
            if then is not None:
                then(self._run(record))
        except KeyboardInterrupt as interrupt:
            if self._session is None:
                raise
            self._session.interrupted(interrupt)
        return record

    def so_far(self) -> Run:
        """Return the run as it is now in the ledger."""
        return self._run(self._ledger.run(self.id))

    def _run(self, record: RunRecord) -> Run:
        return Run(self._ledger, record, self._settings, given=self._given)

    async def _wait_beside(self) -> Run:
        """Wait without blocking the event loop; if the awaiting task is cancelled, cancel the run first."""
        import asyncio

        ending = asyncio.ensure_future(asyncio.to_thread(self.wait))
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            self.cancel()
            with suppress(TcbOpsError):
                await ending
            raise


_handles: dict[str, RunHandle] = {}
"""Runs being worked on in this process, by id, until somebody has waited for their end."""


def _marked_kind(record: RunRecord) -> Text:
    """Return a run's kind, marked if it went to a simulator."""
    marks = [pgettext("target", "SIMULATED")] if record.simulated else []
    return Joined((record.kind.label, *marks), verbatim(" · "))


def find_handle(run: str) -> RunHandle | None:
    """Return the handle of a run that is being worked on in this process, else None."""
    return _handles.get(run)
