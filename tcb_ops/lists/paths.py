"""Reading and checking of path lists: the naming rules of cloud paths, the check of a row, and of the whole list.

Sources: the storage guide's page "file naming rules" (developers.weixin.qq.com, wxcloud/guide/storage/naming) and the
object store's "object overview" (cloud.tencent.com/document/product/436/13324).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import BrokenTableError, UsageError, needed
from tcb_ops.formatting import EDGE, shown, trim, unguard
from tcb_ops.frames import Given
from tcb_ops.hooks import MapHooks
from tcb_ops.i18n import Text, _, as_list, ngettext
from tcb_ops.kinds import row_count
from tcb_ops.lists.batch import Batch, Problems, Staging
from tcb_ops.lists.input_files import input_error, refused
from tcb_ops.lists.merchants import Merchants, Resolve, Unresolved, cached_resolve
from tcb_ops.lists.row_files import (
    LocalFiles,
    SourceCheck,
    UnusableFile,
    conceal,
    concealed,
    refuse_sources,
    split_source,
)
from tcb_ops.lists.table import (
    ADDED,
    LIST_COLUMNS,
    Columns,
    NonTextCell,
    Table,
    not_computed,
    open_table,
)
from tcb_ops.model import OnBad, Problem, Row, Rows, Secret, Selection, is_source

# --- paths and headers ---------------------------------------------------------------------------------------------

MAX_PATH_BYTES = 850
"""Both pages limit "the encoded length". It is measured in UTF-8: the object overview defines keys as UTF-8, and the
form post sends them so. Percent-encoding is mentioned only for later access."""

_PLAIN = re.compile(r"(?!\.{1,2}(?:/|$))[A-Za-z0-9!_.*\-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9!_.*\-]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:\s*;.*)?")
_DOTS = re.compile(r"(?:^|/)(\.{1,2})(?:/|$)")
_NOT_ADVISED = re.compile(r"[`^\"\\{}\[\]~%#><\u0080-\u07ff\u200b-\u200f\u2028-\u202e\u2060\ufeff]")


def path_problem(path: str) -> tuple[Text, Text] | None:
    r"""Return (problem, fix) of a trimmed path; None if it is valid.

    ==============================  ============================================
    path                            problem
    ==============================  ============================================
    a/b.png, 目录/图 1.png          none
    (empty)                         is empty
    /a.png                          begins with /
    \a.png                          begins with a backslash
    a/access_token=•••              masked in a report, not a file's name
    a//b.png                        //
    a/                              ends with /
    ./a.png, a/../b.png             a . or .. segment
    a<TAB>b, a<ESC>b, a<DEL>b       a control character (24–27 are refused, the
                                    others break signatures and headers)
    over 850 bytes of UTF-8         too long
    ==============================  ============================================
    """
    if _PLAIN.fullmatch(path) and len(path) <= MAX_PATH_BYTES:
        return None
    if not path:
        return detail(DetailCode.PATH_EMPTY), _("write the cloud path, e.g. banner/a.png")
    if path[0] in "/\\":
        return detail(DetailCode.PATH_BEGINS, path=path[0]), _("remove the {path} at the front", path=path[0])
    if problem := _control_problem(path, DetailCode.PATH_CONTROL):
        return problem
    if "•••" in path:
        fix = _("copy the row from the original list, or run it again with tcb-ops retry")
        return detail(DetailCode.PATH_MASKED), fix
    if "//" in path:
        return detail(DetailCode.PATH_SLASHES), _("write a single /")
    if path.endswith("/"):
        return detail(DetailCode.PATH_ENDS), _("add the file's name, e.g. {path}a.png", path=path)
    if segment := _DOTS.search(path):
        fix = _("write the path out in full, without . and ..")
        return detail(DetailCode.PATH_DOTS, segment=segment.group(1)), fix
    if (size := len(path.encode())) > MAX_PATH_BYTES:
        fix = _("shorten it (a Chinese character is 3 bytes)")
        return detail(DetailCode.PATH_LONG, bytes=size, most=MAX_PATH_BYTES), fix
    return None


def _control_problem(value: str, code: DetailCode = DetailCode.VALUE_CONTROL) -> tuple[Text, Text] | None:
    if (match := _CONTROL.search(value)) is None:
        return None
    fix = _("remove it; pasting may have added a line break or tab")
    return detail(code, character=f"U+{ord(match.group()):04X}"), fix


def _content_type_problem(value: str) -> tuple[Text, Text] | None:
    if (problem := _control_problem(value)) or _MEDIA_TYPE.fullmatch(value):
        return problem
    fix = _("write one such as image/png, or leave it empty: the extension of the path then decides")
    return detail(DetailCode.MEDIA_TYPE), fix


_HEADER_CHECKS = {"content_type": _content_type_problem, "cache_control": _control_problem}


def not_advised(path: str) -> str:
    """Return the first character that is invisible or that the naming rules advise against; "" if there is none.

    Letters, digits, ``- ! _ . * /``, Chinese, and the characters that need encoding (``, : ; = & $ @ + ?`` and space)
    pass.
    """
    match = _NOT_ADVISED.search(path)
    return match.group() if match else ""


# --- rows ----------------------------------------------------------------------------------------------------------

_USED = ("env", "path", "merchant", "appid", "file", "content_type", "cache_control")
_TARGET = frozenset({"env", "merchant", "appid"})
_TEXT_ONLY = frozenset({"env", "path", "file"})


class RowValidator:
    """A validator for the rows of one list. Counts rows, rows excluded by `--where`, and warnings.

    `map_file` maps local files named by another machine's path. Cells beyond the header are ignored with a warning in
    a `sheet`, but are a problem in delimited text, where an extra delimiter shifts cells.
    """

    def __init__(
        self,
        headers: Sequence[str],
        positions: Mapping[str, int],
        resolve: Resolve,
        *,
        map_file: Callable[[str], str] = str,
        sheet: bool = False,
    ) -> None:
        self._map_file, self._sheet = map_file, sheet
        self.rows = 0
        self.left_out = 0
        self._width = len(headers)
        self._keep = [i for i, header in enumerate(headers) if not trim(header).startswith(ADDED)]
        self._exported = len(self._keep) < len(headers)
        self.headers = tuple(headers[i] for i in self._keep)
        self._names = {name: trim(headers[position]) for name, position in positions.items()}
        self.unused = tuple(
            name for name in map(trim, self.headers) if name and name not in self._names.values()
        )
        """The headers of columns that are only carried through."""
        self._positions = [positions.get(name, -1) for name in _USED]
        self._resolve = resolve
        names = [trim(header) for header in headers]
        self.exported = frozenset(name for name in names if name.startswith(ADDED))
        origin = ("tcb_list" if "tcb_list" in names else "tcb_ended_at", "tcb_line")
        self._origin = [names.index(name) for name in origin] if {*origin} <= {*names} else []
        self._counts: dict[str, tuple[int, int, str]] = {}

    def column(self, name: str) -> str:
        """Return the header of a canonical name for a problem, or of the column used in its place."""
        return self._names.get(name) or self._names.get({"env": "merchant", "file": "path"}.get(name, ""), "")

    def validate(self, line: int, cells: list[str]) -> tuple[Row | None, list[Problem]]:
        """Return the row and its problems; no row if the line is blank or excluded by `--where`."""
        problems: list[Problem] = []
        if len(cells) != self._width:
            cells = self._fitted(line, cells, problems)
            cells = concealed(cells) if problems else cells  # a URL may be in another column
        if self._exported:
            cells = [unguard(cell) for cell in cells]
        bad = self._not_text(line, cells) if self._sheet else {}
        env, path, merchant, appid, file, content_type, cache_control = self._values(cells)
        if not path and not any(map(trim, cells)) and not not_computed(cells):
            return None, problems
        cells, file, query = self._file_of(cells, file)
        has_headers = content_type or cache_control
        bad |= self._header_problems(line, content_type, cache_control) if has_headers else {}
        name = ""
        # Too many cells usually means that they are shifted: validating them would mislead.
        if not problems:
            problems += bad.values()
            if _TARGET.isdisjoint(bad):
                if (environment := self._resolve(env, merchant, appid)) is None:
                    self.left_out += 1
                    return None, []
                if isinstance(environment, Unresolved):
                    value = {"env": env, "merchant": merchant, "appid": appid}[environment.column]
                    column = self.column(environment.column)
                    problems.append(Problem(line, column, environment.message, environment.fix, shown(value)))
                    appid = ""
                else:
                    env, appid, name = environment.env, environment.appid, environment.name
            if "path" not in bad and self._check_path(line, path, problems):
                file = file or path.replace("\\", "/")
        origin, of_line = self._origin_of(cells) if self._origin else ("", 0)
        if self._exported:
            cells = [cells[i] for i in self._keep]
        self.rows += 1
        row = Row(
            line,
            env,
            path,
            appid,
            name,
            file,
            tuple(cells),
            content_type=content_type,
            cache_control=cache_control,
            query=query,
            origin=origin,
            of_line=of_line,
        )
        return row, problems

    def _file_of(self, cells: list[str], file: str) -> tuple[list[str], str, Secret | None]:
        if not is_source(file):
            return cells, self._map_file(file.replace("\\", "/")) if file else "", None
        name, query = split_source(file)
        return conceal(cells, file), name, None if query is None else Secret(query)

    def warnings(self) -> tuple[Text, ...]:
        """Return one warning per kind, with the number of cases and the location of the first."""
        return tuple(
            _WARNINGS[kind].format(n=times, line=line, what=example)
            for kind, (times, line, example) in self._counts.items()
        )

    def _values(self, cells: list[str]) -> list[str]:
        padded = [*cells, ""]  # a column that the list does not have is empty
        return [padded[position].strip(EDGE) for position in self._positions]

    def _origin_of(self, cells: list[str]) -> tuple[str, int]:
        origin, of_line = [trim(cells[position]) for position in self._origin]
        return origin, int(of_line) if of_line.isdecimal() and len(of_line) < 10 else 0

    def _not_text(self, line: int, cells: list[str]) -> dict[str, Problem]:
        """Return the problems of a sheet's cells that must be text, by canonical name."""
        named = [
            (name, cells[position])
            for name, position in zip(_USED, self._positions, strict=True)
            if position >= 0
        ]
        return {
            name: Problem(line, self._names[name], *cell.problem, shown(cell))
            for name, cell in named
            if isinstance(cell, NonTextCell) and (name in _TEXT_ONLY or not cell.is_clear)
        }

    def _header_problems(self, line: int, content_type: str, cache_control: str) -> dict[str, Problem]:
        values = {"content_type": content_type, "cache_control": cache_control}
        return {
            name: Problem(line, self._names[name], *wrong, shown(value))
            for name, value in values.items()
            if value and (wrong := _HEADER_CHECKS[name](value))
        }

    def _check_path(self, line: int, path: str, problems: list[Problem]) -> bool:
        """Return whether the path is valid. Counts warnings."""
        if wrong := path_problem(path):
            problems.append(Problem(line, self.column("path"), *wrong, shown(path)))
            return False
        if character := not_advised(path):
            self._warn("not advised", line, shown(character))
        return True

    def _warn(self, kind: str, line: int, example: str) -> None:
        times, first, first_example = self._counts.get(kind, (0, line, example))
        self._counts[kind] = (times + 1, first, first_example)

    def _fitted(self, line: int, cells: list[str], problems: list[Problem]) -> list[str]:
        if extra := [cell for cell in concealed(cells[self._width :]) if trim(cell)]:
            if self._sheet:
                self._warn("beyond", line, shown(extra[0], 40))
            else:
                listed = shown(", ".join(extra))
                message = detail(DetailCode.CELLS_BEYOND, cells=len(cells), width=self._width, listed=listed)
                fix = _("put a cell that holds the delimiter in double quotes")
                problems.append(Problem(line, "", message, fix, listed))
        return cells[: self._width] + [""] * (self._width - len(cells))


