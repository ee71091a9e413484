"""The commands that look at what happened: runs, show, errcodes, report, explain."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click

from tcb_ops.cli.console import Console, rows_table, runs_table
from tcb_ops.cli.options import common_options, shared_options
from tcb_ops.cli.runs import show_run
from tcb_ops.errors import LedgerDamagedError, UsageError
from tcb_ops.i18n import Text, plural
from tcb_ops.model import Outcome, Owner, Reason
from tcb_ops.run import Run
from tcb_ops.runs.records import RowRecord
from tcb_ops.settings import Settings

ROWS_SHOWN = 200
"""Rows that `show` prints of a run before it points to the report."""


@click.command()
@click.option("--operator", default="", metavar="NAME", help="Only runs of this operator.")
@click.option("--host", default="", metavar="NAME", help="Only runs on this machine.")
@shared_options
def runs(operator: str, host: str, **values: Any) -> int:
    """List the runs, the newest first.

    --note TEXT: only runs whose note holds it.
    """
    import tcb_ops as tcb

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    given.say_ledger(screen, settings)
    found = [
        run
        for run in tcb.all_runs(settings=settings)
        if given.note in run.record.note
        and operator in {"", run.record.operator}
        and host in {"", run.record.host}
    ]
    sound: list[tuple[Run, dict[str, Any]]] = []
    damaged: list[LedgerDamagedError] = []
    for run in found:
        try:
            sound.append((run, run.summary() if given.json else run.counts))
        except LedgerDamagedError as error:  # it does not hide the others
            damaged.append(error)
    if given.json:
        screen.json({"runs": [summary | _about(run, settings) for run, summary in sound]})
    elif sound:
        screen.data(runs_table([run for run, _ in sound], settings))
    elif not damaged:
        screen.say(Text(f"No runs in {settings.ledger_name} yet.", f"{settings.ledger_name} 中还没有任务。"))
    for damage in damaged:
        screen.warn(damage.text)
    return damaged[0].exit_code if damaged else 0


@click.command()
@click.argument("run", default="latest")
@click.option("--line", type=int, help="The row at this line of the list.")
@click.option("--merchant", default="", help="Rows of this merchant (name or appid).")
@click.option("--path", default="", help="Rows whose cloud path holds this.")
@shared_options
def show(run: str, line: int | None, merchant: str, path: str, **values: Any) -> int:
    """Show a run, or rows of it."""
    import tcb_ops as tcb

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    given.say_ledger(screen, settings)
    wanted = tcb.open_run(run, settings=settings)
    if line is None and not merchant and not path:
        if not given.json:
            screen.data(_head(wanted, settings).of(settings.lang))
        show_run(
            screen,
            wanted,
            as_json=given.json,
            where=Path(wanted.record.report) if wanted.record.report else None,
        )
        return 0
    rows = wanted.rows(line=line, merchant=merchant, path=path)
    shown = list(islice(rows, ROWS_SHOWN))
    if given.json:
        screen.json({"run": wanted.id, "rows": [_row(record, settings) for record in shown]})
    elif not shown:
        known = ", ".join(wanted.merchants_like(merchant)) if merchant else ""
        raise UsageError(
            Text(
                f"run {wanted.id} has no such row." + (f" Its merchants are: {known}." if known else ""),
                f"任务 {wanted.id} 中没有这样的行。" + (f"其中的商户有：{known}。" if known else ""),
            )
        )
    elif len(shown) == 1:
        for name, value in _row(shown[0], settings).items():
            if value not in {None, ""}:
                screen.data(f"{name:>16}  {value}")
    else:
        for part in rows_table(shown, settings.lang):
            screen.data(part)
    if next(rows, None) is not None:
        screen.warn(
            Text(
                f"Only the first {ROWS_SHOWN}; results.csv of the report has all.",
                f"仅显示前 {ROWS_SHOWN} 行；全部见报告的 results.csv。",
            )
        )
    return 0


@click.command()
@click.argument("run", default="latest")
@shared_options
def errcodes(run: str, **values: Any) -> int:
    """Tabulate a run's errcodes, with what to do.

    By merchant and environment; `--json` gives the numbers.
    """
    import tcb_ops as tcb
    from tcb_ops.cli.console import rest_of
    from tcb_ops.reports.formats.terminal import render_errcodes
    from tcb_ops.reports.summary import by_code

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    given.say_ledger(screen, settings)
    wanted = tcb.open_run(run, settings=settings)
    if given.json:
        summary = wanted.summary()
        screen.json({key: summary[key] for key in ("run", "errcodes", "store_codes") if key in summary})
        return 0
    causes = wanted.cause_list()
    if causes:
        screen.data(render_errcodes(by_code(causes), settings.lang, rest_of(wanted)))
    else:
        screen.data(
            Text(f"Run {wanted.id}: nothing is wrong.", f"任务 {wanted.id}：没有问题。").of(settings.lang)
        )
    return 0


@click.command()
@click.argument("run", default="latest")
@click.option(
    "--out",
    default=None,
    metavar="DIR",
    help="The report folder; with --into the copy. [default: reports/RUN; beside the original]",
)
@click.option("--final", is_flag=True, help="Join the run with its retries: each row's last state.")
@click.option(
    "--into",
    default=None,
    metavar="ORIGINAL.xlsx",
    help="Write how rows ended beside them, into a copy of the list's own workbook.",
)
@click.option(
    "--split-by",
    default="",
    metavar="COLUMN",
    help="With --into: a workbook per value of this column, with its rows only.",
)
@shared_options
def report(run: str, out: str | None, final: bool, into: str | None, split_by: str, **values: Any) -> int:
    """Write a run's report folder.

    results.csv, failed.csv, errcodes.csv, report.html, report.xlsx and manifest.json. With --into, the workbook for
    colleagues instead.
    """
    import tcb_ops as tcb

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    given.say_ledger(screen, settings)
    if split_by and into is None:
        raise UsageError(
            Text(
                "--split-by parts the workbook that --into names: give both.",
                "--split-by 用于拆分 --into 指定的工作簿：请同时给出这两个选项。",
            )
        )
    wanted = tcb.open_run(run, settings=settings)
    if final:
        asked, wanted = wanted.id, wanted.final()
        screen.say(_joined(asked, wanted))
    as_of = datetime.now(settings.zone).isoformat(" ", "seconds")
    if into is not None:
        written = wanted.write_into(into, out, split_by=split_by)
    else:
        name = f"{wanted.id}-final" if final else wanted.id
        written = wanted.export(out or settings.reports / name)
    if wanted.record.finished_at is None:
        screen.warn(
            Text(
                f"Run {wanted.id} is unfinished: this shows it as of {as_of}. Write it again when the run has ended.",
                f"任务 {wanted.id} 尚未完成：以上内容截至 {as_of}。任务结束后请重新生成。",
            )
        )
    if given.json:
        screen.json(wanted.summary() | ({"into": str(written)} if into is not None else {}))
    else:
        screen.data(str(written))
    return 0


def _joined(asked: str, run: Run) -> Text:
    """Say which runs a final report is made of."""
    retries = run.record.retries
    if not retries:
        return Text(f"Run {run.id} has no retries.", f"任务 {run.id} 没有重试。")
    listed = ", ".join(retries)
    of = Text("", "") if asked == run.id else Text(f" ({asked} is one of them)", f"（其中包括 {asked}）")
    return Text(
        f"Run {run.id} with its retries{of.en}: {listed}. Rows that a retry has not come to keep their earlier state.",
        f"任务 {run.id} 及其重试{of.zh}：{listed}。重试尚未处理到的行保留此前的结果。",
    )


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("code")
@shared_options
def explain(code: str, **values: Any) -> int:
    """Say what a code means and what to do.

    An errcode (85088, -501001) or one of the store's (SlowDown).
    """
    from tcb_ops.errcodes import Errcode, describe, errcode
    from tcb_ops.errcodes import explain as look_up
    from tcb_ops.reports.explanations import COMPONENT_MARK, ETAG_MISMATCH

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    code = {ETAG_MISMATCH: str(Reason.ETAG_MISMATCH)}.get(code, code)
    if code in set(Reason):
        return _explain_reason(screen, Reason(code), as_json=given.json)
    number = code.removesuffix(COMPONENT_MARK)
    of_component = number != code and number.removeprefix("-").isdecimal()
    found = errcode(int(number), Owner.PLATFORM) if of_component else look_up(code)
    itself = describe(found.decision, found.scope)
    if given.json:
        screen.json(
            {
                "code": found.code,
                "known": found.known,
                "meaning": found.meaning.of(settings.lang),
                "action": found.action.of(settings.lang),
                "decision": found.decision,
                "scope": found.scope,
            }
        )
        return 0
    name = f"{found.code} {found.name}" if isinstance(found, Errcode) else found.code
    screen.data(f"{name}: {found.meaning.of(settings.lang)}")
    screen.data(Text(f"What to do: {found.action.en}", f"怎么办：{found.action.zh}").of(settings.lang))
    screen.data(
        Text(f"By itself, tcb-ops {itself.en}.", f"tcb-ops 自动处理：{itself.zh}。").of(settings.lang)
    )
    if isinstance(found, Errcode) and found.source:
        screen.data(Text(f"Source: {found.source}", f"来源：{found.source}").of(settings.lang))
    return 0


def _explain_reason(screen: Console, reason: Reason, *, as_json: bool) -> int:
    """Explain what a row without a code of its own is tabulated under."""
    from tcb_ops.reports.explanations import why

    found = why(Outcome.FAILED, reason, None, "")
    if found is None:  # a reason of rows that are not good always has its texts
        raise AssertionError(reason)
    if as_json:
        screen.json(
            {"code": reason, "meaning": found.meaning.of(screen.lang), "action": found.action.of(screen.lang)}
        )
    else:
        screen.data(f"{reason}: {found.meaning.of(screen.lang)}")
        screen.data(Text(f"What to do: {found.action.en}", f"怎么办：{found.action.zh}").of(screen.lang))
    return 0


def _about(run: Run, settings: Settings) -> dict[str, Any]:
    record = run.record
    return {
        "list": record.list_name,
        "begun": datetime.fromtimestamp(record.created_at, settings.zone).isoformat(timespec="seconds"),
        "finished": record.finished_at is not None,
        "parent": record.parent,
        "operator": record.operator,
        "host": record.host,
        "note": record.note,
    }


def _head(run: Run, settings: Settings) -> Text:
    record = run.record
    begun = datetime.fromtimestamp(record.created_at, settings.zone).isoformat(" ", "seconds")
    state = Text("finished", "已完成") if record.finished_at is not None else Text("unfinished", "未完成")
    why, of = Text("", ""), Text("", "")
    if record.parent:
        of = Text(f", a retry of {record.parent}", f"（{record.parent} 的重试）")
    if record.stopped is not None:
        why = Text(f" ({record.stopped.text.en})", f"（{record.stopped.text.zh}）")
    return Text(
        f"Run {record.id}{of.en} · {record.kind} to {record.target} · {record.list_name}, {plural(record.rows, 'row')} · begun {begun} by {record.operator}@{record.host} · {state.en}{why.en}",
        f"任务 {record.id}{of.zh} · {record.kind} → {record.target} · {record.list_name}，{record.rows:,} 行 · {record.operator}@{record.host} 于 {begun} 开始 · {state.zh}{why.zh}",
    )


def _row(record: RowRecord, settings: Settings) -> dict[str, Any]:
    from tcb_ops.reports.formats.csv import RESULT_COLUMNS, Clock, own_values

    clock = Clock(settings.zone)
    values = dict(zip(RESULT_COLUMNS, own_values(record, settings.lang), strict=True))
    times = {name: clock.iso(values[name]) or None for name in ("tcb_started_at", "tcb_ended_at")}
    return {"path": record.row.path, "file": record.row.file} | values | times
