"""What an upload overwrote: saved in a folder before the upload, read again by an undo.

`<folder>/<run>/<line>.json` says what was at a row's path, and what is about to be sent there; `<line>.data` has the bytes
that were there. A resumed run, or a retry, saves again only what is neither.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import _
from tcb_ops.resources import system_reason


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
            self.error = _backup_error(self._path, error)
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
            self.error = self.error or _backup_error(self._path, error)

    def discard(self) -> None:
        """Remove what was written and not kept."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.file or Path()


def _backup_error(file: Path, error: OSError) -> BackupError:
    return BackupError(detail(DetailCode.BACKUP_ACCESS, file=str(file), why=system_reason(error)))
