"""Links to look at stored files. They are secrets that end: returned and printed on request, and written nowhere."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from tcb_ops.arguments import checked
from tcb_ops.catalogue import errcode
from tcb_ops.details import detail
from tcb_ops.engine.loop import result_of, submit_coroutine
from tcb_ops.engine.single_calls import CallFailure, open_client
from tcb_ops.errors import TokenError, UsageError
from tcb_ops.features.stored import StoredCode
from tcb_ops.features.stored.client import DOWNLOAD_HOSTS, FileStatus, locate, prefix_of
from tcb_ops.features.stored.kinds import FILES_PER_CALL
from tcb_ops.hooks import RowLinks
from tcb_ops.i18n import Text, _
from tcb_ops.interface_calls import error_of, line_of, upload_link
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Owner, Secret, target_name
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, opened_target, settings_for
from tcb_ops.wechat.responses import check_host

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.run import Run

SECONDS = 7200
"""For which a link is asked, as in the interface's own sample."""
_CALLS = 4
"""Calls at once."""


@dataclass(frozen=True, slots=True)
class DownloadLink:
    """A link at which a stored file can be looked at. Only `.url.reveal()` shows it: whoever has it can open the file."""

    url: Secret
    until: datetime
    """When it ends."""


class Stored(NamedTuple):
    """A stored file, and whose environment it is in."""

    appid: str
    env: str
    owner: Owner
    file_id: str


@checked
def url(env: str, path: str, *, appid: str | None = None, **options: Unpack[TargetOptions]) -> DownloadLink:
    """Return a link at which a stored file can be looked at, for two hours.

    `env`: an environment, or a merchant's name or appid, which means its default environment. `appid` is needed if several
    merchants share the environment. Raises UsageError (unknown environment, no such file), TokenError, TransportError,
    RefusedError (the platform's errcode).
    """
    settings = settings_for(options)
    merchants = read_merchants(settings.merchants)
    merchant = "" if env in merchants.envs or not merchants.resolve(env) else env
    line = line_of(merchants, "" if merchant else env, appid or "", merchant=merchant)
    with opened_target(settings, lambda: merchants) as opened:
        link = upload_link(line.env, path, appid=line.appid, settings=opened)  # its file_id names the bucket
        file_id = f"{prefix_of(link.file_id, line.env)}/{path}"
        until = _until(opened)
        (found,) = ask_urls([Stored(line.appid, line.env, line.owner, file_id)], opened)
    if isinstance(found, Text):
        raise UsageError(_("{env}, {path}: {why}", env=line.env, path=path, why=found))
    return DownloadLink(found, until)


def urls(run: Run, environments: Sequence[EnvRecord]) -> pd.DataFrame:
    """Return what `Run.urls` does; `environments`: the run's."""
    frame, settings = run.results(), run.settings
    files = list(zip(frame["tcb_appid"], frame["tcb_env"], frame["tcb_file_id"], strict=True))
    with opened_target(settings, lambda: read_merchants(settings.merchants).whole) as opened:
        until, found = row_urls(run, environments, files, opened)
    ends = until.replace(tzinfo=None)
    columns: dict[str, list[Any]] = {
        "tcb_url": [each if isinstance(each, Secret) else None for each in found],
        "tcb_url_until": [ends if isinstance(each, Secret) else None for each in found],
        "tcb_url_problem": [each.of(settings.lang) if isinstance(each, Text) else "" for each in found],
    }
    return frame.assign(**columns)


def row_links(run: Run, environments: Sequence[EnvRecord]) -> RowLinks:
    """Ask for a link of each row that stored a file, for a column of its colleague's workbook."""
    settings = run.settings
    records = [record for record in run.rows() if record.end.file_id]
    files = [(record.row.appid, record.row.env, record.end.file_id) for record in records]
    with opened_target(settings, lambda: read_merchants(settings.merchants).whole) as opened:
        until, found = row_urls(run, environments, files, opened)
    texts = {
        record.row.line: link.reveal() if isinstance(link, Secret) else link.of(settings.lang)
        for record, link in zip(records, found, strict=True)
        if link is not None
    }
    return RowLinks(_("link, until {until}", until=until.isoformat(" ", "minutes")), texts)


def row_urls(
    run: Run, environments: Sequence[EnvRecord], files: Sequence[tuple[str, str, str]], settings: Settings
) -> tuple[datetime, list[Secret | Text | None]]:
    """Return when the links end, and for each file (appid, env, file_id) its link, or why it has none; None without a file_id.

    `settings`: of the opened target. Raises UsageError if the run went elsewhere.
    """
    if run.record.target != settings.run_target:
        text = _("Run {id} went to {target}, and now the target is {run_target}.")
        went, now = target_name(run.record.target), target_name(settings.run_target)
        text = text.format(id=run.id, target=went, run_target=now)
        raise UsageError(text, _("Give its target with {--target}."))
    owners = {(each.appid, each.env): each.owner for each in environments}
    stored = {each: Stored(*each[:2], owners[each[:2]], each[2]) for each in files if each[2]}
    until = _until(settings)
    links = dict(zip(stored, ask_urls(list(stored.values()), settings), strict=True))
    return until, [links.get(each) for each in files]


def ask_urls(files: Sequence[Stored], settings: Settings) -> list[Secret | Text]:
    """Ask for the links of different files; a file without one has the reason."""
    calls: defaultdict[Stored, list[list[str]]] = defaultdict(list)
    for file in files:
        parts = calls[file._replace(file_id="")]
        if not parts or len(parts[-1]) == FILES_PER_CALL:
            parts.append([])
        parts[-1].append(file.file_id)

    async def every() -> dict[tuple[Stored, str], Secret | Text]:
        gate = asyncio.Semaphore(_CALLS)
        async with open_client(settings, connections=_CALLS) as (client, caller):

            async def ask(place: Stored, ids: list[str]) -> dict[tuple[Stored, str], Secret | Text]:
                appid, env, owner, _none = place
                whose = appid if owner is Owner.MERCHANT else settings.tokens.component_appid
                try:
                    async with gate:
                        answer = await caller.call(
                            whose, lambda token: locate(client, env, ids, token, owner, SECONDS)
                        )
                except TokenError as error:
                    return {(place, each): error.text for each in ids}
                if isinstance(answer, CallFailure):
                    return {(place, each): error_of(answer, owner).text for each in ids}
                return {(place, each): link_of(answer.get(each), owner, settings) for each in ids}

            tasks = (ask(place, ids) for place, parts in calls.items() for ids in parts)
            return {key: link for part in await asyncio.gather(*tasks) for key, link in part.items()}

    links: dict[tuple[Stored, str], Secret | Text] = result_of(submit_coroutine(every()))
    return [links[file._replace(file_id=""), file.file_id] for file in files]


def link_of(file: FileStatus | None, owner: Owner, settings: Settings) -> Secret | Text:
    """Return a file's link, or why there is none to use: https and an allowed host, or of the simulator."""
    if file is None:
        return detail(StoredCode.FILE_LEFT_OUT)
    if file.status:
        text = _("errcode {errcode} {errmsg}: {meaning}")
        return text.format(
            errcode=file.status, errmsg=file.errmsg, meaning=errcode(file.status, owner).meaning
        )
    hosts = (*DOWNLOAD_HOSTS, *settings.store_hosts)
    return check_host(file.url.reveal(), settings.api_base, hosts) or file.url


def _until(settings: Settings) -> datetime:
    return datetime.now(settings.zone).replace(microsecond=0) + timedelta(seconds=SECONDS)
