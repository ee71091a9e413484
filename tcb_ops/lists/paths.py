"""Reading and checking of path lists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self, TypeAlias

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import BrokenTableError, UsageError, check_count, check_path
from tcb_ops.formatting import near_names, shown, trim
from tcb_ops.i18n import Text, _, as_facts, ngettext
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.source import decode, digest, is_workbook, open_source, read_table
from tcb_ops.lists.sources import LocalFiles, PathMap, SourceCheck, UnusableFile, refuse_sources, whole_source
from tcb_ops.lists.staging import Problems, Share, Staging, input_error
from tcb_ops.lists.table import LIST_COLUMNS, Columns, Rows, Table, read_workbook
from tcb_ops.lists.validate import MerchantResolver, RowValidator
from tcb_ops.model import Merchant, Problem, Row, SourceFile, file_problem, is_source

OnBad: TypeAlias = Literal["refuse", "skip"]


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """The checked rows of a list, stored on disk until the batch is closed or garbage-collected.

    Immutable: `check_files`, `limited` and `of_share` return another view of the same rows.
    """

    source: Path
    """As given by the operator."""
    sha256: str
    """Of the file's bytes, 64 hex digits."""
    bytes: int
    headers: tuple[str, ...]
    """As in the file, without columns that begin with `tcb_`."""
    encoding: str
    delimiter: str
    warnings: tuple[Text, ...]
    decided: Text
    """One line with the detected encoding, delimiter, columns, and number of rows."""
    merchants: Merchants = field(repr=False)
    left_out: int
    """Rows that `--where` excludes; they are not in the batch."""
    on_bad: OnBad
    root: Path | None
    """The folder of the local files; None if they were not checked."""
    staging: Staging = field(repr=False)
    file_column: str = field(default="", repr=False)
    """The header named in problems of local files."""
    sources: SourceCheck = field(default=refuse_sources, repr=False)
    """Looks at files that are URLs."""
    until: int | None = field(default=None, repr=False)
    """The last line included, after `limited`."""
    share: Share | None = None
    """The share that this batch is, after `of_share`; None: the whole list."""

    def __repr__(self) -> str:
        files = f", files below {self.root}" if self.root is not None else ""
        rows = ngettext("{n:,} row", "{n:,} rows", self.count)
        return f"<Batch {self.source}: {self.valid:,} of {rows} valid{files}>"

    @property
    def count(self) -> int:
        """Number of rows, including invalid ones."""
        return self.staging.count() if self.until is None else self.valid

    @property
    def valid(self) -> int:
        """Number of rows without a problem."""
        return self._number("COUNT(*)")

    @property
    def problems(self) -> Problems:
        """All problems, in the order of the file."""
        return Problems(self.staging, self.headers)

    @property
    def envs(self) -> int:
        """Number of environments of the valid rows."""
        return self._number("COUNT(DISTINCT env)")

    @property
    def merchants_count(self) -> int:
        """Number of mini programs (appids) of the valid rows."""
        return self._number("COUNT(DISTINCT appid)")

    @property
    def most_rows_of_an_appid(self) -> int:
        """The largest number of valid rows of one mini program; `--rate` applies to each appid."""
        return self._number("COUNT(*) n", "GROUP BY appid ORDER BY n DESC LIMIT 1")

    @property
    def total_bytes(self) -> int:
        """Bytes of the valid rows' local files; 0 if they were not checked."""
        return self._number("SUM(size)")

    def _number(self, aggregate: str, rest: str = "") -> int:
        found = self.staging.of_valid(aggregate, self.until, rest)
        return int(found[0][0] or 0) if found else 0

    def by_merchant(self) -> list[tuple[str, str, int, int, int]]:
        """Return (appid, merchant, environments, rows, bytes) of the valid rows, most rows first."""
        return self.staging.of_valid(
            "appid, merchant, COUNT(DISTINCT env), COUNT(*) n, COALESCE(SUM(size), 0)",
            self.until,
            "GROUP BY appid, merchant ORDER BY n DESC, merchant",
        )

    def by_environment(self) -> list[tuple[str, str, int]]:
        """Return (appid, env, rows) of the valid rows."""
        return self.staging.of_valid("appid, env, COUNT(*)", self.until, "GROUP BY appid, env")

    def by_departed_merchant(self) -> list[tuple[Merchant, int]]:
        """Return (line of the merchants file, valid rows) of merchants that have left; these rows are not attempted."""
        left = {(m.appid, m.env): m for m in self.merchants.whole if m.left}
        return [
            (left[appid, env], rows) for appid, env, rows in self.by_environment() if (appid, env) in left
        ]

    def rows(self) -> Iterator[Row]:
        """Yield the rows in the order of the file; those with a problem have `invalid` set."""
        return self.staging.rows(self.until)

    def limited(self, n: int) -> Batch:
        """Return a batch of the first `n` valid rows (`--limit`)."""
        check_count("n", n, least=1)
        return replace(self, until=self.staging.line_of_valid(n))

    def of_share(self, share: Share) -> Batch:
        """Return a batch of the rows of a share (`--share`). A share of a share is of the whole list, too."""
        return replace(self, staging=self.staging.of_share(share), share=share)

    def check_files(self, root: str | Path) -> Batch:
        """Check the file of every row, below `root` or at its URL: add its size and version, or its problem.

        Raises InputError with all problems of the list if the root does not exist, or if any row has a problem and
        bad rows are not skipped.
        """
        check_path("root", root)
        files = LocalFiles(Path(root))
        self.staging.clear_file_problems()
        if problem := files.problem():
            self.staging.add_problems([problem], file_problem=True)
            raise input_error(str(self.source), self.problems, self.decided)
        lost, sample = 0, list[str]()
        for page in self.staging.files():
            facts: list[tuple[int | None, int | None, str, int]] = []
            unusable: list[Problem] = []
            urls = {line: whole_source(file, query) for line, file, query in page if is_source(file)}
            there = self.sources([*dict.fromkeys(urls.values())]) if urls else {}
            for line, file, _query in page:
                found = there[urls[line]] if line in urls else files.inspect(file)
                if isinstance(found, UnusableFile):
                    lost += found.missing
                    sample += [file] if found.missing and lost <= _SAMPLE else []
                    why = found.message, found.fix, shown(file)
                    unusable.append(Problem(line, self.file_column, *why, option=found.option))
                elif isinstance(found, SourceFile):
                    facts.append((found.size, None, found.etag, line))
                else:
                    facts.append((found.size, found.mtime_ns, "", line))
            self.staging.set_files(facts)
            self.staging.add_problems(unusable, file_problem=True)
        # Problems of other shares' rows refuse the list, too.
        problems = Problems(self.staging.whole, self.headers)
        if self.on_bad == "refuse" and problems:
            all_missing = lost == len(problems) == self.count
            raise input_error(str(self.source), problems, self.decided, sample if all_missing else ())
        return replace(self, root=Path(root))

    def close(self) -> None:
        """Free the disk space. The rows can no longer be read."""
        self.staging.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_SAMPLE = 20
