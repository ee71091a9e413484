"""What a sync changes in the merchants file. Pure: from the file's lines and the platform's answers to changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tcb_ops.cell_text import fold, guard
from tcb_ops.merchants.status import NORMAL, WITHOUT_CLOUD, Issue
from tcb_ops.model import Merchant, Owner
from tcb_ops.wechat.responses import CloudEnvironment


@dataclass(frozen=True, slots=True)
class Authorizer:
    """A mini program that authorizes the platform, as the platform knows it."""

    appid: str
    name: str
    """Its nick name; empty where it could not be had."""
    environments: tuple[CloudEnvironment, ...] | Issue


@dataclass(frozen=True, slots=True)
class Authorized:
    """Who authorizes the platform."""

    appids: frozenset[str]
    """All of them."""
    authorizers: tuple[Authorizer, ...]
    """Those whose environments were asked for, in the platform's order."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """A merchant that has another name at the platform than in the file, which keeps its own."""

    merchant: Merchant
    name: str
    """The platform's."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different now, and what was seen on the way. Places are those in the file's lines."""

    added: tuple[Merchant, ...] = ()
    left: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()
    names: tuple[tuple[int, str], ...] = ()
    """Lines that had but the appid for a name."""
    renamed: tuple[Renamed, ...] = ()
    not_normal: tuple[tuple[Merchant, str], ...] = ()
    """Lines, new ones too, whose environment is HALTED or UNAVAILABLE."""
    gone: tuple[Merchant, ...] = ()
    """Lines whose environment the platform does not list any more; they stay as they are."""
    no_default: tuple[str, ...] = ()
    """Names that have got a further environment and mean none of theirs."""
    without_env: tuple[Merchant, ...] = ()
    """Merchants that authorize the platform, are in no line, and have no environment that a line could name."""
    issues: tuple[tuple[Merchant, Issue], ...] = ()
    """Merchants whose environments could not be fetched, 85088 among them; `env` is empty."""

    @property
    def writes(self) -> bool:
        """Whether the file changes."""
        return bool(self.added or self.left or self.returned or self.names)

    @property
    def unread(self) -> bool:
        """Whether a merchant could not be asked: that it has no 云开发, or granted no set for it, is an answer."""
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
    its appid authorizes the platform      as it is; `left` is taken off again
    its appid does not                     `left`, but a line of the platform's own appid
    its name is its appid                  the platform's name, once that can be had
    its name is another                    as it is; a difference is shown
    its environment is not listed          as it is; shown
    it is the platform's own               as it is, but for `left`
    =====================================  ==============================================================

    An (appid, env) that is not in the file is added, with the name the file has for that appid, else the platform's,
    else the appid; never as a default.
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


def _renamed(lines: Sequence[Merchant], here: Mapping[str, Authorizer]) -> tuple[Renamed, ...]:
    of: defaultdict[str, list[Merchant]] = defaultdict(list)
    for line in lines:
        if line.owner is Owner.MERCHANT:
            of[line.appid].append(line)
    return tuple(
        Renamed(its[0], here[appid].name)
        for appid, its in of.items()
        if appid in here and here[appid].name and not _same(here[appid].name, its)
    )


def _same(name: str, lines: Sequence[Merchant]) -> bool:
    """Whether one of a merchant's lines has the name, or is yet to get it."""
    names = {fold(name), fold(guard(name)), fold(lines[0].appid)}
    return any(fold(line.name) in names for line in lines)


def _no_default(lines: Sequence[Merchant], added: Sequence[Merchant]) -> tuple[str, ...]:
    envs: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        envs[fold(line.name)].add(line.env)
    meant = {fold(line.name) for line in lines if line.default}
    names = (line.name for line in added if len(envs[fold(line.name)]) > 1 and fold(line.name) not in meant)
    return tuple(dict.fromkeys(names))
