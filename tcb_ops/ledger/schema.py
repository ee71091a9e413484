"""The ledger's tables, in SQL that SQLite and PostgreSQL share; the few words that differ have placeholders."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from tcb_ops.model import Outcome

VERSION = 19
"""The schema's version."""
UPGRADES: dict[int, tuple[str, ...]] = {}
"""By the version of an older ledger: the statements that make it one of the next version. 19 is that of tcb-ops 0.1.0."""
VERSION_TABLE = "tcb_ops"
RUN_TABLES = ("rows", "sums", "envs", "exports", "partitions", "cluster_sessions")
"""Tables whose records belong to runs: `run` has the run's number."""
TABLES = frozenset({VERSION_TABLE, "runs", "pruned_runs", "stores", "files", "asked", *RUN_TABLES})

_SCHEMA = """
-- One row: the ledger's version, which is read at each start.
CREATE TABLE tcb_ops (version INTEGER NOT NULL PRIMARY KEY);

-- A number that a removed run had is not given again: numbers are the order of creation.
-- `changes_store`: whether its rows may change what is stored, or only look; known also where the kind's feature is missing.
-- `newest_run`: the newest run when it last recorded something, or was resumed: a call for a pending row may be later than that run's.
-- `cut_off`: when a session ended with calls under way; after a kill, when the next one began. Of a row that ends later, nobody
-- knows whether it was sent before.
CREATE TABLE runs (
    number {serial},
    id TEXT NOT NULL UNIQUE,
    kind {text},
    changes_store BOOLEAN NOT NULL,
    target {text},
    list_name {text},
    list_sha256 {text},
    list_bytes BIGINT NOT NULL,
    headers {text},
    root {text},
    settings {text},
    parent {text},
    note {text},
    operator {text},
    host {text},
    out {text},
    created_at DOUBLE PRECISION NOT NULL,
    finished_at DOUBLE PRECISION,
    stopped {text},
    cut_off DOUBLE PRECISION,
    newest_run INTEGER DEFAULT 0 NOT NULL,
    report {text},
    undelivered {text},
    rows INTEGER NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    link_calls INTEGER NOT NULL,
    upload_calls INTEGER NOT NULL
);

-- The ids of runs that were pruned, and left files.
CREATE TABLE pruned_runs (number INTEGER NOT NULL PRIMARY KEY, id TEXT NOT NULL);

-- The storage of an environment of a target.
CREATE TABLE stores (
    number {serial},
    target TEXT NOT NULL,
    env TEXT NOT NULL,
    UNIQUE (target, env)
);

-- What is where, as far as the ledger knows: a path for each file that its runs stored, changed, or looked for.
-- It is written in the transaction that records a row's end, and is the only answer to whose file it is (`ledger/files.py`).
-- `run`, `line`: the row that left what is there; `uploaded`: it sent the file, which is then its run's.
-- `changed`: the run that last changed it, such as an undo, which gave the file back to `run`.
-- `md5` is empty where nothing is there. `file_id` is that of the row; here it stands where the row was pruned. `doubt`: a run that may have changed it since, but got no answer.
-- `looked`, `found`: the last run that ended there without a change, and with which outcome.
CREATE TABLE files (
    store INTEGER NOT NULL REFERENCES stores (number),
    path TEXT NOT NULL,
    run INTEGER,
    line INTEGER,
    uploaded BOOLEAN NOT NULL,
    changed INTEGER,
    changed_at DOUBLE PRECISION,
    md5 {text},
    bytes BIGINT,
    file_id TEXT,
    content_type TEXT,
    cache_control TEXT,
    source TEXT,
    etag TEXT,
    doubt INTEGER,
    looked INTEGER,
    found {text},
    PRIMARY KEY (store, path)
);

-- The environments of a run; rows refer to them by number (`place`), which keeps a million rows small.
CREATE TABLE envs (
    run INTEGER NOT NULL REFERENCES runs (number),
    no INTEGER NOT NULL,
    env {text},
    appid {text},
    merchant {text},
    owner {text},
    "left" BOOLEAN NOT NULL,
    store INTEGER REFERENCES stores (number),
    PRIMARY KEY (run, no)
) {keyed};
CREATE INDEX envs_by_store ON envs (store);

-- In SQLite by rowid: in a table ordered by its key, each page of the tree holds whole rows, and so few that the tree is deep.
-- `room`: spaces while a row is pending, as many as its end will take, so that its page is not split when the end is written.
-- `replaced_run`, `replaced_line`: the row that had left the file which this one has replaced.
CREATE TABLE rows (
    run INTEGER NOT NULL REFERENCES runs (number),
    line INTEGER NOT NULL,
    place INTEGER NOT NULL,
    path {text},
    file {text},
    size BIGINT,
    mtime_ns BIGINT,
    cells {text},
    outcome {text},
    reason {text},
    detail {text},
    errcode INTEGER,
    errmsg {text},
    rid {text},
    http_status INTEGER,
    store_code {text},
    attempts INTEGER DEFAULT 0 NOT NULL,
    bytes BIGINT,
    md5 {text},
    file_id {text},
    started_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    content_type TEXT,
    cache_control TEXT,
    etag TEXT,
    room TEXT,
    replaced_run INTEGER,
    replaced_line INTEGER,
    PRIMARY KEY (run, line)
);
CREATE INDEX rows_by_place ON rows (run, place, line);

-- A finished run's rows by environment, outcome and code: its errcode table is there without reading the rows.
CREATE TABLE sums (
    run INTEGER NOT NULL REFERENCES runs (number),
    place INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    errcode INTEGER,
    store_code TEXT NOT NULL,
    rows INTEGER NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX sums_by_run ON sums (run);

-- What merchants were asked for: the last time for each cause. `how`: `message` by WeChat, `letter` by the operator.
-- `at`: ISO 8601 with offset. `done`: whether they have done it. `run`: the id of the run whose rows wait for it.
CREATE TABLE asked (
    target TEXT NOT NULL,
    appid TEXT NOT NULL,
    cause TEXT NOT NULL,
    merchant {text},
    run {text},
    operator {text},
    how {text},
    at {text},
    done BOOLEAN NOT NULL,
    PRIMARY KEY (target, appid, cause)
) {keyed};

-- SHA-256 of the manifest.json of every report of a run, by which `verify` recognises genuine reports.
CREATE TABLE exports (
    run INTEGER NOT NULL REFERENCES runs (number),
    manifest_sha256 TEXT NOT NULL,
    PRIMARY KEY (run, manifest_sha256)
) {keyed};

-- Sessions of a run on a cluster. The starting process raises `beat` every second; without it, workers stop.
CREATE TABLE cluster_sessions (
    run INTEGER NOT NULL REFERENCES runs (number),
    session INTEGER NOT NULL,
    beat INTEGER NOT NULL,
    stopping BOOLEAN NOT NULL,
    ended BOOLEAN NOT NULL,
    PRIMARY KEY (run, session)
) {keyed};

-- Groups of whole merchants that one worker of a cluster works on at a time. `envs`: the numbers of their environments.
-- `fence`: raised by each claim, and a commit with an earlier one is refused. `workers`: who has claimed it, in order.
-- Both lists are JSON.
CREATE TABLE partitions (
    run INTEGER NOT NULL REFERENCES runs (number),
    session INTEGER NOT NULL,
    number INTEGER NOT NULL,
    envs {text},
    fence INTEGER NOT NULL,
    workers {text},
    PRIMARY KEY (run, session, number)
) {keyed};

-- For tools that read the database. Its columns are documented (docs, reference/files) and do not change with the tables.
CREATE VIEW v_rows AS
SELECT runs.id AS run, runs.kind, runs.target, runs.list_name, runs.parent, {time}runs.created_at{utc} AS run_started_at,
    rows.line, envs.merchant, envs.appid, envs.env, rows.path, rows.outcome,
    CASE WHEN rows.outcome IN ({without_code}) THEN NULL
        WHEN rows.errcode <> 0 THEN CAST(rows.errcode AS TEXT)
        WHEN rows.store_code <> '' THEN rows.store_code
        WHEN rows.reason <> '' THEN rows.reason
        ELSE rows.outcome END AS code,
    rows.errmsg, rows.rid, rows.http_status, rows.attempts, rows.bytes, rows.md5,
    {time}rows.started_at{utc} AS started_at, {time}rows.ended_at{utc} AS ended_at,
    rows.ended_at - rows.started_at AS seconds,
    -- The list's own columns, as a JSON object; of two with one name, the first is read.
    {list_columns} AS list_columns
FROM rows
JOIN runs ON runs.number = rows.run
JOIN envs ON envs.run = rows.run AND envs.no = rows.place
"""
_SQLITE = {
    "serial": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT",
    "keyed": "WITHOUT ROWID",
    "time": "datetime(",
    "utc": ", 'unixepoch')",  # text
    "list_columns": "(SELECT json_group_object(value, json_extract(rows.cells, fullkey)) FROM json_each(runs.headers))",
}
_POSTGRESQL = {
    "serial": "SERIAL PRIMARY KEY",
    "keyed": "",
    "time": "to_timestamp(",
    "utc": ")",
    "list_columns": "(SELECT jsonb_object_agg(header, CAST(rows.cells AS json) ->> CAST(n - 1 AS INTEGER) ORDER BY n DESC) "
    "FROM json_array_elements_text(CAST(runs.headers AS json)) WITH ORDINALITY AS headers (header, n))",
}

