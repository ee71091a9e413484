"""Notebooks: those that tcb-ops brings, a workspace for them, and the parameters of one to run."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from click import BadParameter
from click.types import convert_type

from tcb_ops.bundled import SAMPLE, bundled
from tcb_ops.disk import replacing
from tcb_ops.errors import UsageError, has_surrogates
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, _, as_list
from tcb_ops.system_errors import system_reason

if TYPE_CHECKING:
    from nbformat import NotebookNode


NOTEBOOKS = bundled("notebook_files", "notebooks")


def notebook_names() -> list[str]:
    """Return the names of the bundled notebooks, in order, without extension."""
    return sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))


def find_notebook(given: str, lang: Lang) -> Path:
    """Return a notebook's path: a bundled one, in a language, by an unambiguous part of its name, another by its path. Raises UsageError."""
    names = notebook_names()
    fitting = [name for name in names if name == given] or [name for name in names if given in name]
    if len(fitting) == 1 and given:
        return in_language(NOTEBOOKS / f"{fitting[0]}.ipynb", lang)
    if given.endswith(".ipynb") and Path(given).is_file():
        return Path(given)
    fix = _("There are {names}; for one of your own, give its path (….ipynb).", names=as_list(names))
    raise UsageError(_("{wanted}: no such notebook.", wanted=given), fix)


def in_language(file: Path, lang: Lang) -> Path:
    """Return the file of a bundled notebook in a language: English beside one another, other languages in a folder each."""
    return file if lang is Lang.EN else file.parent / lang / file.name


def fill(workspace: Path, lang: Lang) -> tuple[list[str], list[str]]:
    """Copy the notebooks, in one language, and the sample data into a workspace; return the new files, and existing ones that differ.

    Existing files are not overwritten; those in the other language do not differ. Raises UsageError if the workspace is
    not writable.
    """
    new, different = [], []
    sources = {file.name: file for file in sorted(NOTEBOOKS.glob("*.ipynb"))}
    sources |= {
        f"data/{file.relative_to(SAMPLE).as_posix()}": file
        for file in sorted(SAMPLE.rglob("*"))
        # `practice` is of `init --practice`
        if file.is_file() and not {SAMPLE / "practice", SAMPLE / Lang.ZH} & {*file.parents}
    }
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        for name, file in sources.items():
            files = {each: in_language(file, each) for each in Lang}
            contents = {each: its.read_bytes() for each, its in files.items() if its.exists()}
            dest = workspace / name
            if not dest.exists():
                dest.parent.mkdir(parents=True, exist_ok=True)
                with replacing(dest) as part:
                    part.write_bytes(contents.get(lang, contents[Lang.EN]))
                new.append(name)
            elif dest.read_bytes() not in contents.values():
                different.append(name)
    except OSError as error:
        what, reason = error.filename or workspace, system_reason(error)
        raise UsageError(_("{what}: {why}. Choose a writable folder.", what=what, why=reason)) from None
    return new, different


INJECTED = "injected-parameters"
"""The tag of the cell with the values that were given, as other programs name it."""
Value = str | bool | int | float
"""The types of a parameter."""
_SECRET = re.compile(r"token|secret|passw|ticket|signature|credential|api_?key", re.IGNORECASE)


def parameters_of(source: str) -> dict[str, Value | None]:
    """Return the parameters of a `parameters` cell, its assignments, with their defaults. Raises SyntaxError.

    A default that is not text, boolean or number is None: no command line can set it.
    """
    parameters = {}
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                default = None
                with suppress(ValueError):
                    default = ast.literal_eval(node.value) if node.value is not None else None
                parameters[name] = default if isinstance(default, (str, bool, int, float)) else None
    return parameters


_VALID = {bool: _("true or false"), int: _("a whole number"), float: _("a number")}


