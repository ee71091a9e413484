"""The sync of the merchants file with the platform: decide what changes (`decide`, pure), show it, and edit the file.

An edit preserves everything except the changes byte for byte: the operator's columns, rows and order, encoding and
BOM, delimiter, line ends and quoting. New lines are added at the end, and a `status` column if it is needed and missing.
"""

from __future__ import annotations

import csv
import io
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from tcb_ops.errors import BrokenTableError, StoppedError
from tcb_ops.features.merchants.check import NORMAL, WITHOUT_CLOUD, Issue, group
from tcb_ops.formatting import fold, guard, sanitize, trim
from tcb_ops.i18n import Lang, Text, _, as_facts, ngettext
from tcb_ops.lists.input_files import decode, open_bytes, read_or_refuse
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.lists.table import MERCHANT_COLUMNS, Table, read_table
from tcb_ops.model import Merchant, Owner
from tcb_ops.resources import system_reason
from tcb_ops.wechat.responses import CloudEnvironment

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Authorizer:
    """A mini program that authorizes the platform, as the platform lists it."""

    appid: str
    name: str
    """Its nickname; empty if it could not be read."""
    environments: tuple[CloudEnvironment, ...] | Issue


@dataclass(frozen=True, slots=True)
class Authorized:
    """The mini programs that authorize the platform."""

    appids: frozenset[str]
    authorizers: tuple[Authorizer, ...]
    """Those whose environments were requested, in the platform's order."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of the merchants file, and what else was found. Integers are indexes of the file's lines."""

    added: tuple[Merchant, ...] = ()
    left: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()
    names: tuple[tuple[int, str], ...] = ()
    """Lines whose name was only the appid, with their new name."""
    renamed: tuple[tuple[Merchant, str], ...] = ()
    """Merchants with another name at the platform; the file keeps its own."""
    not_normal: tuple[tuple[Merchant, str], ...] = ()
    """Lines, including new ones, whose environment is HALTED or UNAVAILABLE."""
    gone: tuple[Merchant, ...] = ()
    """Lines whose environment the platform no longer lists; they are not changed."""
    no_default: tuple[str, ...] = ()
    """Names that got a further environment and have no default."""
    without_env: tuple[Merchant, ...] = ()
    """Merchants that authorize the platform, with no line in the file and no environment for one."""
    issues: tuple[tuple[Merchant, Issue], ...] = ()
    """Merchants whose environments could not be read, 85088 included; `env` is empty."""

    @property
    def writes(self) -> bool:
        """Whether the file changes."""
        return bool(self.added or self.left or self.returned or self.names)

    @property
    def unread(self) -> bool:
        """Whether a merchant could not be queried. One without 云开发, or without a permission set for it, does not count."""
        return any(issue.code not in WITHOUT_CLOUD for _, issue in self.issues)


def decide(
    lines: Sequence[Merchant],
    found: Authorized,
    component_appid: str = "",
    only: Collection[str] | None = None,
) -> Changes:
    """Decide what changes; with `only`, for these appids.

    =====================================  ==============================================================
    a line of the file                     becomes
    =====================================  ==============================================================
    its appid authorizes the platform      unchanged; `left` is cleared
    its appid does not                     `left`, except a line of the platform's own appid
    its name is its appid                  the platform's name, once it is known
    its name is another                    unchanged; a difference is shown
    its environment is not listed          unchanged; shown
    it is the platform's own               unchanged, except `left`
    =====================================  ==============================================================

    An (appid, env) that is not in the file is added, with the file's name for that appid, else the platform's, else the
    appid; never as a default.
    """
    authorizers = found.authorizers
    here = {one.appid: one for one in authorizers}
    known = {(line.appid, line.env) for line in lines}
    name_of: dict[str, str] = {}
    for line in lines:
        if line.name != line.appid and line.owner is Owner.MERCHANT:
            name_of.setdefault(line.appid, line.name)
    for one in authorizers:
        name_of.setdefault(one.appid, one.name or one.appid)
    added = tuple(
        Merchant(one.appid, name_of[one.appid], place.env)
        for one in authorizers
        for place in _listed(one)
        if (one.appid, place.env) not in known
    )
    status = {place.env: place.status for one in authorizers for place in _listed(one)}
    looked_at = [
        line
        for line in (*lines, *added)
        if line.owner is Owner.MERCHANT
        and line.appid in here
        and not isinstance(here[line.appid].environments, Issue)
    ]
    return Changes(
        added=added,
        left=tuple(
            place
            for place, line in enumerate(lines)
            if not line.left
            and line.appid not in found.appids
            and line.appid != component_appid
            and (only is None or line.appid in only)
        ),
        returned=tuple(place for place, line in enumerate(lines) if line.left and line.appid in here),
        names=tuple(
            (place, name_of[line.appid])
            for place, line in enumerate(lines)
            if line.name == line.appid != name_of.get(line.appid, line.appid) and line.owner is Owner.MERCHANT
        ),
        renamed=_renamed(lines, here),
        not_normal=tuple(
            (line, status[line.env]) for line in looked_at if status.get(line.env, NORMAL) != NORMAL
        ),
        gone=tuple(line for line in looked_at if line.env not in status),
        no_default=_no_default([*(line for line in lines if line.appid in here), *added], added),
        without_env=tuple(
            Merchant(one.appid, name_of[one.appid], "")
            for one in authorizers
            if one.environments == () and one.appid not in {appid for appid, _ in known}
        ),
        issues=tuple(
            (Merchant(one.appid, name_of[one.appid], ""), one.environments)
            for one in authorizers
            if isinstance(one.environments, Issue)
        ),
    )


