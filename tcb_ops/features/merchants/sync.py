"""The sync of the merchants file with the platform: decide what changes (`decide`, pure), show it, and edit the file.

An edit keeps the operator's columns, rows and order, encoding and BOM, delimiter and line ends; cells are quoted where CSV
needs it. New lines are added at the end, and a `status` column if it is needed and missing.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

from tcb_ops.errors import BrokenTableError, StoppedError
from tcb_ops.features.merchants.check import group
from tcb_ops.formatting import guard, sanitize, trim
from tcb_ops.i18n import Lang, Text, _, as_facts, ngettext
from tcb_ops.lists.input_files import decode, open_bytes, readable
from tcb_ops.lists.merchants import EMPTY_FILE, read_merchants
from tcb_ops.lists.table import MERCHANT_COLUMNS, Table, read_table
from tcb_ops.model import Merchant, Owner
from tcb_ops.resources import replacing, system_reason
from tcb_ops.runs.verdicts import Issue, presumed
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

    @property
    def listed(self) -> tuple[str, ...]:
        """Its environments' ids; none if they could not be read."""
        return (
            ()
            if isinstance(self.environments, Issue)
            else tuple(environment.env for environment in self.environments)
        )


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
    gone: tuple[Merchant, ...] = ()
    """Lines whose environment the platform no longer lists; they are not changed."""
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
        return any(presumed(issue.code) not in {"set_missing", "no_cloud"} for _, issue in self.issues)


def decide(
    lines: Sequence[Merchant],
    authorized: Authorized,
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
    its environment is not listed          unchanged; shown
    it is the platform's own               unchanged, except `left`
    =====================================  ==============================================================

    An (appid, env) that is not in the file is added, with the file's name for that appid, else the platform's, else the
    appid; never as a default.
    """
    authorizers = {authorizer.appid: authorizer for authorizer in authorized.authorizers}
    in_file = {(line.appid, line.env) for line in lines}
    appids_in_file = {line.appid for line in lines}
    name_of: dict[str, str] = {}
    for line in lines:
        if line.name != line.appid and line.owner is Owner.MERCHANT:
            name_of.setdefault(line.appid, line.name)
    for authorizer in authorized.authorizers:
        name_of.setdefault(authorizer.appid, authorizer.name or authorizer.appid)
    listed = {env for authorizer in authorized.authorizers for env in authorizer.listed}

    def merchant(authorizer: Authorizer, env: str = "") -> Merchant:
        return Merchant(authorizer.appid, name_of[authorizer.appid], env)

    return Changes(
        added=tuple(
            merchant(authorizer, env)
            for authorizer in authorized.authorizers
            for env in authorizer.listed
            if (authorizer.appid, env) not in in_file
        ),
        left=tuple(
            index
            for index, line in enumerate(lines)
            if not line.left
            and line.appid not in authorized.appids
            and line.appid != component_appid
            and (only is None or line.appid in only)
        ),
        returned=tuple(index for index, line in enumerate(lines) if line.left and line.appid in authorizers),
        names=tuple(
            (index, name_of[line.appid])
            for index, line in enumerate(lines)
            if line.name == line.appid != name_of.get(line.appid, line.appid) and line.owner is Owner.MERCHANT
        ),
        gone=tuple(
            line
            for line in lines
            if line.owner is Owner.MERCHANT
            and line.appid in authorizers
            and not isinstance(authorizers[line.appid].environments, Issue)
            and line.env not in listed
        ),
        without_env=tuple(
            merchant(authorizer)
            for authorizer in authorized.authorizers
            if authorizer.environments == () and authorizer.appid not in appids_in_file
        ),
        issues=tuple(
            (merchant(authorizer), authorizer.environments)
            for authorizer in authorized.authorizers
            if isinstance(authorizer.environments, Issue)
        ),
    )


LINES = 10
"""Maximum number of lines shown of one kind of change."""


class _Change(NamedTuple):
    key: str
    """In the JSON."""
    head: Text
    counted: Text | None
    """The number of lines in the summary; None if the file does not change."""
    action: Text | None
    merchants: Sequence[Merchant]


def _kinds(lines: Sequence[Merchant], changes: Changes) -> list[_Change]:
    """Return the kinds of changes with the merchants concerned; those that require action come last."""
    named = [replace(lines[index], name=name) for index, name in changes.names]
    returned, left = ([lines[index] for index in each] for each in (changes.returned, changes.left))
    return [
        _Change("added", _("added"), _("{count:,} added"), None, changes.added),
        _Change("left", _("no longer authorized, status=left"), _("{count:,} left"), None, left),
        _Change("returned", _("authorized again, status cleared"), _("{count:,} returned"), None, returned),
        _Change("named", _("named, where the appid served as the name"), _("{count:,} named"), None, named),
        _Change(
            "env_gone",
            _("environments that the platform does not list any more"),
            None,
            _("Remove the lines if they are gone for good."),
            changes.gone,
        ),
        _Change(
            "without_env",
            _("authorized, but without an environment yet"),
            None,
            _("Create an environment with tcb/createenvandresource, then sync again."),
            changes.without_env,
        ),
    ]


def draw_changes(lines: Sequence[Merchant], changes: Changes, lang: Lang) -> Iterator[RenderableType]:
    """Render what changed, kind by kind; those that require action come last."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text as Styled

    shown = [(kind.head, kind.action, kind.merchants) for kind in _kinds(lines, changes)]
    for issue, merchants in group(changes.issues):
        code, meaning = issue.code, issue.meaning
        head = _("environments could not be listed, {code}: {meaning}", code=code, meaning=meaning)
        shown.append((head, issue.action, merchants))
    for head, action, concerned in shown:
        if not concerned:
            continue
        yield Styled.assemble((head.of(lang), "bold"), f" · {len(concerned):,}")
        if action:
            # A no-break space follows the arrow: Chinese text has no spaces, so all of it would move to the next line.
            yield Styled(f"→\u00a0{sanitize(action.of(lang))}", overflow="fold")
        table = Table.grid(padding=(0, 3, 0, 0))
        for merchant in concerned[:LINES]:
            cells = filter(None, (merchant.name, merchant.appid, merchant.env))
            table.add_row(*(Styled(sanitize(cell), overflow="fold") for cell in cells))
        yield Padding(table, (0, 0, 0, 2), expand=False)
        if (more := len(concerned) - LINES) > 0:
            yield _("  … and {more:,} more: --json lists all", more=more).of(lang)
        yield ""


def total(file: str, lines: Sequence[Merchant], changes: Changes, *, written: bool) -> Text:
    """Return a summary in one sentence."""
    after = ngettext("{n:,} line", "{n:,} lines", len(lines) + len(changes.added))
    facts = as_facts(
        kind.counted.format(count=len(kind.merchants))
        for kind in _kinds(lines, changes)
        if kind.counted and kind.merchants
    )
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
        **{kind.key: list(map(who, kind.merchants)) for kind in _kinds(lines, changes)},
        "not_read": [who(merchant) | issue.as_dict(lang) for merchant, issue in changes.issues],
    }


