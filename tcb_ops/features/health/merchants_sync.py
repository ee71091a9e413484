"""The sync of the merchants file: ask who authorizes the platform, decide what changes (`decide`, pure), edit the file.

An edit keeps the operator's columns, rows and order, encoding and BOM, delimiter and line ends; cells are quoted where CSV
needs it. New lines are added at the end, and a `status` column if it is needed and missing.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.details import merged
from tcb_ops.disk import replacing
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.loop import result_of, submit_coroutine
from tcb_ops.engine.single_calls import open_client
from tcb_ops.errors import PlatformStopError, SettingsError, StoppedError
from tcb_ops.features.health.merchants import STANDARD
from tcb_ops.features.health.questions import AT_ONCE, COMPONENT_CODES, Probes, ignore, map_concurrently
from tcb_ops.features.health.verdicts import Issue, presumed
from tcb_ops.formatting import guard, trim
from tcb_ops.i18n import Lang, Text, _, as_facts, ngettext
from tcb_ops.kinds import merchant_count
from tcb_ops.lists.input_files import decode, open_bytes, readable
from tcb_ops.lists.merchants import EMPTY_FILE, read_merchants
from tcb_ops.lists.table import MERCHANT_COLUMNS, read_table
from tcb_ops.model import Merchant, Owner
from tcb_ops.reports.findings import FindingLine, FindingSection
from tcb_ops.settings import Settings
from tcb_ops.system_errors import system_reason

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Authorizer:
    """A mini program that authorizes the platform, as the platform lists it."""

    appid: str
    name: str
    """Its nickname; empty if it could not be read."""
    environments: Mapping[str, str] | Issue
    """With the status of each."""

    @property
    def listed(self) -> Collection[str]:
        """Its environments' ids; none if they could not be read."""
        return () if isinstance(self.environments, Issue) else self.environments


