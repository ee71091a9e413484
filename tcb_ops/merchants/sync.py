"""The sync of the merchants file: query who authorizes the platform, decide what changes (`decide`, pure), show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tcb_ops.errcodes import errcode
from tcb_ops.errors import PlatformStopError, SettingsError, StoppedError
from tcb_ops.formatting import fold, guard, sanitize
from tcb_ops.i18n import Lang, Text, _, as_facts, ngettext
from tcb_ops.merchants.check import STANDARD, Progress, ask, connected, each, ignore
from tcb_ops.merchants.status import COMPONENT_CODES, NORMAL, WITHOUT_CLOUD, Issue, group, of_the_component
from tcb_ops.model import Merchant, Owner
from tcb_ops.runs.loop import hand_over
from tcb_ops.settings import Settings
from tcb_ops.wechat.call_policy import Caller, CallLimits
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import AuthorizerInfo, CloudEnvironment

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
        _("Create an environment in the cloud console (or with tcb/createenvandresource), then sync again."),
        [who(one) for one in changes.without_env],
    )
    for issue, merchants in group(changes.issues):
        code, meaning = issue.code, issue.meaning
        yield (
            _("environments could not be listed, {code}: {meaning}", code=code, meaning=meaning),
            issue.action,
            [who(one) for one in merchants],
        )


def begin_sync(
    settings: Settings,
    *,
    only: Collection[str] | None = None,
    limits: CallLimits = STANDARD,
    progress: Progress = ignore,
    notify: Callable[[Text], None] = ignore,
) -> Future[Authorized]:
    """Start to query who authorizes the platform; the future returns them. Cancelling it ends the calls.

    With `only`, environments are requested for these appids only. `limits`, `progress` and `notify` are begin_check's.

    Raises SettingsError without a component_appid. The future raises PlatformStopError if the list is refused,
    OutageError if no host could be reached, StoppedError if the list is incomplete.
    """
    if not settings.tokens.component_appid:
        raise SettingsError(
            _(
                "merchants sync needs the component token: set component_appid under [tokens] in "
                "tcb-ops.toml, and make sure that the token source can provide that appid's token."
            )
        )
    return hand_over(_sync(settings, only, limits, progress, notify))


async def _sync(
    settings: Settings,
    only: Collection[str] | None,
    limits: CallLimits,
    progress: Progress,
    notify: Callable[[Text], None],
) -> Authorized:
    component = settings.tokens.component_appid
    async with connected(settings, limits, notify) as (caller, client):
        appids = await _list(caller, client, component)
        asked_for = [appid for appid in appids if only is None or appid in only]

        async def about(appid: str) -> Authorizer:
            info: AuthorizerInfo | Issue = await ask(
                caller, component, partial(client.authorizer, appid=appid)
            )
            if isinstance(info, Issue) and info.code in COMPONENT_CODES:
                raise _stop(component, info)
            name = "" if isinstance(info, Issue) else info.name
            return Authorizer(appid, name, await ask(caller, appid, client.environments))

        return Authorized(frozenset(appids), tuple(await each(asked_for, about, progress)))


async def _list(caller: Caller, client: PlatformClient, component: str) -> list[str]:
    """Return every appid once, in the platform's order."""
    appids: dict[str, None] = {}
    offset, total = 0, 1
    while offset < total:
        page = await ask(caller, component, partial(client.authorizers, offset=offset))
        if isinstance(page, Issue):
            raise _stop(component, page)
        offset, total = offset + len(page.appids), page.total
        appids |= dict.fromkeys(page.appids)
        if not page.appids:
            break
    if not appids and not total:
        raise StoppedError(
            _(
                "The platform says that no merchant has authorized it, so nothing was changed: is "
                "component_appid {component} right?",
                component=component,
            )
        )
    if len(appids) < total:
        raise StoppedError(
            _(
                "The platform says that {merchants} have authorized it, but listed {count:,}: a merchant may have "
                "authorized it or left meanwhile. Nothing was changed; run the same command again.",
                merchants=ngettext("{n:,} merchant", "{n:,} merchants", total),
                count=len(appids),
            )
        )
    return list(appids)


def _stop(component: str, issue: Issue) -> PlatformStopError:
    issue = of_the_component(issue)
    if issue.errmsg and issue.errcode is not None and not errcode(issue.errcode).known:
        return PlatformStopError(
            _(
                "The platform refused to list the merchants (component_appid {component}): errcode {code}, “{errmsg}”.",
                component=component,
                code=issue.code,
                errmsg=issue.errmsg,
            )
        )
    code = f" (errcode {issue.code})" if issue.errcode is not None else ""
    return PlatformStopError(
        _(
            "The merchants cannot be listed with the component token (of component_appid {component}){code}: "
            "{meaning} {action}",
            component=component,
            code=code,
            meaning=issue.meaning,
            action=issue.action,
        )
    )
