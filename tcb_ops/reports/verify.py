"""Is a report what was exported, and what the ledger says? Names the file, or the row, that differs.

Every file is held against manifest.json, the manifest against the ledger, which keeps the digest of each that it
exported, and every row of the CSVs too (against.py). Without the ledger whoever changes a file and the manifest is not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Lang, Text
from tcb_ops.reports.export import ALWAYS, CHECKPOINTS, DEMO_LEDGER, LEFT_BY_DESKTOPS
from tcb_ops.reports.manifest import MANIFEST, SIMULATED, Manifest, fingerprint, read_manifest
from tcb_ops.reports.verify_ledger import ROWS, Check, State, check_ledger
from tcb_ops.runs.ledger import Ledger

INPUT = "input"


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

    @property
    def proves(self) -> Text:
        """What is proven where nothing differs, and what is not."""
        same = {check.what for check in self.checks if check.state is State.SAME}
        if {ROWS, MANIFEST} <= same:
            return Text(
                "Every file is as it was exported with this ledger, and the CSVs are what the ledger says. Whoever can write "
                "to the ledger too is not seen.",
                "每个文件都与用此台账导出时一致，各 CSV 与台账一致。能改写台账的人无法被发现。",
            )
        if ROWS in same:
            return Text(
                f"The CSVs and {MANIFEST} agree with the ledger, but for their sentences. The ledger keeps no exports yet: "
                f"report.html, report.pdf and report.xlsx were compared with {MANIFEST} only, and whoever changes one of them "
                "and the manifest is not seen.",
                f"各 CSV 和 {MANIFEST} 与台账一致（其中的说明文字不比较）。台账尚未记录导出：report.html、report.pdf、report.xlsx "
                f"只与 {MANIFEST} 比对，同时改动这些文件和 manifest 的人无法被发现。",
            )
        return Text(
            f"The files were compared with {MANIFEST} only: whoever changes a file and the manifest is not seen.",
            f"各文件只与 {MANIFEST} 比对：同时改动文件和 manifest 的人无法被发现。",
        )

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
            **({"proves": self.proves.of(lang)} if self.good else {}),
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
    checks += _not_listed(folder, told)
    checks.append(_check_input(told, lists))
    checks += check_ledger(folder, told, ledger)
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
            Text(
                f"{found['bytes']:,} bytes, as {MANIFEST} has it",
                f"{found['bytes']:,} 字节，与 {MANIFEST} 一致",
            ),
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


def _not_listed(folder: Path, told: Manifest) -> Iterator[Check]:
    """What every report has and this manifest lacks, and what lies in the folder and is in no manifest."""
    always = {*ALWAYS, *([SIMULATED] if told.simulated else [])}
    for name in sorted(always - set(told.files)):
        yield Check(
            name,
            State.DIFFERS,
            Text(
                f"is not listed in {MANIFEST}; every such report has it.",
                f"{MANIFEST} 中没有列出；这样的报告都应包含它。",
            ),
        )
    try:
        there = {entry.name for entry in folder.iterdir()}
    except OSError:
        there = set()
    demo = {DEMO_LEDGER} if told.simulated else set()
    for name in sorted(there - set(told.files) - always - {MANIFEST, CHECKPOINTS} - demo - LEFT_BY_DESKTOPS):
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
