"""known.csv: failures that an audit reports without an alarm until a date, because somebody is dealing with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from tcb_ops.errcodes import all_reasons, all_store_codes, explain
from tcb_ops.errors import BrokenTableError, UsageError
from tcb_ops.formatting import shown, trim
from tcb_ops.i18n import Text, _
from tcb_ops.lists.source import open_text, read_table
from tcb_ops.lists.staging import input_error
from tcb_ops.lists.table import KNOWN_COLUMNS, Table
from tcb_ops.model import Merchant, Problem, file_problem

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
    line: int = field(default=0, compare=False)
    """Its line of the file; 0 as a run keeps it."""

    def matches(self, appid: str, env: str, cause: str) -> bool:
        """Return whether a failure is the one that this line is about, whatever the day."""
        return self.cause == cause and self.appid in {"", appid} and self.env in {"", env}

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
    return next((one for one in known if one.until >= day and one.matches(appid, env, cause)), None)


def unmatched(known: Iterable[KnownFailure], merchants: Iterable[Merchant]) -> list[KnownFailure]:
    """Return the lines whose appid or environment (or both together) no merchant has: they silence nothing."""
    places = {(merchant.appid, merchant.env) for merchant in merchants}
    there = places | {(appid, "") for appid, _env in places} | {("", env) for _appid, env in places}
    return [one for one in known if (one.appid, one.env) not in there]


def uncatalogued(known: Iterable[KnownFailure]) -> list[KnownFailure]:
    """Return the lines whose cause looks like a code of the store, but is not in its catalogue: perhaps misspelt."""
    catalogued = {entry.code for entry in all_store_codes()}
    return [one for one in known if _STORE_CODE.fullmatch(one.cause) and one.cause not in catalogued]


def read_known(file: Path) -> tuple[KnownFailure, ...]:
    """Read known.csv (encodings and delimiters as for lists). Raises InputError with all problems of the file."""
    problems: list[Problem] = []
    lines: list[KnownFailure] = []
    with open_text(file) as decoded:
        try:
            table = read_table(decoded.text, KNOWN_COLUMNS.rate)
            found, problems = KNOWN_COLUMNS.find(table.headers, table.header_line)
            if not problems:
                lines = _read_lines(table, found, problems)
        except BrokenTableError as error:
            problems.append(error.problem)
    if problems:
        raise input_error(str(file), problems)
    return tuple(lines)


def _read_lines(table: Table, found: dict[str, int], problems: list[Problem]) -> list[KnownFailure]:
    lines = []
    for line, raw in table.rows:
        cells = [trim(cell) for cell in raw] + [""] * (len(table.headers) - len(raw))
        if not any(cells):
            continue
        value = {ours: cells[place] for ours, place in found.items()}
        headers = {ours: table.headers[place] for ours, place in found.items()}
        appid, env = value.get("appid", ""), value.get("env", "")
        faults = []
        if not appid and not env:
            message = _("neither an appid nor an environment is given")
            faults.append(file_problem(message, _("fill in one of them"), line=line))
        cause, until = _cause(value["cause"]), _day(value["until"])
        wrong: list[tuple[str, Text, Text]] = []
        if cause is None:
            fix = _("write the code as errcodes.csv of the report has it, e.g. 85088 or halted")
            wrong.append(("cause", _("'{cause}' is not a cause", cause=shown(value["cause"])), fix))
        if until is None:
            fix = _("write the last day on which it is silenced, e.g. 2026-12-31")
            wrong.append(("until", _("'{until}' is not a date", until=shown(value["until"])), fix))
        faults += [
            file_problem(message, fix, line=line, column=headers[ours], value=shown(value[ours]))
            for ours, message, fix in wrong
        ]
        problems += faults
        if cause is not None and until is not None and not faults:
            lines.append(KnownFailure(appid, env, cause, until, value.get("note", ""), line))
    return lines


def _cause(text: str) -> str | None:
    """Return a cause in the form of errcodes.csv; None for anything else.

    ============================================  =====================
    the text                                      cause
    ============================================  =====================
    a whole number                                the errcode
    a reason, a store's code that is catalogued   its name, in any case
    another word such as `NoSuchThing`            itself (`uncatalogued`)
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
