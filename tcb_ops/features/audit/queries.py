"""What the ledger knows of earlier audits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from tcb_ops.errors import LedgerDamagedError
from tcb_ops.features.audit import HEALTHY, UNHEALTHY
from tcb_ops.model import Outcome
from tcb_ops.reports.comparisons import Place, State
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord, read_run
from tcb_ops.runs.schema import sql_list

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
    for record in ledger.earlier_runs(audit):
        with suppress(LedgerDamagedError), ledger.reading(record):
            run = read_run(record)
            if run.selection == audit.selection:
                earlier[run.number] = run
        if len(earlier) == AUDITS_BACK:
            break
    with ledger.reading(audit):
        for number, env, appid, *state in ledger.fetch(_last_known([*earlier]), (audit.number,)):
            outcome, reason, errcode, store_code = state
            yield earlier[number], (env, appid), (outcome, reason, errcode, store_code)


def _last_known(earlier: Sequence[int]) -> str:
    """Compose the SELECT of (run, env, appid, outcome, reason, errcode, store_code) of what is unknown to an audit.

    Of the newest of the runs `earlier`, by their numbers, in which the environment was healthy or unhealthy.
    """
    state = "rows.run, envs.env, envs.appid, rows.outcome, rows.reason, rows.errcode, rows.store_code"
    of_env = "rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place"
    return f"""
        SELECT run, env, appid, outcome, reason, errcode, store_code FROM (
            SELECT {state}, ROW_NUMBER() OVER (PARTITION BY envs.env, envs.appid ORDER BY rows.run DESC) AS nth
            FROM {of_env}
            JOIN (SELECT envs.env, envs.appid FROM {of_env} WHERE rows.run = ? AND rows.outcome = 'unknown') AS unknown
            ON unknown.env = envs.env AND unknown.appid = envs.appid
            WHERE rows.run IN ({sql_list(earlier)}) AND rows.outcome IN ({sql_list((HEALTHY, UNHEALTHY))})
        ) AS states WHERE nth = 1"""
