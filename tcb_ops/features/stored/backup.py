"""The backup of an upload: what it overwrote, and what it was about to send.

No file in it is ever replaced, so that a process which was frozen while another one continued its rows cannot spoil what that one
has saved.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile

from tcb_ops.details import detail
from tcb_ops.disk import make_folder, sync_to_disk
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.features.stored import StoredCode
from tcb_ops.i18n import Text, _
from tcb_ops.model import Row
from tcb_ops.system_errors import system_reason

_LARGEST_RECORD = 1024 * 1024
"""Bytes that are read of a record, which has some hundred."""


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
    version: int = 1
    """1 for the first record of a row, then 2, 3, …: other bytes were sent, or somebody else had changed the file, before a
    resumed run or a retry."""

    def has(self, etag: str) -> bool:
        """Return whether an object with this ETag is the saved file; an empty one means that nothing is there."""
        return etag == self.md5 or bool(etag and etag == self.etag)

    def may_be_ours(self, uploaded: Collection[str]) -> bool:
        """Return whether the saved bytes are those that the upload sent: then nothing shows that they were there before.

        `uploaded`: the MD5s that the ledger says it stored.
        """
        return bool(self.md5) and self.md5 in {*uploaded, *self.sent}


class BackupError(TcbOpsError):
    """The folder cannot be written to, or a record in it is damaged."""


def check_folder(folder: Path) -> None:
    """Make a folder for backups. Raises UsageError if it cannot be written, before anything is sent."""
    try:
        make_folder(folder.absolute(), 0o700)
        with TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise UsageError(_("{folder} is not a folder.", folder=folder)) from None
    except OSError as error:
        text = _("Backups cannot be written to {folder}: {why}.")
        raise UsageError(text.format(folder=folder, why=system_reason(error))) from None


class Backup:
    """The backup of one run, which several processes may write. Only its owner may read its files.

    ====================  ==============================================================================
    `<line>.json`         the first record: what was at a row's path, and what is about to be sent there
    `<line>.2.json`, …    a further one: other bytes are sent, or somebody else had changed the file before the row went on
    `<line>-<md5>.data`   the bytes of a record
    `<line>.….part`       being written, or left by a process that was killed
    ====================  ==============================================================================
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data(self, line: int, md5: str) -> Path:
        """Return where a row's bytes are."""
        return self.folder / f"{line:07d}-{md5}.data"

    def record(self, line: int, version: int = 1) -> Path:
        """Return where a row's record is."""
        return self.folder / (f"{line:07d}.json" if version == 1 else f"{line:07d}.{version}.json")

    def part(self, line: int) -> Path:
        """Return a name for a file that is to be written, which no other process has."""
        return self.folder / f"{line:07d}.{os.getpid()}-{secrets.token_hex(8)}.part"

    def read(self, line: int) -> SavedFile | None:
        """Return what was last saved for a row, and all that was sent; None where nothing was. Raises BackupError."""
        saved: SavedFile | None = None
        sent: dict[str, None] = {}
        version = 1
        while (text := _read(file := self.record(line, version))) is not None:
            try:
                record = json.loads(text)
                sent |= dict.fromkeys(map(str, record["sent"]))
                fields = ("env", "path", "md5", "content_type", "cache_control", "etag")
                texts = {name: str(record[name]) for name in fields}
                saved = SavedFile(**texts, sent=(), version=version)
            except (KeyError, TypeError, ValueError, RecursionError):
                raise BackupError(detail(StoredCode.BACKUP_DAMAGED, file=str(file))) from None
            version += 1
        return None if saved is None else replace(saved, sent=tuple(sent))

    def of_row(self, row: Row) -> SavedFile | Text:
        """Return what was saved for a row, or what is wrong with its record."""
        try:
            saved = self.read(row.line)
        except BackupError as error:
            return error.text
        if saved is None or (saved.env, saved.path) != (row.env, row.path):  # not known what was there
            return detail(StoredCode.BACKUP_DAMAGED, file=str(self.record(row.line)))
        return saved

    def save(self, line: int, saved: SavedFile, written: Path | None = None) -> bool:
        """Keep a record, and the bytes in `written`: whole and on the disk, or not at all. Raises BackupError.

        Returns False, and changes nothing, if another process has written this version of the record.
        """
        file, part = self.record(line, saved.version), self.part(line)
        try:
            with _disk_errors(file), suppress(FileExistsError):
                make_folder(self.folder, 0o700)
                if file.exists():
                    return False
                if written is not None and not self.data(line, saved.md5).exists():
                    written.replace(self.data(line, saved.md5))
                    sync_to_disk(self.folder)  # before a record names it
                _write(part, saved)
                try:
                    os.link(part, file)
                except FileExistsError:
                    raise
                except OSError:  # a file system without links
                    _write(file, saved)
                sync_to_disk(self.folder)
                return True
            return False
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def note_sent(self, line: int, md5: str) -> None:
        """Add an MD5 to what a row may have sent: on the disk when this returns. Raises BackupError."""
        while (saved := self.read(line)) is not None and md5 not in saved.sent:
            self.save(line, replace(saved, sent=(md5,), version=saved.version + 1))


def _open(file: Path, flags: int) -> int:
    """Open a file for its owner alone; a pipe does not block. Raises OSError."""
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0), 0o600)


def _write(file: Path, saved: SavedFile) -> None:
    record = asdict(saved)
    del record["version"]  # the file's name says it
    with os.fdopen(_open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as out:
        out.write(json.dumps(record, ensure_ascii=False).encode())
        out.flush()
        os.fsync(out.fileno())


def _read(file: Path) -> str | None:
    """Return the text of a small regular file of a backup; None where there is no file. Raises BackupError."""
    with _disk_errors(file), suppress(UnicodeDecodeError):
        try:
            fd = _open(file, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_RECORD:
                return os.read(fd, _LARGEST_RECORD).decode()
        finally:
            os.close(fd)
    raise BackupError(detail(StoredCode.BACKUP_DAMAGED, file=str(file)))


class Download:
    """The bytes of a file on their way to the disk, and their MD5. Raises BackupError."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._hash = hashlib.md5(usedforsecurity=False)
        with _disk_errors(file):
            make_folder(file.parent, 0o700)
            self._stream = os.fdopen(_open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(chunk)
        with _disk_errors(self.file):
            self._stream.write(chunk)

    @property
    def md5(self) -> str:
        """The MD5 of all bytes so far, hex."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Bring the bytes to the disk."""
        with _disk_errors(self.file), self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def discard(self) -> None:
        """Remove what was written and not kept."""
        with suppress(OSError):
            self.file.unlink(missing_ok=True)


@contextmanager
def _disk_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = system_reason(error)
        raise BackupError(detail(StoredCode.BACKUP_ACCESS, file=str(file), why=reason)) from None
