"""A path list made of files and merchants: an ordinary list, to be looked through before it goes."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING

from tcb_ops.errors import UsageError
from tcb_ops.lists.cells import shown, trim
from tcb_ops.lists.files import Files, Unfit
from tcb_ops.lists.problems import input_error, of_file
from tcb_ops.lists.rules import path_problem
from tcb_ops.model import Problem, Text
from tcb_ops.spreadsheet import guard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tcb_ops.lists.gathering import Gathered
    from tcb_ops.model import Merchant

__all__ = ["FIELDS", "Made", "Template", "make_list", "root_of"]

FIELDS = ("name", "stem", "ext", "dir", "rel", "date", "merchant", "appid", "env")


@dataclass(frozen=True, slots=True)
class Made:
    """A list that was made."""

    rows: int
    files: int
    envs: int
    merchants: int
    """Mini programs (appids)."""
    bytes: int
    """Of all rows: what will be sent."""


class Template:
    """A cloud path with fields: `banner/{date}/{name}`.

    name: banner.png; stem: banner; ext: png; dir: its folder below the source; rel: dir and name; date: today,
    2026-03-15; merchant, appid, env: whose row it is. `{dir}/` is nothing where a file lies at the top.
    Raises UsageError for any other field.
    """

    def __init__(self, text: str, today: str) -> None:
        self._today = today
        self._whole, self._at_top = _parts(text), _parts(text.replace("{dir}/", ""))
        self.by_target = any(field in {"merchant", "appid", "env"} for _, field in self._whole)

    def paths(self, files: Sequence[str], target: Merchant) -> list[str]:
        """The cloud paths of files (relative to the source) in a merchant's environment."""
        whose = {"merchant": target.name, "appid": target.appid, "env": target.env, "date": self._today}
        return [self._path(file, whose) for file in files]

    def _path(self, file: str, whose: dict[str, str]) -> str:
        folder, _, name = file.rpartition("/")
        stem, dot, ext = name.rpartition(".")
        values = whose | {
            "name": name,
            "stem": stem or name,
            "ext": ext if stem and dot else "",
            "dir": folder,
            "rel": file,
        }
        parts = self._whole if folder else self._at_top
        return "".join(literal + values.get(field, "") for literal, field in parts)


def _parts(text: str) -> list[tuple[str, str]]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError:
        raise _wrong(text, Text("a { or } has no partner", "有一个 { 或 } 没有配对")) from None
    parts = []
    for literal, field, spec, how in parsed:
        if field is not None and (field not in FIELDS or spec or how):
            asked = shown(field + (f"!{how}" if how else "") + (f":{spec}" if spec else ""), 40)
            raise _wrong(text, Text(f"there is no field {{{asked}}}", f"没有 {{{asked}}} 这个字段"))
        parts.append((literal, field or ""))
    return parts


def _wrong(text: str, why: Text) -> UsageError:
    fields = " ".join(f"{{{field}}}" for field in FIELDS)
    return UsageError(
        Text(
            f"--path {shown(text)}: {why.en}; the fields are {fields}",
            f"--path {shown(text)}：{why.zh}；可用的字段有 {fields}",
        )
    )


def root_of(folder: Path, dest: Path, root: Path | None) -> Path:
    """Where the list's `file` column starts from: the root given, else the list's own folder, else the source's.

    The list's own is what `upload` takes by itself; it will do where all files lie below it.
    """
    if root is not None:
        return root
    own = dest.absolute().parent
    return own if folder.resolve().is_relative_to(own.resolve()) else folder


def make_list(
    gathered: Gathered, targets: Sequence[Merchant], template: Template, dest: Path, root: Path
) -> Made:
    """Write the list: env, merchant, path, file (and appid, where an environment is shared), a row per target and file.

    Every row passes `check` with that root. For Excel: UTF-8 with BOM, CRLF; a list with a cell that would run as a
    formula gets a column `tcb_guarded`, so that reading takes the guard off again.

    Raises InputError where a file or a cloud path cannot be used, and UsageError where files lie outside the root,
    two rows would have one cloud path, or `dest` is there already or cannot be written.
    """
    files = _from_root(gathered, root)
    sizes, problems = _sizes(files, root)
    paths = template.paths(gathered.files, targets[0])
    for target in targets if template.by_target else targets[:1]:
        found = _bad_paths(gathered.files, template.paths(gathered.files, target))
        problems += found
        if found:
            break
    if problems:
        raise input_error(str(gathered.folder), problems)
    _no_two_alike(gathered.files, targets, template)
    shared = len({target.env for target in targets}) < len({(t.env, t.appid) for t in targets})

    def rows() -> Iterator[list[str]]:
        for target in targets:
            mine = template.paths(gathered.files, target) if template.by_target else paths
            for path, file in zip(mine, files, strict=True):
                yield [target.env, target.name, path, file, *([target.appid] if shared else [])]

    header = ["env", "merchant", "path", "file", *(["appid"] if shared else [])]
    guarded = any(cell != guard(cell) for row in rows() for cell in row)
    _write(dest, [*header, *(["tcb_guarded"] if guarded else [])], rows())
    return Made(
        rows=len(targets) * len(files),
        files=len(files),
        envs=len({target.env for target in targets}),
        merchants=len({target.appid for target in targets}),
        bytes=sum(sizes) * len(targets),
    )


