"""What is known of the file at a path, from the ledger and from a backup, and what confirm, delete and undo decide from it.

`confirm_outcome`, `undo_step`, `written_since`, `is_ours` and `may_be_stored` are pure. Sources: batchDownloadFile, batchDeleteFile, and COS's HEAD Object.

`Backup` writes and reads what an upload overwrote: `<folder>/<run>/<line>.json` says what was at a row's path, and what is about to be
sent there; `<line>.data` has the bytes that were there. A resumed run, or a retry, saves a file again only if it is neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO, TypeAlias

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import Text, _
from tcb_ops.model import Kind, Outcome, Row
from tcb_ops.resources import system_reason
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import EarlierUpload, RunRecord
from tcb_ops.wechat.local_files import FileChangedError, FileUnreadableError, hash_file

FILES_PER_CALL = 50
"""The most that batchdownloadfile and batchdeletefile take."""
ARGUMENT_ERRORS = frozenset({"40097", "40101", "-501007", "-601002"})
"""Errcodes that say that a value is wrong, or that there are too many: the call is halved."""
_CHUNK = 500
"""Paths that the ledger is asked about at once."""
Undone: TypeAlias = Mapping[str, frozenset[str]]
"""Undos, each with the runs that it undoes."""
_NOT_CERTAIN = frozenset({Outcome.FAILED, Outcome.PENDING})
_IN_PARTS = re.compile(r"[0-9a-f]{32}-[0-9]+")


class UndoStep(StrEnum):
    """What an undo does about one file."""

    CONFLICT = "conflict"
    NOTHING = "nothing"
    """It is as it was before the upload."""
    DELETE = "delete"
    RESTORE = "restore"
    NOT_KNOWN = "not_known"
    """It may be the upload's, or somebody else's: it stays."""


def confirm_outcome(etag: str, md5: str, older: Collection[str]) -> Outcome:
    """Decide what a stored file's ETag says of a row.

    ===============================  ===========
    ETag, without quotes             outcome
    ===============================  ===========
    the MD5 that was uploaded        present
    `…-N`                            foreign
    an MD5 that was there before     stale
    anything else                    different
    ===============================  ===========

    `older`: the MD5s that the ledger or a backup knows for the key from before.
    """
    if etag == md5:
        return Outcome.PRESENT
    if _IN_PARTS.fullmatch(etag):
        return Outcome.FOREIGN
    return Outcome.STALE if etag in older else Outcome.DIFFERENT


def undone_outcome(etag: str | None, before: str) -> Outcome | None:
    """Decide what confirms that an upload was undone at a path; None: what is there is compared like any other file.

    ==========================  =======================  =======
    the undo left               the store has            outcome
    ==========================  =======================  =======
    nothing (`before` empty)    nothing (`etag` None)    undone
    nothing                     a file                   none
    a file, by its MD5          nothing                  absent
    a file                      that file                undone
    a file                      any other                none
    ==========================  =======================  =======
    """
    if etag is None:
        return Outcome.ABSENT if before else Outcome.UNDONE
    return Outcome.UNDONE if etag == before else None


def undo_step(
    now: str | None, ours: str, before: str | None, *, certain: bool = True, same_headers: bool = True
) -> UndoStep:
    """Decide how an upload of a file is undone.

    ==============================  ======================  ============
    now                             before the upload       step
    ==============================  ======================  ============
    what was there                  a file                  nothing
    the same, with other headers    a file                  restore
    ours                            a file                  restore
    anything else                   a file                  conflict
    missing                         missing                 nothing
    ours                            missing                 delete
    anything else                   missing                 conflict
    anything else, not certain      missing                 nothing
    ours or unknown, not certain    missing                 not known
    ==============================  ======================  ============

    Each is an MD5; None if the file is missing. `ours` is what the upload put there, empty if that is unknown. `certain`: it
    was stored, or a backup says what was there. `same_headers`: those of the upload are those from before.
    """
    if now == before and (same_headers or now != ours):
        return UndoStep.NOTHING
    if not certain and before is None:
        return UndoStep.NOTHING if ours and now != ours else UndoStep.NOT_KNOWN
    if now != ours or not ours:
        return UndoStep.CONFLICT
    return UndoStep.DELETE if before is None else UndoStep.RESTORE


def may_be_stored(outcome: Outcome, saved: bool | None, *, doubtful: bool) -> bool:
    """Decide whether a row of an upload is part of its undo.

    =========  ======  ========  ======
    outcome    saved   doubtful  part
    =========  ======  ========  ======
    uploaded   any     any       yes
    any        yes     any       yes
    failed     –       yes       yes
    refused    –       yes       yes
    any other                    no
    =========  ======  ========  ======

    `saved`: whether the backup has a record for the row, which is written before the file is sent; None without a backup.
    `doubtful`: the file may be stored all the same.
    """
    if saved is None and outcome in {Outcome.FAILED, Outcome.REFUSED}:
        return doubtful
    return outcome is Outcome.UPLOADED or bool(saved)


def written_since(
    written: Sequence[EarlierUpload],
    of: Collection[str],
    number: int,
    undone: Undone = MappingProxyType({}),
    *,
    doubtful: bool = False,
) -> str:
    """Return the run that changed a path after an upload, empty if there is none.

    ==============================================  =======
    the last change of the path that is certain     result
    ==============================================  =======
    is of a run in `of`                             none
    restored the file of a run in `of`              none
    restored what was there before a run in `of`    its run
    is older than the upload, which has no record   none
    is any other                                    its run
    ==============================================  =======

    `written`: what runs put at the path, the oldest first; `of`: the upload, its retries, and the runs that took it back;
    `number`: the upload's, which grows from run to run. `doubtful`: a row that may have changed the path counts, too.
    """
    without = {Outcome.UNCHANGED} if doubtful else {Outcome.UNCHANGED, *_NOT_CERTAIN}
    changes = [one for one in written if one.outcome not in without]
    if not any(one.run in of for one in changes):  # a pending row has no record
        changes = [one for one in changes if one.number > number]
    if not changes or changes[-1].run in of:
        return ""
    ours = [one.md5 for one in changes if one.run in of and one.outcome is Outcome.UPLOADED]
    last = changes[-1]
    restored = last.outcome is Outcome.RESTORED and undone.get(last.run, frozenset()).isdisjoint(of)
    return "" if restored and last.md5 in ours[-1:] else last.run


def is_ours(written: Sequence[EarlierUpload], undone: Undone, own: Collection[str] = ()) -> bool:
    """Return whether the file at a path is one that runs uploaded; a restored one may be another tool's.

    ==============================================================  ======
    the last entry that counts                                      result
    ==============================================================  ======
    none, or one after which the file is gone or not known          no
    uploaded, unchanged                                             yes
    restored, what an upload put there that the undo does not undo  yes
    restored, any other                                             no
    pending in an undo: it may be restored                          no
    ==============================================================  ======

    What failed, or is pending in an upload, left a file of ours there, if one was there. What the runs in `own` did does not
    count.
    """
    known = [
        one
        for one in written
        if one.run not in own
        and one.outcome is not Outcome.FAILED
        and (one.outcome is not Outcome.PENDING or one.run in undone)
    ]
    if not known or not known[-1].md5:
        return False
    last = known[-1]
    uploaded = {
        one.md5
        for one in known
        if one.outcome is Outcome.UPLOADED and one.run not in undone.get(last.run, frozenset())
    }
    return last.outcome is not Outcome.RESTORED or last.md5 in uploaded


class WrittenFiles:
    """What the ledger knows of the files that a confirm, an undo or a delete is about, looked at again before each call."""

    def __init__(self, ledger: LedgerReader, run: RunRecord) -> None:
        self._ledger, self._run = ledger, run
        self._of = [ledger.run(one) for one in run.settings.get("of", ())]
        self._undone = undone_uploads(ledger, run.target)
        took_back = Kind.UNDO if run.kind is Kind.CONFIRM else run.kind
        undoing = runs_about(ledger, self._of[0], took_back) if self._of else ()
        self._undoing_runs = {one.id for one in undoing}
        self._ids = {one.id for one in self._of} | self._undoing_runs

    def not_ours(self, written: Sequence[EarlierUpload]) -> Text | None:
        """Return why the file at a path is not to be touched; None if it may be.

        An undo compares what is there, a delete does not: for it, a change that is not certain counts. Files of a list are
        those that runs of this ledger uploaded, unless it was started with `foreign`.
        """
        if self._of:
            deletes = self._run.kind is Kind.DELETE
            since = written_since(written, self._ids, self._of[0].number, self._undone, doubtful=deletes)
        elif self._run.settings.get("foreign") or is_ours(written, self._undone):
            return None
        else:
            changes = [one.run for one in written if one.outcome is not Outcome.FAILED]
            if not changes:
                return detail(DetailCode.NOT_UPLOADED_HERE)
            since = changes[-1]
        return detail(DetailCode.WRITTEN_SINCE, run=since) if since else None

    def is_undone(self, written: Sequence[EarlierUpload]) -> bool:
        """Return whether an earlier run has taken the file back: what is there now is not the upload's."""
        certain = [one for one in written if one.outcome not in {Outcome.UNCHANGED, *_NOT_CERTAIN}]
        return bool(certain) and certain[-1].run in self._undoing_runs

    def planned_md5s(self, line: int) -> tuple[set[str], bool]:
        """Hash the local files that the upload and its retries planned for a line; return whether these are all."""
        found, complete = set[str](), True
        for run in self._of:
            for file, size, mtime_ns in self._ledger.planned_files(run, line):
                try:
                    found.add(hash_file(Path(run.root, file), size or 0, mtime_ns or 0))
                except (FileChangedError, FileUnreadableError):
                    complete = False  # it has changed since, or is a URL
        return found, complete