def _listed(one: Authorizer) -> tuple[CloudEnvironment, ...]:
    return () if isinstance(one.environments, Issue) else one.environments


def _renamed(lines: Sequence[Merchant], here: Mapping[str, Authorizer]) -> tuple[tuple[Merchant, str], ...]:
    of: defaultdict[str, list[Merchant]] = defaultdict(list)
    for line in lines:
        if line.owner is Owner.MERCHANT:
            of[line.appid].append(line)
    found = []
    for appid, its in of.items():
        name = here[appid].name if appid in here else ""
        # A line that has the appid as its name will get the platform's.
        same = {fold(name), fold(guard(name)), fold(appid)}
        if name and not any(fold(line.name) in same for line in its):
            found.append((its[0], name))
    return tuple(found)


def _no_default(lines: Sequence[Merchant], added: Sequence[Merchant]) -> tuple[str, ...]:
    envs: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        envs[fold(line.name)].add(line.env)
    meant = {fold(line.name) for line in lines if line.default}
    names = (line.name for line in added if len(envs[fold(line.name)]) > 1 and fold(line.name) not in meant)
    return tuple(dict.fromkeys(names))


LINES = 10
"""Maximum number of lines shown of one kind of change."""


def draw_changes(lines: Sequence[Merchant], changes: Changes, lang: Lang) -> Iterator[RenderableType]:
    """Render what changed, kind by kind; those that require action come last."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text as Styled

    for head, action, rows in _kinds(lines, changes):
        if not rows:
            continue
        yield Styled.assemble((head.of(lang), "bold"), f" · {len(rows):,}")
        if action:
            # A no-break space follows the arrow: Chinese text has no spaces, so all of it would move to the next line.
            yield Styled(f"→\u00a0{sanitize(action.of(lang))}", overflow="fold")
        table = Table.grid(padding=(0, 3, 0, 0))
        for row in rows[:LINES]:
            table.add_row(*(Styled(sanitize(cell), overflow="fold") for cell in row))
        yield Padding(table, (0, 0, 0, 2), expand=False)
        if len(rows) > LINES:
            more = len(rows) - LINES
            yield _("  … and {more:,} more: --json lists all", more=more).of(lang)
        yield ""


def total(file: str, lines: int, changes: Changes, *, written: bool) -> Text:
    """Return a summary in one sentence."""
    after = ngettext("{n:,} line", "{n:,} lines", lines + len(changes.added))
    kinds = (
        (changes.added, _("{count:,} added")),
        (changes.left, _("{count:,} left")),
        (changes.returned, _("{count:,} returned")),
        (changes.names, _("{count:,} named")),
    )
    facts = as_facts(kind.format(count=len(lines)) for lines, kind in kinds if lines)
    if not changes.writes:
        return _("{file}: {lines}, nothing to change.", file=file, lines=after)
    if written:
        return _("{file}: {lines}, {facts}.", file=file, lines=after, facts=facts)
    return _("{file} would have {lines}: {facts}. Nothing was written.", file=file, lines=after, facts=facts)


def facts_of(lines: Sequence[Merchant], changes: Changes, lang: Lang) -> dict[str, Any]:
    """Return the changes for `--json`."""

    def who(merchant: Merchant) -> dict[str, str]:
        return {"appid": merchant.appid, "merchant": merchant.name, "env": merchant.env}

    return {
        "lines": len(lines) + len(changes.added),
        "added": [who(one) for one in changes.added],
        "left": [who(lines[place]) for place in changes.left],
        "returned": [who(lines[place]) for place in changes.returned],
        "named": [who(lines[place]) | {"merchant": name} for place, name in changes.names],
        "renamed": [who(one) | {"platform_name": name} for one, name in changes.renamed],
        "not_normal": [who(one) | {"env_status": status} for one, status in changes.not_normal],
        "env_gone": [who(one) for one in changes.gone],
        "no_default": list(changes.no_default),
        "without_env": [{"appid": one.appid, "merchant": one.name} for one in changes.without_env],
        "not_read": [
            {"appid": one.appid, "merchant": one.name} | issue.as_dict(lang) for one, issue in changes.issues
        ],
    }


def _kinds(
    lines: Sequence[Merchant], changes: Changes
) -> Iterator[tuple[Text, Text | None, list[tuple[str, ...]]]]:
    """Yield each kind of change: its heading, what to do, and the merchants concerned."""

    def who(merchant: Merchant, *more: str) -> tuple[str, ...]:
        return (merchant.name, merchant.appid, *filter(None, (merchant.env, *more)))

    yield _("added"), None, [who(one) for one in changes.added]
    yield (_("authorized again, status cleared"), None, [who(lines[place]) for place in changes.returned])
    yield (_("no longer authorized, status=left"), None, [who(lines[place]) for place in changes.left])
    yield (
        _("named, where the appid served as the name"),
        None,
        [(name, lines[place].appid, lines[place].env) for place, name in changes.names],
    )
    yield (
        _("renamed at the platform, the file keeps its name"),
        None,
        [(one.name, one.appid, f"→ {name}") for one, name in changes.renamed],
    )
    yield (
        _("environments that are not NORMAL"),
        _("See merchants check for details."),
        [who(one, status) for one, status in changes.not_normal],
    )
    yield (
        _("environments that the platform does not list any more"),
        _("Remove the lines if they are gone for good."),
        [who(one) for one in changes.gone],
    )
    yield (
        _("names that match several environments"),
        _("Mark one line of each as default=yes."),
        [(name,) for name in changes.no_default],
    )
    yield (
        _("authorized, but without an environment yet"),
        _("Create an environment with tcb/createenvandresource, then sync again."),
        [who(one) for one in changes.without_env],
    )
    for issue, merchants in group(changes.issues):
        code, meaning = issue.code, issue.meaning
        yield (
            _("environments could not be listed, {code}: {meaning}", code=code, meaning=meaning),
            issue.action,
            [who(one) for one in merchants],
        )


# --- editing -------------------------------------------------------------------------------------------------------

EMPTY_FILE = "appid,name,env,default,owner,status\r\n".encode("utf-8-sig")
"""A merchants file with only a header: `audit` would query an example merchant."""


@dataclass(frozen=True, slots=True)
class MerchantsEditor:
    """The content of a merchants file, with the details needed to write it again."""

    merchants: tuple[Merchant, ...]
    """In the order of the file."""
    content: bytes = field(repr=False)
    """The original bytes; a header if the file does not exist."""
    exists: bool
    bom: bytes
    text: str = field(repr=False)
    codec: str
    table: Table
    columns: Mapping[str, int]
    """Canonical name → column index."""
    warnings: tuple[Text, ...] = ()
    """Reasons why the detected encoding may be wrong."""

    def edited(self, changes: Changes) -> bytes:
        """Return the file's bytes with these changes, whose indexes are those of `merchants`."""
        delimiter, width = self.table.delimiter, len(self.table.headers)
        statuses = dict.fromkeys(changes.left, "left") | dict.fromkeys(changes.returned, "")
        names = dict(changes.names)
        status = self.columns.get("status", width if statuses else -1)
        wider = status == width
        width += wider
        out: list[str] = []
        at, end = 0, "\r\n"
        for line, (raw, cells) in enumerate(_records(self.text, delimiter), 1):
            values: dict[int, str] = {}
            if line < self.table.header_line or not any(map(trim, cells)):
                out.append(raw)
                continue
            fields, ending = _fields(raw, delimiter)
            if line == self.table.header_line:
                ending = end = ending or end
                if wider:
                    values[status] = "status" if fields[self.columns["env"]].isascii() else "状态"
            else:
                if at in names:
                    values[self.columns["name"]] = guard(names[at])
                if at in statuses:
                    values[status] = statuses[at]
                at += 1
            fields += [""] * ((width if wider else max(values, default=-1) + 1) - len(fields))
            out.append(_joined(fields, values, delimiter) + ending)
        if changes.added and out and not out[-1].endswith(("\n", "\r")):
            out[-1] += end
        appid, name, env = (self.columns[ours] for ours in ("appid", "name", "env"))
        for one in changes.added:
            new = {appid: one.appid, name: guard(one.name), env: one.env}
            out.append(_joined([""] * width, new, delimiter) + end)
        return self.bom + "".join(out).encode(self.codec)


