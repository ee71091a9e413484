"""The files that a run works with: merchants, ledger, and those that hold secrets."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.errors import InputError, TcbOpsError
from tcb_ops.health.finding import Finding, Grade, of_error, skipped
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.lists.problems import format_problem
from tcb_ops.model import Lang, Text, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tcb_ops.settings import Settings, TokenSettings

__all__ = ["look_at_ledger", "look_at_merchants", "look_at_secrets", "room", "secret_places"]

_PROBLEMS = 3
"""Problems of the merchants file that are shown; `check` shows all."""
SCARCE, TIGHT = 100 * 1000**2, 1000**3
"""Free bytes below which a run may end on a full disk, and below which somebody should look."""


def look_at_merchants(settings: Settings, where: Sequence[str]) -> list[Finding]:
    """Whether the merchants file can be read, and what it holds."""
    file = settings.merchants
    if not file.exists():
        seen = Text(f"{file} is not there", f"{file} 不存在")
        mend = Text(
            "Make it: `tcb-ops init` writes one to fill in, `tcb-ops merchants sync` asks the platform.",
            "请创建它：`tcb-ops init` 生成待填写的文件，`tcb-ops merchants sync` 从平台获取。",
        )
        return [Finding("merchants", Grade.BAD, seen, mend)]
    try:
        lines = read_merchants(file, where)
    except InputError as error:
        shown = error.problems[:_PROBLEMS]
        count = len(error.problems)
        said = (
            "; ".join(format_problem(file.name, one, Lang.EN) for one in shown),
            "；".join(format_problem(file.name, one, Lang.ZH) for one in shown),
        )
        seen = Text(f"{plural(count, 'problem')}: {said[0]}", f"{count} 处问题：{said[1]}")
        mend = Text("Mend the file; a run refuses it whole.", "请修正该文件；有问题时运行会整体拒绝它。")
        return [Finding("merchants", Grade.BAD, seen, mend)]
    appids, left = len({m.appid for m in lines}), sum(m.left for m in lines)
    gone = (f", {left} of them left", f"，其中 {left} 行已离开") if left else ("", "")
    seen = Text(
        f"{file}: {plural(len(lines), 'line')}, {plural(appids, 'mini program')}, "
        f"{plural(len(lines.envs), 'environment')}{gone[0]}",
        f"{file}：{len(lines):,} 行，{appids:,} 个小程序，{len(lines.envs):,} 个环境{gone[1]}",
    )
    return [Finding("merchants", Grade.OK, seen)]


def look_at_ledger(settings: Settings) -> list[Finding]:
    """Whether the ledger opens and can be written, and what is unfinished in it; and the room on its disk.

    A ledger file that is not there yet is not made.
    """
    if "://" in settings.ledger:
        return [_opened(settings, "")]
    file = Path(settings.ledger)
    folder = file.resolve().parent
    if not file.exists():
        found = _not_yet(file, folder)
    elif file.is_dir():
        found = _opened(settings, "")
    else:
        found = _unwritable(file, folder) or _opened(settings, _size(file))
    disk = [room(shutil.disk_usage(folder).free, folder)] if folder.is_dir() else []
    return [found, *disk]


def _not_yet(file: Path, folder: Path) -> Finding:
    from tcb_ops.runs.database import not_a_ledger, on_network

    trouble = None
    if not folder.is_dir():
        trouble = not_a_ledger(str(file), f"the folder {folder} is not there", f"文件夹 {folder} 不存在").text
    elif on_network(folder):
        trouble = not_a_ledger(
            str(file),
            "it would lie on a network file system, where locks do not hold",
            "它位于网络文件系统上，文件锁不可靠",
        ).text
    elif not os.access(folder, os.W_OK):
        trouble = not_a_ledger(str(file), f"{folder} cannot be written", f"{folder} 不可写").text
    if trouble is not None:
        return of_error("ledger", trouble)
    return Finding(
        "ledger",
        Grade.OK,
        Text(f"{file} is not there yet: the first run makes it", f"{file} 尚不存在：第一次运行时创建"),
    )


def _unwritable(file: Path, folder: Path) -> Finding | None:
    """Whether a transaction can be begun; it is taken back at once."""
    why = ""
    if not os.access(folder, os.W_OK):
        why = f"{folder}: {os.strerror(13)}"
    else:
        try:
            with closing(
                sqlite3.connect(
                    f"{file.resolve().as_uri()}?mode=rw", uri=True, timeout=1, isolation_level=None
                )
            ) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            # Locked: somebody writes, so one can. No database: said better when it is opened.
            if not any(word in str(error) for word in ("locked", "not a database")):
                why = str(error)
    if not why:
        return None
    seen = Text(f"{file} cannot be written ({why})", f"{file} 不可写（{why}）")
    mend = Text(
        f"Give yourself the right to write {file} and {folder}, or name another ledger with --ledger.",
        f"请为自己开放 {file} 和 {folder} 的写权限，或用 --ledger 指定另一个台账。",
    )
    return Finding("ledger", Grade.BAD, seen, mend)


def _opened(settings: Settings, size: str) -> Finding:
    from tcb_ops.runs.ledger import Ledger

    try:
        ledger = Ledger(settings.ledger)
        try:
            runs = ledger.runs()
        finally:
            ledger.close()
    except TcbOpsError as error:
        return of_error("ledger", error.text)
    open_runs = [run for run in runs if run.finished_at is None]
    facts = (
        f"{ledger.name}: {plural(len(runs), 'run')}{size}",
        f"{ledger.name}：{len(runs):,} 个任务{size}",
    )
    if not open_runs:
        return Finding("ledger", Grade.OK, Text(*facts))
    named = ", ".join(run.id for run in open_runs[:3]) + (" …" if len(open_runs) > 3 else "")
    seen = Text(
        f"{facts[0]}, {len(open_runs):,} unfinished or at work: {named}",
        f"{facts[1]}，其中 {len(open_runs):,} 个未完成或正在执行：{named}",
    )
    mend = Text(
        "`tcb-ops show RUN` says what is left; the same command as then goes on with it.",
        "`tcb-ops show 任务` 显示剩余的内容；再次运行当时的命令即可继续。",
    )
    return Finding("ledger", Grade.WARNING, seen, mend)


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f", {size / 1000**2:,.1f} MB" if size >= 100_000 else ""


def room(free: int, folder: Path) -> Finding:
    """How much room is left where the ledger lies.

    ===================  ========
    free                 grade
    ===================  ========
    under 100 MB         bad
    under 1 GB           warning
    1 GB and more        ok
    ===================  ========
    """
    seen = Text(f"{free / 1000**3:,.1f} GB free in {folder}", f"{folder} 剩余 {free / 1000**3:,.1f} GB")
    if free >= TIGHT:
        return Finding("disk", Grade.OK, seen)
    mend = Text(
        "Make room: a run that meets a full disk stops (its rows stay pending), and reports need room beside the ledger.",
        "请腾出空间：磁盘写满时运行会停止（剩余行保持未完成），报告也需要空间。",
    )
    return Finding("disk", Grade.BAD if free < SCARCE else Grade.WARNING, seen, mend)


def look_at_secrets(settings: Settings) -> list[Finding]:
    """Whether what holds secrets may be read by its owner alone."""
    if os.name != "posix":
        return [skipped("secrets", "file modes are not looked at on this system", "此系统上不检查文件权限")]
    places = secret_places(settings.tokens)
    wide = [path for path in _within(places) if _is_wide(path)]
    if not wide:
        there = [str(path) for path in places if path.exists()]
        said = ", ".join(there)
        if not there:
            return [skipped("secrets", "no file with secrets here", "没有存放密钥的文件")]
        return [Finding("secrets", Grade.OK, Text(f"{said}: yours alone", f"{said}：仅本人可读"))]
    said = ", ".join(map(str, wide[:3])) + (" …" if len(wide) > 3 else "")
    seen = Text(f"others on this machine may read {said}", f"本机其他用户可读取 {said}")
    command = "chmod -R go-rwx " + " ".join(_quoted(path) for path in places if path.exists())
    mend = Text(f"{command}", f"{command}")
    # Tokens of a rehearsal open nothing.
    return [Finding("secrets", Grade.WARNING if settings.on_loopback else Grade.BAD, seen, mend)]


def secret_places(tokens: TokenSettings) -> list[Path]:
    """Files and folders of the settings that hold tokens, secrets or tickets, by the source that is used."""
    if tokens.source == "file":
        return [tokens.file]
    if tokens.source != "component":
        return []
    named = (
        value.partition(":")[2].strip()
        for value in (tokens.secret, tokens.ticket)
        if value.startswith("file:")
    )
    return [*map(Path, named), tokens.store]


def _within(places: Iterable[Path]) -> Iterable[Path]:
    for place in places:
        yield place
        if place.is_dir():
            with suppress(OSError):
                yield from sorted(place.iterdir())[:2000]


def _is_wide(path: Path) -> bool:
    with suppress(OSError):
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    return False


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
