"""What the ledger knows of the uploads of a list, and what later runs did to the files of one.

They were undone, deleted, overwritten or confirmed: every screen shows it.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from tcb_ops.errors import LedgerDamagedError
from tcb_ops.kinds import Kind, all_kinds, kind_named
from tcb_ops.model import STORED_OUTCOMES, Outcome
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import LaterChange, RunRecord
from tcb_ops.runs.schema import sql_list, stored

_LOG = logging.getLogger("tcb_ops.runs")

Confirmation: TypeAlias = tuple[str, dict[Outcome, int]]
"""The id of a run that confirmed an upload, and its rows by outcome."""


def after_upload(reader: LedgerReader, run: RunRecord) -> tuple[list[LaterChange], Confirmation | None]:
    """Return the later runs that changed files of an upload, and the newest confirmation since, if all rows are shown."""
    # The files of a retry that stored none are the upload's: nothing of its own was changed.
    stored = not run.parent or not STORED_OUTCOMES.isdisjoint(reader.counts(run))
    changes = later_changes(reader, run) if stored else []
    if reader.only is not None:
        return changes, None
    return changes, _confirmation(reader.ledger, run, changes[0].number if changes else 0)


def later_changes(
    reader: LedgerReader, run: RunRecord, only: Collection[tuple[str, str]] | None = None
) -> list[LaterChange]:
    """Find the later runs that last changed files of an upload, its retries and corrections, the newest first.

    ====================================================  ==============
    the newest later run that changed a path              the file is
    ====================================================  ==============
    none                                                  as uploaded
    an undo of this upload                                undone
    a delete                                              deleted
    an upload                                             overwritten
    an upload that was undone, and the undo               look before it
    ====================================================  ==============

    `only`: of these environments, as (appid, env); None for all that the reader shows. Where no later run wrote to them, rows
    are not read.
    """
    by_number, statements = _changes(reader, run, reader.only if only is None else only)
    changed = Counter[int]()
    for statement in statements:
        query = f"SELECT number, COUNT(*) FROM ({statement}) AS changes GROUP BY number"
        changed.update(dict(reader.ledger.fetch(query)))
    changes = []
    for number in sorted(filter(None, changed), reverse=True):
        other, total = by_number[number], changed.total()
        ended = other.finished_at or other.created_at
        changes.append(LaterChange(kind_named(other.kind), other.id, number, ended, changed[number], total))
    return changes


def changed_lines(reader: LedgerReader, run: RunRecord) -> dict[int, tuple[Kind, str]]:
    """Return by line of the list the kind and the id of the later run that last changed its file; see `later_changes`."""
    by_number, statements = _changes(reader, run, None)
    # A newer member has stored the file of the same line again.
    newest = {line: number for statement in statements for number, line in reader.ledger.fetch(statement)}
    runs = {number: (kind_named(run.kind), str(run.id)) for number, run in by_number.items()}
    return {line: runs[number] for line, number in newest.items() if number}


def _changes(
    reader: LedgerReader, run: RunRecord, only: Collection[tuple[str, str]] | None
) -> tuple[dict[int, Any], list[str]]:
    """Return the later runs by their numbers, and a SELECT for each run that is shown, as `_newest_changes` composes it."""
    ledger, members = reader.ledger, reader.members(run)
    if not members[0].kind.sends_files:
        return {}, []
    later = {record.id: record for record in _later_runs(ledger, members)}
    member_ids = {member.id for member in members}
    cancelled = {
        later[undo].number: [later[upload].number for upload in uploads if upload in later]
        for undo in later
        if (uploads := _undone_by(later[undo])) is not None and member_ids.isdisjoint(uploads)
    }
    by_number = {record.number: record for record in later.values() if record.number not in cancelled}
    statements = []
    by_index = ledger.dialect.index_hint.format("rows_by_path")
    for member in members if by_number else ():
        places = None
        if only is not None:
            places = [each.number for each in ledger.envs(member) if (each.appid, each.env) in only]
        statements.append(_newest_changes(member, by_number.values(), cancelled, places, by_index))
    return by_number, statements


def _undone_by(run: Any) -> list[str] | None:
    """Return the ids of the runs that an undo undoes; None for other runs, and for damaged records."""
    try:
        settings = json.loads(run.settings)
        return list(map(str, settings["of"])) if "undoes" in settings else None
    except (KeyError, TypeError, ValueError):
        return None


def _later_runs(ledger: LedgerReader, members: Sequence[RunRecord]) -> list[Any]:
    first, numbers = members[0], sql_list(member.number for member in members)
    condition = f"""number > ? AND number NOT IN ({numbers}) AND target = ?
        AND kind IN ({sql_list(kind for kind in all_kinds() if kind.replacing)})
        AND number IN (SELECT run FROM envs WHERE run > ? AND env IN (SELECT env FROM envs WHERE run IN ({numbers})))"""
    return ledger.stored_runs(condition, (first.number, first.target, first.number))


def _newest_changes(
    run: RunRecord,
    later: Collection[Any],
    cancelled: Mapping[int, list[int]],
    places: list[int] | None,
    by_index: str,
) -> str:
    """Compose the SELECT of (number of the later run that last changed the path, or 0; line) of a run's files.

    `cancelled`: undos of other uploads, each with the runs whose changes they took back. `places`: which of the run's
    environments; None for all.
    """
    # After these, another file, or none, is at their paths …
    changes = [
        f"(later.run IN ({sql_list(numbers)}) AND later.outcome IN ({sql_list(kind.replacing)}))"
        for kind in all_kinds()
        if (numbers := [record.number for record in later if record.kind == kind])
    ]
    restoring = {outcome for kind in all_kinds() if kind.takes_back for outcome in kind.replacing}
    # … unless an undo took them back.
    conditions = [
        f"""AND NOT (later.run IN ({sql_list(uploads)}) AND EXISTS (
            SELECT 1 FROM rows AS undo
            WHERE undo.run = {number} AND undo.line = later.line AND undo.outcome IN ({sql_list(restoring)})))"""
        for number, uploads in cancelled.items()
        if uploads
    ]
    selected = "" if places is None else f"AND own.place IN ({sql_list(places)})"
    return f"""
        SELECT COALESCE((
            SELECT later.run FROM envs AS later_env CROSS JOIN rows AS later {by_index}
            WHERE later_env.env = own_env.env AND later_env.run IN ({sql_list(later_run.number for later_run in later)})
            AND later.run = later_env.run AND later.place = later_env.no AND later.path = own.path
            AND later.run > own.run AND {stored("later.")} AND ({" OR ".join(changes)}) {" ".join(conditions)}
            ORDER BY later_env.run DESC LIMIT 1), 0) AS number, own.line
        FROM rows AS own JOIN envs AS own_env ON own_env.run = own.run AND own_env.no = own.place
        WHERE own.run = {run.number} AND own.outcome IN ({sql_list(STORED_OUTCOMES)}) {selected}"""


def _confirmation(ledger: LedgerReader, run: RunRecord, after: int) -> Confirmation | None:
    """Find the newest finished run that confirmed an upload; return its id and its rows by outcome.

    `after`: the number of the run that changed the upload's files last; a confirmation before it says nothing of them now, and
    one that found them taken back confirms nothing.
    """
    condition = f"""kind IN ({sql_list(kind for kind in all_kinds() if kind.looks_at_store)})
        AND list_sha256 = ? AND finished_at IS NOT NULL AND number > ?"""
    for record in ledger.stored_runs(condition, (run.list_sha256, max(run.number, after))):
        try:
            confirmation = ledger.run(record.id)
        except LedgerDamagedError as error:
            _LOG.warning("%s", error.text)
            continue
        # One that is narrowed by --where says nothing of the others.
        covers_all = not {name for name, _value in confirmation.selection.options} - {"run", "content"}
        if covers_all and confirmation.settings.get("of", [""])[0] == run.id:
            counts = ledger.counts(confirmation)
            return None if any(outcome.taken_back for outcome in counts) else (confirmation.id, counts)
    return None


# --- the uploads of a list ---------------------------------------------------------------------------------------


def paths_stored(
    ledger: LedgerReader, uploads: Sequence[RunRecord], env: str, appid: str
) -> list[tuple[str, str]]:
    """Return the paths to which uploads sent files of a merchant's environment, each with its local file, sorted."""
    numbers = sql_list(run.number for run in uploads)
    query = f"""
        SELECT DISTINCT rows.path, rows.file FROM rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place
        WHERE envs.env = ? AND envs.appid = ? AND rows.run IN ({numbers}) AND rows.outcome = 'uploaded'
        ORDER BY rows.path"""
    return ledger.fetch(query, (env, appid))


def pending_in_both(reader: LedgerReader, number: int, other: int) -> str | None:
    """Return a path at which rows of two runs, given by their numbers, are pending; None without any."""
    pending = """
        SELECT envs.env, rows.path FROM rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place
        WHERE rows.run = ? AND rows.outcome = 'pending'"""
    query = f"SELECT MIN(path) FROM ({pending} INTERSECT {pending}) AS shared"
    path: str | None = reader.fetch(query, (number, other))[0][0]
    return path
