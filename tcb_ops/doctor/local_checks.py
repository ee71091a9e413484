"""Checks of this machine and its files: Python, packages, JupyterLab, PDFs, merchants, ledger, disk, secrets."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tcb_ops.doctor import CheckResult, Grade, from_error, skipped
from tcb_ops.errors import InputError, TcbOpsError
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.lists.problems import format_problem
from tcb_ops.reports.formats.pdf import CHROMIUM, find_chromium
from tcb_ops.settings import Settings, TokenSettings

_SHOWN_IN_LAB = ("jupyterlab", "ipykernel", "ipywidgets")
_FONTS_SECONDS = 5
"""What fc-list may take: it builds its cache the first time."""
_PROBLEMS = 3
"""Problems of the merchants file that are shown; `check` shows all."""
SCARCE, TIGHT = 100 * 1000**2, 1000**3
"""Free bytes below which a run may end on a full disk, and below which somebody should look."""


def check_python() -> list[CheckResult]:
    """Compare Python's version with what the package asks for."""
    needed, found = SpecifierSet(metadata("tcb-ops")["Requires-Python"]), platform.python_version()
    machine = f"{platform.system()} {platform.machine()}".strip()
    seen = Text(f"{found} ({machine}), needs {needed}", f"{found}（{machine}），需要 {needed}")
    if needed.contains(found, prereleases=True):
        return [CheckResult("python", Grade.OK, seen)]
    fix = Text(
        f"Install a Python {needed}, and tcb-ops into it.", f"请安装 Python {needed}，并把 tcb-ops 装到其中。"
    )
    return [CheckResult("python", Grade.BAD, seen, fix)]


def check_packages() -> list[CheckResult]:
    """Compare tcb-ops's own requirements with what is installed."""
    needed = _requirements("")
    wrong = unmet(needed, _installed)
    if not wrong:
        own = version("tcb-ops")
        seen = Text(
            f"tcb-ops {own}, its {plural(len(needed), 'package')} as required",
            f"tcb-ops {own}，所需的 {len(needed)} 个包均符合要求",
        )
        return [CheckResult("packages", Grade.OK, seen)]
    fix = Text(
        "Install tcb-ops again, in an environment of its own: python -m pip install -c constraints.txt -e .",
        "请在独立的环境中重新安装 tcb-ops：python -m pip install -c constraints.txt -e .",
    )
    return [CheckResult("packages", Grade.BAD, _describe(wrong), fix)]


def check_lab() -> list[CheckResult]:
    """Check JupyterLab and what the notebooks need, where the extra is installed."""
    command = "python -m pip install -c constraints.txt -e '.[lab]'"
    there = [f"{name} {found}" for name in _SHOWN_IN_LAB if (found := _installed(name)) is not None]
    if not there:
        return [
            skipped(
                "lab", f"not installed; notebooks need it: {command}", f"未安装；使用笔记本需要：{command}"
            )
        ]
    wrong = unmet(_requirements("lab"), _installed)
    if not wrong:
        return [CheckResult("lab", Grade.OK, Text(", ".join(there), ", ".join(there)))]
    fix = Text(f"For notebooks: {command}", f"使用笔记本需要：{command}")
    return [CheckResult("lab", Grade.WARNING, _describe(wrong), fix)]


def unmet(
    needed: Iterable[Requirement], installed: Callable[[str], str | None]
) -> list[tuple[Requirement, str | None]]:
    """Return the requirements that what is installed does not meet, each with the version that is there.

    A pre-release that fits meets its requirement.
    """
    pairs = [(one, installed(one.name)) for one in needed]
    return [(r, v) for r, v in pairs if v is None or not r.specifier.contains(v, prereleases=True)]


def _requirements(extra: str) -> list[Requirement]:
    """Return what tcb-ops requires here: by itself, or what an extra adds."""
    found = []
    for one in map(Requirement, requires("tcb-ops") or ()):
        always = one.marker is None or one.marker.evaluate({"extra": ""})
        if always if not extra else not always and one.marker and one.marker.evaluate({"extra": extra}):
            found.append(one)
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _describe(wrong: Iterable[tuple[Requirement, str | None]]) -> Text:
    pairs = [(f"{r.name}{r.specifier}", found) for r, found in wrong]
    return Text(
        "; ".join(f"{name} is needed, {found or 'nothing'} is installed" for name, found in pairs),
        "；".join(f"需要 {name}，{f'已装 {found}' if found else '未安装'}" for name, found in pairs),
    )