def undone_uploads(ledger: LedgerReader, target: str) -> dict[str, frozenset[str]]:
    """Return the undos of a target, each with the runs that it undoes."""
    undos = (run for run in ledger.runs(target, damaged=[]) if run.kind is Kind.UNDO)
    return {run.id: frozenset(run.settings.get("of", ())) for run in undos}


def runs_about(ledger: LedgerReader, subject: RunRecord, *kinds: Kind) -> list[RunRecord]:
    """Return the undos or the deletes of an upload's files."""
    about = (run for run in ledger.runs(subject.target, damaged=[]) if run.kind in kinds)
    return [run for run in about if subject.id in run.settings.get("of", ())[:1]]


def known_files(
    ledger: LedgerReader, rows: Iterable[Row], target: str, leave_out: int = -1, *, confirmed: bool = False
) -> Iterator[tuple[Row, list[EarlierUpload]]]:
    """Give each row with what runs to a target put at its path, the oldest first; not the run numbered `leave_out`.

    `confirmed`: with what confirmations found to differ.
    """
    stream = iter(rows)
    while some := list(islice(stream, _CHUNK)):
        by_env: defaultdict[str, list[str]] = defaultdict(list)
        for row in some:
            by_env[row.env].append(row.path)
        found = {
            env: ledger.written(target, leave_out, env, paths, confirmed=confirmed)
            for env, paths in by_env.items()
        }
        for row in some:
            yield row, found[row.env].get(row.path, [])


