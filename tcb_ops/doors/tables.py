"""Runs, and rows of a run, as a terminal shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from tcb_ops.model import GOOD, Kind, Outcome, Reason, Text, legible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from tcb_ops.model import Lang
    from tcb_ops.run import Run
    from tcb_ops.runs.records import RowRecord
    from tcb_ops.settings import Settings

__all__ = ["rest_of", "rows_table", "runs_table"]


def runs_table(found: Sequence[Run], settings: Settings) -> Table:
    """A line per run. Targets only where there is another than today's, so that 80 columns do."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = {
        "run": Text("run", "任务"),  # its id says when it began
        "kind": Text("kind", "类型"),
        "rows": Text("rows", "行数"),
        "bad": Text("not good", "未成功"),
        "pending": Text("pending", "待处理"),
        "list": Text("list", "清单"),
        "target": Text("target", "目标"),
        "note": Text("note", "备注"),
    }
    if all(run.record.target == settings.run_target for run in found):
        del heads["target"]
    if not any(run.record.note for run in found):
        del heads["note"]
    if all(run.record.finished_at for run in found):
        del heads["pending"]
    for name, head in heads.items():
        number = name in {"rows", "bad", "pending"}
        table.add_column(
            head.of(settings.lang),
            overflow="fold",
            justify="right" if number else "left",
            no_wrap=number or name in {"run", "kind"},
        )
    for run in found:
        record, outcomes = run.record, run.outcomes
        pending = outcomes.get(Outcome.PENDING, 0)
        bad = sum(rows for outcome, rows in outcomes.items() if outcome not in GOOD) - pending
        cells = {
            "run": record.id,
            "kind": record.kind + Text(" (retry)", "（重试）").of(settings.lang) * bool(record.parent),
            "rows": f"{record.rows:,}",
            "bad": f"{bad:,}" if bad else "–",
            "pending": f"{pending:,}" if pending else "–",
            "list": legible(record.list_name),
            "target": record.target.partition("://")[2],
            "note": legible(record.note),
        }
        table.add_row(*(cells[name] for name in heads))
    return table


def rows_table(shown: Sequence[RowRecord], lang: Lang) -> Iterator[RenderableType]:
    """Draw a line per row; then, once for each cause, what it means and what to do."""
    from tcb_ops.reports.folding import Folded
    from tcb_ops.reports.wording import OUTCOMES, reason_text, why

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text("line", "行号").of(lang), justify="right", no_wrap=True)
    table.add_column(Text("merchant", "商户").of(lang), overflow="fold")
    table.add_column(Text("environment", "环境").of(lang), overflow="fold")
    table.add_column(Text("path", "路径").of(lang), overflow="fold")
    table.add_column(Text("outcome", "结果").of(lang), no_wrap=True)
    table.add_column(Text("code", "错误码").of(lang), no_wrap=True)
    causes: dict[tuple[str, str, str], None] = {}
    for record in shown:
        row, end = record.row, record.end
        cause = why(end.outcome, end.reason, end.errcode, end.store_code)
        code = legible(cause.code) if cause is not None else ""
        if cause is not None:
            # Which rule a row broke is its own.
            meaning = reason_text(end) if end.reason is Reason.INVALID else cause.meaning
            causes[code, legible(meaning.of(lang)), legible(cause.action.of(lang))] = None
        table.add_row(
            f"{row.line}",
            legible(row.merchant),
            legible(row.env),
            legible(row.path),
            OUTCOMES[end.outcome].of(lang),
            code,
        )
    yield table
    for named, means, todo in causes:
        yield ""
        yield Folded(f"{named} · {means}", bold=len(named))
        yield Folded(f"→ {todo}")


def rest_of(run: Run) -> str:
    """Where a run's causes stand in full: in its report, or in the one that can be made."""
    return f"tcb-ops report {run.id}" if run.record.kind is Kind.LINKS else "errcodes.csv"