def check_browser() -> list[CheckResult]:
    """Look for a Chromium, which prints reports as PDF."""
    if os.environ.get(CHROMIUM) == "":
        return [skipped("browser", f"{CHROMIUM} is empty: no PDFs", f"{CHROMIUM} 为空：不生成 PDF")]
    found = find_chromium()
    if found is not None:
        return [CheckResult("browser", Grade.OK, Text(found, found))]
    seen = Text("no Chromium: reports come without a PDF", "没有 Chromium：报告不含 PDF")
    fix = Text(
        f"Install chromium or Chrome, or name the program in {CHROMIUM}; leave {CHROMIUM} empty to do without.",
        f"请安装 chromium 或 Chrome，或用 {CHROMIUM} 指定程序；不需要 PDF 时把 {CHROMIUM} 设为空。",
    )
    return [CheckResult("browser", Grade.WARNING, seen, fix)]


def check_fonts(seconds: float = _FONTS_SECONDS) -> list[CheckResult]:
    """Look for a font that has Chinese: a PDF without one shows boxes for the merchants' names."""
    if sys.platform in {"darwin", "win32"}:
        return [CheckResult("fonts", Grade.OK, Text("the system's own have Chinese", "系统自带中文字体"))]
    program = shutil.which("fc-list")
    if program is None:
        why = ("no fc-list here (fontconfig), so unknown", "没有 fc-list（fontconfig），无法得知")
        return [skipped("fonts", *why)]
    try:
        listed = subprocess.run(  # noqa: S603  found in PATH, no shell
            [program, ":lang=zh", "family"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return [skipped("fonts", "fc-list does not answer, so unknown", "fc-list 没有应答，无法得知")]
    lines = listed.stdout.decode(errors="replace").splitlines()
    families = sorted({line.split(",")[0].strip() for line in lines})
    families = [family for family in families if family.isprintable() and family]
    if not families:
        seen = Text(
            "no font has Chinese: PDFs would show boxes for it", "没有中文字体：PDF 中的中文会显示为方框"
        )
        fix = Text(
            "Install one, e.g. the package fonts-noto-cjk.", "请安装中文字体，例如软件包 fonts-noto-cjk。"
        )
        return [CheckResult("fonts", Grade.WARNING, seen, fix)]
    count = len(families)
    more = (f" and {count - 1} more", f" 等 {count} 种") if count > 1 else ("", "")
    return [CheckResult("fonts", Grade.OK, Text(f"{families[0]}{more[0]}", f"{families[0]}{more[1]}"))]


def check_merchants(settings: Settings, where: Sequence[str]) -> list[CheckResult]:
    """Check that the merchants file can be read, and say what it holds."""
    file = settings.merchants
    if not file.exists():
        seen = Text(f"{file} is not there", f"{file} 不存在")
        fix = Text(
            "Make it: `tcb-ops init` writes one to fill in, `tcb-ops merchants sync` asks the platform.",
            "请创建它：`tcb-ops init` 生成待填写的文件，`tcb-ops merchants sync` 从平台获取。",
        )
        return [CheckResult("merchants", Grade.BAD, seen, fix)]
    try:
        lines = read_merchants(file, where)
    except InputError as error:
        shown = error.problems[:_PROBLEMS]
        count = len(error.problems)
        en = "; ".join(format_problem(file.name, one, Lang.EN) for one in shown)
        zh = "；".join(format_problem(file.name, one, Lang.ZH) for one in shown)
        seen = Text(f"{plural(count, 'problem')}: {en}", f"{count} 处问题：{zh}")
        fix = Text("Fix the file; a run refuses it whole.", "请修正该文件；有问题时运行会整体拒绝它。")
        return [CheckResult("merchants", Grade.BAD, seen, fix)]
    appids, left = len({m.appid for m in lines}), sum(m.left for m in lines)
    gone = (f", {left} of them left", f"，其中 {left} 行已离开") if left else ("", "")
    seen = Text(
        f"{file}: {plural(len(lines), 'line')}, {plural(appids, 'mini program')}, "
        f"{plural(len(lines.envs), 'environment')}{gone[0]}",
        f"{file}：{len(lines):,} 行，{appids:,} 个小程序，{len(lines.envs):,} 个环境{gone[1]}",
    )
    return [CheckResult("merchants", Grade.OK, seen)]


def check_ledger(settings: Settings) -> list[CheckResult]:
    """Check that the ledger opens and can be written, what is unfinished in it, and the room on its disk.

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
    disk = [check_disk(shutil.disk_usage(folder).free, folder)] if folder.is_dir() else []
    return [found, *disk]


def _not_yet(file: Path, folder: Path) -> CheckResult:
    from tcb_ops.runs.database import not_a_ledger, on_network

    why = None
    if not folder.is_dir():
        why = Text(f"the folder {folder} is not there", f"文件夹 {folder} 不存在")
    elif on_network(folder):
        why = Text(
            "it would lie on a network file system, where locks do not hold",
            "它位于网络文件系统上，文件锁不可靠",
        )
    elif not os.access(folder, os.W_OK):
        why = Text(f"{folder} cannot be written", f"{folder} 不可写")
    if why is not None:
        return from_error("ledger", not_a_ledger(str(file), why.en, why.zh))
    return CheckResult(
        "ledger",
        Grade.OK,
        Text(f"{file} is not there yet: the first run makes it", f"{file} 尚不存在：第一次运行时创建"),
    )


def _unwritable(file: Path, folder: Path) -> CheckResult | None:
    """Try to begin a transaction, which is rolled back at once."""
    why = "" if os.access(folder, os.W_OK) else f"{folder}: {os.strerror(13)}"
    try:
        uri = f"{file.resolve().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=1, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        # Busy: somebody writes, so one can. No database: reported better when it is opened.
        if getattr(error, "sqlite_errorname", "") not in {"SQLITE_BUSY", "SQLITE_NOTADB"}:
            why = why or str(error)
    if not why:
        return None
    seen = Text(f"{file} cannot be written ({why})", f"{file} 不可写（{why}）")
    fix = Text(
        f"Give yourself the right to write {file} and {folder}, or name another ledger with --ledger.",
        f"请为自己开放 {file} 和 {folder} 的写权限，或用 --ledger 指定另一个台账。",
    )
    return CheckResult("ledger", Grade.BAD, seen, fix)


def _opened(settings: Settings, size: str) -> CheckResult:
    from tcb_ops.runs.ledger import Ledger

    try:
        ledger = Ledger(settings.ledger)
        try:
            runs = ledger.runs()
        finally:
            ledger.close()
    except TcbOpsError as error:
        return from_error("ledger", error)
    open_runs = [run for run in runs if run.finished_at is None]
    facts = (
        f"{ledger.name}: {plural(len(runs), 'run')}{size}",
        f"{ledger.name}：{len(runs):,} 个任务{size}",
    )
    if not open_runs:
        return CheckResult("ledger", Grade.OK, Text(*facts))
    named = ", ".join(run.id for run in open_runs[:3]) + (" …" if len(open_runs) > 3 else "")
    seen = Text(
        f"{facts[0]}, {len(open_runs):,} unfinished or at work: {named}",
        f"{facts[1]}，其中 {len(open_runs):,} 个未完成或正在执行：{named}",
    )
    fix = Text(
        "`tcb-ops show RUN` shows what is left; the same command as then resumes it.",
        "`tcb-ops show 任务` 显示剩余的内容；再次运行当时的命令即可继续。",
    )
    return CheckResult("ledger", Grade.WARNING, seen, fix)


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f", {size / 1000**2:,.1f} MB" if size >= 100_000 else ""


def check_disk(free: int, folder: Path) -> CheckResult:
    """Grade the free bytes where the ledger lies."""
    seen = Text(f"{free / 1000**3:,.1f} GB free in {folder}", f"{folder} 剩余 {free / 1000**3:,.1f} GB")
    if free >= TIGHT:
        return CheckResult("disk", Grade.OK, seen)
    fix = Text(
        "Make room: a run that meets a full disk stops (its rows stay pending), and reports need room beside the ledger.",
        "请腾出空间：磁盘写满时运行会停止（剩余行保持未完成），报告也需要空间。",
    )
    return CheckResult("disk", Grade.BAD if free < SCARCE else Grade.WARNING, seen, fix)


def check_secrets(settings: Settings) -> list[CheckResult]:
    """Check that what holds secrets may be read by its owner alone."""
    if os.name != "posix":
        return [skipped("secrets", "file modes are not checked on this system", "此系统上不检查文件权限")]
    places = secret_places(settings.tokens)
    wide = [path for path in _within(places) if _is_wide(path)]
    if not wide:
        there = [str(path) for path in places if path.exists()]
        if not there:
            return [skipped("secrets", "no file with secrets here", "没有存放密钥的文件")]
        named = ", ".join(there)
        return [CheckResult("secrets", Grade.OK, Text(f"{named}: yours alone", f"{named}：仅本人可读"))]
    named = ", ".join(map(str, wide[:3])) + (" …" if len(wide) > 3 else "")
    seen = Text(f"others on this machine may read {named}", f"本机其他用户可读取 {named}")
    command = "chmod -R go-rwx " + shlex.join(str(path) for path in places if path.exists())
    fix = Text(command, command)
    # Tokens of the simulator open nothing.
    return [CheckResult("secrets", Grade.WARNING if settings.on_loopback else Grade.BAD, seen, fix)]


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
