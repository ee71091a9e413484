"""Before anything is sent: which run this is, a new one or one to go on with, and its rows in the ledger."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.runs.ledger import SAME_RUN, Ledger
from tcb_ops.runs.locks import host_name, operator_name
from tcb_ops.runs.next_commands import quoted
from tcb_ops.runs.next_commands import resume as resume_command
from tcb_ops.runs.records import NewRun, RunRecord
from tcb_ops.runs.spec import RunSpec
from tcb_ops.settings import Settings


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
    work: RunSpec,
    settings: Settings,
    *,
    out: Path | None,
    manner: Mapping[str, Any],
    note: str = "",
    new_run: bool = False,
    resume: str = "",
    now: float,
    may_go_on: Callable[[str, float], bool] = lambda _run, _begun: False,
) -> Planned:
    """Find the run to go on with, or write a new one. Nothing is sent.

    `out` is where the run's links.csv or its report is to go; None for no report. `manner` goes into the manifest: how the run was told to work. `may_go_on` is asked about an unfinished run over a
    day old (its id, when it began); where it says no and neither `new_run` nor `resume` says what to do, UsageError.
    """
    if resume:
        return _resumed(ledger, _wanted(ledger.run(resume, settings.run_target), work, settings))
    found = _same_work(ledger, work, settings, now)
    choice = choose(found.created_at if found else None, now, new_run=new_run)
    if found is not None and choice is Choice.ASK and not may_go_on(found.id, found.created_at):
        begun = datetime.fromtimestamp(found.created_at, settings.zone).isoformat(" ", "minutes")
        again = quoted(resume_command(settings, found))
        raise UsageError(
            Text(
                f"run {found.id} of this list, begun {begun}, is unfinished and over a day old. --new-run starts another. "
                f"To resume it:\n{again}",
                f"此清单有一个超过一天的未完成任务 {found.id}（开始于 {begun}）。用 --new-run 可重新开始；要继续它：\n{again}",
            )
        )
    if found is not None and choice is not Choice.NEW:
        return _resumed(ledger, found)
    new = NewRun(
        id=_new_id(now, settings),
        kind=work.kind,
        target=settings.run_target,
        list_name=work.list_name,
        list_sha256=work.list_sha256,
        list_bytes=work.list_bytes,
        headers=work.headers,
        root=work.root_name,
        settings={
            "selection": work.selection,
            "etag": settings.etag,
            "tokens": settings.tokens.source,
            "timezone": settings.timezone,
            **manner,
        },
        note="".join(letter if letter.isprintable() else " " for letter in note),
        operator=operator_name(),
        host=host_name(),
        out=str(out) if out is not None else "",
        created_at=now,
        parent=work.parent,
    )
    return Planned(ledger.plan(new, work.rows(), work.places, settings.lang), resumed=False)


def _resumed(ledger: Ledger, run: RunRecord) -> Planned:
    ledger.check(run)
    return Planned(run, resumed=True)


def _same_work(ledger: Ledger, work: RunSpec, settings: Settings, now: float) -> RunRecord | None:
    """The newest run that this work may go on with: unfinished, or done today but for its report."""
    for run in ledger.unfinished(work.kind, settings.run_target, work.list_sha256, work.root_name):
        same_part = (run.selection, run.parent) == (work.selection, work.parent)
        if same_part and (run.finished_at is None or now - run.created_at < SAME_RUN.total_seconds()):
            return run
    return None


def _new_id(now: float, settings: Settings) -> str:
    """Make a run's id: the operators' local time, and four hex digits so that two never meet."""
    return f"{datetime.fromtimestamp(now, settings.zone):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _wanted(run: RunRecord, work: RunSpec, settings: Settings) -> RunRecord:
    """Check that a run named with `--resume` is the one this command line means."""
    wrong: Text | None = None
    if run.finished_at is not None:
        wrong = Text("it is finished", "它已完成")
    elif run.kind != work.kind or run.target != settings.run_target:
        wrong = Text(f"it is {run.kind} to {run.target}", f"它是发往 {run.target} 的 {run.kind}")
    elif run.list_sha256 != work.list_sha256:
        wrong = Text("the list has changed since", "清单此后有改动")
    elif run.root != work.root_name:
        wrong = Text(f"its files are below {run.root}", f"它的文件位于 {run.root}")
    if wrong is None:
        return run
    raise UsageError(
        Text(
            f"run {run.id} cannot be gone on with: {wrong.en}. Leave --resume away to begin a new run.",
            f"无法继续任务 {run.id}：{wrong.zh}。去掉 --resume 即可开始新任务。",
        )
    )
