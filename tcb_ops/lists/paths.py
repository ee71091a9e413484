"""Path lists in: every row checked, every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.errors import UsageError
from tcb_ops.lists.batch import Batch, OnBad
from tcb_ops.lists.callers import Callers
from tcb_ops.lists.cells import shown, trim
from tcb_ops.lists.check import RowCheck
from tcb_ops.lists.decode import opened
from tcb_ops.lists.headers import LIST_COLUMNS, find_columns, missing_column, score
from tcb_ops.lists.problems import input_error, of_file
from tcb_ops.lists.staging import Problems, Staging
from tcb_ops.lists.table import DELIMITERS, BrokenTableError, Table, read_table
from tcb_ops.model import Problem, Row, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcb_ops.lists.merchants import Merchants

__all__ = ["Batch", "read_paths"]

_PAGE = 2_000


def read_paths(
    source: str | Path,
    merchants: Merchants,
    root: str | Path | None = None,
    *,
    columns: Mapping[str, str] = {},
    on_bad: OnBad = "refuse",
) -> Batch:
    """Read a path list (CSV or TSV) and check every row.

    `root`: the folder of the local files, which are then looked at; None leaves them alone. `columns`: our name
    (env, merchant, path, file, appid) → the header that means it, where that is not a known one. `on_bad`: "refuse"
    raises where any row has a problem, "skip" marks those rows invalid.

    Raises InputError with every problem in the order of the file (problems of the file itself are raised whatever
    `on_bad` says), and UsageError for a name in `columns` that is none of ours or where no row is left.
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
    staging = Staging()
    with opened(source) as decoded:
        table = read_table(decoded.text, lambda headers: score(headers, LIST_COLUMNS, columns))
        found = _columns(name, table, columns)
        check = RowCheck(table.headers, found, Callers(merchants))
        broken = _stage(table, check, staging)
    if broken:
        staging.add_problems([broken])
    elif not check.rows and not check.left_out:
        message = Text("there is a header but no row below it", "只有表头，没有数据行")
        mend = Text("add a row per file", "请为每个文件补一行")
        raise input_error(name, [of_file(message, mend, line=table.header_line)])
    staging.add_problems(_again(check.column("path"), *repeat) for repeat in staging.repeats())
    problems = Problems(staging, check.headers)
    if broken or (on_bad == "refuse" and root is None and problems):
        raise input_error(name, problems)
    if not check.rows:
        raise UsageError(
            Text(
                f"{name}: none of its {check.left_out:,} rows is for a merchant that --where leaves",
                f"{name}：{check.left_out:,} 行中没有一行属于 --where 选中的商户",
            )
        )
    batch = Batch(
        source=Path(source),
        sha256=decoded.sha256,
        bytes=decoded.bytes,
        headers=check.headers,
        encoding=decoded.encoding,
        delimiter=table.delimiter,
        warnings=decoded.warnings + check.warnings(),
        decided=_decided(name, decoded.encoding, table, found, check),
        merchants=merchants,
        left_out=check.left_out,
        on_bad=on_bad,
        root=None,
        staging=staging,
        file_column=check.column("file"),
    )
    return batch if root is None else batch.check_files(root)


def _columns(name: str, table: Table, given: Mapping[str, str]) -> dict[str, int]:
    if not table.headers:
        message = Text("the file holds nothing but blank lines", "文件里只有空行")
        mend = Text(
            "export the list again; it needs a header and rows", "请重新导出清单；清单要有表头和数据行"
        )
        raise input_error(name, [of_file(message, mend)])
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
    mend = Text("remove one of the two rows, or give it another path", "请删除其中一行，或改用别的路径")
    return Problem(line, column, message, mend, shown(path))


def _decided(name: str, encoding: str, table: Table, found: Mapping[str, int], check: RowCheck) -> Text:
    delimiter = DELIMITERS[table.delimiter]
    columns = {ours: shown(trim(table.headers[at]), 40) for ours, at in found.items()}
    said = ", ".join(ours if ours == header else f"{ours} = '{header}'" for ours, header in columns.items())
    rows, out = f"{check.rows:,}", f"{check.left_out:,}"
    return Text(
        f"{name}: {encoding}, {delimiter.en}; columns {said}; {rows} rows"
        + (f", {out} more left out by --where" if check.left_out else ""),
        f"{name}：{encoding}，{delimiter.zh}分隔；列 {said}；{rows} 行"
        + (f"，另有 {out} 行被 --where 排除" if check.left_out else ""),
    )
