"""The files of a folder that a list is to be made of, and those that nobody means."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tcb_ops.cell_text import shown
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text

_JUNK = ("thumbs.db", "desktop.ini", "ehthumbs.db", "~$*", ".*")
"""What Windows, Office and the Mac leave in folders; `.*` holds .DS_Store and everything else that is hidden."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The files of a source."""

    folder: Path
    """What their names are relative to."""
    files: tuple[str, ...]
    """With forward slashes, sorted."""
    junk: int
    """Hidden and temporary files, hidden and linked folders: left out."""
    own: int
    """tcb-ops's own files (tokens, ledger, merchants, settings): left out."""
    excluded: int
    """Left out by `include` and `exclude`."""


def gather(
    source: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    own: frozenset[str] = frozenset(),
) -> Gathered:
    """Gather a file, or a folder with all that is below it.

    A pattern without a slash is for names, one with a slash for paths below the folder; case does not matter.
    `own` holds real paths of files and folders that are never taken: a token file must not be uploaded to anybody.

    Raises UsageError where the source is not there, cannot be read, or leaves no file.
    """
    folder = source if source.is_dir() else source.parent
    if not source.exists():
        raise UsageError(
            Text(
                f"{shown(str(source))}: there is no such file or folder",
                f"{shown(str(source))}：没有这个文件或文件夹",
            )
        )
    junk = ours = excluded = 0
    files = []
    for file in _below(folder, "") if source.is_dir() else [source.name]:
        if file.endswith("/") or any(fnmatchcase(file.rpartition("/")[2].casefold(), p) for p in _JUNK):
            junk += 1
        elif own and not own.isdisjoint(_real(folder / file)):
            ours += 1
        elif not is_meant(file, include, exclude):
            excluded += 1
        else:
            files.append(file)
    if not files:
        raise UsageError(
            Text(
                f"{shown(str(source))}: no file is left (hidden or temporary: {junk:,}; tcb-ops's own: {ours:,}; "
                f"left out by --include and --exclude: {excluded:,})",
                f"{shown(str(source))}：没有剩下任何文件（隐藏或临时文件 {junk:,} 个，tcb-ops 自己的文件 {ours:,} 个，"
                f"被 --include、--exclude 排除 {excluded:,} 个）",
            )
        )
    return Gathered(folder, tuple(sorted(files)), junk, ours, excluded)


def _real(file: Path) -> tuple[str, str]:
    real = os.path.realpath(file)
    return real, os.path.dirname(real)  # noqa: PTH120  strings, to be looked up among strings


def is_meant(file: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the patterns leave a file in.

    ==============  ============  ============  ======
    file            include       exclude       meant
    ==============  ============  ============  ======
    a/b.png         –             –             yes
    a/b.PNG         *.png         –             yes
    a/b.png         *.jpg         –             no
    a/b.png         *.png         b.*           no
    a/b.png         a/*           –             yes
    a/b.png         b/*           –             no
    ==============  ============  ============  ======
    """

    def fits(patterns: Sequence[str]) -> bool:
        plain = file.casefold()
        return any(
            fnmatchcase(plain if "/" in p else plain.rpartition("/")[2], p.casefold()) for p in patterns
        )

    return (not include or fits(include)) and not fits(exclude)


def _below(folder: Path, prefix: str) -> Iterator[str]:
    """Every file below a folder; a folder that is not gone into stands with a slash behind it."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        failed = UsageError(
            Text(
                f"{shown(str(folder))} cannot be read ({error.strerror})",
                f"{shown(str(folder))} 无法读取（{error.strerror}）",
            )
        )
    else:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if not entry.is_dir():
                if not _hidden_on_windows(entry):
                    yield name
                else:
                    yield f"{name}/"
            elif entry.is_symlink() or entry.name.startswith(".") or _hidden_on_windows(entry):
                yield f"{name}/"
            else:
                yield from _below(Path(entry), f"{name}/")
        return
    raise failed


def _hidden_on_windows(entry: os.DirEntry[str]) -> bool:
    facts = entry.stat(follow_symlinks=False)
    return bool(getattr(facts, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_HIDDEN)
