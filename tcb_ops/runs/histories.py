"""What runs did at paths of environments: stored, deleted, found, or may be about to."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from tcb_ops.kinds import Kind, MissingKind, all_kinds, kind_named, kind_names
from tcb_ops.model import Outcome, Reason
from tcb_ops.runs.database import LedgerConnection
from tcb_ops.runs.records import (
    EarlierUpload,
    EnvRecord,
    RunRecord,
    may_have_stored,
)
from tcb_ops.runs.schema import (
    STORED,
    KeptKind,
    envs,
    pruned_files,
    rows,
    runs,
    sql_list,
)

OF_ENV = (envs.c.run == rows.c.run) & (envs.c.no == rows.c.place)
"""Joins the environment of a row."""


_CERTAIN = sql_list(outcome for outcome in Outcome.all() if outcome.stored)
"""The outcomes after which it is certain what is stored."""
_FILE = {
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
_ENTRY = f"""envs.env, {", ".join(_FILE.values())}, rows.reason, rows.attempts,
    CASE WHEN rows.outcome = 'failed' THEN runs.settings ELSE '{{}}' END, runs.kind, runs.upload_calls"""
"""An environment, _FILE, and what tells whether a failed row may have stored its file."""


class HistoryReader(LedgerConnection):
    """Reads what is known of paths."""

    def earlier(
        self, run: RunRecord, environment: EnvRecord, paths: Sequence[str]
    ) -> dict[str, EarlierUpload]:
        """Return what earlier runs on this target stored at paths of an environment, if their last upload succeeded.

        A path that an interrupted run may have changed since is left out: a call that was in flight is not in the ledger.
        """
        keys = [(environment.env, path) for path in paths]
        stored = self._stored(run.target, run.number, keys, confirmed=True, strict=True)
        latest = {key: entries[-1] for key, entries in stored.items() if entries[-1].md5}
        for key, pending in self._pending(run.target, run.number, list(latest)).items():
            if pending[-1].number > latest[key].number:
                del latest[key]
        return {path: entry for (_env, path), entry in latest.items()}

    def _pending(
        self, target: str, leave_out: int, keys: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], list[EarlierUpload]]:
        """Return the pending rows of unfinished runs that write, by (env, path), the oldest run first: one may have been sent."""
        unfinished = self.query(
            sa.select(runs.c.number, runs.c.id).where(
                runs.c.target == target,
                runs.c.kind.not_in(_kinds_that_do_not_write()),
                runs.c.finished_at.is_(None),
                runs.c.number != leave_out,
            )
        )
        ids = dict(map(tuple, unfinished))
        if not ids or not keys:
            return {}
        condition = f"rows.outcome = 'pending' AND {_any_of('rows.run', ids)} ORDER BY rows.run"
        columns = "envs.env, rows.path, rows.run"
        pending: dict[tuple[str, str], list[EarlierUpload]] = {}
        for env, path, number in self._at_paths(columns, "rows_by_place", condition, keys, target, list(ids)):
            entry = EarlierUpload(ids[number], "", 0, "", "", "", outcome=Outcome.PENDING, number=number)
            pending.setdefault((env, path), []).append(entry)
        return pending

    def written(
        self, target: str, leave_out: int, keys: Sequence[tuple[str, str]], *, confirmed: bool = False
    ) -> dict[tuple[str, str], list[EarlierUpload]]:
        """Return what runs to a target put at some (env, path), the oldest first.

        The MD5 is empty where a file was deleted, or it is not certain what is there. Of a kind of run, or an outcome, that is
        not known, the outcome is UNKNOWN. Last come the pending rows of unfinished runs that are newer. The run numbered
        `leave_out` does not count. `confirmed`: with what confirmations found to differ. Of the given environments, paths that
        were given with another one may be among the result.
        """
        entries = self._stored(target, leave_out, keys, confirmed=confirmed)
        for key, pending in self._pending(target, leave_out, keys).items():
            newest = max((entry.number for entry in entries.get(key, ())), default=0)
            entries.setdefault(key, []).extend(entry for entry in pending if entry.number > newest)
        return entries

    def pending_in_both(self, number: int, other: int) -> str | None:
        """Return a path at which rows of two runs, given by their numbers, are pending; None without any."""
        shared = _pending_keys(number).intersect(_pending_keys(other)).subquery()
        path: str | None = self.query(sa.select(sa.func.min(shared.c.path)))[0][0]
        return path

    def _stored(
        self,
        target: str,
        leave_out: int,
        keys: Sequence[tuple[str, str]],
        *,
        confirmed: bool,
        strict: bool = False,
    ) -> dict[tuple[str, str], list[EarlierUpload]]:
        """Return what runs put at (env, path), pruned ones included, the oldest first.

        `confirmed`: with what confirmations found. `strict`: every failed row puts in doubt what is there.
        """
        not_writing, kinds, outcomes = (
            _kinds_that_do_not_write(confirmed=confirmed),
            kind_names(),
            Outcome.all(),
        )
        condition = f"runs.number <> ? AND NOT {_any_of('runs.kind', not_writing)} AND rows.{STORED.text}"
        values: list[int | str] = [leave_out, *map(str.__str__, not_writing)]
        entries = self._pruned(target, keys, confirmed=confirmed)
        for *file, outcome, number, reason, attempts, settings, kind, calls in self._at_paths(
            _ENTRY, "rows_by_path", condition, keys, target, values
        ):
            ended = outcome if kind in kinds else Outcome.UNKNOWN
            sent = calls > 0 or not kind_named(kind).sends_files
            if ended != Outcome.FAILED or strict or (sent and _in_doubt(reason, attempts, settings)):
                entries.append((*file, ended, number))
        uploads: dict[tuple[str, str], list[EarlierUpload]] = {}
        for env, path, _ended_at, *fields, outcome, number in sorted(entries, key=itemgetter(2)):
            values_of = (*fields, Outcome(outcome), number)
            upload = EarlierUpload(*values_of)
            if outcome == Outcome.UNKNOWN or outcome not in outcomes:
                upload = replace(upload, outcome=Outcome.UNKNOWN, md5="")
            uploads.setdefault((env, path), []).append(upload)
        return uploads

    def _pruned(
        self, target: str, keys: Sequence[tuple[str, str]], *, confirmed: bool
    ) -> list[tuple[Any, ...]]:
        """Return what is kept of pruned runs at (env, path), as (env, then _FILE)."""
        kinds = [kind for kind in KeptKind if kind is not KeptKind.FOUND or confirmed]
        query = sa.select(pruned_files.c.env, *(pruned_files.c[name] for name in _FILE)).where(
            pruned_files.c.target == target,
            pruned_files.c.env.in_({env for env, _path in keys}),
            pruned_files.c.path.in_({path for _env, path in keys}),
            pruned_files.c.kind.in_(kinds),
        )
        return [tuple(entry) for entry in self.query(query)]

    def last_of_paths(self, run: RunRecord) -> tuple[str, tuple[Any, ...]]:
        """Compose the SELECT, with its values, of what a run last stored or found at each path, as `pruned_files` has it."""
        failed = self.fetch(
            "SELECT DISTINCT reason, attempts FROM rows WHERE run = ? AND outcome = 'failed'", (run.number,)
        )
        sent, settings = not run.kind.sends_files or run.upload_calls > 0, json.dumps(run.settings)
        doubtful = [
            (reason, attempts)
            for reason, attempts in failed
            if sent and _in_doubt(reason, attempts, settings)
        ]
        certain = KeptKind.FOUND if run.kind.looks_at_store else KeptKind.CERTAIN
        kind = f"CASE WHEN rows.outcome = 'failed' THEN '{KeptKind.DOUBTFUL}' ELSE '{certain}' END"
        values = {"target": "runs.target", "env": "envs.env", "kind": kind, **_FILE}
        if isinstance(run.kind, MissingKind):
            values |= {"outcome": f"'{Outcome.UNKNOWN}'", "md5": "''"}
        columns = pruned_files.c.keys()
        kept = ["rows.outcome <> 'failed'", *["rows.reason = ? AND rows.attempts = ?"] * len(doubtful)]
        select = f"""
            SELECT {", ".join(columns)} FROM (
                SELECT {", ".join(f"{values[name]} AS {name}" for name in columns)}, ROW_NUMBER() OVER (
                    PARTITION BY envs.env, rows.path, {kind} ORDER BY rows.ended_at DESC, rows.line DESC) AS nth
                FROM rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place JOIN runs ON runs.number = rows.run
                WHERE rows.run = ? AND rows.{STORED.text} AND ({" OR ".join(kept)})
            ) AS entries WHERE nth = 1"""  # noqa: S608  own names
        return select, (run.number, *chain.from_iterable(doubtful))

    def _at_paths(
        self,
        columns: str,
        index: str,
        condition: str,
        keys: Sequence[tuple[str, str]],
        target: str,
        values: Sequence[int | str],
    ) -> Sequence[Any]:
        """Read the rows of a target at some (env, path) that fulfil a condition, with its values."""
        environments, paths = list({env for env, _path in keys}), list({path for _env, path in keys})
        # `CROSS JOIN` has SQLite take the tables in this order: a path may be in every environment.
        query = f"""
            SELECT {columns} FROM envs CROSS JOIN runs CROSS JOIN rows {self.by_index(index)}
            WHERE {_any_of("envs.env", environments)} AND runs.number = envs.run AND runs.target = ?
            AND rows.run = envs.run AND rows.place = envs.no AND {_any_of("rows.path", paths)} AND {condition}"""  # noqa: S608  own names
        return self.fetch(query, (*environments, target, *paths, *values))


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


def _any_of(column: str, values: Collection[Any]) -> str:
    return f"{column} IN ({', '.join('?' * len(values))})"


def _pending_keys(number: int) -> sa.Select[Any]:
    """Select (env, path) of the pending rows of a run."""
    query = sa.select(envs.c.env, rows.c.path).join(envs, OF_ENV)
    return query.where(rows.c.run == number, rows.c.outcome == Outcome.PENDING)
