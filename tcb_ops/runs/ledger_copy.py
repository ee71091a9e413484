"""Copying runs to another ledger, and joining the runs of a list's shares.

Each run is written in one transaction, while its lock is held in both ledgers: a kill leaves all of it or nothing, and the
same call again writes what is missing. A run is held in memory without its rows, which are copied in batches.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice, zip_longest
from operator import itemgetter
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeAlias

import sqlalchemy as sa

from tcb_ops.errors import RunNotFoundError, UsageError
from tcb_ops.i18n import Text, _, as_list, ngettext
from tcb_ops.lists.merchants import Share, read_share
from tcb_ops.model import Kind
from tcb_ops.runs.database import ledger_file
from tcb_ops.runs.ledger import BATCH, Ledger, taken
from tcb_ops.runs.locks import hold, process_identity
from tcb_ops.runs.records import UNDELIVERED, RunRecord
from tcb_ops.runs.schema import cluster_sessions, envs, exports, partitions, rows, runs, spent
from tcb_ops.settings import shown_url

OnCopied: TypeAlias = Callable[[int, int, int], None]
"""Called after each batch with the runs done, their number, and the rows written so far."""

_LISTED = 20
"""Missing shares that a message lists."""
_TABLES = (envs, spent, exports, cluster_sessions, partitions)
"""Tables that are copied besides runs and rows. The sums are counted again."""
_COLUMNS = tuple(rows.c.keys())
_INSERT = f"INSERT INTO rows ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608  own names


@dataclass(frozen=True, slots=True)
class CopiedRuns:
    """The ids of the runs that were written, and of those that were there already."""

    runs: tuple[str, ...]
    there: tuple[str, ...]
    rows: int
    """That were written."""


@dataclass(frozen=True, slots=True)
class _Content:
    """A run as one ledger has it, and another one gets it: records without the run's number."""

    run: dict[str, Any]
    tables: dict[sa.Table, list[dict[str, Any]]]
    rows: Callable[[], Iterator[tuple[Any, ...]]]
    """Streams the rows in the order of the list."""

    @property
    def id(self) -> str:
        return str(self.run["id"])

    def same(self, other: _Content) -> bool:
        """Return whether two ledgers have the same run, reports and deliveries aside."""
        # Each ledger has its own newest report.
        ours, theirs = (
            one.run | {"report": "", "settings": _as_begun(one.run["settings"])} for one in (self, other)
        )
        if ours != theirs or self.tables[envs] != other.tables[envs]:
            return False
        return all(one == two for one, two in zip_longest(self.rows(), other.rows()))


def _as_begun(settings: str) -> Any:
    """Return a run's settings without what an audit noted in them later; damaged ones unchanged."""
    try:
        found = json.loads(settings)
    except ValueError:
        return settings
    if isinstance(found, dict):
        found.pop(UNDELIVERED, None)
    return found


class _CopyLedger(Ledger):
    """A ledger that whole runs are read from, and written to."""

    def content(self, run: RunRecord) -> _Content:
        """Return a run's content. Read its rows inside the same snapshot."""
        [record] = self._records(runs, runs.c.number == run.number, without="number")
        return _Content(
            record,
            {table: self._records(table, table.c.run == run.number, without="run") for table in _TABLES},
            lambda: (tuple(one[1:]) for batch in self.records(run) for one in batch),
        )

    def find(self, run_id: str) -> RunRecord | None:
        """Return the run with exactly this id."""
        with suppress(RunNotFoundError):
            found = self.run(run_id)
            return found if found.id == run_id else None
        return None

    def first_lines(self, run: RunRecord) -> dict[int, int]:
        """Return the line of the first row of each of a run's environments, by the environment's number."""
        query = sa.select(rows.c.place, sa.func.min(rows.c.line)).where(rows.c.run == run.number)
        return dict(map(tuple, self._read(query.group_by(rows.c.place))))

    def insert(self, content: _Content, wrote: Callable[[int], None], still_held: Callable[[], None]) -> None:
        """Write a run in one transaction. `wrote` is called with the number of rows of each batch."""
        with self._writing(idle=0) as connection:
            made = connection.execute(runs.insert().values(**content.run))
            number = int(made.inserted_primary_key[0])  # type: ignore[index]  # an insert of one record has one
            for table, records in content.tables.items():
                if records:
                    connection.execute(table.insert(), [{**one, "run": number} for one in records])
            stream = content.rows()
            while batch := [(number, *record) for record in islice(stream, BATCH)]:
                self.driver(connection, _INSERT, batch)
                wrote(len(batch))
            if content.run["finished_at"] is not None:
                self._keep_sums(connection, number)
            still_held()  # raises if another process may have begun to work on the run

    def _records(self, table: sa.Table, its: sa.ColumnElement[bool], *, without: str) -> list[dict[str, Any]]:
        columns = [column for column in table.c if column.name != without]
        found = self._read(sa.select(*columns).where(its).order_by(*table.primary_key))
        return [dict(record._mapping) for record in found]  # noqa: SLF001  its public name


