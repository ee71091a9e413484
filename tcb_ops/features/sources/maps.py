"""Where files are that a list names on another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.formatting import shown
from tcb_ops.i18n import _


def path_map(items: Sequence[str], root: str | Path | None) -> Callable[[str], str]:
    r"""Return a function that maps a file of another machine, with forward slashes, to one below the root.

    ==========================  ==================  ==================  ==============
    item                        root                file in the list    result
    ==========================  ==================  ==================  ==============
    D:\素材=/data/素材          /data               D:\素材\春\a.png    素材/春/a.png
    D:\素材=/data/素材          /data/素材          d:/素材/a.png       a.png
    D:\素材=.                   any                 D:\素材\a.png       a.png
    \\nas\public=公共           any                 \\NAS\public\a.png  公共/a.png
    D:\素材=/data/素材          /data               D:\素材2\a.png      unchanged
    D:\素材=/elsewhere          /data               –                   UsageError
    ==========================  ==================  ==================  ==============

    The longest match applies. A target that is not absolute is relative to the root. Without a root nothing is
    mapped, since local files are not inspected.
    """
    pairs = sorted((_pair(item, root) for item in items), key=lambda pair: -len(pair[0]))

    def mapped(file: str) -> str:
        for prefix, target in pairs if root is not None else ():
            # Windows ignores case, and hand-typed lists are inconsistent.
            if file[: len(prefix)].casefold() == prefix and file[len(prefix) : len(prefix) + 1] == "/":
                rest = file[len(prefix) :].lstrip("/")
                return f"{target}/{rest}" if target else rest
        return file

    return mapped


def _pair(item: str, root: str | Path | None) -> tuple[str, str]:
    prefix, equals, target = item.partition("=")
    prefix = prefix.strip().replace("\\", "/").rstrip("/").casefold()
    target = target.strip()
    if not equals or not prefix or not target:
        text = _("{--map} {item}: write it as THERE=HERE, e.g. D:\\素材=/data/素材")
        raise UsageError(text.format(item=shown(item)))
    if root is None:
        return prefix, ""
    real = os.path.realpath(root)
    inside = os.path.realpath(os.path.join(real, target))  # noqa: PTH118  a Path would keep less of it
    if os.path.commonpath([real, inside]) != real:
        text = _("{--map} {item}: {target} is not below the root {root}; choose a {--root} that contains it")
        raise UsageError(text.format(item=shown(item), target=shown(target), root=shown(str(root))))
    below = os.path.relpath(inside, real).replace(os.sep, "/")
    return prefix, "" if below == "." else below
