"""Reads settings files and other TOML; says whether a settings file that was found, not named, may be believed.

Such a file starts programs and says where tokens go.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import Any

from tcb_ops import shell
from tcb_ops.disk import open_regular
from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text, _
from tcb_ops.system_errors import system_reason

ROOT = 0


class Trust(StrEnum):
    """Who may have written a settings file."""

    OWN = "own"
    GROUP = "group"
    """Also the members of a group."""
    EVERYBODY = "everybody"
    STRANGER = "stranger"
    """Its owner, who is neither this user nor root."""


def trust(uid: int, file: os.stat_result, folder: os.stat_result) -> Trust:
    """Return who may have written a settings file, by its owner and mode and by those of its folder.

    =========  ================  ==================  =========
    file of    file writable by  folder writable by  result
    =========  ================  ==================  =========
    this user  its owner         its owner           OWN
    root       its owner         its owner           OWN
    this user  its owner         everybody, sticky   OWN
    this user  its group         its owner           GROUP
    this user  its owner         its group           GROUP
    this user  its owner         its group, sticky   OWN
    another    its owner         its owner           STRANGER
    another    its owner         everybody, sticky   STRANGER
    this user  everybody         its owner           EVERYBODY
    this user  its owner         everybody           EVERYBODY
    =========  ================  ==================  =========

    In a sticky folder, only a file's owner can replace it.
    """
    if file.st_uid not in {uid, ROOT}:
        return Trust.STRANGER
    writers = file.st_mode
    if not folder.st_mode & stat.S_ISVTX:
        writers |= folder.st_mode
    if writers & stat.S_IWOTH:
        return Trust.EVERYBODY
    return Trust.GROUP if writers & stat.S_IWGRP else Trust.OWN


def open_found(file: Path) -> tuple[int, Trust]:
    """Open a settings file that was found; return its descriptor, and who may have written it, OWN on Windows.

    What is looked at is what is opened, even if another user exchanges files meanwhile. Raises OSError if the file is missing
    or cannot be opened, SettingsError if it is not a regular file, or if everybody or a stranger may have written it.
    """
    if os.name == "nt":
        return os.open(file, os.O_RDONLY), Trust.OWN
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _not_used(
            _("{file} in the working folder is a link, so it is not used.", file=file), file
        ) from None
    try:
        entry = os.fstat(descriptor)
        writers = trust(os.geteuid(), entry, file.parent.stat())
        _refuse(file, writers, entry.st_mode)
    except (OSError, SettingsError):
        os.close(descriptor)
        raise
    return descriptor, writers


def _refuse(file: Path, writers: Trust, mode: int) -> None:
    """Raise SettingsError for everybody, strangers, and a pipe or a device, OSError for a folder."""
    if writers is Trust.STRANGER:
        problem = _("{file} in the working folder belongs to another user, so it is not used.", file=file)
    elif writers is Trust.EVERYBODY:
        problem = _(
            "{file} in the working folder, or the folder itself, can be changed by every user, so it is not used.",
            file=file,
        )
    elif stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "a folder")
    elif not stat.S_ISREG(mode):
        raise SettingsError(_("{file}: this is not a regular file but a pipe or a device.", file=file))
    else:
        return
    raise _not_used(problem, file)


def _not_used(problem: Text, file: Path) -> SettingsError:
    fix = _(
        "Settings run programs and say where tokens are sent. If you have read the file and trust it, name it: {--config} "
        "{file}",
        file=shell.quote(str(file.absolute())),
    )
    return SettingsError(problem, fix)


def with_found_file(target: Text, writers: Trust | None, file: str) -> Text:
    """Return the line that names the target, with the settings file if it was found; `writers` None: it was not."""
    if writers is None:
        return target
    if writers is Trust.GROUP:
        return _("{target} · {file}, which a group can change", target=target, file=file)
    return _("{target} · {file}", target=target, file=file)


# --- TOML -----------------------------------------------------------------------------------------------------------


def read_text(file: int | Path, name: Path) -> str:
    """Read a text file, or an open one, which is closed. Raises SettingsError with its name."""
    try:
        with open_regular(file) if isinstance(file, Path) else os.fdopen(file, "rb") as content:
            return content.read().decode("utf-8-sig")
    except OSError as error:
        raise cannot_be_read(name, error) from None
    except UnicodeDecodeError:
        raise SettingsError(_("{file} is not UTF-8 text: save it as UTF-8", file=name)) from None


def cannot_be_read(file: Path, error: OSError) -> SettingsError:
    """Return the error that says why a file cannot be read."""
    return SettingsError(_("{file} cannot be read: {why}.", file=file, why=system_reason(error)))


def parse_toml(text: str, file: Path) -> dict[str, Any]:
    """Parse a TOML file's text. Raises SettingsError with the line that cannot be read, never quoting it."""
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # the parser's text is English only and may quote a value
        at_line = re.search(r"\(at line (\d+), column \d+\)$", str(error))
        line = int(at_line[1]) if at_line else len(text.splitlines())
    except (RecursionError, ValueError):
        problem = _(
            "{file} cannot be used: it has thousands of nested brackets, or of digits in a row.", file=file
        )
        raise SettingsError(problem) from None
    raise SettingsError(
        _("{file}:{line}: this is not TOML.", file=file, line=line),
        _(
            'Write each name once, as NAME = VALUE, and text in straight quotation marks: lang = "zh". In a path write / in '
            "place of each \\."
        ),
    )