# --- backups -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SavedFile:
    """What was at a row's path before the upload."""

    env: str
    path: str
    md5: str
    """Hex; empty where nothing was there."""
    content_type: str = ""
    cache_control: str = ""
    etag: str = ""
    """The store's, where it is not the MD5, as of a file that was written in parts."""
    sent: tuple[str, ...] = ()
    """The MD5s of what the upload and its retries may have put there: recorded before each is sent."""

    def has(self, etag: str) -> bool:
        """Return whether an object with this ETag is the saved file; an empty one means that nothing is there."""
        return etag == self.md5 or bool(etag and etag == self.etag)


class BackupError(TcbOpsError):
    """The folder cannot be written to, or a record in it is damaged."""


def check_folder(folder: Path, *, make: bool = True) -> None:
    """Make a folder for backups. Raises UsageError if it cannot be written, before anything is sent.

    Without `make` the folder, or the nearest one above it, is only tried.
    """
    there = folder.absolute()
    try:
        if make:
            there.mkdir(parents=True, exist_ok=True)
        else:
            there = next(one for one in (there, *there.parents) if one.exists())
        with TemporaryFile(dir=there):
            pass
    except FileExistsError:
        raise UsageError(_("{folder} is not a folder.", folder=folder), options=["--backup"]) from None
    except OSError as error:
        raise UsageError(
            _("backups cannot be written to {folder}: {why}.", folder=folder, why=system_reason(error)),
            options=["--backup"],
        ) from None


