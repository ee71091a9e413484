"""The token store: a folder with one small file per appid, each replaced atomically.

Refresh tokens do not expire and must not be lost, even in a crash: a file is written beside its destination, synced
and renamed, then its folder is synced. One file for 500 merchants would have to be rewritten, under one lock, for
each refresh. The locks belong to the operating system, which releases them when a process dies.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from filelock import AsyncFileLock, FileLock, Timeout

from tcb_ops.details import DetailCode, detail
from tcb_ops.disk import make_folder, replacing
from tcb_ops.errors import SettingsError, TokenError, TokenSourceError
from tcb_ops.features.tokens import ComponentCode
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret
from tcb_ops.system_errors import raise_if_exhausted, system_reason
from tcb_ops.wechat.tokens import Token, is_token, read_object

POLL = 0.02
"""Seconds between attempts to take a lock."""
LONGEST_HOLD = 120.0
"""Seconds to wait for a lock: longer than any refresh takes."""
LARGEST_FILE = 64 * 1024
IDENTITY = "_platform.json"
"""The file that identifies the store's platform; no appid begins with `_`."""
LOCKS = ".locks"
_APPID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")


@dataclass(frozen=True, slots=True)
class StoredToken:
    """The stored tokens of one appid."""

    access: Secret | None
    refresh: Secret | None
    """None for the component itself, which has none."""
    renew_at: float = 0.0
    """Unix seconds from which the access token is renewed, before it expires."""
    expires_at: float = 0.0
    """Unix seconds."""

    @property
    def token(self) -> Token:
        """The access token."""
        return Token(self.access or Secret(""), self.expires_at, self.renew_at)

    def serves(self, refused: Secret | None, now: float) -> bool:
        """Return whether it can be used as it is: neither refused nor due for renewal."""
        return self.alive(refused, now) and now < self.renew_at

    def alive(self, refused: Secret | None, now: float) -> bool:
        """Return whether it can be used if it cannot be renewed."""
        return self.access is not None and self.access != refused and now < self.expires_at