def _from_root(gathered: Gathered, root: Path) -> list[str]:
    below = os.path.relpath(os.path.realpath(gathered.folder), os.path.realpath(root)).replace(os.sep, "/")
    if below == ".." or below.startswith("../"):
        raise UsageError(
            Text(
                f"{shown(str(gathered.folder))} is not below --root {shown(str(root))}",
                f"{shown(str(gathered.folder))} 不在 --root {shown(str(root))} 之下",
            )
        )
    return list(gathered.files) if below == "." else [f"{below}/{file}" for file in gathered.files]


def _sizes(files: Sequence[str], root: Path) -> tuple[list[int], list[Problem]]:
    looks, sizes, problems = Files(root), [], []
    for file in files:
        found = looks.look(file)
        if isinstance(found, Unfit):
            problems.append(of_file(found.message, found.mend))
        elif "\\" in file or trim(file) != file or not _is_text(file):
            message = Text(f"a list cannot name the file {shown(file)}", f"清单无法写出文件名 {shown(file)}")
            mend = Text(
                "rename it without backslashes and without spaces at its ends, in readable characters",
                "请改名：不含反斜杠，首尾没有空格，且字符可读",
            )
            problems.append(of_file(message, mend))
        else:
            sizes.append(found.size)
    return sizes, problems


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad_paths(files: Sequence[str], paths: Sequence[str]) -> list[Problem]:
    problems = []
    for file, path in zip(files, paths, strict=True):
        if (wrong := path_problem(trim(path))) is None and trim(path) == path:
            continue
        message, mend = wrong or (
            Text("the path begins or ends with a space", "路径首尾有空格"),
            Text("change --path, or rename the file", "请修改 --path，或给文件改名"),
        )
        name = shown(file)
        problems.append(of_file(Text(f"{name}: {message.en}", f"{name}：{message.zh}"), mend))
    return problems


def _no_two_alike(files: Sequence[str], targets: Sequence[Merchant], template: Template) -> None:
    """Two rows with one environment and one cloud path would overwrite each other."""
    by_env: dict[str, list[Merchant]] = {}
    for target in targets:
        by_env.setdefault(target.env, []).append(target)
    seen: dict[str, tuple[str, Merchant]] = {}
    for sharing in by_env.values():
        # The paths of a file are alike in all environments that are not shared, but for the merchant's own fields.
        if seen and len(sharing) == 1 and not template.by_target:
            continue
        seen.clear()
        for target in sharing:
            for file, path in zip(files, template.paths(files, target), strict=True):
                first, whose = seen.setdefault(path, (file, target))
                if (first, whose) != (file, target):
                    raise _alike(path, first, file, whose, target)


def _alike(path: str, first: str, file: str, whose: Merchant, target: Merchant) -> UsageError:
    if whose != target:
        return UsageError(
            Text(
                f"{whose.name} ({whose.appid}) and {target.name} ({target.appid}) share the environment {target.env}, and "
                f"both would write {shown(path)}: put {{appid}} into --path, or leave one of them out",
                f"{whose.name}（{whose.appid}）和 {target.name}（{target.appid}）共用环境 {target.env}，"
                f"都会写到 {shown(path)}：请在 --path 中加入 {{appid}}，或去掉其中一个",
            )
        )
    return UsageError(
        Text(
            f"{shown(first)} and {shown(file)} would both become {shown(path)}: put {{rel}} or {{name}} into --path",
            f"{shown(first)} 和 {shown(file)} 都会变成 {shown(path)}：请在 --path 中加入 {{rel}} 或 {{name}}",
        )
    )


def _write(dest: Path, header: Sequence[str], rows: Iterator[list[str]]) -> None:
    try:
        with dest.open("x", encoding="utf-8-sig", newline="") as file:
            out = csv.writer(file)
            out.writerow(header)
            out.writerows(map(guard, row) for row in rows)
    except FileExistsError:
        failed = Text(
            f"{dest} is there already: look through it, or give another name with --out",
            f"{dest} 已存在：请先查看它，或用 --out 换一个文件名",
        )
    except OSError as error:
        dest.unlink(missing_ok=True)
        why = error.strerror or "?"
        failed = Text(f"{dest} cannot be written ({why})", f"{dest} 无法写入（{why}）")
    else:
        return
    raise UsageError(failed)
