"""The notebooks in the repository: in Chinese from the catalogue, and with the outputs of the sample.

`python tests/notebooks.py` (`make notebooks`) writes them: the English ones are edited by hand, their outputs and the Chinese
ones are made here. Links, which lead nowhere, are left out. What differs from one execution to the next (ids and times of a run that a cell
makes) is replaced, so that a difference between two versions can be read; nbval ignores it by the same rules (`tests/nbval.cfg`).
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from configparser import RawConfigParser
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from nbclient import NotebookClient

from tcb_ops.features.notebooks.parameters import NOTEBOOKS, in_language, notebook_names
from tcb_ops.i18n import DOMAIN, LOCALE, Lang

if TYPE_CHECKING:
    from collections.abc import Collection

PO = LOCALE / "zh" / "LC_MESSAGES" / f"{DOMAIN}.po"
RULES = Path(__file__).with_name("nbval.cfg")
COMMENT = re.compile("(?<=# )[^#\n]+$", re.MULTILINE)
KEPT = ("text/html", "text/plain")
"""The forms of an output that are kept."""


def texts_of(notebook: Any) -> list[str]:
    """Return what is translated of a notebook: each Markdown cell, and each comment of its code."""
    texts = []
    for cell in notebook.cells:
        texts += [cell.source] if cell.cell_type == "markdown" else COMMENT.findall(cell.source)
    return texts


def in_chinese(notebook: Any, catalogue: Catalog) -> Any:
    """Return a notebook in Chinese."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = catalogue[cell.source].string
        else:
            cell.source = COMMENT.sub(lambda comment: catalogue[comment[0]].string, cell.source)
            cell.source = cell.source.replace('lang = "en"', 'lang = "zh"')
    return notebook


def executed(notebook: Any) -> Any:
    """Return a notebook with its outputs, executed in an empty folder by a fixed operator."""
    notebook = deepcopy(notebook)
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": folder}})
        with client.setup_kernel(env=env | {"LOGNAME": "operator", "TZ": "Asia/Shanghai"}):
            client.reset_execution_trackers()
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index, execution_count=None)
    return cleaned(notebook)


def cleaned(notebook: Any) -> Any:
    """Return a notebook whose outputs have no metadata, no links, and fixed values in place of what always differs."""
    makes_a_run = any(cell.source.startswith("run = panels.") for cell in notebook.cells)
    applied = ("link", "run", "begun", "begun-zh") if makes_a_run else ("link",)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "data" in output:
                output.metadata = nbformat.NotebookNode()
                output.data = nbformat.NotebookNode(
                    {kind: output.data[kind] for kind in KEPT if kind in output.data}
                )
                for kind in output.data:
                    output.data[kind] = fixed(output.data[kind], applied)
    notebook.metadata = nbformat.NotebookNode({name: notebook.metadata[name] for name in ("kernelspec",)})
    notebook.metadata.language_info = nbformat.NotebookNode(name="python")
    return notebook


def fixed(text: str, applied: Collection[str]) -> str:
    """Return a text with fixed values in place of what always differs, by the rules with these names."""
    parser = RawConfigParser()
    parser.read(RULES, encoding="utf-8")
    for name in applied:
        text = re.sub(parser[name]["regex"], parser[name]["replace"], text)
    return text


def main(names: list[str]) -> None:
    """Write the outputs of notebooks, by default of all, and their Chinese files."""
    catalogue = read_po(io.BytesIO(PO.read_bytes()), locale="zh")
    for name in names or notebook_names():
        english = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
        for lang in Lang:
            dest = in_language(NOTEBOOKS / f"{name}.ipynb", lang)
            dest.parent.mkdir(exist_ok=True)
            nbformat.write(executed(english if lang is Lang.EN else in_chinese(english, catalogue)), dest)


if __name__ == "__main__":
    main(sys.argv[1:])