_WARNINGS = {
    "beyond": _(
        "Rows with cells to the right of the last column name: {n:,}; those cells are ignored (first: line {line}, "
        "'{what}')"
    ),
    "not advised": _(
        "Paths with characters that the storage advises against: {n:,}; they are sent unchanged (first: line {line}, {what})"
    ),
}


# --- lists ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextRows:
    """A list in memory. Its header is line 1."""

    headers: tuple[str, ...]
    rows: Sequence[Sequence[str]] = field(repr=False)
    given: Given | None = field(default=None, repr=False)
    """The DataFrame that they are the cells of."""

    def __str__(self) -> str:
        """Return its name in messages and in the ledger."""
        return "DataFrame"


def read_paths(
    source: str | Path | TextRows,
    merchants: Merchants,
    root: str | Path | None = None,
    *,
    columns: Mapping[str, str] = {},
    on_bad: OnBad = "refuse",
    sheet: str = "",
    header_row: int = 0,
    rows: Rows | None = None,
    file_map: Sequence[str] = (),
    sources: SourceCheck = refuse_sources,
    guessed: bool = False,
) -> Batch:
    """Read a path list and check every row; arguments and errors are those of `api.read_paths`.

    `sources`: looks at files that are URLs; without it they are refused. `guessed`: as in `Batch.check_files`.
    """
    if unknown := [name for name in columns if name not in LIST_COLUMNS.known]:
        text = _("{--column:{given}=…}: the name must be one of {ours}.")
        raise UsageError(text.format(given=shown(unknown[0], 40), ours=", ".join(LIST_COLUMNS.known)))
    name = str(source)
    map_file = needed(MapHooks).path_map(file_map, root) if file_map else str
    list_columns = replace(LIST_COLUMNS, given=columns)
    with _open_table(source, list_columns, sheet, header_row, rows) as (read, encoding, size, sha256):
        table = _with_own_headers(read)
        staging = Staging(sha256)
        positions = _find_columns(name, table, list_columns, merchants, root)
        validator = RowValidator(
            table.headers,
            positions,
            cached_resolve(merchants),
            map_file=map_file,
            sheet=not table.delimiter,
        )
        broken = _stage(table, validator, staging)
    if broken:
        staging.add_problems([broken])
    elif not validator.rows and not validator.left_out:
        message, fix = _("there is a header but no row below it"), _("add a row per file")
        raise refused(name, message, fix, table.header_line)
    column, fix = validator.column("path"), _("remove one of the two rows, or give it another path")
    staging.add_problems(
        Problem(line, column, detail(DetailCode.DUPLICATE, first=first), fix, shown(path))
        for line, first, path in staging.repeats()
    )
    problems = Problems(staging, validator.headers)
    decided = _decided(name, table, positions, validator)
    on_bad = "refuse" if broken else on_bad
    if on_bad == "refuse" and problems and root is None:
        raise input_error(name, problems, decided)
    if not validator.rows and not broken:
        raise UsageError(
            _(
                "{name}: {--where} excludes every row ({rows}).",
                name=name,
                rows=row_count(validator.left_out),
            )
        )
    batch = Batch(
        source=Path(name),
        sha256=sha256,
        bytes=size,
        headers=validator.headers,
        encoding=encoding,
        warnings=validator.warnings(),
        decided=decided,
        merchants=merchants,
        left_out=validator.left_out,
        on_bad=on_bad,
        root=None,
        staging=staging,
        file_column=validator.column("file"),
        sources=sources,
        unused=validator.unused,
        selection=Selection.of_list(
            merchants.where,
            map("=".join, columns.items()),
            file_map,
            sheet=sheet,
            header_row=header_row,
            rows=rows,
        ),
        exported=validator.exported,
        given=source.given if isinstance(source, TextRows) else None,
    )
    return batch if root is None else batch.check_files(root, guessed=guessed)


