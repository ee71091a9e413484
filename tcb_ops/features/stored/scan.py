"""Generation of path lists: scan a folder, select target environments, and write a row for each pair."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from string import Formatter

from tcb_ops.disk import make_folder, nearest_path
from tcb_ops.errors import UsageError
from tcb_ops.formatting import guard, shown, trim
from tcb_ops.i18n import _
from tcb_ops.lists.merchants import Merchants, Unresolved, list_lines, resolve
from tcb_ops.model import Merchant
from tcb_ops.system_errors import system_reason
from tcb_ops.table_files import write_table

# --- the files ------------------------------------------------------------------------------------------------------

_NOT_TEXT = re.compile("[\ud800-\udfff]")
"""Bytes of a file name that are no text in the system's encoding, as Python keeps them."""
_JUNK = ("thumbs.db", "desktop.ini", "ehthumbs.db", "~$*", ".*")
"""Files that Windows, Office and macOS leave in folders; `.*` is all hidden files, including .DS_Store."""

_SECRET_COLUMNS = ({"appid", "access_token"}, {"url", "authorization"}, {"file_id", "download_url"})
"""Columns of token files, of links.csv and of download links."""


@dataclass(frozen=True, slots=True)
class ScannedFiles:
    """The files found by `scan`."""

    folder: Path
    """The folder that `files` are relative to."""
    files: tuple[str, ...]
    """Relative paths with forward slashes, sorted."""
    junk: int
    """Number skipped: hidden and temporary files, hidden and linked folders."""
    own: int
    """Number skipped: tcb-ops's own files (tokens, ledger, merchants, settings)."""
    excluded: int
    """Number skipped by `include` and `exclude`."""


def scan(
    source: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    own: frozenset[str] = frozenset(),
) -> ScannedFiles:
    """Scan a file, or a folder recursively.

    A pattern without a slash matches file names, one with a slash relative paths; both ignore case. `own` contains
    real paths of files and folders to skip: a token file must not be uploaded. Fix-me files, and CSV files that hold tokens
    or links by their header, are skipped as well.

    Raises UsageError if the source does not exist or cannot be read, or if no file remains.
    """
    folder = source if source.is_dir() else source.parent
    if not source.exists():
        name = shown(str(source))
        near = nearest_path(source, Path.exists)
        fix = _("Did you mean {near}?", near=near) if near else _("Check the path.")
        raise UsageError(_("{name}: there is no such file or folder.", name=name), fix)
    junk = own_files = excluded = 0
    files, own_folders = list[str](), tuple(f"{path}{os.sep}" for path in own)
    for file in _walk(folder, "") if source.is_dir() else [source.name]:
        real = os.path.realpath(folder / file)
        if file.endswith("/") or any(fnmatchcase(file.rpartition("/")[2].casefold(), p) for p in _JUNK):
            junk += 1
        elif real in own or real.startswith(own_folders) or _holds_secrets(Path(real)):
            own_files += 1
        elif not is_included(file, include, exclude):
            excluded += 1
        else:
            files.append(file)
    if files:
        return ScannedFiles(folder, tuple(sorted(files)), junk, own_files, excluded)
    name = shown(str(source))
    text = _(
        "{source}: no file remains (hidden or temporary: {junk:,}; tcb-ops's own: {ours:,}; excluded by "
        "{--include} and {--exclude}: {excluded:,})"
    )
    raise UsageError(text.format(source=name, junk=junk, ours=own_files, excluded=excluded))


def _holds_secrets(file: Path) -> bool:
    """Return whether a CSV is a fix-me file, or holds access tokens or links: its name or header says so."""
    if file.suffix.lower() != ".csv":
        return False
    if file.name.endswith(".fix-me.csv"):
        return True
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as opened:
            header = set(opened.readline(4_096).strip().replace('"', "").split(","))
    except OSError:
        return False  # reported when the file is inspected
    return any(secret <= header for secret in _SECRET_COLUMNS)