@dataclass(frozen=True, slots=True)
class Authorized:
    """The mini programs that authorize the platform."""

    appids: frozenset[str]
    authorizers: tuple[Authorizer, ...]
    """Those whose environments were requested, in the platform's order."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of the merchants file, and what else was found."""

    added: tuple[Merchant, ...] = ()
    left: tuple[Merchant, ...] = ()
    returned: tuple[Merchant, ...] = ()
    env_gone: tuple[Merchant, ...] = ()
    """Lines whose environment the platform no longer lists; they are not changed."""
    without_env: tuple[Merchant, ...] = ()
    """Merchants that authorize the platform, with no line in the file and no environment for one."""
    issues: tuple[tuple[Merchant, Issue], ...] = ()
    """Merchants whose environments could not be read, 85088 included; `env` is empty."""

    @property
    def writes(self) -> bool:
        """Whether the file changes."""
        return bool(self.added or self.left or self.returned)

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
    its environment is not listed          unchanged; shown
    it is the platform's own               unchanged, except `left`
    =====================================  ==============================================================

    An (appid, env) that is not in the file is added, with the file's name for that appid, else the platform's, else the
    appid; never as a default.
    """
    name_of = {line.appid: line.name for line in reversed(lines) if line.owner is Owner.MERCHANT}
    for authorizer in authorized.authorizers:
        name_of.setdefault(authorizer.appid, authorizer.name or authorizer.appid)
    in_file, appids_in_file = {(line.appid, line.env) for line in lines}, {line.appid for line in lines}
    added, without_env, issues = list[Merchant](), list[Merchant](), list[tuple[Merchant, Issue]]()
    for authorizer in authorized.authorizers:
        appid, environments = authorizer.appid, authorizer.environments
        merchant = Merchant(appid, name_of[appid], "")
        if isinstance(environments, Issue):
            issues.append((merchant, environments))
        elif not environments and appid not in appids_in_file:
            without_env.append(merchant)
        added += [replace(merchant, env=e) for e in authorizer.listed if (appid, e) not in in_file]
    authorizers = {authorizer.appid for authorizer in authorized.authorizers}
    read = authorizers - {merchant.appid for merchant, _issue in issues}
    listed = {env for authorizer in authorized.authorizers for env in authorizer.listed}
    stay = authorized.appids | {component_appid}
    asked = [line for line in lines if only is None or line.appid in only]
    merchants = [line for line in lines if line.owner is Owner.MERCHANT]
    return Changes(
        tuple(added),
        tuple(line for line in asked if not line.left and line.appid not in stay),
        tuple(line for line in lines if line.left and line.appid in authorizers),
        tuple(line for line in merchants if line.appid in read and line.env not in listed),
        tuple(without_env),
        tuple(issues),
    )


_IN_FILE = {
    "added": _("added"),
    "left": _("no longer authorized (status=left)"),
    "returned": _("authorized again (status cleared)"),
}
"""What changes in the file: the titles of the fields of Changes."""
_BESIDE = {
    "env_gone": _("environments that the platform does not list any more"),
    "without_env": _("authorized, but without an environment yet"),
}
_ACTIONS = {
    "env_gone": _("Remove the lines if they are gone for good."),
    "without_env": _(
        "Create an environment with tcb/createenvandresource (pay-as-you-go: ask the merchant first), then sync again."
    ),
}


def draw_changes(changes: Changes, lang: Lang) -> Iterator[RenderableType]:
    """Render what changed, kind by kind; those that require action come last."""
    from tcb_ops.reports.formats.terminal import render_sections

    sections = [
        _section(title, getattr(changes, kind), _ACTIONS.get(kind))
        for kind, title in (_IN_FILE | _BESIDE).items()
    ]
    by_code: defaultdict[str, list[tuple[Merchant, Issue]]] = defaultdict(list)
    for merchant, issue in changes.issues:
        by_code[issue.code].append((merchant, issue))
    for code, members in by_code.items():
        title = _("environments could not be listed, {code}: {meaning}")
        title = title.format(code=code, meaning=members[0][1].meaning)
        (action, *_more) = merged(issue.action for _merchant, issue in members)
        sections.append(_section(title, [merchant for merchant, _issue in members], action))
    yield from render_sections([section for section in sections if section.lines], lang, "--json", most=10)


def _section(title: Text, merchants: Sequence[Merchant], action: Text | None) -> FindingSection:
    lines = [FindingLine(f"{each.name} ({each.appid})", each.env, "") for each in merchants]
    return FindingSection(title, lines, action=action)


def total(file: str, lines: Sequence[Merchant], changes: Changes, *, written: bool) -> Text:
    """Return a summary in one sentence."""
    after = ngettext("{n:,} line", "{n:,} lines", len(lines) + len(changes.added))
    if not changes.writes:
        return _("{file}: {lines}, nothing to change.", file=file, lines=after)
    counts = {title: len(getattr(changes, kind)) for kind, title in _IN_FILE.items()}
    facts = as_facts(
        _("{count:,} {change}", count=count, change=title) for title, count in counts.items() if count
    )
    text = _("{file}: {lines}, {facts}.")
    if not written:
        text = _("{file} would have {lines}: {facts}. Nothing was written.")
    return text.format(file=file, lines=after, facts=facts)


def facts_of(lines: Sequence[Merchant], changes: Changes, lang: Lang) -> dict[str, Any]:
    """Return the changes for `--json`."""

    def who(merchant: Merchant) -> dict[str, str]:
        return {"appid": merchant.appid, "merchant": merchant.name, "env": merchant.env}

    return {
        "lines": len(lines) + len(changes.added),
        **{kind: list(map(who, getattr(changes, kind))) for kind in _IN_FILE | _BESIDE},
        "not_read": [
            who(merchant)
            | {"code": issue.code, "errcode": issue.errcode, "errmsg": issue.errmsg}
            | {"meaning": issue.meaning.of(lang), "action": issue.action.of(lang)}
            for merchant, issue in changes.issues
        ],
    }


# --- editing -------------------------------------------------------------------------------------------------------


def read_for_sync(file: Path) -> tuple[bytes, tuple[Merchant, ...]]:
    """Return the bytes and the lines of a merchants file; of a missing one, the header that `init` writes.

    Raises InputError with all problems of the file.
    """
    content = EMPTY_FILE
    if file.exists():
        with open_bytes(file) as raw:
            content = raw.read()
    text, _codec = _decoded(content, file)
    with readable(file):
        table = read_table(io.StringIO(text, newline=""), MERCHANT_COLUMNS.rate)
        empty = not any(any(map(trim, cells)) for _line, cells in table.rows)
    _columns, problems = MERCHANT_COLUMNS.find(table.headers, table.header_line)
    return content, () if empty and not problems else tuple(read_merchants(file))


def _decoded(content: bytes, file: Path) -> tuple[str, str]:
    text, *_facts = decode(io.BytesIO(content), str(file))
    return text.read(), text.encoding


def edited(content: bytes, merchants: Sequence[Merchant], changes: Changes) -> bytes:
    """Return the bytes of a merchants file, whose lines are `merchants`, with these changes."""
    text, codec = _decoded(content, Path())
    plain = text.encode(codec)
    bom = content.removesuffix(plain) if content.endswith(plain) else b""
    table = read_table(io.StringIO(text, newline=""), MERCHANT_COLUMNS.rate)
    found, _problems = MERCHANT_COLUMNS.find(table.headers, table.header_line)
    columns, width = dict(found), len(table.headers)
    header = dict[str, str]()
    statuses = {
        (line.appid, line.env): {"status": status}
        for status, lines in (("left", changes.left), ("", changes.returned))
        for line in lines
    }
    if (changes.left or changes.returned) and "status" not in columns:
        columns["status"], width = width, width + 1
        header["status"] = "status" if table.headers[columns["env"]].isascii() else "状态"
    line_end = re.search(r"\r\n|[\r\n]", text)
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=table.delimiter, lineterminator=line_end[0] if line_end else "\r\n")

    def write(cells: list[str], values: Mapping[str, str]) -> None:
        cells += [""] * (width - len(cells))
        for name, value in values.items():
            cells[columns[name]] = value
        writer.writerow(cells)

    in_order = iter(merchants)
    for number, cells in enumerate(
        csv.reader(io.StringIO(text, newline=""), delimiter=table.delimiter, strict=True), 1
    ):
        if number < table.header_line or not any(map(trim, cells)):
            writer.writerow(cells)
        elif number == table.header_line:
            write(cells, header)
        else:
            merchant = next(in_order)
            write(cells, statuses.get((merchant.appid, merchant.env), {}))
    for merchant in changes.added:
        write([], {"appid": merchant.appid, "name": guard(merchant.name), "env": merchant.env})
    return bom + out.getvalue().encode(codec)


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
                text = _(
                    "{dest} changed while the merchants were queried, so it was not written: run the same command again."
                )
                raise StoppedError(text.format(dest=dest))
    except OSError as error:
        text = _(
            "{dest} cannot be written ({why}) and is unchanged. Fix this, then run the same command again."
        )
        raise StoppedError(text.format(dest=dest, why=system_reason(error))) from None


# --- who authorizes the platform ------------------------------------------------------------------------------------


def ask_authorizers(
    settings: Settings,
    *,
    only: Collection[str] | None = None,
    limits: RunLimits = STANDARD,
    notify: Callable[[Text], None] = ignore,
) -> Authorized:
    """Ask who authorizes the platform. With `only`, environments are requested for these appids only.

    Raises SettingsError without a component_appid, PlatformStopError if the list is refused, OutageError if no host could
    be reached, StoppedError if the list is incomplete.
    """
    component = settings.tokens.component_appid
    if not component:
        text = _(
            "merchants sync needs the component token: set tokens.component_appid, and let the source give it."
        )
        raise SettingsError(text)

    async def sync() -> Authorized:
        async with open_client(settings, connections=AT_ONCE, limits=limits, notify=notify) as opened:
            client, caller = opened
            probes = Probes(caller, client, component)
            appids = await _list(probes)
            asked_for = [appid for appid in appids if only is None or appid in only]

            async def about(appid: str) -> Authorizer:
                info = await probes.grants(appid)
                if isinstance(info, Issue) and info.code in COMPONENT_CODES:
                    raise _stop(component, info)
                name = "" if isinstance(info, Issue) else info.name
                return Authorizer(appid, name, await probes.environments(appid))

            return Authorized(frozenset(appids), tuple(await map_concurrently(asked_for, about)))

    return result_of(submit_coroutine(sync()))


async def _list(probes: Probes) -> list[str]:
    """Return every appid once, in the platform's order."""
    appids: dict[str, None] = {}
    offset, total = 0, 1
    while offset < total:
        page = await probes.authorizers(offset)
        if isinstance(page, Issue):
            raise _stop(probes.component, page)
        total, listed = page
        offset += len(listed)
        appids |= dict.fromkeys(listed)
        if not listed:
            break
    if not appids or len(appids) < total:
        text = _(
            "The platform says that {merchants} have authorized it, but listed {count:,}. Nothing was changed: check "
            "component_appid {component}, and run the same command again."
        )
        told = {"merchants": merchant_count(total), "count": len(appids)}
        raise StoppedError(text.format(component=probes.component, **told))
    return list(appids)


def _stop(component: str, issue: Issue) -> PlatformStopError:
    text = _(
        "The merchants cannot be listed with the component token (component_appid {component}): {code}, {meaning} "
        "{errmsg}\n{action}"
    )
    told = {"code": issue.code, "meaning": issue.meaning, "errmsg": issue.errmsg, "action": issue.action}
    return PlatformStopError(text.format(component=component, **told))