# --- editing -------------------------------------------------------------------------------------------------------


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

    def edited(self, changes: Changes) -> bytes:
        """Return the file's bytes with these changes, whose indexes are those of `merchants`."""
        columns, width = dict(self.columns), len(self.table.headers)
        statuses = dict.fromkeys(changes.left, "left") | dict.fromkeys(changes.returned, "")
        names, header = dict(changes.names), dict[str, str]()
        if statuses and "status" not in columns:
            columns["status"], width = width, width + 1
            header["status"] = "status" if self.table.headers[columns["env"]].isascii() else "状态"
        line_end = re.search(r"\r\n|[\r\n]", self.text)
        out = io.StringIO(newline="")
        delimiter = self.table.delimiter
        writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end[0] if line_end else "\r\n")

        def write(cells: list[str], values: Mapping[str, str]) -> None:
            cells += [""] * (width - len(cells))
            for name, value in values.items():
                cells[columns[name]] = value
            writer.writerow(cells)

        records = csv.reader(io.StringIO(self.text, newline=""), delimiter=delimiter, strict=True)
        index = 0
        for number, cells in enumerate(records, 1):
            if number < self.table.header_line or not any(map(trim, cells)):
                writer.writerow(cells)
            elif number == self.table.header_line:
                write(cells, header)
            else:
                changed = {"name": guard(names[index])} if index in names else {}
                write(cells, changed | ({"status": statuses[index]} if index in statuses else {}))
                index += 1
        for merchant in changes.added:
            write([], {"appid": merchant.appid, "name": guard(merchant.name), "env": merchant.env})
        return self.bom + out.getvalue().encode(self.codec)


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
    with readable(file):
        table = read_table(lines, MERCHANT_COLUMNS.rate)
    columns, problems = MERCHANT_COLUMNS.find(table.headers, table.header_line)
    empty = False
    with suppress(BrokenTableError):  # which read_merchants reports
        empty = not problems and not any(any(map(trim, cells)) for _line, cells in table.rows)
    merchants = () if empty else tuple(read_merchants(file))
    return MerchantsEditor(merchants, content, exists, bom, text, codec, table, columns)


def write_merchants(dest: Path, content: bytes, before: bytes | None) -> None:
    """Replace a file's content atomically. `before` is its original content, None if it did not exist.

    Raises StoppedError, with the file unchanged, if it cannot be written or was changed in the meantime.
    """
    real = dest.resolve()
    try:
        with replacing(real) as part:
            if real.exists():
                shutil.copymode(real, part)
            part.write_bytes(content)
            if (real.read_bytes() if real.exists() else None) != before:
                raise StoppedError(
                    _(
                        "{dest} changed while the merchants were queried, so it was not written: run the same command again.",
                        dest=dest,
                    )
                )
    except OSError as error:
        failed = _(
            "{dest} cannot be written ({why}) and is unchanged. Fix this, then run the same command again.",
            dest=dest,
            why=system_reason(error),
        )
        raise StoppedError(failed) from None
