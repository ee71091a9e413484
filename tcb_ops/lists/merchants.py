"""The merchants file: which mini program uses which environment, and which of its lines a row means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, overload

from tcb_ops.arguments import checked
from tcb_ops.bundled import SAMPLE
from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import UsageError, check_value
from tcb_ops.formatting import fold, near_names, shown
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Joined, Lang, Text, _, as_list, ngettext, verbatim
from tcb_ops.lists.input_files import refused
from tcb_ops.lists.table import ADDED, MERCHANT_COLUMNS, Line, read_lines
from tcb_ops.model import Merchant, Owner, Problem, Selection

_T = TypeVar("_T")

EMPTY_FILE = "appid,name,env,default,owner,status\r\n".encode("utf-8-sig")
"""A merchants file with only a header: `audit` would query an example merchant."""

_DEFAULTS = {
    **dict.fromkeys(("yes", "y", "true", "1", "是", "默认"), True),
    **dict.fromkeys(("", "no", "n", "false", "0", "否"), False),
}
_OWNERS = {
    **dict.fromkeys(("", "merchant", "商户", "商家"), Owner.MERCHANT),
    **dict.fromkeys(("platform", "平台", "第三方平台"), Owner.PLATFORM),
}
_STATUSES = {
    **dict.fromkeys(("", "active", "normal", "正常", "已授权"), False),
    **dict.fromkeys(
        ("left", "revoked", "已离开", "已解除", "取消授权", "已取消授权", "解除授权", "已解除授权"), True
    ),
}


class Merchants(Sequence[Merchant], Tabular):
    """The lines of a merchants file in order; with `--where`, the matching ones.

    `whole` is the unfiltered file: which merchant an environment belongs to does not depend on `--where`.
    """

    def __init__(
        self,
        lines: Sequence[Merchant],
        source: str = "",
        whole: Merchants | None = None,
        *,
        sha256: str = "",
        size: int = 0,
        where: Sequence[str] = (),
    ) -> None:
        """`sha256` is that of the file's bytes, `size` their number; empty and 0 if there is no file. `where`: the items that narrowed `whole` to these lines."""
        usable = isinstance(lines, Sequence) and all(isinstance(line, Merchant) for line in lines)
        check_value("lines", lines, usable, _("a list of Merchant"))
        self.source = source
        self.sha256: str = sha256 or (whole.sha256 if whole is not None else "")
        self.size: int = size or (whole.size if whole is not None else 0)
        self.whole = whole if whole is not None else self
        self.where = tuple(where)
        self._lines = tuple(lines)

    # Made when they are needed: an audit of 10,000 environments looks none of them up.

    @property
    def selection(self) -> Selection:
        """Which part of the file these lines are, as runs record it."""
        return Selection.of_list(self.where)

    @cached_property
    def _keys(self) -> frozenset[tuple[str, str]]:
        return frozenset((m.appid, m.env) for m in self._lines)

    @cached_property
    def _by_env(self) -> dict[str, list[Merchant]]:
        return _grouped(self._lines, lambda line: {line.env})

    @cached_property
    def _by_name(self) -> dict[str, list[Merchant]]:
        return _grouped(self._lines, lambda line: {fold(line.name), fold(line.appid)})

    @checked
    def for_env(self, env: str) -> tuple[Merchant, ...]:
        """Return the lines of an environment: several if merchants share it, none if it is unknown."""
        return tuple(self._by_env.get(env, ()))

    @checked
    def resolve(self, name_or_appid: str) -> tuple[Merchant, ...]:
        """Return the lines of a merchant, by name or appid, ignoring case, character width and surrounding spaces."""
        return tuple(self._by_name.get(fold(name_or_appid), ()))

    @checked
    def cells(self, column: str) -> dict[tuple[str, str], str] | None:
        """Return what a column says of each environment, by (appid, env); None without such a column."""
        position = _positions(self).get(fold(column))
        return None if position is None else {(m.appid, m.env): m.columns[position][1] for m in self._lines}

    def _table(self, _lang: Lang) -> Lines:
        names, own = ("appid", "name", "env", "default", "owner", "left"), self.own_headers
        lines = ((*attrgetter(*names)(line), *self.own_cells(line)) for line in self._lines)
        return Lines(verbatim(self.source), (*names, *own), lines, len(self), listed=len(own))

    @cached_property
    def own_headers(self) -> tuple[str, ...]:
        """The headers of columns that mean nothing to tcb-ops and are carried through, in order."""
        headers = self.headers
        ours = {headers[number] for number in MERCHANT_COLUMNS.find(headers, 0)[0].values()}
        return tuple(header for header in headers if header not in ours and not header.startswith(ADDED))

    def own_cells(self, line: Merchant) -> tuple[str, ...]:
        """Return the cells of a line in these columns."""
        cells = dict(line.columns)
        return tuple(cells.get(header, "") for header in self.own_headers)

    @property
    def headers(self) -> list[str]:
        """The headers of the file, in order."""
        return [header for header, _cell in self._lines[0].columns] if self._lines else []

    @property
    def envs(self) -> tuple[str, ...]:
        """The distinct environments, in the order of the file."""
        return tuple(self._by_env)

    @overload
    def __getitem__(self, index: int) -> Merchant: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Merchant, ...]: ...
    def __getitem__(self, index: int | slice) -> Merchant | tuple[Merchant, ...]:
        return self._lines[index]

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Merchant]:
        return iter(self._lines)

    def __contains__(self, merchant: object) -> bool:
        return isinstance(merchant, Merchant) and (merchant.appid, merchant.env) in self._keys

    def __repr__(self) -> str:
        lines = ngettext("{n:,} line", "{n:,} lines", len(self))
        return f"Merchants({self.source!r}, {lines}, {ngettext('{n:,} environment', '{n:,} environments', len(self._by_env))})"


