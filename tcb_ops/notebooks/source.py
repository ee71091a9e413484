"""The notebook that is to be run, and where it may be put."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.notebooks.parameters import Parameter, check_text, parameters_of

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True, slots=True)
class Source:
    """A notebook to be run."""

    name: str
    """Its file name without the ending."""
    file: Path
    content: NotebookNode
    parameters: tuple[Parameter, ...]


def open_notebook(file: Path) -> Source:
    """Read a notebook and its `parameters` cell. Raises UsageError."""
    from papermill.iorw import load_notebook_node

    try:
        content = load_notebook_node(os.fspath(file))
        tagged = [cell.source for cell in content.cells if "parameters" in cell.metadata.get("tags", ())]
        known = parameters_of(tagged[0]) if tagged else ()
    except Exception as error:  # noqa: BLE001  papermill, nbformat, json and jsonschema each have their own
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            Text(f"{file}: cannot be read as a notebook: {why}", f"{file}：不能作为笔记本读取：{why}")
        ) from None
    return Source(file.stem, file, content, known)


def check_place(source: Source, out: Path) -> None:
    """Make the folder, if need be; refuse, before anything runs, one that cannot be written, and to put the executed notebook over one that is none.

    Raises UsageError.
    """
    check_text("--out", os.fspath(out.absolute()))
    check_text("NAME", os.fspath(source.file))
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UsageError(
            Text(
                f"--out {out}: {why}. Choose another folder; nothing was run.",
                f"--out {out}：{why}。请换一个文件夹；未运行任何内容。",
            )
        ) from None
    dest = out / f"{source.name}.ipynb"
    try:
        executed = (
            bool(open_notebook(dest).content.metadata.papermill.get("end_time")) if dest.exists() else True
        )
    except UsageError:
        executed = False
    if executed and not (dest.exists() and dest.samefile(source.file)):
        return
    raise UsageError(
        Text(
            f"{dest} is there and was not left by this command. Choose another --out; nothing was run.",
            f"{dest} 已存在，且不是本命令留下的。请换一个 --out；未运行任何内容。",
        )
    )
