"""Whether a settings file that was found, not named, may be believed: it starts programs and says where tokens go."""

from __future__ import annotations

import os
import shlex
import stat
from enum import StrEnum
from pathlib import Path

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text, _

ROOT = 0


class Trust(StrEnum):
    """Who may have written a settings file."""

    OWN = "own"
    GROUP = "group"
    """Also the members of a group."""
    EVERYBODY = "everybody"
    STRANGER = "stranger"
    """Its owner, who is neither this user nor root."""


def trust(uid: int, file: os.stat_result, folder: os.stat_result, *, named: bool) -> Trust:
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
    any        any               any, named          OWN
    =========  ================  ==================  =========

    In a sticky folder, only a file's owner can replace it. The mode of a symbolic link says nothing.
    """
    if named:
        return Trust.OWN
    if file.st_uid not in {uid, ROOT}:
        return Trust.STRANGER
    writers = 0 if stat.S_ISLNK(file.st_mode) else file.st_mode
    if not folder.st_mode & stat.S_ISVTX:
        writers |= folder.st_mode
    if writers & stat.S_IWOTH:
        return Trust.EVERYBODY
    return Trust.GROUP if writers & stat.S_IWGRP else Trust.OWN


def trust_of(file: Path) -> Trust:
    """Return who may have written a file that was found; for a symbolic link, also who may have set it. OWN on Windows."""
    if os.name == "nt":
        return Trust.OWN
    places = {file.absolute(), Path(os.path.realpath(file))}
    results = {
        trust(os.geteuid(), place.lstat(), place.parent.stat(), named=False)
        for place in places
        if place.exists()
    }
    return max(results, key=list(Trust).index, default=Trust.OWN)


def check_found(file: Path) -> Trust:
    """Return who may have written a settings file that was found. Raises SettingsError for everybody and for strangers."""
    who = trust_of(file)
    match who:
        case Trust.STRANGER:
            problem = _("{file} in the working folder belongs to another user, so it is not used.", file=file)
        case Trust.EVERYBODY:
            problem = _(
                "{file} in the working folder, or the folder itself, can be changed by every user, so it is not used.",
                file=file,
            )
        case _:
            return who
    fix = _(
        "Settings run programs and say where tokens are sent. If you have read the file and trust it, name it: --config "
        "{file}",
        file=shlex.quote(str(file.absolute())),
    )
    raise SettingsError(problem, fix, options=["--config"])


def with_found_file(target: Text, writers: Trust | None, file: str) -> Text:
    """Return the line that names the target, with the settings file if it was found; `writers` None: it was not."""
    if writers is None:
        return target
    if writers is Trust.GROUP:
        return _("{target} · {file}, which a group can change", target=target, file=file)
    return _("{target} · {file}", target=target, file=file)
