"""Tables for a spreadsheet: CSV (UTF-8 with BOM, no cell that would run as a formula), or by a feature a workbook."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tcb_ops.disk import replacing
from tcb_ops.errors import UsageError, needed
from tcb_ops.formatting import guard
from tcb_ops.hooks import WorkbookHooks
from tcb_ops.i18n import _
from tcb_ops.secrets import masked
from tcb_ops.system_errors import system_reason


def table_file(name: str | Path) -> Path:
    """Return the file for a table. Raises UsageError for a name that ends in neither .csv nor, with workbooks, .xlsx."""
    if (ending := Path(name).suffix.lower()) not in {".csv", ".xlsx"}:
        raise UsageError(_("{name}: a table's file must end in .csv or .xlsx.", name=name))
    if ending == ".xlsx":
        needed(WorkbookHooks, _("Choose a name that ends in .csv, or install all of tcb-ops."))
    return Path(name)


def write_table(
    dest: Path,
    heads: Sequence[str],
    lines: Iterable[Sequence[Any]],
    *,
    replace: bool = False,
    mask: Callable[[str], str] = masked,
) -> None:
    """Write a table as CSV or as a workbook, by the name's ending. The file appears when it is complete.

    `mask`: applied to each text. Raises UsageError for another ending, if the file exists and is not to be replaced, if it
    cannot be written, or if a sheet cannot have so many rows.
    """
    dest = table_file(dest)
    if os.path.lexists(dest) and not replace:
        raise UsageError(_("{dest} already exists: check it, or choose another name", dest=dest))
    try:
        with replacing(dest) as part:
            if dest.suffix.lower() == ".csv":
                with part.open("w", encoding="utf-8-sig", newline="") as stream:
                    out = csv.writer(stream)
                    for line in chain([heads], lines):
                        out.writerow(guard(mask("" if cell is None else str(cell))) for cell in line)
            else:
                needed(WorkbookHooks).write_table(part, dest, heads, lines, mask)
    except (OSError, UnicodeEncodeError) as error:
        raise UsageError(_("{dest} cannot be written ({why})", dest=dest, why=system_reason(error))) from None