"""Maximum number of files in the error if all files of the list are missing."""


@dataclass(frozen=True, slots=True)
class TextRows:
    """A list in memory. Its header is line 1."""

    name: str
    """The file name in messages and in the ledger."""
    headers: tuple[str, ...]
    rows: Sequence[Sequence[str]] = field(repr=False)

    def __str__(self) -> str:
        return self.name


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
    share: Share | None = None,
) -> Batch:
    r"""Read a path list (CSV, TSV or XLSX) and check every row.

    Args:
        source: the list.
        merchants: the merchants that its rows refer to.
        root: the folder of the local files; None to skip their check.
        columns: canonical name (env, merchant, path, file, appid, content_type, cache_control) → header in the list.
        on_bad: "refuse" raises if any row has a problem, "skip" marks those rows invalid.
        sheet: the sheet of a workbook; "" to detect it.
        header_row: the header's row number; 0 to detect it.
        rows: whether to include hidden rows of a workbook.
        file_map: items such as `D:\素材=/data/素材`, for local files named on another machine; needs `root`.
        sources: looks at files that are URLs; without it they are refused.
        share: the batch has only its rows, after the whole list has been checked; None for all.

    Raises:
        InputError: with all problems in the order of the file; with "skip", only for problems of the file itself.
        UsageError: for an unknown name in `columns`, a `file_map` outside the root, or if no row remains.

    """
    if unknown := [name for name in columns if name not in LIST_COLUMNS.known]:
        raise _unknown_name(unknown[0], columns[unknown[0]])
    name = str(source)
    path_map = PathMap(file_map, root)
    kinds = replace(LIST_COLUMNS, given=columns)
    staging = Staging()
    with _open_table(source, kinds, sheet, header_row, rows) as (table, encoding, size, sha256):
        found = _find_columns(name, table, kinds)
        validator = RowValidator(
            table.headers,
            found,
            MerchantResolver(merchants),
            map_file=path_map.map,
            sheet=not table.delimiter,
        )
        broken = _stage(table, validator, staging)
    if broken:
        staging.add_problems([broken])
    elif not validator.rows and not validator.left_out:
        message, fix = _("there is a header but no row below it"), _("add a row per file")
        raise input_error(name, [file_problem(message, fix, line=table.header_line)])
    column, fix = validator.column("path"), _("remove one of the two rows, or give it another path")
    staging.add_problems(
        Problem(line, column, detail(DetailCode.DUPLICATE, first=first), fix, shown(path))
        for line, first, path in staging.repeats()
    )
    problems = Problems(staging, validator.headers)
    decided = _decided(name, table, found, validator)
    fitting = kinds.fitting(table.headers, staging.always_wrong(columns, validator.rows))
    if broken or (on_bad == "refuse" and problems and (root is None or fitting)):
        raise input_error(name, problems, decided, columns=fitting)
    if not validator.rows:
        raise UsageError(
            _(
                "{name}: --where excludes every row ({rows}).",
                name=name,
                rows=ngettext("{n:,} row", "{n:,} rows", validator.left_out),
            )
        )
    batch = Batch(
        source=Path(name),
        sha256=sha256,
        bytes=size,
        headers=validator.headers,
        encoding=encoding,
        delimiter=table.delimiter,
        warnings=table.warnings + validator.warnings(),
        decided=decided,
        merchants=merchants,
        left_out=validator.left_out,
        on_bad=on_bad,
        root=None,
        staging=staging,
        file_column=validator.column("file"),
        sources=sources,
    )
    batch = batch if share is None else batch.of_share(share)
    return batch if root is None else batch.check_files(root)


