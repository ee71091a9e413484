"""A run's report folder: written whole under another name, then renamed. What stood there is never half replaced."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.errors import StoppedError, UsageError
from tcb_ops.model import Text
from tcb_ops.reports.files import write_errcodes, write_rows
from tcb_ops.reports.page import counts_of, is_simulated, page
from tcb_ops.reports.table import causes

if TYPE_CHECKING:
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.records import RunRecord
    from tcb_ops.settings import Settings

__all__ = ["MANIFEST", "check_destination", "export"]

MANIFEST = "manifest.json"
SCHEMA = 1
"""The version of manifest.json's form."""
RESULTS, FAILED, ERRCODES, PAGE = "results.csv", "failed.csv", "errcodes.csv", "report.html"
_LEFT_BY_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini"}


def check_destination(dest: Path, run_id: str | None = None, *, replace: bool = False) -> None:
    """Raise UsageError where a report of this run cannot be put, touching nothing. For before a run starts, too.

    =================================================  ====================================
    at `dest`                                          answer
    =================================================  ====================================
    nothing, and a folder above it that takes files    yes
    an empty folder                                    yes
    a report of the same run                           yes, it is replaced
    a report of another run                            only with `replace`
    a report with other files in it                    no: they would be lost
    any other folder, a file                           no
    =================================================  ====================================
    """
    try:
        _check(_real(dest), dest, run_id, replace=replace)
    except (OSError, ValueError) as error:
        why = _why(error)
        raise UsageError(
            Text(
                f"{dest} cannot be looked at: {why}. Name another report folder.",
                f"无法访问 {dest}：{why}。请指定另一个报告文件夹。",
            )
        ) from None


def export(
    ledger: Ledger, run: RunRecord, dest: Path, settings: Settings, *, now: float, replace: bool = False
) -> Path:
    """Write results.csv, failed.csv, errcodes.csv, report.html and manifest.json into the folder `dest`; gives it.

    The ledger notes where the report stands. `replace` lets a report of another run give way. Raises UsageError
    where something else is in the way (nothing is touched), StoppedError when the disk does not take it (what was
    there stays).
    """
    run = ledger.run(run.id)
    check_destination(dest, run.id, replace=replace)
    real = _real(dest)
    part = real.with_name(f"{real.name}.part-{secrets.token_hex(4)}")
    trouble = ""
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        _write(ledger, run, part, settings, now)
        _put(part, real)
    except OSError as error:
        trouble = _why(error)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if trouble:
        raise StoppedError(
            Text(
                f"the report could not be written to {dest}: {trouble}. The run is safe in the ledger. Free space or name "
                f"another folder, then write it again: tcb-ops report {run.id}",
                f"无法把报告写入 {dest}：{trouble}。任务数据在台账中是安全的。请释放磁盘空间或换一个文件夹，"
                f"然后重新生成：tcb-ops report {run.id}",
            )
        )
    ledger.note_report(run, str(real))
    return dest


def _write(ledger: Ledger, run: RunRecord, folder: Path, settings: Settings, now: float) -> None:
    passed = write_rows(ledger.rows(run), run.headers, folder / RESULTS, folder / FAILED, settings)
    write_errcodes(causes(passed.groups), folder / ERRCODES, settings.lang)
    versions = {
        "tcb-ops": version("tcb-ops"),
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
    html = page(run, passed, settings, versions, now=now)
    (folder / PAGE).write_text(html, encoding="utf-8", newline="\n")

    def moment(at: float | None) -> str | None:
        return (
            None
            if at is None
            else datetime.fromtimestamp(at, settings.zone).isoformat(timespec="milliseconds")
        )

    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run.id,
        "parent": run.parent or None,
        "kind": str(run.kind),
        "target": run.target,
        "simulated": is_simulated(run),
        "rows": run.rows,
        "counts": {str(outcome): rows for outcome, rows in counts_of(passed.groups).items()},
        "input": {"name": run.list_name, "sha256": run.list_sha256, "bytes": run.list_bytes},
        "files": {name: _fingerprint(folder / name) for name in (RESULTS, FAILED, ERRCODES, PAGE)},
        "operator": run.operator,
        "host": run.host,
        "note": run.note,
        "created_at": moment(run.created_at),
        "finished_at": moment(run.finished_at),
        "exported_at": moment(now),
        "settings": run.settings,
        "versions": versions,
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    for file in folder.iterdir():
        _sync(file)
    _sync(folder)


def _fingerprint(file: Path) -> dict[str, str | int]:
    with file.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": file.stat().st_size}


def _put(part: Path, dest: Path) -> None:
    """Rename the new report to its place. A kill in between leaves the old one, the new one or both, each whole."""
    if not dest.exists():
        part.rename(dest)
    elif not any(dest.iterdir()):
        dest.rmdir()
        part.rename(dest)
    else:
        old = dest.with_name(f"{dest.name}.old-{secrets.token_hex(4)}")
        dest.rename(old)
        try:
            part.rename(dest)
        except OSError:
            old.rename(dest)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync(dest.parent)


def _sync(path: Path) -> None:
    """Have the disk keep what was written; folders only where the system can."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check(real: Path, dest: Path, run_id: str | None, *, replace: bool) -> None:
    if not real.exists():
        above = next(folder for folder in real.parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise _refused(dest, f"{above} does not take new folders", f"{above} 中不能新建文件夹")
        return
    if not real.is_dir():
        raise _refused(dest, "it is a file", "它是文件")
    there = {entry.name for entry in real.iterdir()} - _LEFT_BY_DESKTOPS
    if not there:
        return
    found = _manifest(real / MANIFEST)
    if found is None:
        raise _refused(dest, "it is not empty and holds no report", "该文件夹不为空，且其中没有报告")
    owner, own = found
    if owner != run_id and not replace:
        raise _refused(dest, f"it holds the report of run {owner}", f"其中是任务 {owner} 的报告")
    if others := sorted(there - own):
        names = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        raise _refused(
            dest,
            f"beside a report it holds files that would be lost: {names}",
            f"除报告外还有会丢失的文件：{names}",
        )


def _manifest(file: Path) -> tuple[str, set[str]] | None:
    """The run and the file names that a report's manifest tells of; None where there is no such manifest."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text(encoding="utf-8"))
        return str(found["run"]), {MANIFEST, *found["files"]}
    return None


def _refused(dest: Path, en: str, zh: str) -> UsageError:
    return UsageError(
        Text(
            f"{dest} cannot be the report folder: {en}. Name another one with --out.",
            f"{dest} 不能作为报告文件夹：{zh}。请用 --out 指定另一个。",
        )
    )


def _real(dest: Path) -> Path:
    """Where links lead: a link to a folder stays a link when the folder is replaced."""
    return Path(os.path.realpath(dest))


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
