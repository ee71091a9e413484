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


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file. Raises SettingsError with the line that cannot be read, never quoting it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = system_reason(error)
        raise SettingsError(_("{file} cannot be read: {why}.", file=file, why=why)) from None
    except UnicodeDecodeError:
        raise SettingsError(_("{file} is not UTF-8 text: save it as UTF-8", file=file)) from None
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


def line_of(file: Path, *names: str) -> int:
    """Return the line of a TOML file that sets a name, preceded by its section: `line_of(file, "tokens", "url")`.

    A repeated section has a number from 0: `line_of(file, "notify", "1", "to")`. A section alone is where it begins.
    """
    *section, name = names
    number = int(section.pop()) if len(section) > 1 else int(name) if name.isdecimal() else 0
    header, begun, counted = "", 1, -1
    for line, text in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        if match := re.match(r"\s*\[\[?\s*([\w-]+)", text):
            header = match[1]
            counted += header == names[0]
            if header == names[0] and counted == number:
                begun = line
        in_section = header == section[0] and counted == number if section else not header
        if in_section and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[.=]", text):
            return line
    return begun