def _grouped(lines: Iterable[Merchant], keys: Callable[[Merchant], set[str]]) -> dict[str, list[Merchant]]:
    groups: dict[str, list[Merchant]] = {}
    for line in lines:
        for key in keys(line):
            groups.setdefault(key, []).append(line)
    return groups


def read_merchants(source: str | Path, where: str | Sequence[str] = "") -> Merchants:
    """Read a merchants file; arguments and errors are those of `api.read_merchants`."""
    merchants, sha256, size = read_lines(source, MERCHANT_COLUMNS, _read)
    if not merchants:
        fix = _("add a line per merchant and environment")
        raise refused(str(source), _("there is a header but no merchant below it"), fix)
    return narrowed(Merchants(merchants, str(source), sha256=sha256, size=size), where)


def _read(lines: Iterable[Line], problems: list[Problem]) -> Iterator[Merchant]:
    first_at: dict[tuple[str, str], int] = {}
    default_of: dict[str, int] = {}
    for line in lines:
        if any(line.cells[len(line.headers) :]):
            message = _(
                "the line has {cells}, the header {headers}",
                cells=ngettext("{n:,} cell", "{n:,} cells", len(line.cells)),
                headers=len(line.headers),
            )
            problems.append(line.problem(message, _("put a cell that holds the delimiter in double quotes")))
            continue
        merchant = _merchant(line, problems)
        key, name = (merchant.appid, merchant.env), fold(merchant.name)
        if all(key) and (first := first_at.setdefault(key, line.number)) != line.number:
            message = _(
                "{appid} with {env} is already in line {first}",
                appid=shown(merchant.appid),
                env=shown(merchant.env),
                first=first,
            )
            problems.append(line.problem(message, _("remove one of the two lines"), "env"))
        if merchant.default and name and (first := default_of.setdefault(name, line.number)) != line.number:
            message = _(
                "the default environment of '{name}' is already set in line {first}",
                name=shown(merchant.name),
                first=first,
            )
            fix = _("keep default=yes in only one line of this name")
            problems.append(replace(line.problem(message, fix, "default"), value=""))
        yield merchant


def _merchant(line: Line, problems: list[Problem]) -> Merchant:
    def needed(name: str) -> str:
        if not (value := line.value(name)):
            message, fix = _("the {ours} is empty", ours=name), _("fill it in, or remove the line")
            problems.append(line.problem(message, fix, name))
        return value

    def one_of(name: str, values: dict[str, _T]) -> _T:
        value = line.value(name)
        if fold(value) in values:
            return values[fold(value)]
        message = _("{ours} cannot be '{value}'", ours=name, value=shown(value))
        fix = _("write one of {allowed}, or nothing", allowed=as_list(filter(None, values)))
        problems.append(line.problem(message, fix, name))
        return values[""]

    return Merchant(
        appid=needed("appid"),
        name=needed("name"),
        env=needed("env"),
        default=one_of("default", _DEFAULTS),
        owner=one_of("owner", _OWNERS),
        left=one_of("status", _STATUSES),
        columns=tuple(zip(line.headers, line.cells, strict=False)),
        line=line.number,
    )


def _positions(merchants: Merchants) -> dict[str, int]:
    """Return where each column is, by its header in the file and by our name, both folded."""
    headers = merchants.headers
    return {fold(h): i for i, h in enumerate(headers)} | MERCHANT_COLUMNS.find(headers, 0)[0]


def narrowed(merchants: Merchants, where: str | Sequence[str]) -> Merchants:
    """Return the merchants that match `where`: items such as `region=east`, or a text of them with semicolons between.

    Raises UsageError if an item names no column or no merchant matches, ArgumentError for merchants that are narrowed already.
    """
    if not where:
        return merchants
    check_value("where", where, not merchants.where, _("left out with merchants that are narrowed already"))
    if isinstance(where, str):
        where = [item.strip() for item in where.split(";") if item.strip()]
    index, values = _positions(merchants), dict[int, set[str]]()
    for item in where:
        column, equals, value = item.partition("=")
        position = index.get(fold(column))
        if not equals:
            raise UsageError(
                _("{--where} {item}: write it as column=value, e.g. name={item}", item=shown(item))
            )
        if position is None:
            raise UsageError(
                _(
                    "{--where} {item}: {source} has no column '{column}'; it has {there}.",
                    item=shown(item),
                    source=merchants.source,
                    column=shown(column),
                    there=as_list(merchants.headers),
                )
            )
        values.setdefault(position, set()).add(fold(value))
    selected = [
        m for m in merchants if all(fold(m.columns[i][1]) in allowed for i, allowed in values.items())
    ]
    if selected:
        return Merchants(selected, merchants.source, merchants.whole, where=where)
    items = Joined(tuple(_("{--where} {item}", item=shown(item)) for item in where), verbatim(" "))
    raise UsageError(_("{items}: no merchant of {source} matches.", items=items, source=merchants.source))


