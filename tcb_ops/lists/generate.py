"""A path list made of files and merchants: an ordinary list, to be looked through before it goes."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from tcb_ops.cell_text import fold, guard, shown, trim
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.lists.local_files import Files, Unfit
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.problems import input_error
from tcb_ops.lists.resolve import Unresolved, caller
from tcb_ops.lists.scan import Gathered
from tcb_ops.lists.validate import path_problem
from tcb_ops.model import Merchant, Problem, file_problem

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
            problems.append(file_problem(found.message, found.fix))
        elif "\\" in file or trim(file) != file or not _is_text(file):
            message = Text(f"a list cannot name the file {shown(file)}", f"清单无法写出文件名 {shown(file)}")
            fix = Text(
                "rename it without backslashes and without spaces at its ends, in readable characters",
                "请改名：不含反斜杠，首尾没有空格，且字符可读",
            )
            problems.append(file_problem(message, fix))
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
        message, fix = wrong or (
            Text("the path begins or ends with a space", "路径首尾有空格"),
            Text("change --path, or rename the file", "请修改 --path，或给文件改名"),
        )
        name = shown(file)
        problems.append(file_problem(Text(f"{name}: {message.en}", f"{name}：{message.zh}"), fix))
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


ALL, ALL_ENVS = "all", "all-envs"


def aim(merchants: Merchants, to: Sequence[str]) -> tuple[Merchant, ...]:
    """The merchants' lines that are meant, each once, in the order of `to` and then of the file.

    ===========================  =====================================================================
    to                           means
    ===========================  =====================================================================
    an env id                    it
    a merchant's name or appid   its only environment, or its default one; else a problem that lists them
    all                          of every merchant that is left by --where: its only environment there, or
                                 its default one; else a problem that lists them
    all-envs                     every environment that is left by --where
    anything else                a problem; near names are suggested
    ===========================  =====================================================================

    `all` and `all-envs` pass over merchants that have left. An environment that several merchants share needs a
    default, or --where. Raises UsageError.
    """
    targets: dict[tuple[str, str], Merchant] = {}
    for asked in map(trim, to):
        if asked in {ALL, ALL_ENVS}:
            found = _all(merchants) if asked == ALL else _all_envs(merchants)
        else:
            found = [_one(merchants, asked)]
        targets |= {(m.appid, m.env): m for m in found}
    if not targets:
        raise UsageError(
            Text("--to matches nobody: every merchant has left", "--to 没有选中任何商户：商户都已离开")
        )
    return tuple(targets.values())


def _one(merchants: Merchants, asked: str) -> Merchant:
    by_env = bool(merchants.whole.for_env(asked))
    if not by_env and not merchants.whole.resolve(asked):
        raise _nobody(merchants, asked)
    found = caller(merchants, asked if by_env else "", "" if by_env else asked, "", lambda _value, _names: [])
    if isinstance(found, Merchant):
        return found
    if isinstance(found, Unresolved):
        raise UsageError(
            Text(
                f"--to {shown(asked)}: {found.message.en}. Name one of these environments",
                f"--to {shown(asked)}：{found.message.zh}。请写明其中一个环境",
            )
        )
    raise UsageError(
        Text(f"--to {shown(asked)}: --where leaves it out", f"--to {shown(asked)}：已被 --where 排除")
    )


def _all(merchants: Merchants) -> list[Merchant]:
    by_appid: dict[str, list[Merchant]] = {}
    for line in _there(merchants):
        by_appid.setdefault(line.appid, []).append(line)
    return _decided(
        by_appid.values(),
        Text(
            "--to all: several environments, none of them the default", "--to all：有多个环境而没有默认环境"
        ),
    )


def _all_envs(merchants: Merchants) -> list[Merchant]:
    by_env: dict[str, list[Merchant]] = {}
    for line in _there(merchants):
        by_env.setdefault(line.env, []).append(line)
    return _decided(
        by_env.values(),
        Text(
            "--to all-envs: several merchants share an environment", "--to all-envs：有多个商户共用一个环境"
        ),
    )


def _there(merchants: Merchants) -> list[Merchant]:
    return [line for line in merchants if not line.left]


def _decided(groups: Iterable[list[Merchant]], said: Text) -> list[Merchant]:
    """Of each group its only line, or its default one. Raises UsageError that lists the groups that have neither."""
    found, open_ = [], []
    for group in groups:
        default = [line for line in group if line.default]
        if len(group) == 1 or len(default) == 1:
            found.append((default or group)[0])
        else:
            open_.append(", ".join(f"{m.env} ({m.name}, {m.appid})" for m in group[:5]))
    if not open_:
        return found
    more = f" … ({len(open_)})" if len(open_) > 5 else ""
    listed = "; ".join(open_[:5]) + more
    raise UsageError(
        Text(
            f"{said.en}: {listed}. Mark one default=yes in the merchants file, or narrow it with --where",
            f"{said.zh}：{listed}。请在商户表里把其中一个标为 default=yes，或用 --where 缩小范围",
        )
    )


def _nobody(merchants: Merchants, asked: str) -> UsageError:
    names = {fold(name): name for m in merchants.whole for name in (m.name, m.appid, m.env)}
    near = ", ".join(names[n] for n in difflib.get_close_matches(fold(asked), names, n=3, cutoff=0.5))
    return UsageError(
        Text(
            f"--to {shown(asked)}: no environment, merchant or appid is called so"
            + (f"; did you mean {near}?" if near else f"; look into {merchants.whole.source}"),
            f"--to {shown(asked)}：没有这个环境、商户或 appid"
            + (f"；是不是 {near}？" if near else f"；请查看 {merchants.whole.source}"),
        )
    )
