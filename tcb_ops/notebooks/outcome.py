"""How an unattended notebook ended: what its headless cell says, else the error in a cell; exit code and words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops import errors
from tcb_ops.i18n import Text
from tcb_ops.notebooks.execution_monitor import cell_name, is_shown
from tcb_ops.notebooks.source import Source

if TYPE_CHECKING:
    from nbformat import NotebookNode


def what_was_said(result: Path) -> dict[str, Any]:
    """What the headless cell left, if it came so far."""
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended, in the contract's terms."""

    exit_code: int
    text: Text | None
    run: str | None
    report: str | None


def how_it_ended(
    source: Source,
    content: NotebookNode,
    said: Mapping[str, Any],
    asked: int,
    broke: Exception | None,
    out: Path,
) -> Ending:
    """Tell how it ended, and in what words."""
    failed = _failed(content)
    own = _error_in(failed[1]) if failed is not None else None
    code = exit_code(
        said.get("exit_code"), asked, own and own[0], other=broke is not None or bool(failed and not own)
    )
    told = said.get("text")
    text = Text(told["en"], told["zh"]) if isinstance(told, dict) else own and own[1]
    if text is None and asked and code == asked:
        text = _interrupted(source)
    elif text is None and broke is not None:
        text = _kernel_died(source, broke)
    elif failed is not None and own is None:
        text = _cell_failed(source, *failed, out)
    report = said.get("report")
    if report and Path(report).is_relative_to(out.absolute()):  # as the caller named the folder
        report = str(out / Path(report).relative_to(out.absolute()))
    return Ending(code, text, said.get("run"), report)


def exit_code(said: int | None, asked: int, own: int | None, *, other: bool) -> int:
    """Decide the exit code.

    `said`: by the headless cell. `asked`: by a signal (130, 143), else 0. `own`: of an error of ours in a cell. `other`:
    whether any other error ended it.

    ============  =====  ====  =====  ===========================================
    said          asked  own   other  exit code
    ============  =====  ====  =====  ===========================================
    none          0      none  no     0: it had no run
    any           0      none  no     said
    0, 1          143    none  no     said: the run was over when the signal came
    any           143    any   any    143, but for the line above
    any           0      none  yes    3
    none, 0, 1    0      2     no     2: a cell after the headless one failed
    3             0      2     no     3
    ============  =====  ====  =====  ===========================================
    """
    over = said in {0, 1}
    if asked and (not over or own is not None or other):
        return asked
    if other:
        return 3
    if own is not None and (over or said is None):
        return own
    return said or 0


def _failed(content: NotebookNode) -> tuple[str, NotebookNode] | None:
    """The error output that ended the notebook, and its cell's name."""
    for number, cell in enumerate(filter(is_shown, content.cells), 1):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return cell_name(cell, number), output
    return None


def _error_in(output: NotebookNode) -> tuple[int, Text] | None:
    """Our own error as a notebook shows it: its exit code and its sentence; None for any other error."""
    kind = getattr(errors, output.ename, None) if output.ename in vars(errors) else None
    if kind is None:
        return None
    en, zh = (*output.traceback, output.evalue, output.evalue)[:2]
    return kind.exit_code, Text(en, zh)


def _interrupted(source: Source) -> Text:
    return Text(
        f"{source.name}: interrupted. The same command goes on.",
        f"{source.name}：已中断。再次运行同一命令即可继续。",
    )


def _kernel_died(source: Source, broke: Exception | None) -> Text:
    why = (str(broke).splitlines() or [""])[0] or type(broke).__name__
    return Text(
        f"{source.name}: its Python kernel could not be started, or died ({why}). What was committed is safe, and the "
        "same command goes on.",
        f"{source.name}：Python 内核无法启动或已退出（{why}）。已提交的内容是安全的，再次运行同一命令即可继续。",
    )


def _cell_failed(source: Source, cell: str, output: NotebookNode, out: Path) -> Text:
    what = f"{output.ename}: {output.evalue}".removesuffix(": ").partition("\n")[0].rstrip(".")
    there = out / f"{source.name}.ipynb"
    return Text(
        f"{source.name}: the cell “{cell}” failed with {what}. The trace is in {there}.",
        f"{source.name}：单元格“{cell}”出错：{what}。详细信息见 {there}。",
    )
