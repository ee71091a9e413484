"""What is installed: Python, the packages, the Lab, a browser and fonts for PDFs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tcb_ops.health.finding import Finding, Grade, skipped
from tcb_ops.model import Text
from tcb_ops.reports.pdf import CHROMIUM, find_chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["look_at_browser", "look_at_fonts", "look_at_lab", "look_at_packages", "look_at_python", "unmet"]

_SHOWN_IN_LAB = ("jupyterlab", "ipykernel", "ipywidgets")
_FONTS_TAKE = 5
"""Seconds that fc-list may take: it builds its cache the first time."""


def look_at_python() -> list[Finding]:
    """Python's version, against what the package asks for."""
    needed = SpecifierSet(metadata("tcb-ops")["Requires-Python"])
    found = platform.python_version()
    seen = Text(f"{found} ({_machine()}), needs {needed}", f"{found}（{_machine()}），需要 {needed}")
    if needed.contains(found, prereleases=True):
        return [Finding("python", Grade.OK, seen)]
    mend = Text(
        f"Install a Python {needed}, and tcb-ops into it.", f"请安装 Python {needed}，并把 tcb-ops 装到其中。"
    )
    return [Finding("python", Grade.BAD, seen, mend)]


def look_at_packages() -> list[Finding]:
    """Whether tcb-ops's own requirements are met, from what is installed."""
    needed = _needed("")
    wrong = unmet(needed, _installed)
    if not wrong:
        seen = Text(
            f"tcb-ops {version('tcb-ops')}, its {len(needed)} packages as required",
            f"tcb-ops {version('tcb-ops')}，所需的 {len(needed)} 个包均符合要求",
        )
        return [Finding("packages", Grade.OK, seen)]
    mend = Text(
        "Install tcb-ops again, in an environment of its own: python -m pip install -c constraints.txt -e .",
        "请在独立的环境中重新安装 tcb-ops：python -m pip install -c constraints.txt -e .",
    )
    return [Finding("packages", Grade.BAD, _listed(wrong), mend)]


def look_at_lab() -> list[Finding]:
    """JupyterLab and what the notebooks need, where the extra is installed."""
    needed = _needed("lab")
    there = [(name, found) for name in _SHOWN_IN_LAB if (found := _installed(name)) is not None]
    if not there:
        return [
            skipped(
                "lab",
                "not installed; notebooks need it: python -m pip install -c constraints.txt -e '.[lab]'",
                "未安装；使用笔记本需要：python -m pip install -c constraints.txt -e '.[lab]'",
            )
        ]
    wrong = unmet(needed, _installed)
    if not wrong:
        said = ", ".join(f"{name} {found}" for name, found in there)
        return [Finding("lab", Grade.OK, Text(said, said))]
    mend = Text(
        "For notebooks: python -m pip install -c constraints.txt -e '.[lab]'",
        "使用笔记本需要：python -m pip install -c constraints.txt -e '.[lab]'",
    )
    return [Finding("lab", Grade.WARNING, _listed(wrong), mend)]


def unmet(
    needed: Iterable[Requirement], installed: Callable[[str], str | None]
) -> list[tuple[Requirement, str | None]]:
    """Requirements that what is installed does not meet, each with the version that is there.

    ===========================  =======
    installed                    unmet
    ===========================  =======
    nothing of that name         yes
    a version that fits          no
    a pre-release that fits      no
    any other version            yes
    ===========================  =======
    """
    pairs = [(one, installed(one.name)) for one in needed]
    return [(r, v) for r, v in pairs if v is None or not r.specifier.contains(v, prereleases=True)]


def look_at_browser() -> list[Finding]:
    """A Chromium, which prints reports as PDF."""
    if os.environ.get(CHROMIUM) == "":
        return [skipped("browser", f"{CHROMIUM} is empty: no PDFs", f"{CHROMIUM} 为空：不生成 PDF")]
    found = find_chromium()
    if found is not None:
        return [Finding("browser", Grade.OK, Text(found, found))]
    seen = Text("no Chromium: reports come without a PDF", "没有 Chromium：报告不含 PDF")
    mend = Text(
        f"Install chromium or Chrome, or name the program in {CHROMIUM}; leave {CHROMIUM} empty to do without.",
        f"请安装 chromium 或 Chrome，或用 {CHROMIUM} 指定程序；不需要 PDF 时把 {CHROMIUM} 设为空。",
    )
    return [Finding("browser", Grade.WARNING, seen, mend)]


def look_at_fonts(seconds: float = _FONTS_TAKE) -> list[Finding]:
    """A font that has Chinese: a PDF without one shows boxes for the merchants' names."""
    if sys.platform in {"darwin", "win32"}:
        return [Finding("fonts", Grade.OK, Text("the system's own have Chinese", "系统自带中文字体"))]
    program = shutil.which("fc-list")
    if program is None:
        return [
            skipped(
                "fonts", "no fc-list here (fontconfig), so unknown", "没有 fc-list（fontconfig），无法得知"
            )
        ]
    try:
        said = subprocess.run(  # noqa: S603  found in PATH, no shell
            [program, ":lang=zh", "family"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return [skipped("fonts", "fc-list does not answer, so unknown", "fc-list 没有应答，无法得知")]
    families = sorted(
        {line.split(",")[0].strip() for line in said.stdout.decode(errors="replace").splitlines()}
    )
    families = [family for family in families if family.isprintable() and family]
    if families:
        more = len(families) - 1
        return [
            Finding(
                "fonts",
                Grade.OK,
                Text(
                    f"{families[0]}{f' and {more} more' if more else ''}",
                    f"{families[0]}{f' 等 {more + 1} 种' if more else ''}",
                ),
            )
        ]
    seen = Text("no font has Chinese: PDFs would show boxes for it", "没有中文字体：PDF 中的中文会显示为方框")
    mend = Text(
        "Install one, e.g. the package fonts-noto-cjk.", "请安装中文字体，例如软件包 fonts-noto-cjk。"
    )
    return [Finding("fonts", Grade.WARNING, seen, mend)]


def _needed(extra: str) -> list[Requirement]:
    """What tcb-ops requires here: by itself, or what an extra adds."""
    listed = [Requirement(one) for one in requires("tcb-ops") or ()]
    if not extra:
        return [r for r in listed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [
        r
        for r in listed
        if r.marker is not None
        and r.marker.evaluate({"extra": extra})
        and not r.marker.evaluate({"extra": ""})
    ]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _listed(wrong: Iterable[tuple[Requirement, str | None]]) -> Text:
    said = [(f"{r.name}{r.specifier}", found) for r, found in wrong]
    return Text(
        "; ".join(f"{name} is needed, {found or 'nothing'} is installed" for name, found in said),
        "；".join(f"需要 {name}，{f'已装 {found}' if found else '未安装'}" for name, found in said),
    )


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}".strip()