@contextmanager
def _open_table(
    source: str | Path | TextRows, columns: Columns, sheet: str, header_line: int, rows: Rows | None
) -> Iterator[tuple[Table, str, int, str]]:
    """Open a list in any format. Yields its table, its encoding as displayed, its bytes and its SHA-256.

    Lists in memory with equal cells have equal SHA-256.
    """
    if isinstance(source, TextRows):
        size, sums = 0, hashlib.sha256()
        for line in (source.headers, *source.rows):
            cells = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace")
            size += len(cells)
            sums.update(cells)
        records = ((line, list(cells)) for line, cells in enumerate(source.rows, start=2))
        yield Table(source.headers, 1, records, _("in memory"), ","), "", size, sums.hexdigest()
        return
    with open_table(source, columns.rate, sheet=sheet, header_line=header_line, rows=rows) as opened:
        yield opened


def _with_own_headers(table: Table) -> Table:
    """Undo what exports, which have columns of their own, add to headers that a spreadsheet would run as a formula."""
    if not any(trim(header).startswith(ADDED) for header in table.headers):
        return table
    return replace(table, headers=tuple(map(unguard, table.headers)))


def _find_columns(
    name: str, table: Table, columns: Columns, merchants: Merchants, root: str | Path | None
) -> dict[str, int]:
    if not table.headers:
        fix = _("export the list again; it needs a header and rows")
        raise refused(name, _("the file contains only blank lines"), fix)
    positions, problems = columns.find(table.headers, table.header_line)
    if not problems:
        return positions
    error = input_error(name, problems)
    meant = _meant_columns(table, columns, positions, merchants, root)
    if meant and not replace(columns, given={**columns.given, **meant}).find(table.headers, 0)[1]:
        error.columns = meant
        listed = as_list(
            _("{--column:{name}={header}}", name=name, header=shown(header, 40))
            for name, header in meant.items()
        )
        error.advice = _("By their values, these columns are meant: {listed}", listed=listed)
    raise error


