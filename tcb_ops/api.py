"""The library as it is imported. Calls block, inside a running event loop as well as outside.

The command line, the panels and the notebooks are views over these calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tcb_ops.errors import RefusedError, RunNotFoundError, UsageError
from tcb_ops.i18n import Text
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import Batch
from tcb_ops.merchants.status import MerchantState
from tcb_ops.model import Kind, Link, Merchant, Owner
from tcb_ops.reports.verify import Verification
from tcb_ops.run import Diff, History, Run
from tcb_ops.run_handle import RunHandle, begin
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.plan import RunSpec, audit_spec, list_spec, resume_spec, retry_spec
from tcb_ops.runs.records import RunRecord
from tcb_ops.settings import Settings, aim, default_settings


def start_links(
    batch: Batch, *, out: str | Path = "links.csv", selection: str = "", **options: Any
) -> RunHandle:
    """Begin a links run, or go on with an unfinished one of the same list; takes what `links` takes."""
    return begin(lambda _: list_spec(batch, Kind.LINKS, selection), Path(out).absolute(), **options)


def start_upload(
    batch: Batch, *, selection: str = "", report: str | Path | None = None, **options: Any
) -> RunHandle:
    """Begin an upload run, or go on with an unfinished one of the same list; takes what `upload` takes.

    `report`: where the caller is going to export to: until that is done the run counts as one to go on with.
    """
    if batch.root is None:
        batch = batch.check_files(batch.source.parent)
    return begin(lambda _: list_spec(batch, Kind.UPLOAD, selection), _place(report), **options)


def start_audit(
    merchants: Merchants, *, selection: str = "", report: str | Path | None = None, **options: Any
) -> RunHandle:
    """Begin an audit; takes what `audit` takes."""
    return begin(lambda _: audit_spec(merchants, selection), _place(report), **options)


def start_retry(
    run: str,
    merchants: Merchants,
    *,
    codes: Sequence[str | int] = (),
    out: str | Path | None = None,
    selection: str = "",
    **options: Any,
) -> RunHandle:
    """Begin a retry of a finished run, or go on with an unfinished one; takes what `retry` takes."""
    wanted = {str(code) for code in codes}
    settings = _settings(options.get("settings"), options.pop("target", None))
    if out is None and open_run(run, settings=settings).record.kind is Kind.LINKS:
        out = "links.retry.csv"

    def work(ledger: Ledger) -> RunSpec:
        parent = ledger.run(run, settings.run_target)
        return retry_spec(ledger, parent, merchants, settings, wanted, selection)

    return begin(work, _place(out), **(options | {"settings": settings}))


def start_resume(run: str, **options: Any) -> RunHandle:
    """Go on with an unfinished run from what the ledger holds of it; takes what `resume` takes."""
    settings = _settings(options.get("settings"), options.pop("target", None))
    record = open_run(run, settings=settings).record
    manner = {name: record.settings[name] for name in ("skip_unchanged", "canary") if name in record.settings}
    return begin(
        lambda _: resume_spec(record),
        _place(record.out or None),
        **(manner | options | {"settings": settings, "resume": record.id}),
    )


def links(batch: Batch, *, out: str | Path = "links.csv", **options: Any) -> Run:
    """Ask for an upload link per row, and write them to `out` (0600). Local files are not looked at.

    Options: `settings`, `target` (`simulator`: the embedded one; or a URL), `limits` (a RunLimits), `progress` (called with a Progress after commits), `note`, `new_run`,
    `resume` (a run's id), `may_resume` (asked about an unfinished run over a day old: its id, when it began),
    `tokens` (a TokenSource).
    """
    return start_links(batch, out=out, **options).wait()


def upload(batch: Batch, **options: Any) -> Run:
    """Upload the batch's files, each with its own link. Takes the options of `links`, but `out`.

    Also `skip_unchanged` (rows whose bytes an earlier run of this target put there end as unchanged) and `canary` (so
    many environments first; the run stops there when one of their rows is not good: CanaryError). A batch that was
    read without a root is checked against the list's own folder first (InputError).
    """
    return start_upload(batch, **options).wait()


def audit(merchants: Merchants, **options: Any) -> Run:
    """Ask for one link per environment, for a probe path; nothing is uploaded. Takes the options of `links`, but `out`."""
    return start_audit(merchants, **options).wait()


def retry(run: str, merchants: Merchants, **options: Any) -> Run:
    """Run a finished run's refused, failed and not attempted rows again, as a run whose parent it is.

    `codes`: only rows that ended with one of these errcodes or store codes. `out`: where the links go, if it was a
    links run. Else the options of `links`.
    """
    return start_retry(run, merchants, **options).wait()


def resume(run: str = "latest", **options: Any) -> Run:
    """Go on with an unfinished run: its rows, files and manner are the ledger's, the list is not needed.

    Takes the options of `links`, but `out`, `note`, `new_run` and `resume`. Raises UsageError where the run is
    finished, or somebody works on it.
    """
    return start_resume(run, **options).wait()


def open_run(wanted: str = "latest", *, settings: Settings | None = None, target: str | None = None) -> Run:
    """Open a run by id, unambiguous prefix, or `latest` (of `target`, else the settings'). Raises RunNotFoundError."""
    settings = _settings(settings, target)
    ledger = _ledger_with_runs(settings)
    return Run(ledger, _find(ledger, wanted, settings), settings)


def all_runs(*, settings: Settings | None = None) -> list[Run]:
    """List the runs of the ledger, the newest first."""
    settings = settings or default_settings()
    ledger = _ledger(settings)
    return [Run(ledger, record, settings) for record in ledger.runs()] if ledger is not None else []


def check_merchants(
    merchants: Iterable[Merchant],
    *,
    settings: Settings | None = None,
    target: str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[MerchantState]:
    """Look at what each line of a merchants file can do today: token, permission set, 云开发, environment, calls left.

    `progress` is called with the mini programs done and their number. Raises SettingsError, StoppedError.
    """
    from tcb_ops.merchants.check import merchant_states
    from tcb_ops.simulator import opened_target

    lines = list(merchants)
    with opened_target(_settings(settings, target), lines) as opened:
        return merchant_states(opened, lines, progress=progress)


def diff(
    older: str | Run,
    newer: str | Run = "latest",
    *,
    settings: Settings | None = None,
    target: str | None = None,
) -> Diff:
    """Compare two runs of one kind and target: newly broken, mended, still broken, by merchant and cause.

    Each is a Run, an id, a prefix or `latest`. Raises RunNotFoundError, and UsageError where they cannot be compared.
    """
    from tcb_ops.run import Diff

    settings = _settings(settings, target)
    ledger = _ledger_with_runs(settings)
    before, after = (
        run.record if isinstance(run, Run) else _find(ledger, run, settings) for run in (older, newer)
    )
    return Diff.between(ledger, before, after, settings)


def history(days: int = 30, *, settings: Settings | None = None, target: str | None = None) -> History:
    """Errcodes by day and merchant over all runs of `target`, else the settings' one: today and the days before it."""
    from tcb_ops.reports.history import history as look_back
    from tcb_ops.run import History

    settings = _settings(settings, target)
    return History.of(look_back(_ledger(settings), settings.run_target, settings, days=days, now=time.time()))


def verify(folder: str | Path, *, settings: Settings | None = None) -> Verification:
    """Check a report folder against its manifest, the ledger and the list, as far as they are there.

    Nothing is written. Raises UsageError where the folder holds no report.
    """
    from tcb_ops.reports.verify import verify as check

    settings = settings or default_settings()
    place = Path(folder)
    lists = (Path(), settings.merchants.parent, *place.absolute().parents[:2])
    return check(place, _ledger(settings), lists)


def _settings(settings: Settings | None, target: str | None) -> Settings:
    return aim(settings or default_settings(), target)


def _ledger(settings: Settings) -> Ledger | None:
    """The ledger, to look at; one that is not there is not made by looking."""
    from tcb_ops.runs.ledger import Ledger

    there = "://" in settings.ledger or Path(settings.ledger).exists()
    return Ledger(settings.ledger) if there else None


def _ledger_with_runs(settings: Settings) -> Ledger:
    ledger = _ledger(settings)
    if ledger is None:
        where = settings.ledger
        raise RunNotFoundError(
            Text(
                f"{where} is not there: no run was begun with this ledger yet. Check the working folder, and --ledger.",
                f"{where} 不存在：还没有任务使用过这个台账。请检查当前文件夹和 --ledger。",
            )
        )
    return ledger


def _find(ledger: Ledger, wanted: str, settings: Settings) -> RunRecord:
    """Find a run; where there is none, say also how to list the runs."""
    from tcb_ops.runs.next_commands import command, quoted

    try:
        return ledger.run(wanted, settings.run_target)
    except RunNotFoundError as error:
        listing = quoted(command(settings, "runs"))
        raise RunNotFoundError(
            Text(
                f"{error.text.en}\nTo list the runs:\n{listing}",
                f"{error.text.zh}\n查看所有任务：\n{listing}",
            )
        ) from None


def upload_link(
    env: str,
    path: str,
    *,
    appid: str | None = None,
    settings: Settings | None = None,
    target: str | None = None,
) -> Link:
    """Ask for one upload link, for ad-hoc work. Its secret parts show themselves only through `.reveal()`.

    `appid` is needed where several merchants share the environment. Raises UsageError (unknown env, bad path),
    TokenError, TransportError, RefusedError (the platform's errcode).
    """
    from tcb_ops.lists.merchants import read_merchants
    from tcb_ops.lists.validate import path_problem
    from tcb_ops.runs.loop import hand_over
    from tcb_ops.simulator import opened_target

    settings = _settings(settings, target)
    wrong = path_problem(path)
    if wrong is not None:
        raise UsageError(wrong[0])
    merchants = read_merchants(settings.merchants)
    callers = merchants.for_env(env)
    chosen = (
        [m for m in callers if m.appid == appid]
        if appid
        else [m for m in callers if m.default] or list(callers)
    )
    if len(chosen) != 1:
        known = ", ".join(m.appid for m in callers) or "-"
        raise UsageError(
            Text(
                f"environment {env}: {len(chosen)} merchants fit (it has {known}); name one with appid=.",
                f"环境 {env}：符合的商户有 {len(chosen)} 个（该环境：{known}），请用 appid= 指定。",
            )
        )
    with opened_target(settings, merchants) as opened:
        return hand_over(_one_link(env, path, chosen[0].appid, chosen[0].owner, opened)).result()


async def _one_link(env: str, path: str, appid: str, owner: Owner, settings: Settings) -> Link:
    from tcb_ops.errcodes import Decision, errcode
    from tcb_ops.errors import TokenError, TransportError, TransportFault
    from tcb_ops.runs.stop_errors import NO_COMPONENT
    from tcb_ops.wechat.client import PlatformClient, UnsafeLink
    from tcb_ops.wechat.responses import InvalidResponse, Refusal
    from tcb_ops.wechat.tokens import open_source
    from tcb_ops.wechat.transport import Transport

    if owner is Owner.PLATFORM:
        appid = settings.tokens.component_appid
        if not appid:
            raise TokenError(NO_COMPONENT)
    source = open_source(settings)
    try:
        async with Transport(connections=1) as transport:
            wechat = PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts)
            token = (await source.token(appid)).value
            answer = await wechat.upload_link(env, path, token, owner)
            if isinstance(answer, Refusal) and errcode(answer.errcode).decision is Decision.REFRESH:
                token = (await source.token(appid, token)).value
                answer = await wechat.upload_link(env, path, token, owner)
    finally:
        await source.aclose()
    match answer:
        case Refusal():
            known = errcode(answer.errcode, owner)
            raise RefusedError(
                Text(
                    f"errcode {answer.errcode} {answer.errmsg}: {known.meaning.en}. {known.action.en}",
                    f"errcode {answer.errcode} {answer.errmsg}：{known.meaning.zh}。{known.action.zh}",
                ),
                answer.errcode,
            )
        case InvalidResponse() | UnsafeLink():
            raise TransportError(TransportFault.GARBAGE, answer.why)
        case _:
            return answer


def _place(path: str | Path | None) -> Path | None:
    return Path(path).absolute() if path is not None else None
