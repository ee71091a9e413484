"""What runs did at paths of environments: stored, deleted, found, or may be about to. And which runs belong together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from tcb_ops.errors import RunNotFoundError
from tcb_ops.kinds import Kind, all_kinds, kind_named, kind_names
from tcb_ops.model import Outcome, Reason
from tcb_ops.runs.database import LedgerConnection
from tcb_ops.runs.records import EarlierUpload, EnvRecord, RunRecord, may_have_stored
from tcb_ops.runs.schema import any_of, sql_list, stored

if TYPE_CHECKING:
    from tcb_ops.runs.reader import LedgerReader

_CERTAIN = sql_list(outcome for outcome in Outcome.all() if outcome.stored)
"""The outcomes after which it is certain what is stored."""
FILE = {
    "path": "rows.path",
    "ended_at": "COALESCE(rows.ended_at, runs.created_at)",
    "run": "runs.id",
    "md5": f"CASE WHEN rows.outcome IN ({_CERTAIN}) THEN rows.md5 ELSE '' END",
    "bytes": "COALESCE(rows.bytes, 0)",
    "file_id": "rows.file_id",
    "content_type": "COALESCE(rows.content_type, '')",
    "cache_control": "COALESCE(rows.cache_control, '')",
    "file": "rows.file",
    "etag": "COALESCE(rows.etag, '')",
    "outcome": "rows.outcome",
    "number": "runs.number",
}
"""What is read of a row that stored a file: where and when, then the fields of an EarlierUpload, by their names, as SQL."""
_ENTRY = f"""envs.env, {", ".join(FILE.values())}, rows.reason, rows.attempts,
    CASE WHEN rows.outcome = 'failed' THEN runs.settings ELSE '{{}}' END, runs.kind, runs.upload_calls"""
"""An environment, FILE, and what tells whether a failed row may have stored its file."""


class HistoryReader(LedgerConnection):
    """Reads what is known of paths."""

    def earlier(
        self, run: RunRecord, environment: EnvRecord, paths: Sequence[str]
    ) -> dict[str, EarlierUpload]:
        """Return what earlier runs on this target stored at paths of an environment, if their last upload succeeded.

        A path that an interrupted run may have changed since is left out: a call that was in flight is not in the ledger.
        """
        keys = [(environment.env, path) for path in paths]
        written = self.written(run.target, run.number, keys, confirmed=True, strict=True)
        return {path: entries[-1] for (_env, path), entries in written.items() if entries[-1].md5}

    def _pending(
        self, target: str, leave_out: int, keys: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], list[EarlierUpload]]:
        """Return the pending rows of unfinished runs that write, by (env, path), the oldest run first: one may have been sent."""
        condition = f"""target = ? AND kind NOT IN ({sql_list(_kinds_that_do_not_write())})
            AND finished_at IS NULL AND number <> ?"""
        ids = {run.number: run.id for run in self.stored_runs(condition, (target, leave_out))}
        if not ids or not keys:
            return {}
        condition = f"rows.outcome = 'pending' AND {any_of('rows.run', ids)} ORDER BY rows.run"
        columns = "envs.env, rows.path, rows.run"
        pending: dict[tuple[str, str], list[EarlierUpload]] = {}
        for env, path, number in self._at_paths(columns, "rows_by_place", condition, keys, target, list(ids)):
            entry = EarlierUpload(ids[number], "", 0, "", "", "", outcome=Outcome.PENDING, number=number)
            pending.setdefault((env, path), []).append(entry)
        return pending

    def written(
        self,
        target: str,
        leave_out: int,
        keys: Sequence[tuple[str, str]],
        *,
        confirmed: bool = False,
        strict: bool = False,
    ) -> dict[tuple[str, str], list[EarlierUpload]]:
        """Return what runs to a target put at some (env, path), the oldest first.

        The MD5 is empty where a file was deleted, or it is not certain what is there. Of a kind of run, or an outcome, that is
        not known, the outcome is UNKNOWN. Last come the pending rows of unfinished runs that are newer. The run numbered
        `leave_out` does not count. `confirmed`: with what confirmations found to differ. `strict`: with every failed row. Of the
        given environments, paths that were given with another one may be among the result.
        """
        not_writing, kinds, outcomes = (
            _kinds_that_do_not_write(confirmed=confirmed),
            kind_names(),
            Outcome.all(),
        )
        condition = f"runs.number <> ? AND runs.kind NOT IN ({sql_list(not_writing)}) AND {stored('rows.')}"
        entries = self._pruned(target, keys)
        for *file, outcome, number, reason, attempts, settings, kind, calls in self._at_paths(
            _ENTRY, "rows_by_path", condition, keys, target, [leave_out]
        ):
            ended = outcome if kind in kinds else Outcome.UNKNOWN
            sent = calls > 0 or not kind_named(kind).sends_files
            if ended != Outcome.FAILED or strict or (sent and _in_doubt(reason, attempts, settings)):
                entries.append((*file, ended, number))
        written: dict[tuple[str, str], list[EarlierUpload]] = {}
        for env, path, _ended_at, *fields, outcome, number in sorted(entries, key=itemgetter(2)):
            values_of = (*fields, Outcome(outcome), number)
            upload = EarlierUpload(*values_of)
            if outcome == Outcome.UNKNOWN or outcome not in outcomes:
                upload = replace(upload, outcome=Outcome.UNKNOWN, md5="")
            written.setdefault((env, path), []).append(upload)
        for key, pending in self._pending(target, leave_out, keys).items():
            newest = max((entry.number for entry in written.get(key, ())), default=0)
            written.setdefault(key, []).extend(entry for entry in pending if entry.number > newest)
        return written

    def _pruned(self, target: str, keys: Sequence[tuple[str, str]]) -> list[tuple[Any, ...]]:
        environments, paths = list({env for env, _path in keys}), list({path for _env, path in keys})
        query = f"""
            SELECT env, {", ".join(FILE)} FROM pruned_files
            WHERE target = ? AND {any_of("env", environments)} AND {any_of("path", paths)}"""
        return self.fetch(query, (target, *environments, *paths))

    def _at_paths(
        self,
        columns: str,
        index: str,
        condition: str,
        keys: Sequence[tuple[str, str]],
        target: str,
        values: Sequence[int | str],
    ) -> Sequence[Any]:
        environments, paths = list({env for env, _path in keys}), list({path for _env, path in keys})
        # `CROSS JOIN` has SQLite take the tables in this order: a path may be in every environment.
        query = f"""
            SELECT {columns} FROM envs CROSS JOIN runs CROSS JOIN rows {self.dialect.index_hint.format(index)}
            WHERE {any_of("envs.env", environments)} AND runs.number = envs.run AND runs.target = ?
            AND rows.run = envs.run AND rows.place = envs.no AND {any_of("rows.path", paths)} AND {condition}"""
        with self._connection() as connection:
            if self.file is not None:  # SQLite: the rows of one path are on as many pages as it has runs
                connection.execute("PRAGMA cache_size = -8000")
            return connection.execute(query, (*environments, target, *paths, *values)).fetchall()


def _kinds_that_do_not_write(*, confirmed: bool = False) -> list[Kind]:
    """Return the kinds whose runs leave the store as it is; `confirmed`: without those whose outcomes tell what is stored.

    A run of any other kind counts, also of one that is not known: its record is damaged, or its feature is not installed.
    """
    return [kind for kind in all_kinds() if not (kind.changes_store or (confirmed and kind.looks_at_store))]


def _in_doubt(reason: str, attempts: int, settings: str) -> bool:
    """Return whether a failed row may have stored its file, also if the record of its run is damaged."""
    try:
        return may_have_stored(Reason(reason) if reason else None, attempts, json.loads(settings))
    except (AttributeError, TypeError, ValueError):
        return True


# --- runs that belong together -----------------------------------------------------------------------------------


def family_of(ledger: LedgerReader, run: RunRecord) -> list[RunRecord]:
    """Return the original of `run` (itself, unless it is a retry), then its retries, the oldest first."""
    while run.parent:
        try:
            run = ledger.run(run.parent)
        except RunNotFoundError:  # the parent was deleted: this is the oldest run that remains
            break
    return [run, *ledger.retries(run)]


def corrections_of(ledger: LedgerReader, run: RunRecord) -> list[RunRecord]:
    """Return the runs of corrected fix-me files and failed.csv of `run` and its retries, the newest first."""
    return [other for other in ledger.runs(run.target, damaged=[]) if other.corrects == run.id]


def columns_of(headers: Sequence[str], others: Sequence[str]) -> list[int]:
    """Return where each of a run's headers is among those of another one, which may have more columns.

    Raises ValueError with the first missing header.
    """
    rest: list[str | None] = list(others)
    columns = []
    for header in headers:
        if header not in rest:
            raise ValueError(header)
        columns.append(rest.index(header))
        rest[columns[-1]] = None
    return columns


def merged_runs(ledger: LedgerReader, run: RunRecord) -> list[RunRecord]:
    """Return the original of a run, or of the one that it corrects; then its retries and corrections, the oldest first."""
    original, *retries = family_of(ledger, run)
    if original.corrects:
        original, *retries = family_of(ledger, ledger.run(original.corrects))
    for correction in corrections_of(ledger, original):
        retries += family_of(ledger, correction)
    return [original, *sorted(retries, key=lambda retry: retry.number)]
