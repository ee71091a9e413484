"""Local files written on another machine: where its folders are on this one (`--map`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tcb_ops.errors import UsageError
from tcb_ops.lists.cells import shown
from tcb_ops.model import Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Mapped"]


class Mapped:
    r"""The folders of another machine, each with the folder below the root that stands for it.

    ==========================  ==================  ==================  ==============
    item                        root                file in the list    gives
    ==========================  ==================  ==================  ==============
    D:\素材=/data/素材          /data               D:\素材\春\a.png    素材/春/a.png
    D:\素材=/data/素材          /data/素材          d:/素材/a.png       a.png
    D:\素材=.                   any                 D:\素材\a.png       a.png
    \\nas\public=公共           any                 \\NAS\public\a.png  公共/a.png
    D:\素材=/data/素材          /data               D:\素材2\a.png      as it is
    D:\素材=/elsewhere          /data               –                   UsageError
    ==========================  ==================  ==================  ==============

    Of several that fit the longest counts. A target that is not absolute is meant from the root on. Without a root no
    local file is looked at, so nothing is mapped.
    """

    def __init__(self, items: Sequence[str], root: str | Path | None) -> None:
        pairs = [_pair(item, root) for item in items]
        self._pairs = sorted(pairs, key=lambda pair: -len(pair[0])) if root is not None else []

    def file(self, file: str) -> str:
        """The file from the root on, where one of the folders holds it; else as it is. Slashes lean forward."""
        for prefix, target in self._pairs:
            # Windows does not tell upper from lower case, and a list typed by hand does not either.
            if file[: len(prefix)].casefold() == prefix and file[len(prefix) : len(prefix) + 1] == "/":
                rest = file[len(prefix) :].lstrip("/")
                return f"{target}/{rest}" if target else rest
        return file


def _pair(item: str, root: str | Path | None) -> tuple[str, str]:
    prefix, equals, target = item.partition("=")
    prefix = prefix.strip().replace("\\", "/").rstrip("/").casefold()
    target = target.strip()
    if not equals or not prefix or not target:
        raise UsageError(
            Text(
                rf"--map {shown(item)}: write it as THERE=HERE, e.g. D:\素材=/data/素材",
                rf"--map {shown(item)}：请写成 原路径=本机路径，例如 D:\素材=/data/素材",
            )
        )
    if root is None:
        return prefix, ""
    real = os.path.realpath(root)
    inside = os.path.realpath(os.path.join(real, target))  # noqa: PTH118  strings, as files.py
    if os.path.commonpath([real, inside]) != real:
        raise UsageError(
            Text(
                f"--map {shown(item)}: {shown(target)} is not below the root {shown(str(root))}; give a --root that holds it",
                f"--map {shown(item)}：{shown(target)} 不在根目录 {shown(str(root))} 之下；请用 --root 指定包含它的文件夹",
            )
        )
    below = os.path.relpath(inside, real).replace(os.sep, "/")
    return prefix, "" if below == "." else below
