"""Reads TOML files, and finds the line of a mistake in one."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import _
from tcb_ops.resources import system_reason


def read_text(file: int | Path, name: Path) -> str:
    """Read a text file, or an open one, which is closed. Raises SettingsError with its name."""
    try:
        with open(file, encoding="utf-8-sig") as text:  # noqa: PTH123  a descriptor is no path
            return text.read()
    except OSError as error:
        raise cannot_be_read(name, error) from None
    except UnicodeDecodeError:
        raise SettingsError(_("{file} is not UTF-8 text: save it as UTF-8", file=name)) from None


def cannot_be_read(file: Path, error: OSError) -> SettingsError:
    """Return the error that says why a file cannot be read."""
    why = system_reason(error)
    return SettingsError(_("{file} cannot be read: {why}.", file=file, why=why))


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file. Raises SettingsError with the line that cannot be read, never quoting it."""
    return parse_toml(read_text(file, file), file)


def parse_toml(text: str, file: Path) -> dict[str, Any]:
    """Parse a TOML file's text. Raises SettingsError with the line that cannot be read, never quoting it."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # the parser's text is English only and may quote a value
        line = _first_unreadable(text.splitlines())
    problem = _("{file}:{line}: this is not TOML.", file=file, line=line)
    raise SettingsError(
        problem,
        _(
            'Write each name once, as NAME = VALUE, and text in straight quotation marks: lang = "zh". In a path write / in '
            "place of each \\."
        ),
    )


def _first_unreadable(lines: list[str]) -> int:
    """Return the first line of the statement that is not TOML: the lines before it are."""
    for number in range(len(lines), 1, -1):
        with suppress(tomllib.TOMLDecodeError):
            tomllib.loads("\n".join(lines[: number - 1]))
            return number
    return 1


def line_of(text: str, *names: str) -> int:
    """Return the line of a TOML text that sets a name, preceded by its section: `line_of(text, "tokens", "url")`.

    A repeated section has a number from 0: `line_of(text, "notify", "1", "to")`. A section alone is where it begins.
    """
    *section, name = names
    number = int(section.pop()) if len(section) > 1 else int(name) if name.isdecimal() else 0
    header, begun, counted = "", 1, -1
    for line, statement in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\[?\s*([\w-]+)", statement):
            header = match[1]
            counted += header == names[0]
            if header == names[0] and counted == number:
                begun = line
        in_section = header == section[0] and counted == number if section else not header
        if in_section and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[.=]", statement):
            return line
    return begun
