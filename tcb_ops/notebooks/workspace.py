"""A workspace for notebooks: the bundled ones are copied there, and existing files are not overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.formatting import near_names
from tcb_ops.i18n import _, as_sentences
from tcb_ops.resources import system_reason
from tcb_ops.sample import SAMPLE, bundled

NOTEBOOKS = bundled("notebook_files", "notebooks")


def notebook_names() -> list[str]:
    """Return the names of the bundled notebooks, in order, without extension."""
    return sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))


def find_notebook(wanted: str) -> Path:
    """Return a notebook's path: a bundled one by an unambiguous part of its name, another by its path. Raises UsageError."""
    names = notebook_names()
    fitting = [name for name in names if name == wanted] or [name for name in names if wanted in name]
    if len(fitting) == 1 and wanted:
        return NOTEBOOKS / f"{fitting[0]}.ipynb"
    if wanted.endswith(".ipynb") and Path(wanted).is_file():
        return Path(wanted)
    ours = ", ".join(names)
    hints = [_("There are {ours}; for one of your own, give its path (….ipynb).", ours=ours)]
    if near := near_names(wanted, names):
        hints.insert(0, _("Did you mean {near}?", near=near[0]))
    raise UsageError(_("{wanted}: no such notebook.", wanted=wanted), as_sentences(hints))


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of `fill`, as paths below the workspace."""

    new: tuple[str, ...]
    kept: tuple[str, ...]
    """Existing files that differ from this version's."""


def fill(workspace: Path) -> Copied:
    """Copy the notebooks and the sample data into a workspace. Existing files are not overwritten.

    Raises UsageError if it is not writable.
    """
    new, kept = [], []
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        for name, file in _ours():
            content, dest = file.read_bytes(), workspace / name
            if not dest.exists():
                dest.parent.mkdir(parents=True, exist_ok=True)
                write_whole(dest, content)
                new.append(name)
            elif dest.read_bytes() != content:
                kept.append(name)
    except OSError as error:
        what, why = error.filename or workspace, system_reason(error)
        raise UsageError(_("{what}: {why}. Choose a writable folder.", what=what, why=why)) from None
    return Copied(tuple(new), tuple(kept))


def _ours() -> Iterator[tuple[str, Path]]:
    for file in sorted(NOTEBOOKS.glob("*.ipynb")):
        yield file.name, file
    for file in sorted(SAMPLE.rglob("*")):
        if file.is_file():
            yield f"data/{file.relative_to(SAMPLE).as_posix()}", file


def write_whole(dest: Path, content: bytes) -> Path:
    """Write a file atomically: it is complete, or unchanged."""
    part = dest.with_name(f".{dest.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(dest)
    return dest