def take_parameters(
    parameters: Mapping[str, Value | None], given: Iterable[str], notebook: str
) -> dict[str, Value]:
    """Return the values of `name=value` arguments, checked by name and type.

    ==========  ===================  =======================
    default     given                value
    ==========  ===================  =======================
    "" (text)   ``007``              ``"007"``, unchanged
    True        ``false``, ``1``     False, True
    8           ``007``, ``-3``      7, -3
    1.0         ``2``, ``0.5``       2.0, 0.5
    a list      anything             refused
    unknown     anything             refused, with the names
    ==========  ===================  =======================

    A name that suggests a secret is refused: parameters are stored in the executed notebook. Raises UsageError.
    """
    taken: dict[str, Value] = {}
    for word in given:
        name, equals, text = word.partition("=")
        name = name.strip()
        if _SECRET.search(name):
            refused = _(
                "-p {name}: secrets cannot be notebook parameters, because the executed notebook contains its "
                "parameters. Put the secret into the settings file, an environment variable or the token file."
            )
            raise UsageError(refused.format(name=sanitize(name)))
        if not equals or has_surrogates(word):
            raise UsageError(_("-p {name}: write -p NAME=VALUE, in UTF-8.", name=sanitize(name)))
        if name not in parameters:
            refused = _("{notebook} has no parameter {name}. Its parameters: {names}")
            raise UsageError(refused.format(notebook=notebook, name=name, names=as_list(parameters)))
        default = parameters[name]
        if default is None:
            refused = _(
                "-p {name}: its value in {notebook} is neither text nor a number; set it in a copy of the notebook."
            )
            raise UsageError(refused.format(name=name, notebook=notebook))
        try:
            taken[name] = convert_type(type(default)).convert(text, None, None)
        except BadParameter:
            raise UsageError(
                _("-p {name} must be {valid}.", name=name, valid=_VALID[type(default)])
            ) from None
    return taken


# --- the notebook ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A notebook to run."""

    name: str
    """The file name without its extension."""
    file: Path
    content: NotebookNode
    parameters: Mapping[str, Value | None]


def open_notebook(file: Path) -> Source:
    """Read a notebook and its `parameters` cell. Raises UsageError."""
    import nbformat

    try:
        read = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
        content = nbformat.v4.upgrade(read)  # type: ignore[no-untyped-call]
        nbformat.validate(content)
        tagged = [cell.source for cell in content.cells if "parameters" in cell.metadata.get("tags", ())]
        parameters = parameters_of(tagged[0]) if tagged else {}
    except Exception as error:  # noqa: BLE001  nbformat, json and jsonschema each raise their own
        reason = shorten(str(error), 200) or type(error).__name__
        raise UsageError(_("{file}: cannot be read as a notebook: {why}", file=file, why=reason)) from None
    return Source(file.stem, file, content, parameters)


def with_values(source: Source, values: Mapping[str, Value]) -> NotebookNode:
    """Return a copy of a notebook with the parameters' values in a cell of their own, after the `parameters` cell, and no outputs."""
    from nbformat.v4 import new_code_cell

    content = deepcopy(source.content)
    cells = [cell for cell in content.cells if INJECTED not in cell.metadata.get("tags", ())]
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if values:
        lines = [f"{name} = {value!r}" for name, value in values.items()]
        own = next(n for n, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", ()))
        injected = new_code_cell("\n".join(["# Parameters", *lines]), metadata={"tags": [INJECTED]})  # type: ignore[no-untyped-call]
        cells.insert(own + 1, injected)
    content.cells = cells
    return content


def check_output(source: Source, out: Path) -> None:
    """Create the executed notebook's folder. Raises UsageError if it is not writable, or has another notebook of that name."""
    for what, path in (("--out", out.absolute()), ("NAME", source.file)):
        if has_surrogates(str(path)):  # it cannot be stored in the executed notebook
            text = _("{what} {path}: write it in UTF-8. Nothing was run.")
            raise UsageError(text.format(what=what, path=sanitize(str(path))))
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        text = _("{--out} {out}: {why}. Choose another folder; nothing was run.")
        raise UsageError(text.format(out=out, why=system_reason(error))) from None
    dest = out / f"{source.name}.ipynb"
    if not dest.exists():
        return
    with suppress(UsageError):
        if not dest.samefile(source.file) and "tcb_ops" in open_notebook(dest).content.metadata:
            return
    text = _(
        "{dest} already exists and was not written by this command. Choose another {--out}; nothing was run."
    )
    raise UsageError(text.format(dest=dest))
