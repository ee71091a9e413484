"""Runs and rows, durably. The ledger is the truth: what it does not say has not happened.

SQLAlchemy Core; SQLite by default (WAL, synchronous=FULL: a commit survives a power cut), PostgreSQL by URL. No
token, signature or link is ever written here.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tcb_ops.errors import LedgerError, RunNotFoundError, UsageError
from tcb_ops.model import Kind, Lang, Outcome, Reason, Row, RowEnd, Text
from tcb_ops.runs.schema import SCHEMA, envs, rows, runs, version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["EnvRecord", "Ledger", "Meter", "NewRun", "RowRecord", "RunRecord", "Tally"]

BATCH = 5_000
"""Rows written or read at a time: enough to be quick, few enough to stay flat."""
SAME_RUN = timedelta(hours=24)
"""An unfinished run younger than this is gone on with."""

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs", "lustre"}


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is known of a run before it begins."""

    id: str
    kind: Kind
    target: str
    list_name: str
    list_sha256: str
    list_bytes: int
    headers: tuple[str, ...]
    root: str
    settings: dict[str, Any]
    """Without secrets; goes into the manifest."""
    note: str
    operator: str
    host: str
    out: str
    created_at: float
    parent: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord(NewRun):
    """A run as the ledger has it."""

    number: int = 0
    """The ledger's own key."""
    rows: int = 0
    """Rows in."""
    seconds: float = 0.0
    """Over all sittings."""
    link_calls: int = 0
    upload_calls: int = 0
    finished_at: float | None = None
    stopped: str = ""
    """Why the last sitting ended early; empty when it did not."""
    report: str = ""
    """Where its links.csv or its newest report folder stands."""


@dataclass(frozen=True, slots=True)
class EnvRecord:
    """One merchant's environment in a run."""

    no: int
    env: str
    appid: str
    merchant: str
    owner: str
    left: bool
    rows: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class RowRecord:
    """A row of a run: what came in, and how it ended (or that it is pending)."""

    row: Row
    end: RowEnd


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of one merchant's environment that share an end."""

    appid: str
    merchant: str
    env: str
    outcome: Outcome
    reason: Reason | None
    errcode: int | None
    store_code: str
    rows: int


@dataclass(frozen=True, slots=True)
class Meter:
    """What a sitting has spent since it was last written down."""

    seconds: float = 0.0
    link_calls: int = 0
    upload_calls: int = 0