def edit_merchants(file: Path) -> MerchantsEditor:
    """Read a merchants file for editing; a missing one has just the header, as `init` writes it.

    Raises InputError with all problems of the file.
    """
    exists, content = file.exists(), EMPTY_FILE
    if exists:
        with open_bytes(file) as raw:
            content = raw.read()
    decoded = decode(io.BytesIO(content), str(file))
    codec, text = cast("TextIO", decoded.text).encoding, decoded.text.read()
    plain = text.encode(codec)
    bom = content.removesuffix(plain) if content.endswith(plain) else b""
    lines = io.StringIO(text, newline="")
    table = read_or_refuse(str(file), lambda: read_table(lines, MERCHANT_COLUMNS.rate))
    columns, problems = MERCHANT_COLUMNS.find(table.headers, table.header_line)
    empty = False
    with suppress(BrokenTableError):  # which read_merchants reports
        empty = not problems and not any(any(map(trim, cells)) for _line, cells in table.rows)
    merchants = () if empty else tuple(read_merchants(file))
    return MerchantsEditor(merchants, content, exists, bom, text, codec, table, columns, decoded.warnings)


def write_merchants(dest: Path, content: bytes, before: bytes | None) -> None:
    """Replace a file's content atomically. `before` is its original content, None if it did not exist.

    Raises StoppedError, with the file unchanged, if it cannot be written or was changed in the meantime.
    """
    real = Path(os.path.realpath(dest))
    fresh = real.with_name(f".{real.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as out:
            if real.exists():
                shutil.copymode(real, fresh)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        if (real.read_bytes() if real.exists() else None) != before:
            raise StoppedError(
                _(
                    "{dest} changed while the merchants were queried, so it was not written: run the same command again.",
                    dest=dest,
                )
            )
        fresh.replace(real)
    except OSError as error:
        failed = _(
            "{dest} cannot be written ({why}) and is unchanged. Fix this, then run the same command again.",
            dest=dest,
            why=system_reason(error),
        )
        raise StoppedError(failed) from None
    finally:
        with suppress(OSError):
            fresh.unlink()


def _records(text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each record's raw text and its cells."""
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    for cells in csv.reader(lines(), delimiter=delimiter, strict=True):
        yield "".join(taken), cells
        taken.clear()


def _fields(raw: str, delimiter: str) -> tuple[list[str], str]:
    """Split a record into its raw fields, quotes included, and its line end."""
    body = raw.rstrip("\r\n")
    fields, start, quoted = [], 0, False
    for at, letter in enumerate(body):
        if letter == '"' and body[start] == '"':  # a doubled quote toggles twice
            quoted = not quoted
        elif letter == delimiter and not quoted:
            fields.append(body[start:at])
            start = at + 1
    return [*fields, body[start:]], raw[len(body) :]


def _joined(fields: list[str], values: Mapping[int, str], delimiter: str) -> str:
    """Join raw fields to a record after setting some to values, quoted if necessary."""
    for column, value in values.items():
        quoted = '"' in value or delimiter in value
        fields[column] = '"' + value.replace('"', '""') + '"' if quoted else value
    return delimiter.join(fields)