def _meant_columns(
    table: Table,
    columns: Columns,
    positions: Mapping[str, int],
    merchants: Merchants,
    root: str | Path | None,
) -> dict[str, str]:
    """Return the columns that are missing, by their values in the first rows: merchants and environments, paths, files.

    A header that means appids may stand over names. Of two columns with as many paths, one may name the files that are there.
    """
    looks_like: dict[str, Callable[[str], bool]] = {
        "merchant": lambda value: bool(merchants.whole.resolve(value)),
        "env": lambda value: bool(merchants.whole.for_env(value)),
        "path": lambda value: path_problem(value) is None and "." in value.rpartition("/")[2],
    }
    cells = [list[str]() for _header in table.headers]
    with suppress(BrokenTableError):
        for _line, row in islice(table.rows, _SAMPLE):
            for values, cell in zip(cells, row, strict=False):
                values.append(trim(cell))
    files = None if root is None else LocalFiles(Path(root))
    there = [
        sum(not isinstance(files.inspect(value), UnusableFile) for value in filter(None, values))
        if files is not None
        else 0
        for values in cells
    ]
    taken = set(positions.values())
    used = {position for name, position in positions.items() if name != "appid"}
    meant: dict[str, str] = {}
    path = positions.get("path")
    for group in columns.needed:
        likely = [
            (
                sum(map(looks_like[name], filter(None, values))),
                position not in taken,
                -there[position],
                -position,
                name,
            )
            for name in group
            for position, values in enumerate(cells)
            if position not in used
        ]
        rows, _untaken, _there, place, name = max(likely, default=(0, False, 0, 0, ""))
        if positions.keys().isdisjoint(group) and rows * 2 > len(cells[0]):
            meant[name] = trim(table.headers[-place])
            used.add(-place)
            path = -place if name == "path" else path
    if path is not None and "file" not in positions:
        rows, place = max(
            ((there[position], -position) for position in range(len(cells)) if position not in used),
            default=(0, 0),
        )
        if rows > there[path]:
            meant["file"] = trim(table.headers[-place])
    return meant


