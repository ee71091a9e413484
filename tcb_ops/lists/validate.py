"""Validation of a list's rows: cloud paths by the storage's naming rules, object headers, environment and merchant.

Sources: the storage guide's page "file naming rules" (developers.weixin.qq.com, wxcloud/guide/storage/naming) and the
object store's "object overview" (cloud.tencent.com/document/product/436/13324).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias
from urllib.parse import quote

from tcb_ops.details import DetailCode, detail
from tcb_ops.formatting import EDGE, fold, near_names, shown, trim, unguard
from tcb_ops.i18n import Text, _
from tcb_ops.lists.merchants import Merchants, list_lines
from tcb_ops.lists.sources import conceal, concealed, split_source
from tcb_ops.model import Merchant, Problem, Row, Secret, is_source
from tcb_ops.xlsx.workbook import CellKind, NonTextCell, non_text_problem, not_computed

# --- paths and headers ---------------------------------------------------------------------------------------------

MAX_PATH_BYTES = 850
"""Both pages limit "the encoded length". It is measured in UTF-8: the object overview defines keys as UTF-8, and the
form post sends them so. Percent-encoding is mentioned only for later access; a path over the limit in that form
gets a warning."""

_PLAIN = re.compile(r"(?!\.{1,2}(?:/|$))[A-Za-z0-9!_.*\-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9!_.*\-]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:\s*;.*)?")
_DOTS = re.compile(r"(?:^|/)(\.{1,2})(?:/|$)")
_NOT_ADVISED = re.compile(r"[`^\"\\{}\[\]~%#><\u0080-\u00ff\u200b-\u200f\u2028-\u202e\u2060\ufeff]")


def path_problem(path: str) -> tuple[Text, Text] | None:
    r"""Return (problem, fix) of a trimmed path; None if it is valid.

    ==============================  ============================================
    path                            problem
    ==============================  ============================================
    a/b.png, 目录/图 1.png          none
    (empty)                         is empty
    /a.png                          begins with /
    \a.png                          begins with a backslash
    a/access_token=•••              masked in a report, not a file's name
    a//b.png                        //
    ./a.png, a/../b.png             a . or .. segment
    a<TAB>b, a<ESC>b, a<DEL>b       a control character (24–27 are refused, the
                                    others break signatures and headers)
    over 850 bytes of UTF-8         too long
    ==============================  ============================================
    """
    if _PLAIN.fullmatch(path) and len(path) <= MAX_PATH_BYTES:
        return None
    if not path:
        return detail(DetailCode.PATH_EMPTY), _("write the cloud path, e.g. banner/a.png")
    if path[0] in "/\\":
        return detail(DetailCode.PATH_BEGINS, path=path[0]), _("remove the {path} at the front", path=path[0])
    if problem := _control_problem(path, DetailCode.PATH_CONTROL):
        return problem
    if "•••" in path:
        fix = _("copy the row from the original list, or run it again with tcb-ops retry")
        return detail(DetailCode.PATH_MASKED), fix
    if "//" in path:
        return detail(DetailCode.PATH_SLASHES), _("write a single /")
    if found := _DOTS.search(path):
        fix = _("write the path out in full, without . and ..")
        return detail(DetailCode.PATH_DOTS, segment=found.group(1)), fix
    if (size := len(path.encode())) > MAX_PATH_BYTES:
        fix = _("shorten it (a Chinese character is 3 bytes)")
        return detail(DetailCode.PATH_LONG, bytes=size, most=MAX_PATH_BYTES), fix
    return None


def _control_problem(value: str, code: DetailCode = DetailCode.VALUE_CONTROL) -> tuple[Text, Text] | None:
    """Return (problem, fix) of a value with a control character; None without one."""
    found = _CONTROL.search(value)
    if found is None:
        return None
    fix = _("remove it; pasting may have added a line break or tab")
    return detail(code, character=f"U+{ord(found.group()):04X}"), fix


def _content_type_problem(value: str) -> tuple[Text, Text] | None:
    """Return (problem, fix) of an object's content type; None if it is empty or `type/subtype`, with any parameters."""
    if (problem := _control_problem(value)) or not value or _MEDIA_TYPE.fullmatch(value):
        return problem
    fix = _("write one such as image/png, or leave it empty: the extension of the path then decides")
    return detail(DetailCode.MEDIA_TYPE), fix


def not_advised(path: str) -> str:
    """Return the first character that is invisible or that the naming rules advise against; "" if there is none.

    Letters, digits, ``- ! _ . * /``, Chinese, and the characters that need encoding (``, : ; = & $ @ + ?`` and space)
    pass.
    """
    found = _NOT_ADVISED.search(path)
    return found.group() if found else ""


