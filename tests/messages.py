"""The messages to translate, from the code, the templates, the commands' help, the notebooks, and click.

`python tests/messages.py` (`make messages`) updates the catalogue with them and compiles it.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import click
import nbformat
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

import tcb_ops
from notebooks import PO, texts_of
from tcb_ops.cli import paragraphs
from tcb_ops.cli.main import cli
from tcb_ops.features.notebooks.parameters import NOTEBOOKS, notebook_names

PACKAGE = Path(tcb_ops.__file__).parent
METHODS = [("**.py", "python"), ("**.j2", "jinja2")]


@cache
def extracted() -> Catalog:
    """Return the messages that the catalogue must contain."""
    found = Catalog()
    for package in (PACKAGE, Path(click.__file__).parent):
        for file, _line, msgid, comments, context in extract_from_dir(
            package, METHODS, comment_tags=["Translators:"]
        ):
            found.add(
                msgid, locations=[(f"{package.name}/{file}", 0)], auto_comments=comments, context=context
            )
    _add_help(found, cli, cli.name or "")
    for name in notebook_names():
        for text in texts_of(nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)):
            found.add(text)
    return found


def _add_help(found: Catalog, command: click.Command, name: str) -> None:
    options = [param.help for param in command.params if isinstance(param, click.Option) and param.help]
    for msgid in [*paragraphs(command.help or ""), *options]:
        found.add(msgid, locations=[(f"--help of {name}", 0)] if msgid not in options else ())
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _add_help(found, each, f"{name} {each.name}")


@cache
def translated() -> Catalog:
    """Return the catalogue in the repository."""
    return read_po(io.BytesIO(PO.read_bytes()), locale="zh")


def compiled(catalogue: Catalog) -> bytes:
    """Return the catalogue in the compiled form that the package reads."""
    out = io.BytesIO()
    write_mo(out, catalogue)
    return out.getvalue()


def main() -> None:
    """Update the catalogue: new messages get an empty translation, unused ones are removed."""
    catalogue = translated()
    catalogue.update(extracted(), no_fuzzy_matching=True, update_creation_date=False)
    catalogue.obsolete.clear()
    catalogue.mime_headers = [
        (name, value)
        for name, value in catalogue.mime_headers
        if not name.startswith(("POT-", "PO-", "Report-"))
    ]
    with PO.open("wb") as file:
        write_po(file, catalogue, width=110, sort_output=True, include_lineno=False, no_location=True)
    PO.with_suffix(".mo").write_bytes(compiled(catalogue))
    for message in catalogue:
        if message.id and not all(message.string if message.pluralizable else [message.string]):
            print(f"to translate: {message.id!r}")  # noqa: T201  the command's output


if __name__ == "__main__":
    main()
