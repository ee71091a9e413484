"""The ledger's tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

SCHEMA = sa.MetaData()

VERSION = 13
"""The schema's version: a ledger of any other one is refused."""

version = sa.Table("tcb_ops", SCHEMA, sa.Column("version", sa.Integer, primary_key=True))
"""One row: the ledger's version. Read at each start."""


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, default="", server_default="")


runs = sa.Table(
    "runs",
    SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    _text("kind"),
    _text("target"),
    _text("list_name"),
    _text("list_sha256"),
    sa.Column("list_bytes", sa.BigInteger, nullable=False, default=0),
    _text("headers"),
    _text("root"),
    _text("settings"),
    _text("parent"),
    _text("note"),
    _text("operator"),
    _text("host"),
    _text("out"),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("finished_at", sa.Double),
    _text("stopped"),
    _text("report"),
    _text("undelivered"),
    sa.Column("rows", sa.Integer, nullable=False, default=0),
    sa.Column("seconds", sa.Double, nullable=False, default=0.0),
    sa.Column("link_calls", sa.Integer, nullable=False, default=0),
    sa.Column("upload_calls", sa.Integer, nullable=False, default=0),
    # A number that a removed run had is not given again: numbers are the order of creation.
    sqlite_autoincrement=True,
)


def _of_run(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """Return a table whose records belong to runs; the number of the run is the first part of its primary key."""
    run = sa.Column("run", sa.Integer, sa.ForeignKey("runs.number"), primary_key=True)
    return sa.Table(name, SCHEMA, run, *columns, sqlite_with_rowid=False)


envs = _of_run(
    "envs",
    sa.Column("no", sa.Integer, primary_key=True),
    _text("env"),
    _text("appid"),
    _text("merchant"),
    _text("owner"),
    sa.Column("left", sa.Boolean, nullable=False, default=False),
)
"""The environments of a run; rows refer to them by number, which keeps a million rows small."""

rows = _of_run(
    "rows",
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("place", sa.Integer, nullable=False),
    _text("path"),
    _text("file"),
    sa.Column("size", sa.BigInteger),
    sa.Column("mtime_ns", sa.BigInteger),
    _text("cells"),
    _text("outcome"),
    _text("reason"),
    _text("detail"),
    sa.Column("errcode", sa.Integer),
    _text("errmsg"),
    _text("rid"),
    sa.Column("http_status", sa.Integer),
    _text("store_code"),
    sa.Column("attempts", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("bytes", sa.BigInteger),
    _text("md5"),
    _text("file_id"),
    sa.Column("started_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("content_type", sa.Text),
    sa.Column("cache_control", sa.Text),
    sa.Column("etag", sa.Text),
)

exports = _of_run("exports", sa.Column("manifest_sha256", sa.Text, primary_key=True))
"""SHA-256 of the manifest.json of every report of a run, by which `verify` recognises genuine reports."""

cluster_sessions = _of_run(
    "cluster_sessions",
    sa.Column("session", sa.Integer, primary_key=True),
    sa.Column("beat", sa.Integer, nullable=False, default=0),
    sa.Column("stopping", sa.Boolean, nullable=False, default=False),
    sa.Column("ended", sa.Boolean, nullable=False, default=False),
)
"""Sessions of a run on a cluster. The starting process raises `beat` every second; without it, workers stop."""

partitions = _of_run(
    "partitions",
    sa.Column("session", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    _text("envs"),
    sa.Column("fence", sa.Integer, nullable=False, default=0),
    _text("workers"),
)
"""Groups of whole merchants that one worker of a cluster works on at a time.

`envs`: the numbers of their environments. `fence`: raised by each claim; a commit with an earlier one is refused.
`workers`: who has claimed it, in order. Both lists are JSON.
"""

pruned_files = sa.Table(
    "pruned_files",
    SCHEMA,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("env", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    _text("run"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("ended_at", sa.Double, nullable=False),
    _text("outcome"),
    _text("md5"),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    _text("file_id"),
    _text("content_type"),
    _text("cache_control"),
    _text("file"),
    _text("etag"),
    sqlite_with_rowid=False,
)
"""What is kept of pruned runs: the last entry for a path, of the outcome `unknown` where it is not certain what is there.

Without it, `undo` and `delete` would take the path for one that nobody had written to before.
"""

holders = sa.Table(
    "holders",
    sa.MetaData(),  # SQLite has none
    sa.Column("pid", sa.Integer, primary_key=True, autoincrement=False),
    _text("who"),
)
"""Holders of advisory locks, by the pid of their connection's backend; PostgreSQL only.

Rows left by killed processes are harmless: only the pid of a lock that is held is looked up.
"""

STORED = sa.text(
    "outcome NOT IN ('pending', 'linked', 'refused', 'not_attempted', 'invalid', 'unknown', 'present', 'stale', 'undone', 'left', "
    "'conflict', 'not_undoable', 'healthy', 'unhealthy')"
)
"""Selects rows that show, or put in doubt, what is stored at a path, also those with an outcome that is not known.

The index and its query must use the same text.
"""

rows_by_path = sa.Index("rows_by_path", rows.c.run, rows.c.place, rows.c.path, sqlite_where=STORED)
sa.Index("envs_by_env", envs.c.env)
sa.Index("rows_by_place", rows.c.run, rows.c.place, rows.c.line)


def sql_list(values: Iterable[int | str]) -> str:
    """Return numbers and own names as a list of SQL."""
    return ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in values) or "NULL"
