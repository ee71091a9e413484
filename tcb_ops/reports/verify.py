"""Is a report what was exported, and what the ledger says? Names the file, or the row, that differs."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.errors import RunNotFoundError, UsageError
from tcb_ops.model import Text
from tcb_ops.reports.digest import RowsDigest
from tcb_ops.reports.export import LEFT_BY_DESKTOPS, RESULTS
from tcb_ops.reports.files import RESULT_COLUMNS, WORDS, Clock, fact_values
from tcb_ops.reports.final import final_ledger
from tcb_ops.reports.leaks import masked
from tcb_ops.reports.manifest import MANIFEST, about, clean, fingerprint, read_manifest
from tcb_ops.reports.redact import redact
from tcb_ops.spreadsheet import guard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import tzinfo

    from tcb_ops.model import Lang
    from tcb_ops.reports.manifest import Manifest
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.records import RowRecord, RunRecord

__all__ = ["Check", "State", "Verification", "verify"]

INPUT, ROWS = "input", "rows"
_CELL = 60
"""Characters of a cell that a message shows."""
_FACTS = tuple(name for name in RESULT_COLUMNS if name not in WORDS)


class State(StrEnum):
    """How a check ended."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: a file by its name, `input` (the list), or `rows` (against the ledger)."""

    what: str
    state: State
    text: Text


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found of a report folder."""

    folder: Path
    run: str
    checks: tuple[Check, ...]

    @property
    def good(self) -> bool:
        """Whether nothing differs; what could not be checked does not count."""
        return all(check.state is not State.DIFFERS for check in self.checks)

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """The object that `verify --json` prints."""
        return {
            "folder": str(self.folder),
            "run": self.run,
            "good": self.good,
            "checks": [
                {"what": check.what, "state": str(check.state), "text": check.text.of(lang)}
                for check in self.checks
            ],
        }


def verify(folder: Path, ledger: Ledger | None, lists: Sequence[Path] = ()) -> Verification:
    """Check a report folder against its manifest, the ledger (where there is one), and the list (if it is found).

    The list is looked for by its name in the folders of `lists` and in the run's root. Raises UsageError where the
    folder holds no report.
    """
    told = read_manifest(folder)
    if told is None:
        raise UsageError(
            Text(
                f"{folder} holds no report of tcb-ops: {MANIFEST} is not there, or cannot be read as one. Name the folder "
                "that `tcb-ops report` wrote.",
                f"{folder} 中没有 tcb-ops 的报告：找不到 {MANIFEST}，或无法识别。请指定 `tcb-ops report` 生成的文件夹。",
            )
        )
    checks = [_check_file(folder, name, told) for name in told.files]
    checks += _extra(folder, told)
    checks.append(_check_input(told, lists))
    checks += _check_ledger(folder, told, ledger)
    return Verification(folder, told.run, tuple(checks))


def _check_file(folder: Path, name: str, told: Manifest) -> Check:
    file = folder / name
    try:
        if not file.is_file():  # a pipe would never end
            return Check(name, State.DIFFERS, Text("is missing.", "缺失。"))
        found = fingerprint(file)
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Check(name, State.DIFFERS, Text(f"cannot be read: {why}.", f"无法读取：{why}。"))
    if found == told.files[name]:
        return Check(
            name,
            State.SAME,
            Text(f"{found['bytes']:,} bytes, as exported", f"{found['bytes']:,} 字节，与导出时一致"),
        )
    was, now = told.files[name].get("bytes", "?"), found["bytes"]
    sizes = (
        Text("same size", "大小相同")
        if was == now
        else Text(f"{was:,} bytes then, {now:,} now", f"当时 {was:,} 字节，现在 {now:,} 字节")
        if isinstance(was, int)
        else Text("", "")
    )
    return Check(
        name,
        State.DIFFERS,
        Text(f"was changed after the export ({sizes.en}).", f"导出后被修改过（{sizes.zh}）。"),
    )


def _extra(folder: Path, told: Manifest) -> Iterator[Check]:
    try:
        names = sorted(
            {entry.name for entry in folder.iterdir()} - set(told.files) - {MANIFEST} - LEFT_BY_DESKTOPS
        )
    except OSError:
        names = []
    for name in names:
        yield Check(
            name, State.DIFFERS, Text("is no part of the report: it was added.", "不属于报告：是后来加入的。")
        )


def _check_input(told: Manifest, lists: Sequence[Path]) -> Check:
    """The list, by its name: it differs only where every file of that name that is found does."""
    places = [*lists, *([Path(told.root)] if told.root else [])]
    there: Path | None = None
    for place in dict.fromkeys(place / told.list_name for place in places):
        try:
            if not place.is_file():
                continue
            with place.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            continue
        if sha256 == told.list_sha256:
            return Check(
                INPUT,
                State.SAME,
                Text(f"{place} is the list that was read", f"{place} 就是当时读取的清单"),
            )
        there = there or place
    if there is None:
        return Check(
            INPUT,
            State.NOT_CHECKED,
            Text(
                f"{told.list_name} is not there to compare (SHA-256 {told.list_sha256[:12]}…)",
                f"找不到 {told.list_name}，未比较（SHA-256 {told.list_sha256[:12]}…）",
            ),
        )
    return Check(
        INPUT,
        State.DIFFERS,
        Text(f"{there} is not as the run read it.", f"{there} 与任务当时读取的内容不同。"),
    )


def _check_ledger(folder: Path, told: Manifest, ledger: Ledger | None) -> Iterator[Check]:
    run = None if ledger is None else _find(ledger, told.run)
    if ledger is None or run is None:
        where = ledger.name if ledger is not None else None
        yield Check(
            ROWS,
            State.NOT_CHECKED,
            Text(
                f"{where or 'the ledger'} {'has no run ' + told.run if where else 'is not there'}: the rows were not "
                "compared. Name the ledger with --ledger.",
                (f"{where} 中没有任务 {told.run}" if where else "找不到台账")
                + "：未比较各行。请用 --ledger 指定台账。",
            ),
        )
        return
    if told.retries:
        ledger = final_ledger(ledger, run)
    with ledger.snapshot() as seen:
        run = seen.run(run.id)
        if told.retries == run.retries:
            of_rows = _check_rows(folder / RESULTS, told, seen, run)
        else:
            of_rows = _check_retries(told, run)
        yield from _check_about(told, seen, run, settled=told.finished and of_rows.state is State.SAME)
        yield of_rows


def _find(ledger: Ledger, run_id: str) -> RunRecord | None:
    try:
        found = ledger.run(run_id)
    except RunNotFoundError:
        return None
    return found if found.id == run_id else None


def _check_retries(told: Manifest, run: RunRecord) -> Check:
    if more := ", ".join(name for name in run.retries if name not in told.retries):
        said = Text(
            f"the run was retried after this report was written ({more}): export it again.",
            f"生成本报告之后任务又重试过（{more}）：请重新导出。",
        )
    else:
        gone = ", ".join(name for name in told.retries if name not in run.retries)
        said = Text(
            f"the ledger has no retry {gone} of this run; the rows were not compared.",
            f"台账中没有该任务的重试 {gone}：未比较各行。",
        )
    return Check(ROWS, State.DIFFERS, said)


def _check_about(told: Manifest, ledger: Ledger, run: RunRecord, *, settled: bool) -> Iterator[Check]:
    """What the manifest says of the run, against the ledger. What an old one does not say is in no dispute."""
    known = about(run, ledger.tallies(run), told.zone)
    del known["retries"]  # looked at on its own
    if not settled:  # these change while a run goes on, and are told by its rows
        for name in ("counts", "finished_at", "settings"):
            del known[name]
    if wrong := [name for name, value in known.items() if told.said.get(name, value) != clean(value)]:
        names = ", ".join(wrong)
        yield Check(
            MANIFEST,
            State.DIFFERS,
            Text(f"says other things of the run than the ledger: {names}.", f"与台账不一致的内容：{names}。"),
        )


def _check_rows(results: Path, told: Manifest, seen: Ledger, run: RunRecord) -> Check:
    """Every row of results.csv and the digest, against the ledger, in one pass."""
    digest = RowsDigest()
    records = digest.passing(seen.rows(run))
    try:
        with results.open(encoding="utf-8-sig", newline="") as stream:
            wrong = _first_difference(records, csv.reader(stream), run.headers, told.zone)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        wrong = Text(
            f"{RESULTS} cannot be read as CSV ({why}).", f"无法把 {RESULTS} 作为 CSV 读取（{why}）。"
        )
    for _ in records:  # what the comparison has not come to
        pass
    same = not told.rows_digest or digest.hexdigest() == told.rows_digest
    if wrong is None and same:
        return Check(
            ROWS,
            State.SAME,
            Text(
                f"all {run.rows:,} rows of {RESULTS} are what the ledger says",
                f"{RESULTS} 的全部 {run.rows:,} 行与台账一致",
            ),
        )
    if same:
        since = Text("the ledger is as it was exported.", "台账与导出时一致。")
    elif told.finished:
        since = Text("the ledger's rows were changed after the export.", "台账中的行在导出之后被改动过。")
    else:
        since = Text(
            f"the run was unfinished when this report was written ({told.exported_at}) and has gone on since: "
            "export it again.",
            f"生成本报告时（{told.exported_at}）任务尚未完成，之后又有进展：请重新导出。",
        )
    first = wrong or Text(
        f"in no column of {RESULTS}: what differs is not in it.", f"{RESULTS} 各列均无差异：差异在其之外。"
    )
    return Check(
        ROWS, State.DIFFERS, Text(f"{first.en} {since.en[0].upper()}{since.en[1:]}", f"{first.zh}{since.zh}")
    )


def _first_difference(
    records: Iterable[RowRecord], lines: Any, headers: Sequence[str], zone: tzinfo
) -> Text | None:
    """The first row of results.csv that is not what the ledger says; its sentences are not compared."""
    iso = Clock(zone).iso
    names = [*headers, *_FACTS]
    words_at = len(headers) + RESULT_COLUMNS.index(WORDS[0])

    def facts(line: list[str]) -> list[str]:
        return line[:words_at] + line[words_at + len(WORDS) :]

    head: list[str] = next(lines, [])
    if head != [guard(masked(name)) for name in (*headers, *RESULT_COLUMNS)]:
        return Text(
            f"The first line of {RESULTS} is not the report's head.", f"{RESULTS} 的首行不是报告的表头。"
        )
    for record, line in zip_longest(records, lines):
        if record is None:
            return Text(
                f"Line {lines.line_num} of {RESULTS} is a row that the ledger does not have.",
                f"{RESULTS} 第 {lines.line_num} 行在台账中不存在。",
            )
        if line is None:
            where = _where(record)
            return Text(f"{RESULTS} lacks {where.en}.", f"{RESULTS} 缺少{where.zh}。")
        *values, started, ended = fact_values(record)
        known = [guard(cell) for cell in record.row.cells]
        known += [
            "" if value is None else guard(value) if isinstance(value, str) else str(value)
            for value in values
        ]
        known += (iso(started), iso(ended))
        found = facts(line)
        if found != known and found != (shown := [*map(masked, known)]):
            return _cell(names, found, shown, lines.line_num, _where(record))
    return None


def _where(record: RowRecord) -> Text:
    return Text(
        f"the row of line {record.row.line} of the list ({record.row.path})",
        f"清单第 {record.row.line} 行（{record.row.path}）",
    )


def _cell(names: list[str], found: list[str], known: list[str], at: int, where: Text) -> Text:
    if len(found) != len(known):
        return Text(
            f"Line {at} of {RESULTS}, {where.en}, has not as many cells as the head.",
            f"{RESULTS} 第 {at} 行（{where.zh}）的单元格数与表头不符。",
        )
    name, is_now, was = next(cells for cells in zip(names, found, known, strict=True) if cells[1] != cells[2])
    here, there = _short(is_now), _short(was)
    return Text(
        f"Line {at} of {RESULTS}, {where.en}: {name} is “{here}”, the ledger has “{there}”.",
        f"{RESULTS} 第 {at} 行，{where.zh}：{name} 为“{here}”，台账为“{there}”。",
    )


def _short(cell: str) -> str:
    shown = redact("".join(letter if letter.isprintable() else "�" for letter in cell))
    return shown if len(shown) <= _CELL else f"{shown[:_CELL]}…"