def list_lines(lines: Sequence[Merchant]) -> str:
    """List lines of the merchants file in a message: the first five and the total."""
    more = f" … ({len(lines)})" if len(lines) > 5 else ""
    return ", ".join(f"{m.env} ({m.name}, {m.appid})" for m in lines[:5]) + more


# --- environment and merchant --------------------------------------------------------------------------------------

_SUGGESTIONS = 200
"""Limit of searches for near names, each of which takes milliseconds: a list may have a million unknown names."""


Column: TypeAlias = Literal["env", "merchant", "appid"]
Near: TypeAlias = Callable[[str, Sequence[str]], list[str]]
Resolve: TypeAlias = "Callable[[str, str, str], Merchant | Unresolved | None]"
"""`resolve` of one merchants file: (env, merchant, appid) → its line."""


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
    everybody = merchants.whole
    column: Column = "env" if env else "merchant"
    lines = everybody.for_env(env) if env else everybody.resolve(merchant)
    if not env and not merchant:
        fix = _("fill in the environment id, or the merchant")
        return Unresolved("env", detail(DetailCode.ENV_EMPTY), fix)
    if not lines:
        return _unknown(column, env or merchant, everybody, near)
    if env and merchant:
        # The columns name different merchants: one of them is wrong, but not clear which.
        both = tuple(m for m in everybody.resolve(merchant) if m.env == env)
        if not both and any(m in merchants for m in lines):
            return _mismatch("merchant", merchant, lines)
        lines = both or lines
    if appid:
        of_appid = tuple(m for m in lines if m.appid == appid)
        if not of_appid and any(m in merchants for m in lines):
            return _mismatch("appid", appid, lines)
        lines = of_appid
    if sum(m.default for m in lines) == 1:
        lines = tuple(m for m in lines if m.default)
    if not any(m in merchants for m in lines):
        return None
    return lines[0] if len(lines) == 1 else _several(column, lines)


def cached_resolve(merchants: Merchants) -> Resolve:
    """Return `resolve` for a merchants file, with a cache: lists repeat the same few environments."""
    remaining = _SUGGESTIONS

    def near(value: str, names: Sequence[str]) -> list[str]:
        nonlocal remaining
        remaining -= 1
        return near_names(value, names) if remaining >= 0 else []

    return lru_cache(maxsize=16_384)(partial(resolve, merchants, near=near))


def _unknown(column: Column, value: str, merchants: Merchants, near: Near) -> Unresolved:
    name = shown(value)
    if column == "env" and (lines := merchants.resolve(value)):
        message = _("'{name}' is a merchant, not an environment", name=name)
        fix = _("name the column merchant, or write the environment: {listed}", listed=list_lines(lines))
        return Unresolved(column, message, fix)
    if column == "env":
        like: list[object] = [
            _("{env} ({merchant})", env=each, merchant=merchants.for_env(each)[0].name)
            for each in near(value, merchants.envs)
        ]
        message = detail(DetailCode.ENV_UNKNOWN, name=name)
    else:
        names = dict.fromkeys([*(line.name for line in merchants), *(line.appid for line in merchants)])
        like = [*near(value, [*names])]
        message = detail(DetailCode.MERCHANT_UNKNOWN, name=name)
    file: Text | str = merchants.source or "merchants.csv"
    if Path(merchants.source).parent == SAMPLE:  # the program's own folder
        file = _("the merchants.csv of a rehearsal (`tcb-ops init --practice DIR`)")
    fix = _("check it, or add it to {file}", file=file)
    if like:
        fix = _("did you mean {like}? Otherwise add it to {file}", like=as_list(like), file=file)
    return Unresolved(column, message, fix)


def _mismatch(column: Column, value: str, lines: Sequence[Merchant]) -> Unresolved:
    code, fix = DetailCode.APPID_ELSEWHERE, _("write one of these appids, or correct the environment")
    if column == "merchant":
        code = DetailCode.MERCHANT_ELSEWHERE
        fix = _("correct the merchant or the environment: they do not belong together")
    return Unresolved(column, detail(code, name=shown(value), listed=list_lines(lines)), fix)


def _several(column: Column, lines: Sequence[Merchant]) -> Unresolved:
    code = DetailCode.ENVS_OF_MERCHANT
    fix = _("write the environment in a column env, or mark one default=yes in the merchants file")
    if column == "env":
        code = DetailCode.ENV_SHARED
        fix = _("give the appid in a column appid, or mark one line default=yes in the merchants file")
    return Unresolved(column, detail(code, listed=list_lines(lines)), fix)
