"""What the ledger knows of earlier audits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import sqlalchemy as sa

from tcb_ops.errors import LedgerDamagedError
from tcb_ops.features.audit import HEALTHY, UNHEALTHY
from tcb_ops.model import Outcome
from tcb_ops.reports.comparisons import Place, State
from tcb_ops.runs.histories import OF_ENV
from tcb_ops.runs.reader import LedgerReader, earlier_runs
from tcb_ops.runs.records import RunRecord, read_run
from tcb_ops.runs.schema import envs, rows

AUDITS_BACK = 30
"""Audits that are searched for the last known state of what is unknown."""


def last_known(ledger: LedgerReader, audit: RunRecord) -> Iterator[tuple[RunRecord, Place, State]]:
    """Yield the last known state of what is unknown to an audit: the newest in which it was healthy or unhealthy.

    With the audit before it that has this state. At most AUDITS_BACK audits of the same selection are searched; damaged
    records are passed over.
    """
    if Outcome.UNKNOWN not in ledger.counts(audit):
        return
    earlier: dict[int, RunRecord] = {}
    with ledger.reading():
        records = ledger.query(earlier_runs(audit))
    for record in records:
        with suppress(LedgerDamagedError), ledger.reading(record):
            run = read_run(record)
            if run.selection == audit.selection:
                earlier[run.number] = run
        if len(earlier) == AUDITS_BACK:
            break
    with ledger.reading(audit):
        for number, env, appid, *state in ledger.query(_last_known(audit, list(earlier))):
            outcome, reason, errcode, store_code = state
            yield earlier[number], (env, appid), (outcome, reason, errcode, store_code)


def _last_known(audit: RunRecord, earlier: list[int]) -> sa.Select[tuple[object, ...]]:
    """Select (run, env, appid, outcome, reason, errcode, store_code) of what is unknown to an audit.

    Of the newest of the runs `earlier`, by their numbers, in which the environment was healthy or unhealthy.
    """
    unknown = (
        sa.select(envs.c.env, envs.c.appid)
        .join(rows, OF_ENV)
        .where(rows.c.run == audit.number, rows.c.outcome == Outcome.UNKNOWN)
        .subquery()
    )
    newest_first = sa.func.row_number().over(
        partition_by=(envs.c.env, envs.c.appid), order_by=rows.c.run.desc()
    )
    state = (rows.c.outcome, rows.c.reason, rows.c.errcode, rows.c.store_code)
    states = (
        sa.select(rows.c.run, envs.c.env, envs.c.appid, *state, newest_first.label("nth"))
        .join(envs, OF_ENV)
        .join(unknown, (unknown.c.env == envs.c.env) & (unknown.c.appid == envs.c.appid))
        .where(rows.c.run.in_(earlier), rows.c.outcome.in_([HEALTHY, UNHEALTHY]))
        .subquery()
    )
    return sa.select(*list(states.c)[:-1]).where(states.c.nth == 1)
