"""Reading the table of stored files, and the rows that may be about to change it. And which runs belong together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from tcb_ops.errors import LedgerDamagedError, RunNotFoundError
from tcb_ops.i18n import _, ngettext
from tcb_ops.kinds import MissingKind, kind_named
from tcb_ops.ledger.connection import LedgerConnection
from tcb_ops.ledger.files import DIFFERING, FILE_COLUMNS, FILES, OwnFile, RunName, StoredFile, stored_file
from tcb_ops.ledger.records import RunRecord
from tcb_ops.ledger.schema import any_of, like, sql_list
from tcb_ops.model import STORED_OUTCOMES, Outcome, Row

if TYPE_CHECKING:
    from tcb_ops.ledger.reader import LedgerReader

_CHUNK = 1_000
"""Paths that the ledger is asked about at once."""
_OLDER = 20
"""Versions of a file before an upload's that are looked up."""
Place: TypeAlias = tuple[str, str]
"""An environment and a path."""


class FileReader(LedgerConnection):
    """Reads what is known of paths."""

    def files(self, target: str, places: Collection[Place], leave_out: int = -1) -> dict[Place, StoredFile]:
        """Return what is known of paths of a target's environments. The pending rows of the run `leave_out` do not count."""
        if not places:
            return {}
        envs = {env for env, _path in places}
        query = f"SELECT env, number FROM stores WHERE target = ? AND {any_of('env', envs)}"
        stores = dict(self.fetch(query, (target, *envs)))
        env_of = {number: env for env, number in stores.items()}
        keys = [(stores[env], path) for env, path in places if env in stores]
        # First: a row that ends meanwhile is in both.
        pending = self._pending(target, leave_out, keys)
        marks = ", ".join(["(?, ?)"] * len(keys))
        query = f"""
            WITH wanted (store, path) AS (VALUES {marks}) SELECT files.store, files.path, {FILE_COLUMNS}
            FROM wanted CROSS JOIN {FILES} WHERE files.store = wanted.store AND files.path = wanted.path"""
        records = self.fetch(query, [value for key in keys for value in key]) if keys else []
        named = {number for record in records for number in (record[2], record[5], *record[-4:-2]) if number}
        names = self._names(named)
        return {
            (env_of[store], path): stored_file(record, names, pending.get((store, path), ()))
            for store, path, *record in records
        }

    def certain_files(self, run: RunRecord, rows: Sequence[Row]) -> dict[str, StoredFile]:
        """Return by path the files that are certain to be where rows of one environment of a run send theirs."""
        files = self.files(run.target, [(row.env, row.path) for row in rows], run.number)
        return {path: file for (_env, path), file in files.items() if file.is_known}

    def known_files(self, rows: Iterable[Row], target: str) -> Iterator[tuple[Row, StoredFile | None]]:
        """Stream the valid rows, each with what is known of its path; see `files`."""
        valid = (row for row in rows if not row.invalid)
        while some := list(islice(valid, _CHUNK)):
            files = self.files(target, [(row.env, row.path) for row in some])
            yield from ((row, files.get((row.env, row.path))) for row in some)

    def with_own_files(
        self, rows: Iterable[Row], uploads: Sequence[RunRecord]
    ) -> Iterator[tuple[Row, StoredFile | None, OwnFile | None]]:
        """Stream rows of an upload, each with what is known of its path, and what the upload and its retries stored."""
        stream = iter(rows)
        while some := list(islice(stream, _CHUNK)):
            own = self.own_files(uploads, [row.line for row in some])
            for row, file in self.known_files(some, uploads[0].target):
                yield row, file, own.get(row.line)

    def own_files(self, uploads: Sequence[RunRecord], lines: Collection[int]) -> dict[int, OwnFile]:
        """Return by line what an upload and its retries, the oldest first, stored or left unchanged."""
        query = f"""
            SELECT line, outcome, md5, COALESCE(bytes, 0), file_id, COALESCE(content_type, ''), COALESCE(cache_control, ''),
                replaced_run, replaced_line
            FROM rows WHERE {any_of("run", uploads)} AND {any_of("line", lines)}
            AND outcome IN ({sql_list(STORED_OUTCOMES)}) ORDER BY run"""
        records = self.fetch(query, (*(run.number for run in uploads), *lines))
        names = self._names({record[-2] for record in records if record[-1]})
        own: dict[int, OwnFile] = {}
        for (
            line,
            outcome,
            md5,
            size,
            file_id,
            content_type,
            cache_control,
            replaced,
            replaced_line,
        ) in records:
            first = own.get(line)
            sent = frozenset({md5} if outcome == Outcome.UPLOADED else ()) | (
                first.sent if first else frozenset()
            )
            before = names[replaced].id if replaced_line else ""
            own[line] = OwnFile(
                md5, size, file_id, content_type, cache_control, sent, first.replaced if first else before
            )
        return own

    def older_md5s(self, runs: Collection[str], line: int) -> set[str]:
        """Return the MD5s of the files that a row of these runs, and the rows before it, have replaced, as far as known."""
        query = f"""
            WITH RECURSIVE before (run, line, depth) AS (
                SELECT replaced_run, replaced_line, 1 FROM rows
                WHERE run IN (SELECT number FROM runs WHERE {any_of("id", runs)}) AND line = ?
                UNION ALL
                SELECT rows.replaced_run, rows.replaced_line, depth + 1 FROM before
                JOIN rows ON rows.run = before.run AND rows.line = before.line WHERE depth < {_OLDER})
            SELECT DISTINCT rows.md5 FROM before JOIN rows ON rows.run = before.run AND rows.line = before.line"""
        return {md5 for (md5,) in self.fetch(query, (*runs, line)) if md5}

    def check_files(self, run: RunRecord) -> None:
        """Raise LedgerDamagedError if the table of stored files lacks what a run has left, or has less than that."""
        if not (replacing := run.kind.replacing):
            return
        ((differing,),) = self.fetch(DIFFERING.format(sql_list(replacing)), (run.number,))
        if differing:
            text = ngettext(
                "The ledger {name} is damaged: its table of stored files differs from run {id} at {n:,} path.",
                "The ledger {name} is damaged: its table of stored files differs from run {id} at {n:,} paths.",
                differing,
                name=self.name,
                id=run.id,
            )
            fix = _(
                "Until the table is made again, this run is not resumed, undone or deleted{tcb-ops files:: `tcb-ops files --repair` "
                "makes it from the runs}."
            )
            raise LedgerDamagedError(text, fix)

    def stores(self, target: str) -> dict[int, tuple[str, str, str]]:
        """Return the environments of a target, sorted, by number: env, merchant, appid. The merchant is that of the newest run."""
        query = """
            SELECT stores.number, stores.env, COALESCE(envs.merchant, ''), COALESCE(envs.appid, '') FROM stores
            LEFT JOIN envs ON envs.store = stores.number
            AND envs.run = (SELECT MAX(run) FROM envs AS newer WHERE newer.store = stores.number)
            WHERE stores.target = ? ORDER BY stores.env"""
        return {
            number: (env, merchant, appid) for number, env, merchant, appid in self.fetch(query, (target,))
        }

    def count_files(self, stores: Collection[int], path: str = "") -> list[tuple[bool, bool, bool, int]]:
        """Count paths of environments: whether a change is known, a file is there, and a run uploaded it; their number."""
        query = f"""
            SELECT changed IS NOT NULL AS known, md5 <> '' AS there, uploaded, COUNT(*) FROM files
            WHERE store IN ({sql_list(stores)}) AND path LIKE ? ESCAPE '/' GROUP BY 1, 2, 3"""
        counted = self.fetch(query, (f"%{like(path)}%",))
        return [
            (bool(known), bool(there), bool(uploaded), count) for known, there, uploaded, count in counted
        ]

    def list_files(
        self, stores: Mapping[int, str], target: str, path: str = ""
    ) -> Iterator[tuple[str, str, StoredFile]]:
        """Stream the files of a target's environments, in order: environment, path, what is known. `path`: a part of the path."""
        condition = "store = ? AND path LIKE ? ESCAPE '/'"
        query = f"SELECT path FROM files WHERE {condition} ORDER BY path{self.dialect.by_code_point}"
        for number, env in stores.items():
            paths = (each for (each,) in self.stream(query, (number, f"%{like(path)}%")))
            while some := list(islice(paths, _CHUNK)):
                files = self.files(target, [(env, each) for each in some])
                yield from ((env, each, files[env, each]) for each in some if (env, each) in files)

    def _names(self, numbers: Collection[int]) -> dict[int, RunName]:
        """Return runs by their numbers."""
        listed = any_of("number", numbers)
        query = f"""
            SELECT number, id, kind, FALSE FROM runs WHERE {listed}
            UNION ALL SELECT number, id, '', TRUE FROM pruned_runs WHERE {listed}"""
        return {
            number: RunName(name, pruned=bool(pruned), restores=_restores(kind))
            for number, name, kind, pruned in self.fetch(query, (*numbers, *numbers))
        }

    def _pending(
        self, target: str, leave_out: int, keys: Sequence[tuple[int, str]]
    ) -> dict[tuple[int, str], list[tuple[int, str, bool]]]:
        """Return the pending rows of unfinished runs that change the store, by (store, path): a call may be under way.

        Each is (number of the newest run when theirs was last at work, its id, whether it may put another file there).
        """
        condition = "changes_store AND target = ? AND finished_at IS NULL AND number <> ?"
        runs = {run.number: run for run in self.stored_runs(condition, (target, leave_out))}
        if not runs or not keys:
            return {}
        stores, paths = {store for store, _ in keys}, {path for _, path in keys}
        # `CROSS JOIN` has SQLite take the tables in this order.
        query = f"""
            SELECT envs.store, rows.path, rows.run
            FROM envs CROSS JOIN rows {self.dialect.index_hint.format("rows_by_place")}
            WHERE {any_of("envs.run", runs)} AND {any_of("envs.store", stores)} AND rows.run = envs.run
            AND rows.place = envs.no AND {any_of("rows.path", paths)} AND rows.outcome = 'pending' ORDER BY rows.run"""
        pending: dict[tuple[int, str], list[tuple[int, str, bool]]] = {}
        for store, path, number in self.fetch(query, (*runs, *stores, *paths)):
            run = runs[number]
            at_work = (max(run.newest_run, number), run.id, _restores(run.kind))
            pending.setdefault((store, path), []).append(at_work)
        return pending


