"""Editing of the merchants file. Everything except the changes is preserved byte for byte.

That includes the operator's columns, rows and order, encoding and BOM, delimiter, line ends and quoting. New lines
are added at the end, and a `status` column if it is needed and missing.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, cast

from tcb_ops.errors import StoppedError
from tcb_ops.formatting import guard, trim
from tcb_ops.i18n import Text, _
from tcb_ops.lists.merchants import merchants_table, read_merchants
from tcb_ops.lists.source import decode, open_source
from tcb_ops.lists.table import MERCHANT_COLUMNS, Table
from tcb_ops.model import Merchant
from tcb_ops.resources import system_reason

EMPTY_FILE = "appid,name,env,default,owner,status\r\n".encode("utf-8-sig")
"""A merchants file with only a header: `audit` would query an example merchant."""


@dataclass(frozen=True, slots=True)
class MerchantsEditor:
    """The content of a merchants file, with the details needed to write it again."""

    merchants: tuple[Merchant, ...]
    """In the order of the file."""
    content: bytes = field(repr=False)
    """The original bytes; a header if the file does not exist."""
    exists: bool
    bom: bytes
    text: str = field(repr=False)
    codec: str
    delimiter: str
    header_line: int
    """In records: a line break inside quotes does not start a new one."""
    width: int
    """Number of columns in the header."""
    columns: Mapping[str, int]
    """Canonical name → column index."""
    warnings: tuple[Text, ...] = ()
    """Reasons why the detected encoding may be wrong."""

    def edited(self, left: Mapping[int, bool], names: Mapping[int, str], added: Sequence[Merchant]) -> bytes:
        """Return the file's bytes with these changes.

        Args:
            left: index in `merchants` → whether its status becomes `left` or empty.
            names: index in `merchants` → its new name.
            added: lines to append.

        """
        status = self.columns.get("status", self.width if left else None)
        width = max(self.width, status + 1) if status is not None else self.width
        out: list[str] = []
        at, end = 0, "\r\n"
        for line, (raw, cells) in enumerate(_records(self.text, self.delimiter), 1):
            if line < self.header_line or not any(map(trim, cells)):
                out.append(raw)
            elif line == self.header_line:
                fields, end = _fields(raw, self.delimiter)
                end = end or "\r\n"
                if status is not None and "status" not in self.columns:
                    fields = _with(fields, status, self._name_of_status(fields))
                out.append(self.delimiter.join(fields) + end)
            else:
                changes = {}
                if at in names:
                    changes[self.columns["name"]] = guard(names[at])
                if status is not None and at in left:
                    changes[status] = "left" if left[at] else ""
                out.append(self._with_changes(raw, changes, width if width > self.width else 0))
                at += 1
        if added and out and not out[-1].endswith(("\n", "\r")):
            out[-1] += end
        return self.bom + "".join([*out, *(self._line(one, width) + end for one in added)]).encode(self.codec)

    def _name_of_status(self, fields: Sequence[str]) -> str:
        return "status" if fields[self.columns["env"]].isascii() else "状态"

    def _with_changes(self, raw: str, changes: Mapping[int, str], width: int) -> str:
        if not changes and not width:
            return raw
        fields, end = _fields(raw, self.delimiter)
        fields += [""] * (width - len(fields))
        for column, value in changes.items():
            fields = _with(fields, column, _quoted(value, self.delimiter))
        return self.delimiter.join(fields) + end

    def _line(self, merchant: Merchant, width: int) -> str:
        cells = [""] * width
        for ours, value in (
            ("appid", merchant.appid),
            ("name", guard(merchant.name)),
            ("env", merchant.env),
        ):
            cells[self.columns[ours]] = _quoted(value, self.delimiter)
        return self.delimiter.join(cells)


def edit_merchants(file: Path) -> MerchantsEditor:
    """Read a merchants file for editing; a missing one has just the header, as `init` writes it.

    Raises InputError with all problems of the file.
    """
    exists = file.exists()
    if exists:
        with open_source(file) as raw:
            content = raw.read()
    else:
        content = EMPTY_FILE
    decoded = decode(io.BytesIO(content), str(file))
    codec, text = cast("TextIO", decoded.text).encoding, decoded.text.read()
    plain = text.encode(codec)
    bom = content.removesuffix(plain) if content.endswith(plain) else b""
    table = merchants_table(io.StringIO(text, newline=""), str(file))
    columns, problems = MERCHANT_COLUMNS.find(table.headers, table.header_line)
    empty = not problems and _is_empty(text, table)
    return MerchantsEditor(
        () if empty else tuple(read_merchants(file)),
        content,
        exists,
        bom,
        text,
        codec,
        table.delimiter,
        table.header_line,
        len(table.headers),
        columns,
        decoded.warnings,
    )


def _is_empty(text: str, table: Table) -> bool:
    try:
        return not any(
            any(map(trim, cells))
            for line, (_, cells) in enumerate(_records(text, table.delimiter, strict=False), 1)
            if line > table.header_line
        )
    except csv.Error:
        return False  # read_merchants reports it


def write_merchants(dest: Path, content: bytes, before: bytes | None) -> None:
    """Replace a file's content atomically. `before` is its original content, None if it did not exist.

    Raises StoppedError, with the file unchanged, if it cannot be written or was changed in the meantime.
    """
    real = Path(os.path.realpath(dest))
    try:
        with tempfile.NamedTemporaryFile(dir=real.parent, prefix=f".{real.name}.", delete=False) as fresh:
            try:
                fresh.write(content)
                fresh.flush()
                os.fsync(fresh.fileno())
                fresh.close()
                _keep_mode(Path(fresh.name), real)
                if (real.read_bytes() if real.exists() else None) != before:
                    raise StoppedError(_changed(dest))
                Path(fresh.name).replace(real)
            finally:
                with suppress(FileNotFoundError):
                    Path(fresh.name).unlink()
    except OSError as error:
        why = system_reason(error)
        failed = _(
            "{dest} cannot be written ({why}) and is unchanged. Fix this, then run the same command again.",
            dest=dest,
            why=why,
        )
    else:
        return
    raise StoppedError(failed)


def _keep_mode(fresh: Path, real: Path) -> None:
    if real.exists():
        shutil.copymode(real, fresh)
    else:
        mask = os.umask(0)
        os.umask(mask)
        fresh.chmod(0o666 & ~mask)


def _changed(dest: Path) -> Text:
    return _(
        "{dest} changed while the merchants were queried, so it was not written: run the same command again.",
        dest=dest,
    )


def _records(text: str, delimiter: str, *, strict: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Yield each record's raw text and its cells."""
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    for cells in csv.reader(lines(), delimiter=delimiter, strict=strict):
        yield "".join(taken), cells
        taken.clear()


def _fields(raw: str, delimiter: str) -> tuple[list[str], str]:
    """Split a record into its raw fields, quotes included, and its line end."""
    body = raw.rstrip("\r\n")
    fields, start, quoted = [], 0, False
    for at, letter in enumerate(body):
        if letter == '"' and body[start] == '"':  # a doubled quote toggles twice
            quoted = not quoted
        elif letter == delimiter and not quoted:
            fields.append(body[start:at])
            start = at + 1
    return [*fields, body[start:]], raw[len(body) :]


def _with(fields: Sequence[str], column: int, value: str) -> list[str]:
    longer = [*fields, *[""] * (column + 1 - len(fields))]
    longer[column] = value
    return longer


def _quoted(value: str, delimiter: str) -> str:
    if '"' in value or delimiter in value:
        return '"' + value.replace('"', '""') + '"'
    return value
