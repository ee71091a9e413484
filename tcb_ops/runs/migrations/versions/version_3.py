"""From schema version 2 to 3: the reason why a row or a run ended becomes a code with parameters.

Earlier sentences have no code and are kept unchanged. The store's messages become a parameter.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Upgrade a ledger of version 2."""
    _convert_details()
    _convert_stop_reasons()
    op.execute("UPDATE tcb_ops SET version = 3")


def _convert_details() -> None:
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

    has_detail = rows.c.detail != ""
    of_the_store = rows.c.reason == "store_refused"
    what = sa.case((of_the_store, value("store_message", "message")), else_=value("text", "en", "zh"))
    op.execute(rows.update().where(has_detail).values(detail=what))


def _convert_stop_reasons() -> None:
    runs = sa.table("runs", sa.column("number", sa.Integer), sa.column("stopped", sa.Text))
    connection = op.get_bind()
    for number, stopped in connection.execute(sa.select(runs).where(runs.c.stopped != "")).all():
        connection.execute(
            runs.update().where(runs.c.number == number).values(stopped=_stop_reason(str(stopped)))
        )


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


def _sentences(params: dict[str, Any]) -> dict[str, str]:
    return {"en": str(params["en"]), "zh": str(params["zh"])}
