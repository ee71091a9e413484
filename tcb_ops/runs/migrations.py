"""The steps from one version of the ledger's schema to the next, with Alembic.

A step says itself what it needs: it imports nothing of ours, since the tables and the codes of today may be others.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext


def migrate(connection: sa.Connection, found: int) -> None:
    """Take the steps from version `found` to the newest, in the connection's transaction."""
    op = Operations(MigrationContext.configure(connection))
    for step in STEPS[found - 1 :]:
        step(op)


def _run() -> sa.Column[int]:
    return sa.Column("run", sa.Integer, sa.ForeignKey("runs.number"), primary_key=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


def _stopped_runs(op: Operations) -> list[tuple[int, str]]:
    """Return the runs that stopped, by number, each with its reason."""
    found = op.get_bind().execute(sa.text("SELECT number, stopped FROM runs WHERE stopped <> ''"))
    return [(number, str(stopped)) for number, stopped in found]


def _set_stopped(op: Operations, number: int, reason: str) -> None:
    update = sa.text("UPDATE runs SET stopped = :reason WHERE number = :number")
    op.get_bind().execute(update, {"reason": reason, "number": number})


# --- to version 2 ---


def _codes_of_stopped_runs(op: Operations) -> None:
    """Turn the reason why a run stopped into a code with parameters.

    Also add the columns, tables and indexes that were added to version 1 while it was in use, where they are missing.
    """
    found = sa.inspect(op.get_bind())
    tables = found.get_table_names()
    columns = {column["name"] for column in found.get_columns("rows")}
    indexes = {index["name"] for index in found.get_indexes("rows")}
    for name in ("content_type", "cache_control"):
        if name not in columns:
            op.add_column("rows", sa.Column(name, sa.Text))
    if "spent" not in tables:
        phase = sa.Column("phase", sa.Text, primary_key=True)
        seconds = sa.Column("seconds", sa.Double, nullable=False)
        op.create_table("spent", _run(), phase, seconds, sqlite_with_rowid=False)
    if "exports" not in tables:
        digest = sa.Column("manifest_sha256", sa.Text, primary_key=True)
        op.create_table("exports", _run(), digest, sqlite_with_rowid=False)
    if op.get_bind().dialect.name == "postgresql" and "holders" not in tables:
        pid = sa.Column("pid", sa.Integer, primary_key=True, autoincrement=False)
        op.create_table("holders", pid, _text("who"))
    for name, on, where in (
        ("rows_by_place", ["run", "place", "line"], None),
        ("rows_by_path", ["path"], "outcome IN ('uploaded', 'unchanged', 'failed')"),
        ("rows_by_errcode", ["run", "place", "errcode", "ended_at"], "errcode <> 0"),
    ):
        if name not in indexes:
            only = sa.text(where) if where else None
            op.create_index(name, "rows", on, sqlite_where=only, postgresql_where=only)
    for number, stopped in _stopped_runs(op):
        # Two sentences in version 1, one in its first ledgers.
        params = {"en": stopped, "zh": stopped}
        with suppress(KeyError, RecursionError, TypeError, ValueError):
            params = _sentences(json.loads(stopped))
        _set_stopped(op, number, json.dumps({"code": "other", "params": params}))


def _sentences(params: dict[str, Any]) -> dict[str, str]:
    return {"en": str(params["en"]), "zh": str(params["zh"])}


# --- to version 3 ---


def _codes_of_rows(op: Operations) -> None:
    """Turn the reason why a row ended into a code with parameters, too.

    Earlier sentences have no code and are kept unchanged. The store's messages become a parameter.
    """
    rows = sa.table("rows", sa.column("reason", sa.Text), sa.column("detail", sa.Text))
    sqlite = op.get_bind().dialect.name == "sqlite"
    made = sa.func.json_object if sqlite else sa.func.jsonb_build_object

    def value(code: str, *params: str) -> Any:
        each = [part for name in params for part in (sa.literal_column(f"'{name}'"), rows.c.detail)]
        whole = made(
            sa.literal_column("'code'"),
            sa.literal_column(f"'{code}'"),
            sa.literal_column("'params'"),
            made(*each),
        )
        return whole if sqlite else sa.cast(whole, sa.Text)

    of_the_store = rows.c.reason == "store_refused"
    what = sa.case((of_the_store, value("store_message", "message")), else_=value("text", "en", "zh"))
    op.execute(rows.update().where(rows.c.detail != "").values(detail=what))
    for number, stopped in _stopped_runs(op):
        _set_stopped(op, number, _stop_reason(stopped))


def _stop_reason(stopped: str) -> str:
    """Convert a reason; one that version 2 did not write is kept unchanged, in both languages."""
    try:
        found = json.loads(stopped)
        value = json.dumps(_converted(found["code"], found["params"]), ensure_ascii=False)
        value.encode()  # no surrogates
    except (KeyError, RecursionError, TypeError, ValueError):
        return json.dumps({"code": "text", "params": {"en": stopped, "zh": stopped}}, ensure_ascii=False)
    return value


def _converted(code: str, params: dict[str, Any]) -> dict[str, Any]:
    """Convert a reason of version 2 to version 3. Raises KeyError, TypeError or ValueError for any other."""
    match code:
        case "other":
            code, params = "text", _sentences(params)
        case "interrupted" | "lock_lost":
            params = {}
        case "canary":
            params = {"rows": int(params["rows"])}
        case "platform":
            params = {"errcode": int(params["errcode"]), "errmsg": str(params["errmsg"] or "-")}
        case "outage":
            params = {"seconds": float(params["seconds"]), "last": f"{params['last']}."}
        case "token_source":
            last = {"code": "text", "params": _sentences(params)}
            params = {"seconds": float(params["seconds"]), "last": last}
        case _:
            raise ValueError(code)
    return {"code": code, "params": params}


# --- to versions 4, 5, 6 and 7 ---


def _sums_of_runs(op: Operations) -> None:
    """Store the sums of a finished run's rows. Those of earlier runs are computed on demand."""
    op.create_table(
        "tallies",
        _run(),
        sa.Column("no", sa.Integer, primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
        _text("outcome"),
        _text("reason"),
        sa.Column("errcode", sa.Integer),
        _text("store_code"),
        sa.Column("rows", sa.Integer, nullable=False),
        _text("message"),
        sqlite_with_rowid=False,
    )


def _index_of_stored_files(op: Operations) -> None:
    """Have the index by path find deleted, restored and confirmed files, too."""
    stored = sa.text(
        "outcome IN ('uploaded', 'unchanged', 'failed', 'restored', 'deleted', 'already_gone', 'absent', 'different', 'foreign')"
    )
    op.drop_index("rows_by_path", "rows")
    op.create_index(
        "rows_by_path", "rows", ["run", "place", "path"], sqlite_where=stored, postgresql_where=stored
    )
    op.create_index("envs_by_env", "envs", ["env"], if_not_exists=True)


def _tables_of_clusters(op: Operations) -> None:
    """Add the tables of runs on a cluster."""
    op.create_table(
        "cluster_sessions",
        _run(),
        sa.Column("session", sa.Integer, primary_key=True),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.Column("stopping", sa.Boolean, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "partitions",
        _run(),
        sa.Column("session", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        _text("envs"),
        sa.Column("fence", sa.Integer, nullable=False),
        *map(_text, ("workers", "state", "done")),
        sqlite_with_rowid=False,
    )


def _etag_of_rows(op: Operations) -> None:
    """Add the ETag of a file that is sent from a URL."""
    op.add_column("rows", sa.Column("etag", sa.Text))


STEPS = (
    _codes_of_stopped_runs,
    _codes_of_rows,
    _sums_of_runs,
    _index_of_stored_files,
    _tables_of_clusters,
    _etag_of_rows,
)
"""In order; the first one is from version 1 to 2."""