_SAMPLE = 200
"""So many rows tell what a column has."""


def _stage(table: Table, validator: RowValidator, staging: Staging) -> Problem | None:
    rows: list[Row] = []
    problems: list[Problem] = []
    broken = None
    try:
        for line, cells in table.rows:
            row, faults = validator.validate(line, cells)
            if row is not None:
                rows.append(row)
            problems += faults
            if len(rows) + len(problems) >= 2_000:
                staging.add_rows(rows)
                staging.add_problems(problems)
                rows.clear()
                problems.clear()
    except BrokenTableError as error:
        broken = error.problem
    staging.add_rows(rows)
    staging.add_problems(problems)
    return broken


def _decided(source: str, table: Table, positions: Mapping[str, int], validator: RowValidator) -> Text:
    columns = {name: shown(trim(table.headers[position]), 40) for name, position in positions.items()}
    named = as_list(
        name if name == header else _("{header} ({name})", header=header, name=name)
        for name, header in columns.items()
    )
    layout = table.layout
    if table.header_line > 1:
        layout = _("{layout}, header in row {line}", layout=layout, line=table.header_line)
    rows = row_count(validator.rows)
    if validator.left_out:
        rows = _("{rows}, {out:,} more excluded by {--where}", rows=rows, out=validator.left_out)
    if n := table.left_out:
        rows = ngettext(
            "{rows}, {n:,} hidden row left out", "{rows}, {n:,} hidden rows left out", n, rows=rows
        )
    return _(
        "{name}: {layout}; columns {columns}; {rows}",
        name=source,
        layout=layout,
        columns=named,
        rows=rows,
    )
