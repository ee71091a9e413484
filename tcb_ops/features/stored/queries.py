"""What the ledger knows of the uploads of a list, and what later runs did to the files of one.

They were undone, deleted, overwritten or confirmed: every screen shows it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeAlias

from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.errors import LedgerDamagedError
from tcb_ops.i18n import Text, ngettext
from tcb_ops.kinds import Kind, all_kinds, kind_named
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import REPLACED, LaterChange, RunRecord
from tcb_ops.ledger.schema import any_of, sql_list
from tcb_ops.model import STORED_OUTCOMES, Outcome

_LOG = logging.getLogger("tcb_ops.ledger")

Confirmation: TypeAlias = tuple[str, dict[Outcome, int]]
"""The id of a run that confirmed an upload, and its rows by outcome."""


def after_upload(
    reader: LedgerReader, run: RunRecord
) -> tuple[list[LaterChange], Confirmation | None, Text | None]:
    """Return the later runs that changed files of an upload; if all rows are shown also the newest confirmation since.

    And a sentence about the files that it replaced, if caches may still show them.
    """
    changes = changes_of_own(reader, run)
    if reader.only is not None:
        return changes, None, None
    cached = None if changes or run.finished_at is None else _still_cached(reader, run)
    return changes, _confirmation(reader.ledger, run, changes[0].number if changes else 0), cached


def _still_cached(reader: LedgerReader, run: RunRecord) -> Text | None:
    replaced = Counter[str]()
    for member in reader.members(run):
        replaced.update(member.answers.get(REPLACED, {}))
    if not replaced:
        return None
    from tcb_ops.engine.changes import seconds_cached, time_cached  # they bring asyncio

    times = [(seconds, files) for text, files in replaced.items() if (seconds := seconds_cached(text))]
    if not times:
        return None
    return ngettext(
        "{n:,} file replaced one that browsers and the CDN may keep for up to {time}: until then, users may see the old one. "
        "Only a new path, such as logo.v2.png, is sure.",
        "{n:,} files replaced others that browsers and the CDN may keep for up to {time}: until then, users may see the old "
        "ones. Only a new path, such as logo.v2.png, is sure.",
        sum(files for _seconds, files in times),
        time=time_cached(max(times)[0]),
    )


def changes_of_own(reader: LedgerReader, run: RunRecord) -> list[LaterChange]:
    """Return the later runs that changed files of an upload, as `later_changes` does; none of a retry that stored none."""
    # Its files are the upload's: nothing of its own was changed.
    stored = not run.parent or not STORED_OUTCOMES.isdisjoint(reader.counts(run))
    return later_changes(reader, run) if stored else []


def later_changes(
    reader: LedgerReader, run: RunRecord, only: Collection[tuple[str, str]] | None = None
) -> list[LaterChange]:
    """Find the later runs that last changed files of an upload, its retries and corrections, the newest first.

    ==============================================  ==============
    what is known of a path                         the file is
    ==============================================  ==============
    a file of the upload                            as uploaded
    the same bytes, which an undo has put back      as uploaded
    a file of a later upload                        overwritten
    a later delete has left nothing                 deleted
    it was changed by an undo of this upload        undone
    ==============================================  ==============

    `only`: of these environments, as (appid, env); None for all that the reader shows. Where no later run wrote to them, rows
    are not read.
    """
    changed = Counter[int]()
    for number, _line in _changed_rows(reader, run, reader.only if only is None else only):
        changed[number] += 1
    changes = []
    for record in _records(reader.ledger, changed):
        ended, files = record.finished_at or record.created_at, changed[record.number]
        kind = kind_named(record.kind)
        changes.append(LaterChange(kind, record.id, record.number, ended, files, changed.total()))
    return changes


def changed_lines(reader: LedgerReader, run: RunRecord) -> dict[int, tuple[Kind, str]]:
    """Return by line of the list the kind and the id of the later run that last changed its file; see `later_changes`."""
    # A newer member has stored the file of the same line again.
    newest = {line: number for number, line in _changed_rows(reader, run, None)}
    records = _records(reader.ledger, set(newest.values()))
    runs = {record.number: (kind_named(record.kind), str(record.id)) for record in records}
    return {line: runs[number] for line, number in newest.items() if number in runs}


def _records(ledger: LedgerReader, numbers: Collection[int]) -> list[Any]:
    return ledger.stored_runs(any_of("number", numbers), list(numbers))


def _changed_rows(
    reader: LedgerReader, run: RunRecord, only: Collection[tuple[str, str]] | None
) -> Iterator[tuple[int, int]]:
    """Stream the files of an upload, as (number of the later run that last changed its path, or 0; line)."""
    ledger, members = reader.ledger, reader.members(run)
    numbers = [member.number for member in members]
    if not (members[0].kind.sends_files and _is_written_since(ledger, members)):
        return
    for member in members:
        places = ""
        if only is not None:
            shown = [each.number for each in ledger.envs(member) if (each.appid, each.env) in only]
            places = f"AND own.place IN ({sql_list(shown)})"
        query = f"""
            SELECT COALESCE(files.changed, 0), files.run, files.uploaded, files.md5 = own.md5, own.line
            FROM rows AS own JOIN envs ON envs.run = own.run AND envs.no = own.place
            LEFT JOIN files ON files.store = envs.store AND files.path = own.path
            WHERE own.run = ? AND own.outcome IN ({sql_list(STORED_OUTCOMES)}) {places}"""
        for changed, left_by, uploaded, same, line in ledger.stream(query, (member.number,)):
            if (
                changed <= member.number
                or (uploaded and left_by in numbers)
                or (same and not (uploaded and left_by > member.number))
            ):
                yield 0, line
            elif left_by > member.number:  # an undo may have given the path back to it
                yield left_by, line
            else:
                yield changed, line


def _is_written_since(ledger: LedgerReader, members: Sequence[RunRecord]) -> bool:
    """Return whether another run has changed an environment of an upload since; without one, its rows are not read."""
    numbers = sql_list(member.number for member in members)
    query = f"""
        SELECT 1 FROM envs JOIN runs ON runs.number = envs.run
        WHERE envs.run > ? AND envs.run NOT IN ({numbers}) AND runs.changes_store
        AND envs.store IN (SELECT store FROM envs WHERE run IN ({numbers})) LIMIT 1"""
    return bool(ledger.fetch(query, (members[0].number,)))


def _confirmation(ledger: LedgerReader, run: RunRecord, after: int) -> Confirmation | None:
    """Find the newest finished run that confirmed an upload; return its id and its rows by outcome.

    `after`: the number of the run that changed the upload's files last; a confirmation before it says nothing of them now, and
    one that found them taken back confirms nothing.
    """
    condition = f"""kind IN ({sql_list(kind for kind in all_kinds() if kind.findings_of_files)})
        AND list_sha256 = ? AND finished_at IS NOT NULL AND number > ?"""
    for record in ledger.stored_runs(condition, (run.list_sha256, max(run.number, after))):
        try:
            confirmation = ledger.run(record.id)
        except LedgerDamagedError as error:
            _LOG.warning("%s", error.text)
            continue
        # One that is narrowed by --where says nothing of the others.
        covers_all = not {name for name, _value in confirmation.selection.options} - {"run", "content"}
        if covers_all and confirmation.settings.of[:1] == (run.id,):
            counts = ledger.counts(confirmation)
            return None if any(outcome.taken_back for outcome in counts) else (confirmation.id, counts)
    return None


# --- the uploads of a list, and the runs about one ---------------------------------------------------------------


def uploads_of_list(ledger: LedgerReader, target: str, list_name: str) -> list[RunRecord]:
    """Return the uploads of the lists of a name."""
    return [run for run in ledger.runs(target) if run.kind is UPLOAD and run.list_name == list_name]


def runs_about(ledger: LedgerReader, subject: RunRecord, *kinds: Kind) -> list[RunRecord]:
    """Return the undos or the deletes of an upload's files."""
    about = (run for run in ledger.runs(subject.target, damaged=[]) if run.kind in kinds)
    return [run for run in about if subject.id in run.settings.of[:1]]


