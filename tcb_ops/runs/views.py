"""The SQL views of a ledger, for tools that read the database: v_runs, v_rows, v_errcodes.

Their columns are documented (docs, reference/files) and do not change with the tables.
"""

from __future__ import annotations

import sqlalchemy as sa

from tcb_ops.model import SUCCESSES, Outcome

NAMES = ("v_errcodes", "v_rows", "v_runs")
"""The views in the order in which they can be dropped."""
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


def drop_views(connection: sa.Connection) -> None:
    """Drop the views, before tables change."""
    for name in NAMES:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
