"""What later runs did to the files of an upload: undone, deleted, overwritten. Every screen shows what `later_changes` finds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tcb_ops.errors import RunNotFoundError
from tcb_ops.kinds import Kind, all_kinds, kind_named
from tcb_ops.model import STORED_OUTCOMES
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.schema import STORED, envs, rows, runs, sql_list

if TYPE_CHECKING:
    from tcb_ops.runs.reader import LedgerReader

_SAMPLED_ENVIRONMENTS, _SAMPLED_ROWS = 3, 50
"""What a list of runs looks at: environments of a run, and rows of each."""


@dataclass(frozen=True, slots=True)
class LaterChange:
    """What a later run did to files of an upload and its retries."""

    kind: Kind
    """UNDO, DELETE, or UPLOAD, which overwrote them."""
    run: str
    number: int
    """The later run's, which grows from run to run."""
    at: float
    """When that run ended or, unfinished, when it was created, in Unix seconds."""
    files: int
    of: int
    """Files that the upload stored or left unchanged."""


def family_of(ledger: LedgerReader, run: RunRecord) -> list[RunRecord]:
    """Return the original of `run` (itself, unless it is a retry), then its retries, the oldest first."""
    while run.parent:
        try:
            run = ledger.run(run.parent)
        except RunNotFoundError:  # the parent was deleted: this is the oldest run that remains
            break
    return [run, *ledger.retries(run)]


def later_changes(
    ledger: LedgerReader, run: RunRecord, only: Collection[tuple[str, str]] | None, *, sampled: bool
) -> list[LaterChange]:
    """Find the later runs that last changed files of an upload and its retries, the newest first.

    ====================================================  ==============
    the newest later run that changed a path              the file is
    ====================================================  ==============
    none                                                  as uploaded
    an undo of this upload                                undone
    a delete                                              deleted
    an upload                                             overwritten
    an upload that was undone, and the undo               look before it
    ====================================================  ==============

    `only`: environments as (appid, env); None for all. `sampled`: look at some rows of a few environments only, for a list
    of runs. Where no later run wrote to these environments, rows are not read.
    """
    if not run.kind.sends_files:
        return []
    family = family_of(ledger, run)
    later = {record.id: record for record in ledger.query(_later_runs(family, run.target))}
    family_ids = {member.id for member in family}
    cancelled = {
        later[undo].number: [later[upload].number for upload in uploads if upload in later]
        for undo in later
        if (uploads := _undone_by(later[undo])) is not None and family_ids.isdisjoint(uploads)
    }
    by_number = {record.number: record for record in later.values() if record.number not in cancelled}
    if not by_number:
        return []
    changed, files = Counter[int](), 0
    for member in family:
        places = [of.number for of in ledger.envs(member) if only is None or (of.appid, of.env) in only]
        lines = _sampled_lines(ledger, member, by_number, places) if sampled else None
        statement = _newest_changes(
            member,
            by_number.values(),
            cancelled,
            None if only is None else places,
            lines,
            ledger.by_index("rows_by_path"),
        )
        for number, count in ledger.fetch(statement, ()):
            files += count
            if number:
                changed[number] += count
    return [
        LaterChange(
            kind_named(by_number[number].kind),
            by_number[number].id,
            number,
            by_number[number].finished_at or by_number[number].created_at,
            changed[number],
            files,
        )
        for number in sorted(changed, reverse=True)
    ]


def _undone_by(run: Any) -> list[str] | None:
    """Return the ids of the runs that an undo undoes; None for other runs, and for damaged records."""
    try:
        settings = json.loads(run.settings)
        return list(map(str, settings["of"])) if "undoes" in settings else None
    except (KeyError, TypeError, ValueError):
        return None


