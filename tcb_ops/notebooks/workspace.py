"""A folder to work in with notebooks: ours are copied there, and what an operator has changed is theirs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.sample import SAMPLE

REMEMBERED = ".tcb-ops-lab.json"
"""In the workspace: the SHA-256 of each file as it was copied."""


def _folder() -> Path:
    """The notebooks: within the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "notebook_files"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "notebooks"


NOTEBOOKS = _folder()


def notebook_names() -> list[str]:
    """Our notebooks, in order, without their ending."""
    return sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))


def find_notebook(wanted: str) -> Path:
    """Find a notebook: one of ours by its name or an unambiguous part of it, any other by its path. Raises UsageError."""
    names = notebook_names()
    fitting = [name for name in names if name == wanted] or [name for name in names if wanted in name]
    if len(fitting) == 1 and wanted:
        return NOTEBOOKS / f"{fitting[0]}.ipynb"
    if wanted.endswith(".ipynb") and Path(wanted).is_file():
        return Path(wanted)
    ours = ", ".join(names)
    raise UsageError(
        Text(
            f"{wanted}: no such notebook. There are {ours}; for one of your own, give its path (….ipynb).",
            f"{wanted}：没有这个笔记本。现有 {ours}；自己的笔记本请给出路径（….ipynb）。",
        )
    )


class Step(Enum):
    """What to do about one file of the workspace."""

    COPY = "copy"
    """Not there, or as we left it: ours goes there."""
    KEEP = "keep"
    """As it should be, or changed by the operator while ours has not changed."""
    BESIDE = "beside"
    """Both have changed: the operator's stays, ours goes beside it."""


def step(ours: str, theirs: str | None, remembered: str | None) -> Step:
    """Decide about a file by three SHA-256: ours now, the one that is there, ours as it was copied.

    ======  ============  ==========  ======
    theirs  remembered    ours        step
    ======  ============  ==========  ======
    none    any           any         copy
    A       any           A           keep
    A       A             B           copy
    B       A             A           keep
    B       A             C           beside
    B       none          A           beside
    ======  ============  ==========  ======
    """
    if theirs is None:
        return Step.COPY
    if theirs == ours:
        return Step.KEEP
    if theirs == remembered:
        return Step.COPY
    return Step.KEEP if ours == remembered else Step.BESIDE


@dataclass(frozen=True, slots=True)
class Copied:
    """What `fill` did, as paths below the workspace."""

    new: tuple[str, ...]
    kept: tuple[str, ...]
    """Changed by the operator, and left alone."""
    beside: tuple[tuple[str, str], ...]
    """Changed by the operator and by us: the file, and where the new one lies."""


def fill(workspace: Path) -> Copied:
    """Copy the notebooks and the sample data into a workspace; never over what an operator has changed.

    Raises UsageError where it cannot be written.
    """
    new, kept, beside = [], [], []
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        remembered = _remembered(workspace)
        for name, file in _ours():
            content = file.read_bytes()
            ours, theirs = _sha256(content), _sha256_of(workspace / name)
            match step(ours, theirs, remembered.get(name)):
                case Step.COPY:
                    _write(workspace / name, content)
                    new.append(name)
                    remembered[name] = ours
                case Step.BESIDE:
                    for other in _beside(name):
                        found = step(ours, _sha256_of(workspace / other), remembered.get(other))
                        if found is Step.COPY:
                            _write(workspace / other, content)
                            remembered[other] = ours
                        if found is not Step.BESIDE:
                            beside.append((name, other))
                            break
                case Step.KEEP:
                    if theirs == ours:
                        remembered[name] = ours
                    else:
                        kept.append(name)
        _write(workspace / REMEMBERED, json.dumps(remembered, indent=1, ensure_ascii=False).encode())
    except OSError as error:
        what, why = error.filename or workspace, error.strerror or type(error).__name__
        raise UsageError(
            Text(
                f"{what}: {why}. Choose a folder that can be written.",
                f"{what}：{why}。请换一个可以写入的文件夹。",
            )
        ) from None
    return Copied(tuple(new), tuple(kept), tuple(beside))


def _ours() -> Iterator[tuple[str, Path]]:
    for file in sorted(NOTEBOOKS.glob("*.ipynb")):
        yield file.name, file
    for file in sorted(SAMPLE.rglob("*")):
        if file.is_file():
            yield f"data/{file.relative_to(SAMPLE).as_posix()}", file


def _beside(name: str) -> Iterator[str]:
    """Names for ours beside an operator's; the first may be theirs too by now."""
    stem, dot, ending = name.rpartition(".")
    yield f"{stem}.new{dot}{ending}"
    for number in count(2):
        yield f"{stem}.new-{number}{dot}{ending}"


def _remembered(workspace: Path) -> dict[str, str]:
    """What was copied before; a file that cannot be read means that nothing is known, so nothing is overwritten."""
    try:
        found = json.loads((workspace / REMEMBERED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(sha) for name, sha in found.items()} if isinstance(found, dict) else {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of(file: Path) -> str | None:
    return _sha256(file.read_bytes()) if file.exists() else None


def _write(dest: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or as it was."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = dest.with_name(f".{dest.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(dest)
