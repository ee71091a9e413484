"""Validation of a list's rows: cloud paths by the storage's naming rules, object headers, environment and merchant.

Sources: the storage guide's page "file naming rules" (developers.weixin.qq.com, wxcloud/guide/storage/naming) and the
object store's "object overview" (cloud.tencent.com/document/product/436/13324).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from tcb_ops.details import DetailCode, detail
from tcb_ops.formatting import EDGE, shown, trim, unguard
from tcb_ops.i18n import Text, _
from tcb_ops.lists.resolve import MerchantResolver, Unresolved
from tcb_ops.lists.sources import conceal, concealed, split_source
from tcb_ops.model import Problem, Row, Secret, is_source
from tcb_ops.xlsx.values import CellKind, NonTextCell, non_text_problem, not_computed

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
        return (
            detail(DetailCode.PATH_EMPTY),
            _("write the cloud path, e.g. banner/a.png"),
        )
    if path[0] in "/\\":
        return (
            detail(DetailCode.PATH_BEGINS, path=path[0]),
            _("remove the {path} at the front", path=path[0]),
        )
    if problem := _control_problem(path, DetailCode.PATH_CONTROL):
        return problem
    if "•••" in path:
        return (
            detail(DetailCode.PATH_MASKED),
            _("copy the row from the original list, or run it again with tcb-ops retry"),
        )
    if "//" in path:
        return (
            detail(DetailCode.PATH_SLASHES),
            _("write a single /"),
        )
    if found := _DOTS.search(path):
        segment = found.group(1)
        return (
            detail(DetailCode.PATH_DOTS, segment=segment),
            _("write the path out in full, without . and .."),
        )
    if (size := len(path.encode())) > MAX_PATH_BYTES:
        return (
            detail(DetailCode.PATH_LONG, bytes=size, most=MAX_PATH_BYTES),
            _("shorten it (a Chinese character is 3 bytes)"),
        )
    return None


def header_problem(value: str) -> tuple[Text, Text] | None:
    """Return (problem, fix) of a value for an object's header; None if it is valid."""
    return _control_problem(value, DetailCode.VALUE_CONTROL)


def _control_problem(value: str, code: DetailCode) -> tuple[Text, Text] | None:
    found = _CONTROL.search(value)
    if found is None:
        return None
    return (
        detail(code, character=f"U+{ord(found.group()):04X}"),
        _("remove it; pasting may have added a line break or tab"),
    )


def content_type_problem(value: str) -> tuple[Text, Text] | None:
    """Return (problem, fix) of an object's content type; None if it is empty or `type/subtype`, with any parameters."""
    if problem := header_problem(value):
        return problem
    if not value or _MEDIA_TYPE.fullmatch(value):
        return None
    return (
        detail(DetailCode.MEDIA_TYPE),
        _("write one such as image/png, or leave it empty: the extension of the path then decides"),
    )


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
        self._env, self._merchant, self._appid, self._path, self._file = (
            found.get(ours, -1) for ours in ("env", "merchant", "appid", "path", "file")
        )
        self._content_type, self._cache_control = (
            found.get("content_type", -1),
            found.get("cache_control", -1),
        )
        self._resolver = resolver
        self._counts: dict[str, tuple[int, int, str]] = {}

    def column(self, ours: str) -> str:
        """Return the header of a canonical name for a problem, or of the column used in its place."""
        instead = {"env": "merchant", "file": "path"}.get(ours, "")
        return self._names.get(ours) or self._names.get(instead, "")

    def validate(self, line: int, cells: list[str]) -> tuple[Row | None, list[Problem]]:
        """Return the row and its problems; no row if the line is blank or excluded by `--where`."""
        problems: list[Problem] = []
        if len(cells) != self._width:
            cells = self._fitted(line, cells, problems)
            cells = concealed(cells) if problems else cells  # a URL may be in another column
        if self._exported:
            cells = [unguard(cell) for cell in cells]
        bad: dict[str, Problem] = {}
        env = self._value(line, cells, self._env, "env", bad)
        path = self._value(line, cells, self._path, "path", bad)
        if not path and not any(map(trim, cells)) and not not_computed(cells):
            return None, problems
        merchant = self._value(line, cells, self._merchant, "merchant", bad)
        appid = self._value(line, cells, self._appid, "appid", bad)
        cells, file, query = self._file_of(cells, self._value(line, cells, self._file, "file", bad))
        content_type, cache_control = self._object_headers(line, cells, bad)
        name = ""
        # Too many cells usually means that they are shifted: validating them would mislead.
        if not problems:
            problems += bad.values()
            if _TARGET.isdisjoint(bad):
                lacks = self._env < 0 and not merchant
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
        return Row(
            line,
            env,
            path,
            appid,
            name,
            file,
            tuple(cells),
            content_type=content_type,
            cache_control=cache_control,
            query=query,
        ), problems

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

    def _value(self, line: int, cells: list[str], at: int, ours: str, bad: dict[str, Problem]) -> str:
        if at < 0:
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
        if self._content_type < 0 and self._cache_control < 0:
            return "", ""
        content_type = self._value(line, cells, self._content_type, "content_type", bad)
        cache_control = self._value(line, cells, self._cache_control, "cache_control", bad)
        for ours, value, problem_of in (
            ("content_type", content_type, content_type_problem),
            ("cache_control", cache_control, header_problem),
        ):
            if wrong := problem_of(value):
                bad[ours] = Problem(line, self.column(ours), *wrong, shown(value))
        return content_type, cache_control

    def _warn(self, kind: str, line: int, what: str) -> None:
        times, first, first_what = self._counts.get(kind, (0, line, what))
        self._counts[kind] = (times + 1, first, first_what)

    def _fitted(self, line: int, cells: list[str], problems: list[Problem]) -> list[str]:
        """Cut or extend the cells to the width of the header."""
        if extra := [cell for cell in concealed(cells[self._width :]) if trim(cell)]:
            if self._sheet:
                self._warn("beyond", line, shown(extra[0], 40))
            else:
                problems.append(self._too_many(line, len(cells), extra))
        return cells[: self._width] + [""] * (self._width - len(cells))

    def _too_many(self, line: int, cells: int, extra: list[str]) -> Problem:
        listed = shown(", ".join(extra))
        message = detail(DetailCode.CELLS_BEYOND, cells=cells, width=self._width, listed=listed)
        fix = _("put a cell that holds the delimiter in double quotes")
        return Problem(line, "", message, fix, listed)


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
