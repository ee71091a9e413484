"""Problems of a list as messages, as an error, and as a fix-me CSV."""

from __future__ import annotations

import csv
import hashlib
import stat
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from tcb_ops.errors import InputError, UsageError
from tcb_ops.formatting import guard
from tcb_ops.i18n import Lang, Text, _
from tcb_ops.lists.staging import Problems
from tcb_ops.model import Problem
from tcb_ops.resources import system_reason

PROBLEMS_SHOWN = 50
"""Maximum problems on stderr; the fix-me CSV has all."""


_FIXME = ".fix-me"
"""Between a list's name and the suffix of its fix-me file, or before the number of a further one."""


def is_fixme_of(source: str, name: str) -> bool:
    """Return whether a file's name is that of a list's fix-me file."""
    return name.startswith(f"{Path(source).stem}{_FIXME}") and name.endswith(".csv")


def fixme_beside(source: Path) -> Path:
    """Return the fix-me file's name beside the list; a name whose fix-me file was edited is skipped."""
    names = (
        f"{source.with_suffix('')}{_FIXME}{number}.csv"
        for number in ("", *(f"-{n}" for n in range(2, 10_000)))
    )
    return next(Path(name) for name in names if _is_free(Path(name)))


def check_fixme(dest: Path) -> None:
    """Raise UsageError if writing the fix-me file would replace anything other than an earlier, unedited one."""
    if not _is_free(dest):
        raise UsageError(
            _(
                "--fix-me {dest}: this must be a new file, or an earlier fix-me file that nobody has changed, which "
                "is replaced. Choose another file.",
                dest=dest,
            ),
            options=["--fix-me"],
        )


def format_problem(source: str, problem: Problem) -> Text:
    """Format a problem as `FILE:LINE: column 'X': problem — fix`, without LINE if it concerns the whole file."""
    where = f"{source}:{problem.line}" if problem.line else source
    message = _("{message} — {fix}", message=problem.message, fix=problem.fix)
    if problem.column:
        return _("{where}: column '{column}': {message}", where=where, column=problem.column, message=message)
    return _("{where}: {message}", where=where, message=message)


def input_error(
    source: str,
    problems: Sequence[Problem],
    decided: Text | None = None,
    missing_files: Sequence[str] = (),
    columns: Mapping[str, str] = MappingProxyType({}),
) -> InputError:
    """Return the error that refuses a file: the number of problems, and the text of the first one."""
    many, text = len(problems), format_problem(source, problems[0])
    if many > 1:
        text = _(
            "{source} has {many:,} problems, so nothing was sent. The first: {first}",
            source=source,
            many=many,
            first=text,
        )
    return InputError(text, source, problems, decided, missing_files, columns)


_COLUMNS = ("tcb_line", "tcb_column", "tcb_problem", "tcb_fix", "tcb_digest")
"""The last row of tcb_digest has a checksum, which shows whether the file was edited."""


def write_fixme(problems: Sequence[Problem], dest: str | Path, lang: Lang = Lang.EN) -> int:
    """Write the rows that have problems and return their number; for 0 no file is written.

    `problems` are `Batch.problems` or those of an InputError. The list's own columns come first, then tcb_line,
    tcb_column, tcb_problem, tcb_fix and tcb_digest, which are ignored when the file is read as a list; each row is
    written once. Problems of the whole file have no row. Written for Excel: UTF-8 with BOM, CRLF, no cell that would
    run as a formula.

    Raises UsageError if `dest` cannot be written.
    """
    if not isinstance(problems, Problems):
        return 0
    rows = problems.by_row()
    first = next(rows, None)
    if first is None:
        return 0
    digest, written, last = hashlib.sha256(), 0, [*map(guard, problems.headers), *_COLUMNS[:-1]]
    try:
        with Path(dest).open("w", encoding="utf-8-sig", newline="") as file:
            out = csv.writer(file)
            for cells, about in chain([first], rows):
                out.writerow([*last, "" if written else _COLUMNS[-1]])
                _feed(digest, last)
                columns = "; ".join(dict.fromkeys(p.column for p in about if p.column))
                found = "; ".join(p.message.of(lang) for p in about)
                fix = "; ".join(p.fix.of(lang) for p in about)
                last = [*map(guard, (*cells, str(about[0].line), columns, found, fix))]
                written += 1
            _feed(digest, last)
            out.writerow([*last, digest.hexdigest()[:16]])
    except OSError as error:
        why = system_reason(error)
        failed = _("{dest} cannot be written ({why})", dest=dest, why=why)
    else:
        return written
    raise UsageError(failed)


def _feed(digest: hashlib._Hash, cells: Sequence[str]) -> None:
    digest.update("\0".join((*cells, "\n")).encode("utf-8", "backslashreplace"))


def _is_free(dest: Path) -> bool:
    """Return whether a file does not exist, or is an unedited fix-me file."""
    digest, last = hashlib.sha256(), [""]
    try:
        if not stat.S_ISREG(dest.lstat().st_mode):
            return False
        with dest.open(encoding="utf-8-sig", newline="") as lines:
            for last in csv.reader(lines):
                _feed(digest, last[:-1])
    except FileNotFoundError:
        return True
    except (OSError, ValueError, csv.Error):
        return False
    return last[-1:] == [digest.hexdigest()[:16]]
