"""The merchants file as it is written: what changes is put in, all else stays as it stands, byte for byte.

The operator's own columns, rows and order, the encoding and its BOM, the delimiter, the line ends and the quoting are
theirs. What is new goes in at the end; a `status` column is added where there is none and one is needed.
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

from tcb_ops.cell_text import guard, trim
from tcb_ops.errors import StoppedError
from tcb_ops.i18n import Text
from tcb_ops.lists.headers import MERCHANT_COLUMNS, MERCHANT_NEEDS, find_columns
from tcb_ops.lists.merchants import merchants_table, read_merchants
from tcb_ops.lists.source import decode, open_source
from tcb_ops.lists.table import Table
from tcb_ops.lists.template import merchants_file
from tcb_ops.model import Merchant


@dataclass(frozen=True, slots=True)
class MerchantsEditor:
    """A merchants file, with what is needed to write it again."""

    merchants: tuple[Merchant, ...]
    """A line each, in the order of the file."""
    content: bytes = field(repr=False)
    """The file as it was read; the header alone where there is none yet."""
    exists: bool
    bom: bytes
    text: str = field(repr=False)
    codec: str
    delimiter: str
    header_line: int
    """Counted as records: a line break in quotes begins no new one."""
    width: int
    """Columns of the header."""
    columns: Mapping[str, int]
    """Our names → the file's columns."""
    warnings: tuple[Text, ...] = ()
    """Why the encoding may be guessed wrong."""

    def rewritten(
        self, left: Mapping[int, bool], names: Mapping[int, str], added: Sequence[Merchant]
    ) -> bytes:
        """The file with these changes.

        Args:
            left: place in `merchants` → whether that line's status is `left` or empty.
            names: place in `merchants` → its new name.
            added: lines for the end.

        """
        status = self.columns.get("status", self.width if left else None)
        width = max(self.width, status + 1) if status is not None else self.width
        out: list[str] = []
        place, end = 0, "\r\n"
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
                if place in names:
                    changes[self.columns["name"]] = guard(names[place])
                if status is not None and place in left:
                    changes[status] = "left" if left[place] else ""
                out.append(self._with_changes(raw, changes, width if width > self.width else 0))
                place += 1
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


def read_roster(file: Path) -> MerchantsEditor:
    """Read a merchants file to write it again. One that is not there yet is an empty one, as `init` makes it.

    Raises InputError with every problem of the file.
    """
    exists = file.exists()
    if exists:
        with open_source(file) as raw:
            content = raw.read()
    else:
        content = merchants_file()
    decoded = decode(io.BytesIO(content), str(file))
    codec, text = cast("TextIO", decoded.text).encoding, decoded.text.read()
    plain = text.encode(codec)
    bom = content.removesuffix(plain) if content.endswith(plain) else b""
    table = merchants_table(io.StringIO(text, newline=""), str(file))
    columns, problems = find_columns(table.headers, MERCHANT_COLUMNS, {}, table.header_line)
    whole = not problems and all(ours in columns for (ours,) in MERCHANT_NEEDS)
    empty = whole and _is_empty(text, table)
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
        return False  # read_merchants says where


def write_roster(dest: Path, content: bytes, before: bytes | None) -> None:
    """Put `content` into a file, whole or not at all; `before` is what was read from there, None where nothing was.

    Raises StoppedError where it cannot be written, or holds something else by now; it is then as it was.
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
        why = error.strerror or "?"
        failed = Text(
            f"{dest} cannot be written ({why}): it is as it was. Mend that, then run the same command again.",
            f"{dest} 无法写入（{why}）：文件未改动。请处理后再次运行同一命令。",
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
    return Text(
        f"{dest} was changed while the merchants were asked for, so it is left as it is: run the same command again.",
        f"查询商户期间 {dest} 被改动，因此没有写入：请再次运行同一命令。",
    )


def _records(text: str, delimiter: str, *, strict: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Each record as it stands, and its cells."""
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    for cells in csv.reader(lines(), delimiter=delimiter, strict=strict):
        yield "".join(taken), cells
        taken.clear()


def _fields(raw: str, delimiter: str) -> tuple[list[str], str]:
    """A record's fields as they stand, quotes and all, and its line end."""
    body = raw.rstrip("\r\n")
    fields, start, quoted = [], 0, False
    for place, letter in enumerate(body):
        if letter == '"' and body[start] == '"':  # a doubled quote turns it off and on again
            quoted = not quoted
        elif letter == delimiter and not quoted:
            fields.append(body[start:place])
            start = place + 1
    return [*fields, body[start:]], raw[len(body) :]


def _with(fields: Sequence[str], column: int, value: str) -> list[str]:
    longer = [*fields, *[""] * (column + 1 - len(fields))]
    longer[column] = value
    return longer


def _quoted(value: str, delimiter: str) -> str:
    if '"' in value or delimiter in value:
        return '"' + value.replace('"', '""') + '"'
    return value
