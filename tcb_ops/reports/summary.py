"""The JSON object that a run is summed up in: `--json`, `show RUN --json`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tcb_ops.model import Outcome
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.records import RunRecord
from tcb_ops.secrets import redact


def summary(ledger: Ledger, run: RunRecord) -> dict[str, Any]:
    """Sum a run up, counted by the ledger in one query: flat in memory, and the counts agree with one another.

    `counts` is by outcome, without zeros. `errcodes` and `store_codes` list, most rows first, the rows that carry a
    code per merchant and environment, those that a code kept from being attempted included. `calls` and `seconds`
    are over all sittings; `report` is a path or None.
    """
    counts: Counter[Outcome] = Counter()
    errcodes: Counter[tuple[str, str, str, int]] = Counter()
    store_codes: Counter[tuple[str, str, str, str]] = Counter()
    for tally in ledger.tallies(run):
        counts[tally.outcome] += tally.rows
        if tally.errcode:
            errcodes[tally.appid, tally.merchant, tally.env, tally.errcode] += tally.rows
        if tally.store_code:
            store_codes[tally.appid, tally.merchant, tally.env, redact(tally.store_code)] += tally.rows
    return {
        "run": run.id,
        "kind": str(run.kind),
        "target": run.target,
        "rows": run.rows,
        "counts": {str(outcome): counts[outcome] for outcome in Outcome if counts[outcome]},
        "errcodes": _most_first(errcodes, "errcode"),
        "store_codes": _most_first(store_codes, "code"),
        "calls": {"link": run.link_calls, "upload": run.upload_calls},
        "seconds": round(run.seconds, 3),
        "report": run.report or None,
    }


def _most_first(counted: Counter[Any], name: str) -> list[dict[str, Any]]:
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"appid": appid, "merchant": merchant, "env": env, name: code, "rows": rows}
        for (appid, merchant, env, code), rows in ordered
    ]
