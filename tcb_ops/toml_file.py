"""TOML files: read them, and find the line of a mistake or of a setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text, _, as_lines
from tcb_ops.resources import system_reason

_LONGEST = 200
"""Maximum number of lines of a statement."""
_MISTAKES = 20
"""Maximum number of mistakes that are reported together."""


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file. Raises SettingsError with the line that cannot be read, never quoting it."""
    import tomllib

    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(
            _("{file} cannot be read: {why}.", file=file, why=system_reason(error)),
            _("Fix that, or select the settings file with --config."),
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(_("{file} is not UTF-8 text: save it as UTF-8", file=file)) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # the parser's text is English only and may quote a value
        found = _unreadable(text)
    reported = [
        _("{file}:{line}: {why_not}.", file=file, line=line, why_not=why_not) for line, why_not in found
    ]
    if len(reported) == 1:
        raise SettingsError(reported[0], _("Correct it, then run the same command again."))
    raise SettingsError(as_lines([*reported, _("Correct these, then run the same command again.")]))


def line_of(file: Path, *names: str) -> int:
    """Return the line of a TOML file that sets a name, preceded by its sections: `line_of(file, "tokens", "url")`.

    An entry of a list of sections has a number from 0: `line_of(file, "notify", "1", "to")`.
    """
    for line, _other, parsed in _statements(file.read_text(encoding="utf-8-sig")):
        found: Any = parsed
        for name in names:
            if isinstance(found, list):  # of [[notify]]: the name is an entry's number
                found = found[int(name)] if int(name) < len(found) else None
            else:
                found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            return line
    return 1


def _statements(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield each statement's line, the next statement's line, and all settings up to there.

    Ends where the text is not valid TOML.
    """
    import tomllib

    lines, begin = text.split("\n"), 1
    for end in range(1, len(lines) + 1):
        try:
            parsed = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            if end - begin >= _LONGEST:
                return
            continue
        yield begin, end + 1, parsed
        begin = end + 1


def _unreadable(text: str) -> list[tuple[int, Text]]:
    """Return the lines that cannot be read, and why: the first, and further ones if its mistake is within a line.

    After any other mistake, such as a bracket that is not closed, what follows may be read wrongly.
    """
    import tomllib

    found: list[tuple[int, Text]] = []
    while len(found) < _MISTAKES:
        line, why_not, within = _first_unreadable(text)
        if within or not found:
            found.append((line, why_not))
        if not within:
            break
        lines = text.split("\n")
        lines[line - 1] = ""
        text = "\n".join(lines)
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        break
    return found


def _first_unreadable(text: str) -> tuple[int, Text, bool]:
    """Return the first line that cannot be read, why, and whether the mistake is certain to be within that line."""
    *_earlier, (_begin, line, parsed) = [(0, 1, dict[str, Any]()), *_statements(text)]
    wrong = text.split("\n")[line - 1]
    name, _equals, value = (part.strip(" []\t\r") for part in wrong.partition("="))
    if name in parsed:
        return line, _("{name} appears twice: remove one", name=name), True
    if "\\" in wrong:
        return (
            line,
            _("in double quotes a backslash must be doubled; or use single quotes, or / instead"),
            False,
        )
    if re.match("[“”„‘’＂]", value):
        return line, _('{name} needs straight quotation marks: write {name} = "…"', name=name), True
    if re.match(r"[^\W\d]|[/.~]", value):
        return line, _('{name} is text without quotes: write {name} = "…"', name=name), True
    return (
        line,
        _('this is not TOML: a setting is written as NAME = VALUE, text in quotes, e.g. lang = "zh"'),
        False,
    )