class TokenStore:
    """The tokens of one platform at one API base. Creates the folder if it does not exist.

    Raises SettingsError if it cannot be read, belongs to another platform or API base, or is readable by others.
    """

    def __init__(self, folder: Path, component_appid: str, api_base: str) -> None:
        self._folder = folder
        self._locks = folder / LOCKS
        identity = {"schema": 1, "component_appid": component_appid, "api_base": api_base.rstrip("/")}
        try:
            self._open(identity)
        except OSError as error:
            raise_if_exhausted(error)
            text = _(
                "cannot be used ({why}): you must be able to read and write it, and its disk needs free space"
            )
            raise self._bad(text.format(why=system_reason(error))) from None

    def read(self, appid: str) -> StoredToken | None:
        """Return the stored tokens of an appid; None if there are none.

        Raises TokenError if only this file is invalid or unreadable, TokenSourceError if the whole store is unusable.
        """
        file = self._file(appid)
        try:
            with file.open("rb") as opened:
                stored = _read_record(opened.read(LARGEST_FILE), appid)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise_if_exhausted(error)
            problem = system_reason(error)
            its_own = isinstance(error, PermissionError | IsADirectoryError)
            if not its_own or not os.access(self._folder, os.X_OK):
                raise self._unusable(file, problem) from None
            reason = detail(DetailCode.CANNOT_BE_READ, why=problem)
        else:
            if stored is not None:
                return stored
            reason = detail(ComponentCode.NO_RECORD)
        raise TokenError(detail(ComponentCode.TOKEN_RECORD, file=file, reason=reason))

    def write(self, appid: str, token: StoredToken) -> None:
        """Store an appid's tokens. The caller holds its lock. Raises TokenSourceError if the file cannot be written."""
        access, refresh = (secret.reveal() if secret else "" for secret in (token.access, token.refresh))
        record = _Record(1, appid, access, token.expires_at, token.renew_at, refresh)
        file = self._file(appid)
        try:
            _replace(file, record)
        except OSError as error:
            raise_if_exhausted(error)
            raise self._unusable(file, system_reason(error)) from None

    @asynccontextmanager
    async def hold(self, appid: str) -> AsyncIterator[None]:
        """Hold an appid's lock against other tasks, threads and processes, without blocking the event loop.

        Raises TokenError if the lock is not released within two minutes.
        """
        self._file(appid)
        lock = AsyncFileLock(
            self._locks / f"{appid}.lock",
            timeout=LONGEST_HOLD,
            poll_interval=POLL,
            mode=0o600,
            thread_local=False,
            run_in_executor=False,
        )
        try:
            await lock.acquire()
        except Timeout:
            locked = detail(ComponentCode.TOKEN_LOCKED, longest_hold=LONGEST_HOLD)
            raise TokenError.of(appid, locked) from None
        except (OSError, NotImplementedError) as error:
            raise_if_exhausted(error)
            reason = system_reason(error) if isinstance(error, OSError) else _("it cannot be locked")
            raise self._unusable(self._locks, reason) from None
        try:
            yield
        finally:
            await lock.release()

    def _open(self, identity: dict[str, object]) -> None:
        make_folder(self._folder.parent)
        with suppress(FileExistsError):
            make_folder(self._folder, 0o700)
        if not self._folder.is_dir():
            raise self._bad(_("is not a folder"))
        names = {entry.name for entry in os.scandir(self._folder)}
        mark = self._folder / IDENTITY
        if IDENTITY not in names:
            # Only these files can remain from a process that was killed while creating the store.
            if names - {LOCKS, f".{IDENTITY}.part"} and not mark.exists():
                raise self._bad(_("contains other files and is not a token store: choose another folder"))
            self._locks.mkdir(mode=0o700, exist_ok=True)
            with FileLock(self._locks / f"{IDENTITY}.lock", timeout=LONGEST_HOLD, mode=0o600):
                if not mark.exists():
                    _replace(mark, identity)
        if os.name == "posix":
            for path in (self._folder, *self._folder.iterdir()):
                self._check_private(path)
        self._check_identity(identity)
        self._locks.mkdir(mode=0o700, exist_ok=True)

    def _check_private(self, path: Path) -> None:
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:  # a temporary file that has been renamed
            return
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a pipe would block
            text = _("contains {name}, which is neither a file nor a folder: remove it")
            raise self._bad(text.format(name=path.name))
        if mode & 0o077:
            text = _("may be read by others on this machine ({name}: {stat}): chmod -R go-rwx {folder}")
            raise self._bad(text.format(name=path.name, stat=stat.filemode(mode), folder=self._folder))

    def _check_identity(self, identity: dict[str, object]) -> None:
        stored = read_object((self._folder / IDENTITY).read_bytes()[:LARGEST_FILE])
        if wrong := [name for name, value in identity.items() if stored.get(name) != value]:
            text = _(
                "belongs to another platform, or another version wrote it (_platform.json: {names}): choose another "
                "folder"
            )
            raise self._bad(text.format(names=", ".join(wrong)))

    def _file(self, appid: str) -> Path:
        if not _APPID.fullmatch(appid):
            raise TokenError(detail(ComponentCode.NO_APPID, appid=shown(appid)))
        return self._folder / f"{appid}.json"

    def _bad(self, reason: Text) -> SettingsError:
        return SettingsError(_("Token store {folder} {why} (tokens.store).", folder=self._folder, why=reason))

    def _unusable(self, path: Path, reason: Text) -> TokenSourceError:
        return TokenSourceError(detail(ComponentCode.TOKEN_STORE, path=path, why=reason))


def _replace(file: Path, record: object) -> None:
    """Write a file atomically, readable only by its owner; the caller holds its lock."""
    with replacing(file, private=True) as fresh:
        fresh.write_bytes(msgspec.json.encode(record))


class _Record(msgspec.Struct):
    schema: Literal[1]
    appid: str
    access_token: str
    expires_at: float
    renew_at: float
    refresh_token: str


def _read_record(content: bytes, appid: str) -> StoredToken | None:
    try:
        record = msgspec.json.decode(content, type=_Record)
    except (msgspec.DecodeError, UnicodeDecodeError):  # its text may quote a token
        return None
    texts = (record.access_token, record.refresh_token)
    if record.appid != appid or not all(not text or is_token(text) for text in texts):
        return None
    access, refresh = (Secret(text) if text else None for text in texts)
    return StoredToken(access, refresh, record.renew_at, record.expires_at)
