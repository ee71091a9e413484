"""known.csv: failures that an audit reports without an alarm until a date, because somebody is dealing with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tcb_ops.errcodes import all_reasons, explain
from tcb_ops.errors import UsageError
from tcb_ops.formatting import shown
from tcb_ops.i18n import _
from tcb_ops.lists.table import KNOWN_COLUMNS, Line, read_lines
from tcb_ops.model import Problem

_STORE_CODE = re.compile(r"[A-Z][a-z]+([A-Z][A-Za-z0-9]*)+")
"""What a code of the store looks like, such as NoSuchThing."""
_DATE = re.compile(r"(\d{4})\D(\d{1,2})\D(\d{1,2})\D?")


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """One line: an appid or an environment (or both), the cause it fails with, and until when that is known."""

    appid: str
    env: str
    cause: str
    """As errcodes.csv has it: an errcode, a code of the store, or a reason such as `halted`."""
    until: date
    """The last day on which it is silenced."""
    note: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the line as a run keeps it."""
        return {name: str(getattr(self, name)) for name in ("appid", "env", "cause", "until", "note")}


def kept_with_run(settings: dict[str, Any]) -> tuple[KnownFailure, ...]:
    """Return the lines that an audit kept among its settings when it began; none where it kept none."""
    return tuple(
        KnownFailure(**line | {"until": date.fromisoformat(line["until"])})
        for line in settings.get("known", ())
    )


def silencing(
    known: Iterable[KnownFailure], appid: str, env: str, cause: str, day: date
) -> KnownFailure | None:
    """Return the line that silences a failure on a day.

    ==================  ===================  ========
    a line that matches  its `until`          silenced
    ==================  ===================  ========
    no                  any                  no
    yes                 before the day       no
    yes                 the day, or later    yes
    ==================  ===================  ========
    """
    for line in known:
        if line.cause == cause and line.appid in {"", appid} and line.env in {"", env} and line.until >= day:
            return line
    return None


def read_known(file: Path) -> tuple[KnownFailure, ...]:
    """Read known.csv (encodings and delimiters as for lists). Raises InputError with all problems of the file."""
    return tuple(read_lines(file, KNOWN_COLUMNS, _read)[0])


def _read(lines: Iterable[Line], problems: list[Problem]) -> Iterator[KnownFailure]:
    for line in lines:
        faults = []
        appid, env = line.value("appid"), line.value("env")
        if not appid and not env:
            message = _("neither an appid nor an environment is given")
            faults.append(line.problem(message, _("fill in one of them")))
        cause, until = _cause(line.value("cause")), _day(line.value("until"))
        if cause is None:
            message = _("'{cause}' is not a cause", cause=shown(line.value("cause")))
            fix = _("write the code as errcodes.csv of the report has it, e.g. 85088 or halted")
            faults.append(line.problem(message, fix, "cause"))
        if until is None:
            message = _("'{until}' is not a date", until=shown(line.value("until")))
            fix = _("write the last day on which it is silenced, e.g. 2026-12-31")
            faults.append(line.problem(message, fix, "until"))
        problems += faults
        if cause is not None and until is not None and not faults:
            yield KnownFailure(appid, env, cause, until, line.value("note"))


def _cause(text: str) -> str | None:
    """Return a cause in the form of errcodes.csv; None for anything else.

    ============================================  =====================
    the text                                      cause
    ============================================  =====================
    a whole number                                the errcode
    a reason, a store's code that is catalogued   its name, in any case
    another word such as `NoSuchThing`            itself
    anything else                                 none
    ============================================  =====================

    A store may answer with codes that storecodes.csv does not have.
    """
    if text.lower() in all_reasons():
        return text.lower()
    try:
        return str(explain(text).code)
    except UsageError:
        return text if _STORE_CODE.fullmatch(text) else None


def _day(text: str) -> date | None:
    parts = _DATE.fullmatch(text)
    try:
        return date(*map(int, parts.groups())) if parts else None
    except ValueError:
        return None
