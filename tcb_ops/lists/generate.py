"""Generation of path lists: scan a folder, select target environments, and write a row for each pair. List templates."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from string import Formatter

from tcb_ops.errors import UsageError
from tcb_ops.formatting import guard, near_names, shown, trim
from tcb_ops.i18n import Lang, Text, _, as_list, pgettext
from tcb_ops.lists.input_files import input_error
from tcb_ops.lists.merchants import Merchants, Unresolved, list_lines, resolve
from tcb_ops.lists.paths import path_problem
from tcb_ops.lists.row_files import LocalFile, LocalFiles, UnusableFile
from tcb_ops.lists.workbook import LAST_ROW
from tcb_ops.model import Merchant, Problem, file_problem
from tcb_ops.resources import nearest_path, system_reason

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
    junk = ours = excluded = 0
    files, folders = list[str](), tuple(f"{one}{os.sep}" for one in own)
    for file in _walk(folder, "") if source.is_dir() else [source.name]:
        real = os.path.realpath(folder / file)
        if file.endswith("/") or any(fnmatchcase(file.rpartition("/")[2].casefold(), p) for p in _JUNK):
            junk += 1
        elif real in own or real.startswith(folders) or _is_ours(Path(real)):
            ours += 1
        elif not is_included(file, include, exclude):
            excluded += 1
        else:
            files.append(file)
    if files:
        return ScannedFiles(folder, tuple(sorted(files)), junk, ours, excluded)
    name = shown(str(source))
    if not (junk or ours or excluded):
        raise UsageError(_("{source} contains no files.", source=name), _("Check that its disk is mounted."))
    raise UsageError(
        _(
            "{source}: no file remains (hidden or temporary: {junk:,}; tcb-ops's own: {ours:,}; excluded by "
            "--include and --exclude: {excluded:,})",
            source=name,
            junk=junk,
            ours=ours,
            excluded=excluded,
        )
    )


def _is_ours(file: Path) -> bool:
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
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        name, why = shown(str(folder)), system_reason(error)
        raise UsageError(_("{name} cannot be read ({why})", name=name, why=why)) from None
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
        found = _all(merchants, name) if name in {ALL, ALL_ENVS} else [_one(merchants, name)]
        targets |= {(m.appid, m.env): m for m in found}
    if not targets:
        raise UsageError(_("--to selects no merchant: all of them have left"))
    return tuple(targets.values())


def _one(merchants: Merchants, name: str) -> Merchant:
    whole, asked = merchants.whole, shown(name)
    by_env = bool(whole.for_env(name))
    if not by_env and not whole.resolve(name):
        near = near_names(name, [one for m in whole for one in (m.name, m.appid, m.env)])
        problem = _(
            "--to {asked}: no environment, merchant or appid has this name; see {source}",
            asked=asked,
            source=whole.source,
        )
        if near:
            problem = _(
                "--to {asked}: no environment, merchant or appid has this name; did you mean {near}?",
                asked=asked,
                near=as_list(near),
            )
        raise UsageError(problem)
    found = resolve(merchants, name if by_env else "", "" if by_env else name, "")
    if isinstance(found, Merchant):
        return found
    if isinstance(found, Unresolved):
        failed = _(
            "--to {asked}: {message}. Choose one of these environments", asked=asked, message=found.message
        )
    else:
        failed = _("--to {asked}: excluded by --where", asked=asked)
    raise UsageError(failed)


def _all(merchants: Merchants, name: str) -> list[Merchant]:
    """Return the only or default line of each merchant (`all`) or environment (`all-envs`)."""
    groups: dict[str, list[Merchant]] = {}
    for line in merchants:
        if not line.left:
            groups.setdefault(line.appid if name == ALL else line.env, []).append(line)
    found, open_ = [], []
    for group in groups.values():
        default = [line for line in group if line.default]
        if len(group) == 1 or len(default) == 1:
            found.append((default or group)[0])
        else:
            open_.append(list_lines(group))
    if not open_:
        return found
    problem = _("--to all-envs: several merchants share an environment")
    if name == ALL:
        problem = _("--to all: several environments, none of them the default")
    listed = "; ".join(open_[:5]) + (f" … ({len(open_)})" if len(open_) > 5 else "")
    raise UsageError(
        _(
            "{problem}: {listed}. Mark one default=yes in the merchants file, or narrow it with --where",
            problem=problem,
            listed=listed,
        )
    )


# --- the list -------------------------------------------------------------------------------------------------------

FIELDS = ("name", "stem", "ext", "dir", "rel", "date", "merchant", "appid", "env")


@dataclass(frozen=True, slots=True)
class GeneratedList:
    """The counts of a written list."""

    rows: int
    files: int
    envs: int
    merchants: int
    """Mini programs (appids)."""
    bytes: int
    """Bytes to upload for all rows."""


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
    """Return the fields of a template. Raises UsageError if it is not one."""
    try:
        parsed = list(Formatter().parse(text))
    except ValueError:
        raise _bad_template(text, _("a {{ or }} is unmatched")) from None
    for _literal, field, spec, conversion in parsed:
        if field is not None and (field not in FIELDS or spec or conversion):
            whole = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise _bad_template(text, _("there is no field {{{name}}}", name=shown(whole, 40)))
    return {field for _literal, field, _spec, _conversion in parsed if field}


def _bad_template(text: str, why: Text) -> UsageError:
    fields = " ".join(f"{{{field}}}" for field in FIELDS)
    problem = _("--path {text}: {why}; the fields are {fields}", text=shown(text), why=why, fields=fields)
    return UsageError(problem)


def default_root(folder: Path, dest: Path, root: Path | None) -> Path:
    """Return the folder for the list's `file` column: `root`, else the list's folder, else the source.

    The list's folder is the default of `upload`; it is used if it contains all files.
    """
    if root is not None:
        return root
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
) -> GeneratedList:
    """Write the list: env, merchant, path, file (and appid if an environment is shared), one row per target and file.

    `versions`: also size and modified (nanoseconds) of each file, so that the list differs if one of them has changed.

    Every row passes `check` with that root. Written for Excel: UTF-8 with BOM, CRLF. If a cell would run as a
    formula, it is guarded, and the list gets a column `tcb_guarded`, so that reading removes the guard.

    Raises InputError if a file or a cloud path cannot be used, and UsageError if files are outside the root, two rows
    have the same cloud path, or `dest` exists or cannot be written.
    """
    files = _relative_to_root(scanned, root)
    found, problems = _inspected(files, root)
    for target in targets if template.by_target else targets[:1]:
        if bad := _bad_paths(scanned.files, template.paths(scanned.files, target)):
            problems += bad
            break
    if problems:
        raise input_error(str(scanned.folder), problems)
    _check_collisions(scanned.files, targets, template)
    shared = len({target.env for target in targets}) < len({(t.env, t.appid) for t in targets})

    def rows() -> Iterator[list[str]]:
        for target in targets:
            if template.by_target or target is targets[0]:
                paths = template.paths(scanned.files, target)
            for path, file, facts in zip(paths, files, found, strict=True):
                version = [str(facts.size), str(facts.mtime_ns)] if versions else []
                yield [target.env, target.name, path, file, *([target.appid] if shared else []), *version]

    header = ["env", "merchant", "path", "file", *(["appid"] if shared else [])]
    header += ["size", "modified"] if versions else []
    guarded = any(cell != guard(cell) for row in rows() for cell in row)
    _write(dest, [*header, *(["tcb_guarded"] if guarded else [])], rows())
    return GeneratedList(
        rows=len(targets) * len(files),
        files=len(files),
        envs=len({target.env for target in targets}),
        merchants=len({target.appid for target in targets}),
        bytes=sum(facts.size for facts in found) * len(targets),
    )


def _relative_to_root(scanned: ScannedFiles, root: Path) -> list[str]:
    below = os.path.relpath(os.path.realpath(scanned.folder), os.path.realpath(root)).replace(os.sep, "/")
    if below == ".." or below.startswith("../"):
        folder, top = shown(str(scanned.folder)), shown(str(root))
        raise UsageError(_("{folder} is not below --root {top}", folder=folder, top=top))
    return list(scanned.files) if below == "." else [f"{below}/{file}" for file in scanned.files]


def _inspected(files: Sequence[str], root: Path) -> tuple[list[LocalFile], list[Problem]]:
    local, usable, problems = LocalFiles(root), list[LocalFile](), list[Problem]()
    for file in files:
        found = local.inspect(file)
        if isinstance(found, UnusableFile):
            problems.append(file_problem(found.message, found.fix))
        elif "\\" in file or trim(file) != file or _NOT_TEXT.search(file):
            message = _("the file name {file} cannot be written in a list", file=shown(file))
            fix = _("rename it without backslashes and without spaces at its ends, in readable characters")
            problems.append(file_problem(message, fix))
        else:
            usable.append(found)
    return usable, problems


def _bad_paths(files: Sequence[str], paths: Sequence[str]) -> list[Problem]:
    problems = []
    for file, path in zip(files, paths, strict=True):
        if _NOT_TEXT.search(path):  # reported with the file's name
            continue
        wrong = path_problem(trim(path))
        if wrong is None and trim(path) != path:
            wrong = _("the path begins or ends with a space"), _("change --path, or rename the file")
        if wrong is not None:
            message, fix = wrong
            problems.append(file_problem(_("{name}: {message}", name=shown(file), message=message), fix))
    return problems


def _check_collisions(files: Sequence[str], targets: Sequence[Merchant], template: PathTemplate) -> None:
    """Raise UsageError if two rows have the same environment and cloud path."""
    by_env: dict[str, list[Merchant]] = {}
    for target in targets:
        by_env.setdefault(target.env, []).append(target)
    seen: dict[str, tuple[str, Merchant]] = {}
    for sharing in by_env.values():
        # Without merchant fields in the template, all environments that are not shared have the same paths.
        if seen and len(sharing) == 1 and not template.by_target:
            continue
        seen.clear()
        for target in sharing:
            for file, path in zip(files, template.paths(files, target), strict=True):
                first, owner = seen.setdefault(path, (file, target))
                if (first, owner) != (file, target):
                    raise _collision(path, first, file, owner, target)


def _collision(path: str, first: str, file: str, owner: Merchant, target: Merchant) -> UsageError:
    if owner != target:
        return UsageError(
            _(
                "{name} ({appid}) and {name2} ({appid2}) share the environment {env}, and both would write {path}: "
                "put {{appid}} into --path, or exclude one of them",
                name=owner.name,
                appid=owner.appid,
                name2=target.name,
                appid2=target.appid,
                env=target.env,
                path=shown(path),
            )
        )
    return UsageError(
        _(
            "{first} and {file} would both become {path}: put {{rel}} or {{name}} into --path",
            first=shown(first),
            file=shown(file),
            path=shown(path),
        )
    )


def _write(dest: Path, header: Sequence[str], rows: Iterator[list[str]]) -> None:
    try:
        with dest.open("x", encoding="utf-8-sig", newline="") as file:
            out = csv.writer(file)
            out.writerow(header)
            out.writerows(map(guard, row) for row in rows)
    except FileExistsError:
        failed = _("{dest} already exists: check it, or choose another name with --out", dest=dest)
        raise UsageError(failed) from None
    except OSError as error:
        dest.unlink(missing_ok=True)
        failed = _("{dest} cannot be written ({why})", dest=dest, why=system_reason(error))
        raise UsageError(failed) from None


# --- the template ---------------------------------------------------------------------------------------------------

_ROOM = 1_000
"""Names that can be added to the merchants sheet and still appear in the drop-down."""
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
"""The same in every template: the same names produce the same bytes, so that an unchanged template is recognised."""


def list_template(names: Sequence[str], lang: Lang) -> bytes:
    """Return a workbook for a path list: text columns, and a drop-down of merchants from a second sheet."""
    import xlsxwriter

    merchant = _("merchant").of(lang)
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True}) as book:
        book.set_properties({"created": _CREATED})
        text = book.add_format({"num_format": "@"})
        keep = _("No merchant of this name is on the second sheet. Keep it anyway?")
        bold = book.add_format({"num_format": "@", "bold": True, "bottom": 1})
        sheet = book.add_worksheet(_("list").of(lang))
        known = book.add_worksheet(pgettext("sheet", "merchants").of(lang))
        # Text columns preserve 007 and 1E5 as typed; numbers in path or file would be refused.
        sheet.set_column("A:A", 24, text)
        sheet.set_column("B:C", 44, text)
        heads = [merchant, pgettext("column", "path").of(lang), pgettext("column", "file").of(lang)]
        sheet.write_row(0, 0, heads, bold)
        sheet.freeze_panes(1, 0)
        known.set_column("A:A", 24, text)
        known.write_row(0, 0, [merchant], bold)
        known.write_column(1, 0, names, text)
        sheet.data_validation(
            f"A2:A{LAST_ROW}",
            {
                "validate": "list",
                "source": f"={known.get_name()}!$A$2:$A${len(names) + 1 + _ROOM}",
                "error_type": "warning",
                "error_title": _("Not in the list").of(lang),
                "error_message": keep.of(lang),
            },
        )
    return out.getvalue()