def _unknown_name(name: str, header: str) -> UsageError:
    known = LIST_COLUMNS.known
    near = [f"{header}={name}"] if header in known else [f"{n}={header}" for n in near_names(name, known)]
    return UsageError(
        _(
            "{given}: the name must be one of {ours}.",
            given=f"--column {shown(name, 40)}={shown(header, 40)}",
            ours=", ".join(known),
        ),
        _("Did you mean {meant}?", meant=f"--column {shown(near[0])}") if near else None,
    )


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
        table = Table(source.headers, 1, records, delimiter=",", layout=_("in memory"))
        yield table, "", size, sums.hexdigest()
        return
    name = str(source)
    with open_source(source) as raw:
        try:
            if is_workbook(raw):
                size, sha256 = digest(raw)
                table = read_workbook(raw, columns.rate, sheet=sheet, header_line=header_line, rows=rows)
                opened = table, table.layout.en, size, sha256
            else:
                if sheet:
                    raise UsageError(_("--sheet: {name} is not a workbook; omit the option", name=name))
                decoded = decode(raw, name)
                table = read_table(decoded.text, columns.rate, header_line=header_line)
                layout = _("{encoding}, {layout}", encoding=decoded.encoding, layout=table.layout)
                table = replace(table, layout=layout, warnings=decoded.warnings)
                opened = table, decoded.encoding, decoded.bytes, decoded.sha256
        except BrokenTableError as error:
            problem = error.problem
        else:
            yield opened
            return
        raise input_error(name, [problem])


def _find_columns(name: str, table: Table, columns: Columns) -> dict[str, int]:
    if not table.headers:
        fix = _("export the list again; it needs a header and rows")
        raise input_error(name, [file_problem(_("the file contains only blank lines"), fix)])
    found, problems = columns.find(table.headers, table.header_line)
    if problems:
        raise input_error(name, problems, columns=columns.fitting(table.headers))
    return found


def _stage(table: Table, validator: RowValidator, staging: Staging) -> Problem | None:
    """Store every row. Return the problem if the table could not be read to its end."""
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


def _decided(name: str, table: Table, found: Mapping[str, int], validator: RowValidator) -> Text:
    columns = {ours: shown(trim(table.headers[at]), 40) for ours, at in found.items()}
    named = ", ".join(ours if ours == header else f"{ours} = '{header}'" for ours, header in columns.items())
    found_in = [table.layout]
    if table.titles:
        above = ", ".join(f"{line} '{title}'" for line, title in table.titles)
        found_in.append(_("header in row {line}, above it {above}", line=table.header_line, above=above))
    elif table.header_line > 1:
        found_in.append(_("header in row {line}", line=table.header_line))
    rows = ngettext("{n:,} row", "{n:,} rows", validator.rows)
    if validator.left_out:
        rows = _("{rows}, {out:,} more excluded by --where", rows=rows, out=validator.left_out)
    return _(
        "{name}: {layout}; columns {columns}; {rows}",
        name=name,
        layout=as_facts([*found_in, *table.notes]),
        columns=named,
        rows=rows,
    )