class Ledger:
    """An open ledger. Every method is one transaction; errors are LedgerError with what to do."""

    def __init__(self, where: str) -> None:
        """Open or create the ledger at a file or a database URL. Raises UsageError when it is not one."""
        self.where = where
        self.file = None if "://" in where else Path(where)
        try:
            url = sa.make_url(where) if self.file is None else sa.URL.create("sqlite", database=str(self.file))
        except SQLAlchemyError:
            raise _not_a_ledger("the ledger's URL", "it cannot be read as a database URL", "无法解析为数据库地址") from None
        self.name = str(self.file) if self.file is not None else url.render_as_string(hide_password=True)
        if self.file is not None:
            _refuse_unsuitable(self.file)
        try:
            self._engine = sa.create_engine(url, hide_parameters=True)
        except (SQLAlchemyError, ImportError):
            raise _not_a_ledger(
                self.name, "its database driver is not installed", "没有安装对应的数据库驱动"
            ) from None
        if url.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        self._open_schema()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # --- planning -----------------------------------------------------------------------------------------------

    def plan(
        self, new: NewRun, planned: Iterable[Row], places: Sequence[EnvRecord], lang: Lang = Lang.EN
    ) -> RunRecord:
        """Write a run with all its rows pending (or invalid), in one transaction: from its commit on the run exists.

        `places` numbers the environments; a row's place is found by its (env, appid). `lang` is what invalid rows say.
        """
        number_of = {(place.env, place.appid): place.no for place in places}
        with self._writing() as connection:
            values = {name: getattr(new, name) for name in _NEW_RUN if name not in {"headers", "settings"}}
            connection.execute(
                runs.insert().values(
                    **values,
                    headers=json.dumps(new.headers, ensure_ascii=False),
                    settings=json.dumps(new.settings, ensure_ascii=False, sort_keys=True),
                )
            )
            number = connection.execute(sa.select(runs.c.number).where(runs.c.id == new.id)).scalar_one()
            if places:
                connection.execute(
                    envs.insert(),
                    [
                        {"run": number, "no": p.no, "env": p.env, "appid": p.appid, "merchant": p.merchant, "owner": p.owner, "left": p.left}
                        for p in places
                    ],
                )
            count = 0
            stream = iter(planned)
            while batch := [_planned(number, row, number_of, lang) for row in islice(stream, BATCH)]:
                connection.execute(rows.insert(), batch)
                count += len(batch)
            connection.execute(runs.update().where(runs.c.number == number).values(rows=count))
        return self.run(new.id)

    # --- looking up ---------------------------------------------------------------------------------------------

    def run(self, wanted: str, target: str | None = None) -> RunRecord:
        """Find a run by id, unambiguous prefix, or `latest` (of `target`). Raises RunNotFoundError."""
        query = sa.select(runs).order_by(runs.c.created_at.desc(), runs.c.number.desc())
        if wanted == "latest":
            query = query.where(runs.c.target == target) if target is not None else query
        else:
            query = query.where(runs.c.id.startswith(wanted, autoescape=True))
        found = [_run_record(record) for record in self._read(query.limit(20))]
        exact = [record for record in found if record.id == wanted]
        if exact or (wanted == "latest" and found) or len(found) == 1:
            return (exact or found)[0]
        if not found:
            raise RunNotFoundError(
                Text(
                    f"no run '{wanted}' in {self.name}: `tcb-ops runs` lists them.",
                    f"{self.name} 中没有任务“{wanted}”：用 `tcb-ops runs` 查看。",
                )
            )
        several = ", ".join(record.id for record in found)
        raise RunNotFoundError(
            Text(f"'{wanted}' may be any of {several}: write more of it.", f"“{wanted}”对应多个任务：{several}，请写得更完整。")
        )

    def runs(self, target: str | None = None, limit: int | None = None) -> list[RunRecord]:
        """List runs, the newest first."""
        query = sa.select(runs).order_by(runs.c.created_at.desc(), runs.c.number.desc()).limit(limit)
        if target is not None:
            query = query.where(runs.c.target == target)
        return [_run_record(record) for record in self._read(query)]

    def unfinished(self, kind: Kind, target: str, list_sha256: str, root: str) -> RunRecord | None:
        """Find the newest unfinished run of the same kind, target, list bytes and root."""
        query = (
            sa.select(runs)
            .where(
                runs.c.kind == kind,
                runs.c.target == target,
                runs.c.list_sha256 == list_sha256,
                runs.c.root == root,
                runs.c.finished_at.is_(None),
            )
            .order_by(runs.c.created_at.desc())
            .limit(1)
        )
        return next((_run_record(record) for record in self._read(query)), None)

    def places(self, run: RunRecord) -> list[EnvRecord]:
        """List a run's environments, with their rows and those still pending."""
        pending = sa.func.sum(sa.case((rows.c.outcome == Outcome.PENDING, 1), else_=0))
        counted = (
            sa.select(rows.c.place, sa.func.count().label("rows"), pending.label("pending"))
            .where(rows.c.run == run.number)
            .group_by(rows.c.place)
            .subquery()
        )
        query = (
            sa.select(envs, sa.func.coalesce(counted.c.rows, 0), sa.func.coalesce(counted.c.pending, 0))
            .outerjoin(counted, counted.c.place == envs.c.no)
            .where(envs.c.run == run.number)
            .order_by(envs.c.no)
        )
        return [
            EnvRecord(no, env, appid, merchant, owner, bool(left), int(count), int(waiting))
            for _, no, env, appid, merchant, owner, left, count, waiting in self._read(query)
        ]

    def pending(self, run: RunRecord, place: EnvRecord, after_line: int, limit: int) -> list[Row]:
        """Read the next pending rows of one environment, in the order of the list."""
        query = (
            sa.select(rows)
            .where(
                rows.c.run == run.number,
                rows.c.place == place.no,
                rows.c.line > after_line,
                rows.c.outcome == Outcome.PENDING,
            )
            .order_by(rows.c.line)
            .limit(limit)
        )
        return [_row(record, place) for record in self._read(query)]

    def rows(
        self,
        run: RunRecord,
        *,
        outcomes: frozenset[Outcome] | None = None,
        merchant: str = "",
        path: str = "",
        line: int | None = None,
    ) -> Iterator[RowRecord]:
        """Stream a run's rows in the order of the list, flat in memory.

        `merchant` is a name or an appid, `path` a cloud path or a part of one.
        """
        place_of = {place.no: place for place in self.places(run)}
        query = sa.select(rows).where(rows.c.run == run.number).order_by(rows.c.line).limit(BATCH)
        if outcomes is not None:
            query = query.where(rows.c.outcome.in_(outcomes))
        if merchant:
            query = query.where(rows.c.place.in_([p.no for p in place_of.values() if merchant in {p.merchant, p.appid}]))
        if path:
            query = query.where(rows.c.path.contains(path, autoescape=True))
        if line is not None:
            query = query.where(rows.c.line == line)
        last = -1
        while batch := self._read(query.where(rows.c.line > last)):
            last = batch[-1].line
            for record in batch:
                yield RowRecord(_row(record, place_of[record.place]), _row_end(record))

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Rows by outcome, without zeros, pending included: their sum is the rows in."""
        query = sa.select(rows.c.outcome, sa.func.count()).where(rows.c.run == run.number).group_by(rows.c.outcome)
        found = {Outcome(outcome): int(count) for outcome, count in self._read(query)}
        return {outcome: found[outcome] for outcome in Outcome if outcome in found}

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Rows by merchant, environment, outcome and code, most rows first."""
        count = sa.func.count()
        keys = (rows.c.place, rows.c.outcome, rows.c.reason, rows.c.errcode, rows.c.store_code)
        query = sa.select(*keys, count).where(rows.c.run == run.number).group_by(*keys)
        place_of = {place.no: place for place in self.places(run)}
        found = [
            Tally(
                place_of[place].appid,
                place_of[place].merchant,
                place_of[place].env,
                Outcome(outcome),
                Reason(reason) if reason else None,
                errcode,
                store_code,
                int(number),
            )
            for place, outcome, reason, errcode, store_code, number in self._read(query)
        ]
        return sorted(found, key=lambda t: (-t.rows, t.merchant, t.env, t.outcome, t.errcode or 0))

    # --- writing what happened ----------------------------------------------------------------------------------

    def record(self, run: RunRecord, ends: Sequence[RowEnd], spent: Meter) -> None:
        """Commit how rows ended, and what the sitting has spent since the last time."""
        with self._writing() as connection:
            if ends:
                connection.execute(_RECORD, [_ended(run.number, end) for end in ends])
            self._spend(connection, run, spent)

    def close_place(
        self,
        run: RunRecord,
        place: EnvRecord,
        end: RowEnd,
        but_lines: Iterable[int] = (),
    ) -> int:
        """End all pending rows of an environment alike, but those in flight; gives how many. `end.line` is unused."""
        values = {name: value for name, value in _ended(run.number, end).items() if not name.startswith("row_")}
        with self._writing() as connection:
            done = connection.execute(
                rows.update()
                .where(
                    rows.c.run == run.number,
                    rows.c.place == place.no,
                    rows.c.outcome == Outcome.PENDING,
                    rows.c.line.not_in(list(but_lines)),
                )
                .values(**values)
            )
        return int(done.rowcount)

    def reopen(self, run: RunRecord, lines: Iterable[int]) -> None:
        """Set rows back to pending: linked ones whose link is lost or has run out."""
        blank = _ended(run.number, RowEnd(0, Outcome.PENDING))
        stream = iter(lines)
        with self._writing() as connection:
            while batch := [{**blank, "row_line": line} for line in islice(stream, BATCH)]:
                connection.execute(_RECORD, batch)

    def finish(self, run: RunRecord, at: float) -> None:
        """Mark a run as finished: it is never gone on with."""
        with self._writing() as connection:
            connection.execute(runs.update().where(runs.c.number == run.number).values(finished_at=at, stopped=""))

    def stop(self, run: RunRecord, why: str) -> None:
        """Note why a sitting ended before its run did; the run stays unfinished."""
        with self._writing() as connection:
            connection.execute(runs.update().where(runs.c.number == run.number).values(stopped=why))

    def note_report(self, run: RunRecord, report: str) -> None:
        """Note where a run's links.csv or newest report stands."""
        with self._writing() as connection:
            connection.execute(runs.update().where(runs.c.number == run.number).values(report=report))

    # --- the database -------------------------------------------------------------------------------------------

    @staticmethod
    def _spend(connection: sa.Connection, run: RunRecord, spent: Meter) -> None:
        connection.execute(
            runs.update()
            .where(runs.c.number == run.number)
            .values(
                seconds=runs.c.seconds + spent.seconds,
                link_calls=runs.c.link_calls + spent.link_calls,
                upload_calls=runs.c.upload_calls + spent.upload_calls,
            )
        )

    def _read(self, query: sa.Select[Any]) -> Sequence[Any]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except SQLAlchemyError as error:
            raise self._trouble(error) from None

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._trouble(error) from None

    def _trouble(self, error: SQLAlchemyError) -> LedgerError:
        why = str(getattr(error, "orig", None) or type(error).__name__)
        return LedgerError(
            Text(
                f"the ledger {self.name} cannot be used: {why}. What was committed is safe. Free space or mend the "
                "access, then run the same command again: it goes on where it stopped.",
                f"无法使用台账 {self.name}：{why}。已提交的内容是安全的。请释放磁盘空间或修复访问权限，"
                "再次运行同一命令即可从中断处继续。",
            )
        )

    def _open_schema(self) -> None:
        try:
            with self._engine.begin() as connection:
                there = set(sa.inspect(connection).get_table_names())
                if not there:
                    SCHEMA.create_all(connection)
                    connection.execute(version.insert().values(version=version.info["current"]))
                    return
                if "tcb_ops" not in there:
                    raise _not_a_ledger(self.name, "it is another program's database", "它是其他程序的数据库")
                found = connection.execute(sa.select(version.c.version)).scalar_one_or_none()
        except SQLAlchemyError as error:
            origin = getattr(error, "orig", None)
            if isinstance(origin, sqlite3.DatabaseError) and "not a database" in str(origin):
                raise _not_a_ledger(self.name, "it is not an SQLite file", "它不是 SQLite 文件") from None
            why = str(origin or type(error).__name__)
            raise _not_a_ledger(self.name, f"it cannot be opened ({why})", f"无法打开（{why}）") from None
        if found != version.info["current"]:
            raise _not_a_ledger(
                self.name,
                f"its schema is version {found}, this tcb-ops knows {version.info['current']}: install the tcb-ops that made it",
                f"它的结构版本是 {found}，本版 tcb-ops 只认识 {version.info['current']}：请安装生成它的 tcb-ops",
            )