def _restores(kind_name: str) -> bool:
    """Return whether a run of a kind may put back a file that no run has sent. One that is not known counts as such."""
    kind = kind_named(kind_name)
    puts_back = kind.takes_back and any(outcome.stored for outcome in kind.replacing)
    return puts_back or isinstance(kind, MissingKind)


# --- runs that belong together -----------------------------------------------------------------------------------


def family_of(ledger: LedgerReader, run: RunRecord) -> list[RunRecord]:
    """Return the original of `run` (itself, unless it is a retry), then its retries, the oldest first."""
    while run.parent:
        try:
            run = ledger.run(run.parent)
        except RunNotFoundError:  # the parent was deleted: this is the oldest run that remains
            break
    return [run, *ledger.retries(run)]


def corrections_of(ledger: LedgerReader, run: RunRecord) -> list[RunRecord]:
    """Return the runs of corrected fix-me files and failed.csv of `run` and its retries, the newest first."""
    return [other for other in ledger.runs(run.target, damaged=[]) if other.corrects == run.id]


def columns_of(headers: Sequence[str], others: Sequence[str]) -> list[int]:
    """Return where each of a run's headers is among those of another one, which may have more columns.

    Raises ValueError with the first missing header.
    """
    rest: list[str | None] = list(others)
    columns = []
    for header in headers:
        if header not in rest:
            raise ValueError(header)
        columns.append(rest.index(header))
        rest[columns[-1]] = None
    return columns


def merged_runs(ledger: LedgerReader, run: RunRecord) -> list[RunRecord]:
    """Return the original of a run, or of the one that it corrects; then its retries and corrections, the oldest first."""
    original, *retries = family_of(ledger, run)
    if original.corrects:
        original, *retries = family_of(ledger, ledger.run(original.corrects))
    for correction in corrections_of(ledger, original):
        retries += family_of(ledger, correction)
    return [original, *sorted(retries, key=lambda retry: retry.number)]
