"""Upgrade a ledger of an older schema version in place, with Alembic, in one transaction; create its SQL views.

An SQLite file is first copied beside itself. A kill at any point leaves the ledger unchanged, and the next start
upgrades it.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from itertools import chain, count
from pathlib import Path

import sqlalchemy as sa

from tcb_ops.errors import LedgerError, UsageError
from tcb_ops.i18n import _
from tcb_ops.model import SUCCESSES, Outcome
from tcb_ops.resources import raise_if_exhausted, replacing, system_reason
from tcb_ops.runs.locks import SqliteFile, held_advisory_lock, held_runs, lock_key, planning
from tcb_ops.runs.schema import VERSION, runs, version

_LOG = logging.getLogger("tcb_ops.runs")


def upgrade(engine: sa.Engine, name: str, file: Path | None) -> None:
    """Upgrade a ledger to this schema, unless another process has done so meanwhile, and log it.

    Raises UsageError if a process works on one of its runs, LedgerError if no copy can be made.
    """
    copy = None
    if file is None:
        if not _upgrade_database(engine, name):
            return
    elif (copy := _upgrade_file(engine, name, file.resolve())) is None:
        return
    kept = _("a copy of the old one is {copy}", copy=copy) if copy else _("no copy of the old one was made")
    done = _(
        "The ledger {name} was upgraded to schema version {version}; {kept}.",
        name=name,
        version=VERSION,
        kept=kept,
    )
    _LOG.warning("%s %s", done.en, done.zh)


def _upgrade_file(engine: sa.Engine, name: str, file: Path) -> Path | None:
    """Upgrade an SQLite file; return the path of its copy, None if another process was first."""
    ledger = SqliteFile(name, file)
    with planning(ledger):
        with engine.connect() as connection:
            if (found := _version(connection)) == VERSION:
                return None
        for run_id, who in held_runs(ledger):
            raise _in_use(name, run_id, who)
        copy = None
        try:
            with engine.begin() as connection:
                # Prevents writes between the copy and the upgrade.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                copy = _copy(file, name, found)
                _migrate(connection)
        except Exception:  # the ledger is unchanged
            if copy is not None:
                copy.unlink(missing_ok=True)
            raise
    return copy


def _upgrade_database(engine: sa.Engine, name: str) -> bool:
    """Upgrade a PostgreSQL ledger; return False if another process was first."""
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock_key(connection, "schema"))))
        if _version(connection) == VERSION:
            return False
        alone = sa.select(sa.func.pg_try_advisory_xact_lock(lock_key(connection, "planning")))
        names = [*connection.execute(sa.select(runs.c.id)).scalars()]
        if not connection.execute(alone).scalar():
            names = ["planning", *names]
        if (held := held_advisory_lock(connection, names)) is not None:
            raise _in_use(name, *held)
        _migrate(connection)
    return True


def _version(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(version.c.version)).scalar_one())


def _migrate(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    for name in VIEWS:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
    command.upgrade(config, "head")
    create_views(connection)


def _copy(file: Path, name: str, found: int) -> Path:
    """Copy an SQLite file with mode 0600, as a consistent snapshot; earlier copies are kept."""
    endings = chain([""], (f"-{number}" for number in count(2)))
    names = (file.with_name(f"{file.name}.v{found}-backup{ending}") for ending in endings)
    whole = next(name for name in names if not name.exists())
    try:
        with (
            replacing(whole, private=True) as part,
            closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(part)) as target,
        ):
            source.backup(target)
    except OSError as error:
        raise_if_exhausted(error)
        why = system_reason(error)
        raise LedgerError(
            _(
                "the ledger {name} was not upgraded, because it could not be copied to {whole}: {why}. Free space "
                "or fix the access, then run the same command again.",
                name=name,
                whole=whole,
                why=why,
            )
        ) from None
    return whole


def _in_use(name: str, run_id: str, who: str) -> UsageError:
    what = _("plans a run in it") if run_id == "planning" else _("works on run {run_id}", run_id=run_id)
    return UsageError(
        _(
            "the ledger {name} must be upgraded to schema version {version} first, but {who} {what}. Wait "
            "for it, or stop it there; then run the same command again.",
            name=name,
            version=VERSION,
            who=who,
            what=what,
        )
    )


# --- views -------------------------------------------------------------------------------------------------------

VIEWS = ("v_errcodes", "v_rows", "v_runs")
"""The views for tools that read the database, in the order in which they can be dropped.

Their columns are documented (docs, reference/files) and do not change with the tables.
"""
_RUNS = """
CREATE VIEW v_runs AS
SELECT id AS run, kind, target, list_name, parent, note, operator, host,
    {created_at} AS started_at, {finished_at} AS finished_at, rows, seconds, link_calls, upload_calls
FROM runs
"""
_ROWS = """
CREATE VIEW v_rows AS
SELECT runs.id AS run, rows.line, envs.merchant, envs.appid, envs.env, rows.path, rows.outcome,
    CASE WHEN rows.outcome IN ({without_code}) THEN NULL
        WHEN rows.errcode <> 0 THEN CAST(rows.errcode AS TEXT)
        WHEN rows.store_code <> '' THEN rows.store_code
        WHEN rows.reason <> '' THEN rows.reason
        ELSE rows.outcome END AS code,
    rows.errmsg, rows.rid, rows.http_status, rows.attempts, rows.bytes, rows.md5,
    {rows_started_at} AS started_at, {rows_ended_at} AS ended_at,
    rows.ended_at - rows.started_at AS seconds
FROM rows
JOIN runs ON runs.number = rows.run
JOIN envs ON envs.run = rows.run AND envs.no = rows.place
"""
_ERRCODES = """
CREATE VIEW v_errcodes AS
SELECT v_runs.run, v_runs.started_at, v_runs.kind, v_runs.target,
    v_rows.merchant, v_rows.appid, v_rows.env, v_rows.code, COUNT(*) AS rows
FROM v_rows
JOIN v_runs ON v_runs.run = v_rows.run
WHERE v_rows.code IS NOT NULL
GROUP BY v_runs.run, v_runs.started_at, v_runs.kind, v_runs.target,
    v_rows.merchant, v_rows.appid, v_rows.env, v_rows.code
"""
_TIMES = {
    "created_at": "created_at",
    "finished_at": "finished_at",
    "rows_started_at": "rows.started_at",
    "rows_ended_at": "rows.ended_at",
}


def create_views(connection: sa.Connection) -> None:
    """Create the views. Times are UTC: text in SQLite, timestamptz in PostgreSQL."""
    sqlite = connection.dialect.name == "sqlite"
    form = "datetime({column}, 'unixepoch')" if sqlite else "to_timestamp({column})"
    times = {name: form.format(column=column) for name, column in _TIMES.items()}
    without_code = ", ".join(f"'{outcome}'" for outcome in sorted(SUCCESSES | {Outcome.PENDING}))
    for view in (_RUNS, _ROWS, _ERRCODES):
        connection.exec_driver_sql(view.format(**times, without_code=without_code))