def paths_stored(
    ledger: LedgerReader, uploads: Sequence[RunRecord], env: str, appid: str
) -> list[tuple[str, str]]:
    """Return the paths of a merchant's environment with files of these uploads, each with its local file, sorted.

    A file of which a confirmation has found that it is missing, or another one, is left out.
    """
    otherwise = {
        outcome for kind in all_kinds() for outcome in kind.findings_of_files if not outcome.succeeded
    }
    query = f"""
        SELECT files.path, rows.file FROM stores JOIN files ON files.store = stores.number
        JOIN rows ON rows.run = files.run AND rows.line = files.line
        JOIN envs ON envs.run = rows.run AND envs.no = rows.place
        WHERE stores.target = ? AND stores.env = ? AND envs.appid = ? AND {any_of("files.run", uploads)}
        AND files.uploaded AND files.md5 <> '' AND files.found NOT IN ({sql_list(otherwise)}) ORDER BY files.path"""
    target = uploads[0].target if uploads else ""
    return ledger.fetch(query, (target, env, appid, *(run.number for run in uploads)))


def pending_in_both(reader: LedgerReader, number: int, other: int) -> str | None:
    """Return a path at which rows of two runs, given by their numbers, are pending; None without any."""
    pending = """
        SELECT envs.env, rows.path FROM rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place
        WHERE rows.run = ? AND rows.outcome = 'pending'"""
    query = f"SELECT MIN(path) FROM ({pending} INTERSECT {pending}) AS shared"
    path: str | None = reader.fetch(query, (number, other))[0][0]
    return path
