"""Reading from the ledger: runs, their rows, and totals. Nothing here writes.

Methods that sum up or stream a run's rows compare their number with the planned one. If rows are lost, or values are
not such as tcb-ops writes, they raise LedgerDamagedError: nothing is concluded from the rest.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from copy import copy
from difflib import get_close_matches
from itertools import pairwise
from operator import attrgetter, itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tcb_ops.details import read_detail
from tcb_ops.errors import LedgerDamagedError, LedgerError, RunNotFoundError, StoppedError, TcbOpsError
from tcb_ops.i18n import NOTHING, Text, _, as_list, ngettext, verbatim
from tcb_ops.kinds import Kind, MissingKind, all_kinds
from tcb_ops.model import Outcome, Reason, Row
from tcb_ops.resources import exhausted
from tcb_ops.runs.database import (
    CHECK_SECONDS,
    ORPHANED_RUNS,
    check_file,
    damaged,
    is_damage,
    is_locked,
    is_unreachable,
    lock_holders,
    locked,
    may_not_write,
    open_database,
    reason,
)
from tcb_ops.runs.later_changes import LaterChange, later_changes
from tcb_ops.runs.locks import AdvisoryLock, working
from tcb_ops.runs.records import (
    PENDING_COLUMNS,
    EarlierUpload,
    EnvRecord,
    Partition,
    RowRecord,
    RunRecord,
    Tally,
    TimelineBucket,
    check_order,
    check_records,
    check_runs,
    check_state,
    may_have_stored,
    read_done,
    read_end,
    read_env,
    read_listed,
    read_pending,
    read_row,
    read_run,
    valid_time,
)
from tcb_ops.runs.schema import (
    CARRIES_ERRCODE,
    STORED,
    KeptKind,
    envs,
    exports,
    partitions,
    pruned_files,
    rows,
    runs,
    spent,
    tallies,
)

_LOG = logging.getLogger("tcb_ops.runs")

BATCH = 500
"""Rows read at a time, so that memory does not grow with the run: 5,000 take 40 MB more, and hardly less time."""
QUARTER = 900
"""Seconds in a quarter of an hour. UTC offsets are multiples of it, so days of any time zone consist of quarters."""
RUNS = (sa.func.min(rows.c.run), sa.func.max(rows.c.run))
"""The runs of the rows summed up: if a file's pages are mixed up, SQLite includes rows of other runs."""
_OF_ENV = (envs.c.run == rows.c.run) & (envs.c.no == rows.c.place)
"""Joins the environment of a row."""
_CERTAIN = frozenset({Outcome.UPLOADED, Outcome.UNCHANGED, Outcome.RESTORED})
"""The outcomes after which it is certain what is stored."""
_FILE = {
    "ended_at": sa.func.coalesce(rows.c.ended_at, runs.c.created_at),
    "path": rows.c.path,
    "run": runs.c.id,
    "md5": sa.case((rows.c.outcome.in_(_CERTAIN), rows.c.md5), else_=""),
    "bytes": sa.func.coalesce(rows.c.bytes, 0),
    "file_id": rows.c.file_id,
    "content_type": sa.func.coalesce(rows.c.content_type, ""),
    "cache_control": sa.func.coalesce(rows.c.cache_control, ""),
    "file": rows.c.file,
    "etag": sa.func.coalesce(rows.c.etag, ""),
    "outcome": rows.c.outcome,
    "number": runs.c.number,
}
"""What is read of a row that stored a file: when and where, then the fields of an EarlierUpload, by their names."""


class _OfRun(Protocol):  # methods of LedgerReader, where they are documented
    @property
    def name(self) -> str: ...
    @property
    def file(self) -> Path | None: ...
    def run(self, wanted: str, target: str | None = None) -> RunRecord: ...
    def envs(self, run: RunRecord) -> list[EnvRecord]: ...
    def rows(
        self,
        run: RunRecord,
        *,
        outcomes: frozenset[Outcome] | None = None,
        merchant: str = "",
        path: str = "",
        line: int | None = None,
    ) -> Iterator[RowRecord]: ...
    def page(
        self,
        run: RunRecord,
        *,
        ends: Sequence[tuple[Outcome, str, int | None, str]] | None,
        environments: Sequence[EnvRecord] | None,
        path: str,
        after_line: int,
        limit: int,
    ) -> list[RowRecord]: ...
    def counts(self, run: RunRecord) -> dict[Outcome, int]: ...
    def tallies(self, run: RunRecord) -> list[Tally]: ...
    def first_failures(self, run: RunRecord, environment: EnvRecord, limit: int) -> list[RowRecord]: ...
    def planned_bytes(self, run: RunRecord, outcomes: frozenset[Outcome]) -> int: ...
    def timeline(self, run: RunRecord, buckets: int = 60) -> list[TimelineBucket]: ...
    def phase_seconds(self, run: RunRecord) -> dict[str, float]: ...
    def later_changes(
        self, run: RunRecord, only: Collection[tuple[str, str]] | None = None, *, sampled: bool = False
    ) -> list[LaterChange]: ...
    def confirmation(self, run: RunRecord, after: int = 0) -> tuple[str, dict[Outcome, int]] | None: ...
    def partitions(self, run: RunRecord) -> list[Partition]: ...
    def previous(self, run: RunRecord) -> RunRecord | None: ...
    def exports(self, run: RunRecord) -> set[str]: ...
    def worked_on_by(self, run: RunRecord) -> str: ...
    def snapshot(self) -> AbstractContextManager[RunReader]: ...


class RunReader(_OfRun, Protocol):
    """What reports need of a LedgerReader; they read some of a run's rows, or a merged run, from `reports.run_views` instead.

    Methods that sum up or stream a run's rows raise LedgerDamagedError if rows are missing.
    """


