"""From schema version 1 to 2: the reason why a run stopped becomes a code with parameters.

Also adds the columns, tables and indexes that were added to version 1 while it was in use, where they are missing.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = None


def upgrade() -> None:
    """Upgrade a ledger of version 1."""
    _add_what_is_missing()
    _convert_stop_reasons()
    op.execute("UPDATE tcb_ops SET version = 2")


def _add_what_is_missing() -> None:
    connection = op.get_bind()
    found = sa.inspect(connection)
    tables = found.get_table_names()
    columns = {column["name"] for column in found.get_columns("rows")}
    indexes = {index["name"] for index in found.get_indexes("rows")}
    for name in ("content_type", "cache_control"):
        if name not in columns:
            op.add_column("rows", sa.Column(name, sa.Text))
    if "spent" not in tables:
        op.create_table(
            "spent",
            _run(),
            sa.Column("phase", sa.Text, primary_key=True),
            sa.Column("seconds", sa.Double, nullable=False),
            sqlite_with_rowid=False,
        )
    if "exports" not in tables:
        op.create_table(
            "exports",
            _run(),
            sa.Column("manifest_sha256", sa.Text, primary_key=True),
            sqlite_with_rowid=False,
        )
    if connection.dialect.name == "postgresql" and "holders" not in tables:
        op.create_table(
            "holders",
            sa.Column("pid", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("who", sa.Text, nullable=False, server_default=""),
        )
    for name, on, where in (
        ("rows_by_place", ["run", "place", "line"], None),
        ("rows_by_path", ["path"], "outcome IN ('uploaded', 'unchanged', 'failed')"),
        ("rows_by_errcode", ["run", "place", "errcode", "ended_at"], "errcode <> 0"),
    ):
        if name not in indexes:
            only = sa.text(where) if where else None
            op.create_index(name, "rows", on, sqlite_where=only, postgresql_where=only)


def _run() -> sa.Column[int]:
    return sa.Column("run", sa.Integer, sa.ForeignKey("runs.number"), primary_key=True)


def _convert_stop_reasons() -> None:
    """Convert the two sentences of version 1, or the one of its first ledgers, to parameters of the code `other`."""
    runs = sa.table("runs", sa.column("number", sa.Integer), sa.column("stopped", sa.Text))
    connection = op.get_bind()
    for number, stopped in connection.execute(sa.select(runs).where(runs.c.stopped != "")).all():
        params = {"en": stopped, "zh": stopped}
        try:
            read = json.loads(stopped)
            params = {"en": str(read["en"]), "zh": str(read["zh"])}
        except (KeyError, RecursionError, TypeError, ValueError):
            pass
        value = json.dumps({"code": "other", "params": params})
        connection.execute(runs.update().where(runs.c.number == number).values(stopped=value))