class _Writer:
    """The ledger that runs are written to, and what has been written."""

    def __init__(self, ledger: _CopyLedger, runs: int, report: OnCopied) -> None:
        self._ledger, self._runs, self._report = ledger, runs, report
        self._new: list[str] = []
        self._there: list[str] = []
        self._rows = 0

    @property
    def copied(self) -> CopiedRuns:
        return CopiedRuns(tuple(self._new), tuple(self._there), self._rows)

    def write(self, content: _Content, still_held: Callable[[], None]) -> None:
        """Write a run that is missing. Raises UsageError for one that is there and differs."""
        with hold(self._ledger, content.id) as still_ours:
            there = self._ledger.find(content.id)
            if there is not None:
                with self._ledger.snapshot() as seen:
                    if not content.same(seen.content(there)):
                        raise self._differs(content.id)
                self._there.append(content.id)
                return

            def both_held() -> None:
                still_held()
                still_ours()

            self._ledger.insert(content, self._wrote, both_held)
            self._new.append(content.id)
            self._wrote(0)

    def _wrote(self, count: int) -> None:
        self._rows += count
        self._report(len(self._new) + len(self._there), self._runs, self._rows)

    def _differs(self, run_id: str) -> UsageError:
        return UsageError(
            _(
                "run {id} is in {name} already, but not as it is to be copied: it has been worked on since. Nothing of it "
                "was changed.",
                id=run_id,
                name=self._ledger.name,
            ),
            _("Keep the ledger that has its later state; the other runs can be copied by their ids."),
        )


# --- copying -------------------------------------------------------------------------------------------------


def copy_runs(
    source: str, dest: str, wanted: Collection[str], target: str | None, report: OnCopied
) -> CopiedRuns:
    """Copy runs to another ledger, the oldest first: all, or the `wanted` ones with what belongs to them.

    Raises UsageError for a run that another process works on, or that is there but differs; those before it are copied.
    """
    _check_apart(dest, [source])
    with ExitStack() as stack:
        ours = stack.enter_context(closing(_opened(source)))
        theirs = stack.enter_context(closing(_CopyLedger(dest)))
        _check_databases(theirs, [ours])
        named = [ours.run(one, target) for one in wanted]
        before = [audit for run in named if run.kind is Kind.AUDIT if (audit := ours.previous(run))]
        chosen = together(ours.runs(), {run.id for run in (*named, *before)} if wanted else None)
        writer = _Writer(theirs, len(chosen), report)
        for run in chosen:
            with taken(ours, run) as still_held, ours.snapshot() as seen:
                writer.write(seen.content(seen.run(run.id)), still_held)
        return writer.copied


def together(all_runs: Sequence[RunRecord], wanted: Collection[str] | None) -> list[RunRecord]:
    """Return the wanted runs (None: all) and those that belong to them, the oldest first.

    ==================================================================  =========
    a run that                                                          belongs
    ==================================================================  =========
    a wanted one retries, confirms, deletes or undoes                   yes
    retries, confirms, deletes or undoes a wanted one                   yes
    belongs to one that belongs                                         yes
    is any other                                                        no
    ==================================================================  =========
    """
    beside = defaultdict(set)
    for run in all_runs:
        for other in {run.parent, *run.settings.get("of", ()), run.settings.get("undoes", "")} - {""}:
            beside[run.id].add(other)
            beside[other].add(run.id)
    found, left = set[str](), {run.id for run in all_runs} if wanted is None else set(wanted)
    while left:
        one = left.pop()
        found.add(one)
        left |= beside[one] - found
    return sorted((run for run in all_runs if run.id in found), key=lambda run: run.number)


def _opened(where: str) -> _CopyLedger:
    """Open a ledger that must exist. Raises UsageError."""
    file = ledger_file(where)
    if file is not None and not file.exists():
        raise UsageError(_("{where} does not exist.", where=where))
    return _CopyLedger(where)


def _check_apart(dest: str, sources: Iterable[str]) -> None:
    """Raise UsageError if the file to write to is one of those to read from, also as a link or a URL."""
    there = ledger_file(dest)
    for source in sources:
        here = ledger_file(source)
        same_file = here and there and here.exists() and there.exists() and here.samefile(there)
        if source == dest or same_file:
            raise _into_itself(shown_url(dest))