class LedgerReader:
    """An open ledger for reading. Errors of the database are raised as LedgerError."""

    def __init__(self, where: str) -> None:
        """Open or create the ledger at a file or a database URL. Raises UsageError if it is not a ledger."""
        self._engine, self.file, self.name = open_database(where)
        weakref.finalize(self, self._engine.dispose)  # users of a Run never close its ledger
        self._held: sa.Connection | None = None
        self._tallied: dict[int, list[Tally]] | None = None
        """Tallies by run number, cached by a snapshot; None outside one."""
        self._listed: dict[int, list[EnvRecord]] | None = None
        """Environments by run number, likewise: a report needs them several times, and they share their texts."""

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def advisory_lock(self, name: str) -> AdvisoryLock | None:
        """Return a lock in the database; None for an SQLite file, which has lock files beside it."""
        return AdvisoryLock(self._engine, name, self._trouble_at_start) if self.file is None else None

    def worked_on_by(self, run: RunRecord) -> str:
        """Return who else is working on a run, as far as can be determined here; empty if nobody is."""
        return working(self, run.id)

    # --- a run ---------------------------------------------------------------------------------------------

    def run(self, wanted: str, target: str | None = None) -> RunRecord:
        """Find a run by id, unambiguous prefix, or `latest` (of `target`). Raises RunNotFoundError."""
        query = sa.select(runs).order_by(runs.c.number.desc())
        if wanted == "latest":
            query = query.where(runs.c.target == target) if target is not None else query
        else:
            query = query.where(runs.c.id.startswith(wanted, autoescape=True))
        found = self._read(query.limit(20))
        exact = [record for record in found if record.id == wanted]
        if wanted == "latest":
            self._check_none_lost(found[0].number if found else 0)
        if exact or (wanted == "latest" and found) or len(found) == 1:
            return self._run((exact or found)[0])  # the others may be damaged
        if not found and wanted == "latest" and target is not None:
            other = next(iter(self.runs(limit=1)), None)
            hint = NOTHING
            if other is not None:
                hint = _(
                    " The newest run of another target is {id}: give its id, or --target {target} "
                    "(in Python: target={target!r}).",
                    id=other.id,
                    target=other.target,
                )
            raise RunNotFoundError(
                _("{name} has no run of {target} yet.{hint}", name=self.name, target=target, hint=hint),
                options=["--target"] if other is not None else (),
            )
        if not found:
            near = get_close_matches(wanted, ["latest"])
            raise RunNotFoundError(
                _("no run '{wanted}' in {name}.", wanted=wanted, name=self.name),
                _("Did you mean {near}?", near=near[0]) if near else None,
            )
        newest = as_list((record.id for record in found), 5)
        raise RunNotFoundError(
            _("'{wanted}' matches several runs: {newest}. Give more of the id.", wanted=wanted, newest=newest)
        )

    def runs(
        self,
        target: str | None = None,
        limit: int | None = None,
        damaged: list[LedgerDamagedError] | None = None,
    ) -> list[RunRecord]:
        """List runs, the last created first. Damaged records are left out: their errors are appended to `damaged`, or logged."""
        errors: list[LedgerDamagedError] = []
        query = sa.select(runs).order_by(runs.c.number.desc()).limit(limit)
        if target is not None:
            query = query.where(runs.c.target == target)
        found = []
        for record in self._read(query):
            try:
                found.append(self._run(record))
            except LedgerDamagedError as error:
                errors.append(error)
        try:
            self._check_none_lost(0)
        except LedgerDamagedError as error:
            errors.append(error)
        if damaged is not None:
            damaged += errors
        else:
            for damage in errors:
                _LOG.warning("%s", damage.text)
        return found

    def newest(self, kind: Kind, target: str, parent: str = "") -> RunRecord | None:
        """Return the last created run of a kind to a target; of the retries of `parent`, if that is given."""
        query = sa.select(runs).where(runs.c.kind == kind, runs.c.target == target, runs.c.parent == parent)
        found = self._read(query.order_by(runs.c.number.desc()).limit(1))
        self._check_none_lost(found[0].number if found else 0)
        return self._run(found[0]) if found else None

    def unfinished(
        self, kind: Kind, target: str, list_sha256: str, root: str, *, elsewhere: bool = False
    ) -> list[RunRecord]:
        """Find unfinished runs of the same kind, target, list bytes and root (`elsewhere`: another root), newest first.

        They include runs that were killed while their report (`out`) was written.
        """
        self._check_none_lost(0)
        query = (
            sa.select(runs)
            .where(
                runs.c.kind == kind,
                runs.c.target == target,
                runs.c.list_sha256 == list_sha256,
                runs.c.root != root if elsewhere else runs.c.root == root,
                runs.c.finished_at.is_(None) | ((runs.c.report == "") & (runs.c.out != "")),
            )
            .order_by(runs.c.number.desc())
            .limit(50)
        )
        return [self._run(record) for record in self._read(query)]

    def check(self, run: RunRecord) -> None:
        """Check a run before it is resumed: the number of its rows, and an SQLite file for CHECK_SECONDS at most.

        Raises LedgerDamagedError.
        """
        self.counts(run)
        self.environments(run)
        self.check_file(CHECK_SECONDS)

    def check_file(self, seconds: float) -> None:
        """Have SQLite check its file for at most `seconds`. Raises LedgerDamagedError for a fault."""
        if self._engine.dialect.name != "sqlite":
            return
        with self.reading(), closing(self._engine.raw_connection()) as pooled:
            try:
                fault = check_file(cast("sqlite3.Connection", pooled.driver_connection), seconds)
            except sqlite3.Error as error:
                fault = str(error)
        if fault:
            raise self._damaged(_("SQLite's check found: {fault}", fault=fault))

    def environments(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, with their numbers of rows and of pending rows."""
        its = rows.c.run == run.number
        if only is not None:
            its &= rows.c.place.in_(only)
        pending = sa.func.sum(sa.case((rows.c.outcome == Outcome.PENDING, 1), else_=0))
        query = sa.select(rows.c.place, sa.func.count(), pending).where(its).group_by(rows.c.place)
        with self.reading(run):
            counted = {place: (int(count), int(waiting)) for place, count, waiting in self._stream(query)}
        found = [*self._list(run, only, counted)]
        if only is None:
            self.check_rows(run, sum(environment.rows for environment in found))
        return found

    def envs(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, without counting rows: `rows` and `pending` are 0."""
        if self._listed is None or only is not None:
            return [*self._list(run, only)]
        if run.number not in self._listed:
            # Two runs that are compared mostly have the same environments.
            same = {one: one for listed in self._listed.values() for one in listed}
            self._listed[run.number] = [same.get(one, one) for one in self._list(run)]
        return self._listed[run.number]

    def _list(
        self,
        run: RunRecord,
        only: Sequence[int] | None = None,
        counted: Mapping[int, tuple[int, int]] = MappingProxyType({}),
    ) -> Iterator[EnvRecord]:
        """Stream environments; `counted`: their numbers of rows and of pending rows, by number."""
        query = sa.select(envs).where(envs.c.run == run.number).order_by(envs.c.no)
        if only is not None:
            query = query.where(envs.c.no.in_(only))
        with self.reading(run):
            for record in self._stream(query):
                yield read_env(record, *counted.get(record.no, (0, 0)))

    def pending(self, run: RunRecord, wanted: Iterable[tuple[EnvRecord, int]], limit: int) -> list[list[Row]]:
        """Return the next pending rows of some environments, each after a line, in the order of the list.

        They have no cells, which sending does not need.
        """
        query = (
            f"SELECT {', '.join(PENDING_COLUMNS)} FROM rows "  # noqa: S608  own names
            "WHERE run = ? AND place = ? AND line > ? AND outcome = 'pending' ORDER BY line LIMIT ?"
        )
        found: list[list[Row]] = []
        with self.reading(run), self._engine.connect() as connection:
            for environment, after in wanted:
                records = self.driver(
                    connection, query, (run.number, environment.number, after, limit)
                ).fetchall()
                check_order(records, after)
                check_runs(run, *{record[0] for record in records})
                found.append([read_pending(record, environment) for record in records])
        return found

    def first_failures(self, run: RunRecord, environment: EnvRecord, limit: int) -> list[RowRecord]:
        """Read the first rows of an environment that ended without success, in the order of the list."""
        query = (
            sa.select(rows)
            .where(
                rows.c.run == run.number,
                rows.c.place == environment.number,
                rows.c.outcome.not_in([*Outcome.successes(), Outcome.PENDING]),
            )
            .order_by(rows.c.line)
            .limit(limit)
        )
        with self.reading(run):
            return _with_ends(self._read(query), {environment.number: environment})

    def page(
        self,
        run: RunRecord,
        *,
        ends: Sequence[tuple[Outcome, str, int | None, str]] | None,
        environments: Sequence[EnvRecord] | None,
        path: str,
        after_line: int,
        limit: int,
    ) -> list[RowRecord]:
        """Return at most `limit` rows after a line (-1 for the first page), in the order of the list.

        `ends`: the (outcome, reason, errcode, store_code) of the wanted rows, `environments`: theirs; None for all. `path`: a
        part of the cloud path.
        """
        query = sa.select(rows).where(rows.c.run == run.number, rows.c.line > after_line)
        if ends is not None:
            query = query.where(
                sa.or_(
                    sa.false(),
                    *(
                        sa.and_(
                            rows.c.outcome == outcome,
                            rows.c.reason == reason,
                            rows.c.errcode.is_(None) if errcode is None else rows.c.errcode == errcode,
                            rows.c.store_code == store_code,
                        )
                        for outcome, reason, errcode, store_code in ends
                    ),
                )
            )
        if environments is not None:
            query = query.where(rows.c.place.in_([one.number for one in environments]))
        if path:
            query = query.where(rows.c.path.contains(path, autoescape=True))
        found = self._read(query.order_by(rows.c.line).limit(limit))
        known = self.envs(run)
        with self.reading(run):
            check_order(found, after_line)
            return _with_ends(found, {one.number: one for one in known})

    def earlier(
        self, run: RunRecord, environment: EnvRecord, paths: Sequence[str]
    ) -> dict[str, EarlierUpload]:
        """Return what earlier runs on this target stored at paths of an environment, if their last upload succeeded.

        A path that an interrupted run may have changed since is left out: a call that was in flight is not in the ledger.
        """
        kinds = kinds_that_write(or_look=True)
        found = self._stored(run.target, run.number, environment.env, paths, kinds, strict=True)
        known = {path: stored[-1] for path, stored in found.items() if stored[-1].md5}
        for path, others in self._pending(run.target, run.number, environment.env, list(known)).items():
            if others[-1].number > known[path].number:
                del known[path]
        return known

    def _pending(
        self, target: str, leave_out: int, env: str, paths: Sequence[str]
    ) -> dict[str, list[EarlierUpload]]:
        """Return the pending rows of unfinished runs that write, by path, the oldest run first: one may have been sent."""
        interrupted = self._read(
            sa.select(runs.c.number, runs.c.id)
            .where(
                runs.c.target == target,
                runs.c.kind.in_(kinds_that_write()),
                runs.c.finished_at.is_(None),
                runs.c.number != leave_out,
            )
            .order_by(runs.c.number)
        )
        if not interrupted or not paths:
            return {}
        ids = dict(map(tuple, interrupted))
        pending = self._read(
            sa.select(rows.c.path, rows.c.run)
            .join(envs, _OF_ENV)
            .where(
                rows.c.run.in_(list(ids)),
                envs.c.env == env,
                rows.c.outcome == Outcome.PENDING,
                rows.c.path.in_(paths),
            )
            .order_by(rows.c.run)
        )
        found: dict[str, list[EarlierUpload]] = {}
        for path, number in pending:
            one = EarlierUpload(ids[number], "", 0, "", "", "", outcome=Outcome.PENDING, number=number)
            found.setdefault(path, []).append(one)
        return found

    def written(
        self, target: str, leave_out: int, env: str, paths: Sequence[str], *, confirmed: bool = False
    ) -> dict[str, list[EarlierUpload]]:
        """Return what runs to a target put at some paths of an environment, the oldest first.

        The MD5 is empty where a file was deleted, or it is not certain what is there. Last come the pending rows of
        unfinished runs that are newer. The run numbered `leave_out` does not count. `confirmed`: with what confirmations found to differ.
        """
        kinds = kinds_that_write(or_look=confirmed)
        found = self._stored(target, leave_out, env, paths, kinds)
        for path, pending in self._pending(target, leave_out, env, paths).items():
            newest = max((one.number for one in found.get(path, ())), default=0)
            found.setdefault(path, []).extend(one for one in pending if one.number > newest)
        return found

    def paths_stored(self, some: Sequence[RunRecord], env: str, appid: str) -> list[tuple[str, str]]:
        """Return the paths to which uploads sent files of a merchant's environment, each with its local file, sorted."""
        query = (
            sa.select(rows.c.path, rows.c.file)
            .distinct()
            .join(envs, _OF_ENV)
            .where(
                envs.c.env == env,
                envs.c.appid == appid,
                rows.c.run.in_([run.number for run in some]),
                rows.c.outcome == Outcome.UPLOADED,
            )
            .order_by(rows.c.path)
        )
        return [(path, file) for path, file in self._read(query)]

    def _stored(
        self,
        target: str,
        leave_out: int,
        env: str,
        paths: Sequence[str],
        kinds: Sequence[Kind],
        *,
        strict: bool = False,
    ) -> dict[str, list[EarlierUpload]]:
        """Return what runs put at paths, pruned ones included, the oldest first.

        `strict`: every failed row puts in doubt what is there.
        """
        query = (
            sa.select(
                *_FILE.values(),
                rows.c.reason,
                rows.c.attempts,
                sa.case((rows.c.outcome == Outcome.FAILED, runs.c.settings), else_="{}"),
                runs.c.kind.not_in([kind for kind in all_kinds() if kind.sends_files])
                | (runs.c.upload_calls > 0),
            )
            .join(envs, _OF_ENV)
            .join(runs, runs.c.number == rows.c.run)
            .where(
                STORED,
                rows.c.path.in_(paths),
                envs.c.env == env,
                runs.c.target == target,
                runs.c.kind.in_(kinds),
                runs.c.number != leave_out,
            )
        )
        kept = sa.select(*(pruned_files.c[name] for name in _FILE)).where(
            pruned_files.c.target == target,
            pruned_files.c.env == env,
            pruned_files.c.path.in_(paths),
            pruned_files.c.kind.in_(
                [
                    kind
                    for kind in KeptKind
                    if kind is not KeptKind.FOUND or any(its.looks_at_store for its in kinds)
                ]
            ),
        )
        entries = [tuple(entry) for entry in self._read(kept)]
        for *entry, cause, attempts, settings, sent in self._read(query):
            outcome = entry[-2]
            if outcome != Outcome.FAILED or strict or (sent and _in_doubt(cause, attempts, settings)):
                entries.append(tuple(entry))
        by_path: dict[str, list[EarlierUpload]] = {}
        for _at, path, *fields, outcome, number in sorted(entries, key=itemgetter(0)):
            values = (*fields, Outcome(outcome), number)
            by_path.setdefault(path, []).append(EarlierUpload(*values))
        return by_path

    def last_of_paths(self, run: RunRecord) -> sa.Select[Any]:
        """Select what a run last stored or found at each path, with the columns of `pruned_files` in their order."""
        failed = (rows.c.run == run.number) & (rows.c.outcome == Outcome.FAILED)
        sent = not run.kind.sends_files or run.upload_calls > 0
        settings = json.dumps(run.settings)
        doubtful = [
            (rows.c.reason == reason) & (rows.c.attempts == attempts)
            for reason, attempts in self._read(
                sa.select(rows.c.reason, rows.c.attempts).distinct().where(failed)
            )
            if sent and _in_doubt(reason, attempts, settings)
        ]
        certain = KeptKind.FOUND if run.kind.looks_at_store else KeptKind.CERTAIN
        kind = sa.case((rows.c.outcome == Outcome.FAILED, KeptKind.DOUBTFUL), else_=certain)
        values = {"target": runs.c.target, "env": envs.c.env, "kind": kind, **_FILE}
        newest_first = sa.func.row_number().over(
            partition_by=(envs.c.env, rows.c.path, kind),
            order_by=(rows.c.ended_at.desc(), rows.c.line.desc()),
        )
        found = (
            sa.select(
                *(values[column.name].label(column.name) for column in pruned_files.c),
                newest_first.label("nth"),
            )
            .join(envs, _OF_ENV)
            .join(runs, runs.c.number == rows.c.run)
            .where(rows.c.run == run.number, STORED, sa.or_(rows.c.outcome != Outcome.FAILED, *doubtful))
            .subquery()
        )
        return sa.select(*list(found.c)[:-1]).where(found.c.nth == 1)

    def rows(
        self,
        run: RunRecord,
        *,
        outcomes: frozenset[Outcome] | None = None,
        merchant: str = "",
        path: str = "",
        line: int | None = None,
    ) -> Iterator[RowRecord]:
        """Stream a run's rows in the order of the list, in constant memory.

        `merchant` is a name or an appid, `path` a cloud path or a part of one. Missing rows are detected before the first
        row of a selection, but only after the last row of a whole run.
        """
        selected = outcomes is not None or merchant or path or line is not None
        if merchant:  # uses the index by environment
            self.environments(run)
        elif selected:
            self.counts(run)
        by_number = {environment.number: environment for environment in self.envs(run)}
        query = sa.select(rows).where(rows.c.run == run.number).order_by(rows.c.line).limit(BATCH)
        if outcomes is not None:
            query = query.where(rows.c.outcome.in_(outcomes))
        if merchant:
            query = query.where(
                rows.c.place.in_([p.number for p in by_number.values() if merchant in {p.merchant, p.appid}])
            )
        if path:
            query = query.where(rows.c.path.contains(path, autoescape=True))
        if line is not None:
            query = query.where(rows.c.line == line)
        for batch in self._in_order(
            run, lambda last: self._read(query.where(rows.c.line > last)), whole=not selected
        ):
            with self.reading(run):
                records = _with_ends(batch, by_number)
            yield from records

    def _in_order(
        self, run: RunRecord, read: Callable[[int], Sequence[Any]], *, whole: bool = True
    ) -> Iterator[Sequence[Any]]:
        """Stream batches of a run's records in the order of the list; `read` returns those after a line.

        They begin with run and line. `whole`: all rows of the run are read, and missing ones detected.
        """
        last, found = -1, 0
        while batch := read(last):
            with self.reading(run):
                check_order(batch, last)
                check_runs(run, *{record[0] for record in batch})
            last, found = batch[-1][1], found + len(batch)
            yield batch
        if whole:
            self.check_rows(run, found)

    def planned_files(self, run: RunRecord, line: int) -> list[tuple[str, int | None, int | None]]:
        """Return the local file, size and mtime that a run planned for a line; nothing if the run does not have it."""
        query = sa.select(rows.c.file, rows.c.size, rows.c.mtime_ns)
        return [tuple(one) for one in self._read(query.where(rows.c.run == run.number, rows.c.line == line))]

    def listed(self, run: RunRecord) -> Iterator[tuple[int, tuple[str, ...], str, int | None, str]]:
        """Stream (line, cells, outcome, errcode, errmsg) of a run's rows in the order of the list, for links.csv."""
        query = (
            "SELECT run, line, cells, outcome, errcode, errmsg FROM rows "
            "WHERE run = ? AND line > ? ORDER BY line LIMIT ?"
        )

        def read(last: int) -> Sequence[Any]:
            with self.reading(run), self._engine.connect() as connection:
                return self.driver(connection, query, (run.number, last, BATCH)).fetchall()

        for batch in self._in_order(run, read):
            with self.reading(run):
                listed = [read_listed(record) for record in batch]
            yield from listed

    def records(self, run: RunRecord) -> Iterator[Sequence[Any]]:
        """Stream a run's rows in the order of the list, as batches of checked database records.

        For writers of a million rows, for which an object per row is most of the cost.
        """
        query = sa.select(rows).where(rows.c.run == run.number).order_by(rows.c.line).limit(BATCH)
        for batch in self._in_order(run, lambda last: self._fetch(query.where(rows.c.line > last))):
            with self.reading(run):
                check_records(batch)
            yield batch

    def succeeded_since(self, run: RunRecord) -> set[int]:
        """Return the lines of a run that have succeeded in one of its retries, or in a retry of those."""
        lines: set[int] = set()
        for retry in self.retries(run):
            self.counts(retry)
            good = sa.select(rows.c.line).where(
                rows.c.run == retry.number, rows.c.outcome.in_(Outcome.successes())
            )
            lines.update(line for (line,) in self._read(good))
        return lines

    def retries(self, run: RunRecord) -> list[RunRecord]:
        """List the retries of a run on the same target and the retries of those, oldest first."""
        query = sa.select(runs).where(runs.c.parent == run.id, runs.c.target == run.target)
        found = [self._run(record) for record in self._read(query)]
        found += [later for retry in list(found) for later in self.retries(retry)]
        return sorted(found, key=lambda retry: retry.number)

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count rows by outcome, pending included, without zeros."""
        query = (
            sa.select(rows.c.outcome, sa.func.count(), *RUNS)
            .where(rows.c.run == run.number)
            .group_by(rows.c.outcome)
        )
        if self._has_sums(run):
            summed, its = sa.func.sum(tallies.c.rows), tallies.c.run == run.number
            query = sa.select(tallies.c.outcome, summed).where(its).group_by(tallies.c.outcome)
        with self.reading(run):
            found: dict[Outcome, int] = {}
            for outcome, count, *of in self._read(query):
                check_runs(run, *of)
                found[Outcome(outcome)] = found.get(Outcome(outcome), 0) + int(count)
        self.check_rows(run, sum(found.values()))
        return dict(sorted(found.items(), key=lambda count: count[0].order))

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first; a snapshot counts only once."""
        if self._tallied is None:
            return self._tally(run)
        if run.number not in self._tallied:
            self._tallied[run.number] = self._tally(run)
        return self._tallied[run.number]

    def _tally(self, run: RunRecord) -> list[Tally]:
        query = summed_up(run.number)
        if has_sums := self._has_sums(run):
            query = sa.select(*tallies.c[2:]).where(tallies.c.run == run.number)  # without its own key
        by_number = {environment.number: environment for environment in self.envs(run)}
        found = []
        with self.reading(run):
            if has_sums:
                self._check_outcomes(run)
            for number, outcome, reason, errcode, store_code, count, text, *of in self._stream(query):
                check_runs(run, *of)
                if not isinstance(run.kind, MissingKind):  # whose outcomes are not known here
                    check_state(outcome, reason, errcode, store_code, text)
                environment = by_number[number]
                found.append(
                    Tally(
                        environment.appid,
                        environment.merchant,
                        environment.env,
                        Outcome(outcome),
                        Reason(reason) if reason else None,
                        errcode,
                        store_code,
                        int(count),
                        *(("", read_detail(text)) if Reason(reason).explained else (text,)),
                    )
                )
        self.check_rows(run, sum(tally.rows for tally in found))
        return sorted(found, key=lambda t: (-t.rows, t.merchant, t.env, t.outcome, t.errcode or 0))

    def _has_sums(self, run: RunRecord) -> bool:
        """Return whether the sums stored when the run was finished are those of its rows."""
        there = sa.select(sa.func.count()).select_from(rows).where(rows.c.run == run.number).scalar_subquery()
        kept = sa.select(sa.func.sum(tallies.c.rows), there).where(tallies.c.run == run.number)
        return tuple(self._read(kept)[0]) == (run.rows, run.rows)

    def _check_outcomes(self, run: RunRecord) -> None:
        """Raise ValueError if rows no longer have the outcomes that the stored sums have."""
        counted, summed = (
            dict(
                map(
                    tuple,
                    self._read(
                        sa.select(table.c.outcome, count)
                        .where(table.c.run == run.number)
                        .group_by(table.c.outcome)
                    ),
                )
            )
            for table, count in ((rows, sa.func.count()), (tallies, sa.func.sum(tallies.c.rows)))
        )
        if counted != summed:
            raise ValueError(run.id)

    def planned_bytes(self, run: RunRecord, outcomes: frozenset[Outcome]) -> int:
        """Sum up the sizes of these rows' local files at the time the run was planned."""
        summed = sa.func.coalesce(sa.func.sum(rows.c.size), 0)
        query = sa.select(summed).where(rows.c.run == run.number, rows.c.outcome.in_(outcomes))
        return int(self._read(query)[0][0])

    def timeline(self, run: RunRecord, buckets: int = 60) -> list[TimelineBucket]:
        """Return how rows ended over time, in equal intervals from the run's start to the end of its last row.

        Empty if no row has ended. Does not include invalid rows.
        """
        ended, of_run = rows.c.ended_at, rows.c.run == run.number
        first, last = self._read(sa.select(sa.func.min(ended), sa.func.max(ended)).where(of_run))[0]
        if last is None:
            return []
        with self.reading(run):
            if not (valid_time(first) and valid_time(last)):
                raise ValueError(last)
            began = min(run.created_at, first)
            width = max(last - began, 0.001) / buckets
            at = (ended - began) / width
            # A cast truncates in SQLite, which may lack floor, and rounds in PostgreSQL.
            sqlite = self._engine.dialect.name == "sqlite"
            moment = (sa.cast(at, sa.Integer) if sqlite else sa.func.floor(at)).label("moment")
            query = sa.select(moment, rows.c.outcome, sa.func.count()).where(of_run, ended.is_not(None))
            found: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
            for number, outcome, count in self._read(query.group_by(moment, rows.c.outcome)):
                # The last end falls on the boundary.
                found[min(int(number), buckets - 1)][Outcome(outcome)] += int(count)
        starts = [began + number * width for number in range(buckets + 1)]
        return [TimelineBucket(*pair, found[number]) for number, pair in enumerate(pairwise(starts))]

    def exports(self, run: RunRecord) -> set[str]:
        """Return the SHA-256 of the manifest.json of each report of a run."""
        of_run = sa.select(exports.c.manifest_sha256).where(exports.c.run == run.number)
        return {digest for (digest,) in self._read(of_run)}

    def phase_seconds(self, run: RunRecord) -> dict[str, float]:
        """Return a run's seconds by phase (progress.PHASES), over all sessions; empty if not measured."""
        query = sa.select(spent.c.phase, spent.c.seconds).where(spent.c.run == run.number)
        return {phase: float(seconds) for phase, seconds in self._read(query)}

    @contextmanager
    def snapshot(self) -> Iterator[Self]:
        """Open a consistent snapshot of the ledger, which later writes do not change."""
        seen = copy(self)
        try:
            with self._engine.connect() as connection:
                if self._engine.dialect.name == "sqlite":
                    connection.exec_driver_sql("BEGIN")  # the driver begins a transaction only at a write
                else:
                    connection.execution_options(isolation_level="REPEATABLE READ")
                seen._held, seen._tallied, seen._listed = connection, {}, {}  # noqa: SLF001  its own copy
                yield seen
        except SQLAlchemyError as error:
            raise self._trouble(error) from None
        finally:  # whoever still refers to it keeps none of this
            seen._tallied = seen._listed = None  # noqa: SLF001  its own copy

    def check_rows(self, run: RunRecord, found: int) -> None:
        """Raise LedgerDamagedError if the number of rows found is not the planned one."""
        if found != run.rows:
            raise self._damaged(
                _(
                    "run {id} was planned with {rows}, but {found:,} can be read",
                    id=run.id,
                    rows=ngettext("{n:,} row", "{n:,} rows", run.rows),
                    found=found,
                )
            )

    # --- across runs --------------------------------------------------------------------------------------------

    def by_path(self, run: RunRecord) -> Iterator[Any]:
        """Stream (env, appid, path, outcome, reason, errcode, store_code) of a run's rows, ordered by the first three.

        Of rows that share all three, invalid ones come last. The order is by code point, whatever the database's locale.
        """
        keys = [envs.c.env, envs.c.appid, rows.c.path]
        postgresql = self._engine.dialect.name == "postgresql"
        ordered = [sa.collate(key, "C") for key in keys] if postgresql else keys
        query = (
            sa.select(*keys, rows.c.outcome, rows.c.reason, rows.c.errcode, rows.c.store_code)
            .join(envs, _OF_ENV)
            .where(rows.c.run == run.number)
            .order_by(*ordered, rows.c.outcome == Outcome.INVALID, rows.c.line)
        )
        found = 0
        with self.reading(run):
            for record in self._stream(query):
                env, appid, at, *state = record
                check_state(*state, env, appid, at)
                found += 1
                yield record
        self.check_rows(run, found)

    def pairs(self, older: RunRecord, newer: RunRecord) -> list[Any] | None:
        """Count the rows of two runs as `_pairs_by_line` selects them; None unless the runs match line for line.

        They usually do if one list was run twice; this takes a fraction of the time of sorting both.
        """
        if (older.list_sha256, older.rows) != (newer.list_sha256, newer.rows):
            return None
        places = attrgetter("number", "env", "appid")
        if [*map(places, self.envs(older))] != [*map(places, self.envs(newer))]:
            return None
        for run in (older, newer):
            count = sa.select(sa.func.count()).where(rows.c.run == run.number)
            self.check_rows(run, int(self._read(count)[0][0]))
        found = self._read(_pairs_by_line(older, newer))
        with self.reading(newer):
            for _other, *states, _other in found:
                check_state(*states[:4])
                check_state(*states[4:])
        # Invalid rows may be duplicates, of which only the first counts.
        bad_input = any(Outcome.INVALID in record for record in found)
        return None if bad_input or sum(record[-1] for record in found) != older.rows else list(found)

    def previous(self, run: RunRecord, receiver: str = "") -> RunRecord | None:
        """Find the last finished run before this one with the same selection, for comparison; None for a retry.

        With a receiver: the last audit whose message was not kept from it.
        """
        found = map(self._run, [] if run.parent else self._read(earlier_runs(run)))
        return next(
            (one for one in found if one.selection == run.selection and receiver not in one.undelivered), None
        )

    def later_changes(
        self, run: RunRecord, only: Collection[tuple[str, str]] | None = None, *, sampled: bool = False
    ) -> list[LaterChange]:
        """Find the later runs that undid, deleted or overwrote files of an upload; see `runs.later_changes`."""
        return later_changes(self, self._read, run, only, sampled=sampled)

    def confirmation(self, run: RunRecord, after: int = 0) -> tuple[str, dict[Outcome, int]] | None:
        """Find the newest finished run that confirmed an upload; return its id and its rows by outcome.

        `after`: the number of the run that changed the upload's files last; a confirmation before it says nothing of them now.
        """
        query = (
            sa.select(runs)
            .where(
                runs.c.kind.in_([kind for kind in all_kinds() if kind.looks_at_store]),
                runs.c.list_sha256 == run.list_sha256,
                runs.c.finished_at.is_not(None),
                runs.c.number > max(run.number, after),
            )
            .order_by(runs.c.number.desc())
        )
        if not run.kind.sends_files:
            return None
        for record in self._read(query):
            try:
                found = self._run(record)
            except LedgerDamagedError as error:
                _LOG.warning("%s", error.text)
                continue
            # One that is narrowed by --where says nothing of the others.
            whole = found.selection in {f"run {run.id}", f"run {run.id}; content"}
            if whole and found.settings.get("of", [""])[0] == run.id:
                return found.id, self.counts(found)
        return None

    def partitions(self, run: RunRecord, session: int | None = None) -> list[Partition]:
        """List the partitions of a session of a run on a cluster, or of all its sessions."""
        query = sa.select(partitions.c.number, partitions.c.workers, partitions.c.done).where(
            partitions.c.run == run.number
        )
        if session is not None:
            query = query.where(partitions.c.session == session)
        found = self._read(query.order_by(partitions.c.session, partitions.c.number))
        with self.reading(run):
            return [
                Partition(number, tuple(map(str, json.loads(workers or "[]"))), read_done(done))
                for number, workers, done in found
            ]

    def errcodes_since(self, target: str, since: float) -> Iterator[Any]:
        """Stream (appid, merchant, errcode, quarter of an hour since 1970, rows) of a target's runs, from `since` on.

        Rows that a breaker ended count at the time it opened.
        """
        at = sa.func.coalesce(rows.c.ended_at, runs.c.created_at) / QUARTER
        if self._engine.dialect.name == "postgresql":  # a cast rounds there
            at = sa.func.floor(at)
        keys = (rows.c.run, rows.c.place, rows.c.errcode, sa.cast(at, sa.Integer).label("quarter"))
        unfinished_or_since = runs.c.finished_at.is_(None) | (runs.c.finished_at >= since)
        counted = (
            sa.select(*keys, sa.func.count().label("rows"))
            .join(runs, runs.c.number == rows.c.run)
            .where(CARRIES_ERRCODE, runs.c.target == target, unfinished_or_since)
            .group_by(*keys[:3], "quarter")
            .subquery()
        )
        of_env = (envs.c.run == counted.c.run) & (envs.c.no == counted.c.place)
        found = (envs.c.appid, envs.c.merchant, counted.c.errcode, counted.c.quarter, counted.c.rows)
        return self._stream(sa.select(*found).join(envs, of_env))

    # --- the database -------------------------------------------------------------------------------------------

    def driver(
        self, connection: sa.Connection, statement: str, values: tuple[Any, ...] | list[tuple[Any, ...]]
    ) -> sa.CursorResult[Any]:
        """Execute a statement with `?` for its values, not compiled: SQLAlchemy's own take twice as long per row."""
        if self._engine.dialect.name != "sqlite":
            statement = statement.replace("?", "%s")
        return connection.exec_driver_sql(statement, values)

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """Open a connection for reading, or use the one that a snapshot holds."""
        held = nullcontext(self._held) if self._held is not None else self._engine.connect()
        with self.reading(), held as connection:
            yield connection

    def query(self, query: sa.Select[Any]) -> Sequence[Any]:
        """Return the records of a feature's own query. Call it within `reading`."""
        return self._read(query)

    def _read(self, query: sa.Executable) -> Sequence[Any]:
        with self._connection() as connection:
            return connection.execute(query).all()

    def _fetch(self, query: sa.Select[Any]) -> Sequence[Any]:
        """Read the driver's own records: converting them to SQLAlchemy's takes longer than reading them."""
        with self._connection() as connection:
            try:
                found: Sequence[Any] = connection.execute(query).cursor.fetchall()
            except self._engine.dialect.loaded_dbapi.Error as error:  # the cursor is the driver's own
                raise sa.exc.DBAPIError(None, None, error) from None
            return found

    def _run(self, record: Any) -> RunRecord:
        with self.reading(record):
            return read_run(record)

    def _check_none_lost(self, after: int) -> None:
        """Raise LedgerDamagedError if a run numbered above `after` has rows, but no record: an older one would be taken for it."""
        # PostgreSQL enforces foreign keys.
        if self._engine.dialect.name != "sqlite":
            return
        if any(number > after for (number,) in self._read(sa.text(ORPHANED_RUNS))):
            raise self._damaged(_("it contains rows of a run whose own record is missing"))

    @contextmanager
    def reading(self, run: Any = None) -> Iterator[None]:
        """Convert errors of the database, and errors from damaged values, to errors of the ledger."""
        try:
            yield
        except SQLAlchemyError as error:
            raise self._trouble(error) from None
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
            wrong = (
                _("a record of a run contains values that tcb-ops does not write")
                if run is None
                else _("a record of run {id} contains values that tcb-ops does not write", id=run.id)
            )
            raise self._damaged(wrong) from None

    def _damaged(self, what: Text) -> LedgerDamagedError:
        return damaged(self.name, self.file, what)

    def _stream(self, query: sa.Select[Any]) -> Iterator[Any]:
        """Stream the records of a query, read in batches."""
        with self._connection() as connection:
            for batch in connection.execute(query, execution_options={"yield_per": BATCH}).partitions():
                yield from batch

    def _trouble_at_start(self, error: SQLAlchemyError) -> TcbOpsError:
        """Return the error of a statement, or of a lock that cannot be taken or looked up: nothing has begun."""
        return may_not_write(self.name, error) or self._trouble(error)

    def _trouble(self, error: SQLAlchemyError) -> StoppedError:
        if (shortage := exhausted(error, unclear=True)) is not None:
            return shortage
        why = reason(error)
        if is_damage(error):
            return self._damaged(verbatim(why))
        if is_locked(error):
            return LedgerError(locked(self.name, lock_holders(self._engine)))
        if self.file is None and is_unreachable(error):
            return LedgerError(
                _(
                    "the ledger {name} cannot be reached: {why}. What was committed is safe. When its database is back, "
                    "run the same command again: the run resumes where it stopped.",
                    name=self.name,
                    why=why,
                )
            )
        return LedgerError(
            _(
                "the ledger {name} cannot be used: {why}. What was committed is safe. Free space or fix "
                "the access, then run the same command again: the run resumes where it stopped.",
                name=self.name,
                why=why,
            )
        )


def _with_ends(records: Iterable[Any], by_number: Mapping[int, EnvRecord]) -> list[RowRecord]:
    """Return the rows of records of the rows table, by the numbers of their environments."""
    return [RowRecord(read_row(record, by_number[record[2]]), read_end(record)) for record in records]


def kinds_that_write(*, or_look: bool = False) -> list[Kind]:
    """Return the kinds whose runs change what is stored; `or_look`: also those whose outcomes tell it."""
    return [kind for kind in all_kinds() if kind.changes_store or (or_look and kind.looks_at_store)]


def _in_doubt(reason: str, attempts: int, settings: str) -> bool:
    """Return whether a failed row may have stored its file, also if the record of its run is damaged."""
    try:
        return may_have_stored(Reason(reason) if reason else None, attempts, json.loads(settings))
    except (AttributeError, TypeError, ValueError):
        return True


# --- longer queries ---


def summed_up(run: int) -> sa.Select[Any]:
    """Select (environment, outcome, reason, errcode, store_code, rows, message, then RUNS) of the rows of a run, by its number."""
    keys = (rows.c.place, rows.c.outcome, rows.c.reason, rows.c.errcode, rows.c.store_code)
    message = sa.func.max(
        sa.case(
            (rows.c.reason.in_([reason for reason in Reason.all() if reason.explained]), rows.c.detail),
            (rows.c.reason.in_([Reason.REFUSED, Reason.COMPONENT]), rows.c.errmsg),
            else_="",
        )
    ).label("message")
    count = sa.func.count().label("rows")
    return sa.select(*keys, count, message, *RUNS).where(rows.c.run == run).group_by(*keys)


def _pairs_by_line(before: RunRecord, after: RunRecord) -> sa.Select[Any]:
    """Select (environment, then outcome, reason, errcode, store_code in each of two runs, and the number of rows).

    Counts only rows with the same line, environment and path.
    """
    older, newer = rows.alias("older"), rows.alias("newer")
    states = [
        table.c[name] for table in (older, newer) for name in ("outcome", "reason", "errcode", "store_code")
    ]
    same = (
        (newer.c.run == after.number)
        & (newer.c.line == older.c.line)
        & (newer.c.place == older.c.place)
        & (newer.c.path == older.c.path)
    )
    return (
        sa.select(older.c.place, *states, sa.func.count())
        .select_from(older)
        .join(newer, same)
        .where(older.c.run == before.number)
        .group_by(older.c.place, *states)
    )


def earlier_runs(run: RunRecord) -> sa.Select[Any]:
    """Select finished runs before one with the same kind, target and list name, latest first; no retries."""
    query = sa.select(runs).where(
        runs.c.kind == run.kind,
        runs.c.target == run.target,
        runs.c.parent == "",
        runs.c.finished_at.is_not(None),
    )
    # By the ledger's number, since a clock may have been set back.
    query = query.where(runs.c.number < run.number).order_by(runs.c.number.desc())
    if not run.kind.same_list:  # stopped audits are not comparable
        return query.where(runs.c.stopped == "")
    return query.where(runs.c.list_name == run.list_name)
