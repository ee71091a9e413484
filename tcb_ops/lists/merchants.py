"""The merchants file: which mini program uses which environment. Reading, and editing in place.

An edit preserves everything except the changes byte for byte: the operator's columns, rows and order, encoding and
BOM, delimiter, line ends and quoting. New lines are added at the end, and a `status` column if it is needed and missing.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TextIO, TypeVar, cast, overload

from tcb_ops.errors import BrokenTableError, StoppedError, UsageError, check_text, check_value
from tcb_ops.formatting import fold, guard, near_names, shown, trim
from tcb_ops.i18n import Text, _, ngettext
from tcb_ops.lists.source import decode, open_source, open_text, read_table
from tcb_ops.lists.staging import input_error
from tcb_ops.lists.table import MERCHANT_COLUMNS, Table
from tcb_ops.model import Merchant, Owner, Problem, file_problem
from tcb_ops.resources import system_reason

_T = TypeVar("_T")

_DEFAULTS = {
    **dict.fromkeys(("yes", "y", "true", "1", "是", "默认"), True),
    **dict.fromkeys(("", "no", "n", "false", "0", "否"), False),
}
_OWNERS = {
    **dict.fromkeys(("", "merchant", "商户", "商家"), Owner.MERCHANT),
    **dict.fromkeys(("platform", "平台", "第三方平台"), Owner.PLATFORM),
}
_STATUSES = {
    **dict.fromkeys(("", "active", "normal", "正常", "已授权"), False),
    **dict.fromkeys(
        ("left", "revoked", "已离开", "已解除", "取消授权", "已取消授权", "解除授权", "已解除授权"), True
    ),
}


class Merchants(Sequence[Merchant]):
    """The lines of a merchants file in order; with `--where`, the matching ones.

    `whole` is the unfiltered file: which merchant an environment belongs to does not depend on `--where`.
    """

    def __init__(
        self, lines: Sequence[Merchant], source: str = "", whole: Merchants | None = None, *, sha256: str = ""
    ) -> None:
        """`sha256` is that of the file's bytes; empty if there is no file."""
        usable = isinstance(lines, Sequence) and all(isinstance(line, Merchant) for line in lines)
        check_value("lines", lines, usable, _("a list of Merchant"))
        self.source = source
        self.sha256: str = sha256 or (whole.sha256 if whole is not None else "")
        self.whole = whole if whole is not None else self
        self._lines = tuple(lines)

    # Made when they are needed: an audit of 10,000 environments looks none of them up.

    @cached_property
    def _keys(self) -> frozenset[tuple[str, str]]:
        return frozenset((m.appid, m.env) for m in self._lines)

    @cached_property
    def _by_env(self) -> dict[str, list[Merchant]]:
        return _grouped(self._lines, lambda line: {line.env})

    @cached_property
    def _by_name(self) -> dict[str, list[Merchant]]:
        return _grouped(self._lines, lambda line: {fold(line.name), fold(line.appid)})

    def for_env(self, env: str) -> tuple[Merchant, ...]:
        """Return the lines of an environment: several if merchants share it, none if it is unknown."""
        check_text("env", env)
        return tuple(self._by_env.get(env, ()))

    def resolve(self, name_or_appid: str) -> tuple[Merchant, ...]:
        """Return the lines of a merchant, by name or appid, ignoring case, character width and surrounding spaces."""
        check_text("name_or_appid", name_or_appid)
        return tuple(self._by_name.get(fold(name_or_appid), ()))

    @property
    def envs(self) -> tuple[str, ...]:
        """The distinct environments, in the order of the file."""
        return tuple(self._by_env)

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct merchant names, in the order of the file."""
        return tuple(dict.fromkeys(m.name for m in self._lines))

    @overload
    def __getitem__(self, index: int) -> Merchant: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Merchant, ...]: ...
    def __getitem__(self, index: int | slice) -> Merchant | tuple[Merchant, ...]:
        return self._lines[index]

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Merchant]:
        return iter(self._lines)

    def __contains__(self, merchant: object) -> bool:
        return isinstance(merchant, Merchant) and (merchant.appid, merchant.env) in self._keys

    def __repr__(self) -> str:
        lines = ngettext("{n:,} line", "{n:,} lines", len(self))
        return f"Merchants({self.source!r}, {lines}, {ngettext('{n:,} environment', '{n:,} environments', len(self._by_env))})"


def _grouped(lines: Iterable[Merchant], keys: Callable[[Merchant], set[str]]) -> dict[str, list[Merchant]]:
    found: dict[str, list[Merchant]] = {}
    for line in lines:
        for key in keys(line):
            found.setdefault(key, []).append(line)
    return found


def read_merchants(source: str | Path, where: Sequence[str] = ()) -> Merchants:
    """Read a merchants file (CSV or TSV, encodings as for lists), filtered by `where`.

    `where` holds `column=value` items. A line must match every named column; repeating a column allows several
    values. Columns can be named by their header or their canonical name, ignoring case and character width.

    Raises InputError with all problems of the file; UsageError if an item of `where` names no column or no merchant
    matches.
    """
    name = str(source)
    problems: list[Problem] = []
    lines: list[Merchant] = []
    with open_text(source) as decoded:
        try:
            table = read_table(decoded.text, MERCHANT_COLUMNS.rate)
            found, problems = MERCHANT_COLUMNS.find(table.headers, table.header_line)
            lines = [] if problems else _read_lines(table, found, problems)
        except BrokenTableError as error:
            problems.append(error.problem)
    if not lines and not problems:
        fix = _("add a line per merchant and environment")
        problems.append(file_problem(_("there is a header but no merchant below it"), fix))
    if problems:
        raise input_error(name, problems)
    whole = Merchants(lines, name, sha256=decoded.sha256)
    return _narrowed(whole, where, table.headers, found) if where else whole


def _read_lines(table: Table, found: dict[str, int], problems: list[Problem]) -> list[Merchant]:
    lines: list[Merchant] = []
    first_at: dict[tuple[str, str], int] = {}
    default_of: dict[str, int] = {}
    headers = tuple(trim(h) for h in table.headers)
    for line, raw in table.rows:
        cells = [trim(cell) for cell in raw]
        if not any(cells):
            continue
        cells += [""] * (len(headers) - len(cells))
        if any(cells[len(headers) :]):
            message = _(
                "the line has {cells}, the header {headers}",
                cells=ngettext("{n:,} cell", "{n:,} cells", len(cells)),
                headers=len(headers),
            )
            fix = _("put a cell that holds the delimiter in double quotes")
            problems.append(file_problem(message, fix, line=line))
            continue
        merchant = _read_line(line, cells, headers, found, problems)
        key = (merchant.appid, merchant.env)
        if all(key) and first_at.setdefault(key, line) != line:
            problems.append(_duplicate(line, headers[found["env"]], merchant, first_at[key]))
        name = fold(merchant.name)
        if merchant.default and name and default_of.setdefault(name, line) != line:
            problems.append(_two_defaults(line, headers[found["default"]], merchant, default_of[name]))
        lines.append(merchant)
    return lines


def _read_line(
    line: int, cells: list[str], headers: tuple[str, ...], found: dict[str, int], problems: list[Problem]
) -> Merchant:
    def needed(ours: str) -> str:
        value = cells[found[ours]]
        if not value:
            message, fix = _("the {ours} is empty", ours=ours), _("fill it in, or remove the line")
            problems.append(file_problem(message, fix, line=line, column=headers[found[ours]]))
        return value

    def one_of(ours: str, values: dict[str, _T]) -> _T:
        value = cells[found[ours]] if ours in found else ""
        if fold(value) in values:
            return values[fold(value)]
        allowed = ", ".join(v for v in values if v)
        message = _("{ours} cannot be '{value}'", ours=ours, value=shown(value))
        fix = _("write one of {allowed}, or nothing", allowed=allowed)
        problems.append(
            file_problem(message, fix, line=line, column=headers[found[ours]], value=shown(value))
        )
        return values[""]

    return Merchant(
        appid=needed("appid"),
        name=needed("name"),
        env=needed("env"),
        default=one_of("default", _DEFAULTS),
        owner=one_of("owner", _OWNERS),
        left=one_of("status", _STATUSES),
        columns=tuple(zip(headers, cells, strict=False)),
    )


def _narrowed(
    whole: Merchants, where: Sequence[str], headers: Sequence[str], found: dict[str, int]
) -> Merchants:
    index = {fold(h): i for i, h in enumerate(headers)} | found
    wanted: dict[int, set[str]] = {}
    for item in where:
        column, equals, value = item.partition("=")
        at = index.get(fold(column))
        if not equals:
            example = f"name={item}"
            if at is not None:  # a column without its value
                example = f"{item}={next((m.columns[at][1] for m in whole if m.columns[at][1]), '…')}"
            raise UsageError(
                _(
                    "--where {item}: write it as column=value, e.g. {example}",
                    item=shown(item),
                    example=shown(example),
                ),
                options=["--where"],
            )
        if at is None:
            near = near_names(column, map(trim, headers))[:1]
            there = ", ".join(trim(h) for h in headers)
            raise UsageError(
                _(
                    "--where {item}: {source} has no column '{column}'; it has {there}.",
                    item=shown(item),
                    source=whole.source,
                    column=shown(column),
                    there=there,
                ),
                _("Did you mean {near}?", near=f"--where {near[0]}={shown(value)}") if near else None,
                options=["--where"],
            )
        wanted.setdefault(at, set()).add(fold(value))
    kept = [m for m in whole if all(fold(m.columns[at][1]) in values for at, values in wanted.items())]
    if not kept:
        raise _no_match(whole, where, wanted)
    return Merchants(kept, whole.source, whole)


def _no_match(whole: Merchants, where: Sequence[str], wanted: dict[int, set[str]]) -> UsageError:
    items = " ".join(f"--where {shown(item)}" for item in where)
    near = []
    for at, values in wanted.items():
        there = {fold(m.columns[at][1]): m.columns[at][1] for m in whole if m.columns[at][1]}
        for value in values - there.keys():
            near += [f"{whole[0].columns[at][0]}={shown(name)}" for name in near_names(value, there.values())]
    fix = _("did you mean {listed}?", listed=", ".join(near)) if near else _("check the values")
    return UsageError(
        _("{items}: no merchant of {source} matches; {fix}", items=items, source=whole.source, fix=fix)
    )


def list_lines(lines: Sequence[Merchant]) -> str:
    """List lines of the merchants file in a message: the first five and the total."""
    more = f" … ({len(lines)})" if len(lines) > 5 else ""
    return ", ".join(f"{m.env} ({m.name}, {m.appid})" for m in lines[:5]) + more


def _duplicate(line: int, column: str, merchant: Merchant, first: int) -> Problem:
    message = _(
        "{appid} with {env} is already in line {first}",
        appid=shown(merchant.appid),
        env=shown(merchant.env),
        first=first,
    )
    fix = _("remove one of the two lines")
    return file_problem(message, fix, line=line, column=column, value=shown(merchant.env))


def _two_defaults(line: int, column: str, merchant: Merchant, first: int) -> Problem:
    message = _(
        "the default environment of '{name}' is already set in line {first}",
        name=shown(merchant.name),
        first=first,
    )
    fix = _("keep default=yes in only one line of this name")
    return file_problem(message, fix, line=line, column=column)


# --- editing -------------------------------------------------------------------------------------------------------

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
    table: Table
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
        delimiter, width = self.table.delimiter, len(self.table.headers)
        status = self.columns.get("status", width if left else -1)
        wider = status == width
        width += wider
        out: list[str] = []
        at, end = 0, "\r\n"
        for line, (raw, cells) in enumerate(_records(self.text, delimiter), 1):
            changes: dict[int, str] = {}
            if line < self.table.header_line or not any(map(trim, cells)):
                out.append(raw)
                continue
            fields, ending = _fields(raw, delimiter)
            if line == self.table.header_line:
                ending = end = ending or end
                if wider:
                    changes[status] = "status" if fields[self.columns["env"]].isascii() else "状态"
            else:
                if at in names:
                    changes[self.columns["name"]] = guard(names[at])
                if at in left:
                    changes[status] = "left" if left[at] else ""
                at += 1
            fields += [""] * ((width if wider else max(changes, default=-1) + 1) - len(fields))
            out.append(_joined(fields, changes, delimiter) + ending)
        if added and out and not out[-1].endswith(("\n", "\r")):
            out[-1] += end
        appid, name, env = (self.columns[ours] for ours in ("appid", "name", "env"))
        for one in added:
            new = {appid: one.appid, name: guard(one.name), env: one.env}
            out.append(_joined([""] * width, new, delimiter) + end)
        return self.bom + "".join(out).encode(self.codec)


def edit_merchants(file: Path) -> MerchantsEditor:
    """Read a merchants file for editing; a missing one has just the header, as `init` writes it.

    Raises InputError with all problems of the file.
    """
    exists, content = file.exists(), EMPTY_FILE
    if exists:
        with open_source(file) as raw:
            content = raw.read()
    decoded = decode(io.BytesIO(content), str(file))
    codec, text = cast("TextIO", decoded.text).encoding, decoded.text.read()
    plain = text.encode(codec)
    bom = content.removesuffix(plain) if content.endswith(plain) else b""
    try:
        table = read_table(io.StringIO(text, newline=""), MERCHANT_COLUMNS.rate)
    except BrokenTableError as error:
        raise input_error(str(file), [error.problem]) from None
    columns, problems = MERCHANT_COLUMNS.find(table.headers, table.header_line)
    merchants = () if not problems and _is_empty(text, table) else tuple(read_merchants(file))
    return MerchantsEditor(merchants, content, exists, bom, text, codec, table, columns, decoded.warnings)


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
                    raise StoppedError(
                        _(
                            "{dest} changed while the merchants were queried, so it was not written: run the same "
                            "command again.",
                            dest=dest,
                        )
                    )
                Path(fresh.name).replace(real)
            finally:
                with suppress(FileNotFoundError):
                    Path(fresh.name).unlink()
    except OSError as error:
        failed = _(
            "{dest} cannot be written ({why}) and is unchanged. Fix this, then run the same command again.",
            dest=dest,
            why=system_reason(error),
        )
        raise StoppedError(failed) from None


def _keep_mode(fresh: Path, real: Path) -> None:
    if real.exists():
        shutil.copymode(real, fresh)
    else:
        mask = os.umask(0)
        os.umask(mask)
        fresh.chmod(0o666 & ~mask)


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


def _joined(fields: list[str], values: Mapping[int, str], delimiter: str) -> str:
    """Join raw fields to a record after setting some to values, quoted if necessary."""
    for column, value in values.items():
        quoted = '"' in value or delimiter in value
        fields[column] = '"' + value.replace('"', '""') + '"' if quoted else value
    return delimiter.join(fields)
