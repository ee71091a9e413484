"""Before anything is sent: which run this is, a new one or one to go on with, and its rows in the ledger."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tcb_ops.errors import UsageError
from tcb_ops.model import Kind, Text
from tcb_ops.runs.ledger import SAME_RUN
from tcb_ops.runs.linksfile import check_columns
from tcb_ops.runs.locks import host_name, operator_name
from tcb_ops.runs.records import EnvRecord, NewRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.lists.paths import Batch
    from tcb_ops.model import Row
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.records import RunRecord
    from tcb_ops.settings import Settings

__all__ = ["Choice", "Planned", "choose", "plan"]


class Choice(StrEnum):
    """What to do about an unfinished run of the same work."""

    NEW = "new"
    GO_ON = "go_on"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Planned:
    """A run whose rows stand in the ledger."""

    run: RunRecord
    resumed: bool


def choose(unfinished_since: float | None, now: float, *, new_run: bool) -> Choice:
    """Decide whether to begin a run or go on with one.

    =================================  ======
    there is an unfinished run         choice
    =================================  ======
    no, or `--new-run`                 new
    under 24 hours old                 go_on
    older                              ask
    =================================  ======
    """
    if unfinished_since is None or new_run:
        return Choice.NEW
    return Choice.GO_ON if now - unfinished_since < SAME_RUN.total_seconds() else Choice.ASK


def plan(
    ledger: Ledger,
    batch: Batch,
    merchants: Merchants,
    kind: Kind,
    settings: Settings,
    *,
    root: Path,
    out: Path,
    pace: dict[str, Any],
    selection: str = "",
    note: str = "",
    new_run: bool = False,
    resume: str = "",
    now: float,
    may_go_on: Callable[[str, float], bool],
) -> Planned:
    """Find the run to go on with, or write a new one. Nothing is sent.

    `may_go_on` is asked about an unfinished run over a day old. `selection` tells runs over different parts of one list apart (`--where`, `--limit`, `--column`). Raises UsageError
    where it says no and neither `new_run` nor `resume` says what to do.
    """
    if kind is Kind.LINKS:
        check_columns(batch.headers)
    here = str(root.resolve()) if kind is Kind.UPLOAD else ""
    if resume:
        return Planned(
            _wanted(ledger.run(resume, settings.api_base), batch, kind, settings, here), resumed=True
        )
    found = ledger.unfinished(kind, settings.api_base, batch.sha256, here)
    if found is not None and found.settings.get("selection", "") != selection:
        found = None
    match choose(found.created_at if found else None, now, new_run=new_run):
        case Choice.ASK if found is not None and not may_go_on(found.id, found.created_at):
            begun = datetime.fromtimestamp(found.created_at, settings.zone).isoformat(" ", "minutes")
            raise UsageError(
                Text(
                    f"run {found.id} of this list, begun {begun}, is unfinished and over a day old: "
                    f"--resume {found.id} goes on with it, --new-run begins anew.",
                    f"此清单有一个超过一天的未完成任务 {found.id}（开始于 {begun}）："
                    f"用 --resume {found.id} 继续，或用 --new-run 重新开始。",
                )
            )
        case Choice.GO_ON | Choice.ASK if found is not None:
            return Planned(found, resumed=True)
        case _:
            pass
    new = NewRun(
        id=new_id(now, settings),
        kind=kind,
        target=settings.api_base,
        list_name=batch.source.name,
        list_sha256=batch.sha256,
        list_bytes=batch.bytes,
        headers=batch.headers,
        root=here,
        settings={
            "selection": selection,
            "etag": settings.etag,
            "tokens": settings.tokens.source,
            "timezone": settings.timezone,
            **pace,
        },
        note=note,
        operator=operator_name(),
        host=host_name(),
        out=str(out),
        created_at=now,
    )
    places = _places(batch.rows(), merchants)
    return Planned(ledger.plan(new, batch.rows(), places, settings.lang), resumed=False)


def new_id(now: float, settings: Settings) -> str:
    """Make a run's id: the operators' local time, and four hex digits so that two never meet."""
    return f"{datetime.fromtimestamp(now, settings.zone):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _wanted(run: RunRecord, batch: Batch, kind: Kind, settings: Settings, root: str) -> RunRecord:
    """Check that a run named with `--resume` is the one this command line means."""
    wrong: Text | None = None
    if run.finished_at is not None:
        wrong = Text("it is finished", "它已完成")
    elif run.kind != kind or run.target != settings.api_base:
        wrong = Text(f"it is {run.kind} to {run.target}", f"它是发往 {run.target} 的 {run.kind}")
    elif run.list_sha256 != batch.sha256:
        wrong = Text("the list has changed since", "清单此后有改动")
    elif run.root != root:
        wrong = Text(f"its files are below {run.root}", f"它的文件位于 {run.root}")
    if wrong is None:
        return run
    raise UsageError(
        Text(
            f"run {run.id} cannot be gone on with: {wrong.en}. Leave --resume away to begin a new run.",
            f"无法继续任务 {run.id}：{wrong.zh}。去掉 --resume 即可开始新任务。",
        )
    )


def _places(rows: Iterable[Row], merchants: Merchants) -> list[EnvRecord]:
    """Number the environments of a list, in the order in which they come up."""
    known = {(m.env, m.appid): m for m in merchants}
    places: dict[tuple[str, str], EnvRecord] = {}
    for row in rows:
        key = (row.env, row.appid)
        if key not in places:
            merchant = known.get(key)
            place = EnvRecord(len(places), row.env, row.appid, row.merchant, "merchant", left=False)
            if merchant is not None:
                place = replace(place, owner=str(merchant.owner), left=merchant.left)
            places[key] = place
    return list(places.values())
