"""A checked list: what `links` and `upload` work on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from tcb_ops.cell_text import shown, trim
from tcb_ops.errors import BrokenTableError, UsageError
from tcb_ops.i18n import Text, plural
from tcb_ops.lists.headers import LIST_COLUMNS, LIST_NEEDS, Rating, find_columns, missing_column, rate
from tcb_ops.lists.local_files import Files, Mapped, Unfit
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.problems import input_error
from tcb_ops.lists.resolve import MerchantResolver
from tcb_ops.lists.source import decode, digest, is_workbook, open_source
from tcb_ops.lists.staging import Problems, Staging
from tcb_ops.lists.table import Table, read_table
from tcb_ops.lists.validate import RowCheck
from tcb_ops.lists.workbook import Rows, read_workbook
from tcb_ops.model import Merchant, Problem, Row, file_problem

OnBad: TypeAlias = Literal["refuse", "skip"]


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """The rows of a list, on disk: as long as the batch lives, or until it is closed.

    Nothing about it changes; `check_files` and `limited` give another view of the same rows.
    """

    source: Path
    """As the operator named it."""
    sha256: str
    """Of the file's bytes, 64 hex digits."""
    bytes: int
    headers: tuple[str, ...]
    """As they stand in the file, without columns that begin with `tcb_`."""
    encoding: str
    delimiter: str
    warnings: tuple[Text, ...]
    decided: Text
    """One line: encoding, delimiter, which column means what, rows."""
    merchants: Merchants = field(repr=False)
    left_out: int
    """Rows of merchants that `--where` leaves out: they are not in the batch."""
    on_bad: OnBad
    root: Path | None
    """Where the local files lie; None where they were not looked at."""
    staging: Staging = field(repr=False)
    file_column: str = field(default="", repr=False)
    """The header that problems of local files are said about."""
    until: int | None = field(default=None, repr=False)
    """With `limited`: the last line that is in."""

    def __repr__(self) -> str:
        files = f", files below {self.root}" if self.root is not None else ""
        return f"<Batch {self.source}: {self.valid:,} of {self.count:,} rows valid{files}>"

    @property
    def count(self) -> int:
        """Rows, invalid ones among them."""
        if self.until is not None:
            return self.valid
        return int(self.staging.ask("SELECT COUNT(*) FROM rows")[0][0])

    @property
    def valid(self) -> int:
        """Rows without a problem."""
        return self.staging.count("COUNT(*)", self.until)

    @property
    def problems(self) -> Problems:
        """Every problem in the order of the file; none with `limited`, which has valid rows only."""
        return Problems(self.staging, self.headers)

    @property
    def envs(self) -> int:
        """Environments of the valid rows."""
        return self.staging.count("COUNT(DISTINCT env)", self.until)

    @property
    def merchants_count(self) -> int:
        """Mini programs (appids) of the valid rows."""
        return self.staging.count("COUNT(DISTINCT appid)", self.until)

    @property
    def most_rows_of_an_appid(self) -> int:
        """Valid rows of the mini program that has most: what `--rate`, which is per appid, is reckoned on."""
        return self.staging.most_of("appid", self.until)

    @property
    def total_bytes(self) -> int:
        """Bytes of the valid rows' local files; 0 where they were not looked at."""
        return self.staging.count("SUM(size)", self.until)

    def by_merchant(self) -> list[tuple[str, str, int, int, int]]:
        """Of the valid rows: (appid, merchant, environments, rows, bytes), most rows first."""
        return self.staging.by_merchant(self.until)

    def by_place(self) -> list[tuple[str, str, int]]:
        """Of the valid rows: (appid, env, rows): who calls for which environment."""
        return self.staging.by_place(self.until)

    def of_left(self) -> list[tuple[Merchant, int]]:
        """Of the valid rows: those that will not be attempted, by the merchant's line that says it has left."""
        left = {(m.appid, m.env): m for m in self.merchants.whole if m.left}
        return [(left[appid, env], rows) for appid, env, rows in self.by_place() if (appid, env) in left]

    def rows(self) -> Iterator[Row]:
        """The rows in the order of the file; one with a problem has `invalid` set."""
        return self.staging.rows(self.until)

    def limited(self, n: int) -> Batch:
        """The first `n` valid rows only (`--limit`)."""
        return replace(self, until=self.staging.line_of_valid(n))

    def check_files(self, root: str | Path) -> Batch:
        """Look at every row's local file below `root`: rows get sizes and times, unfit files become problems.

        Raises InputError with every problem of the list: where the root is not there, and, unless bad rows are
        skipped, where there is any.
        """
        files = Files(Path(root))
        self.staging.clear_file_problems()
        if problem := files.problem():
            self.staging.add_problems([problem], file_problem=True)
            raise input_error(str(self.source), self.problems, self.decided)
        for page in self.staging.files():
            facts: list[tuple[int, int, int]] = []
            unfit: list[Problem] = []
            for line, file in page:
                found = files.look(file)
                if isinstance(found, Unfit):
                    unfit.append(
                        Problem(
                            line, self.file_column, found.message, found.fix, shown(file), option=found.option
                        )
                    )
                else:
                    facts.append((found.size, found.mtime_ns, line))
            self.staging.set_files(facts)
            self.staging.add_problems(unfit, file_problem=True)
        if self.on_bad == "refuse" and self.problems:
            raise input_error(str(self.source), self.problems, self.decided)
        return replace(self, root=Path(root))

    def close(self) -> None:
        """Give the disk space back. The rows cannot be read any more."""
        self.staging.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class TextRows:
    """A list that is in memory: the header counts as line 1, the rows follow."""

    name: str
    """What stands for a file's name in messages and in the ledger."""
    headers: tuple[str, ...]
    rows: Sequence[Sequence[str]] = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def listing(self) -> _Listing:
        """Open it as a table; the same cells have the same SHA-256."""
        size, sha256 = 0, hashlib.sha256()
        for cells in (self.headers, *self.rows):
            line = json.dumps(cells, ensure_ascii=False).encode("utf-8", "backslashreplace")
            size += len(line)
            sha256.update(line)
        records = ((line, list(cells)) for line, cells in enumerate(self.rows, start=2))
        table = Table(self.headers, 1, records, delimiter=",", layout=Text("in memory", "内存中的表"))
        return _Listing(table, "", size, sha256.hexdigest())


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the operator says about where in the file the list is."""

    columns: Mapping[str, str]
    sheet: str
    header_line: int
    rows: Rows | None


@dataclass(frozen=True, slots=True)
class _Listing:
    """A list opened."""

    table: Table
    encoding: str
    """As shown to people."""
    bytes: int
    sha256: str


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
) -> Batch:
    r"""Read a path list (CSV, TSV or XLSX) and check every row.

    `root`: the folder of the local files, which are then looked at; None leaves them alone. `columns`: our name
    (env, merchant, path, file, appid, content_type, cache_control) → the header that means it, where that is not a known one. `on_bad`: "refuse"
    raises where any row has a problem, "skip" marks those rows invalid. `header_row`: the header's row, 0 has it
    found. In a workbook `sheet` names the sheet and `rows` says whether hidden rows count. `file_map`: items such as
    `D:\素材=/data/素材`, for local files written on another machine; needs `root`.

    Raises InputError with every problem in the order of the file (problems of the file itself are raised whatever
    `on_bad` says), and UsageError for a name in `columns` that is none of ours, for a `file_map` that leads out of the
    root, or where no row is left.
    """
    if unknown := [name for name in columns if name not in LIST_COLUMNS]:
        ours = ", ".join(LIST_COLUMNS)
        raise UsageError(
            Text(
                f"--column {unknown[0]}=…: the name must be one of {ours}",
                f"--column {unknown[0]}=…：名称只能是 {ours}",
            )
        )
    name = str(source)
    mapped = Mapped(file_map, root)
    staging = Staging()
    with _opened(source, _Choice(columns, sheet, header_row, rows)) as listing:
        table = listing.table
        found = _columns(name, table, columns)
        check = RowCheck(
            table.headers, found, MerchantResolver(merchants), place=mapped.file, sheet=not table.delimiter
        )
        broken = _stage(table, check, staging)
    if broken:
        staging.add_problems([broken])
    elif not check.rows and not check.left_out:
        message = Text("there is a header but no row below it", "只有表头，没有数据行")
        fix = Text("add a row per file", "请为每个文件补一行")
        raise input_error(name, [file_problem(message, fix, line=table.header_line)])
    staging.add_problems(_again(check.column("path"), *repeat) for repeat in staging.repeats())
    problems = Problems(staging, check.headers)
    decided = _decided(name, table, found, check)
    if broken or (on_bad == "refuse" and root is None and problems):
        raise input_error(name, problems, decided)
    if not check.rows:
        raise UsageError(
            Text(
                f"{name}: none of its {check.left_out:,} rows is for a merchant that --where leaves",
                f"{name}：{check.left_out:,} 行中没有一行属于 --where 选中的商户",
            )
        )
    batch = Batch(
        source=Path(name),
        sha256=listing.sha256,
        bytes=listing.bytes,
        headers=check.headers,
        encoding=listing.encoding,
        delimiter=table.delimiter,
        warnings=table.warnings + check.warnings(),
        decided=decided,
        merchants=merchants,
        left_out=check.left_out,
        on_bad=on_bad,
        root=None,
        staging=staging,
        file_column=check.column("file"),
    )
    return batch if root is None else batch.check_files(root)


@contextmanager
def _opened(source: str | Path | TextRows, choice: _Choice) -> Iterator[_Listing]:
    """Open a list as a table, whatever it came in."""
    if isinstance(source, TextRows):
        yield source.listing()
        return
    name = str(source)

    def judge(row: Sequence[str]) -> Rating:
        return rate(row, LIST_COLUMNS, choice.columns, LIST_NEEDS)

    with open_source(source) as raw:
        decoded = None
        reading: Callable[..., Table]
        if is_workbook(raw):
            size, sha256 = digest(raw)
            reading = partial(read_workbook, raw, judge, sheet=choice.sheet, rows=choice.rows)
        elif choice.sheet:
            raise UsageError(
                Text(
                    f"--sheet: {name} is no workbook; leave the option out",
                    f"--sheet：{name} 不是工作簿；请去掉这个选项",
                )
            )
        else:
            decoded = decode(raw, name)
            size, sha256 = decoded.bytes, decoded.sha256
            reading = partial(read_table, decoded.text, judge)
        try:
            table = reading(header_line=choice.header_line)
        except BrokenTableError as error:
            problem = error.problem
        else:
            if decoded is None:
                yield _Listing(table, table.layout.en, size, sha256)
            else:
                en, zh = table.layout.en, table.layout.zh
                layout = Text(f"{decoded.encoding}, {en}", f"{decoded.encoding}，{zh}")
                table = replace(table, layout=layout, warnings=decoded.warnings)
                yield _Listing(table, decoded.encoding, size, sha256)
            return
        raise input_error(name, [problem])


def _columns(name: str, table: Table, given: Mapping[str, str]) -> dict[str, int]:
    if not table.headers:
        message = Text("the file holds nothing but blank lines", "文件里只有空行")
        fix = Text(
            "export the list again; it needs a header and rows", "请重新导出清单；清单要有表头和数据行"
        )
        raise input_error(name, [file_problem(message, fix)])
    found, problems = find_columns(table.headers, LIST_COLUMNS, given, table.header_line)
    if "env" not in found and "merchant" not in found and not {"env", "merchant"} & set(given):
        problems.append(missing_column("env / merchant", table.headers, table.header_line))
    if "path" not in found and "path" not in given:
        problems.append(missing_column("path", table.headers, table.header_line))
    if problems:
        raise input_error(name, problems)
    return found


def _stage(table: Table, check: RowCheck, staging: Staging) -> Problem | None:
    """Put every row on disk. Returns what kept the table from being read to its end."""
    rows: list[Row] = []
    problems: list[Problem] = []
    broken = None
    try:
        for line, cells in table.rows:
            row, faults = check.read(line, cells)
            if row is not None:
                rows.append(row)
            if faults:
                problems += faults
            if len(rows) + len(problems) >= _PAGE:
                staging.add_rows(rows)
                staging.add_problems(problems)
                rows.clear()
                problems.clear()
    except BrokenTableError as error:
        broken = error.problem
    staging.add_rows(rows)
    staging.add_problems(problems)
    return broken


def _again(column: str, line: int, first: int, path: str) -> Problem:
    message = Text(f"the same environment and path as in line {first}", f"与第 {first} 行的环境和路径都相同")
    fix = Text("remove one of the two rows, or give it another path", "请删除其中一行，或改用别的路径")
    return Problem(line, column, message, fix, shown(path))


def _decided(name: str, table: Table, found: Mapping[str, int], check: RowCheck) -> Text:
    columns = {ours: shown(trim(table.headers[at]), 40) for ours, at in found.items()}
    named = ", ".join(ours if ours == header else f"{ours} = '{header}'" for ours, header in columns.items())
    en = [f"{name}: {table.layout.en}"]
    zh = [f"{name}：{table.layout.zh}"]
    if table.titles:
        above = ", ".join(f"{line} '{title}'" for line, title in table.titles)
        en.append(f"header in row {table.header_line}, above it {above}")
        zh.append(f"表头在第 {table.header_line} 行，其上方是 {above}")
    elif table.header_line > 1:
        en.append(f"header in row {table.header_line}")
        zh.append(f"表头在第 {table.header_line} 行")
    en += [said.en for said in table.said]
    zh += [said.zh for said in table.said]
    out = f", {check.left_out:,} more left out by --where" if check.left_out else ""
    out_zh = f"，另有 {check.left_out:,} 行被 --where 排除" if check.left_out else ""
    return Text(
        f"{', '.join(en)}; columns {named}; {plural(check.rows, 'row')}{out}",
        f"{'，'.join(zh)}；列 {named}；{check.rows:,} 行{out_zh}",
    )