# --- between values and records ---------------------------------------------------------------------------------

_NEW_RUN = tuple(NewRun.__dataclass_fields__)
_RUN = tuple(RunRecord.__dataclass_fields__)

_RECORD = (
    rows.update()
    .where(rows.c.run == sa.bindparam("row_run"), rows.c.line == sa.bindparam("row_line"))
    .values({
        name: sa.bindparam(name)
        for name in (
            "outcome",
            "reason",
            "detail",
            "errcode",
            "errmsg",
            "rid",
            "http_status",
            "store_code",
            "attempts",
            "bytes",
            "md5",
            "file_id",
            "started_at",
            "ended_at",
        )
    })
)


def _ended(number: int, end: RowEnd) -> dict[str, Any]:
    return {
        "row_run": number,
        "row_line": end.line,
        "outcome": end.outcome,
        "reason": end.reason or "",
        "detail": end.detail,
        "errcode": end.errcode,
        "errmsg": end.errmsg,
        "rid": end.rid,
        "http_status": end.http_status,
        "store_code": end.store_code,
        "attempts": end.attempts,
        "bytes": end.bytes,
        "md5": end.md5,
        "file_id": end.file_id,
        "started_at": end.started_at,
        "ended_at": end.ended_at,
    }


def _planned(number: int, row: Row, number_of: dict[tuple[str, str], int], lang: Lang) -> dict[str, Any]:
    return {
        "run": number,
        "line": row.line,
        "place": number_of[row.env, row.appid],
        "path": row.path,
        "file": row.file,
        "size": row.size,
        "mtime_ns": row.mtime_ns,
        "cells": json.dumps(row.cells, ensure_ascii=False, separators=(",", ":")),
        "outcome": Outcome.INVALID if row.invalid else Outcome.PENDING,
        "reason": Reason.INVALID if row.invalid else "",
        "detail": row.invalid.of(lang) if row.invalid else "",
    }