class Backup:
    """The backup of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data(self, line: int) -> Path:
        """Return where a row's bytes are."""
        return self.folder / f"{line:07d}.data"

    def record(self, line: int) -> Path:
        """Return where a row's record is."""
        return self.folder / f"{line:07d}.json"

    def has(self, line: int) -> bool:
        """Return whether there is a record for a row."""
        return self.record(line).exists()

    def read(self, line: int) -> SavedFile | None:
        """Return what was saved for a row; None where nothing was. Raises BackupError."""
        file = self.record(line)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            texts = {
                name: str(found[name]) for name in ("env", "path", "md5", "content_type", "cache_control")
            }
            return SavedFile(
                **texts, etag=str(found.get("etag", "")), sent=tuple(map(str, found.get("sent", ())))
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _backup_error(file, error) from None
        except (KeyError, TypeError, ValueError, RecursionError):
            raise BackupError(detail(DetailCode.BACKUP_DAMAGED, file=str(file))) from None

    def save(self, line: int, saved: SavedFile, written: Path | None = None) -> None:
        """Keep a record, and the bytes in `written`: whole and on the disk, or not at all. Raises BackupError."""
        file = self.record(line)
        part = file.with_suffix(".json.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if written is not None:
                written.replace(self.data(line))
            with part.open("w", encoding="utf-8") as out:
                json.dump(asdict(saved), out, ensure_ascii=False)
                out.flush()
                os.fsync(out.fileno())
            part.replace(file)
        except OSError as error:
            raise _backup_error(file, error) from None


class Download:
    """The bytes of a file on their way to the disk, and their MD5. An error is kept: a sink must not raise."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        """None: the bytes are hashed only."""
        self.error: BackupError | None = None
        self._hash = hashlib.md5(usedforsecurity=False)
        self._stream: IO[bytes] | None = None
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._stream = file.open("wb")
            except OSError as error:
                self.error = _backup_error(file, error)

    def write(self, chunk: bytes) -> bool:
        """Take the next bytes; False ends the download."""
        self._hash.update(chunk)
        try:
            if self._stream is not None:
                self._stream.write(chunk)
        except OSError as error:
            self.error = _backup_error(self.file, error)
        return self.error is None

    @property
    def md5(self) -> str:
        """The MD5 of all bytes so far, hex."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Bring the bytes to the disk."""
        if self._stream is None:
            return
        try:
            with self._stream:
                self._stream.flush()
                os.fsync(self._stream.fileno())
        except OSError as error:
            self.error = self.error or _backup_error(self.file, error)

    def discard(self) -> None:
        """Remove what was written and not kept."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)


def _backup_error(file: Path | None, error: OSError) -> BackupError:
    return BackupError(detail(DetailCode.BACKUP_ACCESS, file=str(file), why=system_reason(error)))