def too_long_in_urls(path: str) -> bool:
    """Return whether a valid path exceeds the limit when percent-encoded in a link."""
    # A character becomes at most twelve bytes (%F0%9F%98%80), so short paths need not be encoded.
    return len(path) * 12 > MAX_PATH_BYTES and len(quote(path)) > MAX_PATH_BYTES


# --- environment and merchant --------------------------------------------------------------------------------------

_SUGGESTIONS = 200
"""Limit of searches for near names, each of which takes milliseconds: a list may have a million unknown names."""


Column: TypeAlias = Literal["env", "merchant", "appid"]
Near: TypeAlias = Callable[[str, Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Unresolved:
    """The reason why a row matches no line of the merchants file."""

    column: Column
    message: Text
    fix: Text


def resolve(
    merchants: Merchants, env: str, merchant: str, appid: str, near: Near = near_names
) -> Merchant | Unresolved | None:
    """Return the line of the merchants file for a row; None if `--where` excludes it.

    The unfiltered merchants file is used, so that `--where` never changes the result. All values are trimmed; `near`
    suggests names for an unknown one.

    =====  ========  =====  =========================================  ==================================
    env    merchant  appid  lines in the merchants file                result
    =====  ========  =====  =========================================  ==================================
    E      M         any    some of E, none of them M's                problem: merchant
    E      –, M      –      one of E                                   it
    E      –, M      A      one of (A, E)                              it
    E      –, M      A      some of E, none of A                       problem: appid
    E      M         –      several of E, one of them M's              it
    E      –         –      several of E, one with default=yes         it
    E      –         –      several of E otherwise                     problem that lists them
    E      any       any    none of E                                  problem: env, near ones suggested
    –      M         any    one of M (by name or appid)                it
    –      M         any    several of M, one with default=yes         it
    –      M         any    several of M otherwise                     problem that lists them
    –      M         any    none of M                                  problem: merchant, near ones
    –      –         any                                               problem: empty
    any                     the line, or all listed, left out          None
    =====  ========  =====  =========================================  ==================================
    """
    whole = merchants.whole
    column: Column = "env" if env else "merchant"
    lines = whole.for_env(env) if env else whole.resolve(merchant)
    if not env and not merchant:
        fix = _("fill in the environment id, or the merchant")
        return Unresolved("env", detail(DetailCode.ENV_EMPTY), fix)
    if not lines:
        return _unknown(column, env or merchant, whole, near)
    if env and merchant:
        # The columns name different merchants: one of them is wrong, but not clear which.
        mine = tuple(m for m in whole.resolve(merchant) if m.env == env)
        if not mine and any(m in merchants for m in lines):
            return _mismatch("merchant", merchant, lines)
        lines = mine or lines
    if appid:
        of_appid = tuple(m for m in lines if m.appid == appid)
        if not of_appid and any(m in merchants for m in lines):
            return _mismatch("appid", appid, lines)
        lines = of_appid
    if sum(m.default for m in lines) == 1:
        lines = tuple(m for m in lines if m.default)
    if not any(m in merchants for m in lines):
        return None
    return lines[0] if len(lines) == 1 else _several(column, lines, whole)


class MerchantResolver:
    """A cache of `resolve` for one merchants file: lists repeat the same few environments."""

    def __init__(self, merchants: Merchants) -> None:
        self._suggestions_left = _SUGGESTIONS

        @lru_cache(maxsize=16_384)
        def cached(env: str, merchant: str, appid: str) -> Merchant | Unresolved | None:
            return resolve(merchants, env, merchant, appid, self._near)

        self.resolve = cached

    def _near(self, value: str, names: Sequence[str]) -> list[str]:
        if not self._suggestions_left:
            return []
        self._suggestions_left -= 1
        return near_names(value, names)


def _unknown(column: Column, value: str, whole: Merchants, near: Near) -> Unresolved:
    file, name = whole.source or "merchants.csv", shown(value)
    if column == "env" and (lines := whole.resolve(value)):
        message = _("'{name}' is a merchant, not an environment", name=name)
        fix = _("name the column merchant, or write the environment: {listed}", listed=list_lines(lines))
        return Unresolved(column, message, fix)
    if column == "merchant" and (lines := whole.for_env(value)):
        message = _("'{name}' is an environment, not a merchant", name=name)
        fix = _("name the column env, or write the merchant: {listed}", listed=lines[0].name)
        return Unresolved(column, message, fix)
    if column == "env":
        like = ", ".join(f"{n} ({whole.for_env(n)[0].name})" for n in near(value, whole.envs))
        message, check = detail(DetailCode.ENV_UNKNOWN, name=name), _("check the id")
    else:
        like = ", ".join(near(value, (*whole.names, *dict.fromkeys(m.appid for m in whole))))
        message, check = detail(DetailCode.MERCHANT_UNKNOWN, name=name), _("check it")
    fix = _("{check}, or add it to {file}", check=check, file=file)
    if like:
        fix = _("did you mean {like}? Otherwise add it to {file}", like=like, file=file)
    return Unresolved(column, message, fix)


def _mismatch(column: Column, value: str, lines: Sequence[Merchant]) -> Unresolved:
    code, fix = DetailCode.APPID_ELSEWHERE, _("write one of these appids, or correct the environment")
    if column == "merchant":
        code = DetailCode.MERCHANT_ELSEWHERE
        fix = _("correct the merchant or the environment: they do not belong together")
    return Unresolved(column, detail(code, name=shown(value), listed=list_lines(lines)), fix)


def _several(column: Column, lines: Sequence[Merchant], whole: Merchants) -> Unresolved:
    code = DetailCode.ENVS_OF_MERCHANT
    fix = _("write the environment in a column env, or mark one default=yes in the merchants file")
    if column == "env":
        # A name can have only one default: lines of a merchant with a default elsewhere cannot be marked.
        taken = {fold(m.name) for m in whole if m.default}
        free = [m.name for m in lines if fold(m.name) not in taken]
        code, fix = DetailCode.ENV_SHARED, _("give the appid in a column appid")
        if free:
            fix = _(
                "give the appid in a column appid, or mark the line of {name} default=yes in the merchants file",
                name=free[0],
            )
    return Unresolved(column, detail(code, listed=list_lines(lines)), fix)


# --- rows ----------------------------------------------------------------------------------------------------------

_NO_MERCHANT = Unresolved("merchant", detail(DetailCode.MERCHANT_EMPTY), _("fill in a name or appid"))
"""For a list without a column for the environment."""
_TARGET = frozenset({"env", "merchant", "appid"})
_TEXT_ONLY = frozenset({"env", "path", "file"})
_ALLOWED = frozenset({CellKind.NUMBER, CellKind.DATE, CellKind.BOOLEAN})
"""Allowed in merchant and appid: the displayed value is looked up in the merchants file, so it is unambiguous."""
OURS = "tcb_"
"""The prefix of the columns that tcb-ops adds to its exports; reading ignores them."""


class RowValidator:
    """A validator for the rows of one list. Counts rows, rows excluded by `--where`, and warnings.

    `map_file` maps local files named by another machine's path. Cells beyond the header are ignored with a warning in
    a `sheet`, but are a problem in delimited text, where an extra delimiter shifts cells.
    """

    def __init__(
        self,
        headers: Sequence[str],
        found: Mapping[str, int],
        resolver: MerchantResolver,
        *,
        map_file: Callable[[str], str] = str,
        sheet: bool = False,
    ) -> None:
        self._map_file, self._sheet = map_file, sheet
        self.rows = 0
        self.left_out = 0
        self._width = len(headers)
        self._keep = [i for i, header in enumerate(headers) if not trim(header).startswith(OURS)]
        # Only exports, which have these columns, guard formula-like cells with a '.
        self._exported = len(self._keep) < len(headers)
        self.headers = tuple(unguard(headers[i]) if self._exported else headers[i] for i in self._keep)
        self._names = {ours: trim(headers[at]) for ours, at in found.items()}
        self._found, self._resolver = found, resolver
        self._counts: dict[str, tuple[int, int, str]] = {}

    def column(self, ours: str) -> str:
        """Return the header of a canonical name for a problem, or of the column used in its place."""
        return self._names.get(ours) or self._names.get({"env": "merchant", "file": "path"}.get(ours, ""), "")

    def validate(self, line: int, cells: list[str]) -> tuple[Row | None, list[Problem]]:
        """Return the row and its problems; no row if the line is blank or excluded by `--where`."""
        problems: list[Problem] = []
        if len(cells) != self._width:
            cells = self._fitted(line, cells, problems)
            cells = concealed(cells) if problems else cells  # a URL may be in another column
        if self._exported:
            cells = [unguard(cell) for cell in cells]
        bad: dict[str, Problem] = {}
        env = self._value(line, cells, "env", bad)
        path = self._value(line, cells, "path", bad)
        if not path and not any(map(trim, cells)) and not not_computed(cells):
            return None, problems
        merchant = self._value(line, cells, "merchant", bad)
        appid = self._value(line, cells, "appid", bad)
        cells, file, query = self._file_of(cells, self._value(line, cells, "file", bad))
        kind, cache = self._object_headers(line, cells, bad)
        name = ""
        # Too many cells usually means that they are shifted: validating them would mislead.
        if not problems:
            problems += bad.values()
            if _TARGET.isdisjoint(bad):
                lacks = "env" not in self._found and not merchant
                found = _NO_MERCHANT if lacks else self._resolver.resolve(env, merchant, appid)
                if found is None:
                    self.left_out += 1
                    return None, []
                if isinstance(found, Unresolved):
                    value = {"env": env, "merchant": merchant, "appid": appid}[found.column]
                    column = self.column(found.column)
                    problems.append(Problem(line, column, found.message, found.fix, shown(value)))
                    appid = ""
                else:
                    env, appid, name = found.env, found.appid, found.name
            if "path" not in bad and self._check_path(line, path, problems):
                file = file or path.replace("\\", "/")
        if self._exported:
            cells = [cells[i] for i in self._keep]
        self.rows += 1
        row = Row(
            line,
            env,
            path,
            appid,
            name,
            file,
            tuple(cells),
            content_type=kind,
            cache_control=cache,
            query=query,
        )
        return row, problems

    def _file_of(self, cells: list[str], file: str) -> tuple[list[str], str, Secret | None]:
        """Return the cells and the file without the query of a URL, and the query."""
        if not is_source(file):
            return cells, self._map_file(file.replace("\\", "/")) if file else "", None
        name, query = split_source(file)
        return conceal(cells, file), name, None if query is None else Secret(query)

    def warnings(self) -> tuple[Text, ...]:
        """Return one warning per kind, with the number of cases and the location of the first."""
        return tuple(
            _WARNINGS[kind].format(n=times, line=line, what=what)
            for kind, (times, line, what) in self._counts.items()
        )

    def _value(self, line: int, cells: list[str], ours: str, bad: dict[str, Problem]) -> str:
        at = self._found.get(ours)
        if at is None:
            return ""
        cell = cells[at]
        if isinstance(cell, NonTextCell) and (ours in _TEXT_ONLY or cell.kind not in _ALLOWED):
            bad[ours] = Problem(line, self._names[ours], *non_text_problem(cell), shown(cell))
        value = cell.strip(EDGE)
        if value != cell:
            self._warn("trimmed", line, self._names[ours])
        return value

    def _check_path(self, line: int, path: str, problems: list[Problem]) -> bool:
        """Return whether the path is valid. Counts warnings."""
        if wrong := path_problem(path):
            problems.append(Problem(line, self.column("path"), *wrong, shown(path)))
            return False
        if character := not_advised(path):
            self._warn("not advised", line, shown(character))
        if too_long_in_urls(path):
            self._warn("long", line, "")
        return True

    def _object_headers(self, line: int, cells: list[str], bad: dict[str, Problem]) -> tuple[str, str]:
        """Return the row's Content-Type and Cache-Control; "" where it has none."""
        if "content_type" not in self._found and "cache_control" not in self._found:
            return "", ""
        kind = self._value(line, cells, "content_type", bad)
        cache = self._value(line, cells, "cache_control", bad)
        for ours, value, wrong in (
            ("content_type", kind, _content_type_problem(kind)),
            ("cache_control", cache, _control_problem(cache)),
        ):
            if wrong:
                bad[ours] = Problem(line, self._names[ours], *wrong, shown(value))
        return kind, cache

    def _warn(self, kind: str, line: int, what: str) -> None:
        times, first, first_what = self._counts.get(kind, (0, line, what))
        self._counts[kind] = (times + 1, first, first_what)

    def _fitted(self, line: int, cells: list[str], problems: list[Problem]) -> list[str]:
        """Cut or extend the cells to the width of the header."""
        if extra := [cell for cell in concealed(cells[self._width :]) if trim(cell)]:
            if self._sheet:
                self._warn("beyond", line, shown(extra[0], 40))
            else:
                listed = shown(", ".join(extra))
                message = detail(DetailCode.CELLS_BEYOND, cells=len(cells), width=self._width, listed=listed)
                fix = _("put a cell that holds the delimiter in double quotes")
                problems.append(Problem(line, "", message, fix, listed))
        return cells[: self._width] + [""] * (self._width - len(cells))


_WARNINGS = {
    "beyond": _(
        "Rows with cells to the right of the last column name: {n:,}; those cells are ignored (first: line {line}, "
        "'{what}')"
    ),
    "trimmed": _(
        "Cells with spaces around them: {n:,}; they were trimmed (first: line {line}, column '{what}')"
    ),
    "not advised": _(
        "Paths with characters that the storage advises against: {n:,}; they are sent unchanged (first: line {line}, {what})"
    ),
    "long": _(
        "Paths over {most} bytes when percent-encoded: {n:,}; the storage may refuse them (first: line {line})",
        most=MAX_PATH_BYTES,
    ),
}
