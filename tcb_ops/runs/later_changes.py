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
from tcb_ops.runs.schema import envs, rows, runs

if TYPE_CHECKING:
    from tcb_ops.runs.reader import LedgerReader

_SAMPLED_ENVIRONMENTS, _SAMPLED_ROWS, _SAMPLED_LISTS = 3, 50, 2
"""What a list of runs looks at: environments of a run, rows of each, and the next runs of other lists."""


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
        sample = _sample(ledger, member, by_number, places) if sampled else None
        changes = _newest_changes(
            member, by_number.values(), cancelled, None if only is None else places, sample
        )
        for number, count in ledger.query(changes):
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


def _sample(
    ledger: LedgerReader, run: RunRecord, later: Mapping[int, Any], places: Collection[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return lines of some of a run's environments, and these environments in later runs, as (run, number).

    With one environment of each undo and delete, which may be about a few only.
    """
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
    in_later = sa.select(envs.c.run, envs.c.no).where(envs.c.run.in_(list(later)), envs.c.env.in_(names))
    return lines, [(number, place) for number, place in ledger.query(in_later)]


def _newest_changes(
    run: RunRecord,
    later: Collection[Any],
    cancelled: Mapping[int, list[int]],
    places: list[int] | None,
    sample: tuple[list[int], list[tuple[int, int]]] | None,
) -> sa.Select[Any]:
    """Select (number of the later run that last changed the path, or 0; files) of a run.

    `cancelled`: undos of other uploads, each with the runs whose changes they took back. Rows of runs of the same list are found
    by their lines. Those of other lists are grouped first: one path is in many environments, and no index has both.
    """
    same = [record for record in later if record.list_sha256 == run.list_sha256]
    others = [record for record in later if record.list_sha256 != run.list_sha256]
    if sample is not None:
        others = others[:_SAMPLED_LISTS]
    mine, my_env = rows.alias("mine"), envs.alias("my_env")
    conditions = [mine.c.run == run.number, mine.c.outcome.in_(list(STORED_OUTCOMES))]
    if places is not None:
        conditions.append(mine.c.place.in_(places))
    if sample is not None:
        conditions.append(mine.c.line.in_(sample[0]))
    joined: sa.FromClause = mine.join(my_env, (my_env.c.run == mine.c.run) & (my_env.c.no == mine.c.place))
    newest: sa.ColumnElement[int] = sa.literal(0)
    if same:
        row, env = rows.alias("same"), envs.alias("same_env")
        by_line = (
            sa.select(row.c.run)
            .join(env, (env.c.run == row.c.run) & (env.c.no == row.c.place))
            .where(
                row.c.run.in_([record.number for record in same]),
                row.c.line == mine.c.line,
                row.c.path == mine.c.path,
                env.c.env == my_env.c.env,
                _changes_files(row, same, cancelled),
            )
            .order_by(row.c.run.desc())
            .limit(1)
            .correlate(mine, my_env)
        )
        newest = sa.func.coalesce(by_line.scalar_subquery(), 0)
    if others:
        row, env, ours = rows.alias("later"), envs.alias("later_env"), rows.alias("ours")
        at_our_paths = row.c.path.in_(sa.select(ours.c.path).where(ours.c.run == run.number))
        by_path = (
            sa.select(env.c.env, row.c.path, sa.func.max(row.c.run).label("run"))
            .join(env, (env.c.run == row.c.run) & (env.c.no == row.c.place))
            .where(
                at_our_paths,
                _changes_files(row, others, cancelled),
                env.c.run.in_([record.number for record in others])
                if sample is None
                else sa.tuple_(row.c.run, row.c.place).in_(sample[1]),
            )
            .group_by(env.c.env, row.c.path)
            .cte("by_path")
        )
        joined = joined.outerjoin(by_path, (by_path.c.env == my_env.c.env) & (by_path.c.path == mine.c.path))
        other = sa.func.coalesce(by_path.c.run, 0)
        newest = sa.case((other > newest, other), else_=newest)
    changed = sa.select(newest.label("number")).select_from(joined).where(*conditions).subquery()
    return sa.select(changed.c.number, sa.func.count()).group_by(changed.c.number)


def _changes_files(
    row: sa.FromClause, later: Sequence[Any], cancelled: Mapping[int, list[int]]
) -> sa.ColumnElement[bool]:
    """Select rows of later runs after which another file, or none, is at their paths, and that no undo took back."""
    changes = [
        row.c.run.in_(numbers) & row.c.outcome.in_(kind.replacing)
        for kind in all_kinds()
        if (numbers := [record.number for record in later if record.kind == kind])
    ]
    undo = rows.alias("undo")
    restoring = {outcome for kind in all_kinds() if kind.takes_back for outcome in kind.replacing}
    taken_back = [
        row.c.run.in_(uploads)
        & sa.exists().where(undo.c.run == number, undo.c.line == row.c.line, undo.c.outcome.in_(restoring))
        for number, uploads in cancelled.items()
        if uploads
    ]
    return sa.and_(sa.or_(*changes), *map(sa.not_, taken_back))