def _later_runs(family: Sequence[RunRecord], target: str) -> sa.Select[Any]:
    """Select the later runs, of no retry, that write to an environment of the run."""
    first = family[0].number
    environments = sa.select(envs.c.env).where(envs.c.run == first)
    sharing = sa.select(envs.c.run).where(envs.c.run > first, envs.c.env.in_(environments))
    about = ("number", "id", "kind", "list_sha256", "created_at", "finished_at", "settings")
    return (
        sa.select(*(runs.c[name] for name in about))
        .where(
            runs.c.number > first,
            runs.c.number.not_in([member.number for member in family]),
            runs.c.target == target,
            runs.c.kind.in_([kind for kind in all_kinds() if kind.replacing]),
            runs.c.number.in_(sharing),
        )
        .order_by(runs.c.number)
    )


def _sampled_lines(
    ledger: LedgerReader, run: RunRecord, later: Mapping[int, Any], places: Collection[int]
) -> list[int]:
    """Return lines of some of a run's environments, and of one of each undo and delete, which may be about a few only."""
    taking_back = [number for number, record in later.items() if kind_named(record.kind).takes_back]
    environments = [of for of in ledger.envs(run) if of.number in places]
    step = max(1, (len(environments) - 1) // (_SAMPLED_ENVIRONMENTS - 1))
    first = sa.select(sa.func.min(envs.c.env)).where(envs.c.run.in_(taking_back)).group_by(envs.c.run)
    names = {of.env for of in environments[::step]} | {env for (env,) in ledger.query(first)}
    lines: list[int] = []
    for environment in environments:
        if environment.env in names:
            of_environment = (rows.c.run == run.number) & (rows.c.place == environment.number)
            query = sa.select(rows.c.line).where(of_environment).order_by(rows.c.line).limit(_SAMPLED_ROWS)
            lines += [line for (line,) in ledger.query(query)]
    return lines


def _newest_changes(
    run: RunRecord,
    later: Collection[Any],
    cancelled: Mapping[int, list[int]],
    places: list[int] | None,
    lines: list[int] | None,
    by_index: str,
) -> str:
    """Compose the SELECT of (number of the later run that last changed the path, or 0; files) of a run's files.

    `cancelled`: undos of other uploads, each with the runs whose changes they took back. `places`, `lines`: which of the run's
    environments and rows; None for all.
    """
    # After these, another file, or none, is at their paths …
    changes = [
        f"(later.run IN ({sql_list(numbers)}) AND later.outcome IN ({sql_list(kind.replacing)}))"
        for kind in all_kinds()
        if (numbers := [record.number for record in later if record.kind == kind])
    ]
    restoring = {outcome for kind in all_kinds() if kind.takes_back for outcome in kind.replacing}
    # … unless an undo took them back.
    kept = [
        f"""AND NOT (later.run IN ({sql_list(uploads)}) AND EXISTS (
            SELECT 1 FROM rows AS undo
            WHERE undo.run = {number} AND undo.line = later.line AND undo.outcome IN ({sql_list(restoring)})))"""  # noqa: S608  own names
        for number, uploads in cancelled.items()
        if uploads
    ]
    selected = "" if places is None else f"AND own.place IN ({sql_list(places)}) "
    selected += "" if lines is None else f"AND own.line IN ({sql_list(lines)})"
    return f"""
        SELECT number, COUNT(*) FROM (
            SELECT COALESCE((
                SELECT later.run FROM envs AS later_env CROSS JOIN rows AS later {by_index}
                WHERE later_env.env = own_env.env AND later_env.run IN ({sql_list(of.number for of in later)})
                AND later.run = later_env.run AND later.place = later_env.no AND later.path = own.path
                AND later.{STORED.text} AND ({" OR ".join(changes)}) {" ".join(kept)}
                ORDER BY later_env.run DESC LIMIT 1), 0) AS number
            FROM rows AS own JOIN envs AS own_env ON own_env.run = own.run AND own_env.no = own.place
            WHERE own.run = {run.number} AND own.outcome IN ({sql_list(STORED_OUTCOMES)}) {selected}
        ) AS changes GROUP BY number"""  # noqa: S608  own names