def _row(record: Any, place: EnvRecord) -> Row:
    return Row(
        record.line,
        place.env,
        record.path,
        place.appid,
        place.merchant,
        record.file,
        tuple(json.loads(record.cells)),
        record.size,
        record.mtime_ns,
    )


def _row_end(record: Any) -> RowEnd:
    return RowEnd(
        record.line,
        Outcome(record.outcome),
        Reason(record.reason) if record.reason else None,
        record.detail,
        record.errcode,
        record.errmsg,
        record.rid,
        record.http_status,
        record.store_code,
        record.attempts,
        record.bytes,
        record.md5,
        record.file_id,
        record.started_at,
        record.ended_at,
    )


def _run_record(record: Any) -> RunRecord:
    values = {name: getattr(record, name) for name in _RUN if name not in {"headers", "settings", "kind"}}
    return RunRecord(
        **values,
        kind=Kind(record.kind),
        headers=tuple(json.loads(record.headers)),
        settings=json.loads(record.settings),
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("busy_timeout = 60000", "journal_mode = WAL", "synchronous = FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _refuse_unsuitable(file: Path) -> None:
    folder = file.resolve().parent
    if not folder.is_dir():
        raise _not_a_ledger(str(file), f"the folder {folder} is not there", f"文件夹 {folder} 不存在")
    if file.is_dir():
        raise _not_a_ledger(str(file), "it is a folder", "它是文件夹")
    if _filesystem(folder) in _NETWORK:
        raise _not_a_ledger(
            str(file),
            "SQLite on a network file system is refused: its locks do not hold there",
            "不能把 SQLite 放在网络文件系统上：那里的文件锁不可靠",
        )
    if not file.exists():
        # Made here so that it is the operator's alone from its first byte.
        try:
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as error:
            why = error.strerror or "cannot be created"
            raise _not_a_ledger(str(file), f"it cannot be created ({why})", f"无法创建（{why}）") from None


def _filesystem(folder: Path) -> str:
    """The kind of file system, as Linux names it; empty elsewhere."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    fields = [line.split(" ") for line in mounts]
    holding = [(f[1], f[2]) for f in fields if len(f) > 2 and folder.is_relative_to(f[1].replace("\\040", " "))]
    return max(holding, key=lambda found: len(found[0]), default=("", ""))[1]


def _not_a_ledger(name: str, en: str, zh: str) -> UsageError:
    return UsageError(
        Text(
            f"{name} cannot be the ledger: {en}. Name another file with --ledger.",
            f"{name} 不能作为台账：{zh}。请用 --ledger 指定另一个文件。",
        )
    )