# Holders of advisory locks, by the pid of their connection's backend. Rows left by killed processes are harmless: only the
# pid of a lock that is held is looked up.
_HOLDERS = "CREATE TABLE holders (pid INTEGER NOT NULL PRIMARY KEY, who {text})"


def statements(*, sqlite: bool) -> list[str]:
    """Return the statements that create the tables, indexes and the view, in SQLite or in PostgreSQL."""
    schema = _SCHEMA if sqlite else f"{_HOLDERS};\n{_SCHEMA}"
    filled = schema.format(
        text="TEXT DEFAULT '' NOT NULL",
        without_code=sql_list(sorted(Outcome.successes() | {Outcome.PENDING})),
        **(_SQLITE if sqlite else _POSTGRESQL),
    )
    return filled.split(";\n")


def upgrade(found: list[int]) -> list[str] | None:
    """Return the statements that upgrade a ledger, by the versions that it says it has; None where it is to be refused.

    ==================================  ===============================
    found                               result
    ==================================  ===============================
    this version                        no statements
    an older one, with all its steps    those of each step, in order
    one of before the first step        None
    a newer one, several, or none       None
    ==================================  ===============================
    """
    steps = range(found[0], VERSION) if len(found) == 1 and found[0] <= VERSION else None
    if steps is None or any(version not in UPGRADES for version in steps):
        return None
    return [statement for version in steps for statement in UPGRADES[version]]


def sql_list(values: Iterable[int | str]) -> str:
    """Return numbers and own names as a list of SQL."""
    return ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in values) or "NULL"


def like(text: str) -> str:
    """Return a text as a part of a pattern of LIKE, escaped by `/`."""
    return re.sub("[/%_]", r"/\g<0>", text)


def any_of(column: str, values: Collection[Any]) -> str:
    """Return the condition that a column is one of some values, which are passed with the statement."""
    return f"{column} IN ({', '.join('?' * len(values)) or 'NULL'})"