def _check_databases(dest: _CopyLedger, sources: Iterable[_CopyLedger]) -> None:
    """Raise UsageError if the database to write to is one of those to read from, whatever their URLs are."""
    mark = f"apart-{token_hex(8)}"
    with ExitStack() as stack:
        for source in sources:
            if (lock := source.advisory_lock(mark)) is not None:
                stack.callback(lock.release)
                lock.acquire(process_identity())
        if (seen := dest.advisory_lock(mark)) is not None and seen.holder():
            raise _into_itself(dest.name)


def _into_itself(name: str) -> UsageError:
    return UsageError(_("{name} cannot be copied into itself: choose another ledger.", name=name))


# --- joining -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ShareRun:
    """The run of a share, in its ledger."""

    ledger: _CopyLedger
    run: RunRecord
    share: Share
    retries: list[RunRecord]

    @property
    def named(self) -> Text:
        return _(
            "run {id} (share {share}) in {name}", id=self.run.id, share=self.share, name=self.ledger.name
        )

    @property
    def selection(self) -> str:
        return self.share.removed_from(self.run.selection)


def join_shares(
    dest: str, sources: Sequence[str], wanted: Collection[str], report: OnCopied
) -> tuple[str, CopiedRuns]:
    """Make one run of the runs of a list's shares, in the ledger `dest`; return its id, and what was written.

    Of each ledger, its `wanted` run is taken, else its newest run of a share; its retries become retries of the joined
    run. Raises UsageError if they are not all shares of one list, or one is unfinished.
    """
    _check_apart(dest, sources)
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(_opened(source))) for source in sources]
        shares = _chosen(opened, wanted)
        _check_alike(shares)
        _check_numbers(shares)
        held = [stack.enter_context(taken(one.ledger, one.run)) for one in shares]
        _check_rows(shares)
        theirs = stack.enter_context(closing(_CopyLedger(dest)))
        _check_databases(theirs, opened)
        seen = [replace(one, ledger=stack.enter_context(one.ledger.snapshot())) for one in shares]

        def still_held() -> None:
            for confirm in held:
                confirm()

        writer = _Writer(theirs, 1 + sum(len(one.retries) for one in shares), report)
        joined = _joined(seen)
        writer.write(joined, still_held)
        for one in seen:
            for retry in one.retries:
                content = one.ledger.content(retry)
                if retry.parent == one.run.id:
                    content = replace(content, run={**content.run, "parent": joined.id})
                writer.write(content, still_held)
        return joined.id, writer.copied


def _chosen(ledgers: Sequence[_CopyLedger], wanted: Collection[str]) -> list[_ShareRun]:
    """Return the runs of each ledger that are to be joined, by the number of their shares. Raises UsageError."""
    found, left = list[_ShareRun](), set(wanted)
    for ledger in ledgers:
        listed = ledger.runs()
        given = [run for run in listed if run.id in left]
        left -= {run.id for run in given}
        for run in given or [run for run in listed if run.share and not run.parent][:1]:
            if not run.share or run.parent:
                raise UsageError(
                    _("run {id} in {name} is not the run of a share.", id=run.id, name=ledger.name)
                )
            found.append(_ShareRun(ledger, run, read_share(run.share), ledger.retries(run)))
            for later in listed:
                if later.kind in {Kind.UNDO, Kind.DELETE} and run.id in later.settings.get("of", ()):
                    raise UsageError(
                        _(
                            "{run} cannot be joined: run {by} undid it, or deleted its files.",
                            run=found[-1].named,
                            by=later.id,
                        )
                    )
        if not found or found[-1].ledger is not ledger:
            raise UsageError(_("{name} has no run of a share (--share).", name=ledger.name))
    if left:
        raise UsageError(_("None of these ledgers has the run {ids}.", ids=as_list(sorted(left))))
    return sorted(found, key=lambda one: one.share.number)


def _check_alike(shares: Sequence[_ShareRun]) -> None:
    """Raise UsageError unless these are shares of the same work."""
    first = shares[0]
    for one in shares[1:]:
        for what, differ in (
            (_("the number of shares"), one.share.of != first.share.of),
            (_("the list"), one.run.list_sha256 != first.run.list_sha256),
            (_("the command"), one.run.kind != first.run.kind),
            (_("the target"), one.run.target != first.run.target),
            (_("the part of the list"), one.selection != first.selection),
            (_("the columns"), one.run.headers != first.run.headers),
        ):
            if differ:
                raise UsageError(
                    _("{one} and {other} differ in {what}.", one=first.named, other=one.named, what=what)
                )


