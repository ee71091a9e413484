"""Reads TOML files."""

from __future__ import annotations

import re
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
    reason = system_reason(error)
    return SettingsError(_("{file} cannot be read: {why}.", file=file, why=reason))


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file. Raises SettingsError with the line that cannot be read, never quoting it."""
    return parse_toml(read_text(file, file), file)


def parse_toml(text: str, file: Path) -> dict[str, Any]:
    """Parse a TOML file's text. Raises SettingsError with the line that cannot be read, never quoting it."""
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # the parser's text is English only and may quote a value
        at_line = re.search(r"\(at line (\d+), column \d+\)$", str(error))
        line = int(at_line[1]) if at_line else len(text.splitlines())
    raise SettingsError(
        _("{file}:{line}: this is not TOML.", file=file, line=line),
        _(
            'Write each name once, as NAME = VALUE, and text in straight quotation marks: lang = "zh". In a path write / in '
            "place of each \\."
        ),
    )