def is_included(file: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a file passes the include and exclude patterns.

    ==============  ============  ============  ========
    file            include       exclude       included
    ==============  ============  ============  ========
    a/b.png         –             –             yes
    a/b.PNG         *.png         –             yes
    a/b.png         *.jpg         –             no
    a/b.png         *.png         b.*           no
    a/b.png         a/*           –             yes
    a/b.png         b/*           –             no
    ==============  ============  ============  ========
    """

    def matches(patterns: Sequence[str]) -> bool:
        path = file.casefold()
        return any(fnmatchcase(path if "/" in p else path.rpartition("/")[2], p.casefold()) for p in patterns)

    return (not include or matches(include)) and not matches(exclude)


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Yield the path of every file below a folder; a skipped file or folder ends in a slash."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        text = _("{name} cannot be read ({why})")
        raise UsageError(text.format(name=shown(str(folder)), why=system_reason(error))) from None
    for entry in entries:
        name = f"{prefix}{entry.name}"
        attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
        hidden = bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)  # on Windows
        if entry.is_dir() and not (hidden or entry.is_symlink() or entry.name.startswith(".")):
            yield from _walk(Path(entry), f"{name}/")
        else:
            yield f"{name}/" if hidden or entry.is_dir() else name


# --- the targets ----------------------------------------------------------------------------------------------------

ALL, ALL_ENVS = "all", "all-envs"


def select_targets(merchants: Merchants, to: Sequence[str]) -> tuple[Merchant, ...]:
    """Select lines of the merchants file, each once, in the order of `to`, then of the file.

    ===========================  =====================================================================
    to                           selects
    ===========================  =====================================================================
    an env id                    this environment
    a merchant's name or appid   its only environment, or its default one; else UsageError lists them
    all                          of every merchant that --where leaves: its only environment there, or
                                 its default one; else UsageError lists them
    all-envs                     every environment that --where leaves
    anything else                UsageError suggests near names
    ===========================  =====================================================================

    `all` and `all-envs` skip merchants that have left. An environment that several merchants share needs a default,
    or --where.
    """
    targets: dict[tuple[str, str], Merchant] = {}
    for name in map(trim, to):
        lines = _all(merchants, name) if name in {ALL, ALL_ENVS} else [_one(merchants, name)]
        targets |= {(line.appid, line.env): line for line in lines}
    if not targets:
        raise UsageError(_("{--to} selects no merchant: all of them have left"))
    return tuple(targets.values())


def _one(merchants: Merchants, name: str) -> Merchant:
    by_env = bool(merchants.whole.for_env(name))
    match resolve(merchants, name if by_env else "", "" if by_env else name, ""):
        case Merchant() as line:
            return line
        case Unresolved(_column, message, fix) if merchants.whole.resolve(name) or by_env:
            fix = _("name one of these")
        case Unresolved(_column, message, fix):
            pass
        case None:
            message, fix = _("excluded by {--where}"), _("choose another, or change {--where}")
    raise UsageError(_("{--to} {asked}: {message}; {fix}", asked=shown(name), message=message, fix=fix))


def _all(merchants: Merchants, name: str) -> list[Merchant]:
    groups: dict[str, list[Merchant]] = {}
    for line in merchants:
        if not line.left:
            groups.setdefault(line.appid if name == ALL else line.env, []).append(line)
    targets, ambiguous = [], []
    for group in groups.values():
        default = [line for line in group if line.default]
        if len(group) == 1 or len(default) == 1:
            targets.append((default or group)[0])
        else:
            ambiguous.append(list_lines(group))
    if ambiguous:
        text = _(
            "{--to} {name}: mark one of these default=yes in the merchants file, or narrow it with {--where}: {listed}"
        )
        raise UsageError(text.format(name=name, listed="; ".join(ambiguous[:5])))
    return targets


# --- the list -------------------------------------------------------------------------------------------------------

FIELDS = ("name", "stem", "ext", "dir", "rel", "date", "merchant", "appid", "env")


class PathTemplate:
    """A cloud path with fields: `banner/{date}/{name}`.

    name: banner.png; stem: banner; ext: png; dir: the file's folder below the source; rel: dir and name; date: today,
    2026-03-15; merchant, appid, env: of the row. `{dir}/` is empty for a file at the top. Raises UsageError for any
    other field.
    """

    def __init__(self, text: str, today: str) -> None:
        self._today = today
        self._nested, self._at_top = text, text.replace("{dir}/", "")
        fields = _fields_of(self._nested) | _fields_of(self._at_top)
        self.by_target = not fields.isdisjoint({"merchant", "appid", "env"})
        self.dated = "date" in fields

    def paths(self, files: Sequence[str], target: Merchant) -> list[str]:
        """Return the cloud paths of files (relative to the source) in a merchant's environment."""
        fields = {"merchant": target.name, "appid": target.appid, "env": target.env, "date": self._today}
        return [self._path(file, fields) for file in files]

    def _path(self, file: str, fields: dict[str, str]) -> str:
        folder, _other, name = file.rpartition("/")
        stem, _dot, ext = name.rpartition(".")
        values = fields | {"name": name, "stem": stem or name, "dir": folder, "rel": file}
        values["ext"] = ext if stem else ""
        return (self._nested if folder else self._at_top).format_map(values)


def _fields_of(text: str) -> set[str]:
    try:
        parsed = [field for field in Formatter().parse(text) if field[1] is not None]
    except ValueError:
        parsed = [("", None, "", None)]
    if any(field not in FIELDS or spec or conversion for _literal, field, spec, conversion in parsed):
        fields = " ".join(f"{{{field}}}" for field in FIELDS)
        problem = _("{--path} {text}: the fields in braces must be of {fields}")
        raise UsageError(problem.format(text=shown(text), fields=fields))
    return {str(field) for _literal, field, _spec, _conversion in parsed}


def default_root(folder: Path, dest: Path) -> Path:
    """Return the folder for the list's `file` column: the list's own, the default of `upload`, if it has all files; else the source."""
    own = dest.absolute().parent
    return own if folder.resolve().is_relative_to(own.resolve()) else folder


def write_list(
    scanned: ScannedFiles,
    targets: Sequence[Merchant],
    template: PathTemplate,
    dest: Path,
    root: Path,
    *,
    versions: bool = False,
) -> None:
    """Write the list: env, merchant, path, file (and appid if an environment is shared), one row per target and file.

    `versions`: also size and modified (nanoseconds) of each file, so that the list differs if one of them has changed; such a
    list replaces the one before, and its folder is made.

    Its rows are not checked: read it with that root. It is CSV or a workbook. In a CSV, a cell that would run as a formula is
    guarded, and the list gets a column `tcb_guarded`, so that reading removes the guard.

    Raises UsageError if files cannot be named in a list, or `dest` exists or cannot be written. `root` has all files.
    """
    shared = len({target.env for target in targets}) < len({(t.env, t.appid) for t in targets})
    header = ["env", "merchant", "path", "file", *(["appid"] if shared else [])]
    header += ["size", "modified"] if versions else []
    files = _relative_to_root(scanned, root)

    def rows() -> Iterator[list[str]]:
        for target in targets:
            own = [target.appid] if shared else []
            for path, file in zip(template.paths(scanned.files, target), files, strict=True):
                facts = [str(stats[file].st_size), str(stats[file].st_mtime_ns)] if versions else []
                yield [target.env, target.name, path, file, *own, *facts]

    stats: dict[str, os.stat_result] = {}
    try:
        if versions:
            make_folder(dest.parent)
            stats = {file: (root / file).stat() for file in files}
    except OSError as error:
        failed = _("{dest} cannot be written ({why})", dest=dest, why=system_reason(error))
        raise UsageError(failed) from None
    if dest.suffix.lower() == ".csv" and any(cell != guard(cell) for row in rows() for cell in row):
        header.append("tcb_guarded")
    write_table(dest, header, rows(), replace=versions, mask=str)


def _relative_to_root(scanned: ScannedFiles, root: Path) -> list[str]:
    below = os.path.relpath(os.path.realpath(scanned.folder), os.path.realpath(root)).replace(os.sep, "/")
    for file in scanned.files:
        if "\\" in file or trim(file) != file or _NOT_TEXT.search(file):
            fix = _("Rename it without backslashes and without spaces at its ends, in readable characters.")
            raise UsageError(_("the file name {file} cannot be written in a list", file=shown(file)), fix)
    return list(scanned.files) if below == "." else [f"{below}/{file}" for file in scanned.files]