def _check_numbers(shares: Sequence[_ShareRun]) -> None:
    """Raise UsageError unless these are all shares of a list, each once."""
    of, by_number = shares[0].share.of, defaultdict(list)
    for one in shares:
        by_number[one.share.number].append(one)
    for twice in by_number.values():
        if len(twice) > 1:
            raise UsageError(
                _(
                    "share {share} appears twice: {runs}.",
                    share=twice[0].share,
                    runs=as_list(one.named for one in twice),
                ),
                _("Leave out one of the ledgers, or choose its run with --run."),
                options=["--run"],
            )
    if missing := [Share(number, of) for number in range(1, of + 1) if number not in by_number]:
        raise UsageError(_("these shares are missing: {missing}.", missing=as_list(missing, _LISTED)))


def _check_rows(shares: Sequence[_ShareRun]) -> None:
    """Raise UsageError unless all shares are finished, and have all rows of the list."""
    for one in shares:
        for run in (one.run, *one.retries):
            if run.finished_at is None:
                raise UsageError(
                    _("{run} is unfinished.", run=replace(one, run=run).named),
                    _("Resume it there first, so that no row is sent from two ledgers."),
                )
    found = sum(one.run.rows for one in shares)
    for one in shares:
        if (listed := int(one.run.settings.get("listed", found))) != found:
            raise UsageError(
                _(
                    "the list has {listed}, but its shares have {found:,} together: their merchants files differed.",
                    listed=ngettext("{n:,} row", "{n:,} rows", listed),
                    found=found,
                )
            )


def _joined(shares: Sequence[_ShareRun]) -> _Content:
    """Return the content of the joined run: what all shares have in common as the first one has it, the sums over all."""
    contents = [one.ledger.content(one.run) for one in shares]
    records = [one.run for one in contents]
    ids = [content.id for content in contents]
    oldest = min(records, key=lambda record: (record["created_at"], record["id"]))
    # The same shares give the same id, so that a second join finds what the first one wrote.
    joined_id = f"{oldest['id'][:15]}-{sha256(' '.join(ids).encode()).hexdigest()[:4]}"
    settings = {**shares[0].run.settings, "selection": shares[0].selection, "joined": ids}
    for name in ("share", "listed", UNDELIVERED):
        settings.pop(name, None)
    backups = [str(one.run.settings["backup"]) for one in shares if one.run.settings.get("backup")]
    if backups:
        settings["backup"] = str(Path(backups[0]).with_name(joined_id))
    summed = ("rows", "seconds", "link_calls", "upload_calls")
    phases = Counter[str]()
    for content in contents:
        phases.update({one["phase"]: one["seconds"] for one in content.tables[spent]})
    run = {
        **records[0],
        **{name: sum(record[name] for record in records) for name in summed},
        **{name: _all_of(records, name) for name in ("note", "operator", "host")},
        "id": joined_id,
        "settings": json.dumps(settings, ensure_ascii=False, sort_keys=True),
        "created_at": oldest["created_at"],
        "finished_at": max(record["finished_at"] for record in records),
        "stopped": next(filter(None, (record["stopped"] for record in records)), ""),
        "out": "",
        "report": "",
    }
    environments, places = _environments(shares, contents)
    return _Content(
        run,
        {
            envs: environments,
            spent: [{"phase": phase, "seconds": seconds} for phase, seconds in sorted(phases.items())],
        },
        lambda: _merged(contents, places),
    )


def _all_of(records: Iterable[dict[str, Any]], name: str) -> str:
    return ", ".join(dict.fromkeys(record[name] for record in records if record[name]))


def _environments(
    shares: Sequence[_ShareRun], contents: Sequence[_Content]
) -> tuple[list[dict[str, Any]], list[dict[int, int]]]:
    """Return the environments of the joined run, in order of appearance, and their new numbers by share and number."""
    lines = [one.ledger.first_lines(one.run) for one in shares]
    order = sorted((line, at, number) for at, first in enumerate(lines) for number, line in first.items())
    places: list[dict[int, int]] = [{} for _one in shares]
    by_number = [{one["no"]: one for one in content.tables[envs]} for content in contents]
    for new, (_line, at, number) in enumerate(order):
        places[at][number] = new
    return [{**by_number[at][number], "no": new} for new, (_line, at, number) in enumerate(order)], places


def _merged(contents: Sequence[_Content], places: Sequence[dict[int, int]]) -> Iterator[tuple[Any, ...]]:
    """Merge the rows of all shares in the order of the list. Raises UsageError if two have the same line."""

    def renumbered(content: _Content, new: dict[int, int]) -> Iterator[tuple[Any, ...]]:
        return ((line, new[place], *more) for line, place, *more in content.rows())

    last = -1
    for record in heapq.merge(*map(renumbered, contents, places), key=itemgetter(0)):
        if record[0] == last:
            raise UsageError(
                _("line {line} of the list is in two shares: their merchants files differed.", line=last)
            )
        last = record[0]
        yield record
